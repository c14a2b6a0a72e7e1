"""I10: everybody reads the whole history once more, as after `kafka-consumer-groups --reset-offsets`: no change."""

import asyncio
import json
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from aiokafka import AIOKafkaConsumer

from ops.scenario import read_sms
from ops.stack_layout import PART_NAMES, Stack
from tests.faults.world import SAID, Row, databases_of, is_answer, kafka_of, quiet

LOOK_S: Final = 0.05
QUIET_S: Final = 120.0
NOT_COMPARED: Final = ("outbox", "unsent", "timers", "alembic_version")
"""What is said again is looked at by itself; timers carry how often they were set."""

_TABLES: Final = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND NOT tablename = ANY($1) ORDER BY 1"

Dump = dict[str, list[str]]


async def replay(stack: Stack, *, requests_lost: bool = False) -> list[str]:
    """Reads everything again; the places where that changed something, or said something new. Call it when the stack is
    quiet. It is quiet again at the end. `requests_lost`: what gateways had asked is not on the topics any more."""
    # The sender of SMS keeps house when it starts; after the clock was moved there is something to purge.
    await stack.restart("notify")
    await quiet(stack)
    await asyncio.gather(*(stack.halt(name) for name in PART_NAMES))
    before, said, sms = await _dump(stack), await _said(stack), read_sms(stack.sms_file)
    records = await _rewind(stack)
    await asyncio.gather(*(stack.resume(name) for name in PART_NAMES))
    await quiet(stack, timeout_s=QUIET_S)
    after = await _dump(stack)
    found = [] if records > len(sms) else ["nothing was read again"]
    for table, rows in before.items():
        found += [f"{table}: {row}" for row in sorted({*rows} ^ {*after[table]})]
    if read_sms(stack.sms_file) != sms:
        found.append(f"{len(read_sms(stack.sms_file)) - len(sms)} SMS went out again")
    for service, rows_after in (await _said(stack)).items():
        again = rows_after[len(said[service]) :]
        found += _new_words(service, said[service], again)
        if not requests_lost:
            found += _silence(service, said[service], again)
    return found


async def _dump(stack: Stack) -> Dump:
    """Every row of every business table, and which messages each inbox knows, with the answer it gave."""
    found: Dump = {}
    async with databases_of(stack) as databases:
        for service, connection in databases.items():
            for name in [row["tablename"] for row in await connection.fetch(_TABLES, NOT_COMPARED)]:
                rows = await connection.fetch(f'SELECT t::text FROM "{name}" t ORDER BY 1')
                found[f"{service}.{name}"] = [row["t"] for row in rows]
    return found


async def _said(stack: Stack) -> dict[str, list[Row]]:
    async with databases_of(stack) as databases:
        return {service: await connection.fetch(SAID) for service, connection in databases.items()}


def _answers(rows: list[Row]) -> dict[UUID, Row]:
    """That an id was used for something else is said each time anew."""
    return {row["id"]: row for row in rows if is_answer(row) and _data(row).get("code") != "idempotency_conflict"}


def _new_words(service: str, before: list[Row], again: list[Row]) -> Iterator[str]:
    """What is new in an outbox may only be answers given before, to the letter of what they say."""
    answers = _answers(before)
    for row in again:
        first = answers.get(row["id"], row)
        if (row["topic"], row["type"], _data(row)) != (first["topic"], first["type"], _data(first)):
            yield f"{service} said another answer {row['id']}"
        elif first is row and _data(row).get("code") != "idempotency_conflict":
            yield f"{service} said {row['type']} {row['id']}"


def _silence(service: str, before: list[Row], again: list[Row]) -> Iterator[str]:
    """Every answer must have been given again."""
    for id_ in _answers(before).keys() - _answers(again).keys():
        yield f"{service} did not say its answer {id_} again"


def _data(row: Row) -> dict[str, object]:
    data: dict[str, object] = json.loads(row["body"])["data"]
    return data


async def _rewind(stack: Stack) -> int:
    """Sets every offset that any group has committed back to the first there is, as a plain consumer of that group; how
    many records will be read again."""
    records = 0
    async with kafka_of(stack) as kafka:
        for name in PART_NAMES:
            while (await kafka.members(name))[1]:
                await asyncio.sleep(LOOK_S)
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
            records += sum(committed.values())
    return records
