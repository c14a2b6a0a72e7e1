"""What catalog does when asked: load, decide, save. Seats are sets: the rows of a whole batch at once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from services.catalog.domain import (
    NOT_REGISTERED_ZH,
    Course,
    Institution,
    InstitutionChange,
    Reservation,
    SeatBook,
    Seats,
    Seller,
    change_state,
    check_sale,
    disclose,
    freeze,
    policy_of,
    publish,
    refuse_other_course,
    refuse_other_registration,
    register,
    reserved_until,
    thaw,
)
from services.catalog.queries import course_view, institution_view
from services.catalog.tables import CourseRow, InstitutionChangeRow, InstitutionRow, ReservationRow
from shared.contracts.catalog import (
    BankAccount,
    CoursePublished,
    ExpireSeat,
    ExtendSeat,
    FreezeDeadline,
    FreezeInstitution,
    GiveBackSeat,
    InstitutionChanged,
    InstitutionFrozen,
    InstitutionThawed,
    PublishCourse,
    RegisterInstitution,
    ReserveSeat,
    SeatExpired,
    SeatGivenBack,
    SeatReserved,
    SeatTaken,
    SetInstitutionState,
    TakeSeat,
    ThawInstitution,
    UpdateDisclosure,
)
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.types import RefundTerms
from shared.messaging.work import UnitOfWork

# --- institutions -------------------------------------------------------------------------------------------------


async def register_institution(work: UnitOfWork, message: Message[RegisterInstitution]) -> None:
    """Enters an institution; the same registration again gets the same answer, whatever became of it since."""
    actor = work.actor(message, "authority")
    ask = message.data
    institution, change = register(ask, actor.subject, work.now)
    known = await _registered_before(work, institution)
    if known is not None:
        key = (known.institution_id, 1)
        first = (await work.load(InstitutionChangeRow, InstitutionChange, [key], lock=False)).get(key)
        refuse_other_registration(known, first, ask)
        work.reply(message, institution_view(known))
        return
    if not await work.insert_new(InstitutionRow, institution):
        raise Refused("institution_exists")  # another copy of this service was faster
    work.insert(InstitutionChangeRow, [change])
    _announce(work, institution, message)


async def _registered_before(work: UnitOfWork, institution: Institution) -> Institution | None:
    """Who has the id, the code or the name already, in this order."""
    for column, value in (
        ("institution_id", institution.institution_id),
        ("uscc", institution.uscc),
        ("name_key", institution.name_key),
    ):
        for known in await work.load_all(InstitutionRow, Institution, [value], by=(column,), lock=False):
            if column != "name_key" or known.state != "closed":
                return known
    return None


async def update_disclosure(work: UnitOfWork, message: Message[UpdateDisclosure]) -> None:
    """Replaces what an institution discloses; what was public before stays in its history."""
    actor = work.actor(message, "authority")
    institution = await _institution(work, message.data.institution_id)
    change = disclose(institution, message.data.disclosure, message.data.reason, actor.subject, work.now)
    if change is not None:
        changed = ("disclosure", "account", "licensed_from", "licensed_until", "changes")
        work.update(InstitutionRow, [institution], *changed)
        work.insert(InstitutionChangeRow, [change])
    work.reply(message, institution_view(institution))


async def set_institution_state(work: UnitOfWork, message: Message[SetInstitutionState]) -> None:
    """Lists, suspends or closes an institution; asked again with the same reason, nothing changes."""
    actor = work.actor(message, "authority")
    institution = await _institution(work, message.data.institution_id)
    change = change_state(institution, message.data.state, message.data.reason, actor.subject, work.now)
    if change is None:
        work.reply(message, institution_view(institution))
        return
    work.update(InstitutionRow, [institution], "state", "state_reason", "state_since", "changes")
    work.insert(InstitutionChangeRow, [change])
    _announce(work, institution, message)


async def freeze_institution(work: UnitOfWork, message: Message[FreezeInstitution]) -> None:
    """Freezes an institution: no sales from now on, and escrow is told to pay it nothing out."""
    actor = work.actor(message, "authority")
    ask = message.data
    institution = await _institution(work, ask.institution_id)
    change = freeze(institution, ask.until, ask.reason, actor.subject, work.now)
    if change is not None and institution.frozen_until is not None:
        work.set_timer(FreezeDeadline(institution_id=ask.institution_id), institution.frozen_until, message)
        frozen = InstitutionFrozen(
            institution_id=ask.institution_id,
            change_no=change.change_no,
            until=institution.frozen_until,
            reason=ask.reason,
        )
        work.send(frozen, message)
        _write_freeze(work, institution, change)
    work.reply(message, institution_view(institution))


async def thaw_institution(work: UnitOfWork, message: Message[ThawInstitution]) -> None:
    """Lifts a freeze before its end."""
    actor = work.actor(message, "authority")
    institution = await _institution(work, message.data.institution_id)
    work.cancel_timer(FreezeDeadline, institution.institution_id)
    _thaw(work, institution, message.data.reason, actor.subject, message)
    work.reply(message, institution_view(institution))


async def end_freeze(work: UnitOfWork, message: Message[FreezeDeadline]) -> None:
    """The time of a freeze is over; one that was lifted or made longer since is not."""
    institution = await _institution(work, message.data.institution_id)
    if institution.frozen_until is not None and institution.frozen_until <= work.now:
        _thaw(work, institution, "冻结期满", "yike", message)


def _thaw(work: UnitOfWork, institution: Institution, reason: str, by: str, cause: Message[Any]) -> None:
    change = thaw(institution, reason, by, work.now)
    if change is not None:
        thawed = InstitutionThawed(institution_id=institution.institution_id, change_no=change.change_no, reason=reason)
        work.send(thawed, cause)
        _write_freeze(work, institution, change)


def _write_freeze(work: UnitOfWork, institution: Institution, change: InstitutionChange) -> None:
    work.update(InstitutionRow, [institution], "frozen_until", "changes")
    work.insert(InstitutionChangeRow, [change])


async def _institution(work: UnitOfWork, institution_id: UUID) -> Institution:
    found = (await work.load(InstitutionRow, Institution, [institution_id])).get(institution_id)
    if found is None:
        raise Refused("institution_not_registered", NOT_REGISTERED_ZH)
    return found


def _announce(
    work: UnitOfWork, institution: Institution, message: Message[RegisterInstitution] | Message[SetInstitutionState]
) -> None:
    event = InstitutionChanged(
        institution_id=institution.institution_id,
        name=institution.name,
        state=institution.state,
        reason=institution.state_reason,
    )
    work.send(event, message)
    work.reply(message, institution_view(institution))


# --- courses ------------------------------------------------------------------------------------------------------


async def publish_course(work: UnitOfWork, message: Message[PublishCourse]) -> None:
    """Puts a course on offer; the same offer again gets the same answer."""
    ask = message.data
    work.actor(message, "institution", subject=ask.institution_id)
    sellers = await work.load(InstitutionRow, Seller, [ask.institution_id], lock=False)
    seller = sellers.get(ask.institution_id)
    if seller is None:
        raise Refused("institution_not_registered", NOT_REGISTERED_ZH)
    known = (await work.load(CourseRow, Course, [ask.course_id], lock=False)).get(ask.course_id)
    if known is not None:
        refuse_other_course(known, ask)
        work.reply(message, course_view(known, seller.name))
        return
    course = publish(ask, seller, work.now)
    if not await work.insert_new(CourseRow, course):
        raise Refused("course_exists")  # another copy of this service was faster
    event = CoursePublished(course_id=course.course_id, institution_id=seller.institution_id, title=course.title)
    work.send(event, message)
    work.reply(message, course_view(course, seller.name))


# --- seats --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Counter:
    """What is on sale in one batch: each course is judged once, and its offer made once, however many ask for it."""

    courses: Mapping[UUID, Course]
    sellers: Mapping[UUID, Seller]
    now: datetime
    _refusals: dict[UUID, Refused | None] = field(default_factory=dict)
    _offers: dict[UUID, SeatReserved] = field(default_factory=dict)

    def course(self, course_id: UUID) -> tuple[Course, Seller]:
        """The course, if a seat of it may be sold now. Raises Refused."""
        course = self.courses.get(course_id)
        if course is None:
            raise Refused("course_unknown")
        seller = self.sellers[course.institution_id]
        if course_id not in self._refusals:
            try:
                check_sale(course, seller, self.now)
                self._refusals[course_id] = None
            except Refused as refused:
                self._refusals[course_id] = refused
        refusal = self._refusals[course_id]
        if refusal is not None:
            raise refusal.with_traceback(None)
        return course, seller

    def answer(self, reservation: Reservation) -> SeatReserved:
        """The frozen offer of a reservation."""
        assert reservation.course_id is not None
        account = BankAccount.model_validate(reservation.account)
        own = {"order_id": reservation.order_id, "expires_at": reservation.expires_at, "account": account}
        template = self._offers.get(reservation.course_id)
        if template is None:
            course = self.courses[reservation.course_id]
            seller = self.sellers[course.institution_id]
            template = self._offers[course.course_id] = SeatReserved(
                course_id=course.course_id,
                institution_id=course.institution_id,
                institution_name=seller.name,
                institution_uscc=seller.uscc,
                title=course.title,
                category=course.category,
                online=course.online,
                district=course.district,
                price_fen=course.price_fen,
                lessons=course.plan,
                refund_terms=RefundTerms.model_validate(course.refund_terms),
                **own,
            )
        return template.model_copy(update=own)


async def reserve_seats(work: UnitOfWork, messages: Sequence[Message[ReserveSeat]]) -> None:
    """Keeps seats for the orders of the batch, in their order: the last one is sold once."""
    reservations = await work.load(ReservationRow, Reservation, {m.data.order_id for m in messages})
    wanted = {m.data.course_id for m in messages} | _courses_of(reservations.values())
    courses = await work.load(CourseRow, Course, wanted)
    institutions = {course.institution_id for course in courses.values()}
    sellers = await work.load(InstitutionRow, Seller, institutions, lock=False)
    book, counter = SeatBook(reservations, courses, work.now), _Counter(courses, sellers, work.now)
    for message in messages:
        with work.answering(message):
            ask = message.data
            reservation = book.standing(ask.order_id, ask.course_id)
            if reservation is None:
                course, seller = counter.course(ask.course_id)
                expires_at = reserved_until(policy_of(seller, work.now), work.now)
                reservation = book.reserve(ask.order_id, course.course_id, seller.account, expires_at)
                work.set_timer(ExpireSeat(order_id=ask.order_id), expires_at, message)
            work.reply(message, counter.answer(reservation))
    await _save(work, book)


async def take_seats(work: UnitOfWork, messages: Sequence[Message[TakeSeat]]) -> None:
    """Sells the orders of the batch their seats."""
    book = await _book(work, [message.data.order_id for message in messages])
    for message in messages:
        with work.answering(message):
            order_id = message.data.order_id
            if book.take(order_id):
                work.cancel_timer(ExpireSeat, order_id)
            work.reply(message, SeatTaken(order_id=order_id))
    await _save(work, book)


async def give_back_seats(work: UnitOfWork, messages: Sequence[Message[GiveBackSeat]]) -> None:
    """Frees what the orders of the batch hold."""
    book = await _book(work, [message.data.order_id for message in messages])
    for message in messages:
        with work.answering(message):
            order_id = message.data.order_id
            if book.give_back(order_id, message.data.reason):
                work.cancel_timer(ExpireSeat, order_id)
            work.reply(message, SeatGivenBack(order_id=order_id))
    await _save(work, book)


async def extend_seats(work: UnitOfWork, messages: Sequence[Message[ExtendSeat]]) -> None:
    """Moves the time at which the seats of the batch's orders are free again."""
    book = await _book(work, [message.data.order_id for message in messages])
    for message in messages:
        with work.answering(message):
            order_id, until = message.data.order_id, message.data.until
            if book.extend(order_id, until):
                work.set_timer(ExpireSeat(order_id=order_id), until, message)
    await _save(work, book)


