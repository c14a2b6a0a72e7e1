"""The load: a gateway that keeps many purchases and lessons in flight and acts on answers and events as they come."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self
from uuid import UUID

import pydantic_core

from ops.scenario import Guardian, Institution
from shared.contracts import topics
from shared.contracts.catalog import CourseView
from shared.contracts.envelope import Problem, Request
from shared.contracts.escrow import Settled
from shared.contracts.orders import (
    ApplyLesson,
    ConfirmLesson,
    ContractDrawn,
    LessonAnswer,
    PayPurchase,
    PlacePurchase,
    PurchaseEnded,
    PurchaseEnrolled,
    SignContract,
)
from shared.ids import new_id
from shared.messaging.rpc import GatewayClient
from shared.settings import ClientSettings

STALLED_S: Final = 60.0
LINGER_MS: Final = 10
"""A gateway of many users sends and hears in small sets; part of every latency that is measured, but the idle one."""


Hearing = Mapping[str, Callable[[dict[str, Any]], None]]
"""What to do with an envelope of each type."""


class BenchError(Exception):
    """The load did not go as it must: a refusal, or nothing moved for a minute."""


@dataclass(slots=True)
class Order:
    """A purchase of the load."""

    order_id: UUID
    guardian: Guardian
    institution: Institution
    course: CourseView


@dataclass(slots=True)
class Measured:
    """Completed things: when the first began and the last ended (seconds), and how long each took."""

    began: float
    ended: float = 0.0
    seconds: list[float] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Completed per second, from the first sent to the last done."""
        return len(self.seconds) / (self.ended - self.began)

    def percentile_ms(self, percent: float) -> float:
        """The time within which `percent` of them were done, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000


class LoadGateway(GatewayClient):
    """A gateway that sends without waiting and hears everything: its answers and the events of orders and escrow."""

    HEARS = (topics.events("orders"), topics.events("escrow"))

    def __init__(self, settings: ClientSettings, *, linger_ms: int = LINGER_MS) -> None:
        super().__init__(settings, "bench", partition=1, linger_ms=linger_ms)
        self.problems: list[Problem] = []
        self._linger_s = linger_ms / 1000

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def send(self, request: Request, token: str) -> None:
        """Sends `request` and goes on; the producer batches what is sent meanwhile."""
        body = self.envelope(request, new_id(), token=token)
        await self._producer.send(self.namespace + request.TOPIC, body, key=request.partition_key.encode() or None)

    async def hear(self, on: Hearing, done: Callable[[], bool]) -> None:
        """Calls `on[type]` with the envelope of each message heard, until `done`."""
        last = time.perf_counter()
        while not done():
            found = await self._reader.getmany(timeout_ms=50, max_records=2000)
            now = time.perf_counter()
            if found:
                last = now
            elif now - last > STALLED_S:
                raise BenchError(f"nothing was heard for {STALLED_S:g} s; problems: {self.problems[:3]}")
            for records in found.values():
                for record in records:
                    type_ = dict(record.headers)["ce_type"].decode()
                    if type_ == Problem.TYPE:
                        self.problems.append(Problem.model_validate(pydantic_core.from_json(record.value)["data"]))
                    elif type_ in on:
                        on[type_](pydantic_core.from_json(record.value))
            await asyncio.sleep(self._linger_s)


class _Stopwatch:
    """Measures things by key, each from its beginning to its end."""

    def __init__(self) -> None:
        self.measured = Measured(time.perf_counter())
        self._begun: dict[Hashable, float] = {}

    def begin(self, key: Hashable, at: float | None = None) -> None:
        """It begins now, or began `at`."""
        self._begun[key] = at or time.perf_counter()

    def end(self, key: Hashable) -> bool:
        """It is done; False for what was not begun here, or ended before."""
        began = self._begun.pop(key, None)
        if began is None:
            return False
        self.measured.ended = time.perf_counter()
        self.measured.seconds.append(self.measured.ended - began)
        return True


class _Window:
    """Keeps `size` things in flight: `begin` is called for the next one whenever one is done."""

    def __init__(self, size: int, begin: Callable[[Any], None], things: Iterable[Any]) -> None:
        self._begin = begin
        self._left = deque(things)
        for _ in range(min(size, len(self._left))):
            self.next()

    def next(self) -> None:
        """Begins the next one, if there is one left."""
        if self._left:
            self._begin(self._left.popleft())


async def purchases(gateway: LoadGateway, orders: Sequence[Order], window: int) -> Measured:
    """Complete purchases, `window` in flight: place → contract → sign and pay → held → enrolled."""
    by_id = {str(order.order_id): order for order in orders}
    watch = _Stopwatch()
    outgoing: asyncio.Queue[tuple[Request, str]] = asyncio.Queue()

    def begin(order: Order) -> None:
        watch.begin(str(order.order_id))
        request = PlacePurchase(
            order_id=order.order_id,
            account_id=order.guardian.account_id,
            child_id=order.guardian.child_id,
            course_id=order.course.course_id,
        )
        outgoing.put_nowait((request, order.guardian.token))

    flight = _Window(window, begin, orders)

    def on_drawn(envelope: dict[str, Any]) -> None:
        order = by_id.get(envelope["partitionkey"])
        if order is not None:
            sign = SignContract(order_id=order.order_id, contract_sha256=envelope["data"]["contract_sha256"])
            outgoing.put_nowait((sign, order.guardian.token))
            outgoing.put_nowait((PayPurchase(order_id=order.order_id, method="alipay"), order.guardian.token))

    def on_enrolled(envelope: dict[str, Any]) -> None:
        if watch.end(envelope["partitionkey"]):
            flight.next()

    def on_ended(envelope: dict[str, Any]) -> None:
        raise BenchError(f"a purchase ended: {envelope['data']}")

    on: Hearing = {ContractDrawn.TYPE: on_drawn, PurchaseEnrolled.TYPE: on_enrolled, PurchaseEnded.TYPE: on_ended}
    await _drive(gateway, outgoing, on, lambda: len(watch.measured.seconds) == len(orders))
    return watch.measured


Lesson = tuple[Order, int]


async def lessons(gateway: LoadGateway, planned: Sequence[Lesson], window: int, per_s: float | None = None) -> Measured:
    """Complete lessons: apply → confirm → release → bank paid → settled.

    With `window` in flight, or, given `per_s`, begun at that even pace whatever is in flight (open loop).
    """
    by_key = {_key(lesson): lesson[0] for lesson in planned}
    watch = _Stopwatch()
    outgoing: asyncio.Queue[tuple[Request, str]] = asyncio.Queue()

    def begin(lesson: Lesson, began: float | None = None) -> None:
        watch.begin(_key(lesson), began)
        outgoing.put_nowait(_applying(lesson))

    flight = _Window(window, begin, planned if per_s is None else ())

    def on_answer(envelope: dict[str, Any]) -> None:
        data = envelope["data"]
        order = by_key.get(_key_in(envelope))
        if order is not None and data["state"] == "applied":
            confirm = ConfirmLesson(order_id=order.order_id, lesson_no=data["lesson_no"])
            outgoing.put_nowait((confirm, order.guardian.token))

    def on_settled(envelope: dict[str, Any]) -> None:
        if watch.end(_key_in(envelope)):
            flight.next()

    async def pace() -> None:
        assert per_s is not None
        for place, lesson in enumerate(planned):
            due = watch.measured.began + place / per_s
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            begin(lesson, due)  # from when it was due: a load generator that is late must not hide a slow answer

    pacing = asyncio.create_task(pace()) if per_s is not None else None
    on: Hearing = {LessonAnswer.TYPE: on_answer, Settled.TYPE: on_settled}
    await _drive(gateway, outgoing, on, lambda: len(watch.measured.seconds) == len(planned))
    if pacing is not None:
        await pacing
    return watch.measured


async def applications(gateway: LoadGateway, planned: Sequence[Lesson], window: int) -> Measured:
    """Lessons that are filed, `window` in flight, and left to their families' silence."""
    watch = _Stopwatch()
    outgoing: asyncio.Queue[tuple[Request, str]] = asyncio.Queue()

    def begin(lesson: Lesson) -> None:
        watch.begin(_key(lesson))
        outgoing.put_nowait(_applying(lesson))

    flight = _Window(window, begin, planned)

    def on_answer(envelope: dict[str, Any]) -> None:
        if watch.end(_key_in(envelope)):
            flight.next()

    await _drive(gateway, outgoing, {LessonAnswer.TYPE: on_answer}, lambda: len(watch.measured.seconds) == len(planned))
    return watch.measured


