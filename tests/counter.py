"""The test's side of the counter: it asks orders as families do and answers it as catalog and escrow do.

For the tests of purchases and of lessons, which import its fixtures.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from shared.actors import Actor
from shared.contracts import topics
from shared.contracts.catalog import (
    SeatReserved,
    SeatTaken,
    TakeSeat,
)
from shared.contracts.envelope import Command, Data, Problem, Request, encode
from shared.contracts.errors import ProblemBody, Refused
from shared.contracts.escrow import Held, Refunded
from shared.contracts.orders import (
    CancelPurchase,
    ChildDetails,
    PayPurchase,
    PlacePurchase,
    PurchaseView,
    ShowPurchase,
    SignContract,
    SignerDetails,
)
from shared.contracts.types import LessonTime
from shared.ids import new_id
from tests.harness import Harness
from tests.integration.test_families import adding, child, mother, setting, signed_in
from tests.unit.test_orders_contract import seat_reserved

PRICE_FEN = 10_000
NAME, ADDRESS = "欧阳小明", "常州市钟楼区怀德路 99 号 3 幢 501 室"


@dataclass
class Family:
    """A signed-in guardian, and what was typed of the family."""

    actor: Actor
    child_id: UUID
    child: ChildDetails
    signer: SignerDetails

    @property
    def account_id(self) -> UUID:
        return UUID(self.actor.subject)


@dataclass
class Order:
    """One purchase and who has to do with it."""

    order_id: UUID
    family: Family
    course_id: UUID
    institution_id: UUID

    @property
    def institution(self) -> Actor:
        """Who acts for the institution."""
        return Actor(str(self.institution_id), "institution")


class Counter:
    """Everybody but orders."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness

    # --- families ---------------------------------------------------------------------------------------------------

    async def family(self, **changes: Any) -> Family:
        """A family that can buy."""
        who = await signed_in(self.harness)
        details, signer = child(name=NAME, **changes), mother(phone="13887654321", address=ADDRESS)
        adds = adding(self.harness, who, details)
        await self.harness.ask(adds, who)
        await self.harness.ask(setting(self.harness, who, signer), who)
        return Family(who, adds.child_id, details, signer)

    async def ask(self, request: Request, order: Order, **options: Any) -> PurchaseView:
        """Asks as the guardian of the order."""
        answer = await self.harness.ask(request, order.family.actor, **options)
        assert isinstance(answer, PurchaseView)
        return answer

    def new_order(self, family: Family) -> Order:
        """An order nobody has heard of."""
        return Order(new_id(), family, new_id(), new_id())

    def placing(self, order: Order, **changes: Any) -> PlacePurchase:
        """The guardian buys the course for the child."""
        family = order.family
        data = PlacePurchase(
            order_id=order.order_id,
            account_id=family.account_id,
            child_id=family.child_id,
            course_id=order.course_id,
        )
        return data.model_copy(update=changes)

    async def signing(self, order: Order) -> SignContract:
        """The guardian signs what is shown."""
        shown = await self.show(order)
        return SignContract(order_id=order.order_id, contract_sha256=shown.contract_sha256)

    def paying(self, order: Order, method: Any = "alipay") -> PayPurchase:
        """The guardian chooses how to pay."""
        return PayPurchase(order_id=order.order_id, method=method)

    async def show(self, order: Order, actor: Actor | None = None) -> PurchaseView:
        """How the purchase stands."""
        view = await self.harness.ask(ShowPurchase(order_id=order.order_id), actor or order.family.actor)
        assert isinstance(view, PurchaseView)
        return view

    # --- services ---------------------------------------------------------------------------------------------------

    async def answers(self, order: Order, data: Data, message_id: UUID | None = None) -> None:
        """A service answers a command of orders or tells an event, and orders has handled it."""
        message_id = message_id or new_id()
        body = encode(
            {
                "specversion": "1.0",
                "id": message_id,
                "source": "/yike/test",
                "type": data.TYPE,
                "time": self.harness.now(),
                "correlationid": message_id,
                "partitionkey": str(order.order_id),
                "data": data,
            }
        )
        topic = data.TOPIC or topics.replies("orders")
        await self.harness.client.send_raw(topic, str(order.order_id), body.encode())
        await self.harness.until(lambda: self._handled(message_id))

    async def _handled(self, message_id: UUID) -> bool:
        return bool(await self.harness.rows("orders", "SELECT 1 FROM inbox WHERE message_id = $1", message_id))

    def refused(self, code: str, command: type[Command]) -> Problem:
        """A service refuses a command."""
        return Problem(**ProblemBody.of(Refused(code), command.TYPE).model_dump())

    def seat(self, order: Order, **changes: Any) -> SeatReserved:
        """Catalog keeps a seat."""
        own: dict[str, Any] = {
            "course_id": order.course_id,
            "institution_id": order.institution_id,
            "price_fen": PRICE_FEN,
        }
        return seat_reserved(order.order_id, self.harness.now(), **(own | changes))

    def held(self, order: Order) -> Held:
        """The money is in escrow."""
        return Held(order_id=order.order_id, account_id=order.family.account_id, amount_fen=PRICE_FEN)

    def refunded(self, order: Order) -> Refunded:
        """The money is back."""
        return Refunded(order_id=order.order_id, account_id=order.family.account_id, amount_fen=PRICE_FEN)

    # --- the way ----------------------------------------------------------------------------------------------------

    async def bring(self, family: Family, state: str, lessons: tuple[LessonTime, ...] = (), **offer: Any) -> Order:
        """A new purchase, brought to `state` as purchases get there. `offer`: what catalog offers that is not usual."""
        order = self.new_order(family)
        order.institution_id = offer.get("institution_id", order.institution_id)
        await self.ask(self.placing(order), order)
        for step in WAY[state]:
            if step == "seat":
                await self.answers(order, self.seat(order, **({"lessons": lessons} if lessons else {}), **offer))
            elif step == "sign":
                await self.ask(await self.signing(order), order)
            elif step == "pay":
                await self.ask(self.paying(order), order)
            elif step == "held":
                await self.answers(order, self.held(order))
            elif step == "taken":
                await self.answers(order, SeatTaken(order_id=order.order_id))
            elif step == "lost":
                await self.answers(order, self.refused("seat_expired", TakeSeat))
            else:
                await self.ask(CancelPurchase(order_id=order.order_id), order)
        assert await self.state(order) == state
        return order

    async def state(self, order: Order) -> str:
        """The state as stored."""
        sql = "SELECT state FROM purchases WHERE order_id = $1"
        rows = await self.harness.rows("orders", sql, order.order_id)
        return str(rows[0]["state"]) if rows else ""

    async def until(self, order: Order, state: str) -> None:
        """Waits until the purchase stands in `state`."""

        async def there() -> bool:
            return await self.state(order) == state

        await self.harness.until(there)

    async def advance(self, by: timedelta) -> None:
        """Moves the clock, and waits until everything that fell due is done."""
        await self.harness.advance(by)
        await self.harness.until(self._quiet)

    async def forget(self) -> None:
        """What this test has left will never fall due: the next one may compare everything there is."""
        await self.harness.until(self._quiet)
        await self.harness.rows("orders", "DELETE FROM timers")

    async def _quiet(self) -> bool:
        return not await self.harness.rows(
            "orders",
            """SELECT 1 FROM timers WHERE due_at <= yike_now() UNION ALL
               SELECT 1 FROM outbox o WHERE topic = 'orders.commands.v1'
                 AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.message_id = o.id)""",
        )

    async def trace(self, order: Order) -> tuple[Any, ...]:
        """All that an order has left: every business row, its timers, and what was said but to gateways and itself."""
        content = await self.harness.content("orders")
        timers = "SELECT type, subject, id, due_at FROM timers WHERE key = $1"
        return content, await self.harness.rows("orders", timers, str(order.order_id)), await self.said(order)

    async def refused_without_a_trace(self, code: str, request: Request, actor: Actor | None, order: Order) -> None:
        """The request is refused with `code`, and nothing changes."""
        before = await self.trace(order)
        assert await self.harness.refusal(request, actor) == code
        assert await self.trace(order) == before

    async def said(self, order: Order) -> list[str]:
        """The types of all that orders has said of it but to gateways and to itself, in that order."""
        sql = "SELECT topic, type FROM outbox WHERE key = $1 ORDER BY seq"
        rows = await self.harness.rows("orders", sql, str(order.order_id))
        others = [row for row in rows if topics.TOPICS_BY_NAME[row["topic"]].kind in ("commands", "events")]
        return [row["type"] for row in others if row["topic"] != topics.commands("orders")]


WAY: dict[str, tuple[str, ...]] = {
    "placed": (),
    "to_sign": ("seat",),
    "to_pay": ("seat", "sign"),
    "paying": ("seat", "sign", "pay"),
    "held": ("seat", "sign", "pay", "held"),
    "enrolled": ("seat", "sign", "pay", "held", "taken"),
    "cancelling": ("seat", "sign", "pay", "cancel"),
    "refunding": ("seat", "sign", "pay", "held", "lost"),
    "ended": ("seat", "cancel"),
}


@pytest.fixture(scope="module")
async def running(harness: Harness) -> AsyncIterator[Harness]:
    async with harness.service("orders"):
        yield harness


@pytest.fixture
async def counter(running: Harness) -> AsyncIterator[Counter]:
    counter = Counter(running)
    yield counter
    await counter.forget()


@pytest.fixture(scope="module")
async def family(running: Harness) -> Family:
    return await Counter(running).family()


@pytest.fixture(scope="module")
async def others(running: Harness) -> Family:
    """Another family."""
    return await Counter(running).family()
