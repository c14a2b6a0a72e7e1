"""The relay: publishes the outbox. One leader per service; rows in id order per key; at least once.

A round takes unsent rows in order and packs them, partition by partition, into record batches. A batch is published
whole or not at all, and a partition's next batch goes only after the one before: so a failed send stops that partition
(and every key in it) and nothing else. What was published is marked in one UPDATE. A crash in between publishes twice;
the inboxes make that harmless.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.database import Database, is_passing
from shared.messaging import metrics
from shared.messaging.broker import make_producer
from shared.messaging.crash import crash_point
from shared.messaging.outbox import CHANNEL
from shared.settings import Settings

log = structlog.get_logger()

POLL_S: Final = 0.5
"""The safety net: the outbox is looked at so often even when nobody wakes the relay."""
FOLLOWER_POLL_S: Final = 1.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
LOCK_KEY: Final = 0x79696B65
"""Advisory lock of the leader; each service has its own database, so one number does for all."""

_TRY_LOCK: Final = text("SELECT pg_try_advisory_lock(:key)")
_UNSENT: Final = text("""
SELECT seq, id, topic, key, partition, type, correlationid, replyto, traceparent, body FROM outbox
WHERE sent_at IS NULL ORDER BY seq LIMIT :rows
""")
_MARK: Final = text("UPDATE outbox SET sent_at = yike_now() WHERE seq = ANY(CAST(:seqs AS bigint[]))")
_OLDEST: Final = text("""
SELECT coalesce(extract(epoch FROM yike_now() - min(created_at)), 0)::float8
FROM (SELECT created_at FROM outbox WHERE sent_at IS NULL ORDER BY seq LIMIT 1) oldest
""")
_NOTIFY: Final = text(f"NOTIFY {CHANNEL}")


class Relay:
    """Publishes the outbox of one service while this copy is the leader."""

    def __init__(self, settings: Settings, service: str, database: Database) -> None:
        self.settings = settings
        self.service = service
        self.database = database
        self.leading = False
        self._woken = asyncio.Event()
        self._notifying: asyncio.Task[None] | None = None

    # --- waking -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Says that rows were committed. In the leader it is an event; another copy tells the leader by NOTIFY.

        The NOTIFY goes after the commit, in a transaction of its own: inside, it would make every commit of the
        server queue behind one lock (docs/adr/0003). Should it be lost, the poll finds the rows.
        """
        if self.leading:
            self._woken.set()
        elif self._notifying is None or self._notifying.done():
            self._notifying = asyncio.create_task(self._notify())

    async def _notify(self) -> None:
        try:
            async with self.database.engine.begin() as connection:
                await connection.execute(_NOTIFY)
        except Exception as error:  # the poll is the safety net; anything but a passing fault is a bug and is shown
            if not is_passing(error):
                raise
            log.info("notify failed, the poll will find the rows", service=self.service, error=str(error)[:200])

    # --- leading ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Leads whenever it can, until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with self.database.engine.connect() as connection:
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
                    while not (await connection.execute(_TRY_LOCK, {"key": LOCK_KEY})).scalar_one():
                        await asyncio.sleep(FOLLOWER_POLL_S)
                    pause = FIRST_PAUSE_S
                    try:
                        await self._lead(connection)
                    finally:
                        self._set_leading(False)
                        await connection.invalidate()  # closes the session, and with it the lock
            except Exception as error:
                if not isinstance(error, KafkaError) and not is_passing(error):
                    raise
                log.warning("relay starts again", service=self.service, error=repr(error)[:300], pause_s=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)

    def _set_leading(self, leading: bool) -> None:
        self.leading = leading
        metrics.LEADER.labels(self.service).set(leading)

    async def _lead(self, connection: AsyncConnection) -> None:
        raw = (await connection.get_raw_connection()).driver_connection
        assert raw is not None
        await raw.add_listener(CHANNEL, lambda *_: self._woken.set())
        # A new producer for each leadership: after a fatal error an old one stays broken (aiokafka issue 1017).
        producer = make_producer(self.settings, self.service)
        await producer.start()
        try:
            self._set_leading(True)
            log.info("relay leads", service=self.service)
            while True:
                self._woken.clear()
                sent, full = await self._round(connection, producer)
                if full:
                    continue
                if not sent:
                    metrics.OUTBOX_AGE.labels(self.service).set(0)
                try:
                    await asyncio.wait_for(self._woken.wait(), POLL_S)
                except TimeoutError:
                    continue
        finally:
            await producer.stop()

    async def _round(self, connection: AsyncConnection, producer: AIOKafkaProducer) -> tuple[int, bool]:
        """Publishes and marks one round; returns how many rows, and whether there may be more."""
        rows = (await connection.execute(_UNSENT, {"rows": self.settings.relay_rows})).all()
        if not rows:
            return 0, False
        by_partition: dict[tuple[str, int], list[Any]] = {}
        for row in rows:
            by_partition.setdefault(await self._partition(producer, row), []).append(row)
        sent: list[int] = []
        failures = await asyncio.gather(
            *(
                self._publish(producer, topic, partition, part, sent)
                for (topic, partition), part in by_partition.items()
            ),
            return_exceptions=True,
        )
        crash_point("send")
        if sent:
            await connection.execute(_MARK, {"seqs": sent})
            crash_point("mark")
            metrics.RELAYED.labels(self.service).inc(len(sent))
        failure = next((f for f in failures if f is not None), None)
        if failure is not None:
            metrics.OUTBOX_AGE.labels(self.service).set((await connection.execute(_OLDEST)).scalar() or 0.0)
            raise failure
        return len(sent), len(rows) == self.settings.relay_rows

    async def _partition(self, producer: AIOKafkaProducer, row: Any) -> tuple[str, int]:
        """Topic and partition of a row: as asked for, else by the key's murmur2, as every Kafka client counts it."""
        topic = self.settings.namespace + row.topic
        if row.partition is not None:
            return topic, row.partition
        partitions = await producer.partitions_for(topic)
        return topic, (murmur2(row.key.encode()) & 0x7FFFFFFF) % len(partitions)

    async def _publish(
        self, producer: AIOKafkaProducer, topic: str, partition: int, rows: Sequence[Any], sent: list[int]
    ) -> None:
        """Publishes the rows of one partition in order, batch after batch, and notes each that is acknowledged."""
        position = 0
        now_ms = int(time.time() * 1000)
        while position < len(rows):
            batch = producer.create_batch()
            packed: list[int] = []
            while position < len(rows):
                row = rows[position]
                key, value = row.key.encode(), row.body.encode()
                if batch.append(key=key, value=value, timestamp=now_ms, headers=_headers(row)) is None:
                    break
                packed.append(row.seq)
                position += 1
            batch.close()
            delivered = await producer.send_batch(batch, topic, partition=partition)
            await delivered
            sent += packed


def _headers(row: Any) -> list[tuple[str, bytes]]:
    """Copies for tools; the body is the truth."""
    headers = [
        ("content-type", b"application/cloudevents+json"),
        ("ce_id", str(row.id).encode()),
        ("ce_type", row.type.encode()),
        ("correlation_id", str(row.correlationid).encode()),
        ("traceparent", row.traceparent.encode()),
    ]
    if row.replyto:
        headers.append(("reply_to", row.replyto.encode()))
    return headers
