"""The words of escrow: payments, releases, refunds, the order's account."""

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from shared.contracts import topics
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import Command, Event, Reply, Request
from shared.contracts.types import (
    Count,
    InstitutionKey,
    InstructionNumber,
    LessonNo,
    Moment,
    Name,
    PageSize,
    Part,
    PartNo,
    Reason,
    Word,
)
from shared.money import Fen, PositiveFen

_REQUESTS = topics.requests("escrow")
_COMMANDS = topics.commands("escrow")
_EVENTS = topics.events("escrow")


# --- commands of the purchase and the lesson ------------------------------------------------------------------------


class CollectPayment(Command, type="escrow.payment.collect.v1", topic=_COMMANDS, key="order_id"):
    """Opens the order's account and asks the bank to collect `amount_fen` by `pay_by`.

    Ends in `Held` or `PaymentFailed`; money that comes in another amount, late or twice is suspense.
    """

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    account: BankAccount
    amount_fen: PositiveFen
    lessons: Count
    method: Word
    pay_by: Moment
    district: Annotated[str, Field(max_length=100)] = ""


class CancelPayment(Command, type="escrow.payment.cancel.v1", topic=_COMMANDS, key="order_id"):
    """The purchase was given up: nothing more is expected; if it is held already it goes back. Ends in PaymentFailed
    or Refunded."""

    order_id: UUID
    reason: Word


class RefundOrder(Command, type="escrow.order.refund.v1", topic=_COMMANDS, key="order_id"):
    """The fee of `lessons`, less `deduction_fen`, goes back in one sum the way it came (原路). Ends in `Refunded`.

    No `lessons`: all that nothing was decided about. The deduction is paid out to the institution, as lesson 0. An
    order has one refund; asked again, nothing changes. Refused: lesson_settled (one of the lessons was released or
    divided: then nothing goes back), refund_exists, lesson_unknown, amount_invalid, order_unknown.
    """

    order_id: UUID
    reason: Word
    lessons: Annotated[tuple[LessonNo, ...], Field(max_length=40_000)] = ()
    deduction_fen: Fen = 0


class ReleaseLesson(Command, type="escrow.lesson.release.v1", topic=_COMMANDS, key="order_id"):
    """The lesson is confirmed: its fee is released to the institution. Ends in `Released`, then `Settled`.

    Repeated, it changes nothing; while a complaint holds the order it waits.
    """

    order_id: UUID
    lesson_no: LessonNo


class DivideLesson(Command, type="escrow.lesson.divide.v1", topic=_COMMANDS, key="order_id"):
    """The authority's decision on a lesson: `release_fen` of its price to the institution, the rest to the guardian.

    All or nothing of it may go to either. Ends in `Settled` and `Refunded` of the lesson. Asked again, nothing changes;
    another decision is refused lesson_settled, as is that of a lesson released or refunded before.
    """

    order_id: UUID
    lesson_no: LessonNo
    release_fen: Fen


class ThawPayouts(Command, type="escrow.payouts.thaw.v1", topic=_COMMANDS, key="institution_id"):
    """Escrow to itself: the institution is not frozen any more, what waited goes out once, some orders at a time;
    those up to `after` are done. `change_no` is that of the thaw: a later one begins anew."""

    institution_id: UUID
    change_no: Annotated[int, Field(ge=0)] = 0
    after: UUID | None = None


class SuspendReleases(Command, type="escrow.releases.suspend.v1", topic=_COMMANDS, key="order_id"):
    """A complaint holds the order's further releases."""

    order_id: UUID
    complaint_id: UUID


class ResumeReleases(Command, type="escrow.releases.resume.v1", topic=_COMMANDS, key="order_id"):
    """The complaint is closed: what fell due in between goes out once."""

    order_id: UUID
    complaint_id: UUID


class PaymentDeadline(Command, type="escrow.payment.deadline.v1", topic=_COMMANDS, key="order_id"):
    """Timer: the money has not come in time."""

    order_id: UUID


