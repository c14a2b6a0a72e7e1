"""A pytest plugin: services in this process on the real Kafka and PostgreSQL, and three verbs for messages.

publish (or ask), record, expect: never a sleep. A harness, with databases and topics of its own, serves a module; tests
do not disturb each other because every id is new. A service with background loops names them in its app module:
`BACKGROUND: tuple = (...)`.
"""

import asyncio
import dataclasses
import importlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pydantic_core
import pytest
from aiokafka import TopicPartition

from ops.provision import create_databases, ensure_topics, upgrade
from ops.stack.servers import Servers
from shared import clock
from shared.actors import Actor, issue_token
from shared.contracts import bank, catalog, complaints, escrow, notify, orders, topics
from shared.contracts.envelope import CONTRACTS, Command, Data, Problem, Reply, Request, encode
from shared.ids import new_id
from shared.keys import KeyRing, generate_keys
from shared.messaging.broker import make_reader
from shared.messaging.rpc import GatewayClient, RequestRefused
from shared.messaging.trace import new_traceparent
from shared.service import Service
from shared.settings import PARTICIPANTS, ClientSettings, Settings

D = TypeVar("D", bound=Data)
WORDS = (bank, catalog, complaints, escrow, notify, orders)
TEST_PARTITIONS = 3
WAIT_S = float(os.environ.get("TEST_WAIT_S", "15"))
ROAD_TABLES = ("inbox", "outbox", "unsent", "timers", "alembic_version")


