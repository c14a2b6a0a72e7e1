"""What the road makes of one record: a message, a refusal of its sender, a letter, or nobody's business."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord

from shared.contracts import topics
from shared.contracts.catalog import SeatTaken
from shared.contracts.envelope import Message, content_hash
from shared.contracts.orders import PurchaseEnded, ShowPurchase
from shared.ids import derived_id
from shared.messaging.consume import Consumer, Item
from shared.messaging.dead_letter import REPLAY_HEADER
from shared.messaging.handlers import Handlers
from shared.messaging.progress import Progress
from shared.messaging.work import UnitOfWork

ID, CORRELATION = UUID(int=1), UUID(int=2)
DATA = {"order_id": str(UUID(int=3))}
COMMANDS, REQUESTS, REPLIES = topics.commands("orders"), topics.requests("orders"), topics.replies("orders")
GATEWAY = topics.gateway_replies("web")


async def handle(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Is never called here."""


def consumer(namespace: str = "") -> Consumer:
    """Of a service that hears one request, one answer and one event of its own."""
    handlers = Handlers("orders")
    handlers.on(ShowPurchase)(handle)
    handlers.on(SeatTaken)(handle)
    handlers.on(PurchaseEnded)(handle)
    return Consumer(handlers, cast(Any, None), cast(Any, None), Progress(), lambda: None, namespace)


def record(value: bytes | None, topic: str = REQUESTS, headers: Sequence[tuple[str, bytes | None]] = ()) -> Any:
    """A record at 7 of partition 2."""
    values: dict[str, Any] = {"topic": topic, "partition": 2, "offset": 7, "timestamp": 99, "timestamp_type": 0}
    more: dict[str, Any] = {"checksum": None, "serialized_key_size": 0, "serialized_value_size": 0, "key": b"k"}
    return ConsumerRecord(**values, **more, value=value, headers=tuple(headers))


def envelope(**changes: Any) -> dict[str, Any]:
    """A request as a gateway writes it."""
    return {
        "specversion": "1.0",
        "id": str(ID),
        "source": "/gateway/web",
        "type": ShowPurchase.TYPE,
        "time": "2026-03-01T02:00:00Z",
        "correlationid": str(CORRELATION),
        "partitionkey": "k",
        "replyto": GATEWAY,
        "data": DATA,
    } | changes


def item_of(value: bytes | dict[str, Any] | None, topic: str = REQUESTS, **options: Any) -> Item:
    """What is made of a record."""
    body = json.dumps(value).encode() if isinstance(value, dict) else value
    item = consumer().decode(record(body, topic, **options))
    assert item is not None
    return item


def poison_of(item: Item) -> tuple[str, str, str]:
    """Reason, detail, and the code its sender is told ("" for none)."""
    assert item.poison is not None
    return item.poison.reason, str(item.poison), item.poison.answer.code if item.poison.answer else ""


def test_a_request_is_a_message_claimed_by_its_id_and_content() -> None:
    item = item_of(envelope())
    assert item.poison is None
    assert isinstance(item.message, Message)
    assert isinstance(item.message.data, ShowPurchase)
    assert (item.claim.id, item.claim.replay_of) == (ID, None)
    assert item.claim.hash == content_hash(ShowPurchase.TYPE, DATA)


def test_a_request_with_a_key_of_its_sender_is_claimed_by_that() -> None:
    item = item_of(envelope(idempotencykey="once"))
    assert item.message is not None
    assert item.claim.id == item.message.dedup_id != ID


@pytest.mark.parametrize(
    ("headers", "letter"),
    [
        ([("other", b"x"), (REPLAY_HEADER, str(UUID(int=8)).encode())], UUID(int=8)),
        ([(REPLAY_HEADER, b"17")], None),
        ([(REPLAY_HEADER, None)], None),
        ([("other", str(UUID(int=8)).encode())], None),
    ],
)
def test_a_replay_names_its_letter(headers: list[tuple[str, bytes | None]], letter: UUID | None) -> None:
    for value in (envelope(), envelope(data=None), envelope(type="orders.gone.v1")):
        assert item_of(value, headers=headers).claim.replay_of == letter


# --- what has no message ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "bad_json", "EOF"),
        (b"{", "bad_json", "EOF"),
        (b"[1]", "bad_json", "the body is not a JSON object"),
        (b'{"a": NaN}', "bad_json", "expected value"),
        (b"{}", "bad_envelope", "Field required"),
        (b"y" * (topics.MAX_MESSAGE_BYTES + 1), "too_large", f"body of {topics.MAX_MESSAGE_BYTES + 1} bytes"),
        (b"y" * topics.MAX_MESSAGE_BYTES, "bad_json", "expected"),
    ],
)
def test_a_record_without_a_message_is_known_by_its_place(value: bytes | None, reason: str, detail: str) -> None:
    item = item_of(value)
    assert item.message is None
    found, words, answer = poison_of(item)
    assert (found, answer) == (reason, "")
    assert detail in words
    assert item.claim.id == derived_id("record", REQUESTS, 2, 7, 99)
    assert (item.claim.hash, item.claim.replay_of) == (b"", None)


def test_a_bug_in_a_validator_stops_nothing() -> None:
    stuck = consumer()
    stuck.handlers.entries.clear()
    stuck.handlers.entries[ShowPurchase.TYPE] = cast(Any, object())
    item = stuck.decode(record(json.dumps(envelope()).encode()))
    assert item is not None
    reason, detail, _ = poison_of(item)
    assert reason == "bad_envelope"
    assert "AttributeError" in detail