class InstructionDeadline(Command, type="escrow.instruction.deadline.v1", topic=_COMMANDS, key="order_id"):
    """Timer: the bank has not given a final answer; the same number is asked again, or, after a refusal, a new one."""

    order_id: UUID
    number: InstructionNumber


class SuspenseDeadline(Command, type="escrow.suspense.deadline.v1", topic=_COMMANDS, key="receipt_id"):
    """Timer: money in suspense (挂账) is older than it may be; set again until it is matched or returned."""

    receipt_id: UUID


class ReturnDeadline(Command, type="escrow.suspense.return_deadline.v1", topic=_COMMANDS, key="receipt_id"):
    """Timer: the bank has not said that it has sent money in suspense back; as `InstructionDeadline`."""

    receipt_id: UUID


class CloseSettlement(Command, type="escrow.settlement.close.v1", topic=_COMMANDS, key="institution_id"):
    """What was gathered at a bank for the institution goes out as one payout, or as several where it is long or has
    several accounts: ends in `SettlementClosed`. Timer: the bank's cut-off. Sent at once for an institution that is
    paid at once (it has just chosen that, or thawed), and again while there is more."""

    institution_id: UUID
    bank: Word


class SettlementDeadline(Command, type="escrow.settlement.deadline.v1", topic=_COMMANDS, key="settlement_id"):
    """Timer: the bank has not given a final answer to a gathered payout; it is asked again, as of a lesson's."""

    settlement_id: UUID


class BookSettlement(Command, type="escrow.settlement.book.v1", topic=_COMMANDS, key="settlement_id"):
    """Escrow to itself: the bank has paid a gathered payout, or it came back. Its lessons follow, some at a time; those
    up to `after_order`, `after_lesson` have. `step` says which answer this follows: a later one takes over."""

    settlement_id: UUID
    step: Annotated[int, Field(strict=True, ge=0)]
    after_order: UUID | None = None
    after_lesson: Annotated[int, Field(strict=True, ge=0, le=40_000)] = 0


# --- events ---------------------------------------------------------------------------------------------------------


class Held(Event, type="escrow.held.v1", topic=_EVENTS, key="order_id"):
    """The order's fee is in the supervised account."""

    order_id: UUID
    account_id: UUID
    amount_fen: PositiveFen


class PaymentFailed(Event, type="escrow.payment_failed.v1", topic=_EVENTS, key="order_id"):
    """The fee will not come: refused, expired or cancelled."""

    order_id: UUID
    reason: Word


class Released(Event, type="escrow.released.v1", topic=_EVENTS, key="order_id"):
    """A lesson's fee is on its way to the institution."""

    order_id: UUID
    lesson_no: PartNo
    amount_fen: Fen
    number: InstructionNumber


class Settled(Event, type="escrow.settled.v1", topic=_EVENTS, key="order_id"):
    """The bank has paid a lesson's fee to the institution."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    lesson_no: PartNo
    amount_fen: Fen


class PayoutReturned(Event, type="escrow.payout_returned.v1", topic=_EVENTS, key="order_id"):
    """A paid-out fee came back (退票): a new entry, never an edit. `turn`: for the how many-th time (0: not said, by a
    writer of before). `settlement_id`: it had been paid with others in one sum, of which `SettlementDelayed` tells."""

    order_id: UUID
    institution_id: UUID
    lesson_no: PartNo
    amount_fen: Fen
    reason: str
    turn: Annotated[int, Field(strict=True, ge=0)] = 0
    settlement_id: UUID | None = None


class SettlementClosed(Event, type="escrow.settlement_closed.v1", topic=_EVENTS, key="institution_id"):
    """What was gathered for an institution is on its way to `payout_account`, in one sum (汇总结算)."""

    settlement_id: UUID
    institution_id: UUID
    bank: Word
    payout_account: Name
    number: InstructionNumber
    amount_fen: PositiveFen
    lessons: Count


class SettlementPaid(Event, type="escrow.settlement_paid.v1", topic=_EVENTS, key="institution_id"):
    """The bank has paid a gathered sum; `Settled` of each lesson follows."""

    settlement_id: UUID
    institution_id: UUID
    number: InstructionNumber
    amount_fen: PositiveFen
    lessons: Count


class SettlementDelayed(Event, type="escrow.settlement_delayed.v1", topic=_EVENTS, key="institution_id"):
    """The bank refused a gathered sum, or it came back (退票): it is tried again under a new number. The institution
    must look at its account. When it came back, `PayoutReturned` of each lesson follows."""

    settlement_id: UUID
    institution_id: UUID
    number: InstructionNumber
    amount_fen: PositiveFen
    outcome: Literal["refused", "returned"]
    reason: str


class Refunded(Event, type="escrow.refunded.v1", topic=_EVENTS, key="order_id"):
    """The bank has paid money back to the guardian: the order's refund (lesson 0), or what was decided of a lesson."""

    order_id: UUID
    account_id: UUID
    lesson_no: PartNo = 0
    amount_fen: Fen


