"""What refunds hear: guardians, institutions, authorities, the bank's delays, their own deadlines. That a refund was
paid, or refused, is heard by the purchase as well: see `services/orders/handlers.py`."""

from services.orders.refunds import queries, use_cases, winding_up
from shared.contracts.envelope import Message
from shared.contracts.escrow import RefundDelayed
from shared.contracts.orders import (
    AnswerRefund,
    DecideRefund,
    GoOnWindingUp,
    ListRefunds,
    PlanWindUp,
    QuoteRefund,
    RefundDeadline,
    RequestRefund,
    ShowRefund,
    ShowWindUp,
    StartWindUp,
    WithdrawRefund,
)
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(QuoteRefund)
@each
async def on_quote_refund(work: UnitOfWork, message: Message[QuoteRefund]) -> None:
    """A guardian asks what would go back."""
    await use_cases.quote(work, message)


@handlers.on(RequestRefund)
@each
async def on_request_refund(work: UnitOfWork, message: Message[RequestRefund]) -> None:
    """A guardian asks for it."""
    await use_cases.request(work, message)


@handlers.on(WithdrawRefund)
@each
async def on_withdraw_refund(work: UnitOfWork, message: Message[WithdrawRefund]) -> None:
    """A guardian takes it back."""
    await use_cases.withdraw(work, message)


@handlers.on(AnswerRefund)
@each
async def on_answer_refund(work: UnitOfWork, message: Message[AnswerRefund]) -> None:
    """An institution agrees or objects."""
    await use_cases.answer(work, message)


@handlers.on(DecideRefund)
@each
async def on_decide_refund(work: UnitOfWork, message: Message[DecideRefund]) -> None:
    """An authority decides."""
    await use_cases.decide(work, message)


@handlers.on(RefundDeadline)
@each
async def on_refund_deadline(work: UnitOfWork, message: Message[RefundDeadline]) -> None:
    """Somebody has not acted in time."""
    await use_cases.deadline(work, message)


@handlers.on(RefundDelayed)
@each
async def on_refund_delayed(work: UnitOfWork, message: Message[RefundDelayed]) -> None:
    """The bank has not paid."""
    await use_cases.delayed(work, message)


@handlers.on(ShowRefund)
@each
async def on_show_refund(work: UnitOfWork, message: Message[ShowRefund]) -> None:
    """Somebody asks how it stands."""
    await queries.show(work, message)


@handlers.on(ListRefunds)
@each
async def on_list_refunds(work: UnitOfWork, message: Message[ListRefunds]) -> None:
    """Somebody asks what waits."""
    await queries.list_refunds(work, message)


@handlers.on(PlanWindUp)
@each
async def on_plan_wind_up(work: UnitOfWork, message: Message[PlanWindUp]) -> None:
    """An authority asks what there would be to refund."""
    await winding_up.plan(work, message)


@handlers.on(StartWindUp)
@each
async def on_start_wind_up(work: UnitOfWork, message: Message[StartWindUp]) -> None:
    """An authority has decided that an institution is gone."""
    await winding_up.start(work, message)


@handlers.on(ShowWindUp)
@each
async def on_show_wind_up(work: UnitOfWork, message: Message[ShowWindUp]) -> None:
    """Somebody asks how far it is."""
    await winding_up.show(work, message)


@handlers.on(GoOnWindingUp)
@each
async def on_go_on_winding_up(work: UnitOfWork, message: Message[GoOnWindingUp]) -> None:
    """The next orders."""
    await winding_up.go_on(work, message)
