"""A deterministic simulation: the real consumers, relays and timers of all six processes on real databases of their
own; no Kafka between them, and a clock that moves only when it is told to.

The caller decides all that Kafka, the scheduler and a power cut decide else: who polls next, which records come and in
which order, which come again, where a process dies, what time it is. Each key is a partition of its own, so every
order that Kafka may give is one of ours. Whoever watches is told what was committed, in the order of the records.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from unittest.mock import patch
from uuid import UUID

import uuid_utils.compat
from aiokafka import ConsumerRecord

from ops.provision import create_databases, upgrade
from ops.stack.servers import Servers
from services.escrow import audit
from services.orders.refunds import winding_up
from shared.actors import Actor, issue_token
from shared.contracts import topics
from shared.contracts.envelope import CONTRACTS, Problem, Reply, Request, encode
from shared.contracts.topics import TOPICS_BY_NAME
from shared.database import Database
from shared.ids import derived_id, new_id
from shared.keys import KeyRing, generate_keys
from shared.messaging import consume
from shared.messaging import relay as relaying
from shared.messaging.rpc import RequestRefused
from shared.messaging.trace import new_traceparent
from shared.settings import PARTICIPANTS, Settings
from tests.faults.world import SAID, TABLES, Record, World
from tests.simulation.road import Crash, Place, Process, Producer, Topics, dying_at

T = TypeVar("T")
STARTS: Final = tuple(datetime(2026, month, day, 1, 0, tzinfo=UTC) for month, day in ((2, 9), (9, 21), (11, 23)))
"""Mondays, nine in the morning in Shanghai: before the Spring Festival, before Mid-Autumn and the National Day, and
weeks before the next holiday. Histories begin on one of them, and so do the ids of all."""
GATEWAY: Final = topics.gateway_replies("test")
CONSUMER_LABELS: Final = ("decode", "begin", "inbox", "handler", "outbox", "commit")
RELAY_LABELS: Final = ("send", "mark")
ALL_OF_IT: Final = (0,) * 200
"""Takes what waits, oldest first, as much as one poll may bring."""
MOST_ROUNDS: Final = 200
ORDERS_AT_ONCE: Final = 2
"""Orders of an institution that is wound up, in one transaction: few, so that there are several of these."""
IDS_OF_PEOPLE: Final = 100_000
"""More than are made before the first history; each history's begin there."""

# The clock of the stack is a function of each database; here it reads a row that only the simulation changes. Commits
# need not reach the disk: the server does not die here.
_CLOCK: Final = """
CREATE TABLE simulated_clock (moment timestamptz NOT NULL);
INSERT INTO simulated_clock VALUES (now());
CREATE OR REPLACE FUNCTION yike_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS
  'SELECT moment FROM simulated_clock';
ALTER ROLE CURRENT_USER SET synchronous_commit = off;
"""
_ROAD: Final = ("inbox", "outbox", "unsent", "timers")
_HISTORY: Final = {
    "catalog": ("reservations",),
    "orders": (
        *("invoice_lessons", "invoice_numbers", "invoices", "refunds", "objections", "lessons", "contracts"),
        *("purchases", "limit_locks", "wind_ups"),
    ),
    "escrow": (
        *("accounts", "transfers", "instructions", "bank_results", "suspense", "suspensions", "freezes"),
        *("gathered", "settlements", "settlement_modes", "payout_accounts"),
        *("statement_lines", "statements", "breaks"),
    ),
    "complaints": ("steps", "filings", "orders"),
    "notify": ("sms",),
    "bank": ("entries", "accounts", "behaviours"),
}
"""What a history leaves behind. Institutions, courses and families stay, and stand there for all of them."""


_AS_IT_WAS: Final = """
UPDATE courses SET reserved = 0, taken = 0;
DELETE FROM institution_changes WHERE change_no > 2;
UPDATE institutions i SET frozen_until = NULL, state = 'listed', state_reason = '审核通过', changes = 2,
  disclosure = c.disclosure, account = c.disclosure->'account'
FROM institution_changes c WHERE c.institution_id = i.institution_id AND c.change_no = 1;
"""
"""The institution was registered and listed, and no more."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One message that a service has handled, or was given again. `actor` and `asking` only of a gateway's request."""

    id: UUID
    type: str
    partitionkey: str
    data: dict[str, Any]
    now: datetime
    actor: str = ""
    asking: UUID | None = None


