"""Timers: what falls due is one message, whichever copy sees it, and the moved clock makes it due."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from shared import clock
from shared.contracts.envelope import Message
from shared.ids import new_id
from shared.messaging import outbox, sets
from shared.messaging.outbox import TimerRow
from shared.messaging.relay import Relay
from shared.messaging.work import UnitOfWork
from shared.timers import _DUE, Timers
from tests.roadkit import SERVICE, Plan, Remind, Road, body, letters_of, road

__all__ = ["road"]

HOUR_S = 3600.0


@pytest.fixture(scope="class")
async def copies(road: Road) -> AsyncIterator[Road]:
    """Two copies of the service; the clock is put back at the end to where the session had it."""
    before = await clock.get_offset(road.servers.postgres_admin_dsn)
    async with road.serve(timer_rows=7, session_timeout_ms=6000), road.serve(timer_rows=7, session_timeout_ms=6000):
        yield road
    await clock.set_offset(road.servers.postgres_admin_dsn, before)


async def waiting(road: Road, account: UUID) -> int:
    """How many timers wait for an account."""
    rows = await road.rows(SERVICE, "SELECT count(*) AS n FROM timers WHERE subject = $1", str(account))
    return int(rows[0]["n"])


async def plan(road: Road, account: UUID, number: int, after_s: float | None) -> UUID:
    """Has the service set (or cancel) a timer; the id of the message that did."""
    handled = len(await road.numbers(account))
    id_ = await road.publish(Plan(account_id=account, number=number, after_s=after_s))

    async def planned() -> bool:
        return len(await road.numbers(account)) > handled

    await road.until(planned)
    return id_


class TestInTwoCopies:
    async def test_two_copies_fire_every_timer_once_when_the_clock_has_moved(self, copies: Road) -> None:
        accounts = [new_id() for _ in range(60)]
        for account in accounts:
            await copies.publish(Plan(account_id=account, number=1, after_s=HOUR_S))
        for account in accounts:
            await copies.expect_numbers(account, 1)
        assert copies.seen(Remind) == []
        fired = REGISTRY.get_sample_value("yike_timers_fired_total", {"service": SERVICE}) or 0
        await copies.advance(timedelta(seconds=HOUR_S))
        for account in accounts:
            await copies.expect_numbers(account, 1, 1)
        await copies.expect_quiet()
        assert len(copies.seen(Remind)) == len(accounts)
        assert len({one["id"] for one in copies.recorded if one["type"] == Remind.TYPE}) == len(accounts)
        assert await copies.rows(SERVICE, "SELECT 1 FROM timers") == []
        assert REGISTRY.get_sample_value("yike_timers_fired_total", {"service": SERVICE}) == fired + len(accounts)

    async def test_a_timer_set_again_moves_and_fires_once_with_what_was_said_last(self, copies: Road) -> None:
        account = new_id()
        await plan(copies, account, 1, HOUR_S)
        await plan(copies, account, 2, 3 * HOUR_S)
        await copies.advance(timedelta(seconds=2 * HOUR_S))
        probe = new_id()
        await plan(copies, probe, 9, 0)
        await copies.expect_numbers(probe, 9, 9)  # what is due fires, so the other is not
        assert await waiting(copies, account) == 1
        await copies.advance(timedelta(seconds=2 * HOUR_S))
        await copies.expect_numbers(account, 1, 2, 2)

    async def test_a_cancelled_timer_does_not_fire_and_cancelling_nothing_is_no_fault(self, copies: Road) -> None:
        account = new_id()
        await plan(copies, account, 1, None)
        await plan(copies, account, 2, HOUR_S)
        await plan(copies, account, 3, None)
        assert await waiting(copies, account) == 0
        await copies.advance(timedelta(seconds=2 * HOUR_S))
        await plan(copies, account, 4, 0)
        await copies.expect_numbers(account, 1, 2, 3, 4, 4)

    async def test_of_several_wishes_in_one_batch_the_last_counts(self, copies: Road) -> None:
        kept, gone = new_id(), new_id()
        cause = Message[Plan].model_validate(body(Plan(account_id=kept, number=1, after_s=None)))
        async with copies.database.session() as session, session.begin():
            work = UnitOfWork(SERVICE, session, copies.ring(SERVICE), await clock.now(session))
            for account in (kept, gone):
                for number in (1, 2, 3):
                    work.cancel_timer(Remind, account)
                    work.set_timer(Remind(account_id=account, number=number), work.now + timedelta(days=400), cause)
            work.cancel_timer(Remind, gone)
            await work.flush()
        rows = await copies.rows(SERVICE, "SELECT data FROM timers WHERE subject = ANY($1)", [str(kept), str(gone)])
        assert [row["data"] for row in rows] == [Remind(account_id=kept, number=3).model_dump_json()]

    async def test_a_fired_timer_carries_the_trace_and_the_cause_of_what_set_it(self, copies: Road) -> None:
        account = new_id()
        id_ = await plan(copies, account, 1, 0)
        fired = await copies.expect_envelope(lambda e: e["type"] == Remind.TYPE and e["partitionkey"] == str(account))
        asked = await copies.expect_envelope(lambda e: e.get("id") == str(id_))
        assert fired["correlationid"] == asked["correlationid"]
        assert fired["causationid"] == asked["id"]
        assert fired["traceparent"].split("-")[1] == asked["traceparent"].split("-")[1]
        assert fired["traceparent"] != asked["traceparent"]
        assert (fired["specversion"], fired["source"], fired["subject"]) == (
            "1.0",
            f"/yike/{SERVICE}/timers",
            str(account),
        )
        assert abs(datetime.fromisoformat(fired["time"]) - copies.now()) < timedelta(minutes=5)
        headers = dict(fired["_headers"])
        assert headers["ce_id"].decode() == fired["id"]
        assert headers["ce_type"].decode() == Remind.TYPE
        assert headers["correlation_id"].decode() == fired["correlationid"]
        assert headers["traceparent"].decode() == fired["traceparent"]
        assert "reply_to" not in headers

    async def test_a_timer_nobody_knows_any_more_is_parked_and_the_others_fire(self, copies: Road) -> None:
        account, strange, unfit = new_id(), new_id(), new_id()
        now = copies.now() - timedelta(days=1)
        rows = [
            TimerRow(type_, str(id_), new_id(), now, data, str(id_), new_id(), None, "")
            for type_, id_, data in [
                ("escrow.roadtest.forgotten.v1", strange, '{"account_id": "1"}'),
                (Remind.TYPE, unfit, '{"number": "many"}'),
                (Remind.TYPE, account, Remind(account_id=account, number=5).model_dump_json()),
            ]
        ]
        async with copies.database.session() as session, session.begin():
            await sets.write(session, *outbox.timers(rows))
        await copies.expect_numbers(account, 5)
        await copies.until(lambda: letters_of(copies, strange) and letters_of(copies, unfit))
        assert letters_of(copies, strange)[0].reason == "type_unknown"
        assert letters_of(copies, unfit)[0].reason == "bad_data"


async def test_copies_that_fire_at_once_take_different_rows(road: Road) -> None:
    before = await clock.get_offset(road.servers.postgres_admin_dsn)
    far = road.now() - before + timedelta(days=900)
    data = [Remind(account_id=new_id(), number=1) for _ in range(40)]
    async with road.database.session() as session, session.begin():
        await sets.write(
            session,
            *outbox.timers(
                [
                    TimerRow(
                        one.TYPE, str(one.account_id), new_id(), far, one.model_dump_json(), "k", new_id(), None, ""
                    )
                    for one in data
                ]
            ),
        )
    settings = road.settings(SERVICE, timer_rows=5)
    timers = Timers(settings, SERVICE, road.database, Relay(settings, SERVICE, road.database))
    await clock.set_offset(road.servers.postgres_admin_dsn, timedelta(days=901))
    try:
        # A first one holds five rows, as a slow copy would; the others must not wait for it.
        async with road.database.session() as slow, slow.begin():
            held = (await (await slow.connection()).execute(_DUE, {"rows": 5})).all()
            assert len(held) == 5
            async with asyncio.timeout(5):
                fired = await asyncio.gather(*(timers.fire() for _ in range(4)))
            assert sum(fired) == 20
            await slow.rollback()
        while await timers.fire():
            pass
    finally:
        await clock.set_offset(road.servers.postgres_admin_dsn, before)
    rows = await road.rows(SERVICE, "SELECT body FROM outbox WHERE key = 'k'")
    fired_for = [json.loads(row["body"])["data"]["account_id"] for row in rows]
    assert sorted(fired_for) == sorted(str(one.account_id) for one in data)
