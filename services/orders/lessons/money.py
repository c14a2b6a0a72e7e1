"""What escrow is told about a lesson's fee."""

from typing import Any

from services.orders.lessons.domain import Lesson
from shared.contracts import topics
from shared.contracts.envelope import Message
from shared.contracts.escrow import DivideLesson, ReleaseLesson
from shared.messaging.work import UnitOfWork


def release(work: UnitOfWork, lesson: Lesson, cause: Message[Any]) -> None:
    """The lesson is confirmed: all of its fee goes to the institution."""
    command = ReleaseLesson(order_id=lesson.order_id, lesson_no=lesson.lesson_no)
    work.send(command, cause, replyto=topics.replies("orders"))


def divide(work: UnitOfWork, lesson: Lesson, release_fen: int, cause: Message[Any]) -> None:
    """The lesson is divided: `release_fen` of its fee goes to the institution, the rest back to the guardian."""
    command = DivideLesson(order_id=lesson.order_id, lesson_no=lesson.lesson_no, release_fen=release_fen)
    work.send(command, cause, replyto=topics.replies("orders"))
