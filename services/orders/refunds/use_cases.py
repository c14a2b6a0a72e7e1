"""What happens to refunds: the order's lessons are locked, the rules decide, escrow is told, everybody hears."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from services.orders.lessons.domain import Lesson
from services.orders.lessons.tables import LessonRow
from services.orders.purchases.tables import PurchaseRow
from services.orders.refunds import domain
from services.orders.refunds.domain import Order, Quote, Refund
from services.orders.refunds.queries import view
from services.orders.refunds.tables import RefundRow
from shared.contracts import topics
from shared.contracts.catalog import GiveBackSeat
from shared.contracts.envelope import Message, Problem
from shared.contracts.errors import Refused
from shared.contracts.escrow import PayoutReturned, RefundDelayed, Refunded, RefundOrder, Settled
from shared.contracts.orders import (
    AnswerRefund,
    DecideRefund,
    QuoteRefund,
    RefundDeadline,
    RefundMoved,
    RefundQuote,
    RequestRefund,
    WithdrawRefund,
)
from shared.messaging.work import UnitOfWork
from shared.policy import Policy, policy_for
from shared.working_days import shanghai

CHANGING: Final = (
    *("state", "ground", "lessons", "fee_fen", "deduction_fen", "act_by", "answer", "decision", "decided_by"),
    *("overdue", "trouble", "closed_at"),
)


async def quote(work: UnitOfWork, message: Message[QuoteRefund]) -> None:
    """What would go back now; nothing is changed."""
    order_id = message.data.order_id
    order = await order_of(work, order_id)
    _require_guardian(work, message, order)
    domain.require_enrolled(order)
    lessons = await work.load_all(LessonRow, Lesson, [order_id], by=("order_id",), lock=False)
    existing = domain.latest(await work.load_all(RefundRow, Refund, [order_id], by=("order_id",), lock=False))
    offered = domain.quote(order, lessons, policy_of(work, order), message.data.at_fault, work.now)
    domain.require_refundable(existing, offered)
    work.reply(message, _shown(order_id, offered))


def _shown(order_id: UUID, offered: Quote) -> RefundQuote:
    return RefundQuote(
        order_id=order_id,
        ground=offered.ground,
        lessons=tuple(offered.lessons),
        pending=tuple(offered.pending),
        lines=tuple(offered.lines),
        refund_fen=offered.refund_fen,
        materials_at_most_fen=offered.materials_fen,
        needs_answer=offered.needs_answer,
    )


async def request(work: UnitOfWork, message: Message[RequestRefund]) -> None:
    """The guardian asks: its lessons can be filed no more. Paid at once where the institution has no say."""
    data = message.data
    order = await order_of(work, data.order_id)
    _require_guardian(work, message, order)
    lessons, refunds = await lock(work, data.order_id)
    known = next((one for one in refunds if one.refund_id == data.refund_id), None)
    if known is not None:
        work.reply(message, view(known))
        return
    if await work.load(RefundRow, Refund, [data.refund_id], lock=False):
        raise Refused("refund_exists")  # of another order
    domain.require_enrolled(order)
    policy = policy_of(work, order)
    offered = domain.quote(order, lessons, policy, data.at_fault, work.now)
    domain.require_refundable(domain.latest(refunds), offered)
    domain.require_settled(offered, data.excluded, data.quoted_fen)
    refund = domain.ask(order, offered, data.refund_id, data.reason, policy, work.now)
    if not offered.needs_answer:
        domain.approve(refund, policy, work.now)
    work.update(LessonRow, domain.mark(lessons, refund.lessons, "refunding"), "state")
    begin(work, refund, message)
    work.insert(RefundRow, [refund])
    work.reply(message, view(refund))


async def withdraw(work: UnitOfWork, message: Message[WithdrawRefund]) -> None:
    """The guardian takes it back: its lessons are planned again."""
    lessons, refund, _ = await _theirs(work, message, "guardian")
    if domain.withdraw(refund, work.now):
        work.update(LessonRow, domain.mark(lessons, refund.lessons, "planned"), "state")
        _save(work, refund, message)
    work.reply(message, view(refund))


async def answer(work: UnitOfWork, message: Message[AnswerRefund]) -> None:
    """The institution agrees or objects."""
    data = message.data
    _, refund, policy = await _theirs(work, message, "institution")
    if domain.answer(refund, data.agrees, data.used_materials_fen, data.words, policy, work.now):
        _save(work, refund, message)
    work.reply(message, view(refund))


async def decide(work: UnitOfWork, message: Message[DecideRefund]) -> None:
    """The authority decides: lessons that are not granted are planned again."""
    actor = work.actor(message, "authority")
    data = message.data
    lessons, refund, policy = await _theirs(work, message, "authority")
    asked = refund.lessons
    prices = {lesson.lesson_no: lesson.price_fen for lesson in lessons}
    if domain.decide(
        refund, prices, data.granted, data.lessons, data.deduction_fen, data.reason, actor.subject, policy, work.now
    ):
        given = refund.lessons if refund.state == "paying" else []
        not_granted = [number for number in asked if number not in given]
        work.update(LessonRow, domain.mark(lessons, not_granted, "planned"), "state")
        _save(work, refund, message)
    work.reply(message, view(refund))


async def deadline(work: UnitOfWork, message: Message[RefundDeadline]) -> None:
    """Nobody has acted in time; a refund that has moved on is not late."""
    order = await order_of(work, message.data.order_id)
    _, refunds = await lock(work, message.data.order_id)
    refund = _find(refunds, message.data.refund_id)
    if refund.state == message.data.state and domain.late(refund, policy_of(work, order), work.now):
        _save(work, refund, message)


async def paid(work: UnitOfWork, messages: Sequence[Message[Refunded]]) -> None:
    """The bank has paid the one refund of an order back; purchases that were given up have none here."""
    for message in messages:
        lessons, refunds = await lock(work, message.data.order_id)
        refund = domain.latest(refunds)
        if refund is not None and refund.state == "paying":
            domain.close(refund, "paid", work.now)
            work.update(LessonRow, domain.mark(lessons, refund.lessons, "refunded"), "state")
            _save(work, refund, message)


async def delayed(work: UnitOfWork, message: Message[RefundDelayed]) -> None:
    """The bank refused a refund, or it came back."""
    if message.data.lesson_no:
        return
    lessons, refunds = await lock(work, message.data.order_id)
    refund = domain.latest(refunds)
    if refund is None:
        return
    order = await order_of(work, message.data.order_id)
    if domain.delayed(refund, message.data.outcome, message.data.reason, policy_of(work, order), work.now):
        work.update(LessonRow, domain.mark(lessons, refund.lessons, "refunding"), "state")
        _save(work, refund, message)


async def kept(work: UnitOfWork, messages: Sequence[Message[Settled] | Message[PayoutReturned]]) -> None:
    """What institutions keep of refunds was paid out, or came back."""
    orders = {message.data.order_id for message in messages}
    refunds = await work.load_all(RefundRow, Refund, orders, by=("order_id",))
    changed: dict[UUID, Refund] = {}
    for message in messages:
        refund = domain.latest([one for one in refunds if one.order_id == message.data.order_id])
        if refund is not None and domain.kept(refund, work.now if isinstance(message.data, Settled) else None):
            changed[refund.refund_id] = refund
    work.update(RefundRow, changed.values(), "kept_paid_at")


async def refused(work: UnitOfWork, messages: Sequence[Message[Problem]]) -> None:
    """Escrow has refused a refund: a person must look why; it is asked again when it is overdue."""
    for message in messages:
        if message.data.request_type == RefundOrder.TYPE:
            _, refunds = await lock(work, UUID(message.partitionkey))
            refund = domain.latest(refunds)
            if refund is not None and domain.not_taken(refund, message.data.code):
                work.update(RefundRow, [refund], "trouble")


# --- what all of them need ----------------------------------------------------------------------------------------


async def order_of(work: UnitOfWork, order_id: UUID) -> Order:
    """What is known of the order, not locked: what refunds read of it does not change once it is paid."""
    order = (await work.load(PurchaseRow, Order, [order_id], lock=False)).get(order_id)
    if order is None:
        raise Refused("order_unknown")
    return order


async def lock(work: UnitOfWork, order_id: UUID) -> tuple[list[Lesson], list[Refund]]:
    """The order's lessons and refunds, in that order: whoever decides about a lesson comes before this or after."""
    lessons = await work.load_all(LessonRow, Lesson, [order_id], by=("order_id",))
    return lessons, await work.load_all(RefundRow, Refund, [order_id], by=("order_id",))