async def expire_seats(work: UnitOfWork, messages: Sequence[Message[ExpireSeat]]) -> None:
    """Frees the seats whose time is over; one whose time was moved meanwhile gets its timer again."""
    book = await _book(work, [message.data.order_id for message in messages])
    for message in messages:
        order_id = message.data.order_id
        reservation = book.expire(order_id)
        if reservation is None or reservation.course_id is None or reservation.expires_at is None:
            continue
        if reservation.state == "expired":
            work.send(SeatExpired(order_id=order_id, course_id=reservation.course_id), message)
        else:
            work.set_timer(ExpireSeat(order_id=order_id), reservation.expires_at, message)
    await _save(work, book)


async def _book(work: UnitOfWork, order_ids: Collection[UUID]) -> SeatBook:
    """The seats of these orders: first the reservations are locked, then their courses, each in the order of keys."""
    reservations = await work.load(ReservationRow, Reservation, order_ids)
    courses = await work.load(CourseRow, Seats, _courses_of(reservations.values()))
    return SeatBook(reservations, courses, work.now)


def _courses_of(reservations: Collection[Reservation]) -> set[UUID]:
    return {one.course_id for one in reservations if one.course_id is not None}


async def _save(work: UnitOfWork, book: SeatBook) -> None:
    changes = ("state", "expires_at", "reason", "changed_at")
    work.insert(ReservationRow, list(book.made.values()))
    work.update(ReservationRow, book.changed.values(), *changes)
    work.update(CourseRow, book.counted.values(), "reserved", "taken")
