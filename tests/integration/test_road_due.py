"""Timers without Kafka: what one set of due timers puts into the outbox, how the loop goes on, and what is purged."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy.exc import DBAPIError

from ops.stack.servers import Servers
from shared import timers as timers_module
from shared.contracts.envelope import Message
from shared.database import Database
from shared.ids import new_id
from shared.messaging import outbox, sets
from shared.messaging.outbox import TimerRow
from shared.messaging.relay import Relay
from shared.settings import Settings
from shared.timers import Timers
from tests.harness import WAIT_S, until
from tests.roadkit import COMMANDS, SERVICE, Remind, committed_rows, make_database, words_known

LONG_S = 600.0
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
LONG_AGO = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
NOT_YET = datetime(2199, 1, 5, 8, 0, tzinfo=UTC)


class Counted(Timers):
    """Timers that count how often they looked and purged."""

    looks = 0
    purges = 0

    async def fire(self) -> int:
        """One more look."""
        self.looks += 1
        return await super().fire()

    async def purge(self) -> bool:
        """One more purge."""
        self.purges += 1
        return await super().purge()


class Due:
    """A database of its own with timers in it."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def timers(self, **changes: Any) -> Counted:
        """A copy that leads, so that waking its relay is seen and tells nobody else."""
        settings = Settings(kafka="", database="", keys=Path(), **changes)
        relay = Relay(settings, SERVICE, self.database)
        relay.leading = True
        return Counted(settings, SERVICE, self.database, relay)

    async def set(self, *rows: TimerRow) -> None:
        """Sets timers."""
        async with self.database.session() as session, session.begin():
            await sets.write(session, *outbox.timers(rows))

    async def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """What is committed."""
        return await committed_rows(self.database, sql, **parameters)

    async def said(self) -> list[dict[str, Any]]:
        """The outbox in its order; all of it waits to be published."""
        rows = await self.rows("SELECT o.*, u.seq IS NOT NULL AS waits FROM outbox o LEFT JOIN unsent u USING (seq)")
        assert all(row["waits"] for row in rows)
        return sorted(rows, key=lambda row: int(row["seq"]))

    async def make_old(self, count: int) -> None:
        """Puts so many rows into the inbox that are older than is kept."""
        await self.rows(
            "INSERT INTO inbox (consumer, message_id, body_hash, received_at)"
            " SELECT 'old', gen_random_uuid(), '', now() - interval '31 days' FROM generate_series(1, :count)",
            count=count,
        )


@pytest.fixture(scope="module")
async def place(servers: Servers) -> AsyncIterator[Due]:
    """One for the tests of this module."""
    async with make_database(servers) as database:
        with words_known():
            yield Due(database)


@pytest.fixture
async def due(place: Due) -> Due:
    """With nothing in its tables."""
    await place.rows("TRUNCATE inbox, outbox, unsent, timers")
    return place


def timer(number: int = 1, due_at: datetime = LONG_AGO, **changes: Any) -> TimerRow:
    """A timer that is due."""
    remind = Remind(account_id=new_id(), number=number)
    values: dict[str, Any] = {"type": Remind.TYPE, "data": remind.model_dump_json()} | changes
    subject = str(remind.account_id)
    more: dict[str, Any] = {"correlationid": new_id(), "causationid": new_id(), "traceparent": TRACE}
    return TimerRow(subject=subject, id=new_id(), due_at=due_at, key=f"key {number}", **more, **values)


@asynccontextmanager
async def running(timers: Timers) -> AsyncIterator[None]:
    """The loop runs until the block ends, and no shorter."""
    loop = asyncio.create_task(timers.run())
    try:
        yield
        assert not loop.done(), "the loop has ended"
    finally:
        loop.cancel()
        await asyncio.wait({loop})


@asynccontextmanager
async def failing(due: Due, sqlstate: str) -> AsyncIterator[None]:
    """Whoever takes a timer fails so."""
    await due.rows(
        f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$"
    )
    await due.rows("CREATE TRIGGER fail BEFORE DELETE ON timers FOR EACH ROW EXECUTE FUNCTION fail()")
    try:
        yield
    finally:
        await due.rows("DROP FUNCTION fail CASCADE")


# --- one set ----------------------------------------------------------------------------------------------------------


async def test_a_timer_that_is_due_becomes_one_message_in_the_outbox(due: Due) -> None:
    timers, row = due.timers(), timer(7)
    await due.set(row, timer(8, due_at=NOT_YET))
    counted = REGISTRY.get_sample_value("yike_timers_fired_total", {"service": SERVICE}) or 0
    began = datetime.now(UTC)
    assert await timers.fire() == 1
    (said,) = await due.said()
    assert (said["id"], said["topic"], said["key"], said["partition"]) == (row.id, COMMANDS, "key 7", None)
    assert (said["type"], said["correlationid"], said["replyto"]) == (Remind.TYPE, row.correlationid, "")
    envelope = json.loads(said["body"])
    Message[Remind].model_validate(envelope)
    assert timedelta(minutes=-5) < datetime.fromisoformat(envelope.pop("time")) - began < timedelta(minutes=5)
    assert envelope == {
        "specversion": "1.0",
        "id": str(row.id),
        "source": f"/yike/{SERVICE}/timers",
        "type": Remind.TYPE,
        "subject": row.subject,
        "correlationid": str(row.correlationid),
        "causationid": str(row.causationid),
        "partitionkey": "key 7",
        "traceparent": said["traceparent"],
        "data": json.loads(row.data),
    }
    assert said["traceparent"][:36] == TRACE[:36]
    assert said["traceparent"] != TRACE
    assert [left["key"] for left in await due.rows("SELECT key FROM timers")] == ["key 8"]
    assert timers.relay._woken.is_set()
    assert REGISTRY.get_sample_value("yike_timers_fired_total", {"service": SERVICE}) == counted + 1


