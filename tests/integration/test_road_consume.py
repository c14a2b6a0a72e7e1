"""Consume: one poll, one transaction, one offset commit; each message once; what can never be handled is parked."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from shared.contracts import topics
from shared.contracts.envelope import Message
from shared.ids import new_id
from shared.messaging.dead_letter import REPLAY_HEADER, DeadLetter
from shared.messaging.work import UnitOfWork
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
    body,
    on_other_partitions,
    road,
)

__all__ = ["road"]

Record = dict[str, Any]


async def bug(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Fails for good on a message that says so."""
    if any(message.data.act == "bug" for message in messages):
        raise ZeroDivisionError("a bug in the handler")


@pytest.fixture(scope="module")
async def service(road: Road) -> AsyncIterator[Road]:
    """The service, running, with its bug."""
    async with road.serve(bug):
        yield road


def as_bytes(envelope: Record) -> bytes:
    return json.dumps(envelope).encode()


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

    async def test_messages_of_one_key_are_handled_in_order_whatever_their_types(self, service: Road) -> None:
        account = new_id()
        for number in range(1, 21):
            data = Put(account_id=account, number=number) if number % 3 else Remind(account_id=account, number=number)
            await service.publish(data)
        await service.expect_numbers(account, *range(1, 21))


class TestOnce:
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


def deep(account: UUID) -> bytes:
    """A request nested deeper than any reader goes."""
    return as_bytes(body(Put(account_id=account, number=1))).replace(b'"act": ""', b'"act": ' + b"[" * 5000 + b"]" * 5000)


ACCOUNT = UUID("0190c0de-0000-7000-8000-000000000001")
PUT = body(Put(account_id=ACCOUNT, number=1))

POISON: dict[str, tuple[bytes | None, str, str]] = {
    "a_null_body": (None, "bad_json", "Poison"),
    "an_empty_body": (b"", "bad_json", "Poison"),
    "no_json": (b"{", "bad_json", "Poison"),
    "a_list": (b"[1]", "bad_json", "Poison"),
    "not_utf_8": (b'{"type": "\xff"}', "bad_json", "Poison"),
    "not_a_number": (b'{"type": NaN}', "bad_json", "Poison"),
    "deep_nesting": (deep(ACCOUNT), "bad_json", "Poison"),
    "no_envelope": (b"{}", "bad_envelope", "Poison"),
    "an_id_that_is_none": (as_bytes(PUT | {"id": "17"}), "bad_envelope", "Poison"),
    "another_specversion": (as_bytes(PUT | {"specversion": "2.0"}), "bad_envelope", "Poison"),
    "a_type_that_is_a_list": (as_bytes(PUT | {"type": ["x"]}), "bad_envelope", "Poison"),
    "a_zero_in_the_key": (as_bytes(PUT | {"partitionkey": "a\0b"}), "bad_envelope", "Poison"),
    "a_zero_in_the_type": (as_bytes(PUT | {"type": "a\0b"}), "bad_envelope", "Poison"),
    "an_expiry_without_a_zone": (as_bytes(PUT | {"id": str(new_id()), "expirytime": "2026-01-05T08:00:00"}), "", ""),
    "an_unknown_type": (as_bytes(PUT | {"type": "escrow.roadtest.gone.v1"}), "type_unknown", "Poison"),
    "an_unknown_version": (as_bytes(PUT | {"id": str(new_id()), "type": "escrow.roadtest.put.v2"}), "type_unknown", ""),
    "data_that_does_not_fit": (as_bytes(body(Put(account_id=ACCOUNT, number=1)) | {"data": {"number": []}}), "bad_data", ""),
    "no_data": (as_bytes({k: v for k, v in body(Remind(account_id=ACCOUNT, number=1)).items() if k != "data"}), "bad_data", ""),
    "a_forbidden_replyto": (as_bytes(body(Put(account_id=ACCOUNT, number=1), replyto=COMMANDS)), "replyto_forbidden", ""),
    "a_replyto_without_such_a_partition": (
        as_bytes(body(Put(account_id=ACCOUNT, number=1), replyto=GATEWAY_REPLIES, replypartition=4000)),
        "replyto_forbidden",
        "",
    ),
    "a_bug_in_the_handler": (as_bytes(body(Put(account_id=ACCOUNT, number=1, act="bug"))), "handler_failed", "ZeroDivisionError"),
    "a_zero_in_the_data": (as_bytes(body(Put(account_id=ACCOUNT, number=2**63))), "handler_failed", "DBAPIError"),
    "a_body_over_the_limit": (b'{"x": "' + b"y" * topics.MAX_MESSAGE_BYTES + b'"}', "too_large", "Poison"),
    "a_body_just_within_the_limit": (b"[" + b" " * (topics.MAX_MESSAGE_BYTES - 2) + b"]", "bad_json", "Poison"),
    "a_body_of_nearly_a_record": (b"y" * 1_040_000, "too_large", "Poison"),
}


class TestWhatCanNeverBeHandled:
    @pytest.mark.parametrize("name", POISON)
    async def test_is_parked_with_its_reason_and_its_neighbours_go_on(self, service: Road, name: str) -> None:
        value, reason, exception = POISON[name]
        account = new_id()
        key = str(account).encode()
        before, after = (body(Put(account_id=account, number=number)) for number in (1, 2))
        sent = [
            await service.producer.send(service.client_settings.namespace + COMMANDS, one, key=key, headers=headers)
            for one, headers in [
                (as_bytes(before), []),
                (value, [("note", b"\xff\xfe 16 raw bytes"), ("plain", b"text")]),
                (as_bytes(after), []),
            ]
        ]
        partition, offset = (await sent[1]).partition, (await sent[1]).offset
        letter = await service.expect_letter(topic=service.client_settings.namespace + COMMANDS, partition=partition, offset=offset)
        await service.expect_numbers(account, 1, 2)
        assert letter.consumer == SERVICE
        assert letter.reason == (reason or "bad_envelope")
        assert letter.exception == (exception or "Poison")
        assert letter.key == str(account)
        assert dict(letter.headers) == {"note": "\\xff\\xfe 16 raw bytes", "plain": "text"}
        assert letter.body_bytes == len(value or b"")
        envelope = await service.expect_envelope(lambda e: e.get("data", {}).get("letter_id") == str(letter.letter_id))
        kept = base64.urlsafe_b64decode(envelope["data"]["body"])
        assert (value or b"").startswith(kept)
        assert len(kept) >= min(len(value or b""), topics.MAX_MESSAGE_BYTES)

    @pytest.mark.parametrize(
        ("key", "headers"),
        [
            (b"a\0b", []),
            (b"\xff" * 900, []),
            (b"k" * 200_000, [("big", b"\xff" * 500_000)]),
            (None, [("\x00", b"\x00" * 100_000)]),
        ],
        ids=["a zero", "not UTF-8", "big", "many zeros"],
    )
    async def test_with_a_key_or_headers_that_fit_no_table_is_parked(
        self, service: Road, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> None:
        partition, offset = await service.publish_record(COMMANDS, b"no json", key=key, headers=headers, partition=1)
        letter = await service.expect_letter(
            topic=service.client_settings.namespace + COMMANDS, partition=partition, offset=offset
        )
        assert letter.reason == "bad_json"