# --- whose business it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "nobodys"),
    [
        (COMMANDS, False),
        (REQUESTS, False),
        (topics.events("orders"), True),
        (REPLIES, True),
        (topics.events("catalog"), True),
        (topics.commands("catalog"), True),
        ("unheard.of.v1", False),
    ],
)
def test_an_unknown_type_is_our_business_where_only_we_are_asked(topic: str, nobodys: bool) -> None:
    value = json.dumps(envelope(type="orders.gone.v1", replyto="")).encode()
    for namespace in ("", "test."):
        item = consumer(namespace).decode(record(value, namespace + topic))
        if nobodys:
            assert item is None
        else:
            assert item is not None
            assert poison_of(item) == ("type_unknown", "no handler for type 'orders.gone.v1'", "type_unknown")
            assert item.poison is not None
            assert item.poison.answer is not None
            assert item.poison.answer.detail == "orders.gone.v1"


def test_a_type_that_is_no_word_is_a_bad_envelope() -> None:
    item = item_of(envelope(type=["x"]))
    assert poison_of(item)[0] == "bad_envelope"


@pytest.mark.parametrize(
    ("contract", "belongs"),
    [(ShowPurchase, REQUESTS), (SeatTaken, REPLIES), (PurchaseEnded, topics.events("orders"))],
)
def test_a_contract_is_heard_on_its_own_topic_only(contract: type[Any], belongs: str) -> None:
    data = DATA | {"account_id": DATA["order_id"], "reason": "expired"}
    value = json.dumps(envelope(type=contract.TYPE, data=data, replyto="")).encode()
    for topic in (REQUESTS, REPLIES, COMMANDS, topics.events("orders")):
        item = consumer("test.").decode(record(value, f"test.{topic}"))
        assert item is not None
        if topic == belongs:
            assert item.poison is None, item.poison
        else:
            assert poison_of(item) == ("type_unknown", f"{contract.TYPE} belongs on test.{belongs}", "type_unknown")
            assert item.poison is not None
            assert item.poison.answer is not None
            assert item.poison.answer.detail == contract.TYPE


# --- what its sender is told ------------------------------------------------------------------------------------------


def test_data_that_does_not_fit_is_told_fault_by_fault() -> None:
    item = item_of(envelope(data={"order_id": "17"}))
    assert item.message is not None
    assert (item.message.id, item.message.replyto) == (ID, GATEWAY)
    reason, detail, answer = poison_of(item)
    assert (reason, answer) == ("bad_data", "request_invalid")
    assert detail.startswith("data.order_id: Input should be a valid UUID")
    assert item.poison is not None
    assert item.poison.answer is not None
    assert [(fault.field, fault.code) for fault in item.poison.answer.errors] == [("data.order_id", "uuid_parsing")]
    assert item.claim.id == ID
    assert item.claim.hash == content_hash(ShowPurchase.TYPE, {"order_id": "17"})


def test_a_request_without_data_is_told_so() -> None:
    without = envelope()
    del without["data"]
    item = item_of(without)
    assert item.message is not None
    assert poison_of(item) == ("bad_data", "data: Field required", "request_invalid")


def test_a_nul_is_no_text() -> None:
    item = item_of(envelope(data=DATA | {"note": "a\0b"}))
    assert item.message is not None
    reason, detail, answer = poison_of(item)
    assert (reason, answer, detail) == ("bad_data", "request_invalid", ": U+0000 is no text")
    assert item.poison is not None
    assert item.poison.answer is not None
    assert [(fault.field, fault.code) for fault in item.poison.answer.errors] == [("", "nul_character")]
    assert item.claim.hash == content_hash(ShowPurchase.TYPE, DATA | {"note": "a\ufffdb"})


def test_an_expiry_has_a_zone() -> None:
    assert item_of(envelope(expirytime="2026-03-01T02:00:00Z")).poison is None
    item = item_of(envelope(expirytime="2026-03-01T02:00:00"))
    assert poison_of(item) == ("bad_envelope", "expirytime has no time zone", "request_invalid")


async def test_a_request_expires_at_the_moment_it_says() -> None:
    item = item_of(envelope(expirytime="2026-03-01T02:00:00Z"))
    assert item.message is not None
    moment = item.message.expirytime
    assert moment is not None
    for now, refusals in ((moment - timedelta(microseconds=1), []), (moment, [(ShowPurchase.TYPE, "request_expired")])):
        work = UnitOfWork("orders", cast(Any, None), cast(Any, None), now)
        await consumer()._hand_over(work, [item.message])
        assert work.refusals == refusals


@pytest.mark.parametrize(
    ("replyto", "partition", "allowed"),
    [
        (GATEWAY, None, True),
        (REPLIES, None, True),
        (GATEWAY, topics.TOPICS_BY_NAME[GATEWAY].partitions - 1, True),
        (GATEWAY, topics.TOPICS_BY_NAME[GATEWAY].partitions, False),
        (COMMANDS, None, False),
        ("gateway.nobody.replies.v1", None, False),
        ("", None, True),
    ],
)
def test_an_answer_goes_only_where_answers_go(replyto: str, partition: int | None, allowed: bool) -> None:
    item = item_of(envelope(replyto=replyto, replypartition=partition))
    if allowed:
        assert item.poison is None
    else:
        assert poison_of(item) == ("replyto_forbidden", f"no reply may go to {replyto!r}", "")
