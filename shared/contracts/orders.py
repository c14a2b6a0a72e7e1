"""The words of orders: families, purchases, lessons, objections, refunds, invoices, views."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from shared.contracts import topics
from shared.contracts.envelope import Command, Event, Reply, Request
from shared.contracts.types import (
    Count,
    InstitutionKey,
    LessonNo,
    Moment,
    Name,
    PageSize,
    Part,
    PartNo,
    Reason,
    Sha256,
    Text,
    Word,
)
from shared.documents import DocumentType, Sex
from shared.money import Fen, PositiveFen
from shared.sealing import Sealed

_REQUESTS = topics.requests("orders")
_COMMANDS = topics.commands("orders")
_EVENTS = topics.events("orders")

# --- families -----------------------------------------------------------------------------------------------------


RollCheck = Literal["unchecked", "confirmed", "not_found"]
"""School-roll check (学籍核验) of a child: a status, never a gate [local]."""


class ReplyKey(Part):
    """A public key of a gateway as a JWK (RFC 8037, X25519): what is secret in an answer is sealed to it.

    Made anew by each copy of a gateway when it starts; the private half never leaves it.
    """

    kty: Literal["OKP"] = "OKP"
    crv: Literal["X25519"] = "X25519"
    kid: Annotated[str, Field(min_length=1, max_length=64)]
    x: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]


class Token(Part):
    """The token of a guardian; travels sealed to the gateway that asked for it."""

    token: Annotated[str, Field(max_length=4000, repr=False)]


class SignedIn(Reply, type="orders.signed_in.v1"):
    """Who the phone belongs to, and the token its gateway sends with every request until `expires_at`.

    The token is in `sealed_token` when the request named a `reply_key`; else it stands in clear in `token`, and
    lives 12 hours instead of 30 days, because an answer is kept in tables and logs [ours].
    """

    account_id: UUID
    created: bool
    token: Annotated[str, Field(repr=False)] = ""
    sealed_token: Sealed[Token] | None = None
    expires_at: Moment


class SignIn(Request, type="orders.sign_in.v1", topic=_REQUESTS, reply=SignedIn):
    """Phone and code were checked by notify (`proof`); the first sign-in creates the account [seed].

    The proof is for orders only and single-use: who has not heard the answer sends the same message id again, with the
    same `reply_key`. The agreement's version is recorded.
    """

    proof: Annotated[str, Field(max_length=4000, repr=False)]
    agreement_version: Annotated[str, Field(max_length=20)] = ""
    reply_key: ReplyKey | None = None


class Personal(Part):
    """Details of a person: its repr and str show nothing, so that no log and no traceback does."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Nothing."""
        return ()


class ChildDetails(Personal):
    """A child as typed; travels sealed only."""

    name: Name
    sex: Sex
    birth_date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    document_type: DocumentType
    document_number: Annotated[str, Field(min_length=1, max_length=40)]


class SignerDetails(Personal):
    """The signer of contracts (合同签订人) as typed; travels sealed only."""

    name: Name
    phone: Annotated[str, Field(max_length=20)]
    address: Annotated[str, Field(min_length=1, max_length=200)]
    document_type: DocumentType
    document_number: Annotated[str, Field(min_length=1, max_length=40)]


class ChildView(Part):
    """A child as shown: masked."""

    child_id: UUID
    name: str
    document: str
    roll_check: RollCheck = "unchecked"


class ProfileView(Reply, type="orders.profile.view.v1"):
    """The family: children and signer, masked; `missing` is what a purchase still needs."""

    account_id: UUID
    children: tuple[ChildView, ...]
    signer: str
    missing: tuple[Literal["child", "signer"], ...]


class AddChild(Request, type="orders.child.add.v1", topic=_REQUESTS, key="account_id", reply=ProfileView):
    """Adds a child to the account; the document is checked."""

    account_id: UUID
    child_id: UUID
    details: Sealed[ChildDetails]


class SetSigner(Request, type="orders.signer.set.v1", topic=_REQUESTS, key="account_id", reply=ProfileView):
    """Sets who signs the account's contracts."""

    account_id: UUID
    details: Sealed[SignerDetails]


class ShowProfile(Request, type="orders.profile.show.v1", topic=_REQUESTS, key="account_id", reply=ProfileView):
    """The family as recorded."""

    account_id: UUID


# --- purchases ----------------------------------------------------------------------------------------------------

