"""What gateways are told of a lesson."""

from services.orders.lessons.domain import Lesson
from shared.contracts.orders import LessonAnswer


def answer(lesson: Lesson) -> LessonAnswer:
    """The lesson after what was asked."""
    return LessonAnswer(
        order_id=lesson.order_id, lesson_no=lesson.lesson_no, state=lesson.state, answer_by=lesson.answer_by
    )
