"""All that can be seen of a stack from outside: six databases, all topics, the file of the SMS provider.

    await quiet(stack)            waits until nothing moves any more
    world = await look(stack)     sees everything at that moment

Nothing of the services' code runs here but `audit.check`: plain SQL and plain Kafka.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.protocol.group import LeaveGroupRequest

from ops.scenario import read_sms
from ops.stack_layout import PART_NAMES, Stack, topics_of
from services.escrow import audit
from shared.contracts.topics import TOPICS_BY_NAME

QUIET_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.05
PLANTED: Final = "yike-planted"
"""The header of a record that a fault has planted and nobody can read: it is none of the world's messages."""

Row = asyncpg.Record


# --- the outside --------------------------------------------------------------------------------------------------


class Record(NamedTuple):
    """One record of a topic. `id` is of the outbox row it came from, or of the message where a gateway wrote it."""

    topic: str
    partition: int
    offset: int
    key: str
    id: UUID
    type: str


class Kafka:
    """The broker as any client sees it; topics are named without the stack's namespace."""

    def __init__(self, stack: Stack, admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer) -> None:
        self._namespace = stack.site.namespace
        self._admin = admin
        self._reader = reader
        self._partitions = [
            TopicPartition(topic.name, partition)
            for topic in topics_of(stack.client_settings)
            for partition in range(topic.partitions)
        ]
        # Assigned at once: asked for offsets only, it would learn of one topic after the other, each with a pause.
        self._reader.assign(self._partitions)
        self._reader.pause(*self._partitions)

    def group(self, service: str) -> str:
        """The consumer group of a service."""
        return f"{self._namespace}yike-{service}"

    async def ends(self) -> dict[TopicPartition, int]:
        """The end of every partition."""
        found: dict[TopicPartition, int] = await self._reader.end_offsets(self._partitions)
        return found

    async def members(self, service: str) -> tuple[str, dict[str, list[TopicPartition]]]:
        """The state of a service's group, and the partitions each member of it was given."""
        described = await self._admin.describe_consumer_groups([self.group(service)])
        _error, _group, state, _type, _protocol, members, *_ = described[0].groups[0]
        given = {}
        for member_id, _client, _host, _metadata, assignment, *_ in members:
            decoded = ConsumerProtocolMemberAssignment.decode(assignment).assignment if assignment else ()
            given[member_id] = [TopicPartition(topic, partition) for topic, some in decoded for partition in some]
        return state, given

    async def committed(self, service: str) -> dict[TopicPartition, int]:
        """What a service's group has committed; partitions it never committed are left out."""
        found = await self._admin.list_consumer_group_offsets(self.group(service))
        return {partition: known.offset for partition, known in found.items() if known.offset >= 0}

    async def expel(self, service: str, member_id: str) -> None:
        """Says for a member that is dead what it would have said itself: that it leaves its group."""
        group = self.group(service)
        coordinator = await self._admin.find_coordinator(group)
        await self._admin._send_request(LeaveGroupRequest(group, member_id), coordinator)

    async def lag(self, ends: Mapping[TopicPartition, int]) -> list[str]:
        """Who has not read what up to `ends`, or does not read at all."""
        found: list[str] = []
        for service in PART_NAMES:
            (state, members), committed = await self.members(service), await self.committed(service)
            given = {partition for some in members.values() for partition in some}
            if state != "Stable" or not given:
                found.append(f"{service}: its group is {state} with {len(given)} partitions")
            for partition in given | committed.keys():
                behind = ends[partition] - committed.get(partition, 0)
                if behind:
                    found.append(f"{service}: {behind} records behind in {partition.topic}/{partition.partition}")
        return found

    async def records(self) -> list[Record]:
        """Every message on every topic, partition by partition in the order of offsets; to be asked once."""
        raw = await self.raw_records()
        return sorted(self._record(one) for one in raw if all(name != PLANTED for name, _ in one.headers))

    async def raw_records(self) -> list[Any]:
        """All there is, as aiokafka has it; to be asked once."""
        ends = {partition: end for partition, end in (await self.ends()).items() if end}
        found: list[Any] = []
        left = set(ends)
        self._reader.resume(*left)
        while left:
            for some in (await self._reader.getmany(*left, timeout_ms=200)).values():
                found += some
            left = {partition for partition in left if await self._reader.position(partition) < ends[partition]}
        self._reader.pause(*ends)
        return found

    def _record(self, record: Any) -> Record:
        headers = dict(record.headers)
        if "ce_id" in headers:
            id_, type_ = headers["ce_id"].decode(), headers["ce_type"].decode()
        else:
            envelope = json.loads(record.value)
            id_, type_ = envelope["id"], envelope["type"]
        topic = record.topic.removeprefix(self._namespace)
        return Record(topic, record.partition, record.offset, (record.key or b"").decode(), UUID(id_), type_)


