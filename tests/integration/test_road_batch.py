"""One poll without Kafka: records are handed to the consumer, and what it has committed is looked at at once."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord
from sqlalchemy import text

from ops.stack.servers import Servers
from shared.contracts.envelope import Message, Problem, content_hash
from shared.database import Database
from shared.ids import new_id
from shared.messaging import consume, sets
from shared.messaging.consume import Consumer
from shared.messaging.dead_letter import REPLAY_HEADER, DeadLetter
from shared.messaging.progress import Progress
from shared.messaging.work import UnitOfWork
from tests.roadkit import (
    COMMANDS,
    DEAD_LETTERS,
    EVENTS,
    GATEWAY_REPLIES,
    OTHERS_EVENTS,
    REQUESTS,
    SERVICE,
    Account,
    AccountRow,
    Ask,
    Balance,
    Hook,
    Noted,
    Put,
    Told,
    as_bytes,
    body,
    committed_rows,
    figures,
    make_database,
    make_handlers,
    no_hook,
    words_known,
)

Rows = list[dict[str, Any]]


class Poll:
    """A consumer on a database of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.progress = Progress()
        self.woken = 0
        self._offsets = itertools.count()

    def record(
        self, envelope: dict[str, Any] | bytes, topic: str = COMMANDS, key: bytes = b"k", replay_of: object = None
    ) -> Any:
        """The next record."""
        headers = ((REPLAY_HEADER, str(replay_of).encode()),) if replay_of else ()
        value = envelope if isinstance(envelope, bytes) else as_bytes(envelope)
        place: dict[str, Any] = {"topic": topic, "partition": 1, "offset": next(self._offsets), "timestamp": 7}
        more: dict[str, Any] = {"timestamp_type": 0, "checksum": None, "serialized_key_size": 0}
        return ConsumerRecord(**place, **more, serialized_value_size=0, key=key, value=value, headers=headers)

    async def give(self, *records: Any, hook: Hook = no_hook) -> Rows:
        """Has them handled as one poll; what it has put into the outbox, in order."""
        last = await self.rows("SELECT coalesce(max(seq), 0) AS seq FROM outbox")
        ring = cast(Any, None)  # nobody here shows a token
        consumer = Consumer(make_handlers(hook), self.database, ring, self.progress, self._wake)
        await consumer.handle(records)
        sql = "SELECT o.*, u.seq IS NOT NULL AS waits FROM outbox o LEFT JOIN unsent u USING (seq) WHERE seq > :seq"
        said = await self.rows(f"{sql} ORDER BY seq", seq=last[0]["seq"])
        assert all(row["waits"] for row in said)
        return [row | {"envelope": json.loads(row["body"])} for row in said]

    def _wake(self) -> None:
        self.woken += 1

    async def rows(self, sql: str, **parameters: Any) -> Rows:
        """What is committed."""
        return await committed_rows(self.database, sql, **parameters)

    async def numbers(self, account: UUID) -> list[int]:
        """What was handled for an account, in its order."""
        rows = await self.rows("SELECT number FROM road_entries WHERE account_id = :id ORDER BY seq", id=account)
        return [row["number"] for row in rows]

    async def known(self, envelope: dict[str, Any]) -> dict[str, Any]:
        """The row of the inbox for a message."""
        sql = "SELECT * FROM inbox WHERE consumer = :consumer AND message_id = :id"
        rows = await self.rows(sql, consumer=SERVICE, id=UUID(envelope["id"]))
        assert len(rows) == 1
        return rows[0]


@pytest.fixture(scope="module")
async def poll(servers: Servers) -> AsyncIterator[Poll]:
    """One for the tests of this module; ids are new in each."""
    async with make_database(servers) as database:
        with words_known():
            yield Poll(database)


