"""Consume: one poll, one transaction, one offset commit; each message once; what can never be handled is parked."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from shared.contracts import topics
from shared.contracts.envelope import Message
from shared.ids import new_id
from shared.messaging.dead_letter import REPLAY_HEADER, DeadLetter, original_body
from shared.messaging.work import UnitOfWork
from shared.service import Service
from tests.roadkit import (
    COMMANDS,
    DEAD_LETTERS,
    GATEWAY_REPLIES,
    OTHERS_EVENTS,
    REQUESTS,
    SERVICE,
    Ask,
    Balance,
    Noted,
    Put,
    Remind,
    Road,
    Told,
    as_bytes,
    body,
    figures,
    letters_of,
    make_handlers,
    on_other_partitions,
    partition_of,
    road,
)

__all__ = ["road"]

Record = dict[str, Any]
FAILED = ("handler_failed", "ZeroDivisionError")


async def bug(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Fails for good on a message that says so."""
    if any(message.data.act == "bug" for message in messages):
        raise ZeroDivisionError("a bug in the handler")


@pytest.fixture(scope="class")
async def service(road: Road) -> AsyncIterator[Road]:
    """The service, running, with its bug."""
    async with road.serve(bug):
        yield road


def to_gateway(data: Any, **changes: Any) -> Record:
    """The envelope of a request of the test gateway."""
    return body(data, replyto=GATEWAY_REPLIES, replypartition=0, **changes)


async def publish(road: Road, envelope: Record, topic: str = REQUESTS) -> UUID:
    """Publishes an envelope; its id."""
    await road.publish_record(topic, as_bytes(envelope), key=envelope["partitionkey"].encode())
    return UUID(envelope["id"])


