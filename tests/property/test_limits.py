"""The limits over random sequences of purchases, endings and lessons, on a real database, against a tiny pure model.

The model knows single lessons only and counts them one by one; the service sums rows in SQL.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test, initialize, invariant, precondition, rule

from ops.provision import create_databases, drop_databases, upgrade
from ops.stack.servers import Servers
from services.orders.lessons.tables import LessonRow
from services.orders.lessons.use_cases import planned
from services.orders.purchases import limits
from services.orders.purchases.domain import Purchase
from services.orders.purchases.open_orders import Place, open_charges
from services.orders.purchases.tables import PurchaseRow
from shared.contracts.catalog import SeatReserved
from shared.contracts.errors import Refused
from shared.contracts.types import LessonTime
from shared.database import Connection, Database
from shared.ids import new_id
from shared.messaging.work import UnitOfWork
from shared.money import lesson_price_fen
from shared.policy import policy_for
from tests.unit.test_orders_contract import RING, seat_reserved

T = TypeVar("T")
START: Final = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
POLICY: Final = policy_for("changzhou", "文化艺术", date(2026, 3, 1))
OPEN_STATES: Final = ("to_sign", "to_pay", "paying", "held", "cancelling", "refunding")
DONE_STATES: Final = ("confirmed", "paid_out", "divided", "refunded")
WHICH: Final = st.integers(0, 1)


@dataclass
class ModelLesson:
    """One lesson that somebody has prepaid."""

    fen: int
    day: int
    counts: bool = True


class Limits(RuleBasedStateMachine):
    """Two children at two institutions."""

    runner: ClassVar[asyncio.Runner]
    database: ClassVar[Database]
    connection: ClassVar[Connection]

    @initialize()
    def nobody_has_bought(self) -> None:
        self.places: list[Place] = [(child * 32, new_id()) for child in (b"a", b"b")]
        self.places.append((self.places[0][0], self.places[1][1]))  # the first child at the second institution
        self.orders: dict[UUID, tuple[Place, list[ModelLesson]]] = {}
        self.enrolled: set[UUID] = set()

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(doing)

    async def _decide(self, place: Place, offer: SeatReserved) -> str:
        """The real decision; a purchase that passes is written as orders writes it."""
        async with self.database.session() as session, session.begin():
            work = UnitOfWork("orders", session, RING, START)
            found = await open_charges(work, [place])
            try:
                limits.check_sum(POLICY, limits.charge_of(offer), found[place])
            except Refused as refused:
                return " ".join(fault.code for fault in refused.errors)
            purchase = Purchase(offer.order_id, new_id(), new_id(), new_id(), "to_sign", "", START, START)
            purchase.institution_id, purchase.child_hash = place[1], place[0]
            purchase.price_fen, purchase.lessons = offer.price_fen, len(offer.lessons)
            purchase.offer = offer.model_dump(mode="json")
            work.insert(PurchaseRow, [purchase])
            await work.write()
            return ""

    @rule(
        which=st.integers(0, 2),
        fen=st.sampled_from([1, 99_999, 100_000, 166_667, 250_000, 500_000]),
        lessons=st.sampled_from([1, 2, 7, 20, 30, 60]),
        first=st.integers(-30, 80),
        gap=st.integers(0, 3),
    )
    def somebody_buys(self, which: int, fen: int, lessons: int, first: int, gap: int) -> None:
        place, order_id = self.places[which], new_id()
        days = [first + gap * n for n in range(lessons)]
        starts = [START + timedelta(days=day) for day in days]
        plan = tuple(
            LessonTime(lesson_no=n, starts_at=at, ends_at=at + timedelta(hours=1)) for n, at in enumerate(starts, 1)
        )
        offer = seat_reserved(order_id, START, price_fen=max(fen, lessons), lessons=plan)
        new = [ModelLesson(lesson_price_fen(offer.price_fen, lessons, n), day) for n, day in enumerate(days, 1)]
        counted = [one for where, some in self.orders.values() if where == place for one in some if one.counts] + new
        span = [
            (START + timedelta(days=day)).date() for day in (min(x.day for x in counted), max(x.day for x in counted))
        ]
        broken = [
            code
            for code, is_broken in (
                ("course_limit_lessons", len(counted) > 60),
                ("course_limit_price", sum(one.fen for one in counted) > 500_000),
                ("course_limit_span", span[1] > three_months_after(span[0])),
            )
            if is_broken
        ]
        assert self.run(self._decide(place, offer)) == " ".join(broken)
        if not broken:
            self.orders[order_id] = place, new

    def _pick(self, which: int, *, enrolled: bool) -> UUID | None:
        among = [order_id for order_id in self.orders if (order_id in self.enrolled) == enrolled]
        return among[which % len(among)] if among else None

    async def _set(self, sql: str, *arguments: object) -> None:
        await self.connection.execute(sql, *arguments)

    @precondition(lambda self: self.orders)
    @rule(which=st.integers(0, 9), state=st.sampled_from(OPEN_STATES))
    def a_purchase_goes_on_and_counts_as_before(self, which: int, state: str) -> None:
        if order_id := self._pick(which, enrolled=False):
            self.run(self._set("UPDATE purchases SET state = $2 WHERE order_id = $1", order_id, state))

    @precondition(lambda self: self.orders)
    @rule(which=st.integers(0, 9))
    def a_purchase_ends(self, which: int) -> None:
        if order_id := self._pick(which, enrolled=False):
            self.run(self._set("UPDATE purchases SET state = 'ended' WHERE order_id = $1", order_id))
            del self.orders[order_id]

    @precondition(lambda self: self.orders)
    @rule(which=st.integers(0, 9))
    def a_child_is_enrolled(self, which: int) -> None:
        if order_id := self._pick(which, enrolled=False):
            self.enrolled.add(order_id)
            self.run(self._enrol(order_id))

    async def _enrol(self, order_id: UUID) -> None:
        async with self.database.session() as session, session.begin():
            work = UnitOfWork("orders", session, RING, START)
            purchase = (await work.load(PurchaseRow, Purchase, [order_id]))[order_id]
            assert purchase.offer is not None
            purchase.state = "enrolled"
            work.update(PurchaseRow, [purchase], "state")
            work.insert(LessonRow, planned(order_id, purchase.price_fen, purchase.offer["lessons"]))
            await work.write()

    @precondition(lambda self: self.enrolled)
    @rule(which=st.integers(0, 9), lessons=st.sampled_from([1, 5, 60]), state=st.sampled_from(DONE_STATES))
    def lessons_are_consumed_or_refunded(self, which: int, lessons: int, state: str) -> None:
        """The first ones, or all."""
        order_id = self._pick(which, enrolled=True)
        assert order_id is not None
        sql = """UPDATE lessons SET state = CAST($3 AS text), confirmed_by = $4,
                   paid_at = CASE WHEN CAST($3 AS text) = 'paid_out' THEN now() END,
                   returned_fen = CASE WHEN CAST($3 AS text) = 'divided' THEN price_fen ELSE 0 END
                 WHERE order_id = $1 AND lesson_no <= $2"""
        confirmed_by = "guardian" if state in ("confirmed", "paid_out") else ""
        self.run(self._set(sql, order_id, lessons, state, confirmed_by))
        for lesson in self.orders[order_id][1][:lessons]:
            lesson.counts = False

    @precondition(lambda self: self.enrolled)
    @rule(which=st.integers(0, 9), state=st.sampled_from(["applied", "objected", "refunding"]))
    def what_is_not_decided_counts_as_before(self, which: int, state: str) -> None:
        order_id = self._pick(which, enrolled=True)
        sql = "UPDATE lessons SET state = $2 WHERE order_id = $1 AND state = 'planned'"
        self.run(self._set(sql, order_id, state))

    @invariant()
    def what_is_open_is_what_the_model_counts(self) -> None:
        if not hasattr(self, "places"):
            return
        found = self.run(self._open())
        for place in self.places:
            counted = [one for where, some in self.orders.values() if where == place for one in some if one.counts]
            assert sum(one.fen for one in found[place]) == sum(one.fen for one in counted) <= 500_000
            assert sum(one.lessons for one in found[place]) == len(counted) <= 60

    async def _open(self) -> dict[Place, list[limits.Charge]]:
        async with self.database.session() as session, session.begin():
            return await open_charges(UnitOfWork("orders", session, RING, START), self.places)


def three_months_after(day: date) -> date:
    """The same day three months later, or the last one of that month."""
    month = day.month + 3
    year, month = day.year + (month - 1) // 12, (month - 1) % 12 + 1
    for last in range(day.day, 0, -1):
        try:
            return date(year, month, last)
        except ValueError:
            continue
    raise AssertionError


@pytest.fixture(scope="module")
def database(servers: Servers) -> Iterator[None]:
    with asyncio.Runner() as runner:
        suffix = f"_l{new_id().hex[-8:]}"
        dsn = runner.run(create_databases(servers.postgres_admin_dsn, ["orders"], suffix=suffix))["orders"]
        runner.run(upgrade("orders", dsn))
        Limits.runner, Limits.database = runner, Database(dsn)
        Limits.connection = runner.run(Limits.database.connect())
        # The server does not die here: commits need not reach the disk.
        runner.run(Limits.connection.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off"))
        yield
        runner.run(Limits.connection.close())
        runner.run(Limits.database.close())
        runner.run(drop_databases(servers.postgres_admin_dsn, ["orders"], suffix=suffix))


def test_no_sequence_of_purchases_prepays_more_than_one_charge_may(database: None) -> None:
    """[law] 财务管理暂行办法 2023: 3 个月, 60 课时, 5000 元; over all open orders [ours]."""
    playing = settings(
        max_examples=30,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    get_state_machine_test(Limits, settings=playing)()