PurchaseState = Literal["placed", "to_sign", "to_pay", "paying", "held", "enrolled", "cancelling", "refunding", "ended"]
PaymentMethod = Literal["alipay", "wechat_pay", "union_pay", "e_cny", "bank_counter"]
LessonState = Literal["planned", "applied", "confirmed", "objected", "paid_out", "divided", "refunding", "refunded"]
"""refunding: asked back, by a request that is not decided or not paid yet; refunded: the bank has paid it back."""
ConfirmedBy = Literal["", "guardian", "silence", "authority"]


class Deadline(Part):
    """What happens at `due_at` if nobody does anything, in `words` for the family. `kind`: see `views/deadlines.py`."""

    kind: Word
    due_at: Moment
    words: str
    lesson_no: LessonNo | None = None


class LessonView(Part):
    """One lesson of an order; `price_fen` is what its release moves. `confirmed_by` stays for ever.

    `returned_fen` is what of the price goes back to the guardian after an objection; the rest of a divided lesson is
    the institution's.
    """

    lesson_no: LessonNo
    starts_at: Moment
    ends_at: Moment
    price_fen: Fen
    state: LessonState
    confirmed_by: ConfirmedBy = ""
    answer_by: Moment | None = None
    returned_fen: Fen = 0


class PurchaseView(Reply, type="orders.purchase.view.v1"):
    """A purchase: where it stands, its contract, what is consumed, left and given back (fen and lessons).

    One that was refused has the code of the refusal as its `reason`, and in `detail` the rule and its figures.
    consumed + left + refunded = price, once the child is enrolled: of a divided lesson each side's part counts.
    `deadlines`: the nearest hundred, nearest first.
    """

    order_id: UUID
    state: PurchaseState
    reason: str = ""
    detail: Text = ""
    course_id: UUID
    institution_id: UUID | None = None
    title: str = ""
    price_fen: Fen = 0
    contract_sha256: str = ""
    contract: str = ""
    act_by: Moment | None = None
    lessons: tuple[LessonView, ...] = ()
    consumed_lessons: int = 0
    consumed_fen: Fen = 0
    left_lessons: int = 0
    left_fen: Fen = 0
    refunded_lessons: int = 0
    refunded_fen: Fen = 0
    deadlines: tuple[Deadline, ...] = ()


class PlacePurchase(Request, type="orders.purchase.place.v1", topic=_REQUESTS, key="order_id", reply=PurchaseView):
    """A guardian buys a course for a child; refused with what is missing if there is no child or signer [seed]."""

    order_id: UUID
    account_id: UUID
    child_id: UUID | None = None
    course_id: UUID


class SignContract(Request, type="orders.contract.sign.v1", topic=_REQUESTS, key="order_id", reply=PurchaseView):
    """Signs the contract whose SHA-256 was shown."""

    order_id: UUID
    contract_sha256: Sha256


class PayPurchase(Request, type="orders.purchase.pay.v1", topic=_REQUESTS, key="order_id", reply=PurchaseView):
    """Chooses how to pay; the bank is asked to collect into the supervised account."""

    order_id: UUID
    method: PaymentMethod


class CancelPurchase(Request, type="orders.purchase.cancel.v1", topic=_REQUESTS, key="order_id", reply=PurchaseView):
    """Gives a purchase up before it is paid."""

    order_id: UUID


class ShowPurchase(Request, type="orders.purchase.show.v1", topic=_REQUESTS, key="order_id", reply=PurchaseView):
    """Where a purchase stands; for its guardian, its institution, and the authority."""

    order_id: UUID


class PurchaseDeadline(Command, type="orders.purchase.deadline.v1", topic=_COMMANDS, key="order_id"):
    """Timer: the step that was awaited in `state` has not come."""

    order_id: UUID
    state: PurchaseState


class ContractDrawn(Event, type="orders.contract.drawn.v1", topic=_EVENTS, key="order_id"):
    """A contract waits for its signature."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    title: str
    contract_sha256: Sha256
    sign_by: Moment


class PurchaseEnrolled(Event, type="orders.purchase.enrolled.v1", topic=_EVENTS, key="order_id"):
    """Paid, held and the seat sold: the child is in the course."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    course_id: UUID
    title: str
    price_fen: PositiveFen
    lessons: Count