async def bug(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Fails for good on a message that says so."""
    if any(message.data.act == "bug" for message in messages):
        raise ZeroDivisionError("a bug in the handler")


class Tries:
    """How often a handler was at work: a poll that had to be tried one by one shows."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        self.count += 1


def asked(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A request of a gateway."""
    return body(Ask(account_id=new_id(), number=number), replyto=GATEWAY_REPLIES, replypartition=0) | changes


def about(said: Rows) -> list[tuple[str, str]]:
    """Type and topic of what was said."""
    return [(row["type"], row["topic"]) for row in said]


# --- once -------------------------------------------------------------------------------------------------------------


async def test_a_poll_is_handled_in_its_order_and_answered_and_kept(poll: Poll) -> None:
    account = new_id()
    puts = [body(Put(account_id=account, number=number)) for number in (1, 2)]
    ask = asked(5)
    before, woken = poll.progress.moved, poll.woken
    said = await poll.give(*map(poll.record, puts), poll.record(ask, REQUESTS))
    assert await poll.numbers(account) == [1, 2]
    assert about(said) == [(Noted.TYPE, EVENTS), (Noted.TYPE, EVENTS), (Balance.TYPE, GATEWAY_REPLIES)]
    assert [row["envelope"]["causationid"] for row in said] == [puts[0]["id"], puts[1]["id"], ask["id"]]
    answer = said[2]
    assert (answer["key"], answer["partition"], answer["replyto"]) == (ask["partitionkey"], 0, "")
    kept = await poll.known(ask)
    assert (kept["body_hash"], kept["reply"], kept["parked"]) == (
        content_hash(Ask.TYPE, ask["data"]),
        answer["body"],
        None,
    )
    assert (await poll.known(puts[0]))["reply"] is None
    assert poll.woken == woken + 1
    assert poll.progress.moved > before


async def test_what_is_nobodys_business_wakes_nobody(poll: Poll) -> None:
    woken, before = poll.woken, poll.progress.moved
    foreign = body(Told(account_id=new_id(), number=1), type="orders.roadtest.gone.v1")
    assert await poll.give(poll.record(foreign, OTHERS_EVENTS)) == []
    assert await poll.give() == []
    assert poll.woken == woken
    assert poll.progress.moved > before, "many such polls are no standstill"


@pytest.mark.parametrize("at_once", [True, False])
async def test_the_same_again_is_answered_the_same_and_not_handled_again(poll: Poll, at_once: bool) -> None:
    ask = asked(3)
    later = ask | {"correlationid": str(new_id()), "replypartition": 2}
    records = poll.record(ask, REQUESTS), poll.record(later, REQUESTS)
    tries = Tries()
    if at_once:
        said = await poll.give(*records, hook=tries)
    else:
        said = [*await poll.give(records[0], hook=tries), *await poll.give(records[1], hook=tries)]
    assert tries.count == 1
    assert [(row["id"], row["type"], row["partition"]) for row in said] == [
        (said[0]["id"], Balance.TYPE, 0),
        (said[0]["id"], Balance.TYPE, 2),
    ]
    assert said[1]["correlationid"] == UUID(later["correlationid"])
    assert await poll.numbers(UUID(ask["data"]["account_id"])) == [3]
    assert (await poll.known(ask))["reply"] == said[0]["body"]


@pytest.mark.parametrize("at_once", [True, False])
async def test_the_same_id_for_something_else_is_a_conflict_and_changes_nothing(poll: Poll, at_once: bool) -> None:
    ask = asked(3)
    other = ask | {"data": ask["data"] | {"number": 4}}
    records = poll.record(ask, REQUESTS), poll.record(other, REQUESTS)
    tries = Tries()
    if at_once:
        said = await poll.give(*records, hook=tries)
    else:
        said = [*await poll.give(records[0], hook=tries), *await poll.give(records[1], hook=tries)]
    assert tries.count == 1
    assert [row["type"] for row in said] == [Balance.TYPE, Problem.TYPE]
    assert said[1]["envelope"]["data"]["code"] == "idempotency_conflict"
    (again,) = await poll.give(poll.record(ask, REQUESTS))
    assert again["id"] == said[0]["id"]
    assert await poll.numbers(UUID(ask["data"]["account_id"])) == [3]


async def test_a_repeat_that_wants_no_answer_gets_none(poll: Poll) -> None:
    put = body(Put(account_id=new_id(), number=1))
    assert len(await poll.give(poll.record(put))) == 1
    assert await poll.give(poll.record(put)) == []
    assert await poll.give(poll.record(put | {"data": put["data"] | {"number": 2}})) == []


@pytest.mark.parametrize("replyto", ["", COMMANDS])
async def test_a_repeat_gets_the_answer_only_where_it_may_go(poll: Poll, replyto: str) -> None:
    ask = asked(3)
    (answer,) = await poll.give(poll.record(ask, REQUESTS))
    assert answer["type"] == Balance.TYPE
    changed = ask | {"replyto": replyto}
    assert await poll.give(poll.record(changed, REQUESTS)) == []
    assert await poll.give(poll.record(changed | {"data": ask["data"] | {"number": 4}}, REQUESTS)) == []
    assert (await poll.known(ask))["reply"] == answer["body"]


async def test_a_refusal_does_not_undo_what_others_have_collected(poll: Poll) -> None:
    account, bad = new_id(), asked(-1)
    # What `Put` has collected is not written yet when the savepoint of `Ask` begins.
    said = await poll.give(poll.record(body(Put(account_id=account, number=5))), poll.record(bad, REQUESTS))
    assert [row["type"] for row in said] == [Noted.TYPE, Problem.TYPE]
    assert await poll.numbers(account) == [5]


async def test_a_refusal_undoes_its_message_alone(poll: Poll) -> None:
    good, bad = asked(1), asked(-1)
    said = await poll.give(poll.record(bad, REQUESTS), poll.record(good, REQUESTS))
    assert [row["type"] for row in said] == [Problem.TYPE, Balance.TYPE]
    assert said[0]["envelope"]["data"]["figures"] == {"number": -1}
    assert await poll.numbers(UUID(bad["data"]["account_id"])) == []
    assert (await poll.known(bad))["reply"] == said[0]["body"]


async def test_a_request_that_comes_too_late_is_refused(poll: Poll) -> None:
    late, timely = asked(1, expirytime="2026-01-05T08:00:00Z"), asked(1, expirytime="2199-01-05T08:00:00Z")
    said = await poll.give(poll.record(late, REQUESTS), poll.record(timely, REQUESTS))
    assert {row["envelope"]["causationid"]: row["envelope"]["data"].get("code") for row in said} == {
        late["id"]: "request_expired",
        timely["id"]: None,
    }
    assert await poll.numbers(UUID(late["data"]["account_id"])) == []


async def test_whatever_reads_sees_what_its_message_has_written(poll: Poll) -> None:
    first, second = new_id(), new_id()
    seen: list[Any] = []

    async def look(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        # `write` of the service has collected an entry and a new total that are not written yet.
        count = text("SELECT count(*) FROM road_entries WHERE account_id = :id")
        seen.append((await (await work.connection()).execute(count, {"id": first})).scalar_one())
        work.insert(AccountRow, [Account(second, 7)])
        seen.append(await work.insert_new(AccountRow, Account(second, 8)))
        third = new_id()
        seen.append(await work.insert_new(AccountRow, Account(third, 9)))
        work.insert(AccountRow, [Account(new_id(), 9)])
        before = work.loading_s
        seen.append(sorted(row.total for row in await work.load_all(AccountRow, Account, [first, second, third])))
        seen.append(0 < work.loading_s - before < 60)
        seen.append(len(await work.load_all(AccountRow, Account, [9], by=("total",), lock=False)))

    await poll.give(poll.record(body(Put(account_id=first, number=5))), hook=look)
    assert seen == [1, False, True, [5, 7, 9], True, 2]


async def test_what_is_loaded_is_locked_until_the_commit_unless_it_is_only_looked_at(poll: Poll) -> None:
    accounts = [new_id() for _ in range(6)]
    await poll.give(*(poll.record(body(Put(account_id=account, number=1))) for account in accounts))
    free: list[UUID] = []

    async def look(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        for position, load in enumerate((work.load, work.load_all)):
            await load(AccountRow, Account, [accounts[position]])
            await load(AccountRow, Account, [accounts[2 + position]], lock=False)
        await sets.load(work.session, AccountRow, Account, [accounts[4]])
        await sets.load_all(work.session, AccountRow, Account, [accounts[5]])
        sql = "SELECT account_id FROM road_accounts WHERE account_id = ANY(:ids) FOR UPDATE SKIP LOCKED"
        free.extend(row["account_id"] for row in await poll.rows(sql, ids=accounts))

    await poll.give(poll.record(body(Put(account_id=new_id(), number=1))), hook=look)
    assert set(free) == {accounts[2], accounts[3]}


async def test_a_handler_is_told_of_which_service_when_and_whose_policy(poll: Poll) -> None:
    seen: list[Any] = []

    async def look(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        seen.extend((work.service, work.region, work.now))

    put = body(Put(account_id=new_id(), number=1))
    await poll.give(poll.record(put), hook=look)
    assert seen == [SERVICE, "changzhou", (await poll.known(put))["received_at"]]


async def test_a_row_that_is_there_already_is_a_fault_unless_it_is_to_be_ignored(poll: Poll) -> None:
    account = new_id()
    await poll.give(poll.record(body(Put(account_id=account, number=1))))

    async def insert_again(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        work.insert(AccountRow, [Account(account, 0)])

    (letter,) = await poll.give(poll.record(body(Put(account_id=account, number=2))), hook=insert_again)
    assert letter["envelope"]["data"]["exception"] == "IntegrityError"
    assert await poll.numbers(account) == [1]


async def test_a_record_twice_in_a_poll_that_is_no_message_is_one_letter(poll: Poll) -> None:
    record = poll.record(b"no json")
    assert [row["type"] for row in await poll.give(record, record)] == [DeadLetter.TYPE]


async def test_a_poll_is_measured_stage_by_stage_and_its_messages_are_counted(poll: Poll) -> None:
    puts = [poll.record(body(Put(account_id=new_id(), number=number))) for number in (1, 2)]
    before = figures()
    await poll.give(*puts, poll.record(asked(-1), REQUESTS), puts[0])
    done = figures() - before
    assert done == {
        **{f"stage_seconds_count {stage}": 1 for stage in ("decode", "inbox", "load", "decide", "save", "commit")},
        **{f"handler_seconds_count {name}": 1 for name in ("on_put", "on_ask")},
        "batch_messages_count": 1,
        "messages_repeated_total": 1,
        f"messages_handled_total {Put.TYPE}": 2,
        f"messages_handled_total {Ask.TYPE}": 1,
        f"messages_refused_total amount_invalid {Ask.TYPE}": 1,
    }


# --- what can never be handled ----------------------------------------------------------------------------------------


async def test_a_bug_parks_its_message_and_its_neighbours_are_handled(poll: Poll) -> None:
    account = new_id()
    first, bad, last = (body(Put(account_id=account, number=n, act=act)) for n, act in ((1, ""), (2, "bug"), (3, "")))
    parked = poll.record(bad, key=b"x" * 300)
    before = figures()
    said = await poll.give(poll.record(first), parked, poll.record(last), hook=bug)
    assert (figures() - before)["messages_parked_total handler_failed"] == 1
    assert await poll.numbers(account) == [1, 3]
    assert about(said) == [(Noted.TYPE, EVENTS), (DeadLetter.TYPE, DEAD_LETTERS), (Noted.TYPE, EVENTS)]
    letter = said[1]
    assert letter["key"] == "x" * 200
    data = letter["envelope"]["data"]
    assert (data["consumer"], data["reason"], data["exception"]) == (SERVICE, "handler_failed", "ZeroDivisionError")
    assert (data["topic"], data["partition"], data["offset"]) == (COMMANDS, 1, parked.offset)
    assert letter["envelope"]["causationid"] == bad["id"]
    assert (await poll.known(bad))["parked"] == UUID(data["letter_id"])
    assert (await poll.known(first))["parked"] is None


async def test_of_two_the_one_that_can_be_handled_is(poll: Poll) -> None:
    account = new_id()
    bad, good = body(Put(account_id=account, number=1, act="bug")), body(Put(account_id=account, number=2))
    said = await poll.give(poll.record(bad), poll.record(good), hook=bug)
    assert [row["type"] for row in said] == [DeadLetter.TYPE, Noted.TYPE]
    assert await poll.numbers(account) == [2]


async def test_the_sender_of_what_is_parked_is_told_where_it_may_be(poll: Poll) -> None:
    failing = asked(data={"account_id": str(new_id()), "number": 1, "act": "bug"})
    said = await poll.give(poll.record(failing, REQUESTS), hook=bug)
    assert [row["type"] for row in said] == [Problem.TYPE, DeadLetter.TYPE]
    assert said[0]["envelope"]["data"]["code"] == "internal_error"
    said = await poll.give(poll.record(asked(type="escrow.roadtest.gone.v1"), REQUESTS))
    assert [row["type"] for row in said] == [Problem.TYPE, DeadLetter.TYPE]
    assert said[0]["envelope"]["data"]["code"] == "type_unknown"
    said = await poll.give(poll.record(asked(replyto=COMMANDS), REQUESTS))
    assert [row["type"] for row in said] == [DeadLetter.TYPE]
    assert said[0]["envelope"]["data"]["reason"] == "replyto_forbidden"
    said = await poll.give(poll.record(b"no json"))
    assert [row["type"] for row in said] == [DeadLetter.TYPE]
    assert "causationid" not in said[0]["envelope"]


async def test_bad_data_is_told_to_who_sent_it_and_is_nobodys_letter(poll: Poll) -> None:
    bad = asked(data={"account_id": "17"})
    (answer,) = await poll.give(poll.record(bad, REQUESTS))
    assert answer["envelope"]["data"]["code"] == "request_invalid"
    assert (await poll.known(bad))["parked"] is None
    assert (await poll.known(bad))["reply"] == answer["body"]
    (again,) = await poll.give(poll.record(bad, REQUESTS))
    assert again["id"] == answer["id"]


async def test_a_parked_message_is_handled_once_by_the_replay_of_its_last_letter(poll: Poll) -> None:
    account = new_id()
    bad = body(Put(account_id=account, number=1, act="bug"))
    first = (await poll.give(poll.record(bad), hook=bug))[0]["envelope"]["data"]["letter_id"]
    (second,) = await poll.give(poll.record(bad, replay_of=first), hook=bug)
    last = second["envelope"]["data"]["letter_id"]
    assert last != first
    assert await poll.give(poll.record(bad, replay_of=first)) == [], "an old letter"
    assert await poll.give(poll.record(bad)) == [], "the message itself"
    assert await poll.numbers(account) == []
    (noted,) = await poll.give(poll.record(bad), poll.record(bad, replay_of=first), poll.record(bad, replay_of=last))
    assert noted["type"] == Noted.TYPE
    assert await poll.numbers(account) == [1]
    assert (await poll.known(bad))["parked"] is None
    assert await poll.give(poll.record(bad, replay_of=last)) == []


# --- faults that pass -------------------------------------------------------------------------------------------------


async def test_a_fault_that_passes_is_tried_again_with_all_of_the_poll(poll: Poll) -> None:
    account, tries = new_id(), 0
    moved: list[float] = []

    async def fail_twice(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        nonlocal tries
        tries += 1
        moved.append(poll.progress.moved)
        if tries <= 2:
            await (await work.connection()).execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))

    puts = [poll.record(body(Put(account_id=account, number=number))) for number in (1, 2)]
    before = figures()
    async with asyncio.timeout(5):
        said = await poll.give(*puts, hook=fail_twice)
    assert tries == 3
    assert (figures() - before)["batches_retried_total"] == 2
    assert moved[0] < moved[1] < moved[2] < poll.progress.moved, "who tries again does not stand still"
    assert await poll.numbers(account) == [1, 2]
    assert [row["type"] for row in said] == [Noted.TYPE, Noted.TYPE]


async def test_between_two_tries_there_is_a_pause(poll: Poll, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "FIRST_PAUSE_S", 600.0)
    tries = Tries()
    tried = asyncio.Event()

    async def fail(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        await tries(work, messages)
        tried.set()
        await (await work.connection()).execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))

    giving = asyncio.create_task(poll.give(poll.record(body(Put(account_id=new_id(), number=1))), hook=fail))
    async with asyncio.timeout(5):
        await tried.wait()
    await asyncio.sleep(0.2)
    assert tries.count == 1
    giving.cancel()
    await asyncio.wait({giving})


async def test_where_even_parking_fails_the_road_stops_and_skips_nothing(poll: Poll) -> None:
    bad = body(Put(account_id=new_id(), number=1, act="bug"))
    await poll.rows("ALTER TABLE outbox ADD CONSTRAINT no_letters CHECK (topic NOT LIKE '%dlq%') NOT VALID")
    try:
        with pytest.raises(Exception, match="no_letters"):
            await poll.give(poll.record(bad), hook=bug)
    finally:
        await poll.rows("ALTER TABLE outbox DROP CONSTRAINT no_letters")
    assert await poll.rows("SELECT 1 FROM inbox WHERE message_id = :id", id=UUID(bad["id"])) == []
