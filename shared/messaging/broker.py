"""Kafka as Yike uses it: every option that touches delivery is written out here and nowhere else."""

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, ProducerClosed
from aiokafka.helpers import create_ssl_context
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.message import KafkaAckableMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber
from faststream.security import BaseSecurity, SASLScram512

from shared.messaging import metrics
from shared.messaging.crash import crash_point
from shared.messaging.progress import EXIT_STATUS
from shared.settings import ClientSettings, Settings

log = structlog.get_logger()

POLL_WAIT_MS: Final = 200
"""A poll ends with the first record; one that brings none only tells whether the service is to stop."""
FETCH_WAIT_MS: Final = 100
"""A fetch ends with the first record; one that brings none is what an idle service costs the broker. It is also what a
busy one may wait: aiokafka has one fetch under way for all of a broker's partitions, and what was drained while a batch
took its time is asked for again only when that fetch is back."""
BUSY_WINDOW_S: Final = 1.0
BUSY_RECORDS: Final = 100
"""Who hears half as many records every second is under load: the window before counts by half."""
GRACEFUL_TIMEOUT_S: Final = 30.0
PRODUCER_STOP_S: Final = 2.0
MAX_REQUEST_BYTES: Final = 1024 * 1024
PRODUCER_BATCH_BYTES: Final = 256 * 1024


def security(settings: ClientSettings) -> BaseSecurity | None:
    """FastStream's security for these settings: SASL/SCRAM-SHA-512 and TLS, each if configured."""
    context: ssl.SSLContext | None = create_ssl_context() if settings.kafka_tls else None
    if settings.kafka_username:
        return SASLScram512(
            settings.kafka_username, settings.kafka_password, ssl_context=context, use_ssl=settings.kafka_tls
        )
    return BaseSecurity(ssl_context=context, use_ssl=True) if context else None


def client_security(settings: ClientSettings) -> dict[str, Any]:
    """The same for a bare aiokafka client."""
    options: dict[str, Any] = {}
    if settings.kafka_tls:
        options["ssl_context"] = create_ssl_context()
    if settings.kafka_username:
        options |= {
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": settings.kafka_username,
            "sasl_plain_password": settings.kafka_password,
        }
    tls, sasl = settings.kafka_tls, bool(settings.kafka_username)
    options["security_protocol"] = ("SASL_" if sasl else "") + ("SSL" if tls else "PLAINTEXT")
    return options


def make_broker(settings: Settings, service: str) -> KafkaBroker:
    """The FastStream broker of a service. Its producer is never used: everything goes through the outbox."""
    return KafkaBroker(
        settings.kafka,
        client_id=f"yike-{service}",
        request_timeout_ms=20_000,
        metadata_max_age_ms=30_000,
        acks="all",
        enable_idempotence=True,
        graceful_timeout=GRACEFUL_TIMEOUT_S,
        apply_types=False,
        security=security(settings),
        allow_auto_create_topics=False,
        logger=None,
    )


