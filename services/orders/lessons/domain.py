"""The rules of a lesson, pure: 一课一销, one lesson, one release."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from shared.contracts.errors import Refused
from shared.working_days import next_waking_time

SENT_WITHIN: Final = timedelta(minutes=5)
"""What is filed so shortly before the night may be told only in the morning [ours]."""
CONSUMED: Final = frozenset({"confirmed", "paid_out"})
"""States of a lesson whose fee is the institution's."""


@dataclass(slots=True)
class Lesson:
    """One lesson; times are aware UTC. `confirmed_by` tells a guardian's confirmation from silence and from an
    authority's decision, for ever.

    `returned_fen`: what of the fee of a divided lesson goes back to the guardian; the rest is the institution's.
    `reminded_at`: when its guardian was last reminded after the day of the application; `paid_at`: when the
    institution has received its fee.
    """

    order_id: UUID
    lesson_no: int
    starts_at: datetime
    ends_at: datetime
    price_fen: int
    state: str = "planned"
    confirmed_by: str = ""
    applied_at: datetime | None = None
    answer_by: datetime | None = None
    answered_at: datetime | None = None
    objection: str = ""
    returned_fen: int = 0
    reminded_at: datetime | None = None
    paid_at: datetime | None = None

    @property
    def consumed(self) -> bool:
        """Confirmed: its fee is the institution's."""
        return self.state in CONSUMED

    @property
    def subject(self) -> str:
        """What a timer of it is known by."""
        return f"{self.order_id}:{self.lesson_no}"


@dataclass(slots=True, frozen=True)
class Enrolment:
    """What lessons need to know of their purchase: whose it is, at which institution, in what."""

    order_id: UUID
    account_id: UUID
    institution_id: UUID | None
    title: str
    category: str
    lessons: int


def apply(lesson: Lesson, answer_by: datetime, now: datetime) -> bool:
    """The institution files that the lesson was taught (销课申请). False when it waits for its answer already.

    Raises Refused: lesson_not_over (不可提前销课 [seed]), lesson_state.
    """
    if lesson.state == "applied":
        return False
    if lesson.state != "planned":
        raise Refused("lesson_state", state=lesson.state)
    if now < lesson.ends_at:
        raise Refused("lesson_not_over", ends_at=lesson.ends_at.isoformat())
    lesson.state = "applied"
    lesson.applied_at = now
    lesson.answer_by = answer_by
    return True


CONFIRMS: Final[dict[str, tuple[str, ...]]] = {
    "guardian": ("applied", "objected"),
    "silence": ("applied",),
    "authority": ("objected",),
}
"""Whose word confirms a lesson in which states."""


def confirm(lesson: Lesson, by: Literal["guardian", "silence", "authority"], now: datetime) -> bool:
    """The lesson is confirmed (核销). False when it was confirmed before. A guardian may still confirm after objecting.

    Raises Refused lesson_state.
    """
    if lesson.consumed:
        return False
    if lesson.state not in CONFIRMS[by]:
        raise Refused("lesson_state", state=lesson.state)
    lesson.state = "confirmed"
    lesson.confirmed_by = by
    lesson.answered_at = now
    return True


def object_to(lesson: Lesson, reason: str, now: datetime) -> bool:
    """The guardian objects: the clock stops, this lesson's fee stays. False when that was said before.

    Raises Refused lesson_state.
    """
    if lesson.state == "objected" and lesson.objection == reason:
        return False
    if lesson.state != "applied":
        raise Refused("lesson_state", state=lesson.state)
    lesson.state = "objected"
    lesson.objection = reason
    lesson.answered_at = now
    return True


def divide(lesson: Lesson, returned_fen: int, now: datetime) -> None:
    """`returned_fen` of the fee, or all of it, goes back to the guardian who objected; the rest is the institution's.

    Raises Refused lesson_state.
    """
    if lesson.state != "objected":
        raise Refused("lesson_state", state=lesson.state)
    lesson.state = "divided"
    lesson.returned_fen = returned_fen
    lesson.answered_at = now


def give_back(lesson: Lesson, now: datetime) -> bool:
    """Of an institution that is gone: the whole fee goes back by itself, where the refund of the order has left this
    lesson out. False unless nobody has filed it as taught, and there is a fee."""
    if lesson.state != "planned" or lesson.price_fen == 0:
        return False
    lesson.state = "divided"
    lesson.returned_fen = lesson.price_fen
    lesson.answered_at = now
    return True


def silent(lesson: Lesson, now: datetime) -> bool:
    """True when no answer came in time: the lesson counts as confirmed [law]."""
    return lesson.state == "applied" and lesson.answer_by is not None and lesson.answer_by <= now


@dataclass(slots=True, frozen=True)
class Reminders:
    """When a guardian who has not answered is reminded. Where the third day is the last one, or later, `third_day` is
    None and there is one reminder."""

    third_day: datetime | None
    last_day: datetime

    def after(self, moment: datetime) -> datetime | None:
        """The first one after `moment`; None after the last."""
        return next((day for day in (self.third_day, self.last_day) if day is not None and day > moment), None)


def remind(lesson: Lesson, reminders: Reminders, now: datetime) -> Literal["third_day", "last_day"] | None:
    """The reminder that is due, each once. Of two that are due the later one is told, and the other not any more."""
    if lesson.state != "applied" or lesson.applied_at is None:
        return None
    due = reminders.after(lesson.reminded_at or lesson.applied_at)
    if due is None or now < due:
        return None
    lesson.reminded_at = now
    return "last_day" if now >= reminders.last_day else "third_day"


def may_still_be_reminded(lesson: Lesson, now: datetime) -> bool:
    """Whether a reminder may lie unsent at the moment of the answer, so that notify must hear of the answer.

    Lessons that were not answered by their third day are few, and notify hears of all of them. The reminder of day 0
    is sent in seconds, but in the night it waits for the morning: who answers in that same night must not read then
    that he should. What a sender that stood still by day has left is dropped by `escrow.settled.v1`, which follows at
    once; only where a complaint holds the release as well would such a late SMS of day 0 still go out.
    """
    if lesson.reminded_at is not None:
        return True
    if lesson.applied_at is None:
        return False
    sent_by = lesson.applied_at + SENT_WITHIN
    morning = next_waking_time(sent_by)
    return sent_by < morning and now < morning


def paid_out(lesson: Lesson, now: datetime) -> bool:
    """The bank has paid the fee, or the institution's part of a divided lesson's. False when that was known."""
    if lesson.paid_at is not None or lesson.state not in ("confirmed", "divided"):
        return False
    if lesson.state == "confirmed":
        lesson.state = "paid_out"
    lesson.paid_at = now
    return True


def released_fen(lesson: Lesson) -> int:
    """What of the fee the institution has received: what an invoice is owed for. What was paid out and came back is
    not received, until it is paid again."""
    return lesson.price_fen - lesson.returned_fen if lesson.paid_at is not None else 0


def came_back(lesson: Lesson) -> bool:
    """What was paid came back to the supervised account (退票); it will be paid again."""
    if lesson.paid_at is None:
        return False
    if lesson.state == "paid_out":
        lesson.state = "confirmed"
    lesson.paid_at = None
    return True
