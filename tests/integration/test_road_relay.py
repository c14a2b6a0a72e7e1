"""The relay: rows in order per key, one leader, woken or not; what cannot be sent stops itself and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ops.provision import ensure_topics
from shared.contracts import topics
from shared.database import Database
from shared.ids import new_id
from shared.messaging import outbox, sets
from shared.messaging import relay as relay_module
from shared.messaging.broker import PRODUCER_BATCH_BYTES
from shared.messaging.outbox import OutboxRow
from shared.messaging.relay import NOWHERE, Relay
from shared.messaging.trace import new_traceparent
from tests.roadkit import EVENTS, SERVICE, Noted, Road, body, on_other_partitions, partition_of, road

__all__ = ["road"]

LONG_S = 600.0
MISSING, COMING, GOING = (f"escrow.roadtest-{word}.v1" for word in ("missing", "coming", "going"))


@asynccontextmanager
async def relaying(road: Road, **changes: object) -> AsyncIterator[Relay]:
    """A copy of the relay of its own; it must end as soon as it is told to."""
    settings = road.settings(SERVICE, **changes)
    database = Database(settings.database)
    relay = Relay(settings, SERVICE, database)
    running = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        running.cancel()
        ended, _ = await asyncio.wait({running}, timeout=8)
        await database.close()
        assert ended, "the relay does not end"
        assert running.cancelled(), running.exception()
        assert not relay.leading


async def say(
    road: Road, key: object, *numbers: int, topic: str = EVENTS, partition: int | None = None, padding: int = 0
) -> None:
    """Puts a message for each number into the outbox, in one transaction, and wakes nobody."""
    async with road.database.session() as session, session.begin():
        await sets.write(session, *outbox.messages([_row(road, key, n, topic, partition, padding) for n in numbers]))


def _row(road: Road, key: object, number: int, topic: str, partition: int | None, padding: int) -> OutboxRow:
    envelope = body(Noted(account_id=UUID(str(key)), number=number), padding="x" * padding)
    return OutboxRow(
        id=UUID(envelope["id"]),
        topic=topic,
        key=str(key),
        partition=partition,
        type=Noted.TYPE,
        correlationid=UUID(envelope["id"]),
        replyto="",
        traceparent=new_traceparent(),
        body=json.dumps(envelope),
    )


def heard(road: Road, key: object, topic: str = EVENTS) -> list[int]:
    """The numbers published under a key so far, in the order of the partition; what came twice counts once."""
    numbers = [one["data"]["number"] for one in road.on(topic) if one.get("partitionkey") == str(key)]
    return list(dict.fromkeys(numbers))


async def expect_heard(road: Road, key: object, *numbers: int, topic: str = EVENTS) -> None:
    """Waits for so many numbers under a key; they must be these in this order."""
    await road.until(lambda: len(heard(road, key, topic)) >= len(numbers))
    assert heard(road, key, topic) == list(numbers)


async def unsent(road: Road) -> int:
    """Rows of the outbox that are not marked as sent."""
    rows = await road.rows(SERVICE, "SELECT count(*) AS n FROM unsent")
    return int(rows[0]["n"])


async def expect_all_sent(road: Road) -> None:
    """Waits until every row is marked."""

    async def none() -> bool:
        return await unsent(road) == 0

    await road.until(none)


@asynccontextmanager
async def configured(road: Road, topic: str, **config: str) -> AsyncIterator[None]:
    """A topic with another setting for a while."""
    name = road.client_settings.namespace + topic
    usual = topics.TOPICS_BY_NAME[topic].config()
    admin = AIOKafkaAdminClient(bootstrap_servers=road.servers.kafka)
    await admin.start()
    try:
        changed = {word.replace("_", "."): value for word, value in config.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, usual | changed)])
        try:
            yield
        finally:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, usual)])
    finally:
        await admin.close()


async def make_topic(road: Road, topic: str) -> str:
    """Makes one more topic; its whole name."""
    name = road.client_settings.namespace + topic
    await ensure_topics(road.servers.kafka, topics=[replace(road.own_topics()[0], name=name)])
    return name


async def delete_topic(road: Road, topic: str) -> None:
    """Deletes a topic and waits until it is gone."""
    name = road.client_settings.namespace + topic
    admin = AIOKafkaAdminClient(bootstrap_servers=road.servers.kafka)
    await admin.start()
    try:
        await admin.delete_topics([name])

        async def gone() -> bool:
            return name not in await admin.list_topics()

        await road.until(gone)
    finally:
        await admin.close()


class TestOrder:
    async def test_rows_of_a_key_are_published_in_the_order_they_were_written_round_after_round(
        self, road: Road
    ) -> None:
        keys = on_other_partitions() + on_other_partitions()
        for number in range(1, 101):
            await say(road, keys[number % 6], number)
        await say(
            road, keys[0], *range(200, 400), padding=PRODUCER_BATCH_BYTES // 30
        )  # a round is several record batches
        async with relaying(road, relay_rows=37):
            await expect_all_sent(road)
        for position, key in enumerate(keys):
            expected = [number for number in range(1, 101) if number % 6 == position]
            await expect_heard(road, key, *expected, *(range(200, 400) if position == 0 else ()))
            assert {one["_partition"] for one in road.on(EVENTS) if one.get("partitionkey") == str(key)} == {
                partition_of(key)
            }

    async def test_headers_are_copies_of_the_body_and_a_partition_asked_for_is_used(self, road: Road) -> None:
        key = new_id()
        other = (partition_of(key) + 1) % 3
        await say(road, key, 1, partition=other)
        async with relaying(road):
            await expect_heard(road, key, 1)
        (record,) = (one for one in road.on(EVENTS) if one.get("partitionkey") == str(key))
        assert record["_partition"] == other
        headers = dict(record["_headers"])
        assert headers["content-type"] == b"application/cloudevents+json"
        assert headers["ce_id"].decode() == record["id"]
        assert headers["ce_type"].decode() == record["type"]
        assert headers["correlation_id"].decode() == record["correlationid"]
        # Kafka deletes what is old by this time.
        assert abs(datetime.fromtimestamp(record["_timestamp"] / 1000, UTC) - datetime.now(UTC)) < timedelta(hours=1)


class TestLeader:
    async def test_a_second_copy_waits_and_takes_over(self, road: Road) -> None:
        key = new_id()
        async with relaying(road) as first:
            await road.until(lambda: first.leading)
            second = relaying(road)
            waiting = await second.__aenter__()
            await say(road, key, 1)
            await expect_heard(road, key, 1)
            assert not waiting.leading
        try:
            await road.until(lambda: waiting.leading)
            await say(road, key, 2)
            await expect_heard(road, key, 1, 2)
        finally:
            await second.__aexit__(None, None, None)

    async def test_a_leader_whose_session_is_ended_leads_again_or_another_does(self, road: Road) -> None:
        key = new_id()
        async with relaying(road) as one, relaying(road) as two:
            for number in range(1, 6):
                await road.until(lambda: one.leading or two.leading)
                await road.rows(
                    SERVICE,
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
                )
                await say(road, key, number)
                await expect_heard(road, key, *range(1, number + 1))
            await expect_all_sent(road)

    async def test_a_copy_that_does_not_lead_wakes_the_leader(
        self, road: Road, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "POLL_S", LONG_S)  # so that only a notification can have done it
        key = new_id()
        async with relaying(road) as leader:
            await road.until(lambda: leader.leading)
            async with relaying(road) as follower:
                for number in range(1, 11):
                    await say(road, key, number)
                    follower.wake()
                    follower.wake()
                    await expect_heard(road, key, *range(1, number + 1))
                await say(road, key, 11)
                leader.wake()
                await expect_heard(road, key, *range(1, 12))

    async def test_what_is_committed_while_a_notification_is_under_way_is_notified_too(
        self, road: Road, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "POLL_S", LONG_S)
        key = new_id()
        async with relaying(road) as leader:
            await road.until(lambda: leader.leading)
            async with relaying(road) as follower:
                follower.wake()
                await asyncio.sleep(0)
                held = follower._notifying
                assert held is not None
                assert not held.done()
                writing = asyncio.create_task(say(road, key, 1))
                while not writing.done():
                    follower.wake()  # many times, and for the last time only once the row is there
                    await asyncio.sleep(0)
                follower.wake()
                await expect_heard(road, key, 1)

    async def test_a_row_nobody_woke_the_relay_for_is_found(self, road: Road) -> None:
        key = new_id()
        async with relaying(road) as leader:
            await road.until(lambda: leader.leading)
            await say(road, key, 1)
            await expect_heard(road, key, 1)


class TestWhatCannotBeSent:
    async def test_rows_for_a_topic_that_is_not_there_wait_for_it_and_hold_up_nobody(self, road: Road) -> None:
        key, lost = new_id(), new_id()
        await say(road, lost, *range(1, 31), topic=MISSING)
        async with relaying(road, relay_rows=10) as relay:
            async with asyncio.timeout(5):
                for number in range(1, 6):
                    await say(road, key, number)
                    relay.wake()
                    await expect_heard(road, key, *range(1, number + 1))
            assert await unsent(road) == 30
            missing = (road.client_settings.namespace + MISSING, NOWHERE)
            await road.until(lambda: missing in relay._rests)  # it is not asked for again and again
            name = await make_topic(road, MISSING)
            await expect_all_sent(road)
            assert await road.read(name) == [(str(lost), number) for number in range(1, 31)]

    async def test_rows_for_a_partition_that_is_not_there_hold_up_nobody(self, road: Road) -> None:
        key, lost = new_id(), new_id()
        await say(road, lost, 1, partition=11)
        async with relaying(road, relay_rows=1):
            await say(road, key, 1, 2, 3)
            await expect_heard(road, key, 1, 2, 3)
            assert await unsent(road) == 1
        await road.rows(SERVICE, "DELETE FROM unsent")

    async def test_a_partition_that_takes_nothing_for_a_while_holds_up_nobody_and_gets_all_in_order(
        self, road: Road
    ) -> None:
        stuck, free = new_id(), new_id()
        name = await make_topic(road, COMING)
        async with relaying(road, relay_rows=10) as relay:
            await say(road, stuck, 0, topic=COMING)
            await expect_all_sent(road)
            await delete_topic(road, COMING)
            # Its producer knows the topic and tries again and again: an error that may pass.
            await say(road, stuck, *range(1, 31), topic=COMING)
            async with asyncio.timeout(5):
                for number in range(1, 6):
                    await say(road, free, number)
                    relay.wake()
                    await expect_heard(road, free, *range(1, number + 1))
        # It has ended although something was under way; the next one begins anew.
        async with relaying(road, relay_rows=10) as relay:
            await say(road, free, 6)
            await expect_heard(road, free, *range(1, 7))
            await make_topic(road, COMING)
            await expect_all_sent(road)
            assert relay.leading
        assert await road.read(name) == [(str(stuck), number) for number in range(1, 31)]

    async def test_what_was_under_way_goes_on_when_the_partition_is_back(self, road: Road) -> None:
        key = new_id()
        name = await make_topic(road, GOING)
        async with relaying(road):
            await say(road, key, 0, topic=GOING)
            await expect_all_sent(road)
            await delete_topic(road, GOING)
            for number in range(1, 6):
                await say(road, key, number, topic=GOING)
            await make_topic(road, GOING)
            await expect_all_sent(road)
        assert list(dict.fromkeys(await road.read(name))) == [(str(key), number) for number in range(1, 6)]

    async def test_a_send_that_fails_stops_its_partition_others_go_on_and_the_order_of_the_key_is_kept(
        self, road: Road
    ) -> None:
        stuck, *free = on_other_partitions()
        async with relaying(road, relay_rows=20) as relay, configured(road, EVENTS, max_message_bytes="2000"):
            await say(road, stuck, 1)
            await say(road, stuck, 2, padding=4000)  # the broker refuses it for good: the producer gives up
            await say(road, stuck, *range(3, 41))
            for number in range(1, 6):
                for key in free:
                    await say(road, key, number)
                    relay.wake()
                    await expect_heard(road, key, *range(1, number + 1))
            assert set(heard(road, stuck)) <= {1}
        async with relaying(road):
            await expect_heard(road, stuck, *range(1, 41))
            await expect_all_sent(road)

    async def test_with_the_broker_not_to_be_reached_the_relay_waits_and_can_be_ended(self, road: Road) -> None:
        async with relaying(road, kafka="127.0.0.1:1") as relay:
            await asyncio.sleep(0.5)
            assert not relay.leading