class TestOnePoll:
    async def test_a_poll_is_one_transaction_and_its_offsets_are_committed_once_it_is(self, road: Road) -> None:
        accounts = on_other_partitions()
        for number in range(1, 101):
            for account in accounts:
                await road.producer.send(
                    road.client_settings.namespace + COMMANDS,
                    as_bytes(body(Put(account_id=account, number=number))),
                    key=str(account).encode(),
                )
        await road.producer.flush()
        calls: list[int] = []

        async def count(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
            calls.append(len(messages))

        async with road.serve(count):
            for account in accounts:
                await road.expect_numbers(account, *range(1, 101))
            await road.expect_quiet()
        assert sum(calls) == 300
        assert max(calls) >= 100
        transactions = await road.rows(
            SERVICE, "SELECT DISTINCT xmin FROM road_entries WHERE account_id = ANY($1)", accounts
        )
        assert len(transactions) == len(calls)
        for account in accounts:
            assert [noted.number for noted in road.seen(Noted, key=account)] == list(range(1, 101))


class TestOnce:
    async def test_messages_of_one_key_are_handled_in_order_whatever_their_types(self, service: Road) -> None:
        account = new_id()
        for number in range(1, 21):
            data = Put(account_id=account, number=number) if number % 3 else Remind(account_id=account, number=number)
            await service.publish(data)
        await service.expect_numbers(account, *range(1, 21))

    async def test_a_message_sent_again_is_not_handled_again_and_gets_the_stored_answer(self, service: Road) -> None:
        account = new_id()
        envelope = to_gateway(Ask(account_id=account, number=5))
        message = await publish(service, envelope)
        first = (await service.expect_answer(message))[0]
        await service.put(account, 2)
        await service.expect_numbers(account, 5, 2)
        # Another time, another token, other order of fields: the same question.
        again = dict(reversed(envelope.items())) | {"time": "2026-01-05T09:00:00Z", "actortoken": "fresh"}
        await publish(service, again | {"data": dict(reversed(envelope["data"].items()))})
        second = (await service.expect_answer(message, times=2))[1]
        assert (first["id"], first["type"], first["data"]) == (second["id"], second["type"], second["data"])
        assert second["data"]["total"] == 5
        assert dict(second["_headers"])["ce_type"] == Balance.TYPE.encode()
        assert dict(second["_headers"])["ce_id"].decode() == second["id"]
        await service.expect_numbers(account, 5, 2)

    async def test_a_message_twice_in_one_poll_is_handled_once_and_both_are_answered(self, service: Road) -> None:
        account = new_id()
        envelope = to_gateway(Ask(account_id=account, number=5))
        await asyncio.gather(publish(service, envelope), publish(service, envelope | {"replypartition": 1}))
        answers = await service.expect_answer(UUID(envelope["id"]), times=2)
        assert {answer["_partition"] for answer in answers} == {0, 1}
        await service.expect_numbers(account, 5)

    async def test_an_id_that_asks_something_else_is_refused_and_the_stored_answer_stays(self, service: Road) -> None:
        account = new_id()
        envelope = to_gateway(Ask(account_id=account, number=5))
        message = await publish(service, envelope)
        await service.expect_answer(message)
        await publish(service, to_gateway(Ask(account_id=account, number=6), id=str(message)))
        refusal = (await service.expect_answer(message, times=2))[1]["data"]
        assert (refusal["code"], refusal["title"], refusal["retryable"]) == (
            "idempotency_conflict",
            "同一编号的请求内容不一致",
            False,
        )
        await publish(service, envelope)
        assert (await service.expect_answer(message, times=3))[2]["data"]["total"] == 5
        await service.expect_numbers(account, 5)

    async def test_two_questions_of_one_id_in_one_poll_the_first_counts(self, road: Road, service: Road) -> None:
        account, id_ = new_id(), new_id()
        asks = [to_gateway(Ask(account_id=account, number=number), id=str(id_)) for number in (5, 6)]
        await asyncio.gather(*(publish(service, ask) for ask in asks))
        first, second = await service.expect_answer(id_, times=2)
        assert {first["type"], second["type"]} == {Balance.TYPE, "problem.v1"}
        await service.expect_numbers(account, 5)

    async def test_an_idempotency_key_makes_two_messages_one_and_each_is_answered(self, service: Road) -> None:
        account = new_id()
        asks = [to_gateway(Ask(account_id=account, number=5), idempotencykey=f"key {account}") for _ in range(3)]
        first = (await service.expect_answer(await publish(service, asks[0])))[0]
        await asyncio.gather(*(publish(service, ask) for ask in asks[1:]))
        for ask in asks[1:]:
            answer = (await service.expect_answer(UUID(ask["id"])))[0]
            assert answer["data"] == first["data"]
            assert answer["correlationid"] == ask["correlationid"]
        await service.expect_numbers(account, 5)

    async def test_all_topics_published_once_more_change_nothing(self, service: Road) -> None:
        account = new_id()
        await service.put(account, 1, 2, 3)
        await publish(service, to_gateway(Ask(account_id=account, number=4)))
        await service.publish_record(COMMANDS, b"no json")
        await service.expect_quiet()
        before = await service.content(SERVICE)
        inbox = "SELECT message_id, parked, reply FROM inbox WHERE parked IS NULL ORDER BY message_id"
        known = await service.rows(SERVICE, inbox)
        letters, events = len(service.on(DEAD_LETTERS)), len(service.seen(Noted))
        unreadable = [one for one in service.recorded if one["type"] == "unreadable"]
        assert await service.publish_again(REQUESTS, COMMANDS, OTHERS_EVENTS) > len(unreadable)
        await service.expect_quiet()
        assert await service.content(SERVICE) == before
        assert await service.rows(SERVICE, inbox) == known
        assert len(service.seen(Noted)) == events
        # Only what has no readable id is parked again: nobody can know it again.
        assert len(service.on(DEAD_LETTERS)) == letters + len(unreadable)


def a_put(**changes: Any) -> bytes:
    """A command as bytes, with `changes` of its envelope."""
    return as_bytes(body(Put(account_id=new_id(), number=1)) | changes)


def nested(levels: int) -> bytes:
    """A command with a list in a list in a list …"""
    return a_put().replace(b'"act": ""', b'"act": ' + b"[" * levels + b"]" * levels)


POISON: dict[str, tuple[bytes | None, str, str]] = {
    "a null body": (None, "bad_json", "Poison"),
    "an empty body": (b"", "bad_json", "Poison"),
    "half a body": (a_put()[:100], "bad_json", "Poison"),
    "a list": (b"[1]", "bad_json", "Poison"),
    "bytes that are not UTF-8": (b'{"type": "\xff"}', "bad_json", "Poison"),
    "not a number": (b'{"type": NaN}', "bad_json", "Poison"),
    "nesting without end": (nested(50_000), "bad_json", "Poison"),
    "nesting a reader bears": (nested(150), "bad_data", "Poison"),
    "a number of 4000 digits": (a_put(time=10**4000), "bad_envelope", "Poison"),
    "a partition of 4000 digits": (a_put(replypartition=10**4000), "bad_envelope", "Poison"),
    "no envelope": (b"{}", "bad_envelope", "Poison"),
    "an id that is none": (a_put(id="17"), "bad_envelope", "Poison"),
    "another specversion": (a_put(specversion="2.0"), "bad_envelope", "Poison"),
    "a type that is a list": (a_put(type=["x"]), "bad_envelope", "Poison"),
    "a NUL in the key": (a_put(partitionkey="a\0b"), "bad_data", "Poison"),
    "a NUL in the type": (a_put(type="a\0b"), "bad_data", "Poison"),
    "an expiry without a zone": (a_put(expirytime="2026-01-05T08:00:00"), "bad_envelope", "Poison"),
    "an unknown type": (a_put(type="escrow.roadtest.gone.v1"), "type_unknown", "Poison"),
    "an unknown version": (a_put(type="escrow.roadtest.put.v2"), "type_unknown", "Poison"),
    "a request among the commands": (as_bytes(body(Ask(account_id=new_id(), number=1))), "type_unknown", "Poison"),
    "data that does not fit": (a_put(data={"number": []}), "bad_data", "Poison"),
    "no data": (a_put(data=None), "bad_data", "Poison"),
    "a replyto that is not for replies": (a_put(replyto=COMMANDS), "replyto_forbidden", "Poison"),
    "a replyto nobody has": (a_put(replyto="gateway.nobody.replies.v1"), "replyto_forbidden", "Poison"),
    "a replyto without such a partition": (
        a_put(replyto=GATEWAY_REPLIES, replypartition=4000),
        "replyto_forbidden",
        "Poison",
    ),
    "a bug in the handler": (a_put(data={"account_id": str(new_id()), "number": 1, "act": "bug"}), *FAILED),
    "a number no column holds": (
        a_put(data={"account_id": str(new_id()), "number": 2**63}),
        "handler_failed",
        "DBAPIError",
    ),
    "a body over the limit": (b'{"x": "' + b"y" * topics.MAX_MESSAGE_BYTES + b'"}', "too_large", "Poison"),
    "a body just within the limit": (b"{" + b" " * (topics.MAX_MESSAGE_BYTES - 1), "bad_json", "Poison"),
    "a body that nearly fills a record": (b"y" * 1_040_000, "too_large", "Poison"),
}


class TestWhatCanNeverBeHandled:
    @pytest.mark.parametrize("name", POISON)
    async def test_is_parked_with_its_reason_and_its_neighbours_go_on(self, service: Road, name: str) -> None:
        value, reason, exception = POISON[name]
        account = new_id()
        key = str(account).encode()
        before, after = (body(Put(account_id=account, number=number)) for number in (1, 2))
        headers = [("note", b"\xff\xfe 16 raw bytes"), ("plain", b"text")]
        topic = service.client_settings.namespace + COMMANDS
        await service.producer.send(topic, as_bytes(before), key=key)
        parked = await service.producer.send(topic, value, key=key, headers=headers)
        await service.producer.send(topic, as_bytes(after), key=key)
        partition, offset = (await parked).partition, (await parked).offset
        letter = await service.expect_letter(topic=topic, partition=partition, offset=offset)
        await service.expect_numbers(account, 1, 2)
        assert (letter.consumer, letter.reason, letter.exception) == (SERVICE, reason, exception)
        assert letter.key == str(account)
        assert dict(letter.headers) == {"note": "\\xff\\xfe 16 raw bytes", "plain": "text"}
        body_kept = original_body((await envelope_of_letter(service, letter))["data"])
        assert letter.body_bytes == len(value or b"")
        assert (value or b"").startswith(body_kept)
        assert len(body_kept) >= min(len(value or b""), topics.MAX_MESSAGE_BYTES)
        marked = await service.rows(SERVICE, "SELECT 1 FROM inbox WHERE parked = $1", letter.letter_id)
        assert len(marked) == 1

    @pytest.mark.parametrize(
        ("key", "headers"),
        [
            (b"a\0b", []),
            (b"\xff" * 900, []),
            (b"k" * 200_000, [("big", b"\xff" * 500_000)]),
            (None, [("\x01", b"\x01" * 100_000)]),
            (b"k", [("", b"")] * 100_000),
        ],
        ids=["NUL", "not UTF-8", "big", "control characters", "many headers"],
    )
    async def test_is_parked_whatever_its_key_and_headers(
        self, service: Road, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        partition, offset = await service.publish_record(COMMANDS, b"no json", key=key, headers=headers, partition=1)
        topic = service.client_settings.namespace + COMMANDS
        letter = await service.expect_letter(topic=topic, partition=partition, offset=offset)
        assert (letter.reason, letter.body) == ("bad_json", b"no json")

    async def test_the_sender_of_bad_data_is_told_every_fault_and_nobody_else_is_bothered(self, service: Road) -> None:
        letters = len(service.on(DEAD_LETTERS))
        ask = to_gateway(Ask(account_id=new_id(), number=1)) | {"data": {"account_id": "17", "number": "one"}}
        problem = (await service.expect_answer(await publish(service, ask)))[0]["data"]
        assert (problem["code"], problem["title"], problem["retryable"]) == ("request_invalid", "请求内容有误", False)
        assert {fault["field"] for fault in problem["errors"]} == {"data.account_id", "data.number"}
        await service.expect_quiet()
        assert len(service.on(DEAD_LETTERS)) == letters

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"type": "escrow.roadtest.gone.v1"}, "type_unknown"),
            ({"data": {"account_id": str(new_id()), "number": 1, "act": "bug"}}, "internal_error"),
        ],
    )
    async def test_the_sender_of_what_is_parked_is_told(
        self, service: Road, changes: dict[str, Any], code: str
    ) -> None:
        ask = to_gateway(Ask(account_id=new_id(), number=1)) | changes
        id_ = await publish(service, ask)
        assert (await service.expect_answer(id_))[0]["data"]["code"] == code
        await service.expect_envelope(lambda e: e["type"] == DeadLetter.TYPE and e.get("causationid") == str(id_))

    async def test_a_command_on_the_topic_of_requests_is_refused_and_does_nothing(self, service: Road) -> None:
        account = new_id()
        id_ = await publish(service, to_gateway(Put(account_id=account, number=1)))
        assert (await service.expect_answer(id_))[0]["data"]["code"] == "type_unknown"
        assert await service.numbers(account) == []

    async def test_on_the_topics_of_others_an_unknown_type_is_nobodys_business(self, service: Road) -> None:
        account = new_id()
        foreign = body(Told(account_id=account, number=1), type="orders.roadtest.gone.v1")
        await publish(service, foreign, OTHERS_EVENTS)
        await service.publish(Told(account_id=account, number=2))
        await service.expect_numbers(account, 2)
        assert await service.rows(SERVICE, "SELECT 1 FROM inbox WHERE message_id = $1", UUID(foreign["id"])) == []

    async def test_a_fault_that_does_not_pass_stops_its_partition_only_as_long_as_it_takes_to_park(
        self, service: Road
    ) -> None:
        good, bad = new_id(), new_id()
        for number in range(1, 11):
            await service.put(good, number)
            await service.put(bad, number, act="bug" if number in (3, 7) else "")
        await service.expect_numbers(good, *range(1, 11))
        await service.expect_numbers(bad, *(number for number in range(1, 11) if number not in (3, 7)))
        await service.until(lambda: len(letters_of(service, bad)) == 2)


