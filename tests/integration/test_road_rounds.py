"""The relay round by round: real rows and real record batches, and a broker that answers when the test likes.

A real broker holds one partition up, or fails a send, only by chance; what each round does about it is looked at here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, UnknownTopicOrPartitionError
from aiokafka.record.memory_records import MemoryRecords
from prometheus_client import REGISTRY
from sqlalchemy import text

from ops.stack.servers import Servers
from shared.database import Connection, Database
from shared.ids import new_id
from shared.messaging import metrics, outbox, sets
from shared.messaging import relay as relay_module
from shared.messaging.outbox import OutboxRow
from shared.messaging.relay import NOWHERE, Relay, _hash, _headers, _UnderWay
from shared.settings import Settings
from tests.harness import WAIT_S, until
from tests.roadkit import EVENTS, SERVICE, figures, make_database

COMING = "escrow.roadtest-coming.v1"
BATCH_BYTES = 16 * 1024
SOON_S = 0.5
"""Enough for who answers at once, and what is held shall not be waited for long."""
LONG_S = 600.0


class Broker:
    """In the place of a producer: keeps what it is given, partition by partition; some of them answer later."""

    def __init__(self) -> None:
        self.topics: dict[str, set[int]] = {EVENTS: {0, 1, 2}}
        self.not_looked_up: dict[str, set[int]] = {}
        self.looks: list[str] = []
        self.got: dict[tuple[str, int], list[Any]] = {}
        self.batches = 0
        self.starts = self.refuses = self.stops = 0
        self.held: dict[int, asyncio.Future[None]] = {}
        self.client = self
        self.cluster = self
        self.partitions_for_topic = self.topics.get
        # Never started: it only makes batches.
        self._producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", max_batch_size=BATCH_BYTES)
        self.create_batch = self._producer.create_batch

    async def start(self) -> None:
        """Says that it is there, or why it is not."""
        self.starts += 1
        if self.starts <= self.refuses:
            raise KafkaConnectionError("nobody is there")

    async def partitions_for(self, topic: str) -> set[int]:
        """What a real one asks the brokers."""
        self.looks.append(topic)
        if topic not in self.not_looked_up and topic not in self.topics:
            raise UnknownTopicOrPartitionError(topic)
        self.topics |= {topic: self.not_looked_up.pop(topic)} if topic in self.not_looked_up else {}
        return self.topics[topic]

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> "asyncio.Future[None]":
        """Takes a batch; that it has it is said at once, or when the partition is let go."""
        self.batches += 1
        records = MemoryRecords(bytes(batch._buffer if batch._buffer is not None else batch._builder.build()))
        while records.has_next():
            found = records.next_batch()
            assert found is not None
            self.got.setdefault((topic, partition), []).extend(found)
        said: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if partition in self.held:
            return self.held[partition]
        said.set_result(None)
        return said

    def numbers(self, partition: int, topic: str = EVENTS) -> list[int]:
        """What it has of a partition, in its order."""
        return [int(record.value.split()[0]) for record in self.got.get((topic, partition), [])]


@dataclass
class Rounds:
    """A relay that leads, round by round."""

    relay: Relay
    connection: Connection
    broker: Broker
    way: _UnderWay

    async def go(self) -> bool:
        """One round; whether there may be more."""
        return await self.relay._round(self.connection, cast(Any, self.broker), self.way)

    async def say(
        self, partition: int | None, *numbers: int, topic: str = EVENTS, padding: int = 0, key: str = "k"
    ) -> list[OutboxRow]:
        """Puts a message for each number into the outbox."""
        rows = [
            OutboxRow(new_id(), topic, key, partition, "type.v1", new_id(), "", "trace", f"{number} {'x' * padding}")
            for number in numbers
        ]
        async with self.relay.database.session() as session, session.begin():
            await sets.write(session, *outbox.messages(rows))
        return rows

    async def waiting(self) -> list[int]:
        """The numbers that are not marked as sent."""
        rows = await self.connection.fetch("SELECT body FROM outbox JOIN unsent USING (seq) ORDER BY seq")
        return [int(row["body"].split()[0]) for row in rows]

    def hold(self, partition: int) -> "asyncio.Future[None]":
        """From now on this partition says nothing until the future that is returned has a result."""
        self.broker.held[partition] = asyncio.get_running_loop().create_future()
        return self.broker.held[partition]

    async def let_go(self, partition: int) -> None:
        """The partition says that it has all."""
        self.broker.held.pop(partition).set_result(None)
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait(self.way.sends.values())


@pytest.fixture(scope="module")
async def database(servers: Servers) -> AsyncIterator[Database]:
    """One for the tests of this module."""
    async with make_database(servers) as database:
        yield database


@pytest.fixture
async def rounds(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rounds]:
    """With an empty outbox; a round is of four rows, waits for all acknowledgements, and what rests does so long."""
    monkeypatch.setattr(relay_module, "PATIENCE_S", WAIT_S)
    monkeypatch.setattr(relay_module, "FIRST_PAUSE_S", LONG_S)
    async with database.session() as session, session.begin():
        await (await session.connection()).execute(text("TRUNCATE outbox, unsent"))
    settings = Settings(kafka="", database="", keys=Path(), relay_rows=4)
    connection = await database.connect()
    made = Rounds(Relay(settings, SERVICE, database), connection, Broker(), _UnderWay())
    yield made
    for send in made.way.sends.values():
        send.cancel()
    connection.terminate()


def age() -> float:
    """What an operator reads of the oldest row that waits."""
    return REGISTRY.get_sample_value("yike_outbox_oldest_unsent_seconds", {"service": SERVICE}) or 0.0


async def test_a_round_publishes_in_order_with_all_a_record_has_and_marks_it(rounds: Rounds) -> None:
    rows = await rounds.say(0, 1, 2) + await rounds.say(1, 3)
    before, began = figures(), datetime.now(UTC)
    assert not await rounds.go()
    done = figures() - before
    assert (rounds.broker.numbers(0), rounds.broker.numbers(1)) == ([1, 2], [3])
    assert await rounds.waiting() == []
    record = rounds.broker.got[EVENTS, 0][0]
    assert (record.key, record.value) == (b"k", rows[0].body.encode())
    assert record.headers == _headers({name: getattr(rows[0], name) for name in OutboxRow.__slots__})
    assert abs(datetime.fromtimestamp(record.timestamp / 1000, UTC) - began) < timedelta(hours=1)
    assert done == {"relay_rows_total": 3} | {
        f"stage_seconds_count relay_{name}": 1 for name in ("read", "send", "mark")
    }
    assert (rounds.way.sends, rounds.way.passed_over, rounds.way.after) == ({}, set(), 0)
    assert not rounds.relay._woken.is_set()


async def test_a_round_without_rows_does_and_measures_nothing(rounds: Rounds) -> None:
    metrics.OUTBOX_AGE.labels(SERVICE).set(5)
    before = figures()
    assert not await rounds.go()
    assert +(figures() - before) == {}
    assert age() == 0, "nothing waits any more"


async def test_a_full_round_is_followed_by_another(rounds: Rounds) -> None:
    await rounds.say(0, *range(1, 6))
    assert await rounds.go()
    assert await rounds.waiting() == [5]
    assert not await rounds.go()
    assert rounds.broker.numbers(0) == [1, 2, 3, 4, 5]


async def test_what_does_not_fit_one_batch_goes_in_the_next_and_nothing_is_lost(rounds: Rounds) -> None:
    await rounds.say(0, 1, 2, 3, 4, padding=BATCH_BYTES // 2)
    await rounds.go()
    assert rounds.broker.batches == 4
    assert rounds.broker.numbers(0) == [1, 2, 3, 4]
    assert await rounds.waiting() == []


async def test_a_slow_partition_keeps_only_itself_waiting_and_its_order(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "PATIENCE_S", SOON_S)
    rounds.hold(0)
    await rounds.say(0, 1)
    await rounds.say(1, 2)
    assert not await rounds.go()
    assert await rounds.waiting() == [1]
    assert set(rounds.way.sends) == {(EVENTS, 0)}
    await rounds.say(0, 3)
    await rounds.say(1, 4)
    assert not await rounds.go()
    assert (rounds.broker.numbers(0), rounds.broker.numbers(1)) == ([1], [2, 4])
    assert rounds.way.passed_over == {(EVENTS, 0)}
    assert age() > 0
    assert not rounds.relay._woken.is_set()
    await rounds.let_go(0)
    await asyncio.sleep(0)
    assert rounds.relay._woken.is_set(), "its next rows need not wait for the poll"
    await rounds.go()
    await rounds.go()
    assert rounds.broker.numbers(0)[-1] == 3
    assert await rounds.waiting() == []
    await rounds.go()
    assert age() == 0


async def test_a_window_full_of_what_waits_is_looked_past_until_a_partition_of_it_is_free(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "PATIENCE_S", SOON_S)
    rounds.hold(0)
    await rounds.say(0, 1, 2, 3, 4)
    assert await rounds.go()
    await rounds.say(0, 5)
    await rounds.say(1, 6, 7)
    assert await rounds.go(), "the four that are under way fill the window"
    assert rounds.way.after > 0
    after = rounds.way.after
    assert not await rounds.go()
    assert (rounds.broker.numbers(0), rounds.broker.numbers(1)) == ([1, 2, 3, 4], [6, 7])
    assert rounds.way.after == after
    await rounds.let_go(0)
    # Free by now, but not before the rows are looked at from the first again.
    await rounds.go()
    assert rounds.broker.numbers(0) == [1, 2, 3, 4]
    await rounds.go()
    assert rounds.broker.numbers(0) == [1, 2, 3, 4, 5]
    assert (await rounds.waiting(), rounds.way.after, rounds.way.passed_over) == ([], 0, set())


async def test_of_two_slow_partitions_the_one_that_is_free_does_not_wait_for_the_other(
    rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "PATIENCE_S", SOON_S)
    rounds.hold(0)
    rounds.hold(1)
    for number in (1, 2):
        await rounds.say(0, number)
        await rounds.say(1, number)
        await rounds.go()
    assert rounds.way.passed_over == {(EVENTS, 0), (EVENTS, 1)}
    free = rounds.way.sends[EVENTS, 0]
    rounds.broker.held.pop(0).set_result(None)
    async with asyncio.timeout(WAIT_S):
        await free
    for _ in range(3):
        await rounds.go()
    assert (rounds.broker.numbers(0), rounds.broker.numbers(1)) == ([1, 2], [1])


async def test_a_topic_that_is_not_known_yet_is_looked_up_and_then_sent_to(rounds: Rounds) -> None:
    rounds.broker.not_looked_up[COMING] = {0, 1}
    await rounds.say(None, 1, 2, topic=COMING)
    assert not await rounds.go()
    assert (rounds.broker.looks, rounds.broker.got) == ([COMING], {})
    assert rounds.relay._woken.is_set(), "its rows can go now"
    assert not await rounds.go()
    assert rounds.broker.numbers(_hash("k") % 2, COMING) == [1, 2]
    assert await rounds.waiting() == []


async def test_what_is_not_there_is_asked_for_once_and_rests(rounds: Rounds) -> None:
    await rounds.say(None, 1, topic=COMING)
    await rounds.say(7, 2)
    await rounds.say(2, 3)
    for _ in range(3):
        assert not await rounds.go()
    assert sorted(rounds.broker.looks) == sorted([COMING, EVENTS])
    assert set(rounds.relay._rests) == {(COMING, NOWHERE), (EVENTS, 7)}
    assert await rounds.waiting() == [1, 2]
    assert rounds.broker.numbers(2) == [3]
    assert not rounds.relay._woken.is_set()


async def test_rows_of_a_topic_wait_for_those_before_them_that_had_no_place_yet(rounds: Rounds) -> None:
    await rounds.say(None, 1, topic=COMING)
    await rounds.go()
    assert set(rounds.relay._rests) == {(COMING, NOWHERE)}
    await rounds.go()
    assert rounds.way.passed_over == {(COMING, NOWHERE)}
    # It is known from now on, while the place without a partition still rests.
    rounds.broker.topics[COMING] = {0, 1}
    await rounds.say(0, 2, topic=COMING)
    await rounds.go()
    assert rounds.broker.got == {}
    rounds.relay._rests.clear()
    await rounds.go()
    assert await rounds.waiting() == []


async def test_a_look_that_takes_too_long_is_given_up(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(topic: str) -> set[int]:
        await asyncio.sleep(600)
        return set()

    monkeypatch.setattr(relay_module, "LOOK_UP_TIMEOUT_S", SOON_S)
    monkeypatch.setattr(rounds.broker, "partitions_for", never)
    await rounds.say(None, 1, topic=COMING)
    async with asyncio.timeout(WAIT_S):
        await rounds.go()
    assert set(rounds.relay._rests) == {(COMING, NOWHERE)}


async def test_a_send_that_fails_ends_the_leadership_and_what_others_have_is_marked(rounds: Rounds) -> None:
    rounds.hold(0).set_exception(KafkaError("refused"))
    await rounds.say(0, 1)
    await rounds.say(1, 2)
    with pytest.raises(KafkaError, match="refused"):
        await rounds.go()
    assert await rounds.waiting() == [1]
    assert set(rounds.relay._rests) == {(EVENTS, 0)}
    assert rounds.way.sends == {}


# --- leading ----------------------------------------------------------------------------------------------------------


class Counted(Relay):
    """A relay that counts its rounds."""

    rounds = 0

    async def _round(self, connection: Connection, producer: AIOKafkaProducer, way: _UnderWay) -> bool:
        self.rounds += 1
        return await super()._round(connection, producer, way)


@dataclass
class Copies:
    """Copies of the relay, all with one broker; their polls are far apart, so that only a word can have woken one."""

    database: Database
    broker: Broker

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[Counted]:
        """One more, until the block ends."""
        relay = Counted(Settings(kafka="", database="", keys=Path(), relay_rows=4), SERVICE, self.database)
        running = asyncio.create_task(relay.run())
        try:
            yield relay
            assert not running.done(), "the relay has ended"
        finally:
            running.cancel()
            await asyncio.wait({running}, timeout=WAIT_S)
            assert running.cancelled()
            assert not relay.leading

    async def heard(self, partition: int, *numbers: int) -> None:
        """Waits until the broker has these, in this order and no others."""
        await until(lambda: self.broker.numbers(partition) == list(numbers))


@pytest.fixture
async def copies(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> Copies:
    """None yet; the outbox is empty."""

    async def stop(producer: Broker) -> None:
        producer.stops += 1

    def make(settings: Settings, service: str) -> Broker:
        assert (settings.relay_rows, service) == (4, SERVICE)
        return rounds.broker

    monkeypatch.setattr(relay_module, "make_producer", make)
    monkeypatch.setattr(relay_module, "stop_producer", stop)
    monkeypatch.setattr(relay_module, "POLL_S", LONG_S)
    monkeypatch.setattr(relay_module, "FOLLOWER_POLL_S", 0.01)
    return Copies(rounds.relay.database, rounds.broker)


def leader() -> float | None:
    """What an operator reads of who leads."""
    return REGISTRY.get_sample_value("yike_relay_leader", {"service": SERVICE})


async def test_a_leader_publishes_what_it_is_woken_for_and_leaves_all_in_order(copies: Copies, rounds: Rounds) -> None:
    lock = "SELECT pg_try_advisory_lock($1)"
    async with copies.copy() as relay:
        await until(lambda: relay.leading)
        assert leader() == 1
        await asyncio.sleep(0.1)
        assert relay.rounds == 1, "it rests while there is nothing to do"
        assert not await rounds.connection.fetchval(lock, relay_module.LOCK_KEY)
        for number in range(1, 4):
            await rounds.say(0, number)
            relay.wake()
            await copies.heard(0, *range(1, number + 1))
        held = rounds.hold(1)
        await rounds.say(1, 9)
        relay.wake()
        await copies.heard(1, 9)
    assert leader() == 0
    assert held.cancelled(), "what was under way is given up"
    assert (copies.broker.starts, copies.broker.stops) == (1, 1)
    assert await rounds.connection.fetchval(lock, relay_module.LOCK_KEY), "it is free at once"
    await rounds.connection.execute("SELECT pg_advisory_unlock_all()")


async def test_a_full_outbox_is_emptied_without_a_word(copies: Copies, rounds: Rounds) -> None:
    await rounds.say(0, *range(1, 11))
    async with copies.copy():
        await copies.heard(0, *range(1, 11))


async def test_what_nobody_says_is_found_by_looking(
    copies: Copies, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "POLL_S", 0.01)
    async with copies.copy() as relay:
        await until(lambda: relay.leading)
        await rounds.say(0, 1)
        await copies.heard(0, 1)


async def test_a_copy_that_does_not_lead_tells_the_leader_and_follows_it(copies: Copies, rounds: Rounds) -> None:
    async with AsyncExitStack() as stack:
        async with copies.copy() as first:
            await until(lambda: first.leading)
            second = await stack.enter_async_context(copies.copy())
            for number in range(1, 4):
                await rounds.say(0, number)
                second.wake()
                await copies.heard(0, *range(1, number + 1))
            assert not second.leading
        await until(lambda: second.leading)


async def test_a_leader_that_cannot_reach_kafka_or_loses_its_session_begins_again(
    copies: Copies, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "FIRST_PAUSE_S", 0.01)
    copies.broker.refuses = 2
    async with copies.copy() as relay:
        await until(lambda: relay.leading)
        assert (copies.broker.starts, copies.broker.stops, relay._pause) == (3, 2, 0.01)
        await rounds.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        await rounds.say(0, 1)
        relay.wake()
        await copies.heard(0, 1)
        assert copies.broker.starts == 4


async def test_between_two_beginnings_there_is_a_pause(copies: Copies) -> None:
    copies.broker.refuses = 9
    async with copies.copy() as relay:  # its first pause is long
        await until(lambda: copies.broker.stops == 1)
        await asyncio.sleep(0.2)
        assert (copies.broker.starts, relay.leading) == (1, False)