def subscribe(
    broker: KafkaBroker,
    settings: Settings,
    service: str,
    topics: list[str],
    handle: Callable[[Sequence[ConsumerRecord[Any, Any]]], Awaitable[None]],
) -> BatchSubscriber:
    """Subscribes `service` to `topics`; `handle` gets every record of a poll and, when it returns, has committed it.

    The offsets are committed here, after `handle`, once per poll: MANUAL means that nothing else ever does.
    """

    def keep_records(records: tuple[ConsumerRecord[Any, Any], ...]) -> KafkaAckableMessage:
        # FastStream's own parser decodes every header and fails on one that is not UTF-8; the road needs none.
        assert subscriber.consumer is not None
        return KafkaAckableMessage(raw_message=records, body=b"", consumer=subscriber.consumer)

    async def keep_message(message: KafkaMessage) -> KafkaMessage:
        return message

    subscriber = broker.subscriber(
        *(settings.namespace + topic for topic in topics),
        batch=True,
        group_id=f"{settings.namespace}yike-{service}",
        group_instance_id=settings.instance or None,
        ack_policy=AckPolicy.MANUAL,
        auto_offset_reset="earliest",
        isolation_level="read_uncommitted",  # nobody on the road uses Kafka transactions
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 10,
        max_poll_interval_ms=settings.max_poll_interval_ms,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        fetch_min_bytes=1,  # a fetch that waited for more cost more latency than it saved work
        fetch_max_bytes=16 * 1024 * 1024,
        max_partition_fetch_bytes=2 * 1024 * 1024,
        parser=keep_records,
        decoder=keep_message,
        no_reply=True,
    )

    ended = time.perf_counter()
    window, heard = ended, 0

    def is_busy(records: int, now: float) -> bool:
        nonlocal window, heard
        if now - window > BUSY_WINDOW_S:
            window, heard = now, heard // 2
        heard += records
        return heard >= BUSY_RECORDS

    async def poll(message: KafkaMessage) -> None:
        nonlocal ended
        began = time.perf_counter()
        metrics.STAGE_SECONDS.labels(service, "poll").observe(began - ended)
        records = message.raw_message
        assert isinstance(records, tuple)
        try:
            await handle(records)
        except Exception:
            # Neither handled, retried nor parked: were the loop to go on, the next commit would skip these records.
            log.exception("the road itself failed, this process ends", service=service)
            os._exit(EXIT_STATUS)
        clock = time.perf_counter()
        try:
            await message.ack()
        except KafkaError as error:
            # The database has the batch; whoever gets these records again finds them in the inbox.
            log.warning("offsets not committed", service=service, error=repr(error))
        metrics.STAGE_SECONDS.labels(service, "offsets").observe(time.perf_counter() - clock)
        crash_point("offset_commit")
        # Under load fewer, larger batches: what a batch costs whatever its size is paid less often. Idle, nobody waits.
        early = settings.poll_every_ms / 1000 - (time.perf_counter() - began)
        if is_busy(len(records), began) and early > 0:
            await asyncio.sleep(early)
        ended = time.perf_counter()

    subscriber(poll)
    assert isinstance(subscriber, BatchSubscriber)

    async def next_records(consumer: AIOKafkaConsumer) -> tuple[ConsumerRecord[Any, Any], ...]:
        # FastStream's own sleeps after a poll that brought nothing, and what comes meanwhile waits.
        found = await consumer.getmany(timeout_ms=POLL_WAIT_MS, max_records=settings.poll_records)
        return tuple(chain.from_iterable(found.values()))

    subscriber.get_msg = next_records  # type: ignore[method-assign]
    return subscriber


def make_producer(settings: ClientSettings, service: str, *, linger_ms: int = 0) -> AIOKafkaProducer:
    """A producer: acknowledged by all replicas, idempotent, in order. The relay makes its own batches and does not
    linger."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        client_id=f"yike-{service}-relay",
        acks="all",
        enable_idempotence=True,
        request_timeout_ms=20_000,
        retry_backoff_ms=50,
        linger_ms=linger_ms,
        max_batch_size=PRODUCER_BATCH_BYTES,
        max_request_size=MAX_REQUEST_BYTES,
        compression_type=None,  # two cores are spent on better things; a wide network wants lz4 (needs cramjam)
        metadata_max_age_ms=30_000,
        **client_security(settings),
    )


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stops `producer`, and waits only so long for what is under way: an idempotent one tries that again for ever."""
    stopping = asyncio.create_task(producer.stop())
    stopping.add_done_callback(lambda task: task.cancelled() or task.exception())
    if not (await asyncio.wait({stopping}, timeout=PRODUCER_STOP_S))[0]:
        producer._message_accumulator.fail_all(ProducerClosed())
        await asyncio.wait({stopping}, timeout=PRODUCER_STOP_S)
    await producer.client.close()


def make_reader(settings: ClientSettings, **options: Any) -> AIOKafkaConsumer:
    """A consumer without a group, for gateways and operators: it reads partitions it assigns to itself."""
    return AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        client_id="yike-reader",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        metadata_max_age_ms=30_000,
        **client_security(settings),
        **options,
    )
