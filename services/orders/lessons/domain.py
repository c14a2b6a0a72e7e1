"""The rules of a lesson, pure: 一课一销, one lesson, one release."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from shared.contracts.errors import Refused


@dataclass(slots=True)
class Lesson:
    """One lesson; times are aware UTC. `confirmed_by` tells a guardian's confirmation from silence and from an
    authority's decision, for ever."""

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

    @property
    def consumed(self) -> bool:
        """Confirmed: its fee is the institution's."""
        return self.state in ("confirmed", "paid_out")


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


def divide(lesson: Lesson, now: datetime) -> None:
    """Some or all of the fee goes back to the guardian who objected; what is left of it is the institution's.

    Raises Refused lesson_state.
    """
    if lesson.state != "objected":
        raise Refused("lesson_state", state=lesson.state)
    lesson.state = "divided"
    lesson.answered_at = now


def silent(lesson: Lesson, now: datetime) -> bool:
    """True when no answer came in time: the lesson counts as confirmed [law]."""
    return lesson.state == "applied" and lesson.answer_by is not None and lesson.answer_by <= now


def paid_out(lesson: Lesson) -> bool:
    """The bank has paid the fee. False when that was known."""
    if lesson.state != "confirmed":
        return False
    lesson.state = "paid_out"
    return True


def came_back(lesson: Lesson) -> bool:
    """The paid fee came back to the supervised account (退票); it will be paid again."""
    if lesson.state != "paid_out":
        return False
    lesson.state = "confirmed"
    return True
