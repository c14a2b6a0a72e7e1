"""The rules of catalog, pure: institutions and what they must disclose, courses and their limits, seats.

Every function first refuses, then changes the state objects it was given. Parts of contracts stand in the states as
JSON, as they stand in the tables.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from pydantic import TypeAdapter

from shared.contracts.catalog import Disclosure, InstitutionState, Licence, PublishCourse, RegisterInstitution
from shared.contracts.errors import FieldError, Refused
from shared.contracts.types import LessonTime, RefundTerms
from shared.documents import check_uscc
from shared.policy import Category, Policy, check_offer, policy_for, promotion_fault
from shared.working_days import shanghai

Json = dict[str, Any]
SeatState = Literal["reserved", "taken", "given_back", "expired"]

NOT_REGISTERED_ZH: Final = "未注册登记，属非正规机构，请勿交费"
"""What somebody is told who looks for an institution that is not on the platform [seed]."""

USCC_MAX_CHARACTERS: Final = 18
NAME_MAX_CHARACTERS: Final = 100
FAULTS_SHOWN: Final = 20
"""Most faults of lesson numbers and dates named in one refusal; those of limits have their own end [ours]."""
PLANNABLE_YEARS: Final = range(2000, 2200)
"""Years in which a course may be planned [ours]."""

FREEZE_AT_MOST: Final = timedelta(days=183)
"""Longest freeze at once; an authority may freeze again [ours]."""

NEXT_STATES: Final[Mapping[InstitutionState, frozenset[InstitutionState]]] = {
    "applied": frozenset({"listed", "closed"}),  # closed: the application was turned down [ours]
    "listed": frozenset({"suspended"}),
    "suspended": frozenset({"listed", "closed"}),
    "closed": frozenset(),
}

_LESSONS: Final = TypeAdapter(tuple[LessonTime, ...])


# --- institutions -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seller:
    """What a sale needs to know of an institution; its licences are in force from the one time until the other."""

    institution_id: UUID
    uscc: str
    name: str
    district: str
    category: Category
    account: Json | None
    licensed_from: datetime | None
    licensed_until: datetime | None
    state: InstitutionState
    frozen_until: datetime | None


@dataclass(slots=True)
class Institution(Seller):
    """An institution (机构). `name_key` is its name as it is looked up; `changes` counts the rows of its history."""

    uscc_override_reason: str
    name_key: str
    disclosure: Json
    state_reason: str
    state_since: datetime
    changes: int

    @property
    def disclosed(self) -> Disclosure:
        """What is public about it."""
        return Disclosure.model_validate(self.disclosure)


@dataclass(slots=True, frozen=True)
class InstitutionChange:
    """One row of an institution's history: what it became, why, by whose hand, when; the disclosure if it changed."""

    institution_id: UUID
    change_no: int
    state: InstitutionState
    reason: str
    authority: str
    changed_at: datetime
    disclosure: Json | None
    frozen_until: datetime | None


def fold_name(name: str) -> str:
    """A name as it is compared: full-width forms, case and spaces make no difference (（常州） is (常州))."""
    wide = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in wide if not c.isspace() and c.isprintable())


def fold_uscc(text: str) -> str:
    """A unified social credit code (统一社会信用代码) as it is compared, whether or not it is one."""
    return "".join(c for c in fold_name(text).upper() if c not in "-‐‑–—")