class RefundDelayed(Event, type="escrow.refund_delayed.v1", topic=_EVENTS, key="order_id"):
    """The bank refused a refund, or it came back: it is tried again under a new number, and a person must look why."""

    order_id: UUID
    institution_id: UUID
    lesson_no: PartNo
    amount_fen: Fen
    outcome: Literal["refused", "returned"]
    reason: str


SuspenseReason = Literal["unknown_number", "wrong_amount", "short", "over", "late", "dead", "double", "foreign"]
"""Why money belongs nowhere: a number nobody gave; less or more than the price (`wrong_amount`: in old rows, either);
after the payment's time was over; for a payment that was refused or given up; for one that was paid before; at another
bank or in another supervised account than the order's."""


class SuspenseBooked(Event, type="escrow.suspense_booked.v1", topic=_EVENTS, key="receipt_id"):
    """Money came that belongs nowhere. Booked, for a person to decide by `due_at`."""

    receipt_id: UUID
    order_id: UUID | None
    number: str
    amount_fen: PositiveFen
    reason: SuspenseReason
    due_at: Moment | None = None


class SuspenseOverdue(Event, type="escrow.suspense_overdue.v1", topic=_EVENTS, key="receipt_id"):
    """Money in suspense is past its deadline, and still neither matched nor returned: told each working day anew."""

    receipt_id: UUID
    order_id: UUID | None
    amount_fen: PositiveFen
    reason: SuspenseReason
    state: Literal["open", "returning"]
    due_at: Moment


class SuspenseMatched(Event, type="escrow.suspense_matched.v1", topic=_EVENTS, key="receipt_id"):
    """An operator has found the order that money in suspense was for: it is held there."""

    receipt_id: UUID
    order_id: UUID
    amount_fen: PositiveFen


class SuspenseReturned(Event, type="escrow.suspense_returned.v1", topic=_EVENTS, key="receipt_id"):
    """The bank has sent money in suspense back to where it came from."""

    receipt_id: UUID
    order_id: UUID | None
    amount_fen: PositiveFen


class SuspenseReopened(Event, type="escrow.suspense_reopened.v1", topic=_EVENTS, key="receipt_id"):
    """Money that was sent back has come again (退汇): an operator must decide anew, by `due_at`."""

    receipt_id: UUID
    order_id: UUID | None
    amount_fen: PositiveFen
    reason: str
    due_at: Moment


# --- what is asked --------------------------------------------------------------------------------------------------


class LessonMoney(Part):
    """One lesson's fee in the ledger."""

    lesson_no: PartNo
    amount_fen: Fen
    state: Literal["waiting", "releasing", "released"]


class AccountView(Reply, type="escrow.account.view.v1"):
    """The order's account in fen: paid = held + releasing + released + refunding + refunded, always."""

    order_id: UUID
    state: Word
    paid_fen: Fen
    held_fen: Fen
    releasing_fen: Fen
    released_fen: Fen
    refunding_fen: Fen
    refunded_fen: Fen
    suspended: bool
    lessons: tuple[LessonMoney, ...]


class ShowAccount(Request, type="escrow.account.show.v1", topic=_REQUESTS, key="order_id", reply=AccountView):
    """The order's account; for its guardian, its institution, authority and operators."""

    order_id: UUID


# --- what needs a person --------------------------------------------------------------------------------------------


