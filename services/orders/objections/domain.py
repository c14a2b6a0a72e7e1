"""The rules of an objection (异议), pure: the guardian objects, the institution answers, the authority decides.

That a lesson may be objected to, and that its clock stops, is the notice's [seed]. How it goes on stands in no text
that was found: who answers when, that the authority decides, and between what, is ours [ours].

Every function first refuses and only then changes the objection and the lesson it was given.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from services.orders.lessons import domain as lessons
from services.orders.lessons.domain import Lesson
from shared.contracts.errors import FieldError, Refused
from shared.contracts.orders import Decision
from shared.policy import ObjectionClocks
from shared.working_days import add_working_days

WITH_AUTHORITY: Final = ("answered", "unanswered")
OPEN: Final = ("raised", *WITH_AUTHORITY)
"""States in which the fee waits for somebody."""


@dataclass(slots=True)
class Objection:
    """The one objection to a lesson; times are aware UTC.

    `decide_by` is moved on each time the authority was late, `overdue` counts that. `decided_by` is a role, `decider`
    who it was. `release_fen` of the fee went to the institution once it is decided.
    """

    order_id: UUID
    lesson_no: int
    reason: str
    evidence: str
    objected_at: datetime
    answer_by: datetime
    state: str = "raised"
    answer: str = ""
    answered_at: datetime | None = None
    decide_by: datetime | None = None
    overdue: int = 0
    decision: str = ""
    release_fen: int = 0
    decision_reason: str = ""
    decided_by: str = ""
    decider: str = ""
    decided_at: datetime | None = None

    @property
    def act_by(self) -> datetime | None:
        """Until when the side whose turn it is has time; None when nobody's turn it is."""
        return {"raised": self.answer_by}.get(self.state, self.decide_by if self.state in WITH_AUTHORITY else None)

    def returned_fen(self, price_fen: int) -> int:
        """What of the lesson's fee went back to the guardian."""
        return price_fen - self.release_fen if self.state == "decided" else 0


def raise_objection(
    known: Objection | None, lesson: Lesson, reason: str, evidence: str, clocks: ObjectionClocks, now: datetime
) -> Objection | None:
    """The guardian objects: the new objection, or None when just that was said before. Raises Refused lesson_state."""
    if known is not None and known.evidence != evidence:
        raise Refused("lesson_state", state=lesson.state)
    if not lessons.object_to(lesson, reason, now):
        return None
    answer_by = add_working_days(now, clocks.answer_working_days)
    return Objection(lesson.order_id, lesson.lesson_no, reason, evidence, now, answer_by)


def answer(objection: Objection, text: str, clocks: ObjectionClocks, now: datetime) -> bool:
    """The institution answers: it is the authority's turn. False when it has said that before.

    Raises Refused: request_invalid (nothing is said), objection_state (it has said something else, was silent too long,
    or it is over).
    """
    if not text:
        message = "请填写答复内容，或者同意退还该课次费用"
        raise Refused("request_invalid", message, errors=[FieldError(field="text", message=message)])
    if objection.answered_at is not None and objection.answer == text:
        return False
    _require(objection, "raised")
    objection.state = "answered"
    objection.answer = text
    objection.answered_at = now
    objection.decide_by = add_working_days(now, clocks.decide_working_days)
    return True


def accept(objection: Objection, lesson: Lesson, text: str, decider: str, now: datetime) -> bool:
    """The institution agrees to give the fee back: that decides it, whether it has answered before or not [ours].

    False when it has agreed before. Raises Refused: objection_state (it is over), lesson_state.
    """
    if objection.decided_by == "institution" and objection.decision_reason == text:
        return False
    _require(objection, *OPEN)
    lessons.divide(lesson, lesson.price_fen, now)
    _decided(objection, "return", 0, text, "institution", decider, now)
    return True


def decide(
    objection: Objection, lesson: Lesson, decision: Decision, part_fen: int, reason: str, decider: str, now: datetime
) -> bool:
    """The authority decides: the lesson is confirmed, or its fee divided. False when it has decided just that before.

    `part_fen` is what the institution gets of a split, and of nothing else. Raises Refused: amount_invalid (not 1 to
    the price less 1 fen), objection_state (the institution still has time, another decision was made, it was
    withdrawn), lesson_state.
    """
    if not (0 < part_fen < lesson.price_fen if decision == "split" else part_fen == 0):
        raise Refused("amount_invalid", price_fen=lesson.price_fen)
    release_fen = lesson.price_fen if decision == "release" else part_fen
    made = (objection.decided_by, objection.decision, objection.release_fen, objection.decision_reason)
    if made == ("authority", decision, release_fen, reason):
        return False
    _require(objection, *WITH_AUTHORITY)
    if decision == "release":
        if not lessons.confirm(lesson, "authority", now):
            raise Refused("lesson_state", state=lesson.state)
    else:
        lessons.divide(lesson, lesson.price_fen - release_fen, now)
    _decided(objection, decision, release_fen, reason, "authority", decider, now)
    return True


def pass_deadline(objection: Objection, clocks: ObjectionClocks, now: datetime) -> bool:
    """Time is up: a silent institution is heard no more, a late authority is reminded and gets a new date.

    False when nothing is due (any more).
    """
    if objection.act_by is None or now < objection.act_by:
        return False
    if objection.state == "raised":
        objection.state = "unanswered"
        objection.decide_by = add_working_days(now, clocks.decide_working_days)
    else:
        objection.overdue += 1
        objection.decide_by = add_working_days(now, clocks.overdue_working_days)
    return True


def withdraw(objection: Objection) -> bool:
    """The guardian has confirmed the lesson after all. False when the objection was over."""
    if objection.state not in OPEN:
        return False
    objection.state = "withdrawn"
    return True


def _require(objection: Objection, *states: str) -> None:
    if objection.state not in states:
        raise Refused("objection_state", state=objection.state)


def _decided(
    objection: Objection, decision: Decision, release_fen: int, reason: str, by: str, decider: str, now: datetime
) -> None:
    objection.state = "decided"
    objection.decision = decision
    objection.release_fen = release_fen
    objection.decision_reason = reason
    objection.decided_by = by
    objection.decider = decider
    objection.decided_at = now
