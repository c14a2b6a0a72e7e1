"""Reading Kafka as an operator: by own assignment, without a group, never moving anybody's offsets."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from ops.cli.base import NO_STACK, CommandError
from shared.contracts import topics
from shared.messaging.broker import client_security, make_reader
from shared.settings import ClientSettings

Record: TypeAlias = "ConsumerRecord[Any, Any]"
TIMEOUT_MS: Final = 20_000
POLL_MS: Final = 200


@asynccontextmanager
async def reading(settings: ClientSettings) -> AsyncIterator[AIOKafkaConsumer]:
    """A reader that knows all topics. Raises CommandError when Kafka does not answer."""
    reader = make_reader(settings)
    try:
        await reader.start()
    except KafkaError as error:
        await reader.stop()
        raise _unreachable(settings, error) from None
    try:
        await reader.topics()  # fetches the metadata of all topics: partitions_for_topic answers from it
        yield reader
    finally:
        await reader.stop()


@asynccontextmanager
async def administering(settings: ClientSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client. Raises CommandError when Kafka does not answer."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka, request_timeout_ms=TIMEOUT_MS, **client_security(settings)
    )
    try:
        await admin.start()
    except KafkaError as error:
        await admin.close()
        raise _unreachable(settings, error) from None
    try:
        yield admin
    finally:
        await admin.close()


def _unreachable(settings: ClientSettings, error: KafkaError) -> CommandError:
    return CommandError(f"Kafka does not answer at {settings.kafka}: {error}", "Is it up? `yike status`", NO_STACK)


def partitions(reader: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """The partitions of `topic`; none when it does not exist."""
    return [TopicPartition(topic, number) for number in sorted(reader.partitions_for_topic(topic) or ())]


def partition_of(reader: AIOKafkaConsumer, topic: str, key: str) -> list[TopicPartition]:
    """The one partition in which every record of `key` lies, counted as all Kafka clients do."""
    existing = partitions(reader, topic)
    return [existing[(murmur2(key.encode()) & 0x7FFFFFFF) % len(existing)]] if existing else []


async def scan(
    reader: AIOKafkaConsumer, where: Iterable[TopicPartition], wanted: Callable[[Record], bool]
) -> list[Record]:
    """The `wanted` records of some partitions, from their beginning to what is their end now."""
    asked = list(where)
    if not asked:
        return []
    begins, ends = await reader.beginning_offsets(asked), await reader.end_offsets(asked)
    left = {partition for partition in asked if begins[partition] < ends[partition]}
    if not left:
        return []
    reader.assign(sorted(left))
    await reader.seek_to_beginning(*left)
    found: list[Record] = []
    while left:
        for partition, records in (await reader.getmany(*left, timeout_ms=POLL_MS)).items():
            found += [record for record in records if record.offset < ends[partition] and wanted(record)]
        left = {partition for partition in left if await reader.position(partition) < ends[partition]}
    return found


@dataclass(frozen=True)
class Lag:
    """What one consumer group has not read yet, by topic; `uncommitted` partitions it never committed."""

    group: str
    records: int
    by_topic: dict[str, int]
    uncommitted: int


async def lag_of(admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer, settings: ClientSettings, service: str) -> Lag:
    """The lag of one service: end of each partition less what the group committed, or less its beginning."""
    group = f"{settings.namespace}yike-{service}"
    committed = {
        partition: known.offset
        for partition, known in (await admin.list_consumer_group_offsets(group)).items()
        if known.offset >= 0
    }
    own = [settings.namespace + topic for topic in (topics.requests(service), topics.commands(service))]
    if service == "bank":
        own = [settings.namespace + topics.BANK_INSTRUCTIONS]
    never = [p for topic in own for p in partitions(reader, topic) if p not in committed]
    asked = [*committed, *never]
    ends = await reader.end_offsets(asked) if asked else {}
    begins = await reader.beginning_offsets(never) if never else {}
    by_topic: dict[str, int] = {}
    for partition, end in ends.items():
        waiting = end - committed.get(partition, begins.get(partition, 0))
        if waiting > 0:
            by_topic[partition.topic] = by_topic.get(partition.topic, 0) + waiting
    return Lag(group, sum(by_topic.values()), dict(sorted(by_topic.items())), len(never))
