"""What happens to objections, as part of what happens to lessons: `lessons/use_cases.py` loads and writes those."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal
from uuid import UUID

from services.orders.lessons import money
from services.orders.lessons.domain import Enrolment, Lesson
from services.orders.lessons.queries import answer
from services.orders.objections import domain
from services.orders.objections.domain import Objection
from services.orders.objections.queries import view
from services.orders.objections.tables import ObjectionRow
from shared.contracts.envelope import Data, Message
from shared.contracts.errors import Refused
from shared.contracts.orders import (
    AnswerObjection,
    DecideObjection,
    LessonDeadline,
    LessonObjected,
    ObjectionDeadline,
    ObjectionMoved,
    ObjectLesson,
)
from shared.messaging.work import UnitOfWork
from shared.policy import ObjectionClocks, policy_for
from shared.working_days import shanghai

Key = tuple[UUID, int]
By = Literal["guardian", "institution", "authority", "deadline"]

HEARD: Final[tuple[type[Data], ...]] = (ObjectLesson, AnswerObjection, DecideObjection, ObjectionDeadline)
"""All that can happen to an objection, but that its guardian confirms the lesson after all."""

CHANGING: Final = (
    "state",
    "answer",
    "answered_at",
    "decide_by",
    "overdue",
    "decision",
    "release_fen",
    "decision_reason",
    "decided_by",
    "decider",
    "decided_at",
)


class Objections:
    """The objections of one batch. A batch that has to do with none has read and writes none."""

    def __init__(self, known: Mapping[Key, Objection]) -> None:
        self.known: Final = dict(known)
        self._new: dict[Key, Objection] = {}
        self._changed: dict[Key, Objection] = {}

    @classmethod
    async def of(
        cls, work: UnitOfWork, messages: Iterable[Message[Any]], lessons: Mapping[Key, Lesson]
    ) -> "Objections":
        """Those that `messages` are about, and those of `lessons` that are objected to; the lessons are locked."""
        keys = {(m.data.order_id, m.data.lesson_no) for m in messages if type(m.data) in HEARD}
        keys |= {key for key, lesson in lessons.items() if lesson.state == "objected"}
        return cls(await work.load(ObjectionRow, Objection, keys))

    def decisions(self) -> dict[type[Data], Callable[[UnitOfWork, Message[Any], Lesson, Enrolment], bool]]:
        """What decides each message of `HEARD` on its lesson; False when the lesson did not change."""
        return {
            ObjectLesson: self._object,
            AnswerObjection: self._answer,
            DecideObjection: self._decide,
            ObjectionDeadline: self._late,
        }

    def follow(self, work: UnitOfWork, cause: Message[Any], lesson: Lesson, purchase: Enrolment) -> None:
        """The lesson has changed: where its objection was open and it is objected to no more, that is withdrawn."""
        objection = self.known.get((lesson.order_id, lesson.lesson_no))
        if objection is not None and lesson.state != "objected" and domain.withdraw(objection):
            self._moved(work, cause, lesson, purchase, objection, "guardian")

    def write(self, work: UnitOfWork) -> None:
        """Those that are new, and those that changed."""
        work.insert(ObjectionRow, list(self._new.values()))
        work.update(ObjectionRow, self._changed.values(), *CHANGING)

    # --- what decides -------------------------------------------------------------------------------------------------

    def _object(self, work: UnitOfWork, message: Message[ObjectLesson], lesson: Lesson, purchase: Enrolment) -> bool:
        """The guardian objects."""
        work.actor(message, "guardian", subject=purchase.account_id)
        ask, key = message.data, (lesson.order_id, lesson.lesson_no)
        new = domain.raise_objection(
            self.known.get(key), lesson, ask.reason, ask.evidence, _clocks(work, purchase), work.now
        )
        if new is not None:
            assert purchase.institution_id is not None
            self.known[key] = self._new[key] = new
            work.cancel_timer(LessonDeadline, lesson.subject)
            work.send(
                LessonObjected(
                    order_id=lesson.order_id,
                    account_id=purchase.account_id,
                    institution_id=purchase.institution_id,
                    lesson_no=lesson.lesson_no,
                    reason=lesson.objection,
                ),
                message,
            )
            self._moved(work, message, lesson, purchase, new, "guardian")
        work.reply(message, answer(lesson))
        return new is not None

    def _answer(self, work: UnitOfWork, message: Message[AnswerObjection], lesson: Lesson, purchase: Enrolment) -> bool:
        """The institution answers, or agrees to give the fee back."""
        actor = work.actor(message, "institution", subject=purchase.institution_id)
        ask, objection = message.data, self._known(lesson)
        if ask.accepts:
            moved = domain.accept(objection, lesson, ask.text, actor.subject, work.now)
        else:
            moved = domain.answer(objection, ask.text, _clocks(work, purchase), work.now)
        if moved:
            if ask.accepts:
                money.divide(work, lesson, objection.release_fen, message)
            self._moved(work, message, lesson, purchase, objection, "institution")
        work.reply(message, view(objection, lesson))
        return moved and ask.accepts

    def _decide(self, work: UnitOfWork, message: Message[DecideObjection], lesson: Lesson, purchase: Enrolment) -> bool:
        """The authority decides."""
        actor = work.actor(message, "authority")
        ask, objection = message.data, self._known(lesson)
        decided = domain.decide(objection, lesson, ask.decision, ask.release_fen, ask.reason, actor.subject, work.now)
        if decided:
            if ask.decision == "release":
                money.release(work, lesson, message)
            else:
                money.divide(work, lesson, objection.release_fen, message)
            self._moved(work, message, lesson, purchase, objection, "authority")
        work.reply(message, view(objection, lesson))
        return decided

    def _late(self, work: UnitOfWork, message: Message[ObjectionDeadline], lesson: Lesson, purchase: Enrolment) -> bool:
        """The institution was silent, or the authority is late: the lesson stays as it is."""
        objection = self._known(lesson)
        if domain.pass_deadline(objection, _clocks(work, purchase), work.now):
            self._moved(work, message, lesson, purchase, objection, "deadline")
        return False

    def _known(self, lesson: Lesson) -> Objection:
        objection = self.known.get((lesson.order_id, lesson.lesson_no))
        if objection is None:
            raise Refused("objection_unknown")
        return objection

    def _moved(
        self,
        work: UnitOfWork,
        cause: Message[Any],
        lesson: Lesson,
        purchase: Enrolment,
        objection: Objection,
        by: By,
    ) -> None:
        """Tells what has happened, and sets or cancels the one timer of the objection."""
        assert purchase.institution_id is not None
        key = (lesson.order_id, lesson.lesson_no)
        if key not in self._new:
            self._changed[key] = objection
        work.send(
            ObjectionMoved(
                order_id=lesson.order_id,
                account_id=purchase.account_id,
                institution_id=purchase.institution_id,
                lesson_no=lesson.lesson_no,
                state=objection.state,
                by=by,
                act_by=objection.act_by,
                overdue=by == "deadline" and objection.overdue > 0,
                decision=objection.decision,
                release_fen=objection.release_fen,
                return_fen=objection.returned_fen(lesson.price_fen),
            ),
            cause,
        )
        if objection.act_by is None:
            work.cancel_timer(ObjectionDeadline, lesson.subject)
        else:
            deadline = ObjectionDeadline(order_id=lesson.order_id, lesson_no=lesson.lesson_no)
            work.set_timer(deadline, objection.act_by, cause, subject=lesson.subject)


def _clocks(work: UnitOfWork, purchase: Enrolment) -> ObjectionClocks:
    """The clocks of today where the purchase was made."""
    return policy_for(work.region, purchase.category, shanghai(work.now).date()).objections
