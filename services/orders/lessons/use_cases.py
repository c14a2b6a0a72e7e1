"""What happens to lessons: load those of the batch, decide each, write them once."""

import functools
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final
from uuid import UUID

from services.orders.lessons import domain, money
from services.orders.lessons.domain import Enrolment, Lesson, Reminders
from services.orders.lessons.queries import answer
from services.orders.lessons.tables import LessonRow
from services.orders.objections import use_cases as objections
from services.orders.objections.use_cases import Objections
from services.orders.purchases.tables import PurchaseRow
from shared.contracts.envelope import Data, Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import PayoutReturned, Settled
from shared.contracts.orders import (
    ApplyLesson,
    ConfirmLesson,
    LessonApplied,
    LessonConfirmed,
    LessonDeadline,
    LessonWaiting,
)
from shared.contracts.types import LessonTime
from shared.messaging.work import UnitOfWork
from shared.money import lesson_price_fen
from shared.policy import policy_for
from shared.working_days import REMINDERS_FROM, SHANGHAI, add_working_days, shanghai

Decide = Callable[[UnitOfWork, Message[Any], Lesson, Enrolment], bool]
"""Decides one message on one lesson; False when it changed nothing."""

CHANGING: Final = (
    *("state", "confirmed_by", "applied_at", "answer_by", "answered_at", "objection"),
    *("returned_fen", "reminded_at", "paid_at"),
)


def planned(order_id: UUID, price_fen: int, plan: Sequence[dict[str, Any]]) -> list[Lesson]:
    """The lessons of a new enrolment, as the contract's plan has them."""
    times = [LessonTime.model_validate(lesson) for lesson in plan]
    return [
        Lesson(
            order_id=order_id,
            lesson_no=time.lesson_no,
            starts_at=time.starts_at,
            ends_at=time.ends_at,
            price_fen=lesson_price_fen(price_fen, len(times), time.lesson_no),
        )
        for time in times
    ]


@functools.lru_cache(maxsize=64)
def _answer_by(region: str, category: str, day: date, now_of_day: datetime) -> datetime:
    days = policy_for(region, category, day).confirm_silence_working_days
    return add_working_days(now_of_day, days)


def answer_by(region: str, category: str, now: datetime) -> datetime:
    """By when a guardian must answer: N working days on (7 unless the region says else, 15 at most) [law]."""
    local = shanghai(now)
    return _answer_by(region, category, local.date(), local.replace(hour=0, minute=0, second=0, microsecond=0))


@functools.lru_cache(maxsize=256)
def _reminders(region: str, category: str, applied: date, answer_by: datetime) -> Reminders:
    policy = policy_for(region, category, applied)

    def morning_of(end: datetime) -> datetime:
        """The first moment for reminders of the day that ends with `end`."""
        return datetime.combine(shanghai(end).date() - timedelta(days=1), REMINDERS_FROM, SHANGHAI)

    noon = datetime.combine(applied, time(12), SHANGHAI)
    third_day = morning_of(add_working_days(noon, policy.confirm_reminder_working_day))
    last_day = morning_of(answer_by)
    return Reminders(third_day if third_day < last_day else None, last_day)


def reminders(region: str, category: str, lesson: Lesson) -> Reminders:
    """When the guardian of a lesson is reminded: in the morning of the third working day after the application, and of
    the last one before silence counts [DOMAIN: SMS, day 0, 3 and last; ours]."""
    assert lesson.applied_at is not None
    assert lesson.answer_by is not None
    return _reminders(region, category, shanghai(lesson.applied_at).date(), lesson.answer_by)


def _apply(work: UnitOfWork, message: Message[ApplyLesson], lesson: Lesson, purchase: Enrolment) -> bool:
    """The institution files the lesson as taught: it waits for its guardian."""
    work.actor(message, "institution", subject=purchase.institution_id)
    due = answer_by(work.region, purchase.category, work.now)
    applied = domain.apply(lesson, due, work.now)
    if applied:
        assert purchase.institution_id is not None
        _set_timer(work, lesson, reminders(work.region, purchase.category, lesson), message)
        work.send(
            LessonApplied(
                order_id=lesson.order_id,
                account_id=purchase.account_id,
                institution_id=purchase.institution_id,
                lesson_no=lesson.lesson_no,
                title=purchase.title,
                answer_by=due,
            ),
            message,
        )
    work.reply(message, answer(lesson))
    return applied