@asynccontextmanager
async def kafka_of(stack: Stack) -> AsyncIterator[Kafka]:
    """The stack's Kafka."""
    admin = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    reader = AIOKafkaConsumer(bootstrap_servers=stack.kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await admin.start()
    try:
        await reader.start()
        try:
            yield Kafka(stack, admin, reader)
        finally:
            await reader.stop()
    finally:
        await admin.close()


Databases = Mapping[str, "asyncpg.Connection[Row]"]


@asynccontextmanager
async def databases_of(stack: Stack) -> AsyncIterator[Databases]:
    """A connection to each service's database."""
    async with AsyncExitStack() as closing:
        opened: dict[str, asyncpg.Connection[Row]] = {}
        for service in PART_NAMES:
            opened[service] = await asyncpg.connect(stack.dsn(service))
            closing.push_async_callback(opened[service].close)
        yield opened


# --- quiet --------------------------------------------------------------------------------------------------------

UNSENT: Final = "SELECT count(*) FROM unsent"
_DUE: Final = "SELECT count(*) FROM timers WHERE due_at <= yike_now()"
_SMS_UNDER_WAY: Final = """
SELECT count(*) FROM sms WHERE state = 'sending' OR (state = 'queued' AND not_before <= yike_now())
"""


async def quiet(stack: Stack, *, timeout_s: float = QUIET_S) -> None:
    """Waits until nothing moves: all records handled, outboxes empty, no timer and no SMS due. AssertionError if never.

    What a record leads to is in the outbox when its offset is committed, and on a topic before it is marked as sent:
    so no lag, empty outboxes, and no topic that grew while we looked, are the end of it.
    """
    deadline = time.monotonic() + timeout_s
    async with kafka_of(stack) as kafka, databases_of(stack) as databases:
        while True:
            before = await kafka.ends()
            moving = [*await kafka.lag(before), *await _under_way(databases)]
            if not moving and await kafka.ends() == before:
                return
            assert time.monotonic() < deadline, f"not quiet after {timeout_s:g} s: {moving}"
            await asyncio.sleep(LOOK_AGAIN_S)


async def _under_way(databases: Databases) -> list[str]:
    asked = [(service, what, sql) for service in databases for what, sql in (("unsent", UNSENT), ("due", _DUE))]
    asked.append(("notify", "SMS under way", _SMS_UNDER_WAY))
    counts = [(service, what, await databases[service].fetchval(sql)) for service, what, sql in asked]
    return [f"{service}: {count} {what}" for service, what, count in counts if count]


# --- the world ----------------------------------------------------------------------------------------------------

TABLES: Final = {
    "catalog": ("courses", "reservations"),
    "orders": ("purchases", "lessons", "objections", "refunds", "wind_ups"),
    "escrow": ("accounts", "instructions", "transfers", "suspense", "suspensions", "settlements", "gathered"),
    "complaints": ("orders", "filings", "steps"),
    "notify": ("sms",),
    "bank": ("accounts", "entries"),
}
SAID: Final = """
SELECT seq, id, topic, key, partition, type, body, NOT EXISTS (SELECT FROM unsent u WHERE u.seq = o.seq) AS sent
FROM outbox o ORDER BY seq
"""
_DEADLOCKS: Final = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@dataclass(frozen=True)
class World:
    """All that can be seen at one quiet moment. `tables["escrow.accounts"]` are rows."""

    now: datetime
    audit: audit.AuditReport
    tables: Mapping[str, Sequence[Row]]
    said: Mapping[str, Sequence[Row]]
    """The outbox of each service, in the order of `seq`."""
    heard: Mapping[str, frozenset[UUID]]
    """The inbox of each service."""
    timers: Mapping[str, Sequence[Row]]
    records: Sequence[Record]
    lag: Sequence[str]
    deadlocks: Mapping[str, int]
    """How many each database has seen."""
    sms: Sequence[Mapping[str, str]]
    """The lines of the provider's file."""

    def events(self, service: str, type_: str) -> list[dict[str, Any]]:
        """The data of each event of one type that a service has said."""
        return [json.loads(row["body"])["data"] for row in self.said[service] if row["type"] == type_]


async def look(stack: Stack) -> World:
    """Sees everything. Only what is quiet gives one picture."""
    async with kafka_of(stack) as kafka, databases_of(stack) as databases:
        now = await databases["escrow"].fetchval("SELECT yike_now()")
        tables = {
            f"{service}.{table}": await databases[service].fetch(f"SELECT * FROM {table}")
            for service, names in TABLES.items()
            for table in names
        }
        said = {name: await one.fetch(SAID) for name, one in databases.items()}
        deadlocks = {name: await one.fetchval(_DEADLOCKS) for name, one in databases.items()}
        inboxes = {name: await one.fetch("SELECT message_id FROM inbox") for name, one in databases.items()}
        timers = {name: await one.fetch("SELECT type, subject, due_at FROM timers") for name, one in databases.items()}
        return World(
            now=now,
            audit=await audit.check(stack.dsn("escrow")),
            tables=tables,
            said=said,
            heard={name: frozenset(row["message_id"] for row in rows) for name, rows in inboxes.items()},
            timers=timers,
            records=await kafka.records(),
            lag=await kafka.lag(await kafka.ends()),
            deadlocks=deadlocks,
            sms=read_sms(stack.sms_file),
        )


def is_answer(row: Row) -> bool:
    """Whether a row of an outbox answers something. Only answers are said again."""
    return TOPICS_BY_NAME[row["topic"]].kind.endswith("replies")