class TestReplay:
    async def test_a_parked_message_is_handled_once_by_the_replay_of_its_letter(self, road: Road) -> None:
        account = new_id()
        async with road.serve(bug):
            (id_,) = await road.put(account, 7, act="bug")
            letter = await letter_of(road, account)
        async with road.serve():  # mended
            replay = await parked_body(road, letter)
            await road.publish_record(COMMANDS, replay, key=str(account).encode())
            other = [(REPLAY_HEADER, str(new_id()).encode())]
            await road.publish_record(COMMANDS, replay, key=str(account).encode(), headers=other)
            await road.put(account, 1)
            await road.expect_numbers(account, 1)
            header = [(REPLAY_HEADER, str(letter.letter_id).encode())]
            for _ in range(3):
                await road.publish_record(COMMANDS, replay, key=str(account).encode(), headers=header)
            await road.put(account, 2)
            await road.expect_numbers(account, 1, 7, 2)
        assert await road.rows(SERVICE, "SELECT 1 FROM inbox WHERE message_id = $1 AND parked IS NOT NULL", id_) == []

    async def test_the_original_in_the_same_poll_does_not_swallow_the_replay(self, road: Road) -> None:
        account = new_id()
        async with road.serve(bug):
            await road.put(account, 7, act="bug")
            letter = await letter_of(road, account)
            await road.expect_quiet()
        replay = await parked_body(road, letter)
        # As after a crash before the offsets were committed: the original comes again.
        await road.publish_record(COMMANDS, replay, key=str(account).encode())
        header = [(REPLAY_HEADER, str(letter.letter_id).encode())]
        await road.publish_record(COMMANDS, replay, key=str(account).encode(), headers=header)
        async with road.serve():
            await road.expect_numbers(account, 7)

    async def test_a_replay_that_fails_again_is_a_new_letter_which_can_be_replayed(self, road: Road) -> None:
        account = new_id()
        async with road.serve(bug):
            await road.put(account, 7, act="bug")
            first = await letter_of(road, account)
            header = [(REPLAY_HEADER, str(first.letter_id).encode())]
            await road.publish_record(
                COMMANDS, await parked_body(road, first), key=str(account).encode(), headers=header
            )
            await road.until(lambda: len(letters_of(road, account)) == 2)
        second = letters_of(road, account)[1]
        async with road.serve():
            for letter in (first, second):
                header = [(REPLAY_HEADER, str(letter.letter_id).encode())]
                await road.publish_record(
                    COMMANDS, await parked_body(road, letter), key=str(account).encode(), headers=header
                )
            await road.expect_numbers(account, 7)
            await road.expect_quiet()
            await road.expect_numbers(account, 7)