class PurchaseEnded(Event, type="orders.purchase.ended.v1", topic=_EVENTS, key="order_id"):
    """A purchase ended without enrolment; money that had come goes back first.

    `detail`: what the family is told of a refusal, in Chinese, with the rule and its figures.
    """

    order_id: UUID
    account_id: UUID
    reason: Word
    detail: Text = ""


# --- lessons ------------------------------------------------------------------------------------------------------


class LessonAnswer(Reply, type="orders.lesson.answer.v1"):
    """The lesson after what was asked."""

    order_id: UUID
    lesson_no: LessonNo
    state: LessonState
    answer_by: Moment | None = None


class ApplyLesson(Request, type="orders.lesson.apply.v1", topic=_REQUESTS, key="order_id", reply=LessonAnswer):
    """The institution files that the lesson was taught (销课申请); only after its end, once [seed]."""

    order_id: UUID
    lesson_no: LessonNo


class ConfirmLesson(Request, type="orders.lesson.confirm.v1", topic=_REQUESTS, key="order_id", reply=LessonAnswer):
    """The guardian confirms (核销): the lesson's fee is released."""

    order_id: UUID
    lesson_no: LessonNo


class ObjectLesson(Request, type="orders.lesson.object.v1", topic=_REQUESTS, key="order_id", reply=LessonAnswer):
    """The guardian objects (异议): the clock stops and that lesson's fee stays; the institution is to answer.

    `evidence` refers to what the guardian can show: a number or an address at the gateway, never the thing itself.
    """

    order_id: UUID
    lesson_no: LessonNo
    reason: Reason
    evidence: Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)] = ""


class LessonDeadline(Command, type="orders.lesson.deadline.v1", topic=_COMMANDS, key="order_id"):
    """Timer: a lesson still waits. Its guardian is reminded on the third and the last day; no answer in N working days
    is a confirmation, marked as such for ever [law]."""

    order_id: UUID
    lesson_no: LessonNo


class LessonApplied(Event, type="orders.lesson.applied.v1", topic=_EVENTS, key="order_id"):
    """A lesson waits for its guardian's answer."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    lesson_no: LessonNo
    title: str
    answer_by: Moment


class LessonWaiting(Event, type="orders.lesson.waiting.v1", topic=_EVENTS, key="order_id"):
    """A lesson still waits for its guardian's answer on the third working day, or on the last one before silence
    confirms it [DOMAIN: reminders day 0, 3, last]. Day 0 is `LessonApplied`."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    lesson_no: LessonNo
    title: str
    answer_by: Moment
    reminder: Literal["third_day", "last_day"]


class LessonConfirmed(Event, type="orders.lesson.confirmed.v1", topic=_EVENTS, key="order_id"):
    """A lesson was confirmed: always told of `silence`; of a guardian only where a reminder may still lie unsent.

    A guardian who answers by day is not told of here: the reminder of day 0 went out when the lesson was filed, and the
    later ones are only told of lessons that still wait. A lesson is ten messages on the road; this would be one more of
    each. Who wants to know of every lesson listens to `escrow.released.v1`.
    """

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    lesson_no: LessonNo
    title: str
    by: Literal["guardian", "silence", "authority"]


class LessonObjected(Event, type="orders.lesson.objected.v1", topic=_EVENTS, key="order_id"):
    """A guardian objected to a lesson."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    lesson_no: LessonNo
    reason: str


# --- objections ---------------------------------------------------------------------------------------------------

ObjectionState = Literal["raised", "answered", "unanswered", "decided", "withdrawn"]
Decision = Literal["release", "return", "split"]
"""Of a lesson's fee: all to the institution, all back to the guardian, or a part to each."""


class ObjectionView(Reply, type="orders.objection.view.v1"):
    """An objection as all three sides see it. `act_by`: until when the side whose turn it is has time; an authority
    that is late is reminded and gets a new date, `overdue` counts how often."""

    order_id: UUID
    lesson_no: LessonNo
    state: ObjectionState
    reason: str
    evidence: str = ""
    objected_at: Moment
    act_by: Moment | None = None
    overdue: int = 0
    answer: str = ""
    answered_at: Moment | None = None
    decision: Literal["", "release", "return", "split"] = ""
    decision_reason: str = ""
    decided_by: Literal["", "institution", "authority"] = ""
    decided_at: Moment | None = None
    release_fen: Fen = 0
    return_fen: Fen = 0


