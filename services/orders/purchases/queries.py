"""What gateways may ask about purchases."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from services.orders.lessons.domain import Lesson
from services.orders.lessons.tables import LessonRow
from services.orders.objections.domain import Objection
from services.orders.objections.tables import ObjectionRow
from services.orders.purchases import contract
from services.orders.purchases.domain import Contract, Purchase
from services.orders.purchases.tables import ContractRow, PurchaseRow
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.orders import LessonView, PurchaseView, ShowPurchase
from shared.messaging.work import UnitOfWork

NOTHING_RETURNED: Final[Mapping[int, int]] = MappingProxyType({})


def view(
    purchase: Purchase,
    lessons: Sequence[Lesson] = (),
    shown_contract: str = "",
    returned_fen: Mapping[int, int] = NOTHING_RETURNED,
) -> PurchaseView:
    """The purchase as its family sees it; of `lessons`, consumed is what is confirmed, left is what is not.

    `returned_fen` is what went back of each lesson that was divided; such a lesson is neither consumed nor left.
    """
    consumed = [lesson for lesson in lessons if lesson.consumed]
    divided = [lesson for lesson in lessons if lesson.state == "divided"]
    returned = sum(returned_fen.values())
    consumed_fen = sum(lesson.price_fen for lesson in (*consumed, *divided)) - returned
    return PurchaseView(
        order_id=purchase.order_id,
        state=purchase.state,
        reason=purchase.reason,
        course_id=purchase.course_id,
        institution_id=purchase.institution_id,
        title=purchase.title,
        price_fen=purchase.price_fen,
        contract_sha256=purchase.contract_sha256,
        contract=shown_contract,
        act_by=purchase.act_by,
        lessons=tuple(
            LessonView(
                lesson_no=lesson.lesson_no,
                starts_at=lesson.starts_at,
                ends_at=lesson.ends_at,
                price_fen=lesson.price_fen,
                state=lesson.state,
                confirmed_by=lesson.confirmed_by,
                answer_by=lesson.answer_by,
                returned_fen=returned_fen.get(lesson.lesson_no, 0),
            )
            for lesson in lessons
        ),
        consumed_lessons=len(consumed),
        consumed_fen=consumed_fen,
        left_lessons=len(lessons) - len(consumed) - len(divided),
        left_fen=sum(lesson.price_fen for lesson in lessons) - consumed_fen - returned,
        returned_fen=returned,
    )


async def show_purchase(work: UnitOfWork, message: Message[ShowPurchase]) -> None:
    """A purchase with its contract and lessons; for its guardian, its institution, and authorities.

    Whose it is not, is told the same as if it did not exist.
    """
    actor = work.actor(message, "guardian", "institution", "authority", "operator")
    order_id = message.data.order_id
    purchase = (await work.load(PurchaseRow, Purchase, [order_id], lock=False)).get(order_id)
    owner = {
        "guardian": str(purchase.account_id) if purchase else "",
        "institution": str(purchase.institution_id) if purchase else "",
    }
    if purchase is None or owner.get(actor.role, actor.subject) != actor.subject:
        raise Refused("order_unknown")
    drawn = (await work.load(ContractRow, Contract, [order_id], lock=False)).get(order_id)
    lessons = await work.load_all(LessonRow, Lesson, [order_id], by=("order_id",), lock=False)
    divided = {(order_id, lesson.lesson_no): lesson for lesson in lessons if lesson.state == "divided"}
    objections = await work.load(ObjectionRow, Objection, divided, lock=False)
    returned = {key[1]: one.returned_fen(divided[key].price_fen) for key, one in objections.items()}
    work.reply(message, view(purchase, lessons, contract.shown(work.ring, drawn.text if drawn else ""), returned))