class TestPassingFaults:
    async def test_are_tried_again_until_they_pass_and_nothing_is_parked(self, road: Road) -> None:
        accounts = {state: new_id() for state in ("40001", "40P01", "53100", "57P01", "55P03", "25006", "08006")}
        tries: Counter[str] = Counter()
        retried = figures()["batches_retried_total"]

        async def fail_twice(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
            for state in {message.data.act for message in messages}:
                tries[state] += 1
                if tries[state] <= 2:
                    await execute(work, f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")

        async with road.serve(fail_twice):
            for state, account in accounts.items():  # one after the other: pauses grow with every try of one batch
                await road.put(account, 1, 2, 3, act=state)
                await road.expect_numbers(account, 1, 2, 3)
            await road.expect_quiet()
        assert figures()["batches_retried_total"] - retried >= 2 * len(accounts)
        for state, account in accounts.items():
            assert tries[state] >= 3
            assert letters_of(road, account) == []
            assert [noted.number for noted in road.seen(Noted, key=account)] == [1, 2, 3]

    async def test_a_backend_ended_in_the_middle_of_a_batch_costs_a_try_and_nothing_else(self, road: Road) -> None:
        account, tries = new_id(), 0

        async def lose_the_connection(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
            nonlocal tries
            tries += 1
            if tries <= 2:
                backend = (await execute(work, "SELECT pg_backend_pid()")).scalar_one()
                await road.rows(SERVICE, "SELECT pg_terminate_backend($1)", backend)
                await execute(work, "SELECT 1")

        await road.put(account, *range(1, 51))
        async with road.serve(lose_the_connection):
            await road.expect_numbers(account, *range(1, 51))
            await road.expect_quiet()
        assert tries >= 3
        assert letters_of(road, account) == []
        assert len(road.seen(Noted, key=account)) == 50

    async def test_two_copies_that_lock_in_opposite_orders_both_get_through(self, road: Road) -> None:
        rows: dict[UUID, UUID] = {}
        met = asyncio.Barrier(2)
        calls = 0

        async def lock_the_other(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
            nonlocal calls
            calls += 1
            if calls <= 2:
                await asyncio.wait_for(met.wait(), 10)  # each now holds the row the other is about to ask for
            for message in messages:
                other = {"id": rows[message.data.account_id]}
                await execute(work, "SELECT 1 FROM road_accounts WHERE account_id = :id FOR UPDATE", **other)

        quick: dict[str, Any] = {"session_timeout_ms": 6000}
        async with road.serve(lock_the_other, **quick) as one, road.serve(lock_the_other, **quick) as two:
            await settled(road, one, two)
            first, second = one_for_each(one, two)
            rows |= {first: second, second: first}
            await road.rows(
                SERVICE, "INSERT INTO road_accounts SELECT unnest($1::uuid[]), 0 ON CONFLICT DO NOTHING", [*rows]
            )
            await asyncio.gather(road.put(first, 1), road.put(second, 1))
            await road.expect_numbers(first, 1)
            await road.expect_numbers(second, 1)
        assert calls >= 3
        assert letters_of(road, first) + letters_of(road, second) == []


class TestFigures:
    async def test_what_an_operator_reads_is_what_was_done(self, service: Road) -> None:
        account = new_id()
        await service.expect_quiet()
        before = figures()
        asked = to_gateway(Ask(account_id=account, number=-1))
        await publish(service, asked)
        await service.expect_answer(UUID(asked["id"]))
        await service.put(account, 1)
        await service.expect_numbers(account, 1)
        await publish(service, asked)
        await service.put(account, 2, act="bug")
        await service.until(lambda: letters_of(service, account))
        await service.expect_quiet()
        await service.until(lambda: figures()["relay_rows_total"] - before["relay_rows_total"] >= 4)
        done = figures() - before
        assert done["messages_handled_total " + Put.TYPE] == 1
        assert done["messages_handled_total " + Ask.TYPE] == 1
        assert done["messages_refused_total amount_invalid " + Ask.TYPE] == 1
        assert done["messages_parked_total handler_failed"] == 1
        assert done["messages_repeated_total"] == 1
        # A refusal, an event, the refusal again, a letter.
        assert done["relay_rows_total"] == 4
        polls = done["batch_messages_count"]
        assert polls == 4
        for stage in ("decode", "inbox", "load", "decide", "save", "commit"):
            assert done[f"stage_seconds_count {stage}"] >= polls, stage
        for stage in ("relay_read", "relay_send", "relay_mark"):
            assert done[f"stage_seconds_count {stage}"] >= 1, stage
        assert done["handler_seconds_count on_put"] == 1
        assert done["handler_seconds_count on_ask"] == 1
        assert figures()["relay_leader"] == 1
        assert figures()["outbox_oldest_unsent_seconds"] == 0


def one_for_each(*copies: Service) -> list[UUID]:
    """An account for each copy, with its commands on a partition that this copy holds."""
    accounts = on_other_partitions()
    held = [
        {tp.partition for tp in copy.subscriber.consumer.assignment() if tp.topic.endswith(COMMANDS)}
        for copy in copies
        if copy.subscriber.consumer is not None
    ]
    return [next(account for account in accounts if partition_of(account) in mine) for mine in held]


async def execute(work: UnitOfWork, sql: str, **parameters: Any) -> Any:
    """Runs SQL in the transaction of a batch."""
    return await (await work.connection()).execute(text(sql), parameters)


async def settled(road: Road, *copies: Service) -> None:
    """Waits until the partitions are shared out among the copies."""
    total = len(await road.ends(*(road.client_settings.namespace + topic for topic in make_handlers().topics())))
    await road.until(lambda: sum(copy.consuming()[1] for copy in copies) == total)


async def letter_of(road: Road, account: UUID) -> DeadLetter:
    """The first dead letter of an account's messages."""
    found: list[DeadLetter] = await road.until(lambda: letters_of(road, account))
    return found[0]


async def envelope_of_letter(road: Road, letter: DeadLetter) -> Record:
    """The envelope in which a letter came."""
    return await road.expect_envelope(lambda e: (e.get("data") or {}).get("letter_id") == str(letter.letter_id))


async def parked_body(road: Road, letter: DeadLetter) -> bytes:
    """What is to be sent to replay a letter."""
    return original_body((await envelope_of_letter(road, letter))["data"])