class AnswerObjection(Request, type="orders.objection.answer.v1", topic=_REQUESTS, key="order_id", reply=ObjectionView):
    """The institution answers an objection, once and in time; or accepts it, at any time before the authority decides:
    then the fee goes back without the authority [ours]."""

    order_id: UUID
    lesson_no: LessonNo
    text: Annotated[str, StringConstraints(max_length=500, strip_whitespace=True)] = ""
    accepts: bool = False


class DecideObjection(Request, type="orders.objection.decide.v1", topic=_REQUESTS, key="order_id", reply=ObjectionView):
    """The authority decides once the institution has answered or was silent; it decides once. `release_fen`: what the
    institution gets of a split, 1 to the price less 1 fen."""

    order_id: UUID
    lesson_no: LessonNo
    decision: Decision
    release_fen: Fen = 0
    reason: Reason


class ShowObjection(Request, type="orders.objection.show.v1", topic=_REQUESTS, key="order_id", reply=ObjectionView):
    """The objection to a lesson; for its guardian, its institution, and the authority."""

    order_id: UUID
    lesson_no: LessonNo


class ObjectionDeadline(Command, type="orders.objection.deadline.v1", topic=_COMMANDS, key="order_id"):
    """Timer: the institution has not answered, or the authority has not decided."""

    order_id: UUID
    lesson_no: LessonNo


class ObjectionMoved(Event, type="orders.objection.moved.v1", topic=_EVENTS, key="order_id"):
    """An objection is in a new state, or is overdue in the one it is in: it was `act_by` somebody's turn.

    `by`: who has moved it; `deadline` that somebody has not. No money moves because an authority is late.
    """

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    lesson_no: LessonNo
    state: ObjectionState
    by: Literal["guardian", "institution", "authority", "deadline"]
    act_by: Moment | None = None
    overdue: bool = False
    decision: Literal["", "release", "return", "split"] = ""
    release_fen: Fen = 0
    return_fen: Fen = 0


# --- refunds ------------------------------------------------------------------------------------------------------

RefundGround = Literal["full_refund_window", "untaught", "institution_at_fault", "institution_gone"]
RefundState = Literal["asked", "contested", "paying", "paid", "rejected", "withdrawn"]
"""asked: the institution must answer; contested: the authority decides; paying: the bank was told."""
Lessons = Annotated[tuple[LessonNo, ...], Field(max_length=40_000)]


class QuoteLine(Part):
    """One line of a quote: an amount (of `deduction` it is taken off), and the rule it comes from, with its source."""

    what: Literal["fee", "deduction"]
    amount_fen: Fen
    lessons: Lessons = ()
    rule: str


class RefundQuote(Reply, type="orders.refund.quoted.v1"):
    """What would go back if it were asked now, each line with its rule; `needs_answer`: the institution has a say.

    `pending` are lessons that are applied for or objected to: they are settled first, or excluded by name.
    """

    order_id: UUID
    ground: RefundGround
    lessons: Lessons
    pending: Lessons = ()
    lines: tuple[QuoteLine, ...]
    refund_fen: Fen
    materials_at_most_fen: Fen = 0
    needs_answer: bool


class QuoteRefund(Request, type="orders.refund.quote.v1", topic=_REQUESTS, key="order_id", reply=RefundQuote):
    """The guardian asks what would go back; nothing is changed. Refused: refund_nothing, order_state, refund_exists."""

    order_id: UUID
    at_fault: bool = False


class RefundView(Reply, type="orders.refund.view.v1"):
    """One refund: what goes back (`refund_fen` = `fee_fen` - `deduction_fen`), how it stands, who must act by when.

    `trouble` is what a person must look at: why the bank refused it or gave it back; `overdue`: the deadline passed.
    """

    refund_id: UUID
    order_id: UUID
    account_id: UUID
    institution_id: UUID
    state: RefundState
    ground: RefundGround
    lessons: Lessons
    fee_fen: Fen
    deduction_fen: Fen
    refund_fen: Fen
    reason: str
    answer: str = ""
    decision: str = ""
    asked_at: Moment
    act_by: Moment | None = None
    overdue: bool = False
    trouble: str = ""


class RequestRefund(Request, type="orders.refund.request.v1", topic=_REQUESTS, key="order_id", reply=RefundView):
    """The guardian asks for the fee of every untaught lesson back: what was quoted, else refused refund_changed.

    Lessons that are applied for or objected to must be settled first or named in `excluded`, else refund_pending.
    Within the full-refund window it is paid at once; else the institution answers, and silence is agreement [law].
    Refused too: refund_exists, refund_nothing, order_state.
    """

    order_id: UUID
    refund_id: UUID
    reason: Reason
    quoted_fen: Fen
    at_fault: bool = False
    excluded: Lessons = ()