class SuspenseView(Reply, type="escrow.suspense.view.v1"):
    """Money in suspense (挂账), one movement at a bank: open → matched, or open → returning → returned.

    `order_id` is the order it named, `matched_order_id` the one it was found to be for. `decided_by` is the operator of
    the last decision and `decision` his reason; `return_number` the number under which the bank was told to send it
    back. `age_seconds` counts from when it was booked.
    """

    receipt_id: UUID
    order_id: UUID | None
    number: str
    bank: Word
    account: str
    reference: str
    amount_fen: PositiveFen
    reason: SuspenseReason
    state: Literal["open", "returning", "returned", "matched"]
    booked_at: Moment
    due_at: Moment
    overdue: bool
    age_seconds: int
    matched_order_id: UUID | None = None
    decided_by: str = ""
    decision: str = ""
    return_number: str = ""


class SuspensePage(Reply, type="escrow.suspense.page.v1"):
    """A page of money in suspense, oldest first; `next_after` where there is more."""

    receipts: tuple[SuspenseView, ...]
    next_after: UUID | None = None


class ListSuspense(Request, type="escrow.suspense.list.v1", topic=_REQUESTS, reply=SuspensePage):
    """Money in suspense, oldest first, from behind the receipt `after`; for operators. Not `all_states`: only what is
    open, that is, waits for a decision."""

    all_states: bool = False
    limit: PageSize = 50
    after: UUID | None = None


class MatchSuspense(Request, type="escrow.suspense.match.v1", topic=_REQUESTS, key="receipt_id", reply=SuspenseView):
    """The money is what `order_id` waits for, or waited for: it is held there as if the payment had come.

    For operators. Asked again for the same order, nothing changes. Refused: suspense_unknown, suspense_state (not
    open), order_unknown, suspense_elsewhere (another bank or supervised account), amount_invalid (not exactly the
    price), order_state (it is paid).
    """

    receipt_id: UUID
    order_id: UUID
    reason: Reason


class ReturnSuspense(Request, type="escrow.suspense.return.v1", topic=_REQUESTS, key="receipt_id", reply=SuspenseView):
    """The money goes back to where it came from. For operators. Asked again on its way, nothing changes.

    Refused: suspense_unknown, suspense_state (matched, or returned), suspense_attempts.
    """

    receipt_id: UUID
    reason: Reason


class TroubleView(Part):
    """A payment that the bank has refused or that came back, and that has not been made since.

    Of a `return` of suspense `receipt_id` is given and no order. `attempts` under so many numbers, `returned` times it
    was made and came back; `outcome` and `why` are the bank's last, `since` is the first of them. `next_try_at` is
    missing where the attempts are used up: then only a person can do anything.
    """

    order_id: UUID | None
    receipt_id: UUID | None
    institution_id: UUID | None
    lesson_no: PartNo
    kind: Literal["payout", "refund", "return"]
    number: InstructionNumber
    bank: Word
    amount_fen: PositiveFen
    state: Literal["refused", "sent"]
    attempts: int
    returned: int
    outcome: str
    why: str
    since: Moment
    next_try_at: Moment | None


class TroublePage(Reply, type="escrow.trouble.page.v1"):
    """A page of payments that need a person, in the order of their numbers; `next_after` where there is more."""

    payments: tuple[TroubleView, ...]
    next_after: InstructionNumber | None = None


class ListTrouble(Request, type="escrow.trouble.list.v1", topic=_REQUESTS, reply=TroublePage):
    """Payouts, refunds and returns that were refused or came back and are not paid yet; for operators and authorities.
    From behind the payment whose number, of any attempt, is `after`."""

    limit: PageSize = 50
    after: InstructionNumber | None = None


class InstitutionMoney(Part):
    """The supervised money of one institution's orders in one district, in fen, and of how many orders.

    paid = held + releasing + released + refunding + refunded, always. `waiting_fen` is what of `held_fen` was released
    and waits for a complaint or a freeze to end.
    """

    district: str
    institution_id: UUID
    orders: int
    paid_fen: Fen
    held_fen: Fen
    releasing_fen: Fen
    released_fen: Fen
    refunding_fen: Fen
    refunded_fen: Fen
    waiting_fen: Fen