def register(ask: RegisterInstitution, authority: str, now: datetime) -> tuple[Institution, InstitutionChange]:
    """A new institution in state applied, and the first row of its history.

    Raises Refused: uscc_invalid (unless overridden with a reason), request_invalid.
    """
    uscc = _checked_uscc(ask.uscc, ask.uscc_override_reason.strip())
    name_key = fold_name(ask.name)
    if not 1 <= len(name_key) <= NAME_MAX_CHARACTERS:
        raise Refused(
            "request_invalid", "机构名称无法识别", errors=[FieldError(field="name", message="机构名称无法识别")]
        )
    institution = Institution(
        institution_id=ask.institution_id,
        uscc=uscc,
        name=ask.name,
        district=ask.district,
        category=ask.category,
        account=None,
        licensed_from=None,
        licensed_until=None,
        state="applied",
        frozen_until=None,
        uscc_override_reason=ask.uscc_override_reason.strip(),
        name_key=name_key,
        disclosure={},
        state_reason="",
        state_since=now,
        changes=0,
    )
    _set_disclosure(institution, ask.disclosure)
    return institution, _record(institution, institution.uscc_override_reason, authority, now, institution.disclosure)


def _checked_uscc(code: str, override_reason: str) -> str:
    """`code` normalised. With a reason the regulator may enter one whose check fails; real ones exist."""
    try:
        return check_uscc(code)
    except Refused:
        folded = fold_uscc(code)
        if override_reason and folded.isascii() and folded.isalnum() and len(folded) <= USCC_MAX_CHARACTERS:
            return folded
        raise


def refuse_other_registration(known: Institution, first: InstitutionChange | None, ask: RegisterInstitution) -> None:
    """Nothing if `known`, whose history begins with `first`, was registered by the same request, else Refused.

    institution_exists: its id, code or name is taken.
    """
    same = (
        known.institution_id == ask.institution_id
        and known.uscc == fold_uscc(ask.uscc)
        and (known.name, known.district, known.category) == (ask.name, ask.district, ask.category)
        and first is not None
        and Disclosure.model_validate(first.disclosure) == ask.disclosure
    )
    if not same:
        detail = "统一社会信用代码、名称或编号已登记"
        raise Refused("institution_exists", detail, institution_id=str(known.institution_id))


def undisclosed(disclosure: Disclosure, now: datetime) -> list[FieldError]:
    """What is missing of a full disclosure (公示), one fault for each part [seed]; licences must be in force."""
    missing: list[tuple[str, str]] = []
    if not disclosure.licences:
        missing.append(("licences", "未公示办学许可证或登记证照"))
    for number, licence in enumerate(disclosure.licences):
        if not licence.valid_from <= now < licence.valid_until:
            missing.append((f"licences.{number}", f"证照 {licence.number} 不在有效期内"))
    if not disclosure.teachers:
        missing.append(("teachers", "未公示教师及其资质"))
    for name, part in (("venue", "培训场所"), ("materials", "培训材料"), ("fee_standard", "收费标准")):
        if not getattr(disclosure, name).strip():
            missing.append((name, f"未公示{part}"))
    if not disclosure.refund_rules.strip():
        missing.append(("refund_rules", "未公示退费规定"))
    if disclosure.account is None:
        missing.append(("account", "未公示监管银行及监管账户"))
    return [
        FieldError(field=f"disclosure.{where}", message=message, code="institution_undisclosed")
        for where, message in missing
    ]


def _refuse_undisclosed(disclosure: Disclosure, now: datetime) -> None:
    missing = undisclosed(disclosure, now)
    if missing:
        detail = "；".join(fault.message for fault in missing)
        raise Refused("institution_undisclosed", detail, errors=missing, missing=len(missing))


def change_state(
    institution: Institution, state: InstitutionState, reason: str, authority: str, now: datetime
) -> InstitutionChange | None:
    """Lists, suspends or closes `institution`; the row of its history, or None if it was done before.

    Raises Refused: institution_state, institution_undisclosed (names every missing part).
    """
    if (institution.state, institution.state_reason) == (state, reason):
        return None
    if state not in NEXT_STATES[institution.state]:
        raise Refused("institution_state", f"{institution.state} → {state}", state=institution.state)
    if state == "listed":
        _refuse_undisclosed(institution.disclosed, now)
    institution.state, institution.state_reason, institution.state_since = state, reason, now
    return _record(institution, reason, authority, now, None)


