"""The words of catalog: institutions, courses, seats."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from shared.contracts import topics
from shared.contracts.envelope import Command, Event, Reply, Request
from shared.contracts.types import (
    Count,
    LessonTime,
    Moment,
    Name,
    PageSize,
    Part,
    Reason,
    RefundTerms,
    Text,
    Word,
)
from shared.money import PositiveFen
from shared.policy import Category

_REQUESTS = topics.requests("catalog")
_COMMANDS = topics.commands("catalog")
_EVENTS = topics.events("catalog")

InstitutionState = Literal["applied", "listed", "suspended", "closed"]


class Licence(Part):
    """办学许可证 or registration; no sales outside its dates."""

    number: Name
    issued_by: Name
    valid_from: Moment
    valid_until: Moment


class Teacher(Part):
    """A teacher and the certificate that qualifies."""

    name: Name
    qualification: Name


class BankAccount(Part):
    """The supervised account (监管账户): the bank's code and the account's number, plus where payouts go."""

    bank: Word
    supervised_account: Name
    payout_account: Name


class Disclosure(Part):
    """What must be public before an institution can be listed [seed]."""

    licences: Annotated[tuple[Licence, ...], Field(max_length=10)] = ()
    venue: Text = ""
    teachers: Annotated[tuple[Teacher, ...], Field(max_length=500)] = ()
    materials: Text = ""
    fee_standard: Text = ""
    refund_rules: Text = ""
    account: BankAccount | None = None


# --- institutions -------------------------------------------------------------------------------------------------


class InstitutionView(Reply, type="catalog.institution.view.v1"):
    """An institution as the public sees it."""

    institution_id: UUID
    uscc: str
    name: str
    district: str
    category: Category
    state: InstitutionState
    state_reason: str
    state_since: Moment
    frozen_until: Moment | None = None
    disclosure: Disclosure


class RegisterInstitution(
    Request,
    type="catalog.institution.register.v1",
    topic=_REQUESTS,
    key="institution_id",
    reply=InstitutionView,
):
    """An institution applies, entered by the authority; the USCC is checked, or overridden with a reason."""

    institution_id: UUID
    uscc: Annotated[str, Field(min_length=1, max_length=18)]
    uscc_override_reason: Text = ""
    name: Name
    district: Name
    category: Category
    disclosure: Disclosure


class UpdateDisclosure(
    Request,
    type="catalog.institution.disclose.v1",
    topic=_REQUESTS,
    key="institution_id",
    reply=InstitutionView,
):
    """The authority enters what is disclosed from now on, whole: a part that was missing, a renewed licence.

    Refused with what is missing where a listed institution would no longer disclose all; never of a closed one. The
    account is at a bank that supervises: the institution chooses, and may move to another. Then new orders go there;
    those before keep the bank and accounts they were paid with. Also refused: bank_unknown, bank_account_invalid.
    """

    institution_id: UUID
    disclosure: Disclosure
    reason: Reason


class SetInstitutionState(
    Request,
    type="catalog.institution.set_state.v1",
    topic=_REQUESTS,
    key="institution_id",
    reply=InstitutionView,
):
    """The authority lists (all disclosed), suspends or closes an institution, with a reason.

    applied → listed → suspended → listed or closed; an application that is turned down is closed too [ours].
    """

    institution_id: UUID
    state: Literal["listed", "suspended", "closed"]
    reason: Reason


class FreezeInstitution(
    Request,
    type="catalog.institution.freeze.v1",
    topic=_REQUESTS,
    key="institution_id",
    reply=InstitutionView,
):
    """The authority freezes an institution until a time, with a reason: no sales, no payouts; refunds go on.

    At most half a year ahead [ours]; frozen again, the new end counts. Refused: freeze_until, institution_state.
    """

    institution_id: UUID
    until: Moment
    reason: Reason


class ThawInstitution(
    Request,
    type="catalog.institution.thaw.v1",
    topic=_REQUESTS,
    key="institution_id",
    reply=InstitutionView,
):
    """The authority lifts a freeze before its end, with a reason: what fell due in between goes out, once."""

    institution_id: UUID
    reason: Reason


class FreezeDeadline(Command, type="catalog.institution.freeze_deadline.v1", topic=_COMMANDS, key="institution_id"):
    """Timer: the freeze is over."""

    institution_id: UUID


class InstitutionFrozen(Event, type="catalog.institution.frozen.v1", topic=_EVENTS, key="institution_id"):
    """An institution is frozen. `change_no` grows with each change of an institution: the greatest counts."""

    institution_id: UUID
    change_no: Count
    until: Moment
    reason: str


class InstitutionThawed(Event, type="catalog.institution.thawed.v1", topic=_EVENTS, key="institution_id"):
    """An institution is not frozen any more: lifted by the authority, or its time is over."""

    institution_id: UUID
    change_no: Count
    reason: str


class LookUpInstitution(
    Request, type="catalog.institution.look_up.v1", topic=_REQUESTS, key="query", reply=InstitutionView
):
    """By exact name or USCC; not found is a refusal: not registered, irregular, do not pay [seed]."""

    query: Name


class InstitutionChanged(Event, type="catalog.institution.changed.v1", topic=_EVENTS, key="institution_id"):
    """An institution was registered or its state changed."""

    institution_id: UUID
    name: str
    state: InstitutionState
    reason: str


# --- courses ------------------------------------------------------------------------------------------------------


class CourseView(Reply, type="catalog.course.view.v1"):
    """A course on offer. Price in fen for all its lessons."""

    course_id: UUID
    institution_id: UUID
    institution_name: str
    title: str
    description: str = ""
    category: Category
    online: bool
    district: str
    price_fen: PositiveFen
    lessons: tuple[LessonTime, ...]
    refund_terms: RefundTerms
    seats: Count
    seats_left: Annotated[int, Field(ge=0)]
    sells_from: Moment | None


class PublishCourse(Request, type="catalog.course.publish.v1", topic=_REQUESTS, key="course_id", reply=CourseView):
    """An institution offers a course; refused with every limit it breaks (3 months, 60 lessons, 5 000 yuan, hours)."""

    course_id: UUID
    institution_id: UUID
    title: Name
    description: Text = ""
    online: bool = False
    price_fen: PositiveFen
    lessons: Annotated[tuple[LessonTime, ...], Field(min_length=1, max_length=1000)]
    refund_terms: RefundTerms = RefundTerms()
    seats: Count
    sells_from: Moment | None = None


class ShowCourse(Request, type="catalog.course.show.v1", topic=_REQUESTS, key="course_id", reply=CourseView):
    """One course."""

    course_id: UUID


class CoursePage(Reply, type="catalog.course.page.v1"):
    """A page of courses. `next_after` is given where there may be more: a page can be short, even empty, before that.

    One page looks at a bounded number of courses and holds a bounded number of bytes.
    """

    courses: tuple[CourseView, ...]
    next_after: UUID | None = None


class SearchCourses(Request, type="catalog.course.search.v1", topic=_REQUESTS, reply=CoursePage):
    """Courses of listed institutions by district, category and words of the title (all of them); paged by course id.

    The greatest ids, which are the newest courses, come first. Courses that have begun are left out, except where one
    institution's are asked for.
    """

    district: Annotated[str, Field(max_length=100)] = ""
    category: Category | None = None
    words: Annotated[str, Field(max_length=100)] = ""
    institution_id: UUID | None = None
    limit: PageSize = 20
    after: UUID | None = None


class CoursePublished(Event, type="catalog.course.published.v1", topic=_EVENTS, key="course_id"):
    """A course can be bought."""

    course_id: UUID
    institution_id: UUID
    title: str


# --- seats (commands of the purchase) -----------------------------------------------------------------------------


class SeatReserved(Reply, type="catalog.seat.reserved.v1"):
    """A seat is kept for the order until `expires_at`; the offer is what the contract freezes."""

    order_id: UUID
    course_id: UUID
    institution_id: UUID
    institution_name: str
    institution_uscc: str
    title: str
    category: Category
    online: bool
    district: str
    price_fen: PositiveFen
    lessons: tuple[LessonTime, ...]
    refund_terms: RefundTerms
    account: BankAccount
    expires_at: Moment


class ReserveSeat(Command, type="catalog.seat.reserve.v1", topic=_COMMANDS, key="order_id", reply=SeatReserved):
    """Keeps one seat for an order for 15 minutes [ours]; limits and licence are checked again."""

    order_id: UUID
    course_id: UUID


class SeatTaken(Reply, type="catalog.seat.taken.v1"):
    """The seat is sold to the order."""

    order_id: UUID


class TakeSeat(Command, type="catalog.seat.take.v1", topic=_COMMANDS, key="order_id", reply=SeatTaken):
    """The order is paid: its seat is sold. Refused when the reservation has expired and the seat is gone."""

    order_id: UUID


class SeatGivenBack(Reply, type="catalog.seat.given_back.v1"):
    """The order holds no seat any more."""

    order_id: UUID


class GiveBackSeat(Command, type="catalog.seat.give_back.v1", topic=_COMMANDS, key="order_id", reply=SeatGivenBack):
    """The order has ended: its seat, reserved or sold, is free again. No seat is no fault."""

    order_id: UUID
    reason: Word


class ExtendSeat(Command, type="catalog.seat.extend.v1", topic=_COMMANDS, key="order_id"):
    """The order waits for the bank: its seat is kept until `until` (the payment window differs by method)."""

    order_id: UUID
    until: Moment


class ExpireSeat(Command, type="catalog.seat.expire.v1", topic=_COMMANDS, key="order_id"):
    """Timer: the reservation is over if it was neither taken nor given back."""

    order_id: UUID


class SeatExpired(Event, type="catalog.seat.expired.v1", topic=_EVENTS, key="order_id"):
    """A reservation ran out."""

    order_id: UUID
    course_id: UUID
