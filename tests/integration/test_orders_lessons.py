"""Lessons on the real servers: orders runs alone, the test plays institutions, guardians, catalog and escrow."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from shared.actors import Actor
from shared.contracts.envelope import Data, Request
from shared.contracts.escrow import PayoutReturned, ReleaseLesson, Settled
from shared.contracts.orders import (
    AnswerObjection,
    ApplyLesson,
    ConfirmLesson,
    LessonAnswer,
    LessonApplied,
    LessonDeadline,
    LessonObjected,
    LessonView,
    ObjectLesson,
)
from shared.contracts.types import LessonTime
from shared.ids import new_id
from shared.working_days import add_working_days
from tests.counter import Counter, Family, Order, counter, family, others, running

__all__ = ["counter", "family", "others", "running"]

REASON = "老师没有来上课"
FEES = (3_333, 3_333, 3_334)


async def taught(counter: Counter, family: Family, count: int = 3, *, to_come: int = 0, **offer: Any) -> Order:
    """A child in a course of which `count` lessons are over, and `to_come` are not."""
    now = counter.harness.now()
    starts = [now - timedelta(hours=2 * (count - number)) for number in range(count + to_come)]
    plan = tuple(
        LessonTime(lesson_no=number, starts_at=at - timedelta(minutes=50), ends_at=at - timedelta(minutes=5))
        for number, at in enumerate(starts, 1)
    )
    if to_come:
        later = timedelta(hours=1)
        plan = tuple(
            LessonTime(lesson_no=one.lesson_no, starts_at=one.starts_at + later, ends_at=one.ends_at + later)
            if one.lesson_no > count
            else one
            for one in plan
        )
    return await counter.bring(family, "enrolled", plan, **offer)


async def applied(counter: Counter, order: Order, lesson_no: int = 1) -> LessonAnswer:
    answer = await counter.harness.ask(ApplyLesson(order_id=order.order_id, lesson_no=lesson_no), order.institution)
    assert isinstance(answer, LessonAnswer)
    return answer


async def confirmed(counter: Counter, order: Order, lesson_no: int = 1) -> LessonAnswer:
    asked = ConfirmLesson(order_id=order.order_id, lesson_no=lesson_no)
    answer = await counter.harness.ask(asked, order.family.actor)
    assert isinstance(answer, LessonAnswer)
    return answer


async def objected(counter: Counter, order: Order, lesson_no: int = 1) -> LessonAnswer:
    asked = ObjectLesson(order_id=order.order_id, lesson_no=lesson_no, reason=REASON)
    answer = await counter.harness.ask(asked, order.family.actor)
    assert isinstance(answer, LessonAnswer)
    return answer


async def lesson(counter: Counter, order: Order, lesson_no: int = 1) -> LessonView:
    """The lesson as its family sees it."""
    return (await counter.show(order)).lessons[lesson_no - 1]


async def released(counter: Counter, order: Order) -> list[int]:
    """The lessons whose release was asked for, in that order."""
    sql = """SELECT (body::json -> 'data' ->> 'lesson_no')::int AS lesson_no FROM outbox
             WHERE key = $1 AND type = $2 ORDER BY seq"""
    rows = await counter.harness.rows("orders", sql, str(order.order_id), ReleaseLesson.TYPE)
    return [row["lesson_no"] for row in rows]


async def deadlines(counter: Counter, order: Order) -> list[str]:
    """The lessons whose silence is waited for."""
    sql = "SELECT subject FROM timers WHERE key = $1 AND type = $2 ORDER BY subject"
    rows = await counter.harness.rows("orders", sql, str(order.order_id), LessonDeadline.TYPE)
    return [row["subject"] for row in rows]


def settled(order: Order, lesson_no: int = 1) -> Settled:
    return Settled(
        order_id=order.order_id,
        account_id=order.family.account_id,
        institution_id=order.institution_id,
        lesson_no=lesson_no,
        amount_fen=FEES[lesson_no - 1],
    )


def returned(order: Order, lesson_no: int = 1) -> PayoutReturned:
    return PayoutReturned(
        order_id=order.order_id,
        institution_id=order.institution_id,
        lesson_no=lesson_no,
        amount_fen=FEES[lesson_no - 1],
        reason="account closed",
    )


# --- the whole way ------------------------------------------------------------------------------------------------


async def test_a_taught_lesson_is_applied_for_confirmed_and_released(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    due = add_working_days(counter.harness.now(), 7)
    answer = await applied(counter, order)
    assert answer == LessonAnswer(order_id=order.order_id, lesson_no=1, state="applied", answer_by=due)
    told = await counter.harness.expect(LessonApplied, order.order_id)
    assert told == LessonApplied(
        order_id=order.order_id,
        account_id=family.account_id,
        institution_id=order.institution_id,
        lesson_no=1,
        title=told.title,
        answer_by=due,
    )
    assert await deadlines(counter, order) == [f"{order.order_id}:1"]

    assert (await confirmed(counter, order)).state == "confirmed"
    asked = await counter.harness.expect(ReleaseLesson, order.order_id)
    assert asked == ReleaseLesson(order_id=order.order_id, lesson_no=1)
    assert await deadlines(counter, order) == []
    seen = await lesson(counter, order)
    assert (seen.state, seen.confirmed_by) == ("confirmed", "guardian")


async def test_consumed_and_left_are_right_after_each_lesson(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    spent = 0
    for lesson_no, fee in enumerate(FEES, 1):
        await applied(counter, order, lesson_no)
        waiting = await counter.show(order)
        assert (waiting.consumed_lessons, waiting.consumed_fen) == (lesson_no - 1, spent), "not before it is confirmed"
        await confirmed(counter, order, lesson_no)
        spent += fee
        view = await counter.show(order)
        assert (view.consumed_lessons, view.consumed_fen) == (lesson_no, spent)
        assert (view.left_lessons, view.left_fen) == (3 - lesson_no, 10_000 - spent)
    assert await released(counter, order) == [1, 2, 3]
    assert spent == 10_000


async def test_many_lessons_at_once_are_each_applied_for_and_confirmed_once(counter: Counter, family: Family) -> None:
    order = await taught(counter, family, 20)
    numbers = range(1, 21)
    await asyncio.gather(*(applied(counter, order, number) for number in numbers))
    await asyncio.gather(*(confirmed(counter, order, number) for number in [*numbers, *numbers]))
    assert sorted(await released(counter, order)) == list(numbers)
    view = await counter.show(order)
    assert (view.consumed_lessons, view.left_fen) == (20, 0)


# --- refusals -----------------------------------------------------------------------------------------------------


async def test_a_lesson_is_not_applied_for_before_it_is_over(counter: Counter, family: Family) -> None:
    order = await taught(counter, family, 1, to_come=1)
    early = ApplyLesson(order_id=order.order_id, lesson_no=2)
    await counter.refused_without_a_trace("lesson_not_over", early, order.institution, order)
    await counter.advance(timedelta(hours=3))
    assert (await applied(counter, order, 2)).state == "applied"


ABOUT: dict[str, Callable[[UUID, int], Request]] = {
    "apply": lambda order_id, lesson_no: ApplyLesson(order_id=order_id, lesson_no=lesson_no),
    "confirm": lambda order_id, lesson_no: ConfirmLesson(order_id=order_id, lesson_no=lesson_no),
    "object": lambda order_id, lesson_no: ObjectLesson(order_id=order_id, lesson_no=lesson_no, reason=REASON),
}


@pytest.mark.parametrize("what", ABOUT)
async def test_only_who_may_speaks_for_a_lesson(counter: Counter, family: Family, others: Family, what: str) -> None:
    order = await taught(counter, family)
    await applied(counter, order)
    asked = ABOUT[what](order.order_id, 2 if what == "apply" else 1)
    await counter.refused_without_a_trace("actor_unauthenticated", asked, None, order)
    wrong = [others.actor, Actor(str(new_id()), "institution"), Actor("changzhou-edu", "authority")]
    wrong.append(family.actor if what == "apply" else order.institution)
    wrong.append(Actor(order.institution.subject if what == "apply" else family.actor.subject, "operator"))
    for actor in wrong:
        await counter.refused_without_a_trace("actor_forbidden", asked, actor, order)


@pytest.mark.parametrize("what", ABOUT)
async def test_a_lesson_that_is_not_there_is_unknown(counter: Counter, family: Family, what: str) -> None:
    order = await taught(counter, family)
    actor = order.institution if what == "apply" else family.actor
    await counter.refused_without_a_trace("lesson_unknown", ABOUT[what](order.order_id, 4), actor, order)
    await counter.refused_without_a_trace("order_unknown", ABOUT[what](new_id(), 1), actor, order)
    unpaid = await counter.bring(family, "paying")
    actor = unpaid.institution if what == "apply" else family.actor
    await counter.refused_without_a_trace("lesson_unknown", ABOUT[what](unpaid.order_id, 1), actor, unpaid)
    zero = ABOUT[what](order.order_id, 1).model_copy(update={"lesson_no": 0})
    await counter.refused_without_a_trace("request_invalid", zero, actor, order)


@pytest.mark.parametrize(
    ("what", "state"),
    [
        ("confirm", "planned"),
        ("object", "planned"),
        ("apply", "objected"),
        ("apply", "confirmed"),
        ("object", "confirmed"),
        ("apply", "paid_out"),
        ("object", "paid_out"),
    ],
)
async def test_a_lesson_in_another_state_is_refused(counter: Counter, family: Family, what: str, state: str) -> None:
    order = await taught(counter, family)
    if state != "planned":
        await applied(counter, order)
    if state == "objected":
        await objected(counter, order)
    if state in ("confirmed", "paid_out"):
        await confirmed(counter, order)
    if state == "paid_out":
        await counter.answers(order, settled(order))
    assert (await lesson(counter, order)).state == state
    actor = order.institution if what == "apply" else family.actor
    await counter.refused_without_a_trace("lesson_state", ABOUT[what](order.order_id, 1), actor, order)


async def test_an_objection_needs_a_reason_and_is_made_once(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    await applied(counter, order)
    asked = ObjectLesson(order_id=order.order_id, lesson_no=1, reason=REASON)
    blank = asked.model_copy(update={"reason": "  "})
    await counter.refused_without_a_trace("request_invalid", blank, family.actor, order)
    await objected(counter, order)
    other = asked.model_copy(update={"reason": "换了老师"})
    await counter.refused_without_a_trace("lesson_state", other, family.actor, order)


# --- asked again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ABOUT)
async def test_the_same_again_gets_the_same_answer_and_changes_nothing(
    counter: Counter, family: Family, what: str
) -> None:
    order = await taught(counter, family)
    if what != "apply":
        await applied(counter, order)
    actor, asked, message_id = order.institution if what == "apply" else family.actor, ABOUT[what], new_id()
    first = await counter.harness.ask(asked(order.order_id, 1), actor, message_id=message_id)
    before = await counter.trace(order)
    assert await counter.harness.ask(asked(order.order_id, 1), actor, message_id=message_id) == first
    assert await counter.harness.ask(asked(order.order_id, 1), actor) == first, "with a new message id too"
    assert await counter.trace(order) == before


# --- silence and objection ----------------------------------------------------------------------------------------


async def test_silence_confirms_after_seven_working_days_and_an_objection_stops_that_clock(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family)
    due = (await applied(counter, order, 1)).answer_by
    await applied(counter, order, 2)
    assert due is not None
    assert (await objected(counter, order, 2)).state == "objected"
    told = await counter.harness.expect(LessonObjected, order.order_id)
    assert told == LessonObjected(
        order_id=order.order_id,
        account_id=family.account_id,
        institution_id=order.institution_id,
        lesson_no=2,
        reason=REASON,
    )
    assert await deadlines(counter, order) == [f"{order.order_id}:1"]
    # It answers, so that nothing of the objection falls due meanwhile.
    answer = AnswerObjection(order_id=order.order_id, lesson_no=2, text="已安排补课")
    await counter.harness.ask(answer, order.institution)

    before = await counter.trace(order)
    await counter.answers(order, LessonDeadline(order_id=order.order_id, lesson_no=1))
    assert await counter.trace(order) == before, "not before its time, whoever says so"
    await counter.advance(due - counter.harness.now() - timedelta(seconds=20))
    before = await counter.trace(order)
    await counter.answers(order, LessonDeadline(order_id=order.order_id, lesson_no=1))
    assert await counter.trace(order) == before, "nor a moment before it"

    await counter.advance(timedelta(seconds=20))
    first = await lesson(counter, order, 1)
    assert (first.state, first.confirmed_by) == ("confirmed", "silence")
    assert await released(counter, order) == [1]
    assert (await lesson(counter, order, 2)).state == "objected"

    assert (await confirmed(counter, order, 1)).state == "confirmed", "who confirms after that is told so"
    assert (await lesson(counter, order, 1)).confirmed_by == "silence", "and it stays silence for ever"
    await counter.answers(order, LessonDeadline(order_id=order.order_id, lesson_no=2))
    assert (await lesson(counter, order, 2)).state == "objected"
    late = ObjectLesson(order_id=order.order_id, lesson_no=1, reason=REASON)
    await counter.refused_without_a_trace("lesson_state", late, family.actor, order)


async def test_a_guardian_may_confirm_what_was_objected_to(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    await applied(counter, order)
    await objected(counter, order)
    assert (await confirmed(counter, order)).state == "confirmed"
    assert (await lesson(counter, order)).confirmed_by == "guardian"
    assert await released(counter, order) == [1]


async def test_a_confirmation_and_the_deadline_at_the_same_moment_release_once(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family, 12)
    numbers = range(1, 13)
    answers = await asyncio.gather(*(applied(counter, order, number) for number in numbers))
    due = max(answer.answer_by for answer in answers if answer.answer_by)
    await counter.harness.advance(due - counter.harness.now() - timedelta(seconds=5))
    said = await asyncio.gather(
        counter.advance(timedelta(seconds=5)),
        *(confirmed(counter, order, number) for number in numbers),
        *(counter.answers(order, LessonDeadline(order_id=order.order_id, lesson_no=number)) for number in numbers),
    )
    assert {answer.state for answer in said[1 : len(numbers) + 1] if answer} == {"confirmed"}
    assert sorted(await released(counter, order)) == list(numbers)
    view = await counter.show(order)
    assert {one.state for one in view.lessons} == {"confirmed"}
    assert {one.confirmed_by for one in view.lessons} <= {"guardian", "silence"}
    assert (view.consumed_lessons, view.left_fen) == (12, 0)


# --- paid ---------------------------------------------------------------------------------------------------------


async def test_a_fee_is_paid_out_comes_back_and_is_paid_again(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    await applied(counter, order)
    await confirmed(counter, order)
    way: list[tuple[Data, str]] = [
        (settled(order), "paid_out"),
        (settled(order), "paid_out"),
        (returned(order), "confirmed"),
        (returned(order), "confirmed"),
        (settled(order), "paid_out"),
    ]
    for told, state in way:
        await counter.answers(order, told)
        view = await counter.show(order)
        assert (view.lessons[0].state, view.lessons[0].confirmed_by) == (state, "guardian")
        assert (view.consumed_lessons, view.consumed_fen, view.left_fen) == (1, FEES[0], 10_000 - FEES[0])
    assert await released(counter, order) == [1], "escrow pays again by itself"


@pytest.mark.parametrize("state", ["planned", "applied", "objected"])
async def test_what_nobody_confirmed_is_never_paid_out(counter: Counter, family: Family, state: str) -> None:
    order = await taught(counter, family)
    if state != "planned":
        await applied(counter, order)
    if state == "objected":
        await objected(counter, order)
    before = await counter.trace(order)
    unknown = settled(order).model_copy(update={"lesson_no": 9})
    for told in (settled(order), returned(order), unknown):
        await counter.answers(order, told)
    assert await counter.trace(order) == before