def freeze(
    institution: Institution, until: datetime, reason: str, authority: str, now: datetime
) -> InstitutionChange | None:
    """No sales and no payouts until `until`; the row of its history, or None if that was said before.

    Raises Refused: freeze_until (not ahead, or more than `FREEZE_AT_MOST`), institution_state (closed).
    """
    until = until.astimezone(UTC)
    if institution.frozen_until == until:
        return None
    if institution.state == "closed":
        raise Refused("institution_state", "机构已关闭", state=institution.state)
    if not now < until <= now + FREEZE_AT_MOST:
        raise Refused("freeze_until", f"冻结期限应晚于现在，且不超过{FREEZE_AT_MOST.days}天")
    institution.frozen_until = until
    return _record(institution, reason, authority, now, None)


def thaw(institution: Institution, reason: str, authority: str, now: datetime) -> InstitutionChange | None:
    """The freeze is lifted, or over; the row of its history, or None if the institution is not frozen."""
    if institution.frozen_until is None:
        return None
    institution.frozen_until = None
    return _record(institution, reason, authority, now, None)


def disclose(
    institution: Institution, disclosure: Disclosure, reason: str, authority: str, now: datetime
) -> InstitutionChange | None:
    """Replaces what is disclosed; the row of its history, or None if it is disclosed already.

    Raises Refused: institution_state when closed; institution_undisclosed where a listed one would lack a part.
    """
    if institution.disclosed == disclosure:
        return None
    if institution.state == "closed":
        raise Refused("institution_state", "机构已关闭", state=institution.state)
    if institution.state == "listed":
        _refuse_undisclosed(disclosure, now)
    _set_disclosure(institution, disclosure)
    return _record(institution, reason, authority, now, institution.disclosure)


def _set_disclosure(institution: Institution, disclosure: Disclosure) -> None:
    """All licences must be in force for a sale, so the latest beginning and the earliest end count [ours]."""
    licences = tuple(_in_utc(licence) for licence in disclosure.licences)
    institution.disclosure = disclosure.model_copy(update={"licences": licences}).model_dump(mode="json")
    institution.account = institution.disclosure["account"]
    institution.licensed_from = max((licence.valid_from for licence in licences), default=None)
    institution.licensed_until = min((licence.valid_until for licence in licences), default=None)


def _in_utc(licence: Licence) -> Licence:
    try:
        times = {"valid_from": licence.valid_from.astimezone(UTC), "valid_until": licence.valid_until.astimezone(UTC)}
    except OverflowError:  # the year 0 or 10000 in UTC
        raise Refused("request_invalid", "证照有效期超出可用的日期范围") from None
    return licence.model_copy(update=times)


def _record(
    institution: Institution, reason: str, authority: str, now: datetime, disclosure: Json | None
) -> InstitutionChange:
    institution.changes += 1
    return InstitutionChange(
        institution_id=institution.institution_id,
        change_no=institution.changes,
        state=institution.state,
        reason=reason,
        authority=authority,
        changed_at=now,
        disclosure=disclosure,
        frozen_until=institution.frozen_until,
    )


def check_may_sell(seller: Seller, now: datetime) -> None:
    """Nothing if `seller` is listed, not frozen, and its licences are in force, else Refused: institution_not_listed,
    institution_frozen."""
    if seller.state != "listed":
        words = {"applied": "机构尚未列入白名单", "suspended": "机构已被暂停招生", "closed": "机构已关闭"}
        raise Refused("institution_not_listed", words[seller.state], state=seller.state)
    if seller.frozen_until is not None and now < seller.frozen_until:
        raise Refused("institution_frozen", frozen_until=seller.frozen_until.isoformat())
    begins, ends = seller.licensed_from, seller.licensed_until
    if begins is None or ends is None or not begins <= now < ends:
        raise Refused("institution_not_listed", "机构证照不在有效期内", state=seller.state)


