"""What gateways may ask about purchases."""

from collections.abc import Sequence

from services.orders.lessons.domain import Lesson
from services.orders.lessons.tables import LessonRow
from services.orders.purchases import contract
from services.orders.purchases.domain import Contract, Purchase
from services.orders.purchases.tables import ContractRow, PurchaseRow
from services.orders.views import deadlines
from services.orders.views.queries import Waits, deadlines_of
from services.orders.views.sums import sums_of
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.orders import Deadline, LessonView, PurchaseView, ShowPurchase
from shared.messaging.work import UnitOfWork


def view(
    purchase: Purchase,
    lessons: Sequence[Lesson] = (),
    shown_contract: str = "",
    coming: tuple[Deadline, ...] | None = None,
) -> PurchaseView:
    """The purchase as its family sees it. Where `coming` is not given, its own deadline is all there is."""
    sums = sums_of((lesson.state, 1, lesson.price_fen, lesson.returned_fen) for lesson in lessons)
    if coming is None:
        coming = deadlines.nearest(deadlines.of_purchase(purchase.state, purchase.act_by))
    return PurchaseView(
        order_id=purchase.order_id,
        state=purchase.state,
        reason=purchase.reason,
        detail=purchase.detail,
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
                returned_fen=lesson.returned_fen,
            )
            for lesson in lessons
        ),
        consumed_lessons=sums.consumed_lessons,
        consumed_fen=sums.consumed_fen,
        left_lessons=sums.left_lessons,
        left_fen=sums.left_fen,
        refunded_lessons=sums.refunded_lessons,
        refunded_fen=sums.refunded_fen,
        deadlines=coming,
    )


async def show_purchase(work: UnitOfWork, message: Message[ShowPurchase]) -> None:
    """A purchase with its contract and lessons; for its guardian, its institution, and authorities.

    Whose it is not, is told the same as if it did not exist.
    """
    actor = work.actor(message, "guardian", "institution", "authority", "operator")
    order_id = message.data.order_id
    purchase = (await work.load(PurchaseRow, Purchase, [order_id], lock=False)).get(order_id)
    if purchase is None or not actor.may_see(guardian=purchase.account_id, institution=purchase.institution_id):
        raise Refused("order_unknown")
    drawn = (await work.load(ContractRow, Contract, [order_id], lock=False)).get(order_id)
    lessons = await work.load_all(LessonRow, Lesson, [order_id], by=("order_id",), lock=False)
    waiting = [(one.lesson_no, one.answer_by) for one in lessons if one.state == "applied" and one.answer_by]
    coming = await deadlines_of(work, [Waits(order_id, purchase.state, purchase.act_by, waiting)])
    shown_contract = contract.shown(work.ring, drawn.text if drawn else "")
    work.reply(message, view(purchase, lessons, shown_contract, coming[order_id]))
