"""Faults of what is said: twice, in other words, out of order, unreadable; and a bank that misbehaves."""

import asyncio
import json
import os
import signal
import time
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from ops.bank import desk
from ops.bank.behaviour import Name
from ops.cli.site import connected
from shared.contracts import topics
from shared.contracts.bank import InstructionKind
from shared.contracts.catalog import PublishCourse
from shared.contracts.orders import (
    ApplyLesson,
    ConfirmLesson,
    ContractDrawn,
    LessonAnswer,
    ObjectLesson,
    PayPurchase,
    PurchaseEnrolled,
    PurchaseView,
    SignContract,
)
from shared.contracts.topics import ALL_TOPICS, TOPICS_BY_NAME
from shared.ids import new_id
from shared.messaging.rpc import GatewayClient, RequestRefused
from shared.settings import SERVICES
from tests.faults.drills.base import Drill
from tests.faults.drills.processes import HANDLES
from tests.faults.load import LoadError
from tests.faults.world import PLANTED, kafka_of, quiet

AT_ONCE: Final = 50
OTHERS: Final = 50
EAGER: Final = 10
SILENT: Final = 40
REORDER_S: Final = 15.0
BANK_S: Final = 10.0
MOST_ROUNDS: Final = 60


async def send_again(drill: Drill) -> None:
    """a tenth of all records is published a second time, and some requests under their old id with another body"""
    producer = AIOKafkaProducer(bootstrap_servers=drill.stack.kafka)
    await producer.start()
    others = OTHERS
    try:
        async with kafka_of(drill.stack) as kafka:
            history = await kafka.raw_records()
        for record in history:
            if drill.chance.random() >= 0.1:
                continue
            sending: dict[str, Any] = {"partition": record.partition, "headers": list(record.headers)}
            await producer.send(record.topic, record.value, key=record.key, **sending)
            drill.blows += 1
            if (
                others
                and _kind(drill, record.topic) == "requests"
                and "order_id" in (body := json.loads(record.value))["data"]
            ):
                # Answered where nobody listens: who has asked is not confused, and the conflict is in the outbox.
                body |= {"data": body["data"] | {"order_id": str(new_id())}, "replypartition": 3}
                await producer.send(record.topic, json.dumps(body).encode(), key=record.key, **sending)
                others -= 1
                drill.blows += 1
        await producer.flush()
    finally:
        await producer.stop()


def _kind(drill: Drill, topic: str) -> str:
    return TOPICS_BY_NAME[topic.removeprefix(drill.stack.site.namespace)].kind


async def ask_at_once(drill: Drill) -> None:
    """one purchase is asked for 50 times at once under one message id, another one under 50 ids"""
    guardian = drill.load.guardians[0]
    async with GatewayClient(drill.stack.client_settings, "test", partition=2) as client:
        for same_id in (True, False):
            place = drill.load.placing(new_id(), guardian, drill.load.courses[0])
            drill.expected.orders[place.order_id] = "to_sign"
            ids = [new_id()] * AT_ONCE if same_id else [new_id() for _ in range(AT_ONCE)]
            asking = (client.ask(place, token=guardian.token, message_id=id_, timeout_s=30.0) for id_ in ids)
            await asyncio.gather(*asking)
            drill.blows += AT_ONCE


# --- poison -----------------------------------------------------------------------------------------------------------

_WITHOUT_DATA: Final[dict[str, Any]] = {"specversion": "1.0", "source": "/gateway/test", "partitionkey": "k"}


def _poisons() -> dict[str, tuple[bytes | None, list[tuple[str, bytes]]]]:
    """What no service can read, by name: body and headers. None says where to answer."""

    def message(type_: str, **data: Any) -> bytes:
        ids = {"id": str(new_id()), "correlationid": str(new_id()), "time": "2026-11-23T12:00:00Z"}
        return json.dumps({**_WITHOUT_DATA, **ids, "type": type_, "data": data}).encode()

    course: dict[str, Any] = {"course_id": str(new_id()), "institution_id": str(new_id()), "title": "篮球", "seats": 1}
    return {
        "bad JSON": (b'{"id": ', []),
        "not UTF-8": (b'{"id": "\xff\xfe"}', []),
        "no body": (None, []),
        "header not UTF-8": (b"[]", [("ce_type", b"\xff\xfe")]),
        "900 kB": (b'"' + b"x" * 900_000 + b'"', []),
        "deep nesting": (b"[" * 20_000 + b"]" * 20_000, []),
        "NUL": (message(PublishCourse.TYPE, **course, price_fen=1, lessons=[], note="\0"), []),
        "overflowing amount": (message(PublishCourse.TYPE, **course, price_fen=10**30, lessons=[]), []),
        "negative amount": (message(PublishCourse.TYPE, **course, price_fen=-1, lessons=[]), []),
        "unknown type": (message("catalog.course.burn.v1"), []),
        "unknown version": (message("orders.purchase.place.v9"), []),
    }


