"""The whole history is read once more by everybody, as after `kafka-consumer-groups --reset-offsets`: no change."""

import asyncio
import json
from typing import Final

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer

from ops.stack_layout import PART_NAMES, Stack
from shared.contracts.topics import TOPICS_BY_NAME
from tests.faults.invariants import check, kafka_of, quiet, sms_lines
from tests.faults.story import beginning

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FAMILIES: Final = 3
ROAD_TABLES: Final = ("inbox", "outbox", "unsent", "timers", "alembic_version")

Dump = dict[str, list[str]]


async def test_reading_the_whole_history_again_changes_nothing_and_says_nothing_new(stack: Stack) -> None:
    async with beginning(stack, FAMILIES) as story:
        await asyncio.gather(*(story.flow() for _ in range(FAMILIES)))
        # The sender of SMS keeps house when it starts; after the clock was moved there is something to purge.
        await stack.restart("notify")
        await quiet(stack)
        assert await check(stack, story.expected) == []

        await asyncio.gather(*(stack.halt(name) for name in PART_NAMES))
        before, heard, sms = await _dump(stack), await _heard(stack), sms_lines(stack)
        said = {name: await _said(stack, name) for name in PART_NAMES}
        rewound = await _rewind(stack)
        await asyncio.gather(*(stack.resume(name) for name in PART_NAMES))
        await quiet(stack)

        assert rewound > len(sms)
        assert await _dump(stack) == before
        assert await _heard(stack) == heard
        assert sms_lines(stack) == sms
        for name in PART_NAMES:
            await _assert_only_answers_again(stack, name, said[name])
        assert await check(stack, story.expected) == []


async def _dump(stack: Stack) -> Dump:
    """Every row of every business table."""
    found: Dump = {}
    for service in PART_NAMES:
        connection = await asyncpg.connect(stack.dsn(service))
        names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        for name in (row["tablename"] for row in names if row["tablename"] not in ROAD_TABLES):
            rows = await connection.fetch(f'SELECT t::text FROM "{name}" t ORDER BY 1')
            found[f"{service}.{name}"] = [row["t"] for row in rows]
        await connection.close()
    return found


async def _heard(stack: Stack) -> Dump:
    """Which messages each inbox knows, with the answer it gave."""
    found: Dump = {}
    for service in PART_NAMES:
        connection = await asyncpg.connect(stack.dsn(service))
        rows = await connection.fetch("SELECT t::text FROM inbox t ORDER BY 1")
        found[service] = [row["t"] for row in rows]
        await connection.close()
    return found


async def _said(stack: Stack, service: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(stack.dsn(service))
    rows = await connection.fetch("SELECT seq, id, topic, type, body FROM outbox ORDER BY seq")
    await connection.close()
    return rows


async def _assert_only_answers_again(stack: Stack, service: str, before: list[asyncpg.Record]) -> None:
    """What is new in the outbox are answers given before, to the letter of what they say; of those, all."""
    answers = {row["id"]: row for row in before if TOPICS_BY_NAME[row["topic"]].kind.endswith("replies")}
    again = (await _said(stack, service))[len(before) :]
    assert {row["id"] for row in again} == answers.keys()
    for row in again:
        first = answers[row["id"]]
        assert (row["topic"], row["type"]) == (first["topic"], first["type"])
        assert json.loads(row["body"])["data"] == json.loads(first["body"])["data"]


async def _rewind(stack: Stack) -> int:
    """Sets every offset that any group has committed back to 0, as a plain consumer of that group; how many records
    will be read again."""
    records = 0
    async with kafka_of(stack) as kafka:
        for name in PART_NAMES:
            while (await kafka.members(name))[1]:
                await asyncio.sleep(0.05)
            committed = await kafka.committed(name)
            consumer = AIOKafkaConsumer(
                bootstrap_servers=stack.kafka, group_id=kafka.group(name), enable_auto_commit=False
            )
            await consumer.start()
            try:
                consumer.assign(list(committed))
                await consumer.commit(dict.fromkeys(committed, 0))
            finally:
                await consumer.stop()
            assert set((await kafka.committed(name)).values()) == {0}
            records += sum(committed.values())
    return records