class WithdrawRefund(Request, type="orders.refund.withdraw.v1", topic=_REQUESTS, key="order_id", reply=RefundView):
    """The guardian takes the request back, while nobody has decided it. Refused: refund_unknown, refund_state."""

    order_id: UUID
    refund_id: UUID


class AnswerRefund(Request, type="orders.refund.answer.v1", topic=_REQUESTS, key="order_id", reply=RefundView):
    """The institution agrees, naming materials that were used (at most what the contract says), or objects.

    Refused: refund_unknown, refund_state, amount_invalid.
    """

    order_id: UUID
    refund_id: UUID
    agrees: bool
    used_materials_fen: Fen = 0
    words: Annotated[str, Field(max_length=500)] = ""


class DecideRefund(Request, type="orders.refund.decide.v1", topic=_REQUESTS, key="order_id", reply=RefundView):
    """The authority decides a contested refund: granted, for all its lessons or some, less a deduction; or rejected.

    Refused: refund_unknown, refund_state, lesson_unknown, amount_invalid.
    """

    order_id: UUID
    refund_id: UUID
    granted: bool
    lessons: Lessons = ()
    deduction_fen: Fen = 0
    reason: Reason


class ShowRefund(Request, type="orders.refund.show.v1", topic=_REQUESTS, key="order_id", reply=RefundView):
    """How the order's last refund stands; for its guardian, its institution, authorities and operators."""

    order_id: UUID


class RefundPage(Reply, type="orders.refund.page.v1"):
    """A page of refunds; `next_after` where there may be more."""

    refunds: tuple[RefundView, ...]
    next_after: UUID | None = None


class ListRefunds(Request, type="orders.refund.list.v1", topic=_REQUESTS, reply=RefundPage):
    """Refunds that wait for somebody, oldest first: an institution's own to answer; an authority's to decide; and for
    authorities and operators those in `trouble`: overdue, refused by the bank or returned."""

    which: Literal["asked", "contested", "trouble"]
    institution_id: UUID | None = None
    limit: PageSize = 20
    after: UUID | None = None


class RefundDeadline(Command, type="orders.refund.deadline.v1", topic=_COMMANDS, key="order_id"):
    """Timer: what was awaited of a refund in `state` has not come."""

    order_id: UUID
    refund_id: UUID
    state: RefundState


class RefundMoved(Event, type="orders.refund.moved.v1", topic=_EVENTS, key="order_id"):
    """A refund was asked for, or has moved on. `overdue`: it has not, and its deadline has passed."""

    order_id: UUID
    refund_id: UUID
    account_id: UUID
    institution_id: UUID
    state: RefundState
    refund_fen: Fen
    act_by: Moment | None = None
    overdue: bool = False


# --- an institution is gone ---------------------------------------------------------------------------------------


class WindUpView(Reply, type="orders.windup.view.v1"):
    """Refunding all orders of an institution: what there is to do or, once it runs, how far it is.

    `orders` and `refund_fen` are what stands to be refunded; `given_up` purchases that were not paid yet; `pending`
    lessons wait for their own answer. A dry run has no `started_at`; `done_orders` of `orders` are done.
    """

    institution_id: UUID
    orders: Annotated[int, Field(ge=0)]
    lessons: Annotated[int, Field(ge=0)]
    refund_fen: Annotated[int, Field(ge=0)]
    given_up: Annotated[int, Field(ge=0)] = 0
    pending: Annotated[int, Field(ge=0)] = 0
    started_at: Moment | None = None
    done_orders: Annotated[int, Field(ge=0)] = 0
    done_fen: Annotated[int, Field(ge=0)] = 0
    finished_at: Moment | None = None


class PlanWindUp(Request, type="orders.windup.plan.v1", topic=_REQUESTS, key="institution_id", reply=WindUpView):
    """The authority's dry run: the totals of what `StartWindUp` would refund now; nothing is changed."""

    institution_id: UUID


class StartWindUp(Request, type="orders.windup.start.v1", topic=_REQUESTS, key="institution_id", reply=WindUpView):
    """The authority's decision on an institution that is closed or gone: every unconsumed lesson of all its orders goes
    back, without deduction, some orders at a time. Running: asked again, it changes nothing; finished: it looks again.
    """

    institution_id: UUID
    reason: Reason


