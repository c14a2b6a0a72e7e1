"""The words of escrow: payments, releases, refunds, the order's account."""

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from shared.contracts import topics
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import Command, Event, Reply, Request
from shared.contracts.types import Count, InstructionNumber, LessonNo, Moment, Name, PageSize, Part, Reason, Word
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
    those up to `after` are done."""

    institution_id: UUID
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


PartNo = Annotated[int, Field(strict=True, ge=0, le=40_000)]
"""A lesson of an order; 0: of refunds the order's one sum, of payouts what the institution keeps of it."""


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
    """A paid-out fee came back (退票): a new entry, never an edit."""

    order_id: UUID
    institution_id: UUID
    lesson_no: PartNo
    amount_fen: Fen
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


class SuspenseBooked(Event, type="escrow.suspense_booked.v1", topic=_EVENTS, key="receipt_id"):
    """Money came that belongs nowhere: late, double, unknown or in another amount. Booked, for a person to decide."""

    receipt_id: UUID
    order_id: UUID | None
    number: str
    amount_fen: PositiveFen
    reason: Literal["unknown_number", "wrong_amount", "late", "double"]


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
