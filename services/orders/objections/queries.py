"""What gateways may ask about objections."""

from services.orders.lessons.domain import Enrolment, Lesson
from services.orders.lessons.tables import LessonRow
from services.orders.objections.domain import Objection
from services.orders.objections.tables import ObjectionRow
from services.orders.purchases.tables import PurchaseRow
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.orders import ObjectionView, ShowObjection
from shared.messaging.work import UnitOfWork


def view(objection: Objection, lesson: Lesson) -> ObjectionView:
    """The objection as all three sides see it."""
    return ObjectionView(
        order_id=objection.order_id,
        lesson_no=objection.lesson_no,
        state=objection.state,
        reason=objection.reason,
        evidence=objection.evidence,
        objected_at=objection.objected_at,
        act_by=objection.act_by,
        overdue=objection.overdue,
        answer=objection.answer,
        answered_at=objection.answered_at,
        decision=objection.decision,
        decision_reason=objection.decision_reason,
        decided_by=objection.decided_by,
        decided_at=objection.decided_at,
        release_fen=objection.release_fen,
        return_fen=objection.returned_fen(lesson.price_fen),
    )


async def show_objection(work: UnitOfWork, message: Message[ShowObjection]) -> None:
    """The objection to a lesson; for its guardian, its institution, and authorities.

    Whose order it is not, is told the same as if it did not exist.
    """
    actor = work.actor(message, "guardian", "institution", "authority")
    order_id, key = message.data.order_id, (message.data.order_id, message.data.lesson_no)
    purchase = (await work.load(PurchaseRow, Enrolment, [order_id], lock=False)).get(order_id)
    if purchase is None or not actor.may_see(guardian=purchase.account_id, institution=purchase.institution_id):
        raise Refused("order_unknown")
    lesson = (await work.load(LessonRow, Lesson, [key], lock=False)).get(key)
    if lesson is None:
        raise Refused("lesson_unknown", lessons=purchase.lessons)
    objection = (await work.load(ObjectionRow, Objection, [key], lock=False)).get(key)
    if objection is None:
        raise Refused("objection_unknown")
    work.reply(message, view(objection, lesson))