async def test_where_nothing_is_due_nobody_is_woken(due: Due) -> None:
    timers = due.timers()
    await due.set(timer(due_at=NOT_YET))
    assert await timers.fire() == 0
    assert not timers.relay._woken.is_set()


async def test_a_set_is_of_so_many_the_earliest_first(due: Due) -> None:
    timers = due.timers(timer_rows=2)
    await due.set(*(timer(number, LONG_AGO + timedelta(hours=number)) for number in (3, 1, 2)))
    assert [await timers.fire() for _ in range(3)] == [2, 1, 0]
    assert [row["key"] for row in await due.said()] == ["key 1", "key 2", "key 3"]


async def test_what_nobody_knows_any_more_goes_to_the_commands_of_the_service(due: Due) -> None:
    await due.set(timer(1, type="escrow.roadtest.forgotten.v1", data='{"number": "many"}'))
    assert await due.timers().fire() == 1
    (said,) = await due.said()
    assert (said["type"], said["topic"]) == ("escrow.roadtest.forgotten.v1", COMMANDS)
    assert json.loads(said["body"])["data"] == {"number": "many"}


# --- the loop ---------------------------------------------------------------------------------------------------------


async def test_as_long_as_sets_are_full_the_next_one_follows_and_then_the_loop_rests(
    due: Due, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers_module, "POLL_S", LONG_S)
    timers = due.timers(timer_rows=1)
    await due.set(timer(1), timer(2), timer(3))

    async def looked() -> bool:
        return timers.looks >= 4

    async with running(timers):
        await until(looked)
        await asyncio.sleep(0.1)
        assert (timers.looks, timers.purges) == (4, 0)
    assert len(await due.said()) == 3


async def test_what_is_old_is_purged_to_the_end_and_then_not_before_its_time(
    due: Due, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers_module, "POLL_S", 0.01)
    monkeypatch.setattr(timers_module, "PURGE_ROWS", 1)
    monkeypatch.setattr(timers_module, "PURGE_EVERY_S", 0.0)
    timers = due.timers()
    await due.make_old(3)

    async def clean() -> bool:
        return timers.purges >= 4 and timers.looks >= seen + 3

    async with running(timers):
        await asyncio.sleep(0)  # it has begun, and the next purge but one is far away
        monkeypatch.setattr(timers_module, "PURGE_EVERY_S", LONG_S)
        seen = 0
        await until(clean)
        assert await due.rows("SELECT 1 FROM inbox") == []
        seen = timers.looks
        await until(clean)
        assert timers.purges == 4, "three with something to do, and one that found nothing"


async def test_a_fault_that_passes_is_waited_out(due: Due, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers_module, "POLL_S", 0.01)
    timers = due.timers()
    await due.set(timer())

    async def tried_twice() -> bool:
        return timers.looks >= 2

    async def fired() -> bool:
        return len(await due.said()) == 1

    async with failing(due, "40001"):
        loop = asyncio.create_task(timers.run())
        await until(tried_twice)
    await until(fired)
    assert not loop.done()
    loop.cancel()
    await asyncio.wait({loop})


async def test_between_two_tries_there_is_a_pause(due: Due, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timers_module, "POLL_S", LONG_S)
    timers = due.timers()
    await due.set(timer())

    async def tried() -> bool:
        return timers.looks >= 1

    async with failing(due, "40001"), running(timers):
        await until(tried)
        await asyncio.sleep(0.2)
        assert timers.looks == 1


async def test_a_bug_ends_the_loop_and_is_shown(due: Due) -> None:
    await due.set(timer())
    async with failing(due, "22012"):
        with pytest.raises(DBAPIError, match="22012"):
            await asyncio.wait_for(due.timers().run(), WAIT_S)


# --- what is old ------------------------------------------------------------------------------------------------------


async def test_what_is_old_is_purged_and_what_is_parked_unsent_or_young_stays(
    due: Due, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers_module, "PURGE_ROWS", 2)
    timers = due.timers(keep_sent_days=30)
    await due.make_old(3)
    await due.rows(
        "INSERT INTO inbox (consumer, message_id, body_hash, received_at, parked)"
        " VALUES ('parked', gen_random_uuid(), '', now() - interval '31 days', gen_random_uuid()),"
        " ('young', gen_random_uuid(), '', now() - interval '29 days', NULL)"
    )
    await due.rows(
        "WITH made AS (INSERT INTO outbox (id, topic, key, type, correlationid, replyto, traceparent, body, created_at)"
        " SELECT gen_random_uuid(), 'x', age, 'x', gen_random_uuid(), '', '', '', now() - age::int * interval '1 day'"
        " FROM unnest(ARRAY['33', '32', '31', '29']) AS t (age) RETURNING seq, key)"
        " INSERT INTO unsent SELECT seq FROM made WHERE key = '32'"
    )
    assert await timers.purge(), "two of three rows of the inbox"
    assert not await timers.purge()
    assert await left(due, "SELECT consumer AS name FROM inbox") == ["parked", "young"]
    assert await left(due, "SELECT key AS name FROM outbox") == ["29", "32"]


async def left(due: Due, sql: str) -> list[str]:
    """The names that are still there."""
    return sorted(row["name"] for row in await due.rows(sql))
