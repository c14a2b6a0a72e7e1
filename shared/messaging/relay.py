"""The relay: publishes the outbox. One leader per service; rows in id order per key; at least once.

A round takes unsent rows in order and packs them, partition by partition, into record batches. A batch is published
whole or not at all, and a partition's next batch goes only after the one before: so a failed send stops that partition
(and every key in it) and nothing else. What was published is marked in one DELETE. A crash in between publishes twice;
the inboxes make that harmless.

An idempotent producer tries a batch again for ever, so no round waits for all of its partitions: what is not
acknowledged soon stays under way while later rounds pass its partition over. A partition (or a topic that does not
exist) whose send failed rests, longer each time, and is passed over too.
"""

import asyncio
import functools
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from shared.database import Connection, Database, is_passing
from shared.messaging import metrics
from shared.messaging.broker import make_producer, stop_producer
from shared.messaging.crash import crash_point
from shared.messaging.outbox import CHANNEL, OLDEST
from shared.settings import Settings

log = structlog.get_logger()

POLL_S: Final = 0.5
"""The safety net: the outbox is looked at so often even when nobody wakes the relay."""
ROUND_S: Final = 0.01
"""Shortest time between the beginnings of two rounds that empty the outbox."""
FOLLOWER_POLL_S: Final = 1.0
PATIENCE_S: Final = 0.25
"""A round waits so long for its acknowledgements; a partition that is slower keeps no other one waiting."""
UNLOCK_TIMEOUT_S: Final = 1.0
LOOK_UP_TIMEOUT_S: Final = 0.5
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
LOCK_KEY: Final = 0x79696B65
"""Advisory lock of the leader; each service has its own database, so one number does for all."""

# No join: whatever the statistics say, the few that wait are looked up, and never all rows of the outbox.
_UNSENT: Final = """
SELECT seq, id, topic, key, partition, type, correlationid, replyto, traceparent, body FROM outbox
WHERE seq = ANY(ARRAY(SELECT seq FROM unsent WHERE seq > $1 ORDER BY seq LIMIT $2)) ORDER BY seq
"""
_MARK: Final = "DELETE FROM unsent WHERE seq = ANY($1::bigint[])"

Place = tuple[str, int]
"""Topic and partition; `NOWHERE` where the topic of a row that is placed by its key is not known (yet)."""
NOWHERE: Final = -1


class _NotThereError(Exception):
    """The topic or the partition does not exist: its rows wait, and the producer is none the worse for it."""


@dataclass(slots=True)
class _UnderWay:
    """What one leadership has begun. `after` is where the next round begins to look: not 0 only while a whole window
    of rows has to be passed over, and 0 again as soon as one of `passed_over` is free. Never to save looking: a
    transaction that took its numbers early and commits late would have its rows overtaken by later ones of its keys."""

    sends: dict[Place, asyncio.Task[bool]] = field(default_factory=dict)
    acknowledged: list[int] = field(default_factory=list)
    passed_over: set[Place] = field(default_factory=set)
    after: int = 0


