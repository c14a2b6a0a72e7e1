"""The saga against a model of catalog, escrow, the bank and impatient people, in any order, with repeats and delays.

Whatever happens, a purchase ends in the course with its seat sold and its money held, or it ends with its seat given
back and no money held. What is delayed, parked by its consumer and replayed by an operator, is never lost.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from services.orders.lessons.tables import LessonRow
from services.orders.purchases.saga import DONE
from services.orders.purchases.tables import PurchaseRow
from shared.contracts import topics
from shared.contracts.catalog import ExtendSeat, GiveBackSeat, ReserveSeat, SeatGivenBack, SeatTaken, TakeSeat
from shared.contracts.envelope import Command, Data
from shared.contracts.escrow import CancelPayment, CollectPayment, PaymentFailed, RefundOrder
from shared.contracts.orders import PayPurchase, PurchaseDeadline, PurchaseEnded, PurchaseEnrolled
from tests.unit.test_orders_contract import seat_reserved
from tests.unit.test_orders_saga import (
    CANCEL,
    HELD,
    ORDER_ID,
    PAYING,
    PRICE_FEN,
    REFUNDED,
    START,
    Rows,
    Said,
    families_on_paper,
    hear,
    placing,
    problem,
    purchase_of,
    signing,
)

RESERVED_FOR = timedelta(minutes=15)
MOST_STEPS = 300
"""Far above what any story needs to come to rest."""


@pytest.fixture(autouse=True, scope="module")
def families() -> Iterator[None]:
    """For all tests of this module."""
    with families_on_paper():
        yield


class World:
    """One purchase and everybody around it. Each road is a queue: equal keys keep their order; roads do not wait for
    each other. `aside` is what a consumer could not handle, until an operator replays it."""

    def __init__(self, *, last_seat: bool) -> None:
        self.now = START
        self.rows: Rows = {}
        self.timer: tuple[datetime, Command] | None = None
        self.to_catalog: deque[Command] = deque()
        self.to_escrow: deque[Command] = deque()
        self.from_catalog: deque[Data] = deque()
        self.from_escrow: deque[Data] = deque()
        self.events: deque[Data] = deque()
        self.own: deque[Data] = deque()
        self.aside: list[tuple[deque[Any], Any]] = []
        self.heard: list[Data] = []
        self.told: list[Data] = []
        # catalog
        self.free = 1 if last_seat else 2
        self.strangers = 0
        self.seat = "none"
        self.seat_until = START
        # escrow
        self.money = "none"
        self.pay_by = START
        self.listen(placing())

    # --- orders -----------------------------------------------------------------------------------------------------

    def listen(self, *heard: Data) -> None:
        """Orders hears these in one poll; what it says goes on its roads."""
        done = {self.state} & DONE
        said: Said = hear(self.rows, self.now, *heard)
        for topic, data, _ in said.messages:
            if isinstance(data, Command):
                road = self.to_catalog if topic == topics.commands("catalog") else self.to_escrow
                assert topic in (topics.commands("catalog"), topics.commands("escrow"))
                road.append(data)
            elif isinstance(data, (PurchaseEnrolled, PurchaseEnded)):
                self.told.append(data)
        if said.timers:
            self.timer = said.timers[-1]
        self.heard += heard
        assert not done or self.state in done, "an end is for ever"
        if self.state not in DONE:
            assert self._will_be_late(), f"{self.state} waits for ever"

    @property
    def state(self) -> str:
        return purchase_of(self.rows).state if PurchaseRow in self.rows else ""

    def _will_be_late(self) -> bool:
        wanted = PurchaseDeadline.model_validate({"order_id": ORDER_ID, "state": self.state})
        on_its_way = wanted in self.own or any(message == wanted for _, message in self.aside)
        return on_its_way or self.timer == (purchase_of(self.rows).act_by, wanted)

    def next_of(self, road: deque[Data]) -> None:
        if road:
            self.listen(road.popleft())

    def all_of(self, road: deque[Data]) -> None:
        heard = list(road)
        road.clear()
        if heard:
            self.listen(*heard)

    def again(self) -> None:
        """The oldest of the last few comes again, with a new id."""
        self.listen(self.heard[-3:][0])

    def set_aside(self, road: deque[Any]) -> None:
        """Orders cannot handle the next message: it is parked."""
        if road:
            self.aside.append((road, road.popleft()))

    def replay(self) -> None:
        if self.aside:
            road, message = self.aside.pop(0)
            road.append(message)

    def fire(self) -> None:
        """The timer of orders, once it is due."""
        if self.timer and self.timer[0] <= self.now:
            self.own.append(self.timer[1])
            self.timer = None

    def wait(self, span: timedelta) -> None:
        self.now += span

    # --- catalog ----------------------------------------------------------------------------------------------------

    def catalog_works(self) -> None:
        if self.to_catalog:
            command = self.to_catalog.popleft()
            answer = self._seat_answer(command)
            if answer is not None:
                self.from_catalog.append(answer)

    def _seat_answer(self, command: Command) -> Data | None:
        if isinstance(command, GiveBackSeat):
            self._free(("reserved", "taken"))
            self.seat = "given_back"
            return SeatGivenBack(order_id=ORDER_ID)
        if isinstance(command, ReserveSeat) and self.seat == "none":
            if not self.free:
                return problem("course_full", ReserveSeat)
            self.free -= 1
            self.seat, self.seat_until = "reserved", self.now + RESERVED_FOR
        gone = self.seat in ("none", "given_back") or (self.seat == "expired" and not self.free)
        if gone or (self.seat == "expired" and not isinstance(command, TakeSeat)):
            return problem("seat_expired", type(command))
        if isinstance(command, ReserveSeat):
            return seat_reserved(ORDER_ID, self.seat_until - RESERVED_FOR)
        if isinstance(command, TakeSeat):
            self.free -= self.seat == "expired"
            self.seat = "taken"
            return SeatTaken(order_id=ORDER_ID)
        assert isinstance(command, ExtendSeat)
        self.seat_until = command.until
        return None

    def seat_expires(self) -> None:
        if self.seat_until <= self.now:
            self._free(("reserved",))

    def _free(self, states: Sequence[str]) -> None:
        if self.seat in states:
            self.free += 1
            self.seat = "expired"

    def catalog_parks(self) -> None:
        self._park(self.to_catalog, self.from_catalog)

    def _park(self, road: deque[Command], answers: deque[Data]) -> None:
        """A service cannot handle the next command: it says so, and may handle it later after all."""
        if road:
            self.aside.append((road, command := road.popleft()))
            answers.append(problem("internal_error", type(command)))

    def stranger(self) -> None:
        """Somebody else takes a free seat, or gives one up."""
        self.strangers += 1 if self.free else -1 if self.strangers else 0
        self.free += -1 if self.free else 1 if self.seat not in ("reserved", "taken") else 0

    # --- escrow and the bank ----------------------------------------------------------------------------------------

    def escrow_works(self) -> None:
        if not self.to_escrow:
            return
        command = self.to_escrow.popleft()
        if isinstance(command, CollectPayment):
            if self.money == "none":
                self.money, self.pay_by = "collecting", command.pay_by
            return
        assert isinstance(command, (CancelPayment, RefundOrder))
        if self.money in ("none", "collecting", "failed"):
            self.money = "none" if self.money == "none" else "failed"
            self.events.append(PaymentFailed(order_id=ORDER_ID, reason=command.reason))
        elif self.money == "held":
            self.money = "refunding"
        elif self.money == "refunded":
            self.events.append(REFUNDED)

    def escrow_parks(self) -> None:
        self._park(self.to_escrow, self.from_escrow)

    def payment_expires(self) -> None:
        if self.money == "collecting" and self.pay_by <= self.now:
            self.money = "failed"
            self.events.append(PaymentFailed(order_id=ORDER_ID, reason="expired"))

    def bank_collects(self) -> None:
        if self.money == "collecting":  # any later it is suspense, and none of ours
            self.money = "held"
            self.events.append(HELD)

    def bank_refuses(self) -> None:
        if self.money == "collecting":
            self.money = "failed"
            self.events.append(PaymentFailed(order_id=ORDER_ID, reason="refused"))

    def bank_pays_back(self) -> None:
        if self.money == "refunding":
            self.money = "refunded"
            self.events.append(REFUNDED)

    def refund_comes_back(self) -> None:
        if self.money == "refunded":
            self.money = "refunding"

    # --- rest -------------------------------------------------------------------------------------------------------

    def come_to_rest(self, *, bank_collects: bool) -> None:
        """Everybody does what is left to do, and time passes until nobody waits."""
        for _ in range(MOST_STEPS):
            if not self._busy(bank_collects=bank_collects):
                return
        raise AssertionError("it does not come to rest")

    def _busy(self, *, bank_collects: bool) -> bool:
        roads = [self.own, self.from_catalog, self.from_escrow, self.events]
        if self.aside:
            self.replay()
        elif self.to_catalog or self.to_escrow:
            self.catalog_works()
            self.escrow_works()
        elif any(roads):
            self.next_of(next(road for road in roads if road))
        elif self.money == "collecting" and bank_collects:
            self.bank_collects()
        elif self.money == "refunding":
            self.bank_pays_back()
        elif self.timer:
            self.now = max(self.now, self.timer[0])
            self.fire()
        elif self.money == "collecting":
            self.now = max(self.now, self.pay_by)
            self.payment_expires()
        elif self.seat == "reserved":
            self.now = max(self.now, self.seat_until)
            self.seat_expires()
        else:
            return False
        return True

    def assert_whole(self) -> None:
        """The one or the other, never between."""
        lessons = list(self.rows.get(LessonRow, {}).values())
        found = (self.state, self.seat, self.money)
        if self.state == "enrolled":
            assert (self.seat, self.money) == ("taken", "held"), found
            assert [type(data) for data in self.told] == [PurchaseEnrolled]
            assert sum(lesson.price_fen for lesson in lessons) == PRICE_FEN
        else:
            assert self.state == "ended", found
            assert self.seat == "given_back", found
            assert self.money in ("none", "failed", "refunded"), found
            assert [type(data) for data in self.told] == [PurchaseEnded]
            assert lessons == []
        assert self.free + (self.seat == "taken") + self.strangers in (1, 2), found


STEPS: dict[str, Callable[[World], None]] = {
    "catalog works": World.catalog_works,
    "escrow works": World.escrow_works,
    "catalog is heard": lambda world: world.next_of(world.from_catalog),
    "escrow's refusal is heard": lambda world: world.next_of(world.from_escrow),
    "escrow's event is heard": lambda world: world.next_of(world.events),
    "all of escrow's events are heard": lambda world: world.all_of(world.events),
    "all of catalog's answers are heard": lambda world: world.all_of(world.from_catalog),
    "the deadline is heard": lambda world: world.next_of(world.own),
    "the timer fires": World.fire,
    "it comes again": World.again,
    "the guardian signs": lambda world: world.listen(signing(world.rows)),
    "the guardian pays": lambda world: world.listen(PAYING),
    "the guardian pays at the counter": lambda world: world.listen(
        PayPurchase(order_id=ORDER_ID, method="bank_counter")
    ),
    "the guardian gives up": lambda world: world.listen(CANCEL),
    "the bank collects": World.bank_collects,
    "the bank refuses": World.bank_refuses,
    "the bank pays back": World.bank_pays_back,
    "the refund comes back": World.refund_comes_back,
    "the payment expires": World.payment_expires,
    "the seat expires": World.seat_expires,
    "a stranger comes or goes": World.stranger,
    "catalog parks": World.catalog_parks,
    "escrow parks": World.escrow_parks,
    "orders parks an event": lambda world: world.set_aside(world.events),
    "orders parks an answer": lambda world: world.set_aside(world.from_catalog),
    "orders parks a deadline": lambda world: world.set_aside(world.own),
    "an operator replays": World.replay,
    "a minute passes": lambda world: world.wait(timedelta(minutes=1)),
    "a quarter passes": lambda world: world.wait(timedelta(minutes=15)),
    "two days pass": lambda world: world.wait(timedelta(days=2)),
}
BEFORE_THE_STORY: dict[str, list[str]] = {
    "placed": [],
    "reserved": ["catalog works", "catalog is heard"],
    "paying": ["catalog works", "catalog is heard", "the guardian signs", "the guardian pays"],
}
BEFORE_THE_STORY["collecting"] = [*BEFORE_THE_STORY["paying"], "catalog works", "escrow works"]
BEFORE_THE_STORY["held"] = [*BEFORE_THE_STORY["collecting"], "the bank collects", "escrow's event is heard"]


def play(world: World, story: Sequence[str]) -> World:
    """Everything of `story`, in its order."""
    for step in story:
        STEPS[step](world)
    return world


@given(
    st.sampled_from(sorted(BEFORE_THE_STORY)),
    st.lists(st.sampled_from(sorted(STEPS)), max_size=30),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_a_purchase_is_whole_in_the_end(
    beginning: str, story: list[str], last_seat: bool, bank_collects: bool
) -> None:
    world = play(World(last_seat=last_seat), [*BEFORE_THE_STORY[beginning], *story])
    world.come_to_rest(bank_collects=bank_collects)
    event(f"from {beginning} to {world.state} with money {world.money}")
    world.assert_whole()


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=20))
@settings(max_examples=40, deadline=None)
def test_after_the_end_nothing_more_is_ever_asked_but_money_back(story: list[str]) -> None:
    world = play(World(last_seat=True), [*BEFORE_THE_STORY["held"], *story])
    world.come_to_rest(bank_collects=True)
    before = purchase_of(world.rows)
    for data in list(world.heard):
        world.listen(data)
    assert purchase_of(world.rows) == before
    asked = [type(command) for command in (*world.to_catalog, *world.to_escrow)]
    assert set(asked) <= ({RefundOrder} if world.state == "ended" else set())


STORIES: dict[str, tuple[str, list[str], str, str]] = {
    "nobody disturbs": ("held", [], "enrolled", "held"),
    "given up while the seat is on its way": (
        "placed",
        ["catalog works", "the guardian gives up", "catalog is heard"],
        "ended",
        "none",
    ),
    "given up while the money is on its way": (
        "collecting",
        ["the bank collects", "the guardian gives up", "escrow's event is heard"],
        "ended",
        "refunded",
    ),
    "the last seat is lost before the money comes": (
        "collecting",
        ["two days pass", "the seat expires", "a stranger comes or goes", "the bank collects"],
        "ended",
        "refunded",
    ),
    "the seat ran out, and one is free still": (
        "collecting",
        ["two days pass", "the seat expires", "the bank collects"],
        "enrolled",
        "held",
    ),
    "the seat ran out before it could be kept for the payment": (
        "reserved",
        ["the guardian signs", "a quarter passes", "the seat expires", "the guardian pays"],
        "ended",
        "failed",
    ),
    "a parked collection is replayed after the end": (
        "paying",
        [
            *("escrow parks", "escrow's refusal is heard", "escrow works", "escrow's event is heard"),
            *("an operator replays", "escrow works", "the bank collects", "escrow's event is heard"),
        ],
        "ended",
        "refunded",
    ),
    "nobody ever pays": ("collecting", ["two days pass", "the payment expires"], "ended", "failed"),
}


@pytest.mark.parametrize("name", STORIES)
def test_stories_end_as_they_should(name: str) -> None:
    beginning, story, state, money = STORIES[name]
    world = play(World(last_seat=True), [*BEFORE_THE_STORY[beginning], *story])
    world.come_to_rest(bank_collects=False)
    world.assert_whole()
    assert (world.state, world.money) == (state, money)
