"""A service of no business for the tests of the road: it writes down every message it handles, so nothing hides.

`Road` is a harness of its own (database, topics, gateway, recorder); `serve` runs the service in this process with a
hook the test has a hand in, and `python -m tests.roadkit` runs it as a process that can be signalled and killed.
Its contracts are known (`CONTRACTS`) only while a road runs: what is generated from all contracts never sees them.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import asyncpg
import pytest
import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from prometheus_client import REGISTRY
from sqlalchemy import BigInteger, Identity, MetaData, Text, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from ops.provision import ROOT, create_databases, drop_databases, ensure_topics
from ops.stack.postgres import free_port
from ops.stack.servers import Servers
from shared import clock
from shared.contracts import topics
from shared.contracts.envelope import CONTRACTS, Command, Data, Event, Message, Reply, Request
from shared.contracts.errors import Refused
from shared.database import Database
from shared.ids import new_id
from shared.keys import generate_keys
from shared.messaging.broker import make_reader
from shared.messaging.dead_letter import DeadLetter
from shared.messaging.handlers import Handlers, each
from shared.messaging.rpc import GatewayClient
from shared.messaging.tables import CLOCK_SQL
from shared.messaging.work import UnitOfWork
from shared.service import Background, Service, run
from shared.tables import service_metadata
from tests.harness import TEST_PARTITIONS, WAIT_S, Harness, envelope_of

if __name__ != "__main__":
    # structlog's own console prints every local variable of a traceback; that takes seconds, and nothing else runs.
    structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])

log = structlog.get_logger()

SERVICE = "escrow"
COMMANDS, REQUESTS, EVENTS = topics.commands(SERVICE), topics.requests(SERVICE), topics.events(SERVICE)
OTHERS_EVENTS = topics.events("orders")
DEAD_LETTERS = topics.dead_letters(SERVICE)
GATEWAY_REPLIES = topics.gateway_replies("test")
_TOPICS = {COMMANDS, REQUESTS, EVENTS, OTHERS_EVENTS, DEAD_LETTERS, GATEWAY_REPLIES, topics.replies(SERVICE)}


# --- the words ------------------------------------------------------------------------------------------------------


class Balance(Reply, type="escrow.roadtest.balance.v1"):
    """The answer to both."""

    account_id: UUID
    total: int


class Put(Command, type="escrow.roadtest.put.v1", topic=COMMANDS, key="account_id", reply=Balance):
    """Writes one entry. `act` is for the hook of the test."""

    account_id: UUID
    number: int
    act: str = ""


class Ask(Request, type="escrow.roadtest.ask.v1", topic=REQUESTS, key="account_id", reply=Balance):
    """Writes one entry, for a gateway; a negative number is refused."""

    account_id: UUID
    number: int
    act: str = ""


class Plan(Command, type="escrow.roadtest.plan.v1", topic=COMMANDS, key="account_id"):
    """Sets a timer for `Remind`, or cancels it (`after_s` None)."""

    account_id: UUID
    number: int
    after_s: float | None


class Remind(Command, type="escrow.roadtest.remind.v1", topic=COMMANDS, key="account_id"):
    """The timer; writes one entry."""

    account_id: UUID
    number: int


class Noted(Event, type="escrow.roadtest.noted.v1", topic=EVENTS, key="account_id"):
    """An entry was written."""

    account_id: UUID
    number: int


class Told(Event, type="orders.roadtest.told.v1", topic=OTHERS_EVENTS, key="account_id"):
    """Another service has said something; writes one entry."""

    account_id: UUID
    number: int


_WORDS: tuple[type[Data], ...] = (Balance, Put, Ask, Plan, Remind, Noted, Told)
for _word in _WORDS:
    del CONTRACTS[_word.TYPE]


@contextmanager
def words_known() -> Iterator[None]:
    """The contracts above are known while this lasts."""
    known = Put.TYPE in CONTRACTS  # by a road that runs around this one
    CONTRACTS.update({word.TYPE: word for word in _WORDS})
    try:
        yield
    finally:
        for word in () if known else _WORDS:
            del CONTRACTS[word.TYPE]


# --- the service ----------------------------------------------------------------------------------------------------

metadata = service_metadata()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """Beside the tables of the road."""

    metadata: ClassVar[MetaData] = metadata


class AccountRow(Base, table=True):
    """A sum, so that a message lost or handled twice shows in a figure too."""

    __tablename__ = "road_accounts"
    account_id: UUID = Field(primary_key=True)
    total: int = Field(sa_type=BigInteger)


class EntryRow(Base, table=True):
    """One row for each time a handler saw a message: nothing is unique here but the row's own number."""

    __tablename__ = "road_entries"
    seq: int = Field(primary_key=True, sa_type=BigInteger, sa_column_args=(Identity(always=True),))
    account_id: UUID = Field(index=True)
    number: int = Field(sa_type=BigInteger)
    type: str = Field(sa_type=Text)
    traceparent: str = Field(sa_type=Text)


