"""What is told of money is right to the fen while it moves: families, lessons and banks at work, everybody looking.

orders, escrow and the stand-in bank run; the test plays guardians, institutions, catalog and a complaint. Each answer
must agree with itself at any moment, and in the end with sums that Python makes of the tables.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from services.escrow import audit
from shared.actors import Actor
from shared.contracts.catalog import SeatTaken
from shared.contracts.envelope import Data
from shared.contracts.escrow import (
    EscrowTotals,
    InstitutionMoney,
    ListEscrowTotals,
    ResumeReleases,
    SuspendReleases,
)
from shared.contracts.orders import (
    AnswerRefund,
    ApplyLesson,
    ConfirmLesson,
    InstitutionLessons,
    InstitutionTotals,
    ListInstitutionLessons,
    ListOrdersTotals,
    ListPurchases,
    ObjectLesson,
    OrdersTotals,
    PurchasePage,
    QuoteRefund,
    RequestRefund,
    ShowPurchase,
)
from shared.contracts.types import LessonTime
from shared.ids import new_id
from tests.counter import Counter, Family, Order
from tests.harness import Harness

SEED = 7
ORDERS = 12
AUTHORITY = Actor("authority-1", "authority")
STATES = {"applied": "waiting", "objected": "objected", "confirmed": "payable", "paid_out": "paid"}
CONSUMED = ("confirmed", "paid_out")
BALANCES = ("held_fen", "releasing_fen", "released_fen", "refunding_fen", "refunded_fen")


class Town:
    """Some families and institutions, what they have bought, and what everybody sees of it."""

    def __init__(self, harness: Harness, families: list[Family]) -> None:
        self.harness = harness
        self.counter = Counter(harness)
        self.families = families
        self.random = random.Random(SEED)
        self.institutions = {new_id(): district for district in ("天宁区", "武进区", "天宁区")}
        self.prices: dict[UUID, int] = {}
        """By order, of those enrolled."""
        self.offered: dict[UUID, int] = defaultdict(int)
        """By institution: the prices of all orders, enrolled or not."""
        self.looks = 0

    async def tell_escrow(self, data: Data) -> None:
        """A service tells escrow, and it has been handled."""
        message_id = await self.harness.publish(data)
        sql = "SELECT FROM inbox WHERE message_id = $1"
        await self.harness.until(lambda: self.harness.rows("escrow", sql, message_id))

    # --- what happens -------------------------------------------------------------------------------------------------

    async def buy(self, family: Family, institution_id: UUID) -> Order:
        """A purchase, paid through escrow at the bank, of a course whose lessons are over."""
        counter, order = self.counter, self.counter.new_order(family)
        order.institution_id = institution_id
        price, count, now = self.random.randint(5_000, 120_000), self.random.randint(2, 6), self.harness.now()
        ends = [now - timedelta(hours=count - number) for number in range(1, count + 1)]
        lessons = tuple(
            LessonTime(lesson_no=number, starts_at=at - timedelta(minutes=50), ends_at=at - timedelta(minutes=5))
            for number, at in enumerate(ends, 1)
        )
        self.offered[institution_id] += price
        await counter.ask(counter.placing(order), order)
        district = self.institutions[institution_id]
        await counter.answers(order, counter.seat(order, price_fen=price, lessons=lessons, district=district))
        await counter.ask(await counter.signing(order), order)
        await counter.ask(counter.paying(order), order)
        await counter.until(order, "held")
        await counter.answers(order, SeatTaken(order_id=order.order_id))
        self.prices[order.order_id] = price
        return order

    async def live(self, number: int) -> None:
        """The life of one order: its lessons are applied for, confirmed, objected to, or left alone."""
        order = await self.buy(self.families[number % len(self.families)], list(self.institutions)[number % 3])
        gives_up = number % 5 == 1
        count = len((await self.counter.show(order)).lessons) // (2 if gives_up else 1)
        complaint = new_id() if number % 4 == 0 else None
        if complaint:
            await self.tell_escrow(SuspendReleases(order_id=order.order_id, complaint_id=complaint))
        for lesson_no in self.random.sample(range(1, count + 1), count):
            about = {"order_id": order.order_id, "lesson_no": lesson_no}
            await self.harness.ask(ApplyLesson(**about), order.institution)
            match self.random.choice(("confirm", "confirm", "object", "object and confirm", "nothing")):
                case "confirm":
                    await self.harness.ask(ConfirmLesson(**about), order.family.actor)
                case "object":
                    await self.harness.ask(ObjectLesson(**about, reason="老师没有来上课"), order.family.actor)
                case "object and confirm":
                    await self.harness.ask(ObjectLesson(**about, reason="老师没有来上课"), order.family.actor)
                    await self.harness.ask(ConfirmLesson(**about), order.family.actor)
        if complaint and number % 8:
            await self.tell_escrow(ResumeReleases(order_id=order.order_id, complaint_id=complaint))
        if gives_up:
            await self.give_up(order)

    async def give_up(self, order: Order) -> None:
        """The guardian asks for the fee of the lessons that nobody has filed, and the institution agrees."""
        harness, order_id = self.harness, order.order_id
        quote = await harness.ask(QuoteRefund(order_id=order_id), order.family.actor)
        request = RequestRefund(
            order_id=order_id, refund_id=new_id(), reason="转学", quoted_fen=quote.refund_fen, excluded=quote.pending
        )
        await harness.ask(request, order.family.actor)
        await harness.ask(AnswerRefund(order_id=order_id, refund_id=request.refund_id, agrees=True), order.institution)

    # --- what is seen -------------------------------------------------------------------------------------------------

    async def family_looks(self) -> None:
        """consumed + left + refunded = price, in the list and of each order, whatever happens meanwhile."""
        family = self.random.choice(self.families)
        enrolled = set(self.prices)
        page = await self.harness.ask(ListPurchases(account_id=family.account_id, limit=100), family.actor)
        assert isinstance(page, PurchasePage)
        for one in page.purchases:
            whole = one.consumed_fen + one.left_fen + one.refunded_fen
            assert whole == one.price_fen or (whole == 0 and one.state != "enrolled")
            assert len(one.deadlines) <= one.left_lessons + 1
        shown = [one.order_id for one in page.purchases if one.state == "enrolled"]
        assert enrolled & {one.order_id for one in page.purchases} <= set(shown), "who is enrolled is seen at once"
        if shown:
            view = await self.harness.ask(ShowPurchase(order_id=self.random.choice(shown)), family.actor)
            assert view.consumed_fen + view.left_fen + view.refunded_fen == view.price_fen
            assert view.consumed_fen == sum(one.price_fen for one in view.lessons if one.state in CONSUMED)
            waiting = [one.lesson_no for one in view.lessons if one.state == "applied"]
            assert sorted(one.lesson_no for one in view.deadlines if one.kind == "lesson") == waiting

    async def institution_looks(self) -> None:
        """The totals are those of the lessons on the page."""
        institution_id = self.random.choice(list(self.institutions))
        state = self.random.choice(list(STATES.values()))
        request = ListInstitutionLessons(institution_id=institution_id, state=state, limit=100)
        page = await self.harness.ask(request, Actor(str(institution_id), "institution"))
        assert isinstance(page, InstitutionLessons)
        assert page.next_after is None
        (total,) = [one for one in page.totals if one.state == state]
        assert (total.lessons, total.fen) == (len(page.lessons), sum(one.price_fen for one in page.lessons))

    async def authority_looks(self) -> None:
        """Lessons add up to what was enrolled, money to what was paid."""
        institution_id = self.random.choice(list(self.institutions))
        enrolled = await self._enrolled(institution_id)
        lessons = await self.harness.ask(ListOrdersTotals(institution_id=institution_id), AUTHORITY)
        assert isinstance(lessons, OrdersTotals)
        for one in lessons.institutions:
            whole = one.consumed_fen + one.left_fen + one.refunded_fen
            assert enrolled <= whole <= self.offered[institution_id]
            assert one.waiting + one.objections <= one.left_lessons
            assert one.overdue == 0
        money = await self.harness.ask(ListEscrowTotals(institution_id=institution_id), AUTHORITY)
        assert isinstance(money, EscrowTotals)
        for entry in money.institutions:
            assert entry.paid_fen == sum(getattr(entry, name) for name in BALANCES)
            assert enrolled <= entry.paid_fen <= self.offered[institution_id]
            assert entry.waiting_fen <= entry.held_fen

    async def _enrolled(self, institution_id: UUID) -> int:
        sql = """SELECT coalesce(sum(price_fen), 0)::bigint AS fen FROM purchases
                 WHERE institution_id = $1 AND state = 'enrolled'"""
        (row,) = await self.harness.rows("orders", sql, institution_id)
        return int(row["fen"])

    async def look(self, what: Callable[[], Awaitable[None]], done: asyncio.Event) -> None:
        """Looks until all is over."""
        while not done.is_set():
            await what()
            self.looks += 1

    # --- what is true -------------------------------------------------------------------------------------------------

    async def calm(self) -> bool:
        """Nothing moves any more but what waits for a complaint, and orders knows all that was paid out."""
        (sent,) = await self.harness.rows("orders", _SENT)
        (heard,) = await self.harness.rows(
            "escrow", "SELECT count(*) FROM inbox WHERE message_id = ANY($1)", sent["ids"]
        )
        (moving,) = await self.harness.rows("escrow", _MOVING)
        (paid,) = await self.harness.rows("escrow", _PAID)
        (known,) = await self.harness.rows("orders", "SELECT count(*) FROM lessons WHERE state = 'paid_out'")
        (refunds,) = await self.harness.rows("orders", "SELECT count(*) FROM refunds WHERE closed_at IS NULL")
        settled = moving["count"] == refunds["count"] == 0 and paid["count"] == known["count"]
        return bool(settled and heard["count"] == len(sent["ids"]))


_SENT = "SELECT coalesce(array_agg(id), '{}') AS ids FROM outbox WHERE topic = 'escrow.commands.v1'"
_MOVING = "SELECT count(*) FROM instructions WHERE state NOT IN ('paid', 'waiting')"
_PAID = "SELECT count(*) FROM instructions WHERE kind = 'payout' AND state = 'paid' AND lesson_no > 0"


@pytest.fixture(scope="module")
async def town(harness: Harness) -> AsyncIterator[Town]:
    async with harness.service("bank", "escrow", "orders"):
        counter = Counter(harness)
        yield Town(harness, [await counter.family() for _ in range(3)])
        assert (await audit.check(harness.dsns["escrow"])).violations == {}


@pytest.mark.timeout(600)
async def test_every_view_agrees_with_itself_while_money_moves_and_with_the_tables_in_the_end(town: Town) -> None:
    done = asyncio.Event()
    lookers = (town.family_looks, town.family_looks, town.institution_looks, town.authority_looks)
    async with asyncio.TaskGroup() as group:
        for looks in lookers:
            group.create_task(town.look(looks, done))
        await asyncio.gather(*(town.live(number) for number in range(ORDERS)))
        await town.harness.until(town.calm)
        done.set()
    assert town.looks > 4 * ORDERS

    purchases = {row["order_id"]: row for row in await town.harness.rows("orders", "SELECT * FROM purchases")}
    lessons = await town.harness.rows("orders", "SELECT * FROM lessons ORDER BY order_id, lesson_no")
    assert len(purchases) == ORDERS
    assert {row["state"] for row in lessons} == {*STATES, "refunded"}, "chance has let everything happen"
    await families_are_told_the_truth(town, purchases, lessons)
    await institutions_are_told_the_truth(town, purchases, lessons)
    await authorities_are_told_the_truth(town, purchases, lessons)


async def families_are_told_the_truth(town: Town, purchases: dict[UUID, Any], lessons: list[Any]) -> None:
    told = 0
    for family in town.families:
        page = await town.harness.ask(ListPurchases(account_id=family.account_id, limit=100), family.actor)
        own = [row for row in purchases.values() if row["account_id"] == family.account_id]
        newest_first = sorted(own, key=lambda row: (row["placed_at"], row["order_id"]), reverse=True)
        assert [one.order_id for one in page.purchases] == [row["order_id"] for row in newest_first]
        for one in page.purchases:
            of_order = [row for row in lessons if row["order_id"] == one.order_id]
            consumed = [row for row in of_order if row["state"] in CONSUMED]
            assert one.price_fen == town.prices[one.order_id] == sum(row["price_fen"] for row in of_order)
            assert (one.consumed_lessons, one.consumed_fen) == (
                len(consumed),
                sum(row["price_fen"] for row in consumed),
            )
            back = [row for row in of_order if row["state"] == "refunded"]
            assert (one.refunded_lessons, one.refunded_fen) == (len(back), sum(row["price_fen"] for row in back))
            assert one.left_lessons == len(of_order) - len(consumed) - len(back)
            assert one.consumed_fen + one.left_fen + one.refunded_fen == one.price_fen
            waiting = {(row["lesson_no"], row["answer_by"]) for row in of_order if row["state"] == "applied"}
            told_of = {(coming.lesson_no, coming.due_at) for coming in one.deadlines if coming.kind == "lesson"}
            assert told_of == waiting
            told += 1
    assert told == ORDERS


async def institutions_are_told_the_truth(town: Town, purchases: dict[UUID, Any], lessons: list[Any]) -> None:
    for institution_id in town.institutions:
        own = [row for row in lessons if purchases[row["order_id"]]["institution_id"] == institution_id]
        for state, name in STATES.items():
            request = ListInstitutionLessons(institution_id=institution_id, state=name, limit=100)
            page = await town.harness.ask(request, AUTHORITY)
            rows = [row for row in own if row["state"] == state]
            assert [(one.order_id, one.lesson_no, one.price_fen) for one in page.lessons] == [
                (row["order_id"], row["lesson_no"], row["price_fen"]) for row in rows
            ]
            (total,) = [one for one in page.totals if one.state == name]
            assert (total.lessons, total.fen) == (len(rows), sum(row["price_fen"] for row in rows))


async def authorities_are_told_the_truth(town: Town, purchases: dict[UUID, Any], lessons: list[Any]) -> None:
    accounts = {row["order_id"]: row for row in await town.harness.rows("escrow", "SELECT * FROM accounts")}
    waiting = await town.harness.rows("escrow", "SELECT * FROM instructions WHERE state = 'waiting'")
    assert waiting, "one complaint is open"
    lesson_sums: dict[UUID, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    money: dict[UUID, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in lessons:
        sums = lesson_sums[purchases[row["order_id"]]["institution_id"]]
        sums["waiting"] += row["state"] == "applied"
        sums["objections"] += row["state"] == "objected"
        kind = "consumed" if row["state"] in CONSUMED else "refunded" if row["state"] == "refunded" else "left"
        sums[f"{kind}_lessons"] += 1
        sums[f"{kind}_fen"] += row["price_fen"]
    for row in accounts.values():
        sums = money[row["institution_id"]]
        sums["orders"] += 1
        for name in ("paid_fen", *BALANCES):
            sums[name] += row[name]
    for row in waiting:
        money[accounts[row["order_id"]]["institution_id"]]["waiting_fen"] += row["amount_fen"]

    order = sorted((district, institution_id) for institution_id, district in town.institutions.items())
    told = await town.harness.ask(ListOrdersTotals(limit=100), AUTHORITY)
    assert told.institutions == tuple(
        InstitutionTotals(
            **dict.fromkeys(InstitutionTotals.model_fields, 0)
            | {"district": district, "institution_id": institution_id}
            | lesson_sums[institution_id]
        )
        for district, institution_id in order
    )
    told_money = await town.harness.ask(ListEscrowTotals(limit=100), AUTHORITY)
    assert told_money.institutions == tuple(
        InstitutionMoney(
            **dict.fromkeys(InstitutionMoney.model_fields, 0)
            | {"district": district, "institution_id": institution_id}
            | money[institution_id]
        )
        for district, institution_id in order
    )
    assert sum(one.paid_fen for one in told_money.institutions) == sum(town.prices.values())