def _key(lesson: Lesson) -> tuple[str, int]:
    order, number = lesson
    return str(order.order_id), number


def _key_in(envelope: dict[str, Any]) -> tuple[str, int]:
    return envelope["data"]["order_id"], envelope["data"]["lesson_no"]


def _applying(lesson: Lesson) -> tuple[Request, str]:
    order, number = lesson
    return ApplyLesson(order_id=order.order_id, lesson_no=number), order.institution.token


async def _drive(
    gateway: LoadGateway,
    outgoing: "asyncio.Queue[tuple[Request, str]]",
    on: Hearing,
    done: Callable[[], bool],
) -> None:
    async def send() -> None:
        while True:
            request, token = await outgoing.get()
            await gateway.send(request, token)

    sending = asyncio.create_task(send())
    hearing = asyncio.create_task(gateway.hear(on, done))
    try:
        await asyncio.wait({sending, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done():
            sending.result()
        await hearing
    finally:
        sending.cancel()
        hearing.cancel()
        await asyncio.gather(sending, hearing, return_exceptions=True)
    if gateway.problems:
        raise BenchError(f"{len(gateway.problems)} requests were refused, the first: {gateway.problems[0]}")


def new_order(guardian: Guardian, institution: Institution, course: CourseView) -> Order:
    """An order to be."""
    return Order(new_id(), guardian, institution, course)