@dataclass
class Account:
    """Its state."""

    account_id: UUID
    total: int


@dataclass
class Entry:
    """Its new row."""

    account_id: UUID
    number: int
    type: str
    traceparent: str


Hook = Callable[[UnitOfWork, Sequence[Message[Any]]], Awaitable[None]]


async def no_hook(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """A test that lets the service alone."""


async def write(work: UnitOfWork, messages: Sequence[Message[Any]]) -> dict[UUID, Account]:
    """One entry for each message, and the sums."""
    ids = {message.data.account_id for message in messages}
    work.insert(AccountRow, [Account(id_, 0) for id_ in sorted(ids)], ignore_existing=True)
    accounts = await work.load(AccountRow, Account, ids)
    for message in messages:
        accounts[message.data.account_id].total += message.data.number
    entries = [Entry(m.data.account_id, m.data.number, m.type, m.traceparent) for m in messages]
    work.insert(EntryRow, entries)
    work.update(AccountRow, accounts.values(), "total")
    return accounts


def make_handlers(hook: Hook = no_hook) -> Handlers:
    """The handlers; `hook` runs after the rows are written and before anything is sent."""
    handlers = Handlers(SERVICE)

    @handlers.on(Put)
    async def on_put(work: UnitOfWork, messages: Sequence[Message[Put]]) -> None:
        accounts = await write(work, messages)
        await hook(work, messages)
        for message in messages:
            work.send(Noted(account_id=message.data.account_id, number=message.data.number), message)
            work.reply(
                message, Balance(account_id=message.data.account_id, total=accounts[message.data.account_id].total)
            )

    @handlers.on(Ask)
    @each
    async def on_ask(work: UnitOfWork, message: Message[Ask]) -> None:
        accounts = await write(work, [message])
        await hook(work, [message])
        if message.data.number < 0:
            raise Refused("amount_invalid", number=message.data.number)
        work.reply(message, Balance(account_id=message.data.account_id, total=accounts[message.data.account_id].total))

    @handlers.on(Plan)
    @each
    async def on_plan(work: UnitOfWork, message: Message[Plan]) -> None:
        await write(work, [message])
        if message.data.after_s is None:
            work.cancel_timer(Remind, message.data.account_id)
        else:
            due = work.now + timedelta(seconds=message.data.after_s)
            work.set_timer(Remind(account_id=message.data.account_id, number=message.data.number), due, message)

    @handlers.on(Remind)
    async def on_remind(work: UnitOfWork, messages: Sequence[Message[Remind]]) -> None:
        await write(work, messages)

    @handlers.on(Told)
    async def on_told(work: UnitOfWork, messages: Sequence[Message[Told]]) -> None:
        await write(work, messages)

    return handlers


@dataclass
class Process:
    """A copy of the service in a process of its own."""

    child: asyncio.subprocess.Process
    port: int
    output: Path
    fail: Path
    """Its background loop fails as soon as this file is there."""

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET; (0, why) when nobody listens (yet)."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as error:
            return 0, str(error)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head, _, content = (await reader.read()).decode().partition("\r\n\r\n")
            return int(head.split(" ")[1]), content
        finally:
            writer.close()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this event."""
        lines = [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    async def ended(self) -> int:
        """Waits until it has ended; its exit status."""
        async with asyncio.timeout(WAIT_S):
            return await self.child.wait()


# --- the harness ----------------------------------------------------------------------------------------------------


class Road(Harness):
    """A harness with the topics and the database of one service."""

    producer: AIOKafkaProducer
    database: Database

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Road"]:
        """Database with its tables, keys, topics, a gateway, a recorder and a producer of anything."""
        with words_known():
            async with self._running():
                yield self

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        generate_keys(self.folder / "keys", [SERVICE, "orders", "ops"])
        admin = self.servers.postgres_admin_dsn
        self.offset = await clock.get_offset(admin)  # where the tests before have left it
        self.dsns = await create_databases(admin, [SERVICE], suffix=f"_{self.name}")
        self.database = Database(self.dsns[SERVICE])
        await make_tables(self.database)
        await ensure_topics(self.servers.kafka, topics=self.own_topics())
        self.producer = AIOKafkaProducer(bootstrap_servers=self.servers.kafka)
        await self.producer.start()
        recorder = asyncio.create_task(self._record())
        try:
            async with GatewayClient(self.client_settings, "test") as self.client:
                yield
        finally:
            recorder.cancel()
            await asyncio.gather(recorder, return_exceptions=True)
            await self.producer.stop()
            await self.database.close()
            for pool in self._pools.values():
                await pool.close()
            await drop_databases(admin, [SERVICE], suffix=f"_{self.name}")

    def own_topics(self) -> list[topics.Topic]:
        """The topics of this road, as they shall be."""
        return [
            replace(topic, name=self.client_settings.namespace + topic.name, partitions=TEST_PARTITIONS)
            for topic in topics.ALL_TOPICS
            if topic.name in _TOPICS
        ]

    @asynccontextmanager
    async def serve(
        self, hook: Hook = no_hook, background: Sequence[Background] = (), **changes: Any
    ) -> AsyncIterator[Service]:
        """Runs a copy of the service in this process until the block ends."""
        service = Service(make_handlers(hook), self.settings(SERVICE, **changes), background)
        async with self.run(service):
            yield service
            failed = [task for task in service._tasks if task.done()]
            assert failed == [], "a loop of the service has ended, a process would have"

    @asynccontextmanager
    async def process(self, **environment: object) -> AsyncIterator["Process"]:
        """Runs a copy of the service as a process of its own; killed at the end if it still runs."""
        port = free_port()
        settings = self.settings(SERVICE, port=port, log_format="json", **environment)
        names = ("kafka", "namespace", "database", "keys", "port", "log_format", *environment)
        variables = {f"YIKE_{name.upper()}": str(getattr(settings, name)) for name in names}
        with (self.folder / f"{port}.log").open("w+") as output:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.roadkit"),
                env={**os.environ, **variables, "ROADKIT_FAIL": str(self.folder / f"{port}.fail")},
                cwd=ROOT,
                stdout=output,
                stderr=output,
            )
            process = Process(child, port, Path(output.name), self.folder / f"{port}.fail")
            try:
                yield process
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()

    # --- publish --------------------------------------------------------------------------------------------------

    async def put(self, account_id: UUID, *numbers: int, act: str = "") -> list[UUID]:
        """Publishes a `Put` for each number, in order; their message ids."""
        return [await self.publish(Put(account_id=account_id, number=number, act=act)) for number in numbers]

    async def publish_record(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> tuple[int, int]:
        """Publishes any record at all; returns (partition, offset)."""
        name = self.client_settings.namespace + topic
        if value is None and key is None:
            key = b""
        sent = await self.producer.send_and_wait(name, value, key=key, headers=list(headers), partition=partition)
        return sent.partition, sent.offset

    async def publish_again(self, *names: str) -> int:
        """Publishes every record of these topics once more, in their order; how many."""
        again = [one for one in self.recorded if one["_topic"] in {self.client_settings.namespace + n for n in names}]
        for one in again:
            await self.producer.send(
                one["_topic"], one["_value"], key=one["_key"], headers=one["_headers"], partition=one["_partition"]
            )
        await self.producer.flush()
        return len(again)

    # --- record and expect ----------------------------------------------------------------------------------------

    def on(self, topic: str) -> list[dict[str, Any]]:
        """What was recorded on `topic` so far."""
        return [one for one in self.recorded if one["_topic"] == self.client_settings.namespace + topic]

    async def expect_letter(self, **fields: Any) -> DeadLetter:
        """The dead letter with these fields."""
        return await self.expect(DeadLetter, **fields)

    async def expect_answer(self, message_id: UUID, *, times: int = 1) -> list[dict[str, Any]]:
        """The envelopes that answer a message, when there are `times` of them."""

        def answers() -> list[dict[str, Any]]:
            found = [one for one in self.on(GATEWAY_REPLIES) if one.get("causationid") == str(message_id)]
            return found if len(found) >= times else []

        found: list[dict[str, Any]] = await self.until(answers)
        assert len(found) == times
        return found

    # --- look -----------------------------------------------------------------------------------------------------

    async def numbers(self, account_id: UUID) -> list[int]:
        """What was handled for an account, in the order it was handled."""
        rows = await self.rows(
            SERVICE, "SELECT number FROM road_entries WHERE account_id = $1 ORDER BY seq", account_id
        )
        return [row["number"] for row in rows]

    async def expect_numbers(self, account_id: UUID, *numbers: int) -> None:
        """Waits until so many were handled; they must be these, in this order, and make the account's sum."""

        async def enough() -> bool:
            return len(await self.numbers(account_id)) >= len(numbers)

        await self.until(enough)
        assert await self.numbers(account_id) == list(numbers)
        total = await self.rows(SERVICE, "SELECT total FROM road_accounts WHERE account_id = $1", account_id)
        assert [row["total"] for row in total] == [sum(numbers)]

    async def expect_quiet(self, group: str = SERVICE) -> None:
        """Waits until everything published is read, committed, answered and on its topic."""

        async def quiet() -> bool:
            unsent = await self.rows(SERVICE, "SELECT 1 FROM unsent LIMIT 1")
            return not unsent and await self.lag(group) == 0

        await self.until(quiet)
        await self.expect_recorded()

    async def admin(self, sql: str) -> None:
        """Runs SQL as the administrator of the server."""
        connection = await asyncpg.connect(self.servers.postgres_admin_dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def forget_connections(self) -> None:
        """Drops the connections of the test itself, after they were cut."""
        for pool in self._pools.values():
            await pool.expire_connections()
        await self.database.engine.dispose()

    async def read(self, name: str) -> list[tuple[str, int]]:
        """Partition key and number of every message of a topic (with namespace) the recorder does not hear."""
        reader = make_reader(self.client_settings)
        await reader.start()
        try:
            ends = await self.ends(name)
            reader.assign(list(ends))
            found: list[tuple[str, int]] = []
            while any([await reader.position(tp) < end for tp, end in ends.items()]):
                for records in (await reader.getmany(timeout_ms=100)).values():
                    envelopes = (envelope_of(record.value) for record in records)
                    found += [(one["partitionkey"], one["data"]["number"]) for one in envelopes]
            return found
        finally:
            await reader.stop()

    async def committed(self, group: str = SERVICE) -> dict[TopicPartition, int]:
        """The offsets the service's group has committed."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.servers.kafka)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(f"{self.client_settings.namespace}yike-{group}")
            return {tp: committed.offset for tp, committed in found.items()}
        finally:
            await admin.close()

    async def lag(self, group: str = SERVICE) -> int:
        """Records of the service's topics that its group has not committed yet."""
        committed = await self.committed(group)
        heard = [self.client_settings.namespace + topic for topic in make_handlers().topics()]
        return sum(end - committed.get(tp, 0) for tp, end in (await self.ends(*heard)).items())


@asynccontextmanager
async def make_database(servers: Servers) -> AsyncIterator[Database]:
    """A database of its own with those tables, for what needs no Kafka."""
    suffix = f"_d{new_id().hex[-8:]}"
    dsns = await create_databases(servers.postgres_admin_dsn, [SERVICE], suffix=suffix)
    database = Database(dsns[SERVICE])
    try:
        await make_tables(database)
        yield database
    finally:
        await database.close()
        await drop_databases(servers.postgres_admin_dsn, [SERVICE], suffix=suffix)


async def committed_rows(database: Database, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    """Does `sql` in a transaction of its own; the rows it gives, if it gives any."""
    async with database.session() as session, session.begin():
        found = await (await session.connection()).execute(text(sql), parameters)
        return [dict(row) for row in found.mappings()] if found.returns_rows else []


async def make_tables(database: Database) -> None:
    """The road's tables and this service's two."""
    async with database.engine.begin() as connection:
        await connection.execute(text(CLOCK_SQL))
        await connection.run_sync(metadata.create_all)


def body(data: Data, **changes: Any) -> dict[str, Any]:
    """The envelope of `data` as a foreign gateway would build it, with `changes`."""
    id_ = str(new_id())
    return {
        "specversion": "1.0",
        "id": id_,
        "source": "/gateway/test",
        "type": data.TYPE,
        "time": "2026-01-05T08:00:00Z",
        "correlationid": id_,
        "partitionkey": data.partition_key,
        "data": data.model_dump(mode="json"),
    } | changes


def as_bytes(envelope: dict[str, Any]) -> bytes:
    """An envelope as a foreign gateway would write it."""
    return json.dumps(envelope).encode()


def letters_of(road: Road, account: UUID) -> list[DeadLetter]:
    """The dead letters of an account's messages."""
    return [letter for letter in road.seen(DeadLetter) if letter.key == str(account)]


def figures() -> Counter[str]:
    """What Prometheus would read of this service now; a histogram by its number of observations."""
    found: Counter[str] = Counter()
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.labels.get("service") == SERVICE and not sample.name.endswith(("_created", "_bucket", "_sum")):
                labels = (value for name, value in sorted(sample.labels.items()) if name != "service")
                found[" ".join((sample.name.removeprefix("yike_"), *labels))] = int(sample.value)
    return found


def on_other_partitions(count: int = TEST_PARTITIONS) -> list[UUID]:
    """Accounts whose keys lie on different partitions, one for each."""
    found: dict[int, UUID] = {}
    while len(found) < count:
        id_ = new_id()
        found.setdefault(partition_of(id_), id_)
    return [found[partition] for partition in sorted(found)]


def partition_of(key: object) -> int:
    """The partition of a key."""
    from aiokafka.partitioner import murmur2

    return int((murmur2(str(key).encode()) & 0x7FFFFFFF) % TEST_PARTITIONS)


@asynccontextmanager
async def make_road(servers: Servers, folder: Path) -> AsyncIterator[Road]:
    """A new road on `servers`."""
    async with Road(servers, folder, f"r{new_id().hex[-8:]}").running() as made:
        assert isinstance(made, Road)
        yield made


@pytest.fixture(scope="module")
async def road(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Road]:
    """One road for the tests of a module, which leave it as they found it; ids are new in each test."""
    async with make_road(servers, tmp_path_factory.mktemp("road")) as made:
        yield made


async def _act(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """What a message may ask of the process: `touch:<file>`, `slow:<seconds>`, `block` the event loop; else a bug."""
    log.info("at work", numbers=[message.data.number for message in messages])
    for message in messages:
        for act in filter(None, message.data.act.split(",")):
            name, _, value = act.partition(":")
            if name == "touch":
                Path(value).touch()  # noqa: ASYNC240
            elif name == "slow":
                await asyncio.sleep(float(value))
            elif name == "block":
                time.sleep(3600)  # noqa: ASYNC251 - that nothing else runs is the point
            else:
                raise KeyError(act)


async def _fails(service: Service) -> None:
    """A background loop that fails as soon as a file is there."""
    while not os.path.exists(os.environ["ROADKIT_FAIL"]):  # noqa: ASYNC240
        await asyncio.sleep(0.02)
    raise RuntimeError("the background loop of the test fails")


if __name__ == "__main__":
    CONTRACTS.update({word.TYPE: word for word in _WORDS})
    run(make_handlers(_act), (_fails,))