class ShowWindUp(Request, type="orders.windup.show.v1", topic=_REQUESTS, key="institution_id", reply=WindUpView):
    """How far it is. Refused: windup_unknown."""

    institution_id: UUID


class GoOnWindingUp(Command, type="orders.windup.go_on.v1", topic=_COMMANDS, key="institution_id"):
    """Orders to itself: the next orders after `after` of run `run`."""

    institution_id: UUID
    run: Count
    after: UUID | None = None


class WoundUp(Event, type="orders.windup.finished.v1", topic=_EVENTS, key="institution_id"):
    """Every order of the institution has been looked at; the refunds are with the bank."""

    institution_id: UUID
    orders: Annotated[int, Field(ge=0)]
    refund_fen: Annotated[int, Field(ge=0)]


# --- invoices (发票) ------------------------------------------------------------------------------------------------

InvoiceNumber = Annotated[str, StringConstraints(pattern=r"^(\d{8}|\d{20})$")]
"""发票号码: 20 digits of a fully electronic invoice (数电发票), 8 of one on paper or of the older electronic kind [law:
国家税务总局公告2024年第11号]."""
InvoiceState = Literal["issued", "red_lettered"]


class Invoice(Part):
    """An invoice as the institution has told it: for which lessons (0: what it keeps of the refund), of how much; 红冲:
    with what red one undone."""

    invoice_id: UUID
    number: str
    lessons: tuple[PartNo, ...]
    amount_fen: PositiveFen
    state: InvoiceState
    issued_at: Moment
    red_number: str = ""
    red_reason: str = ""
    red_at: Moment | None = None


class OwedInvoice(Part):
    """A lesson whose fee was released and paid out, and no invoice given for it yet; 0: what the institution keeps of
    the refund. `overdue`: for too long."""

    order_id: UUID
    lesson_no: PartNo
    title: str
    amount_fen: PositiveFen
    paid_at: Moment
    overdue: bool


class InvoiceView(Reply, type="orders.invoice.view.v1"):
    """The invoice after what was asked."""

    order_id: UUID
    invoice: Invoice


class IssueInvoice(Request, type="orders.invoice.issue.v1", topic=_REQUESTS, key="order_id", reply=InvoiceView):
    """The institution has issued an invoice for lessons of one order, or for what it keeps of its refund (0);
    `amount_fen` is what it says.

    Refused: invoice_lesson_not_released (a lesson's fee has not reached the institution), invoice_exists (a lesson has
    its invoice, or the number was used), invoice_amount (not exactly what was released), lesson_unknown,
    order_unknown. The same again changes nothing.
    """

    invoice_id: UUID
    order_id: UUID
    number: InvoiceNumber
    lessons: Annotated[tuple[PartNo, ...], Field(min_length=1, max_length=200)]
    amount_fen: PositiveFen


class RedLetterInvoice(
    Request, type="orders.invoice.red_letter.v1", topic=_REQUESTS, key="order_id", reply=InvoiceView
):
    """The institution has undone an invoice with a red one (红字发票): its lessons are owed an invoice again.

    Refused: invoice_unknown, invoice_state (undone with another red one), invoice_exists (the red number was used).
    The same again changes nothing.
    """

    invoice_id: UUID
    order_id: UUID
    red_number: InvoiceNumber
    reason: Reason


class InvoicesView(Reply, type="orders.invoice.of_order.v1"):
    """The invoices of an order, the newest first, and what is owed."""

    order_id: UUID
    invoices: tuple[Invoice, ...]
    owed: tuple[OwedInvoice, ...]
    owed_fen: Fen


class ShowInvoices(Request, type="orders.invoice.show.v1", topic=_REQUESTS, key="order_id", reply=InvoicesView):
    """The invoices of an order; for its guardian, its institution, and authorities."""

    order_id: UUID


class LessonKey(Part):
    """A lesson of an order, or what is kept of its refund (0): where a page ended."""

    order_id: UUID
    lesson_no: PartNo


class OverdueInvoices(Reply, type="orders.invoice.overdue.v1"):
    """One page of what an institution has owed an invoice for too long, by order and lesson; `next_after` where there
    is more."""

    institution_id: UUID
    owed: tuple[OwedInvoice, ...]
    next_after: LessonKey | None = None


