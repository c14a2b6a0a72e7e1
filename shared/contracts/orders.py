"""The words of orders: families, purchases, lessons."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints

from shared.contracts import topics
from shared.contracts.envelope import Command, Event, Reply, Request
from shared.contracts.types import (
    Count,
    LessonNo,
    Moment,
    Name,
    Part,
    Reason,
    Sha256,
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
LessonState = Literal["planned", "applied", "confirmed", "objected", "paid_out", "divided"]
ConfirmedBy = Literal["", "guardian", "silence", "authority"]


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
    """A purchase: where it stands, its contract, what is consumed and what is left (fen and lessons).

    Once it has lessons, price = consumed + left + returned; a divided lesson is neither consumed nor left.
    """

    order_id: UUID
    state: PurchaseState
    reason: str = ""
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
    returned_fen: Fen = 0


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
    """A purchase ended without enrolment; money that had come goes back first."""

    order_id: UUID
    account_id: UUID
    reason: Word


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
    """Timer: no answer in N working days is a confirmation, marked as such for ever [law]."""

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