async def poison(drill: Drill) -> None:
    """bad JSON, no body, headers that are not UTF-8, 900 kB, deep nesting, impossible amounts, unknown types, on every
    topic of requests and commands; 2 MB, which the broker refuses; and bad requests that are answered"""
    producer = AIOKafkaProducer(bootstrap_servers=drill.stack.kafka, max_request_size=4 * 1024 * 1024)
    await producer.start()
    try:
        heard = await _heard(drill)
        for topic in ALL_TOPICS:
            name = drill.stack.site.namespace + topic.name
            if topic.kind not in ("requests", "commands") or topic.owner not in SERVICES or name not in heard:
                continue
            for body, headers in _poisons().values():
                await producer.send_and_wait(name, body, key=b"k", headers=[*headers, (PLANTED, b"1")])
                drill.blows += 1
                letters = drill.expected.dead_letters
                letters[topic.owner] = letters.get(topic.owner, 0) + 1
        try:
            await producer.send_and_wait(drill.stack.site.namespace + topics.requests("orders"), bytes(2 * 1024 * 1024))
        except MessageSizeTooLargeError:
            drill.blows += 1
        else:
            raise LoadError("the broker took a record of 2 MB")
    finally:
        await producer.stop()
    await _ask_badly(drill)


async def _heard(drill: Drill) -> set[str]:
    """The topics that any service listens to."""
    async with kafka_of(drill.stack) as kafka:
        groups = [(await kafka.members(service))[1] for service in SERVICES]
    return {partition.topic for members in groups for some in members.values() for partition in some}


async def _ask_badly(drill: Drill) -> None:
    """Requests whose data are wrong, with an address for the answer: each is refused, and nobody else hears of it."""
    guardian = drill.load.guardians[0]
    async with GatewayClient(drill.stack.client_settings, "test", partition=2) as client:
        for changed in ({"method": "x" * 1000}, {"order_id": "nobody"}, {"method": None}, {"order_id": None}):
            request = PayPurchase(order_id=new_id(), method="alipay")
            envelope = json.loads(client.envelope(request, new_id(), token=guardian.token))
            envelope["data"] |= changed
            await client.send_raw(request.TOPIC, "bad", json.dumps(envelope).encode())
            drill.blows += 1


# --- order ------------------------------------------------------------------------------------------------------------


async def reorder(drill: Drill) -> None:
    """services stand still in turn, so that what one says overtakes what another said before; lessons are filed and
    confirmed before the money is held; at the end objections race silence"""
    eager = asyncio.gather(*(_eager(drill) for _ in range(EAGER)))
    end = time.monotonic() + REORDER_S
    while time.monotonic() < end:
        await drill.all_ready()
        pid = drill.pid(drill.chance.choice(HANDLES))
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(drill.chance.uniform(0.3, 1.5))
        os.kill(pid, signal.SIGCONT)
        drill.blows += 1
        await asyncio.sleep(drill.chance.uniform(0.1, 0.5))
    await eager
    await drill.load.end()
    await _silence(drill)


async def _eager(drill: Drill) -> None:
    """Buys, and from the first moment on its lesson is filed and confirmed: refused, until there is one."""
    load, order_id = drill.load, new_id()
    guardian = load.guardians[0]
    early = (
        ApplyLesson(order_id=order_id, lesson_no=1),
        ConfirmLesson(order_id=order_id, lesson_no=1),
        PayPurchase(order_id=order_id, method="alipay"),
    )
    asking = drill.scenario.ask(load.placing(order_id, guardian, load.courses[0]), PurchaseView, guardian.token)
    await asyncio.gather(asking, *(_too_early(drill, request, order_id) for request in early))
    drawn = await load.gateway.first(str(order_id), ContractDrawn)
    assert isinstance(drawn, ContractDrawn)
    sign = SignContract(order_id=order_id, contract_sha256=drawn.contract_sha256)
    await drill.scenario.ask(sign, PurchaseView, guardian.token)
    await asyncio.gather(
        drill.scenario.ask(PayPurchase(order_id=order_id, method="alipay"), PurchaseView, guardian.token),
        *(_too_early(drill, request, order_id) for request in early[:2]),
    )
    await load.gateway.first(str(order_id), PurchaseEnrolled)
    drill.expected.orders[order_id] = "enrolled"


