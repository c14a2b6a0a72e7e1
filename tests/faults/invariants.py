"""What must be so whatever has crashed, seen from outside: six databases, all topics, the file of the SMS provider.

In: a stack and what the story says must have become of its orders. Out: violations in words; none is right. Nothing of
the services' code runs here but `audit.check`: plain SQL, plain Kafka, and rules written down a second time.

    await quiet(stack)                          waits until nothing moves any more
    assert await check(stack, expected) == []
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.protocol.group import LeaveGroupRequest

from ops.stack_layout import PART_NAMES, Stack, topics_of
from services.escrow import audit
from shared.contracts import topics
from shared.contracts.topics import ALL_TOPICS, TOPICS_BY_NAME

QUIET_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.05
LATE: Final = timedelta(seconds=3)
"""A timer or step is late when it has been due for so long; it is fired within half a second."""
MOST_SHOWN: Final = 5
"""Places named for one broken check."""

Row = asyncpg.Record
Finder = Callable[["World", "Expected"], Iterator[str]]


@dataclass
class Expected:
    """What the story says: every order there is, lessons that are not merely planned, complaints, dead letters."""

    orders: dict[UUID, str] = field(default_factory=dict)
    lessons: dict[tuple[UUID, int], str] = field(default_factory=dict)
    complaints: dict[UUID, UUID] = field(default_factory=dict)
    """Filing → the order it holds."""
    dead_letters: dict[str, int] = field(default_factory=dict)


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
        """Every record of every topic, partition by partition in the order of offsets; to be asked once."""
        ends = {partition: end for partition, end in (await self.ends()).items() if end}
        found: list[Record] = []
        left = set(ends)
        self._reader.resume(*left)
        while left:
            for some in (await self._reader.getmany(*left, timeout_ms=200)).values():
                found += [self._record(record) for record in some]
            left = {partition for partition in left if await self._reader.position(partition) < ends[partition]}
        self._reader.pause(*ends)
        return sorted(found)

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

_UNSENT: Final = "SELECT count(*) FROM unsent"
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
    asked = [(service, what, sql) for service in databases for what, sql in (("unsent", _UNSENT), ("due", _DUE))]
    asked.append(("notify", "SMS under way", _SMS_UNDER_WAY))
    counts = [(service, what, await databases[service].fetchval(sql)) for service, what, sql in asked]
    return [f"{service}: {count} {what}" for service, what, count in counts if count]


# --- the world ----------------------------------------------------------------------------------------------------

TABLES: Final = {
    "catalog": ("courses", "reservations"),
    "orders": ("purchases", "lessons"),
    "escrow": ("accounts", "instructions", "transfers", "suspense", "suspensions"),
    "complaints": ("orders", "filings", "steps"),
    "notify": ("sms",),
    "bank": ("accounts", "entries"),
}
SAID: Final = """
SELECT seq, id, topic, key, partition, type, body, NOT EXISTS (SELECT FROM unsent u WHERE u.seq = o.seq) AS sent
FROM outbox o ORDER BY seq
"""


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
            sms=[json.loads(line) for line in sms_lines(stack)],
        )


def sms_lines(stack: Stack) -> list[str]:
    """The whole lines of the SMS provider's file."""
    text = stack.sms_file.read_text(encoding="utf-8") if stack.sms_file.exists() else ""
    return [line for line in text.split("\n")[:-1] if line]


async def violations(stack: Stack, expected: Expected) -> dict[str, list[str]]:
    """The places where each check is broken, by the check's name; call it when the stack is quiet."""
    world = await look(stack)
    return {finder.__name__.replace("_", " "): list(finder(world, expected)) for finder in CHECKS}


async def check(stack: Stack, expected: Expected | None = None) -> list[str]:
    """Every violation, `MOST_SHOWN` of each kind; call it when the stack is quiet."""
    found: list[str] = []
    for name, places in (await violations(stack, expected or Expected())).items():
        found += [f"{name}: {place}" for place in places[:MOST_SHOWN]]
        if len(places) > MOST_SHOWN:
            found.append(f"{name}: {len(places) - MOST_SHOWN} more")
    return found


# --- money --------------------------------------------------------------------------------------------------------


def the_books_prove(world: World, expected: Expected) -> Iterator[str]:
    """From nothing but escrow's transfers."""
    for name, places in world.audit.violations.items():
        yield f"{name}: {places}"