def _confirm(work: UnitOfWork, message: Message[ConfirmLesson], lesson: Lesson, purchase: Enrolment) -> bool:
    """The guardian confirms: the fee is released."""
    work.actor(message, "guardian", subject=purchase.account_id)
    confirmed = domain.confirm(lesson, "guardian", work.now)
    if confirmed:
        work.cancel_timer(LessonDeadline, lesson.subject)
        money.release(work, lesson, message)
        if domain.may_still_be_reminded(lesson, work.now):
            _tell_confirmed(work, lesson, purchase, message)
    work.reply(message, answer(lesson))
    return confirmed


def _silence(work: UnitOfWork, message: Message[LessonDeadline], lesson: Lesson, purchase: Enrolment) -> bool:
    """The guardian has not answered: a reminder, or in the end a confirmation, marked as silence.

    One timer for a lesson does both: it is set to the next reminder, and after the last one to the end. So a lesson
    that is answered in time, as nearly all are, costs what it did without reminders, and one that was answered is
    never reminded of, whatever its release waits for.
    """
    if domain.silent(lesson, work.now):
        domain.confirm(lesson, "silence", work.now)
        money.release(work, lesson, message)
        _tell_confirmed(work, lesson, purchase, message)
        return True
    if lesson.state != "applied":
        return False
    times = reminders(work.region, purchase.category, lesson)
    reminder = domain.remind(lesson, times, work.now)
    _set_timer(work, lesson, times, message)
    if reminder is None:
        return False  # too early, told already, or the days have moved since it was set: a new calendar, another rule
    assert purchase.institution_id is not None
    assert lesson.answer_by is not None
    work.send(
        LessonWaiting(
            order_id=lesson.order_id,
            account_id=purchase.account_id,
            institution_id=purchase.institution_id,
            lesson_no=lesson.lesson_no,
            title=purchase.title,
            answer_by=lesson.answer_by,
            reminder=reminder,
        ),
        message,
    )
    return True


def _settled(work: UnitOfWork, message: Message[Settled], lesson: Lesson, purchase: Enrolment) -> bool:
    """The fee was paid out."""
    return domain.paid_out(lesson, work.now)


def _returned(work: UnitOfWork, message: Message[PayoutReturned], lesson: Lesson, purchase: Enrolment) -> bool:
    """The paid fee came back."""
    return domain.came_back(lesson)


DECISIONS: Final[dict[type[Data], Decide]] = {
    ApplyLesson: _apply,
    ConfirmLesson: _confirm,
    LessonDeadline: _silence,
    Settled: _settled,
    PayoutReturned: _returned,
}
"""All that can happen to a lesson, but objections."""

HEARD: Final = (*DECISIONS, *objections.HEARD)
"""All that is decided on lessons, in one handler: it is the same rows that change."""


async def decide(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Decides the messages one by one, in order, and writes the lessons and objections that changed at once."""
    keys = {(message.data.order_id, message.data.lesson_no) for message in messages}
    lessons = await work.load(LessonRow, Lesson, keys)
    purchases = await work.load(PurchaseRow, Enrolment, {order_id for order_id, _ in keys}, lock=False)
    objected = await Objections.of(work, messages, lessons)
    decisions = DECISIONS | objected.decisions()
    changed: dict[tuple[UUID, int], Lesson] = {}
    for message in messages:
        with work.answering(message):
            key = (message.data.order_id, message.data.lesson_no)
            purchase = purchases.get(key[0])
            if purchase is None:
                raise Refused("order_unknown")
            lesson = lessons.get(key)
            if lesson is None:
                raise Refused("lesson_unknown", lessons=purchase.lessons)
            if decisions[type(message.data)](work, message, lesson, purchase):
                objected.follow(work, message, lesson, purchase)
                changed[key] = lesson
    work.update(LessonRow, changed.values(), *CHANGING)
    objected.write(work)


def _set_timer(work: UnitOfWork, lesson: Lesson, times: Reminders, cause: Message[Any]) -> None:
    """The lesson is looked at again when the next reminder is due, else when silence counts."""
    assert lesson.answer_by is not None
    deadline = LessonDeadline(order_id=lesson.order_id, lesson_no=lesson.lesson_no)
    work.set_timer(deadline, times.after(work.now) or lesson.answer_by, cause, subject=lesson.subject)


def _tell_confirmed(work: UnitOfWork, lesson: Lesson, purchase: Enrolment, cause: Message[Any]) -> None:
    assert purchase.institution_id is not None
    work.send(
        LessonConfirmed(
            order_id=lesson.order_id,
            account_id=purchase.account_id,
            institution_id=purchase.institution_id,
            lesson_no=lesson.lesson_no,
            title=purchase.title,
            by=lesson.confirmed_by,
        ),
        cause,
    )