def policy_of(work: UnitOfWork, order: Order) -> Policy:
    """The rules of the day the contract was signed."""
    return policy_for(work.region, order.category, shanghai(order.signed_at or work.now).date())


def begin(work: UnitOfWork, refund: Refund, cause: Message[Any]) -> None:
    """A refund stands in a new state: its deadline is set, escrow is told to pay what is to be paid, all hear of it."""
    work.cancel_timer(RefundDeadline, refund.order_id)
    if refund.act_by is not None:
        waited = RefundDeadline(order_id=refund.order_id, refund_id=refund.refund_id, state=refund.state)
        work.set_timer(waited, refund.act_by, cause)
    if refund.state == "paying":
        command = RefundOrder(
            order_id=refund.order_id,
            reason=refund.ground,
            lessons=tuple(refund.lessons),
            deduction_fen=refund.deduction_fen,
        )
        work.send(command, cause, replyto=topics.replies("orders"))
        work.send(GiveBackSeat(order_id=refund.order_id, reason="refunded"), cause)
    work.send(
        RefundMoved(
            order_id=refund.order_id,
            refund_id=refund.refund_id,
            account_id=refund.account_id,
            institution_id=refund.institution_id,
            state=refund.state,
            refund_fen=refund.refund_fen,
            act_by=refund.act_by,
            overdue=refund.overdue,
        ),
        cause,
    )


def _save(work: UnitOfWork, refund: Refund, cause: Message[Any]) -> None:
    """Writes it, and says so. Escrow, asked again for what it does already, does nothing."""
    begin(work, refund, cause)
    work.update(RefundRow, [refund], *CHANGING)


async def _theirs(work: UnitOfWork, message: Message[Any], role: str) -> tuple[list[Lesson], Refund, Policy]:
    """The order's lessons and the refund that is meant, for who may act on it in `role`; else as if there were none."""
    order = await order_of(work, message.data.order_id)
    if role == "guardian":
        _require_guardian(work, message, order)
    elif role == "institution":
        work.actor(message, "institution", subject=order.institution_id)
    lessons, refunds = await lock(work, order.order_id)
    return lessons, _find(refunds, message.data.refund_id), policy_of(work, order)


def _require_guardian(work: UnitOfWork, message: Message[Any], order: Order) -> None:
    work.actor(message, "guardian", subject=order.account_id)


def _find(refunds: Sequence[Refund], refund_id: UUID) -> Refund:
    found = next((refund for refund in refunds if refund.refund_id == refund_id), None)
    if found is None:
        raise Refused("refund_unknown")
    return found