def every_order_is_balanced(world: World, expected: Expected) -> Iterator[str]:
    """Paid = held + releasing + released + refunding + refunded."""
    parts = ("held_fen", "releasing_fen", "released_fen", "refunding_fen", "refunded_fen")
    for row in world.tables["escrow.accounts"]:
        if row["paid_fen"] != sum(row[part] for part in parts):
            yield str(row["order_id"])


def the_banks_own_book_adds_up(world: World, expected: Expected) -> Iterator[str]:
    """Each balance is the sum of its entries, each number moved money at most once."""
    sums: Counter[tuple[str, str]] = Counter()
    moved: Counter[str] = Counter()
    for entry in world.tables["bank.entries"]:
        if entry["outcome"] in ("paid", "returned"):
            sums[entry["bank"], entry["to_account"]] += entry["amount_fen"]
            sums[entry["bank"], entry["from_account"]] -= entry["amount_fen"]
            moved[entry["number"]] += 1
    stored = {(row["bank"], row["account"]): row["balance_fen"] for row in world.tables["bank.accounts"]}
    for key in sorted(stored.keys() | sums.keys()):
        if key[1] and stored.get(key, 0) != sums[key]:
            yield f"{key}: balance {stored.get(key, 0)}, entries {sums[key]}"
    for number, times in moved.items():
        if times > 1:
            yield f"{number} moved money {times} times"


def number_of(row: Row) -> str:
    """The number of an instruction as the bank knows it: letter, order, lesson, attempt."""
    parts = (row["order_id"].int, 25), (row["lesson_no"], 3), (row["attempt"], 1)
    return {"collect": "C", "payout": "P", "refund": "R"}[row["kind"]] + "".join(_base36(*part) for part in parts)


