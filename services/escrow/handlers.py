"""Message → use case. No SQL, no rules."""

from collections.abc import Sequence
from typing import Any

from services.escrow import bank, breaks, freezes, locks, queries, reconcile, settlements, suspense, trouble, use_cases
from shared.contracts.bank import Result
from shared.contracts.catalog import InstitutionFrozen, InstitutionThawed
from shared.contracts.envelope import Message
from shared.contracts.escrow import (
    BookSettlement,
    BreakDeadline,
    CancelPayment,
    ChangePayoutAccount,
    ChooseSettlement,
    CloseSettlement,
    CloseStatement,
    CollectPayment,
    DivideLesson,
    InstructionDeadline,
    ListBreaks,
    ListEscrowTotals,
    ListSuspense,
    ListTrouble,
    MatchSuspense,
    PaymentDeadline,
    ProposeBreak,
    RefundOrder,
    ReleaseLesson,
    ResolveBreak,
    ResumeReleases,
    ReturnDeadline,
    ReturnSuspense,
    SettlementDeadline,
    ShowAccount,
    ShowReconciliation,
    StatementDeadline,
    SuspendReleases,
    SuspenseDeadline,
    TakeStatementLines,
    ThawPayouts,
)
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("escrow")
handlers.locks_first(locks.take)


@handlers.on(CollectPayment)
async def on_collect_payment(work: UnitOfWork, messages: Sequence[Message[CollectPayment]]) -> None:
    """A purchase is to be paid."""
    await use_cases.collect(work, messages)


