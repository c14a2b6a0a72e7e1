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


class Kafka:
    """What an operator may know of one cluster. Made by `looking`."""

    def __init__(
        self,
        settings: ClientSettings,
        admin: AIOKafkaAdminClient,
        reader: AIOKafkaConsumer,
        partitions: dict[str, list[TopicPartition]],
    ) -> None:
        self._settings = settings
        self._admin = admin
        self._reader = reader
        self._partitions = partitions

    def partitions(self, topic: str) -> list[TopicPartition]:
        """The partitions of `topic`; none when it does not exist."""
        return self._partitions.get(topic, [])

    def partition_of(self, topic: str, key: str) -> list[TopicPartition]:
        """The one partition in which every record of `key` lies, counted as all Kafka clients do."""
        existing = self.partitions(topic)
        return [existing[(murmur2(key.encode()) & 0x7FFFFFFF) % len(existing)]] if existing else []

    async def bounds(self, where: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """First and next offset of some partitions."""
        asked = list(where)
        if not asked:
            return {}
        begins, ends = await self._reader.beginning_offsets(asked), await self._reader.end_offsets(asked)
        return {partition: (begins[partition], ends[partition]) for partition in asked}

    async def scan(self, where: Iterable[TopicPartition], wanted: Callable[[Record], bool]) -> list[Record]:
        """The `wanted` records of some partitions, from their beginning to what is their end now."""
        ends = {place: end for place, (begin, end) in (await self.bounds(where)).items() if begin < end}
        left = set(ends)
        if not left:
            return []
        self._reader.assign(sorted(left))
        await self._reader.seek_to_beginning(*left)
        found: list[Record] = []
        while left:
            for place, records in (await self._reader.getmany(*left, timeout_ms=POLL_MS)).items():
                found += [record for record in records if record.offset < ends[place] and wanted(record)]
            left = {place for place in left if await self._reader.position(place) < ends[place]}
        return found

    async def lag(self, service: str) -> "Lag":
        """The lag of one service: the end of each partition less what its group committed, or less its beginning."""
        group = f"{self._settings.namespace}yike-{service}"
        offsets = await self._admin.list_consumer_group_offsets(group)
        committed = {place: known.offset for place, known in offsets.items() if known.offset >= 0}
        # What it must hear in any case, even if it has not committed anything there yet.
        own = [topics.BANK_INSTRUCTIONS] if service == "bank" else [topics.requests(service), topics.commands(service)]
        never = [p for topic in own for p in self.partitions(self._settings.namespace + topic) if p not in committed]
        by_topic: dict[str, int] = {}
        for place, (begin, end) in (await self.bounds([*committed, *never])).items():
            waiting = end - committed.get(place, begin)
            if waiting > 0:
                by_topic[place.topic] = by_topic.get(place.topic, 0) + waiting
        return Lag(group, sum(by_topic.values()), dict(sorted(by_topic.items())), len(never))


@dataclass(frozen=True)
class Lag:
    """What one consumer group has not read yet, by topic; `uncommitted`: partitions it never committed."""

    group: str
    records: int
    by_topic: dict[str, int]
    uncommitted: int


@asynccontextmanager
async def looking(settings: ClientSettings) -> AsyncIterator[Kafka]:
    """Opens the cluster of `settings`. Raises CommandError when it does not answer."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka, request_timeout_ms=TIMEOUT_MS, **client_security(settings)
    )
    reader = make_reader(settings)
    try:
        try:
            await admin.start()
            await reader.start()
            described = await admin.describe_topics()
        except KafkaError as error:
            what = f"Kafka does not answer at {settings.kafka}: {error}"
            raise CommandError(what, "Is it up? `yike up` starts it.", NO_STACK) from None
        partitions = {
            topic["topic"]: [
                TopicPartition(topic["topic"], n) for n in sorted(p["partition"] for p in topic["partitions"])
            ]
            for topic in described
        }
        yield Kafka(settings, admin, reader, partitions)
    finally:
        await reader.stop()
        await admin.close()
