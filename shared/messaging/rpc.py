"""The client of a gateway: publish a request, await its answer. Other gateways use it too; it owns no data.

Each copy of a gateway reads only its own partition of its replies topic, by assignment, without a group. A time-out
means unknown: the request may still be done, so ask the status, or send the same message id again.
"""

import asyncio
from datetime import timedelta
from typing import Any, ClassVar, Final, Self, TypeVar
from uuid import UUID

import pydantic_core
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.clock import machine_now
from shared.contracts import topics
from shared.contracts.envelope import CONTRACTS, Problem, Reply, Request, encode
from shared.ids import new_id
from shared.messaging.broker import make_producer, make_reader, stop_producer
from shared.messaging.trace import new_traceparent
from shared.settings import ClientSettings

log = structlog.get_logger()

R = TypeVar("R", bound=Reply)


READ_PAUSE_S: Final = 0.5


class OutcomeUnknown(TimeoutError):
    """No answer in time. The request may or may not be done; the same `message_id` may be sent again safely."""

    def __init__(self, request_type: str, message_id: UUID, waited_s: float) -> None:
        super().__init__(f"no answer to {request_type} {message_id} within {waited_s:g} s: the outcome is unknown")
        self.message_id = message_id


class RequestRefused(Exception):
    """The service said no; `problem` tells the code, in words, and whether to try again."""

    def __init__(self, problem: Problem) -> None:
        faults = "; ".join(f"{fault.field}: {fault.message}" for fault in problem.errors)
        super().__init__(f"{problem.code}: {problem.title} {problem.detail} {faults}".strip())
        self.problem = problem
        self.code = problem.code


class GatewayClient:
    """One copy (`partition`) of gateway `name`. Use as an async context manager.

    `linger_ms`: how long a request waits for others to travel with; 0 where a person waits for each.
    """

    HEARS: ClassVar[tuple[str, ...]] = ()
    """The topics of events that a gateway hears beside its answers, from when it was opened."""

    def __init__(self, settings: ClientSettings, name: str, partition: int = 0, *, linger_ms: int = 0) -> None:
        self._settings = settings
        self.name = name
        self.partition = partition
        self.namespace = settings.namespace
        self.replies_topic = topics.gateway_replies(name)
        self._producer = make_producer(settings, f"gateway-{name}", linger_ms=linger_ms)
        self._reader: AIOKafkaConsumer = make_reader(settings)
        self._waiting: dict[UUID, list[asyncio.Future[Reply]]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._open()
        self._reading = asyncio.create_task(self._read())
        return self

    async def _open(self) -> None:
        """From here on everything that comes is heard."""
        await self._producer.start()
        await self._reader.start()
        wanted = [TopicPartition(self.namespace + self.replies_topic, self.partition)]
        for topic in self.HEARS:
            wanted += [TopicPartition(self.namespace + topic, number) for number in range(self._settings.partitions)]
        self._reader.assign(wanted)
        await self._reader.seek_to_end(*wanted)
        for partition in wanted:
            await self._reader.position(partition)

    async def __aexit__(self, *_: object) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        # Gathered, since with the broker away aiokafka's stop lets the cancellation of its own tasks escape.
        await asyncio.gather(self._reader.stop(), stop_producer(self._producer), return_exceptions=True)

    async def ask(
        self,
        request: Request,
        *,
        token: str = "",
        timeout_s: float = 10.0,
        message_id: UUID | None = None,
        correlation_id: UUID | None = None,
        idempotency_key: str = "",
        expires_in_s: float | None = None,
    ) -> Reply:
        """Sends `request` for the actor of `token` and returns its answer.

        Raises RequestRefused with the problem, OutcomeUnknown after `timeout_s` (the broker may be away, too).
        """
        message_id = message_id or new_id()
        body = self.envelope(
            request,
            message_id,
            token=token,
            correlation_id=correlation_id,
            idempotency_key=idempotency_key,
            expires_in_s=expires_in_s,
        )
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(message_id, [])
        waiting.append(future)
        try:
            async with asyncio.timeout(timeout_s):
                await self.send_raw(request.TOPIC, request.partition_key, body)
                reply = await future
        except TimeoutError:
            raise OutcomeUnknown(request.TYPE, message_id, timeout_s) from None
        except KafkaError as error:
            if not error.retriable:
                raise
            # A broker that goes away in the middle may have the request, or not.
            raise OutcomeUnknown(request.TYPE, message_id, timeout_s) from error
        finally:
            waiting.remove(future)
            if not waiting:
                self._waiting.pop(message_id, None)
        if isinstance(reply, Problem):
            raise RequestRefused(reply)
        return reply

    def envelope(
        self,
        request: Request,
        message_id: UUID,
        *,
        token: str = "",
        correlation_id: UUID | None = None,
        idempotency_key: str = "",
        expires_in_s: float | None = None,
    ) -> bytes:
        """The body of `request` as this gateway sends it."""
        now = machine_now()
        return encode(
            {
                "specversion": "1.0",
                "id": message_id,
                "source": f"/gateway/{self.name}",
                "type": request.TYPE,
                "time": now,
                "subject": request.partition_key,
                "correlationid": correlation_id or message_id,
                "partitionkey": request.partition_key,
                "traceparent": new_traceparent(),
                "replyto": self.replies_topic,
                "replypartition": self.partition,
                "expirytime": now + timedelta(seconds=expires_in_s) if expires_in_s else None,
                "idempotencykey": idempotency_key,
                "actortoken": token,
                "data": request,
            }
        ).encode()

    async def send_raw(self, topic: str, key: str, body: bytes, headers: list[tuple[str, bytes]] | None = None) -> None:
        """Publishes `body` as it is and waits for the broker's acknowledgement."""
        await self._producer.send_and_wait(
            self.namespace + topic, body, key=key.encode() or None, headers=headers or []
        )

    async def _read(self) -> None:
        while True:
            try:
                found = await self._reader.getmany(timeout_ms=200)
            except KafkaError as error:
                log.warning("replies not read, tried again", gateway=self.name, error=repr(error)[:300])
                await asyncio.sleep(READ_PAUSE_S)
                continue
            for record in (record for records in found.values() for record in records):
                try:
                    self._deliver(pydantic_core.from_json(record.value or b""))
                except Exception as error:  # one answer nobody can read must not keep all others from being heard
                    log.warning("answer unreadable", gateway=self.name, offset=record.offset, error=repr(error)[:300])

    def _deliver(self, envelope: dict[str, Any]) -> None:
        """Gives an answer to whoever waits for it; late and repeated answers find nobody."""
        cause = envelope.get("causationid")
        waiting = self._waiting.get(UUID(cause), []) if cause else []
        contract = CONTRACTS.get(envelope.get("type", ""))
        if waiting and contract is not None and issubclass(contract, Reply):
            reply = contract.model_validate(envelope["data"])
            for future in waiting:
                if not future.done():
                    future.set_result(reply)