class ListOverdueInvoices(
    Request, type="orders.invoice.list_overdue.v1", topic=_REQUESTS, key="institution_id", reply=OverdueInvoices
):
    """What an institution has owed an invoice for too long: its own list, or any institution's for an authority."""

    institution_id: UUID
    after: LessonKey | None = None
    limit: PageSize = 20


class InvoiceChanged(Event, type="orders.invoice.changed.v1", topic=_EVENTS, key="order_id"):
    """An invoice was issued, or undone with a red one."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    invoice: Invoice


# --- views --------------------------------------------------------------------------------------------------------


class PurchaseSummary(Part):
    """A purchase in the list of its family. consumed + left + refunded = price, once the child is enrolled; what was
    given back counts whole, whatever the contract let the institution keep of it."""

    order_id: UUID
    state: PurchaseState
    reason: str
    placed_at: Moment
    course_id: UUID
    institution_id: UUID | None
    institution_name: str
    title: str
    price_fen: Fen
    consumed_lessons: int
    consumed_fen: Fen
    left_lessons: int
    left_fen: Fen
    refunded_lessons: int
    refunded_fen: Fen
    deadlines: tuple[Deadline, ...]


class PurchasePage(Reply, type="orders.purchase.page.v1"):
    """A page of purchases, the newest first. `next_after` is given where there are more: a page can be short, because
    it holds a bounded number of bytes."""

    purchases: tuple[PurchaseSummary, ...]
    next_after: UUID | None = None


class ListPurchases(Request, type="orders.purchases.list.v1", topic=_REQUESTS, key="account_id", reply=PurchasePage):
    """The purchases of a family with lessons consumed, money left and every coming deadline [seed]; those after the
    order `after`. For the family, authorities and operators."""

    account_id: UUID
    limit: PageSize = 20
    after: UUID | None = None


InstitutionLessonState = Literal["waiting", "objected", "payable", "paid"]
"""A lesson as its institution counts: waits for the guardian, objected to, confirmed but not paid out yet, paid out."""


class InstitutionLesson(Part):
    """A lesson in its institution's list. `since`: when it was applied for (waiting), else when it was answered."""

    order_id: UUID
    lesson_no: LessonNo
    title: str
    price_fen: Fen
    since: Moment
    answer_by: Moment | None


class LessonTotal(Part):
    """How many lessons of an institution are in a state, and their fees."""

    state: InstitutionLessonState
    lessons: int
    fen: Fen


class InstitutionLessons(Reply, type="orders.institution.lessons.page.v1"):
    """A page of lessons; on the first page the totals of all four states, of the same moment.

    `next_after` is given where there may be more: a page can be short, even empty, before that.
    """

    lessons: tuple[InstitutionLesson, ...]
    totals: tuple[LessonTotal, ...] = ()
    next_after: LessonKey | None = None


class ListInstitutionLessons(
    Request,
    type="orders.institution.lessons.list.v1",
    topic=_REQUESTS,
    key="institution_id",
    reply=InstitutionLessons,
):
    """The lessons of an institution in one state, by order and lesson; for it, authorities and operators."""

    institution_id: UUID
    state: InstitutionLessonState
    limit: PageSize = 20
    after: LessonKey | None = None


class InstitutionTotals(Part):
    """The lessons of one institution's orders in one district.

    waiting: applied for and not answered; overdue: what waits for an answer whose time is over; consumed, left and
    given back as families see them, so that their fen are what all enrolled have paid.
    """

    district: str
    institution_id: UUID
    waiting: int
    overdue: int
    objections: int
    consumed_lessons: int
    consumed_fen: Fen
    left_lessons: int
    left_fen: Fen
    refunded_lessons: int
    refunded_fen: Fen


class OrdersTotals(Reply, type="orders.totals.page.v1"):
    """A page of institutions. `next_after` is given where there may be more: a page can be short, even empty."""

    institutions: tuple[InstitutionTotals, ...]
    next_after: InstitutionKey | None = None


class ListOrdersTotals(Request, type="orders.totals.list.v1", topic=_REQUESTS, reply=OrdersTotals):
    """Lessons by district and institution, in the order of `escrow.totals.list.v1`, of a district or an institution if
    one is named; for authorities and operators. The district is that of the contract."""

    district: Annotated[str, Field(max_length=100)] = ""
    institution_id: UUID | None = None
    limit: PageSize = 20
    after: InstitutionKey | None = None