# --- courses ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seats:
    """The seats (名额) of a course; reserved + taken never exceed seats."""

    course_id: UUID
    seats: int
    reserved: int
    taken: int

    @property
    def free(self) -> int:
        """Seats that can still be reserved."""
        return self.seats - self.reserved - self.taken


@dataclass(slots=True)
class Course(Seats):
    """A course on offer, never changed after it was published, but for its seats. `starts_at` is its first lesson's."""

    institution_id: UUID
    title: str
    description: str
    category: Category
    district: str
    online: bool
    price_fen: int
    lessons: list[Json]
    starts_at: datetime
    refund_terms: Json
    sells_from: datetime | None
    published_at: datetime

    @property
    def plan(self) -> tuple[LessonTime, ...]:
        """Its lessons in order."""
        return _LESSONS.validate_python(self.lessons)


def policy_of(seller: Seller, now: datetime) -> Policy:
    """The policy for what `seller` sells at `now`: of its district, its category, today's Shanghai date."""
    today: date = shanghai(now).date()
    return policy_for(seller.district, seller.category, today)


def publish(ask: PublishCourse, seller: Seller, now: datetime) -> Course:
    """A new course of `seller`, or Refused.

    institution_not_listed; else one refusal that names all that is wrong with the offer: limits of the policy, lessons
    not numbered 1..n in order, a first lesson that has begun.
    """
    check_may_sell(seller, now)
    _refuse_far_times(ask)
    faults = _plan_faults(ask.lessons, now)
    try:
        _check_limits(
            seller,
            now,
            online=ask.online,
            price_fen=ask.price_fen,
            lessons=ask.lessons,
            sells_from=ask.sells_from,
            title=ask.title,
            description=ask.description,
        )
    except Refused as broken:
        faults = [*broken.errors, *faults]
        raise Refused(broken.code, broken.detail, errors=faults, **broken.figures | {"faults": len(faults)}) from None
    if faults:
        detail = "；".join(dict.fromkeys(fault.message for fault in faults))
        raise Refused(faults[0].code, detail, errors=faults, faults=len(faults))
    return Course(
        course_id=ask.course_id,
        seats=ask.seats,
        reserved=0,
        taken=0,
        institution_id=seller.institution_id,
        title=ask.title,
        description=ask.description,
        category=seller.category,
        district=seller.district,
        online=ask.online,
        price_fen=ask.price_fen,
        lessons=[_lesson_in_utc(lesson) for lesson in ask.lessons],
        starts_at=ask.lessons[0].starts_at,
        refund_terms=ask.refund_terms.model_dump(mode="json"),
        sells_from=ask.sells_from,
        published_at=now,
    )


def _lesson_in_utc(lesson: LessonTime) -> Json:
    times = {"starts_at": lesson.starts_at.astimezone(UTC), "ends_at": lesson.ends_at.astimezone(UTC)}
    return lesson.model_copy(update=times).model_dump(mode="json")


def _refuse_far_times(ask: PublishCourse) -> None:
    """Times so far off that no calendar can judge them are a mistake, not a plan."""
    moments = [("sells_from", ask.sells_from)] if ask.sells_from else []
    for number, lesson in enumerate(ask.lessons):
        moments += [(f"lessons.{number}.starts_at", lesson.starts_at), (f"lessons.{number}.ends_at", lesson.ends_at)]
    far = [where for where, moment in moments if moment.year not in PLANNABLE_YEARS]
    if far:
        message = "时间超出可用的日期范围"
        errors = [FieldError(field=where, message=message, code="request_invalid") for where in far[:FAULTS_SHOWN]]
        raise Refused("request_invalid", message, errors=errors)