class Ids:
    """Numbers in place of random bits: what a seed plays again has the same ids, so the same partitions."""

    def __init__(self) -> None:
        self.made = 0

    def new(self) -> UUID:
        """The next id, a UUIDv7 of the first day."""
        self.made += 1
        return UUID(int=int(STARTS[0].timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | self.made)


class Watcher(Protocol):
    """Who wants to know what was committed."""

    async def handled(self, service: str, batch: Sequence[Heard]) -> None:
        """One transaction of a consumer."""

    def fired(self, service: str, now: datetime) -> None:
        """All that was due has become messages."""


class Simulation:
    """All six processes, the topics between them and the gateway in front of them."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.servers = servers
        self.folder = folder
        self.start = self.now = STARTS[-1]
        """When histories begin."""
        self.topics = Topics()
        self.watcher: Watcher | None = None
        self.askings: dict[UUID, str] = {}
        self.answers: dict[UUID, list[dict[str, Any]]] = {}
        self.contracts: dict[str, str] = {}
        """Order → the SHA-256 of its contract, as the guardian was shown it."""
        self.strange: set[UUID] = set()
        """Messages that somebody has put on a topic by hand."""
        self.counts: Counter[str] = Counter()
        self.processes: dict[str, Process] = {}
        self.connections: dict[str, Any] = {}
        self._ids = Ids()
        self._runner: asyncio.Runner
        self._seen = 0
        self._has_asked = False

    @classmethod
    @contextmanager
    def running(cls, servers: Servers, folder: Path) -> "Iterator[Simulation]":
        """A simulation on databases of its own, in an event loop of its own: a rule of hypothesis is no coroutine."""
        simulation = cls(servers, folder)
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            simulation._runner = runner
            open_ = simulation._open()
            runner.run(open_.__aenter__())
            try:
                yield simulation
            finally:
                runner.run(open_.__aexit__(None, None, None))

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        """Does it to the end."""
        return self._runner.run(doing)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        generate_keys(self.folder / "keys", [*PARTICIPANTS, "ops"])
        admin, suffix = self.servers.postgres_admin_dsn, f"_s{new_id().hex[-8:]}"
        async with AsyncExitStack() as closing:
            closing.enter_context(patch.object(uuid_utils.compat, "uuid7", self._ids.new))
            closing.enter_context(patch.object(winding_up, "ORDERS_AT_ONCE", ORDERS_AT_ONCE))
            for name, dsn in (await create_databases(admin, PARTICIPANTS, suffix=suffix)).items():
                await upgrade(name, dsn)
                settings = Settings(kafka="", database=dsn, keys=self.folder / "keys")
                first = await Database(dsn).connect()
                await first.execute(_CLOCK)
                await first.close()  # what it has set for its role holds for those that come
                self.processes[name] = process = Process(settings, name)
                self.connections[name] = connection = await process.database.connect()
                closing.push_async_callback(process.database.close)
                closing.push_async_callback(connection.close)
            await self.set_clock(STARTS[0])
            yield

    async def begin(self) -> None:
        """A new history: nothing has happened yet, and it is `start` again."""
        for name, connection in self.connections.items():
            tables = (*_ROAD, *_HISTORY[name])
            await connection.execute("; ".join(f"DELETE FROM {table}" for table in tables))
        await self.connections["catalog"].execute(_AS_IT_WAS)
        self.topics, self._seen, self._has_asked = Topics(), 0, False
        self.askings, self.answers, self.contracts, self.strange = {}, {}, {}, set()
        self._ids.made = IDS_OF_PEOPLE
        await self.set_clock(self.start)

    # --- the world moves ------------------------------------------------------------------------------------------

    async def set_clock(self, moment: datetime) -> None:
        """It is `moment` now, for everybody."""
        self.now = moment
        for connection in self.connections.values():
            await connection.execute("UPDATE simulated_clock SET moment = $1", moment)

    async def poll(
        self, name: str, picks: Sequence[int] = ALL_OF_IT, die_at: str = "", *, in_two_copies: bool = False
    ) -> bool:
        """One poll: what `picks` say is handled, and its offsets are committed unless the process dies before.

        `in_two_copies`: another copy, which does not know that it has lost its partitions, handles the same meanwhile.
        Returns whether there was anything.
        """
        process = self.processes[name]
        taken = self.topics.take(name, process.topics, picks)
        if not taken:
            return False
        died = False
        copies = [process.consumer, process.copy()] if in_two_copies else [process.consumer]
        records = [record for _, record in taken]
        try:
            with dying_at(consume, die_at):
                await asyncio.gather(*(copy.handle(records) for copy in copies))
        except Crash:
            died = True
            self.counts[f"{name} died at {die_at}"] += 1
            process.start()
        process.has_said = True
        if not died:
            for place, _ in taken:
                self.topics.committed[name, place] += 1
        if self.watcher is not None and (not died or die_at == "commit"):
            heard = [self._heard(record) for _, record in taken]
            await self.watcher.handled(name, [one for one in heard if one.type in process.handlers.entries])
        return True

    def _heard(self, record: "ConsumerRecord[bytes, bytes]") -> Heard:
        envelope = json.loads(record.value)
        key, type_, data = record.key.decode(), envelope["type"], envelope["data"]
        heard = Heard(UUID(envelope["id"]), type_, key, data, self.now)
        if TOPICS_BY_NAME[record.topic].kind != "requests":
            return heard
        asking = UUID(envelope["correlationid"])
        return replace(heard, actor=self.askings[asking], asking=asking)

    async def relay(self, name: str, rows: int = 0, die_at: str = "") -> bool:
        """One round of the relay. Returns whether anything was published."""
        process = self.processes[name]
        if not process.has_said:
            return False
        before = len(self.topics.records)
        relay, way = process.relay(rows), relaying._UnderWay()
        try:
            with dying_at(relaying, die_at):
                process.has_said = await relay._round(self.connections[name], Producer(self.topics), way)
        except Crash:
            self.counts[f"{name} died at {die_at}"] += 1
            process.start()
        self._listen()
        return len(self.topics.records) > before

    async def fire(self, name: str) -> int:
        """What is due falls due. Returns how many timers."""
        process = self.processes[name]
        fired = await process.timers.fire()
        if fired:
            process.has_said = True
            self.counts["timers fired"] += fired
            if self.watcher is not None:
                self.watcher.fired(name, self.now)
        return fired

    async def round(self, names: Sequence[str] = PARTICIPANTS) -> bool:
        """Everybody publishes, and handles what waits for him, in the order of `names`. False: nothing moved."""
        moved = False
        for name in names:
            moved |= await self.relay(name)
            moved |= await self.poll(name)
        return moved

    async def settle(self) -> None:
        """Until nothing moves and nothing is due."""
        for _ in range(MOST_ROUNDS):
            if not await self.round() and not [name for name in PARTICIPANTS if await self.fire(name)]:
                return
        raise AssertionError(f"not quiet after {MOST_ROUNDS} rounds")

    def who_may_poll(self) -> list[str]:
        """Those for whom records wait."""
        return [name for name in PARTICIPANTS if self._waiting(name)]

    def who_may_publish(self) -> list[str]:
        """Those who may have said something."""
        return [name for name in PARTICIPANTS if self.processes[name].has_said]

    def come_again(self, name: str, pick: int, back: int) -> int:
        """Takes what a service has committed in one place back by up to `back` records; how many come again."""
        topics_, committed = self.processes[name].topics, self.topics.committed
        places = [place for place in self.topics.queues if place[0] in topics_ and committed[name, place]]
        if not places:
            return 0
        place = places[pick % len(places)]
        back = min(back, committed[name, place])
        committed[name, place] -= back
        self.counts["records that came again"] += back
        return back

    def say_again(self, pick: int) -> None:
        """Somebody gives one of the last commands once more, under a new message id."""
        kinds = ("commands", "instructions")
        commands = [r for r in self.topics.records if TOPICS_BY_NAME[r.topic].kind in kinds]
        if commands:
            self._say_again(commands[-1 - pick % len(commands)])
            self.counts["commands given once more"] += 1

    def say_again_all(self, type_: str) -> None:
        """Every command of a type is given once more."""
        for record in [r for r in self.topics.records if TOPICS_BY_NAME[r.topic].kind == "commands"]:
            if json.loads(record.value)["type"] == type_:
                self._say_again(record)

    def say_again_what_to_collect(self) -> bool:
        """Asks the bank, once a history, of everything that it was to collect. It may have been silent of what it has
        done, and is not asked any more when the order was paid in another way; else only a statement would show it."""
        collections = [r for r in self.topics.records if r.topic == topics.BANK_INSTRUCTIONS and _collects(r)]
        first, self._has_asked = not self._has_asked, True
        for record in collections if first else ():
            self._say_again(record)
        return first

    def _say_again(self, record: "ConsumerRecord[bytes, bytes]") -> None:
        id_ = derived_id("said again", len(self.topics.records))
        self.strange.add(id_)
        body = json.dumps(json.loads(record.value) | {"id": str(id_)}).encode()
        self.topics.put(record.topic, record.key, body)

    async def next_due(self) -> list[datetime]:
        """When timers are due, earliest first. Those of complaints only remind somebody, again and again."""
        found: list[datetime] = []
        for name, connection in self.connections.items():
            if name != "complaints":
                found += [row["due_at"] for row in await connection.fetch("SELECT due_at FROM timers")]
        return sorted(found)

    # --- the gateway ----------------------------------------------------------------------------------------------

    def send(self, request: Request, actor: Actor | None, *, message_id: UUID | None = None, token: str = "") -> UUID:
        """A gateway asks. Returns the number of this asking, which its answer carries."""
        asking = derived_id("asking", len(self.askings), self.now)
        self.askings[asking] = actor.subject if actor else ""
        if actor is not None:
            ring = KeyRing.load(self.folder / "keys", "orders" if actor.role == "guardian" else "ops")
            token = issue_token(ring, actor, now=self.now, lifetime_seconds=86_400 * 30)
        body = encode(
            {
                "specversion": "1.0",
                "id": message_id or asking,
                "source": "/gateway/test",
                "type": request.TYPE,
                "time": self.now,
                "subject": request.partition_key,
                "correlationid": asking,
                "partitionkey": request.partition_key,
                "traceparent": new_traceparent(),
                "replyto": GATEWAY,
                "actortoken": token,
                "data": request,
            }
        )
        self.topics.put(request.TOPIC, request.partition_key.encode(), body.encode())
        return asking

    async def ask(self, request: Request, *, token: str = "", message_id: UUID | None = None, **_: Any) -> Reply:
        """Asks as `GatewayClient.ask` does; everything is delivered until the answer is there."""
        asking = self.send(request, None, token=token, message_id=message_id)
        await self.settle()
        envelope = self.answers[asking][-1]
        reply = CONTRACTS[envelope["type"]].model_validate(envelope["data"])
        assert isinstance(reply, Reply)
        if isinstance(reply, Problem):
            raise RequestRefused(reply)
        return reply

    def _listen(self) -> None:
        """What people hear of what was published since."""
        for record in self.topics.records[self._seen :]:
            if record.topic not in (GATEWAY, topics.events("orders")):
                continue
            envelope = json.loads(record.value)
            if record.topic == GATEWAY:
                self.answers.setdefault(UUID(envelope["correlationid"]), []).append(envelope)
            elif envelope["type"] == "orders.contract.drawn.v1":
                self.contracts[envelope["data"]["order_id"]] = envelope["data"]["contract_sha256"]
        self._seen = len(self.topics.records)

    # --- look -----------------------------------------------------------------------------------------------------

    async def rows(self, name: str, sql: str, *arguments: Any) -> list[Any]:
        """Rows of a service's database."""
        found: list[Any] = await self.connections[name].fetch(sql, *arguments)
        return found

    async def world(self) -> World:
        """All that can be seen, for the checks of `tests/faults/invariants.py`. Commands given by hand are left out."""
        tables = {
            f"{service}.{table}": await self.rows(service, f"SELECT * FROM {table}")
            for service, names in TABLES.items()
            for table in names
        }
        envelopes = [(record, json.loads(record.value)) for record in self.topics.records]
        return World(
            now=self.now,
            audit=await audit.check(self.processes["escrow"].settings.database),
            tables=tables,
            said={name: await self.rows(name, SAID) for name in PARTICIPANTS},
            heard={
                name: frozenset(row["message_id"] for row in await self.rows(name, "SELECT message_id FROM inbox"))
                for name in PARTICIPANTS
            },
            timers={name: await self.rows(name, "SELECT type, subject, due_at FROM timers") for name in PARTICIPANTS},
            records=[
                Record(record.topic, 0, record.offset, record.key.decode(), UUID(envelope["id"]), envelope["type"])
                for record, envelope in envelopes
                if UUID(envelope["id"]) not in self.strange
            ],
            lag=[str(place) for name in PARTICIPANTS for place in self._waiting(name)],
            deadlocks={},
            sms=[],
        )

    def _waiting(self, name: str) -> list[Place]:
        return self.topics.waiting(name, self.processes[name].topics)


def _collects(record: "ConsumerRecord[bytes, bytes]") -> bool:
    return bool(json.loads(record.value)["data"].get("kind") == "collect")
