"""The relay's bookkeeping: what has ended is forgotten, what failed rests longer each time, where a row belongs."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest
from aiokafka.errors import KafkaError

from shared.database import Database
from shared.messaging import relay as relay_module
from shared.messaging.relay import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    NOWHERE,
    Place,
    Relay,
    _hash,
    _headers,
    _NotThereError,
    _UnderWay,
)

HERE: Place = ("topic", 1)
THERE: Place = ("topic", 2)


@pytest.fixture
def relay() -> Relay:
    """One that neither leads nor publishes."""
    return Relay(cast(Any, None), "catalog", cast(Any, None))


async def sending(result: bool | Exception) -> "asyncio.Task[bool]":
    """A send that has ended so."""

    async def send() -> bool:
        if isinstance(result, Exception):
            raise result
        return result

    task = asyncio.create_task(send())
    await asyncio.wait({task})
    return task


async def settle(relay: Relay, way: _UnderWay) -> None:
    """Nothing is acknowledged, so nothing is marked."""
    await relay._settle(cast(Any, None), way)


def pause_of(relay: Relay, place: Place) -> float:
    """How long a place rests in all."""
    return relay._rests[place][1]


async def test_what_has_ended_is_under_way_no_more_and_what_has_not_still_is(relay: Relay) -> None:
    going = asyncio.create_task(asyncio.sleep(60, True))
    way = _UnderWay(sends={HERE: await sending(True), THERE: going})
    await settle(relay, way)
    assert way.sends == {THERE: going}
    assert relay._is_busy(THERE, way)
    assert not relay._is_busy(HERE, way)
    assert not relay._woken.is_set()
    going.cancel()


async def test_a_place_that_was_looked_up_only_is_sent_to_at_once(relay: Relay) -> None:
    await settle(relay, _UnderWay(sends={HERE: await sending(False)}))
    assert relay._woken.is_set()


async def test_a_failure_is_raised_and_its_place_rests(relay: Relay) -> None:
    failed, missing = KafkaError("lost"), _NotThereError("no such topic")
    way = _UnderWay(sends={HERE: await sending(failed), THERE: await sending(missing)})
    with pytest.raises(KafkaError, match="lost"):
        await settle(relay, way)
    assert way.sends == {}
    assert relay._is_busy(HERE, way)
    assert relay._is_busy(THERE, way)


async def test_what_is_not_there_stops_nobody_but_its_place(relay: Relay) -> None:
    way = _UnderWay(sends={HERE: await sending(_NotThereError("no such topic")), THERE: await sending(True)})
    await settle(relay, way)
    assert relay._is_busy(HERE, way)
    assert not relay._is_busy(THERE, way)


async def test_a_rest_is_twice_as_long_each_time_up_to_a_limit_and_forgotten_after_a_success(relay: Relay) -> None:
    pauses = []
    for _ in range(10):
        await settle(relay, _UnderWay(sends={HERE: await sending(_NotThereError("no such topic"))}))
        pauses.append(pause_of(relay, HERE))
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S == max(pauses)
    until = relay._rests[HERE][0] - asyncio.get_running_loop().time()
    assert LONGEST_PAUSE_S - 5 < until <= LONGEST_PAUSE_S
    await settle(relay, _UnderWay(sends={HERE: await sending(True)}))
    assert relay._rests == {}


async def test_a_rest_ends(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "FIRST_PAUSE_S", 0.05)
    way = _UnderWay()
    relay._rest(HERE, _NotThereError("no such topic"))
    assert relay._is_busy(HERE, way)
    await asyncio.sleep(0.06)
    assert not relay._is_busy(HERE, way)


async def test_a_bug_ends_the_relay_and_is_shown(relay: Relay) -> None:
    async with asyncio.timeout(5):
        with pytest.raises(AttributeError, match="connect"):  # it has no database
            await relay.run()


async def test_a_leader_is_woken_without_a_word_to_others(relay: Relay) -> None:
    relay._set_leading(True)
    relay.wake()
    assert relay._woken.is_set()
    assert relay._notifying is None


async def test_a_word_that_cannot_be_passed_on_is_no_fault_and_a_bug_is_shown() -> None:
    nobody = Database("postgresql://nobody@127.0.0.1:1/nothing")
    relay = Relay(cast(Any, None), "catalog", nobody)
    relay.wake()
    assert relay._notifying is not None
    await relay._notifying
    relay.database = cast(Any, None)
    relay.wake()
    with pytest.raises(AttributeError, match="engine"):
        await relay._notifying
    await nobody.close()


def row(**changes: Any) -> dict[str, Any]:
    """A row of the outbox."""
    return {
        "id": UUID(int=1),
        "topic": "catalog.events.v1",
        "key": "k",
        "partition": None,
        "type": "catalog.seat.taken.v1",
        "correlationid": UUID(int=2),
        "replyto": "",
        "traceparent": "trace",
    } | changes


def test_headers_are_copies_of_what_tools_look_for() -> None:
    known = [
        ("content-type", b"application/cloudevents+json"),
        ("ce_id", str(UUID(int=1)).encode()),
        ("ce_type", b"catalog.seat.taken.v1"),
        ("correlation_id", str(UUID(int=2)).encode()),
        ("traceparent", b"trace"),
    ]
    assert _headers(row()) == known
    assert _headers(row(replyto="orders.replies.v1")) == [*known, ("reply_to", b"orders.replies.v1")]


@pytest.mark.parametrize(
    ("key", "murmur2"),
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)],
)
def test_a_key_lies_where_every_kafka_client_counts_it(key: str, murmur2: int) -> None:
    # Values of the Java client's own tests; it takes the sign away as we do.
    assert _hash(key) == murmur2 & 0x7FFFFFFF


class _Cluster:
    """What a producer knows of topics."""

    def __init__(self, partitions: dict[str, set[int]]) -> None:
        self.partitions_for_topic = partitions.get
        self.client = self
        self.cluster = self


def test_a_row_lies_where_it_asks_to_be_or_where_its_key_says(relay: Relay) -> None:
    relay.settings = cast(Any, type("Settings", (), {"namespace": "test."}))
    producer = cast(Any, _Cluster({"test.catalog.events.v1": {0, 1, 2}}))
    assert relay._place(producer, row(partition=0)) == ("test.catalog.events.v1", 0)
    assert relay._place(producer, row(key="k")) == ("test.catalog.events.v1", _hash("k") % 3)
    assert relay._place(producer, row(topic="gone")) == ("test.gone", NOWHERE)
    assert NOWHERE < 0, "no partition has this number"
    assert relay._place(producer, row(topic="gone", partition=2)) == ("test.gone", 2)