def _plan_faults(lessons: Sequence[LessonTime], now: datetime) -> list[FieldError]:
    """Faults that no policy knows of: lessons begun already, not numbered 1..n, or not in the order of their times."""
    faults: list[FieldError] = []
    if lessons[0].starts_at <= now:
        message = "首次上课时间已过"
        faults.append(FieldError(field="lessons.0.starts_at", message=message, code="course_started"))
    unordered: list[FieldError] = []
    for number, lesson in enumerate(lessons):
        if lesson.lesson_no != number + 1:
            where, message = f"lessons.{number}.lesson_no", "课次应从 1 起连续编号"
            unordered.append(FieldError(field=where, message=message, code="request_invalid"))
        if number and lesson.starts_at < lessons[number - 1].starts_at:
            where, message = f"lessons.{number}.starts_at", "课次应按上课时间先后排列"
            unordered.append(FieldError(field=where, message=message, code="request_invalid"))
    return faults + unordered[:FAULTS_SHOWN]


def refuse_other_course(known: Course, ask: PublishCourse) -> None:
    """Nothing if `known` was published by the same request before, else Refused course_exists."""
    same = (
        known.institution_id == ask.institution_id
        and (known.title, known.description, known.online) == (ask.title, ask.description, ask.online)
        and (known.price_fen, known.seats, known.sells_from) == (ask.price_fen, ask.seats, ask.sells_from)
        and known.plan == ask.lessons
        and RefundTerms.model_validate(known.refund_terms) == ask.refund_terms
    )
    if not same:
        raise Refused("course_exists")


def check_sale(course: Course, seller: Seller, now: datetime) -> None:
    """Nothing if one more seat of `course` may be sold at `now`, seats aside, else Refused.

    institution_not_listed, course_started, course_not_on_sale, and the limits of today's policy, lead time included.
    """
    check_may_sell(seller, now)
    if course.starts_at <= now:
        raise Refused("course_started", starts_at=course.starts_at.isoformat())
    if course.sells_from is not None and now < course.sells_from:
        raise Refused("course_not_on_sale", sells_from=course.sells_from.isoformat())
    _check_limits(
        seller,
        now,
        online=course.online,
        price_fen=course.price_fen,
        lessons=course.plan,
        sells_from=now,
        title=course.title,
        description=course.description,
    )


def _check_limits(
    seller: Seller,
    now: datetime,
    *,
    online: bool,
    price_fen: int,
    lessons: Sequence[LessonTime],
    sells_from: datetime | None,
    title: str,
    description: str,
) -> None:
    """`policy.check_offer` with its faults named by the fields of our contracts."""
    try:
        check_offer(
            policy_of(seller, now),
            category=seller.category,
            online=online,
            price_fen=price_fen,
            sessions=[(lesson.starts_at, lesson.ends_at) for lesson in lessons],
            sells_from=sells_from,
            promotion_text=f"{title}。{description}",  # a full stop, or they would be read as one sentence
        )
    except Refused as broken:
        fields = {"sessions": "lessons", "promotion_text": "title" if promotion_fault(title) else "description"}
        errors = [fault.model_copy(update={"field": _renamed(fault.field, fields)}) for fault in broken.errors]
        raise Refused(broken.code, broken.detail, errors=errors, **broken.figures) from None


def _renamed(where: str, fields: Mapping[str, str]) -> str:
    head, dot, rest = where.partition(".")
    return fields.get(head, head) + dot + rest


# --- seats --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Reservation:
    """What became of an order's seat. `course_id` is None where the order was given back before it ever came.

    `account` is the supervised account as it was offered: the answer to a repeated command stays the same.
    """

    order_id: UUID
    course_id: UUID | None
    state: SeatState
    expires_at: datetime | None
    account: Json | None
    reason: str
    changed_at: datetime