class Relay:
    """Publishes the outbox of one service while this copy is the leader."""

    def __init__(self, settings: Settings, service: str, database: Database) -> None:
        self.settings = settings
        self.service = service
        self.database = database
        self.leading = False
        self._woken = asyncio.Event()
        self._notifying: asyncio.Task[None] | None = None
        self._notify_again = False
        self._pause = FIRST_PAUSE_S
        self._rests: dict[Place, tuple[float, float]] = {}  # until when (loop time), and how long

    # --- waking -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Says that rows were committed. In the leader it is an event; another copy tells the leader by NOTIFY.

        The NOTIFY goes after the commit, in a transaction of its own: inside, it would make every commit of the
        server queue behind one lock (docs/adr/0003). Should it be lost, the poll finds the rows.
        """
        if self.leading:
            self._woken.set()
            return
        self._notify_again = True
        if self._notifying is None or self._notifying.done():
            self._notifying = asyncio.create_task(self._notify())

    async def _notify(self) -> None:
        try:
            while self._notify_again:  # what was committed while one was under way needs another
                self._notify_again = False
                async with self.database.engine.begin() as connection:
                    await connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
        except Exception as error:  # the poll is the safety net; anything but a passing fault is a bug and is shown
            if not is_passing(error):
                raise
            log.info("notify failed, the poll will find the rows", service=self.service, error=str(error)[:200])

    # --- leading ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Leads whenever it can, until cancelled."""
        while True:
            try:
                connection = await self.database.connect()
                try:
                    # A mark that is lost with the server: a message goes out twice, and the inboxes are for that.
                    await connection.execute("SET synchronous_commit = off")
                    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK_KEY):
                        await asyncio.sleep(FOLLOWER_POLL_S)
                    await self._lead(connection)
                finally:
                    self._set_leading(False)
                    await self._hand_over(connection)
            except Exception as error:
                if not isinstance(error, KafkaError) and not is_passing(error):
                    raise
                log.warning("relay starts again", service=self.service, error=repr(error)[:300], pause_s=self._pause)
                await asyncio.sleep(self._pause)
                self._pause = min(self._pause * 2, LONGEST_PAUSE_S)

    async def _hand_over(self, connection: Connection) -> None:
        # Said, so that whoever leads next need not wait until the server sees that the session has ended.
        with suppress(Exception):
            async with asyncio.timeout(UNLOCK_TIMEOUT_S):
                await connection.execute("SELECT pg_advisory_unlock_all()")
        connection.terminate()  # ends the session, and with it the lock

    def _set_leading(self, leading: bool) -> None:
        self.leading = leading
        metrics.LEADER.labels(self.service).set(leading)

    async def _lead(self, connection: Connection) -> None:
        await connection.add_listener(CHANNEL, lambda *_: self._woken.set())
        # A new producer for each leadership: after a fatal error an old one stays broken (aiokafka issue 1017).
        producer = make_producer(self.settings, self.service)
        way = _UnderWay()
        try:
            await producer.start()
            self._set_leading(True)
            self._pause = FIRST_PAUSE_S
            log.info("relay leads", service=self.service)
            while True:
                self._woken.clear()
                began = time.perf_counter()
                if not await self._round(connection, producer, way):
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), POLL_S)
                    # Under load fewer, larger rounds; idle, the wait above was longer than this.
                    if (early := ROUND_S - (time.perf_counter() - began)) > 0:
                        await asyncio.sleep(early)
        finally:
            for send in way.sends.values():
                send.cancel()
            await stop_producer(producer)

    async def _round(self, connection: Connection, producer: AIOKafkaProducer, way: _UnderWay) -> bool:
        """Publishes and marks one round; returns whether there may be more."""
        if not all(self._is_busy(place, way) for place in way.passed_over):
            way.after, way.passed_over = 0, set()
        limit = self.settings.relay_rows
        clock = time.perf_counter()
        rows = await connection.fetch(_UNSENT, way.after, limit)
        if rows:
            clock = self._stage("relay_read", clock)
        by_place: dict[Place, list[Any]] = {}
        for row in rows:
            by_place.setdefault(self._place(producer, row), []).append(row)
        begun: list[asyncio.Task[bool]] = []
        for place, part in by_place.items():
            # What was passed over stays so until the rows are looked at from the first again, even if free by now or
            # its topic known: later rows must not go before earlier ones.
            if {place, (place[0], NOWHERE)} & way.passed_over or self._is_busy(place, way):
                way.passed_over.add(place)
            else:
                way.sends[place] = asyncio.create_task(self._publish(producer, place, part, way.acknowledged))
                begun.append(way.sends[place])
        if begun:
            _, slow = await asyncio.wait(begun, timeout=PATIENCE_S)
            self._stage("relay_send", clock)
            for send in slow:
                send.add_done_callback(lambda _: self._woken.set())
        await self._settle(connection, way)
        full = len(rows) == limit
        if way.passed_over:
            if full:
                way.after = rows[-1]["seq"]
            metrics.OUTBOX_AGE.labels(self.service).set(await connection.fetchval(OLDEST) or 0.0)
        elif not rows:
            metrics.OUTBOX_AGE.labels(self.service).set(0)
        return full

    async def _settle(self, connection: Connection, way: _UnderWay) -> None:
        """Marks what was acknowledged and lets rest what failed. Raises a failure: its producer is out of sequence."""
        ended = {place: send for place, send in way.sends.items() if send.done()}
        if way.acknowledged:
            crash_point("send")
            seqs, way.acknowledged[:] = list(way.acknowledged), []
            clock = time.perf_counter()
            await connection.execute(_MARK, seqs)
            self._stage("relay_mark", clock)
            crash_point("mark")
            metrics.RELAYED.labels(self.service).inc(len(seqs))
        failures: list[BaseException] = []
        for place, send in ended.items():
            del way.sends[place]
            error = send.exception()
            if error is None:
                self._rests.pop(place, None)
                if not send.result():
                    self._woken.set()  # it was looked up only: its rows can go now
                continue
            self._rest(place, error)
            if not isinstance(error, _NotThereError):
                failures.append(error)
        if failures:
            raise failures[0]

    def _stage(self, stage: str, since: float) -> float:
        now = time.perf_counter()
        metrics.STAGE_SECONDS.labels(self.service, stage).observe(now - since)
        return now

    def _is_busy(self, place: Place, way: _UnderWay) -> bool:
        """Whether rows for `place` have to wait: for those before them, or for the end of its rest."""
        rest = self._rests.get(place)
        return place in way.sends or (rest is not None and asyncio.get_running_loop().time() < rest[0])

    def _rest(self, place: Place, error: BaseException) -> None:
        pause = min(2 * self._rests[place][1], LONGEST_PAUSE_S) if place in self._rests else FIRST_PAUSE_S
        self._rests[place] = asyncio.get_running_loop().time() + pause, pause
        log.warning(
            "a partition rests",
            service=self.service,
            topic=place[0],
            partition=place[1],
            error=repr(error),
            pause_s=pause,
        )

    def _place(self, producer: AIOKafkaProducer, row: Any) -> Place:
        """Topic and partition of a row: as asked for, else by the key's murmur2, as every Kafka client counts it."""
        topic = self.settings.namespace + row["topic"]
        if row["partition"] is not None:
            return topic, row["partition"]
        known = producer.client.cluster.partitions_for_topic(topic)
        if not known:
            return topic, NOWHERE
        return topic, _hash(row["key"]) % len(known)

    async def _publish(
        self, producer: AIOKafkaProducer, place: Place, rows: Sequence[Any], acknowledged: list[int]
    ) -> bool:
        """Publishes the rows of one partition in order, batch after batch, and notes each that is acknowledged.

        False: topic or partition was not known and has only been looked up; the next round publishes. Raises
        _NotThereError when it is not there.
        """
        topic, partition = place
        if partition not in (producer.client.cluster.partitions_for_topic(topic) or ()):
            try:
                # The producer would ask for a missing topic 20 times a second.
                async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                    known = await producer.partitions_for(topic)
            except (KafkaError, TimeoutError) as error:
                raise _NotThereError(f"{topic}: {error!r}") from error
            if partition != NOWHERE and partition not in known:
                raise _NotThereError(f"{topic} has only the partitions {sorted(known)}")
            return False
        position = 0
        now_ms = int(time.time() * 1000)
        while position < len(rows):
            batch = producer.create_batch()
            packed: list[int] = []
            while position < len(rows):
                row = rows[position]
                key, value = row["key"].encode(), row["body"].encode()
                if batch.append(key=key, value=value, timestamp=now_ms, headers=_headers(row)) is None:
                    break
                packed.append(row["seq"])
                position += 1
            batch.close()
            delivered = await producer.send_batch(batch, topic, partition=partition)
            await delivered
            acknowledged += packed
        return True


@functools.lru_cache(4096)
def _hash(key: str) -> int:
    """As every Kafka client counts it. Kept, for one order has several rows in a round."""
    return int(murmur2(key.encode()) & 0x7FFFFFFF)


def _headers(row: Any) -> list[tuple[str, bytes]]:
    """Copies for tools; the body is the truth."""
    headers = [
        ("content-type", b"application/cloudevents+json"),
        ("ce_id", str(row["id"]).encode()),
        ("ce_type", row["type"].encode()),
        ("correlation_id", str(row["correlationid"]).encode()),
        ("traceparent", row["traceparent"].encode()),
    ]
    if row["replyto"]:
        headers.append(("reply_to", row["replyto"].encode()))
    return headers