@handlers.on(ReleaseLesson, Result)
async def on_money_moving(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Lessons were confirmed; banks have said something."""
    await bank.move_money(work, messages)


@handlers.on(InstructionDeadline)
async def on_instruction_deadline(work: UnitOfWork, messages: Sequence[Message[InstructionDeadline]]) -> None:
    """Banks have said nothing final."""
    await use_cases.instruction_deadlines(work, messages)


@handlers.on(PaymentDeadline)
@each
async def on_payment_deadline(work: UnitOfWork, message: Message[PaymentDeadline]) -> None:
    """The money has not come in time."""
    await use_cases.payment_deadline(work, message)


@handlers.on(CancelPayment)
@each
async def on_cancel_payment(work: UnitOfWork, message: Message[CancelPayment]) -> None:
    """A purchase was given up."""
    await use_cases.cancel_payment(work, message)


@handlers.on(RefundOrder)
@each
async def on_refund_order(work: UnitOfWork, message: Message[RefundOrder]) -> None:
    """An order is refunded."""
    await use_cases.refund_order(work, message)


@handlers.on(DivideLesson)
@each
async def on_divide_lesson(work: UnitOfWork, message: Message[DivideLesson]) -> None:
    """An authority has decided on a lesson."""
    await use_cases.divide_lesson(work, message)


@handlers.on(InstitutionFrozen)
@each
async def on_institution_frozen(work: UnitOfWork, message: Message[InstitutionFrozen]) -> None:
    """An institution was frozen."""
    await freezes.freeze(work, message)


@handlers.on(InstitutionThawed)
@each
async def on_institution_thawed(work: UnitOfWork, message: Message[InstitutionThawed]) -> None:
    """An institution is not frozen any more."""
    await freezes.thaw(work, message)


@handlers.on(ThawPayouts)
@each
async def on_thaw_payouts(work: UnitOfWork, message: Message[ThawPayouts]) -> None:
    """What waited for an institution goes out."""
    await freezes.let_go(work, message)


@handlers.on(CloseSettlement)
@each
async def on_close_settlement(work: UnitOfWork, message: Message[CloseSettlement]) -> None:
    """What was gathered for an institution goes out."""
    await settlements.close(work, message)


@handlers.on(SettlementDeadline)
@each
async def on_settlement_deadline(work: UnitOfWork, message: Message[SettlementDeadline]) -> None:
    """A bank has said nothing final of a gathered payout."""
    await settlements.deadline(work, message)


@handlers.on(BookSettlement)
@each
async def on_book_settlement(work: UnitOfWork, message: Message[BookSettlement]) -> None:
    """Lessons follow their settlement."""
    await settlements.book(work, message)


@handlers.on(ChooseSettlement)
@each
async def on_choose_settlement(work: UnitOfWork, message: Message[ChooseSettlement]) -> None:
    """An institution chooses how it is paid."""
    await settlements.choose(work, message)


@handlers.on(ChangePayoutAccount)
@each
async def on_change_payout_account(work: UnitOfWork, message: Message[ChangePayoutAccount]) -> None:
    """An institution has another payout account."""
    await settlements.change_payout_account(work, message)


@handlers.on(SuspendReleases)
@each
async def on_suspend_releases(work: UnitOfWork, message: Message[SuspendReleases]) -> None:
    """A complaint was filed on an order."""
    await use_cases.suspend(work, message)


@handlers.on(ResumeReleases)
@each
async def on_resume_releases(work: UnitOfWork, message: Message[ResumeReleases]) -> None:
    """A complaint on an order was closed."""
    await use_cases.resume(work, message)


@handlers.on(ShowAccount)
@each
async def on_show_account(work: UnitOfWork, message: Message[ShowAccount]) -> None:
    """Somebody wants to see an order's account."""
    await queries.show_account(work, message)


@handlers.on(MatchSuspense)
@each
async def on_match_suspense(work: UnitOfWork, message: Message[MatchSuspense]) -> None:
    """An operator has found whose money it is."""
    await suspense.match_money(work, message)


@handlers.on(ReturnSuspense)
@each
async def on_return_suspense(work: UnitOfWork, message: Message[ReturnSuspense]) -> None:
    """An operator sends money back to where it came from."""
    await suspense.return_money(work, message)


@handlers.on(ReturnDeadline)
@each
async def on_return_deadline(work: UnitOfWork, message: Message[ReturnDeadline]) -> None:
    """A bank has said nothing final of money that is to go back."""
    await suspense.return_deadline(work, message)


@handlers.on(SuspenseDeadline)
@each
async def on_suspense_deadline(work: UnitOfWork, message: Message[SuspenseDeadline]) -> None:
    """Money in suspense is older than it may be."""
    await suspense.deadline(work, message)


@handlers.on(ListSuspense)
@each
async def on_list_suspense(work: UnitOfWork, message: Message[ListSuspense]) -> None:
    """An operator looks at the money in suspense."""
    await suspense.list_money(work, message)


@handlers.on(ListTrouble)
@each
async def on_list_trouble(work: UnitOfWork, message: Message[ListTrouble]) -> None:
    """Somebody wants to see what the banks have refused."""
    await trouble.list_trouble(work, message)


@handlers.on(ListEscrowTotals)
@each
async def on_list_totals(work: UnitOfWork, message: Message[ListEscrowTotals]) -> None:
    """An authority wants to see the money of its institutions."""
    await queries.list_totals(work, message)


# --- reconciliation ---------------------------------------------------------------------------------------------------


@handlers.on(TakeStatementLines)
@each
async def on_take_statement_lines(work: UnitOfWork, message: Message[TakeStatementLines]) -> None:
    """A bank's statement comes, some lines at a time."""
    await reconcile.take_lines(work, message)


@handlers.on(CloseStatement)
@each
async def on_close_statement(work: UnitOfWork, message: Message[CloseStatement]) -> None:
    """All lines of a statement have come."""
    await reconcile.close_statement(work, message)


@handlers.on(StatementDeadline)
@each
async def on_statement_deadline(work: UnitOfWork, message: Message[StatementDeadline]) -> None:
    """A statement was never closed."""
    await reconcile.statement_deadline(work, message)


@handlers.on(ShowReconciliation)
@each
async def on_show_reconciliation(work: UnitOfWork, message: Message[ShowReconciliation]) -> None:
    """Somebody wants to see how a day fits."""
    await reconcile.show_reconciliation(work, message)


@handlers.on(ListBreaks)
@each
async def on_list_breaks(work: UnitOfWork, message: Message[ListBreaks]) -> None:
    """Somebody wants to see what differs."""
    await breaks.list_breaks(work, message)


@handlers.on(ProposeBreak)
@each
async def on_propose_break(work: UnitOfWork, message: Message[ProposeBreak]) -> None:
    """Somebody says why something differs."""
    await breaks.propose(work, message)


@handlers.on(ResolveBreak)
@each
async def on_resolve_break(work: UnitOfWork, message: Message[ResolveBreak]) -> None:
    """Somebody else agrees."""
    await breaks.resolve(work, message)


@handlers.on(BreakDeadline)
@each
async def on_break_deadline(work: UnitOfWork, message: Message[BreakDeadline]) -> None:
    """The breaks of a day should be resolved by now."""
    await breaks.break_deadline(work, message)