async def _too_early(drill: Drill, request: ApplyLesson | ConfirmLesson | PayPurchase, order_id: UUID) -> None:
    applies = isinstance(request, ApplyLesson)
    token = drill.load.institution.token if applies else drill.load.guardians[0].token
    code = await drill.scenario.refusal(request, token)
    # Its course begins tomorrow: what comes late enough to find the lesson finds one that was not held.
    if code not in ("order_unknown", "lesson_unknown", "lesson_not_over", "lesson_state", "order_state"):
        raise LoadError(f"{request.TYPE} of {order_id} too early: {code}")
    drill.blows += 1


async def _silence(drill: Drill) -> None:
    """Lessons are filed and nobody answers until the last moment; then all object while silence confirms them."""
    lessons = [lesson for lesson, _ in zip(drill.load.lessons, range(SILENT), strict=False)]
    answers = [await drill.load.applies(*lesson) for lesson in lessons]
    due = max(answer.answer_by for answer in answers if answer.answer_by is not None)
    await quiet(drill.stack)
    drill.scenario.clock_offset = await drill.stack.advance(due - drill.scenario.now())
    await asyncio.gather(*(_objects(drill, *lesson) for lesson in lessons))


async def _objects(drill: Drill, order: Any, number: int) -> None:
    await asyncio.sleep(drill.chance.uniform(0, 1.0))
    request = ObjectLesson(order_id=order.order_id, lesson_no=number, reason="老师未到")
    try:
        await drill.scenario.ask(request, LessonAnswer, order.guardian.token)
    except RequestRefused as refused:
        if refused.code != "lesson_state":
            raise
        await drill.load.is_paid(order, number)
    else:
        drill.expected.lessons[order.order_id, number] = "objected"
    drill.blows += 1


# --- the bank ---------------------------------------------------------------------------------------------------------

_MISBEHAVIOUR: Final[tuple[tuple[Name, InstructionKind | None, float], ...]] = (
    ("silent", None, 0),  # done, and no answer: a time-out after success
    ("repeat", None, 0),
    ("unknown", None, 0),
    ("accept_first", None, 1.0),
    ("slow", None, 2.0),
    ("refuse", None, 0),
    ("return_after", "payout", 2 * 86_400.0),
)
_OPEN: Final = """
SELECT order_id, lesson_no, kind, state, attempt, asks, turn, changed_at FROM instructions
WHERE state = 'sent' OR (state = 'refused' AND kind <> 'collect') LIMIT 5
"""


async def bank(drill: Drill) -> None:
    """the bank is silent after it has paid, says results twice, does not know, accepts first, answers late, refuses,
    and gives payouts back two days later; each to three in a hundred instructions"""
    drill.load.lenient = True
    dsn = drill.stack.dsn("bank")
    behaviours = []
    for name, kind, seconds in _MISBEHAVIOUR:
        setting = desk.set_behaviour(
            dsn, name, kind=kind, percentage=3, times=None, seconds=seconds, reason="account_closed"
        )
        behaviours.append(await setting)
        drill.blows += 1
    await asyncio.sleep(BANK_S)
    for behaviour_id in behaviours:  # not all: the load has set some that its flows wait for
        await desk.clear_behaviours(dsn, behaviour_id=behaviour_id)
    ending = asyncio.create_task(drill.load.end())
    # What the bank did not answer is asked again after minutes, what came back after two days.
    for waited in (timedelta(minutes=6), timedelta(minutes=11), timedelta(days=2)):
        await _until_final(drill, waited)
    await ending


async def _until_final(drill: Drill, waited: timedelta) -> None:
    """Lets time pass until no instruction waits for the bank any more."""
    waiting: list[Any] = []
    async with connected(drill.stack.dsn("escrow")) as connection:
        for _ in range(MOST_ROUNDS):
            drill.scenario.clock_offset = await drill.stack.advance(waited)
            await asyncio.sleep(2.0)
            waited = timedelta(minutes=31)
            waiting = await connection.fetch(_OPEN)
            if drill.load.running == 0 and not waiting:
                return
    left = [" ".join(map(str, row)) for row in waiting]
    raise LoadError(f"{drill.load.running} flows are not over; without a final answer: {left}")
