"""Reminders and silence on the real servers: told on the third and the last day, never to who has answered."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event

from services.orders.lessons.use_cases import decide
from shared.contracts.envelope import Data, Message
from shared.contracts.orders import LessonConfirmed, LessonDeadline, LessonWaiting
from shared.database import Database
from shared.ids import new_id
from shared.messaging.work import UnitOfWork
from shared.working_days import add_working_days, next_waking_time, shanghai
from tests.counter import Counter, Family, Order, counter, family, others, running
from tests.integration.test_orders_lessons import (
    applied,
    confirmed,
    deadlines,
    lesson,
    objected,
    released,
    returned,
    settled,
    taught,
)

__all__ = ["counter", "family", "others", "running"]

MORNING = timedelta(hours=8) - timedelta(days=1)


async def told(counter: Counter, order: Order, contract: Any) -> list[Any]:
    """What orders has said of that kind about this order."""
    sql = "SELECT body::json -> 'data' #>> '{}' AS data FROM outbox WHERE key = $1 AND type = $2 ORDER BY seq"
    rows = await counter.harness.rows("orders", sql, str(order.order_id), contract.TYPE)
    return [contract.model_validate_json(row["data"]) for row in rows]


async def until(counter: Counter, moment: datetime) -> None:
    """It is `moment`, and a little more."""
    await counter.advance(moment - counter.harness.now() + timedelta(milliseconds=100))


async def by_day(counter: Counter) -> None:
    """It is an hour at which people are told things, and the reminder of what is filed goes out at once."""
    now = counter.harness.now()
    if next_waking_time(now + timedelta(minutes=10)) != now + timedelta(minutes=10) or next_waking_time(now) != now:
        await until(counter, next_waking_time(now + timedelta(minutes=10)))


async def by_night(counter: Counter) -> None:
    """It is ten in the evening."""
    local = shanghai(counter.harness.now())
    evening = local.replace(hour=22, minute=0, second=0)
    await until(counter, evening if evening > local else evening + timedelta(days=1))


async def test_a_lesson_nobody_answers_is_reminded_of_on_the_third_and_the_last_day_and_then_confirmed(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family)
    filed = counter.harness.now()
    due = (await applied(counter, order)).answer_by
    assert due is not None
    third_day, last_day = add_working_days(filed, 3) + MORNING, due + MORNING
    timers = "SELECT due_at FROM timers WHERE key = $1"
    for day, reminder in ((third_day, "third_day"), (last_day, "last_day")):
        before = await counter.trace(order)
        await until(counter, day - timedelta(seconds=20))
        assert await counter.trace(order) == before, "not before its morning"
        [row] = await counter.harness.rows("orders", timers, str(order.order_id))
        assert row["due_at"] == day
        await until(counter, day)
        said = (await told(counter, order, LessonWaiting))[-1]
        assert said == LessonWaiting(
            order_id=order.order_id,
            account_id=family.account_id,
            institution_id=order.institution_id,
            lesson_no=1,
            title=said.title,
            answer_by=due,
            reminder=reminder,
        )
        before = await counter.trace(order)
        await counter.answers(order, LessonDeadline(order_id=order.order_id, lesson_no=1))
        assert await counter.trace(order) == before, "once, whoever says it again"
    assert [one.reminder for one in await told(counter, order, LessonWaiting)] == ["third_day", "last_day"]
    assert await told(counter, order, LessonConfirmed) == []

    await until(counter, due)
    [said] = await told(counter, order, LessonConfirmed)
    assert (said.lesson_no, said.by, said.account_id) == (1, "silence", family.account_id)
    assert await released(counter, order) == [1]
    assert await deadlines(counter, order) == []


async def test_an_objection_stops_the_clock_and_nobody_is_reminded_after_it(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    filed = counter.harness.now()
    due = (await applied(counter, order, 1)).answer_by
    assert due is not None
    await applied(counter, order, 2)
    await objected(counter, order, 1)
    await until(counter, add_working_days(filed, 3) + MORNING)
    assert [one.lesson_no for one in await told(counter, order, LessonWaiting)] == [2]
    await objected(counter, order, 2)
    assert await deadlines(counter, order) == []
    before = await told(counter, order, LessonWaiting)
    await until(counter, due + timedelta(days=30))
    for number in (1, 2):
        await counter.answers(order, LessonDeadline(order_id=order.order_id, lesson_no=number))
    assert await told(counter, order, LessonWaiting) == before
    assert await told(counter, order, LessonConfirmed) == []
    assert (await lesson(counter, order, 1)).state == (await lesson(counter, order, 2)).state == "objected"
    assert await released(counter, order) == []


async def test_who_has_confirmed_is_not_reminded_though_the_fee_is_not_paid_out(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family)
    await by_day(counter)
    due = (await applied(counter, order)).answer_by
    assert due is not None
    await confirmed(counter, order)
    assert await deadlines(counter, order) == []
    before = await counter.trace(order)
    await until(counter, due + timedelta(days=1))
    assert await counter.trace(order) == before
    assert await told(counter, order, LessonWaiting) == await told(counter, order, LessonConfirmed) == []


async def test_who_answers_in_the_night_the_lesson_was_filed_in_or_after_a_reminder_is_told_of(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family)
    await by_night(counter)
    await applied(counter, order, 1)
    filed = counter.harness.now()
    await applied(counter, order, 2)
    await confirmed(counter, order, 1)
    assert [(one.lesson_no, one.by) for one in await told(counter, order, LessonConfirmed)] == [(1, "guardian")]
    await until(counter, add_working_days(filed, 3) + MORNING)
    await confirmed(counter, order, 2)
    assert [one.lesson_no for one in await told(counter, order, LessonConfirmed)] == [1, 2]


async def test_what_falls_due_in_one_moment_is_done_in_sets(counter: Counter, family: Family) -> None:
    order = await taught(counter, family, 20)
    numbers = range(1, 21)
    filed = counter.harness.now()
    answers = [await applied(counter, order, number) for number in numbers]
    due = answers[0].answer_by
    assert due is not None
    late = [LessonDeadline(order_id=order.order_id, lesson_no=number) for number in numbers]
    database = Database(counter.harness.dsns["orders"])
    costs: list[tuple[int, int]] = []
    for now in (add_working_days(filed, 3) + MORNING, due):
        async with database.session() as session, session.begin() as transaction:
            work = UnitOfWork("orders", session, counter.harness.ring("orders"), now)
            statements: list[str] = []
            listener: Callable[..., None] = lambda *args, seen=statements: seen.append(args[2])  # noqa: E731
            event.listen(database.engine.sync_engine, "before_cursor_execute", listener)
            await decide(work, [enveloped(one, counter) for one in late])
            said = len(work.outbox)
            await work.flush()
            event.remove(database.engine.sync_engine, "before_cursor_execute", listener)
            costs.append((len(statements), said))
            await transaction.rollback()
    await database.close()
    # Lessons and purchases are loaded, and all is written at once: a reminder each; a release and the news of it each.
    assert costs == [(3, 20), (3, 40)]


def enveloped(data: Data, counter: Counter) -> Message[Any]:
    """As a timer has sent it."""
    return Message[Any](
        id=new_id(),
        source="/yike/orders/timers",
        type=data.TYPE,
        time=counter.harness.now(),
        correlationid=new_id(),
        partitionkey=data.partition_key,
        data=data,
    )


@pytest.mark.parametrize("by", ["guardian", "silence"])
async def test_who_confirmed_is_known_for_ever(counter: Counter, family: Family, by: str) -> None:
    order = await taught(counter, family)
    due = (await applied(counter, order)).answer_by
    assert due is not None
    if by == "silence":
        await until(counter, due)
    else:
        await confirmed(counter, order)
    sql = "SELECT confirmed_by, answered_at FROM lessons WHERE order_id = $1 AND lesson_no = 1"
    answered = await counter.harness.rows("orders", sql, order.order_id)

    async def is_known() -> None:
        assert (await lesson(counter, order)).confirmed_by == by
        assert await counter.harness.rows("orders", sql, order.order_id) == answered

    late = LessonDeadline(order_id=order.order_id, lesson_no=1)
    for happened in (settled(order), returned(order), settled(order), late):
        await counter.answers(order, happened)
        await is_known()
    await confirmed(counter, order)
    await applied(counter, order, 2)
    await is_known()