class Harness:
    """One set of databases and topics, with as many services running as a test asks for."""

    def __init__(self, servers: Servers, folder: Path, name: str) -> None:
        self.servers = servers
        self.folder = folder
        self.name = name
        self.client_settings = ClientSettings(kafka=servers.kafka, namespace=f"{name}.")
        self.dsns: dict[str, str] = {}
        self.recorded: list[dict[str, Any]] = []
        self._recorded_to: dict[TopicPartition, int] = {}
        self._grown = asyncio.Condition()
        self.offset = timedelta(0)
        self._pools: dict[str, asyncpg.Pool[asyncpg.Record]] = {}
        self.client: GatewayClient

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Harness"]:
        """Databases, keys, topics, a gateway and a recorder of all topics."""
        generate_keys(self.folder / "keys", [*PARTICIPANTS, "ops"])
        self.dsns = await create_databases(self.servers.postgres_admin_dsn, PARTICIPANTS, suffix=f"_{self.name}")
        await ensure_topics(self.servers.kafka, topics=self.own_topics())
        recorder = asyncio.create_task(self._record())
        try:
            async with GatewayClient(self.client_settings, "test") as self.client:
                yield self
        finally:
            recorder.cancel()
            await asyncio.gather(recorder, return_exceptions=True)
            for pool in self._pools.values():
                await pool.close()

    def own_topics(self) -> list[topics.Topic]:
        """The topics of this harness, as they shall be."""
        return [
            dataclasses.replace(topic, name=self.client_settings.namespace + topic.name, partitions=TEST_PARTITIONS)
            for topic in topics.ALL_TOPICS
        ]

    def settings(self, service: str, **changes: Any) -> Settings:
        """Settings of one service of this harness."""
        values: dict[str, Any] = {
            "kafka": self.servers.kafka,
            "namespace": self.client_settings.namespace,
            "database": self.dsns[service],
            "keys": self.folder / "keys",
            "sms_file": self.folder / "sms.jsonl",
        }
        return Settings(**(values | changes))

    @asynccontextmanager
    async def service(self, *names: str, **changes: Any) -> AsyncIterator[Service]:
        """Runs services in this process; yields the last one named, when all hold their partitions."""
        if len(names) > 1:
            async with self.service(names[0], **changes), self.service(*names[1:], **changes) as last:
                yield last
            return
        await upgrade(names[0], self.dsns[names[0]])
        package = "ops.bank" if names[0] == "bank" else f"services.{names[0]}"
        handlers = importlib.import_module(f"{package}.handlers").handlers
        background = getattr(importlib.import_module(f"{package}.app"), "BACKGROUND", ())
        service = Service(handlers, self.settings(names[0], **changes), background)
        async with self.run(service):
            yield service

    @asynccontextmanager
    async def run(self, service: Service) -> AsyncIterator[Service]:
        """Runs a service that the test has made."""
        stop = asyncio.Event()

        async def live() -> None:
            # A task of its own: pytest sets up and tears down in different ones, and a task group must not notice.
            async with service.app.start_lifespan_context():
                await stop.wait()

        living = asyncio.create_task(live())
        try:
            await self.until(lambda: living.done() or service.consuming()[1] > 0)
            yield service
        finally:
            stop.set()
            await living

    # --- publish ----------------------------------------------------------------------------------------------------

    def ring(self, service: str) -> KeyRing:
        """The keys of a service, for sealing to it or issuing its tokens."""
        return KeyRing.load(self.folder / "keys", service)

    def now(self) -> datetime:
        """The time of the system under test, as near as this machine knows it."""
        return clock.machine_now() + self.offset

    async def advance(self, by: timedelta) -> None:
        """Moves the clock of all services."""
        self.offset += by
        await clock.set_offset(self.servers.postgres_admin_dsn, self.offset)

    def token(self, actor: Actor | None) -> str:
        """A token for `actor`, of the issuer its role has."""
        if actor is None:
            return ""
        issuer = "orders" if actor.role == "guardian" else "ops"
        return issue_token(self.ring(issuer), actor, now=self.now(), lifetime_seconds=3600)

    async def ask(self, request: Request, actor: Actor | None = None, **options: Any) -> Any:
        """Asks as a gateway does; the answer, or RequestRefused."""
        return await self.client.ask(request, token=self.token(actor), timeout_s=WAIT_S, **options)

    async def refusal(self, request: Request, actor: Actor | None = None, **options: Any) -> str:
        """Asks and expects a refusal: its code."""
        try:
            answer = await self.ask(request, actor, **options)
        except RequestRefused as refused:
            return refused.code
        raise AssertionError(f"not refused: {answer!r}")

    async def command(self, command: Command, *, message_id: UUID | None = None) -> Reply:
        """Sends a command as a service does and returns its answer (a Problem too)."""
        message_id = message_id or new_id()
        await self.publish(command, message_id=message_id, replyto=self.client.replies_topic)
        envelope = await self.expect_envelope(lambda e: e.get("causationid") == str(message_id) and is_reply(e))
        contract = CONTRACTS[envelope["type"]]
        reply = contract.model_validate(envelope["data"])
        assert isinstance(reply, Reply)
        return reply

    async def publish(self, data: Data, *, message_id: UUID | None = None, replyto: str = "") -> UUID:
        """Publishes a command or event on its topic as a service does."""
        message_id = message_id or new_id()
        body = self.body(data, message_id, replyto=replyto)
        await self.client.send_raw(data.TOPIC, data.partition_key, body)
        return message_id

    def body(self, data: Data, message_id: UUID, *, replyto: str = "") -> bytes:
        """The message as it stands on a topic."""
        body = encode(
            {
                "specversion": "1.0",
                "id": message_id,
                "source": "/yike/test",
                "type": data.TYPE,
                "time": self.now(),
                "subject": data.partition_key,
                "correlationid": message_id,
                "partitionkey": data.partition_key,
                "traceparent": new_traceparent(),
                "replyto": replyto,
                "replypartition": self.client.partition if replyto == self.client.replies_topic else None,
                "data": data,
            }
        )
        return body.encode()

    # --- record and expect ------------------------------------------------------------------------------------------

    async def _record(self) -> None:
        reader = make_reader(self.client_settings)
        await reader.start()
        try:
            reader.assign(
                [TopicPartition(topic.name, p) for topic in self.own_topics() for p in range(topic.partitions)]
            )
            while True:
                for tp, records in (await reader.getmany(timeout_ms=100)).items():
                    for record in records:
                        self.recorded.append(
                            {"type": "", "partitionkey": ""}
                            | envelope_of(record.value)
                            | {"_topic": record.topic, "_partition": record.partition, "_offset": record.offset}
                            | {"_key": record.key, "_value": record.value, "_headers": record.headers}
                            | {"_timestamp": record.timestamp}
                        )
                    self._recorded_to[tp] = records[-1].offset + 1
                    async with self._grown:
                        self._grown.notify_all()
        finally:
            await reader.stop()

    async def ends(self, *names: str) -> dict[TopicPartition, int]:
        """The end of every partition of these topics (with namespace)."""
        partitions = [TopicPartition(name, p) for name in names for p in range(TEST_PARTITIONS)]
        reader = make_reader(self.client_settings)
        await reader.start()
        try:
            reader.assign(partitions)
            found: dict[TopicPartition, int] = await reader.end_offsets(partitions)
            return found
        finally:
            await reader.stop()

    async def expect_recorded(self) -> None:
        """Waits until all that lies on the topics by now is recorded: before looking at everything that came."""
        last = await self.ends(*(topic.name for topic in self.own_topics()))
        await self.until(lambda: all(self._recorded_to.get(tp, 0) >= end for tp, end in last.items()))

    async def expect_envelope(self, matches: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first recorded envelope that matches, waiting for it. `_topic` says where it came."""
        seen = 0
        async with asyncio.timeout(WAIT_S):
            while True:
                for envelope in self.recorded[seen:]:
                    seen += 1
                    if matches(envelope):
                        return envelope
                async with self._grown:
                    if len(self.recorded) == seen:
                        await self._grown.wait()

    async def expect(self, contract: type[D], key: object = None, **fields: Any) -> D:
        """The first message of `contract` with that partition key and those fields of its data."""

        def matches(envelope: dict[str, Any]) -> bool:
            if envelope.get("type") != contract.TYPE:
                return False
            if key is not None and envelope.get("partitionkey") != str(key):
                return False
            return all(str(envelope["data"].get(name)) == str(value) for name, value in fields.items())

        return contract.model_validate((await self.expect_envelope(matches))["data"])

    def seen(self, contract: type[D], key: object = None) -> list[D]:
        """All messages of `contract` recorded so far, for "and nothing else came"; repeats by Kafka counted once."""
        found = {
            envelope["id"]: contract.model_validate(envelope["data"])
            for envelope in self.recorded
            if envelope.get("type") == contract.TYPE and (key is None or envelope.get("partitionkey") == str(key))
        }
        return list(found.values())

    events = expect

    # --- look -------------------------------------------------------------------------------------------------------

    async def rows(self, service: str, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Rows of a service's database."""
        if service not in self._pools:
            self._pools[service] = await asyncpg.create_pool(self.dsns[service], min_size=1, max_size=2)
        return await self._pools[service].fetch(sql, *arguments)

    async def content(self, service: str) -> dict[str, list[str]]:
        """Every row of every business table of a service, for "nothing changed"."""
        tables = await self.rows(
            service, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
        )
        names = [row["tablename"] for row in tables if row["tablename"] not in ROAD_TABLES]
        return {
            name: sorted(str(row["t"]) for row in await self.rows(service, f'SELECT t::text FROM "{name}" t'))
            for name in names
        }

    async def until(self, condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
        """As the function of this name."""
        return await until(condition, timeout_s)


async def until(condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """Waits until `condition` (plain or async) is true and returns what it said; fails after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.02)


def is_reply(envelope: dict[str, Any]) -> bool:
    """True for an envelope whose contract is an answer."""
    contract = CONTRACTS.get(envelope.get("type", ""))
    return contract is not None and issubclass(contract, Reply)


def envelope_of(value: bytes | None) -> dict[str, Any]:
    """The envelope in a record, or one that says there is none."""
    try:
        envelope = pydantic_core.from_json(value or b"")
    except ValueError:
        return {"type": "unreadable"}
    return envelope if isinstance(envelope, dict) else {"type": "unreadable"}


def is_problem(reply: Reply, code: str) -> bool:
    """True when `reply` is a problem with that code."""
    return isinstance(reply, Problem) and reply.code == code


@pytest.fixture(scope="module")
async def harness(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Harness]:
    """The harness of a module, its clock set right again at the end."""
    made = Harness(servers, tmp_path_factory.mktemp("harness"), f"t{new_id().hex[-8:]}")
    async with made.running():
        try:
            yield made
        finally:
            await clock.set_offset(servers.postgres_admin_dsn, timedelta(0))
