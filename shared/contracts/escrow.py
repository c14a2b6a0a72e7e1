"""The words of escrow: payments, releases, refunds, the order's account."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from shared.contracts import topics
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import Command, Event, Reply, Request
from shared.contracts.types import Count, InstructionNumber, LessonNo, Moment, Name, Part, Word
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


class CloseSettlement(Command, type="escrow.settlement.close.v1", topic=_COMMANDS, key="institution_id"):
    """Timer: the cut-off of a bank. What was gathered there for the institution goes out as one payout, or as several
    where it is long or has several accounts. Ends in `SettlementClosed`."""

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