class EscrowTotals(Reply, type="escrow.totals.page.v1"):
    """A page of institutions. `next_after` is given where there may be more: a page can be short, even empty."""

    institutions: tuple[InstitutionMoney, ...]
    next_after: InstitutionKey | None = None


class ListEscrowTotals(Request, type="escrow.totals.list.v1", topic=_REQUESTS, reply=EscrowTotals):
    """The money by district and institution, in the order of `orders.totals.list.v1`, of a district or an institution
    if one is named; for authorities and operators.

    The district is that of the contract. Orders paid before escrow was told it have none.
    """

    district: Annotated[str, Field(max_length=100)] = ""
    institution_id: UUID | None = None
    limit: PageSize = 20
    after: InstitutionKey | None = None


# --- how an institution is paid -------------------------------------------------------------------------------------

SettlementMode = Literal["at_once", "daily", "weekly"]


class PayoutAccount(Part):
    """Where payouts of an institution's orders at a bank go, if not where it said when the orders were paid."""

    bank: Word
    payout_account: Name


class SettlementView(Reply, type="escrow.settlement.view.v1"):
    """How an institution is paid."""

    institution_id: UUID
    mode: SettlementMode
    payout_accounts: tuple[PayoutAccount, ...] = ()


class ChooseSettlement(
    Request, type="escrow.settlement.choose.v1", topic=_REQUESTS, key="institution_id", reply=SettlementView
):
    """How the institution is paid from now on (结算方式): each lesson at once, or gathered until the bank's cut-off of
    each working day, or of the week. The institution itself, or an authority. What is gathered goes out as the new
    mode says."""

    institution_id: UUID
    mode: SettlementMode


class ChangePayoutAccount(
    Request, type="escrow.payout_account.change.v1", topic=_REQUESTS, key="institution_id", reply=SettlementView
):
    """The institution has another payout account for its orders at one bank (the old one was closed, or it moves to
    another bank). For instructions from now on, and for those tried again after a refusal or a return; a number that
    the bank was told keeps its account. Refused: bank_unknown, bank_account_invalid."""

    institution_id: UUID
    bank: Word
    payout_account: Name


# --- reconciliation with the banks' statements ----------------------------------------------------------------------

StatementStatus = Literal["booked", "pending", "returned"]
BreakType = Literal["missing_here", "missing_there", "amount", "status", "duplicate", "late", "balance"]
"""missing_here: the bank moved money we know nothing of; missing_there: we booked what is not on the statement;
late: one of the two so near midnight that the next day's statement may bring it; balance: sums that do not fit."""
BreakState = Literal["open", "proposed", "resolved", "closed"]
"""closed: it does not stand any more, by itself."""
LineNo = Annotated[int, Field(strict=True, ge=1, le=5_000_000)]
Lines = Annotated[int, Field(strict=True, ge=0, le=5_000_000)]


class StatementLine(Part):
    """One line of a bank's statement. `number` is ours, where the bank has one; `reference` the bank's own."""

    line_no: LineNo
    number: Annotated[str, Field(max_length=100)] = ""
    reference: Name
    direction: Literal["credit", "debit"]
    amount_fen: PositiveFen
    booked_at: Moment
    status: StatementStatus = "booked"


class StatementTaken(Reply, type="escrow.statement.taken.v1"):
    """These lines are kept until the statement is closed."""

    statement_id: UUID
    line_nos: tuple[LineNo, ...]


class TakeStatementLines(
    Request, type="escrow.statement.line_batch.v1", topic=_REQUESTS, key="bank", reply=StatementTaken
):
    """Some lines of a bank's statement of one day (对账单), which is whole once it is closed. Sent again, lines of the
    same numbers replace those that came before. By the bank itself, or an operator."""

    statement_id: UUID
    bank: Word
    day: date
    lines: Annotated[tuple[StatementLine, ...], Field(min_length=1, max_length=500)]