@dataclass(slots=True)
class SeatBook:
    """The seats of one batch: loaded, decided message by message in their order, and what is to be written.

    For every course, `reserved` and `taken` are the numbers of its reservations in these states, after every call.
    """

    reservations: dict[UUID, Reservation]
    courses: Mapping[UUID, Seats]
    now: datetime
    made: dict[UUID, Reservation] = field(default_factory=dict)
    changed: dict[UUID, Reservation] = field(default_factory=dict)
    counted: dict[UUID, Seats] = field(default_factory=dict)

    def standing(self, order_id: UUID, course_id: UUID) -> Reservation | None:
        """The order's seat if it has asked for this course before and still has it; None for a new order.

        Raises Refused: seat_expired (ran out, or was given back, even before this), order_exists (another course).
        """
        known = self.reservations.get(order_id)
        if known is None:
            return None
        if known.state in ("given_back", "expired"):
            raise Refused("seat_expired", state=known.state)
        if known.course_id != course_id:
            raise Refused("order_exists", "该订单已保留另一课程的名额", course_id=str(known.course_id))
        return known

    def reserve(self, order_id: UUID, course_id: UUID, account: Json | None, expires_at: datetime) -> Reservation:
        """Keeps a seat for an order that `standing` knows nothing of. Raises Refused: course_full."""
        seats = self.courses[course_id]
        if seats.free < 1:
            raise Refused("course_full", seats=seats.seats)
        seats.reserved += 1
        self.counted[course_id] = seats
        return self._make(Reservation(order_id, course_id, "reserved", expires_at, account, "", self.now))

    def take(self, order_id: UUID) -> bool:
        """Sells the order its seat; False if it has it. One that ran out is sold after all while a seat is free.

        Raises Refused: seat_unknown, seat_expired.
        """
        known = self.reservations.get(order_id)
        if known is None:
            raise Refused("seat_unknown")
        if known.state == "taken":
            return False
        if known.state == "given_back" or known.course_id is None:
            raise Refused("seat_expired", state=known.state)
        seats = self.courses[known.course_id]
        if known.state == "expired" and seats.free < 1:
            raise Refused("seat_expired", state=known.state)
        self._move(known, "taken")
        return True

    def give_back(self, order_id: UUID, reason: str) -> bool:
        """Frees what the order holds; False if nothing was to be done. An unknown order leaves a tombstone."""
        known = self.reservations.get(order_id)
        if known is None:
            self._make(Reservation(order_id, None, "given_back", None, None, reason, self.now))
            return True
        if known.state == "given_back":
            return False
        self._move(known, "given_back", reason)
        return True

    def extend(self, order_id: UUID, until: datetime) -> bool:
        """Keeps the order's seat until `until`; False for one that is sold, which needs no keeping.

        Raises Refused: seat_unknown, seat_expired.
        """
        known = self.reservations.get(order_id)
        if known is None:
            raise Refused("seat_unknown")
        if known.state in ("given_back", "expired"):
            raise Refused("seat_expired", state=known.state)
        if known.state == "taken":
            return False
        known.expires_at = until
        self._note(known)
        return True

    def expire(self, order_id: UUID) -> Reservation | None:
        """The reservation whose timer fired: expired now, or still reserved because its time was moved since.

        None where there is nothing to do any more.
        """
        known = self.reservations.get(order_id)
        if known is None or known.state != "reserved" or known.expires_at is None:
            return None
        if known.expires_at <= self.now:
            self._move(known, "expired")
        return known

    def _make(self, reservation: Reservation) -> Reservation:
        self.reservations[reservation.order_id] = self.made[reservation.order_id] = reservation
        return reservation

    def _move(self, reservation: Reservation, state: SeatState, reason: str = "") -> None:
        """The one place where counts follow states."""
        if reservation.course_id is not None:
            seats = self.courses[reservation.course_id]
            seats.reserved += (state == "reserved") - (reservation.state == "reserved")
            seats.taken += (state == "taken") - (reservation.state == "taken")
            self.counted[seats.course_id] = seats
        reservation.state, reservation.reason = state, reason
        self._note(reservation)

    def _note(self, reservation: Reservation) -> None:
        reservation.changed_at = self.now
        if reservation.order_id not in self.made:
            self.changed[reservation.order_id] = reservation


def reserved_until(policy: Policy, now: datetime) -> datetime:
    """When a seat reserved at `now` is free again."""
    return now + timedelta(seconds=policy.seat_reservation_seconds)