def _base36(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[digit] + digits
    return digits


def the_bank_did_what_escrow_has_booked(world: World, expected: Expected) -> Iterator[str]:
    """Instruction by instruction: number, amount and the bank's reference; nothing is open, nothing else was done."""
    done = {entry["number"]: entry for entry in world.tables["bank.entries"] if entry["outcome"] == "paid"}
    asked = {number_of(row): row for row in world.tables["escrow.instructions"]}
    for number, row in asked.items():
        entry = done.get(number)
        if row["state"] not in ("paid", "waiting", "dropped"):
            yield f"{number} is still {row['state']}"
        elif (row["state"] == "paid") != (entry is not None):
            yield f"{number} is {row['state']} in escrow and {'paid' if entry else 'not paid'} at the bank"
        elif entry and (entry["amount_fen"], entry["reference"]) != (row["amount_fen"], row["reference"]):
            yield f"{number}: the bank paid {entry['amount_fen']} fen, escrow booked {row['amount_fen']}"
    for number in done.keys() - asked.keys():
        yield f"{number} was paid by the bank and is unknown to escrow"
    for row in world.tables["escrow.suspense"]:
        yield f"{row['number']} is suspense: {row['reason']}"


def the_bank_holds_what_the_ledger_says(world: World, expected: Expected) -> Iterator[str]:
    """Per account: what is in custody, and what the institutions have received."""
    wanted: Counter[tuple[str, str]] = Counter()
    for row in world.tables["escrow.accounts"]:
        held = row["held_fen"] + row["releasing_fen"] + row["refunding_fen"]
        wanted[row["bank"], row["supervised_account"]] += held
        wanted[row["bank"], row["payout_account"]] += row["released_fen"]
    for row in world.tables["bank.accounts"]:
        key = (row["bank"], row["account"])
        if row["balance_fen"] != wanted[key]:
            yield f"{key}: {row['balance_fen']} fen, the ledger says {wanted[key]}"


def each_lesson_is_released_at_most_once(world: World, expected: Expected) -> Iterator[str]:
    """In the ledger, at the bank, and in what was told."""
    told = [
        (type_, data["order_id"], data["lesson_no"])
        for type_ in ("escrow.released.v1", "escrow.settled.v1")
        for data in world.events("escrow", type_)
    ]
    transfers = [
        ("transfer", str(row["order_id"]), row["lesson_no"])
        for row in world.tables["escrow.transfers"]
        if (row["kind"], row["phase"]) == ("release", 2)
    ]
    payouts = [
        ("payout", entry["number"], 0)
        for entry in world.tables["bank.entries"]
        if (entry["kind"], entry["outcome"]) == ("payout", "paid")
    ]
    for what, times in Counter([*told, *transfers, *payouts]).items():
        if times > 1:
            yield f"{what} {times} times"


# --- the road -----------------------------------------------------------------------------------------------------


def nothing_waits_in_an_outbox(world: World, expected: Expected) -> Iterator[str]:
    """All of it is marked as sent."""
    for service, rows in world.said.items():
        for row in rows:
            if not row["sent"]:
                yield f"{service} {row['seq']} {row['type']}"


def everything_said_stands_on_its_topic(world: World, expected: Expected) -> Iterator[str]:
    """Every outbox row, under its key, at least once; an answer that was said again is a row of its own."""
    published = Counter((record.id, record.topic, record.key) for record in world.records)
    for service, rows in world.said.items():
        said = Counter((row["id"], row["topic"], row["key"]) for row in rows)
        for (id_, topic, key), times in said.items():
            if published[id_, topic, key] < times:
                yield f"{service}: {id_} of {topic} said {times} times, published {published[id_, topic, key]} times"


def nothing_stands_on_a_topic_that_was_not_said(world: World, expected: Expected) -> Iterator[str]:
    """Only gateways write without an outbox, and only requests: what was rolled back was never published."""
    said = {row["id"] for rows in world.said.values() for row in rows}
    for record in world.records:
        if record.id not in said and TOPICS_BY_NAME[record.topic].kind != "requests":
            yield f"{record.topic}/{record.partition}@{record.offset} {record.type}"


def each_key_keeps_its_order(world: World, expected: Expected) -> Iterator[str]:
    """Per key and partition the records stand in the order of the outbox. What is there twice counts where it is first:
    a record that was published again after a crash, an answer that was asked for again."""
    first: dict[UUID, Record] = {}
    for record in world.records:
        first.setdefault(record.id, record)
    for service, rows in world.said.items():
        once = {row["id"]: row for row in reversed(rows)}
        last: dict[tuple[str, int, str], Record] = {}
        for row in sorted(once.values(), key=lambda row: int(row["seq"])):
            if row["id"] not in first:
                continue
            record = first[row["id"]]
            if row["partition"] not in (None, record.partition):
                yield f"{service} {row['seq']} {row['type']} is on partition {record.partition}"
            place = (record.topic, record.partition, record.key)
            if place in last and last[place].offset > record.offset:
                was = last[place]
                yield f"{service} {row['seq']} {row['type']} @{record.offset} stands before {was.type} @{was.offset}"
            last[place] = record


def each_key_has_one_partition(world: World, expected: Expected) -> Iterator[str]:
    """Of a topic, where no partition was asked for; without a key any will do."""
    chosen = {row["id"] for rows in world.said.values() for row in rows if row["partition"] is not None}
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for record in world.records:
        if record.key and record.id not in chosen:
            found[record.topic, record.key].add(record.partition)
    for place, partitions in found.items():
        if len(partitions) > 1:
            yield f"{place}: {sorted(partitions)}"


def everybody_has_heard_what_is_for_him(world: World, expected: Expected) -> Iterator[str]:
    """Requests and commands: their owner's inbox has all of them. Events: who has heard one of a type has heard all."""
    owners = {topic.name: topic.owner for topic in ALL_TOPICS if topic.kind in ("requests", "commands")}
    owners |= {topics.BANK_INSTRUCTIONS: "bank", topics.BANK_RESULTS: "escrow"}
    listeners = {
        (service, record.topic, record.type)
        for service, heard in world.heard.items()
        for record in world.records
        if record.id in heard and TOPICS_BY_NAME[record.topic].kind == "events"
    }
    for record in world.records:
        owner = owners.get(record.topic)
        asked = [owner] if owner else [s for s in PART_NAMES if (s, record.topic, record.type) in listeners]
        for service in asked:
            if record.id not in world.heard[service]:
                yield f"{service}: {record.topic}/{record.partition}@{record.offset} {record.type}"


def every_request_is_answered_in_one_way(world: World, expected: Expected) -> Iterator[str]:
    """Every request has an answer; whatever is answered, asked again or read again, has one answer and no other."""
    answers: dict[UUID, set[UUID]] = defaultdict(set)
    for rows in world.said.values():
        for row in rows:
            if TOPICS_BY_NAME[row["topic"]].kind.endswith("replies"):
                answers[UUID(json.loads(row["body"])["causationid"])].add(row["id"])
    asked = {record.id for record in world.records if TOPICS_BY_NAME[record.topic].kind == "requests"}
    for message_id in asked | answers.keys():
        if len(answers[message_id]) != 1:
            yield f"{message_id} has {len(answers[message_id])} answers"


def nobody_lags(world: World, expected: Expected) -> Iterator[str]:
    """Every group is stable and has committed the end of all it reads."""
    yield from world.lag


def dead_letters_are_as_expected(world: World, expected: Expected) -> Iterator[str]:
    """Exactly so many, each counted once."""
    letters = {(record.topic, record.id) for record in world.records if record.topic.endswith(".dlq.v1")}
    counted = Counter(topic.removesuffix(".dlq.v1") for topic, _ in letters)
    if counted != Counter(expected.dead_letters):
        yield f"{dict(counted)}, expected {expected.dead_letters}"


def no_step_and_no_timer_is_late(world: World, expected: Expected) -> Iterator[str]:
    """Nothing waits past its deadline, and what waits has a deadline."""
    for service, rows in world.timers.items():
        for row in rows:
            if row["due_at"] < world.now - LATE:
                yield f"{service}: {row['type']} of {row['subject']} since {row['due_at']}"
    for row in world.tables["orders.purchases"]:
        if row["state"] not in ("enrolled", "ended") and (row["act_by"] is None or row["act_by"] < world.now - LATE):
            yield f"order {row['order_id']} is {row['state']} since {row['act_by']}"


# --- the business -------------------------------------------------------------------------------------------------


def every_order_stands_where_the_story_left_it(world: World, expected: Expected) -> Iterator[str]:
    """All orders there are, and no other."""
    states = {row["order_id"]: row["state"] for row in world.tables["orders.purchases"]}
    for order_id in states.keys() | expected.orders.keys():
        is_, should = states.get(order_id, "missing"), expected.orders.get(order_id, "unknown to the story")
        if is_ != should:
            yield f"{order_id} is {is_}, should be {should}"


def every_lesson_stands_where_the_story_left_it(world: World, expected: Expected) -> Iterator[str]:
    """What the story does not name is planned."""
    states = {(row["order_id"], row["lesson_no"]): row["state"] for row in world.tables["orders.lessons"]}
    for key in states.keys() | expected.lessons.keys():
        is_, should = states.get(key, "missing"), expected.lessons.get(key, "planned")
        if is_ != should:
            yield f"{key} is {is_}, should be {should}"


def what_is_enrolled_is_paid_seated_and_planned(world: World, expected: Expected) -> Iterator[str]:
    """In escrow, catalog and complaints, each in its own words; and nothing but that."""
    enrolled = {row["order_id"]: row for row in world.tables["orders.purchases"] if row["state"] == "enrolled"}
    paid = {row["order_id"]: row["paid_fen"] for row in world.tables["escrow.accounts"] if row["state"] == "held"}
    taken = [row for row in world.tables["catalog.reservations"] if row["state"] == "taken"]
    seated = {row["order_id"]: row["course_id"] for row in taken}
    known = {row["order_id"]: row["account_id"] for row in world.tables["complaints.orders"]}
    planned = Counter(row["order_id"] for row in world.tables["orders.lessons"])
    for order_id in enrolled.keys() | paid.keys() | seated.keys() | known.keys() | planned.keys():
        row = enrolled.get(order_id)
        should = (row["price_fen"], row["course_id"], row["account_id"], row["lessons"]) if row else "not enrolled"
        is_ = (paid.get(order_id), seated.get(order_id), known.get(order_id), planned[order_id])
        if is_ != should:
            yield f"{order_id}: paid, course, account, lessons are {is_}, should be {should}"


def lessons_agree_with_escrow(world: World, expected: Expected) -> Iterator[str]:
    """Paid out is paid by the bank; confirmed is on its way, or waits for a complaint; nothing else is in escrow."""
    payouts = {
        (row["order_id"], row["lesson_no"]): row["state"]
        for row in world.tables["escrow.instructions"]
        if row["kind"] == "payout"
    }
    may_be = {"paid_out": ("paid",), "confirmed": ("waiting", "sent")}
    for row in world.tables["orders.lessons"]:
        payout = payouts.pop((row["order_id"], row["lesson_no"]), "none")
        if payout not in may_be.get(row["state"], ("none",)):
            yield f"{row['order_id']} lesson {row['lesson_no']} is {row['state']}, its payout {payout}"
    for key in payouts:
        yield f"{key} is paid out and no lesson"


def seats_add_up(world: World, expected: Expected) -> Iterator[str]:
    """Reserved and taken are the reservations of the course."""
    held = Counter((row["course_id"], row["state"]) for row in world.tables["catalog.reservations"])
    for row in world.tables["catalog.courses"]:
        is_ = (row["reserved"], row["taken"])
        should = (held[row["course_id"], "reserved"], held[row["course_id"], "taken"])
        if is_ != should:
            yield f"{row['course_id']}: reserved, taken are {is_}, reservations {should}"


def every_complaint_holds_its_order(world: World, expected: Expected) -> Iterator[str]:
    """Filed once, told once, and its order's releases are suspended once for it."""
    filed = {row["filing_id"]: row["order_id"] for row in world.tables["complaints.filings"]}
    if filed != expected.complaints:
        yield f"filed are {filed}, should be {expected.complaints}"
    holds = {row["complaint_id"]: row["order_id"] for row in world.tables["escrow.suspensions"] if not row["ended"]}
    if holds != filed:
        yield f"suspended for {holds}, filed are {filed}"
    steps = Counter(row["filing_id"] for row in world.tables["complaints.steps"])
    told = Counter(UUID(data["filing_id"]) for data in world.events("complaints", "complaints.filing.moved.v1"))
    if steps != told:
        yield f"steps {dict(steps)}, told {dict(told)}"


# --- SMS ----------------------------------------------------------------------------------------------------------


def every_sms_went_out_once(world: World, expected: Expected) -> Iterator[str]:
    """A line in the file for each that was sent and none for the others; nothing due is left; nobody is told twice."""
    lines = Counter(UUID(line["sms_id"]) for line in world.sms)
    known = {row["id"]: row for row in world.tables["notify.sms"]}
    for sms_id in lines.keys() - known.keys():
        yield f"{sms_id} was sent and is unknown"
    for sms_id, row in known.items():
        if lines[sms_id] != (row["state"] == "sent"):
            yield f"{row['purpose']} {row['subject']} is {row['state']} and was sent {lines[sms_id]} times"
        if row["state"] in ("failed", "unknown", "sending"):
            yield f"{row['purpose']} {row['subject']} is {row['state']}"
        if row["state"] == "queued" and row["not_before"] <= world.now:
            yield f"{row['purpose']} {row['subject']} is due and queued"
    sent = [known[sms_id] for sms_id in lines.elements() if sms_id in known]
    wishes = Counter((row["recipient"], row["purpose"], row["subject"]) for row in sent)
    for wish, times in wishes.items():
        if times > 1:
            yield f"{wish} was told {times} times"


def everybody_is_told_what_happened(world: World, expected: Expected) -> Iterator[str]:
    """One SMS, sent or waiting for the morning, for each contract, lesson filed, payout and step of a complaint."""
    happened = {
        "contract.waiting": world.events("orders", "orders.contract.drawn.v1"),
        "lesson.waiting": world.events("orders", "orders.lesson.applied.v1"),
        "lesson.settled": world.events("escrow", "escrow.settled.v1"),
        "complaint.moved": world.events("complaints", "complaints.filing.moved.v1"),
    }
    rows = Counter((row["purpose"], row["recipient"]) for row in world.tables["notify.sms"])
    wanted = Counter((purpose, data["account_id"]) for purpose, some in happened.items() for data in some)
    for key in wanted.keys() | {key for key in rows if key[0] in happened}:
        if rows[key] != wanted[key]:
            yield f"{key}: {rows[key]} SMS, {wanted[key]} events"


CHECKS: Final[tuple[Finder, ...]] = (
    the_books_prove,
    every_order_is_balanced,
    the_banks_own_book_adds_up,
    the_bank_did_what_escrow_has_booked,
    the_bank_holds_what_the_ledger_says,
    each_lesson_is_released_at_most_once,
    nothing_waits_in_an_outbox,
    everything_said_stands_on_its_topic,
    nothing_stands_on_a_topic_that_was_not_said,
    each_key_keeps_its_order,
    each_key_has_one_partition,
    everybody_has_heard_what_is_for_him,
    every_request_is_answered_in_one_way,
    nobody_lags,
    dead_letters_are_as_expected,
    no_step_and_no_timer_is_late,
    every_order_stands_where_the_story_left_it,
    every_lesson_stands_where_the_story_left_it,
    what_is_enrolled_is_paid_seated_and_planned,
    lessons_agree_with_escrow,
    seats_add_up,
    every_complaint_holds_its_order,
    every_sms_went_out_once,
    everybody_is_told_what_happened,
)