class ReconciliationView(Reply, type="escrow.reconciliation.view.v1"):
    """How a bank's statement of a day fits our books. `breaks` are those that nobody has resolved, by type; `no_breaks`
    says that there is none. `ours_fen` is what the bank should hold at the end of the day by our books."""

    bank: Word
    day: date
    statement_id: UUID
    lines: Lines
    in_fen: int
    out_fen: int
    opening_fen: int
    closing_fen: int
    ours_fen: int
    breaks: dict[BreakType, int]
    resolved: int
    no_breaks: bool


class CloseStatement(Request, type="escrow.statement.close.v1", topic=_REQUESTS, key="bank", reply=ReconciliationView):
    """All lines were sent: so many, which come to so much (what is pending does not count). The day is reconciled.

    Replaces an earlier statement of that day. Refused: statement_incomplete (send what is missing and close again),
    statement_unknown, statement_state.
    """

    statement_id: UUID
    bank: Word
    day: date
    lines: Lines
    in_fen: Annotated[int, Field(strict=True, ge=0)]
    out_fen: Annotated[int, Field(strict=True, ge=0)]
    opening_fen: Annotated[int, Field(strict=True)]
    closing_fen: Annotated[int, Field(strict=True)]


class ShowReconciliation(
    Request, type="escrow.reconciliation.show.v1", topic=_REQUESTS, key="bank", reply=ReconciliationView
):
    """A day's reconciliation; for operators, authorities and the bank itself."""

    bank: Word
    day: date


class Break(Part):
    """One difference (对账差异), signed in fen: what came in is positive. Its age is in working days."""

    break_id: UUID
    bank: Word
    day: date
    type: BreakType
    number: str
    reference: str
    ours_fen: int
    theirs_fen: int
    note: str
    state: BreakState
    reason: str
    proposed_by: str
    resolved_by: str
    first_seen: Moment
    age_working_days: int
    overdue: bool


class BreakView(Reply, type="escrow.break.view.v1"):
    """One break, after what was done to it."""

    found: Break


class BreakPage(Reply, type="escrow.break.page.v1"):
    """Breaks, oldest first; `next_after` continues, None: there are no more."""

    breaks: tuple[Break, ...]
    next_after: UUID | None = None


class ListBreaks(Request, type="escrow.break.list.v1", topic=_REQUESTS, key="bank", reply=BreakPage):
    """The breaks that nobody has resolved yet, of one bank or all, of one day or all; for operators and authorities."""

    bank: Word | Literal[""] = ""
    day: date | None = None
    after: UUID | None = None
    limit: PageSize = 50


class ProposeBreak(Request, type="escrow.break.propose.v1", topic=_REQUESTS, key="break_id", reply=BreakView):
    """An operator says why a break may be laid to rest. Another one must agree. Refused: break_unknown, break_state."""

    break_id: UUID
    reason: Reason


class ResolveBreak(Request, type="escrow.break.resolve.v1", topic=_REQUESTS, key="break_id", reply=BreakView):
    """Another operator agrees to the reason proposed. Refused: break_second_person, break_unknown, break_state."""

    break_id: UUID


class StatementDeadline(Command, type="escrow.statement.deadline.v1", topic=_COMMANDS, key="bank"):
    """Timer: a statement was begun and never closed; its lines are dropped."""

    bank: Word
    statement_id: UUID


class BreakDeadline(Command, type="escrow.break.deadline.v1", topic=_COMMANDS, key="bank"):
    """Timer: the breaks of a day should be resolved by now."""

    bank: Word
    day: date


class Reconciled(Event, type="escrow.reconciled.v1", topic=_EVENTS, key="bank"):
    """A day was reconciled with a bank; `breaks` are those unresolved, by type, and `no_breaks` says there is none."""

    bank: Word
    day: date
    lines: Lines
    breaks: dict[BreakType, int]
    no_breaks: bool


class BreaksOverdue(Event, type="escrow.breaks_overdue.v1", topic=_EVENTS, key="bank"):
    """The alarm: breaks of a day are older than they may be. Told again every working day."""

    bank: Word
    day: date
    breaks: Annotated[int, Field(strict=True, ge=1)]
    age_working_days: int
