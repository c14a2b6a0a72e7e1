"""The saga as a table: every row leads somewhere, every refusal undoes what was done, every wait has an end.

`PaperWork` and the functions below drive the real handlers with rows on paper; `tests/property/test_saga.py` does too.
"""

import dataclasses
from collections.abc import Awaitable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast, get_args
from uuid import UUID

import pydantic_core
import pytest
from sqlmodel import SQLModel

from services.orders.families.domain import Child, Family, Signer
from services.orders.handlers import handlers
from services.orders.lessons.tables import LessonRow
from services.orders.purchases import saga, use_cases
from services.orders.purchases.domain import GRACE, Purchase
from services.orders.purchases.limits import Charge
from services.orders.purchases.open_orders import Place
from services.orders.purchases.saga import DONE, SAGA, STEPS
from services.orders.purchases.tables import PurchaseRow
from shared.actors import Actor, Role
from shared.contracts import topics
from shared.contracts.catalog import ExtendSeat, GiveBackSeat, ReserveSeat, SeatGivenBack, SeatTaken, TakeSeat
from shared.contracts.envelope import CONTRACTS, Command, Data, Message, Problem
from shared.contracts.errors import ProblemBody, Refused
from shared.contracts.escrow import CancelPayment, CollectPayment, Held, PaymentFailed, Refunded, RefundOrder
from shared.contracts.orders import (
    CancelPurchase,
    PayPurchase,
    PlacePurchase,
    PurchaseDeadline,
    PurchaseEnded,
    PurchaseEnrolled,
    PurchaseState,
    PurchaseView,
    SignContract,
)
from shared.ids import new_id
from shared.messaging import sets
from shared.messaging.work import UnitOfWork
from tests.unit.test_orders_contract import PARTIES, RING, seat_reserved

T = TypeVar("T")

ORDER_ID, ACCOUNT_ID, CHILD_ID = UUID(int=1), UUID(int=20), UUID(int=30)
COURSE_ID, INSTITUTION_ID = UUID(int=2), UUID(int=3)  # as `seat_reserved` has them
START = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
PRICE_FEN = 10_000
STATES: tuple[str, ...] = get_args(PurchaseState)
ASKED_BY_GATEWAYS = (PlacePurchase, SignContract, PayPurchase, CancelPurchase)

Rows = dict[type[SQLModel], dict[Any, Any]]


class PaperWork(UnitOfWork):
    """A unit of work whose rows stand on paper: loaded as copies, and of an update the named columns only are kept."""

    def __init__(self, rows: Rows, now: datetime) -> None:
        super().__init__("orders", cast(Any, None), RING, now)
        self.rows = rows

    async def load_all(
        self,
        model: type[SQLModel],
        into: type[T],
        keys: Collection[Any],
        *,
        by: Sequence[str] = (),
        lock: bool = True,
    ) -> list[T]:
        table = self.rows.get(model, {})
        names = by or sets.primary_key(model)
        found = [row for _, row in sorted(table.items()) if _of(row, names) in set(keys)]
        return [dataclasses.replace(row) for row in found]

    async def load(
        self,
        model: type[SQLModel],
        into: type[T],
        keys: Collection[Any],
        *,
        by: Sequence[str] = (),
        lock: bool = True,
    ) -> dict[Any, T]:
        return {_key(model, row): row for row in await self.load_all(model, into, keys, by=by, lock=lock)}

    def insert(self, model: type[SQLModel], rows: Sequence[Any], *, ignore_existing: bool = False) -> None:
        table = self.rows.setdefault(model, {})
        for row in rows:
            assert _key(model, row) not in table, "a row was inserted twice"
            table[_key(model, row)] = dataclasses.replace(row)

    def update(self, model: type[SQLModel], rows: Iterable[Any], *names: str) -> None:
        for row in rows:
            for name in names:
                setattr(self.rows[model][_key(model, row)], name, getattr(row, name))

    def actor(self, message: Message[Any], *roles: Role, subject: UUID | str | None = None, **_: Any) -> Actor:
        return Actor(str(subject), roles[0])


def _key(model: type[SQLModel], row: Any) -> Any:
    return _of(row, sets.primary_key(model))


def _of(row: Any, names: Sequence[str]) -> Any:
    key = tuple(getattr(row, name) for name in names)
    return key[0] if len(key) == 1 else key


@dataclasses.dataclass
class Said:
    """What came out of one batch: messages with their topic, and timers set (data) or cancelled (None)."""

    messages: list[tuple[str, Data, str]]
    timers: list[tuple[datetime, Command] | None]

    def of(self, *contracts: type[Data]) -> list[Data]:
        """The messages of these contracts, in their order."""
        return [data for _, data, _ in self.messages if isinstance(data, contracts)]

    @property
    def names(self) -> list[str]:
        """The contracts of all that was said but the answers to gateways."""
        return [type(data).__name__ for topic, data, _ in self.messages if not topic.startswith("gateway.")]


def hear(rows: Rows, now: datetime, *heard: Data) -> Said:
    """Gives messages about the order to the real handlers, as one poll."""
    work = PaperWork(rows, now)
    for handle, group in handlers.groups(message(data, now) for data in heard):
        _run(handle(work, group))
    messages = []
    for row in work.outbox:
        data = CONTRACTS[row.type].model_validate(pydantic_core.from_json(row.body)["data"])
        messages.append((row.topic, data, row.replyto))
    timers: list[tuple[datetime, Command] | None] = []
    for timer in work.timers:
        assert timer.subject == str(ORDER_ID)
        if timer.due_at is None:
            timers.append(None)
        else:
            command = CONTRACTS[timer.type].model_validate_json(timer.data)
            assert isinstance(command, Command)
            timers.append((timer.due_at, command))
    return Said(messages, timers)


def message(data: Data, now: datetime) -> Message[Any]:
    """The message that brings `data`, with a new id."""
    message_id = new_id()
    from_gateway = isinstance(data, ASKED_BY_GATEWAYS)
    return Message[Any](
        id=message_id,
        source="/test",
        type=data.TYPE,
        time=now,
        correlationid=message_id,
        partitionkey=str(ORDER_ID),
        replyto=topics.gateway_replies("test") if from_gateway else "",
        data=data,
    )


def _run(coroutine: Awaitable[None]) -> None:
    """Runs what waits for nothing."""
    try:
        next(iter(coroutine.__await__()))
    except StopIteration:
        return
    raise AssertionError("a handler waited for something outside its unit of work")


def problem(code: str, command: type[Command]) -> Problem:
    """A service has refused a command."""
    return Problem(**ProblemBody.of(Refused(code), command.TYPE).model_dump())


@contextmanager
def families_on_paper() -> Iterator[None]:
    """Everybody's family has one child and a signer, and no other order."""
    child = Child(CHILD_ID, ACCOUNT_ID, b"", "", "unchecked", START)
    complete = Family(ACCOUNT_ID, None, {CHILD_ID: child}, Signer(ACCOUNT_ID, 1, "", START))

    async def families_of(work: object, account_ids: Collection[UUID]) -> dict[UUID, Family]:
        return dict.fromkeys(account_ids, complete)

    async def nothing_open(work: object, places: Collection[Place]) -> dict[Place, list[Charge]]:
        return {place: [] for place in places}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(use_cases, "families_of", families_of)
        patch.setattr(use_cases, "open_charges", nothing_open)
        patch.setattr(use_cases, "contract_parties", lambda *_: PARTIES)
        yield


@pytest.fixture(autouse=True, scope="module")
def families() -> Iterator[None]:
    """For all tests of this module."""
    with families_on_paper():
        yield


# --- a purchase in each state, brought there by the messages that lead there ----------------------------------------


def placing() -> PlacePurchase:
    """A guardian buys the course."""
    return PlacePurchase(order_id=ORDER_ID, account_id=ACCOUNT_ID, course_id=COURSE_ID)


def signing(rows: Rows) -> SignContract:
    """The guardian signs what was drawn."""
    sha256 = rows[PurchaseRow][ORDER_ID].contract_sha256 or "0" * 64
    return SignContract(order_id=ORDER_ID, contract_sha256=sha256)


PAYING = PayPurchase(order_id=ORDER_ID, method="alipay")
CANCEL = CancelPurchase(order_id=ORDER_ID)
HELD = Held(order_id=ORDER_ID, account_id=ACCOUNT_ID, amount_fen=PRICE_FEN)
FAILED = PaymentFailed(order_id=ORDER_ID, reason="refused")
REFUNDED = Refunded(order_id=ORDER_ID, account_id=ACCOUNT_ID, amount_fen=PRICE_FEN)
TAKEN = SeatTaken(order_id=ORDER_ID)

WAY: dict[str, tuple[str, ...]] = {
    "placed": (),
    "to_sign": ("offer",),
    "to_pay": ("offer", "sign"),
    "paying": ("offer", "sign", "pay"),
    "held": ("offer", "sign", "pay", "held"),
    "enrolled": ("offer", "sign", "pay", "held", "taken"),
    "cancelling": ("offer", "sign", "pay", "cancel"),
    "refunding": ("offer", "sign", "pay", "held", "no seat"),
    "ended": ("offer", "cancel"),
}


def standing(state: str) -> Rows:
    """The rows of a purchase that came to `state` at `START`."""
    rows: Rows = {}
    hear(rows, START, placing())
    for step in WAY[state]:
        steps: dict[str, Data] = {
            "offer": seat_reserved(ORDER_ID, START),
            "sign": signing(rows),
            "pay": PAYING,
            "held": HELD,
            "taken": TAKEN,
            "cancel": CANCEL,
            "no seat": problem("seat_expired", TakeSeat),
        }
        hear(rows, START, steps[step])
    assert rows[PurchaseRow][ORDER_ID].state == state
    return rows


def heard(rows: Rows, name: str) -> Data:
    """The message of that name, as somebody may send it at any time."""
    found: dict[str, Data] = {
        "SeatReserved": seat_reserved(ORDER_ID, START),
        "SeatTaken": TAKEN,
        "SeatGivenBack": SeatGivenBack(order_id=ORDER_ID),
        "Held": HELD,
        "PaymentFailed": FAILED,
        "Refunded": REFUNDED,
        "SignContract": signing(rows),
        "PayPurchase": PAYING,
        "CancelPurchase": CANCEL,
    }
    return found[name]


def purchase_of(rows: Rows) -> Purchase:
    """The purchase as it stands."""
    purchase = rows[PurchaseRow][ORDER_ID]
    assert isinstance(purchase, Purchase)
    return purchase


# --- the table ------------------------------------------------------------------------------------------------------


def test_every_state_has_a_row_or_is_an_end() -> None:
    assert [step.state for step in SAGA] == list(STEPS), "one row for each state"
    assert set(STEPS) | DONE == set(STATES)
    assert not set(STEPS) & DONE


def test_every_row_leads_to_a_state_there_is() -> None:
    for step in SAGA:
        assert step.then in STATES
        assert step.refused in STATES
        assert step.refused != "enrolled"


def test_each_wait_is_as_long_as_it_is_meant_to_be_and_then_given_up_or_asked_again() -> None:
    assert {step.state: (step.wait, step.when_late) for step in SAGA} == {
        "placed": (timedelta(minutes=2), "give_up"),
        "to_sign": (None, "give_up"),
        "to_pay": (None, "give_up"),
        "paying": (None, "give_up"),
        "held": (timedelta(minutes=1), "ask_again"),
        "cancelling": (timedelta(minutes=5), "ask_again"),
        "refunding": (timedelta(hours=1), "ask_again"),
    }
    assert timedelta(minutes=2) == GRACE


def test_what_is_awaited_is_heard() -> None:
    for step in SAGA:
        assert step.awaits
        for awaited in step.awaits:
            assert awaited in handlers.entries
            topic = CONTRACTS[awaited].TOPIC or topics.replies("orders")
            assert topic in handlers.topics()


AWAITED = [(step, CONTRACTS[awaited].__name__) for step in SAGA for awaited in step.awaits]


@pytest.mark.parametrize(("step", "name"), AWAITED, ids=[f"{step.state}-{name}" for step, name in AWAITED])
def test_the_awaited_message_leads_where_the_row_says(step: saga.Step, name: str) -> None:
    rows = standing(step.state)
    said = hear(rows, START, heard(rows, name))
    failed = step.state == "paying" and name == "PaymentFailed"
    target = "ended" if failed else step.then
    assert purchase_of(rows).state == target
    if target in STEPS:
        purchase = purchase_of(rows)
        assert [type(make(purchase)) for make in STEPS[target].sends] == [
            type(data) for data in said.of(Command) if not isinstance(data, GiveBackSeat)
        ]
    if target == "ended":
        assert said.names == ["GiveBackSeat", "PurchaseEnded"]


NOT_AWAITED = [
    (state, name)
    for state in STATES
    for name in ("SeatReserved", "SeatTaken", "SeatGivenBack", "Held", "PaymentFailed", "Refunded")
    if state not in STEPS or name not in [CONTRACTS[awaited].__name__ for awaited in STEPS[state].awaits]
]


@pytest.mark.parametrize(("state", "name"), NOT_AWAITED)
def test_an_answer_that_is_not_awaited_changes_nothing(state: str, name: str) -> None:
    rows = standing(state)
    before = dataclasses.asdict(purchase_of(rows))
    said = hear(rows, START, heard(rows, name))
    assert dataclasses.asdict(purchase_of(rows)) == before
    assert said.timers == []
    # Money for a purchase that was given up goes back: an operator may replay a collection that had been parked.
    given_up = state in ("cancelling", "ended")
    assert said.names == (["RefundOrder"] if given_up and name == "Held" else [])


def test_commands_go_to_who_owns_them_and_are_answered_to_us() -> None:
    topic = {"catalog": topics.commands("catalog"), "escrow": topics.commands("escrow")}
    rows: Rows = {}
    sent = hear(rows, START, placing()).messages
    for data in (seat_reserved(ORDER_ID, START), None, PAYING, HELD, problem("seat_expired", TakeSeat), REFUNDED):
        sent += hear(rows, START, data or signing(rows)).messages
    commands = {type(data): (place, replyto) for place, data, replyto in sent if isinstance(data, Command)}
    assert commands == {
        ReserveSeat: (topic["catalog"], topics.replies("orders")),
        ExtendSeat: (topic["catalog"], topics.replies("orders")),
        TakeSeat: (topic["catalog"], topics.replies("orders")),
        GiveBackSeat: (topic["catalog"], topics.replies("orders")),
        CollectPayment: (topic["escrow"], topics.replies("orders")),
        RefundOrder: (topic["escrow"], topics.replies("orders")),
    }


# --- refusals -------------------------------------------------------------------------------------------------------

UNDOING = {
    # From here, what undoes it, in the order in which it goes out: the money before the seat.
    "placed": ["GiveBackSeat", "PurchaseEnded"],
    "to_sign": ["GiveBackSeat", "PurchaseEnded"],
    "to_pay": ["GiveBackSeat", "PurchaseEnded"],
    "paying": ["CancelPayment", "GiveBackSeat", "PurchaseEnded"],
    "held": ["RefundOrder", "GiveBackSeat", "PurchaseEnded"],
    "cancelling": ["GiveBackSeat", "PurchaseEnded"],
    "refunding": ["GiveBackSeat", "PurchaseEnded"],
}


@pytest.mark.parametrize("step", SAGA, ids=[step.state for step in SAGA])
def test_every_refusal_ends_with_everything_undone(step: saga.Step) -> None:
    asked = [type(make(purchase_of(standing(step.state)))) for make in step.sends]
    nobody: list[type[Command] | None] = [None]
    for command in asked or nobody:
        rows = standing(step.state)
        if command is None:  # nobody was asked: only time and the guardian can refuse
            said = hear(rows, START, CANCEL).names
        else:
            said = hear(rows, START, problem("internal_error", command)).names
        if purchase_of(rows).state in ("cancelling", "refunding"):
            said += hear(rows, START, REFUNDED).names
        assert said == UNDOING[step.state]
        assert purchase_of(rows).state == "ended"
        assert purchase_of(rows).act_by is None


@pytest.mark.parametrize("state", ["cancelling", "refunding"])
def test_what_undoes_is_asked_again_when_it_was_refused_itself(state: str) -> None:
    rows = standing(state)
    (make,) = STEPS[state].sends
    command = type(make(purchase_of(rows)))
    before = dataclasses.asdict(purchase_of(rows))
    assert hear(rows, START, problem("internal_error", command)).messages == []
    assert dataclasses.asdict(purchase_of(rows)) == before, "it waits for its deadline"
    due = purchase_of(rows).act_by
    assert due is not None
    deadline = PurchaseDeadline.model_validate({"order_id": ORDER_ID, "state": state})
    assert hear(rows, due, deadline).names == [command.__name__]


COMMANDS: tuple[type[Command], ...] = (
    ReserveSeat,
    ExtendSeat,
    CollectPayment,
    TakeSeat,
    GiveBackSeat,
    CancelPayment,
    RefundOrder,
)


@pytest.mark.parametrize("state", STATES)
def test_a_refusal_of_an_old_command_changes_nothing(state: str) -> None:
    rows = standing(state)
    step = STEPS.get(state)
    asked = {type(make(purchase_of(rows))) for make in step.sends} if step else set()
    before = dataclasses.asdict(purchase_of(rows))
    for command in set(COMMANDS) - asked:
        said = hear(rows, START, problem("seat_expired", command))
        assert (said.messages, said.timers) == ([], [])
        assert dataclasses.asdict(purchase_of(rows)) == before


def test_the_first_reason_is_the_one_the_family_hears() -> None:
    rows = standing("paying")
    hear(rows, START, CANCEL)
    (ended,) = hear(rows, START, FAILED).of(PurchaseEnded)
    assert ended == PurchaseEnded(order_id=ORDER_ID, account_id=ACCOUNT_ID, reason="cancelled")
    rows = standing("held")
    hear(rows, START, problem("seat_expired", TakeSeat))
    (ended,) = hear(rows, START, REFUNDED).of(PurchaseEnded)
    assert ended == PurchaseEnded(order_id=ORDER_ID, account_id=ACCOUNT_ID, reason="seat_expired")


@pytest.mark.parametrize("state", ["held", "enrolled", "refunding"])
def test_what_is_paid_is_not_given_up_by_a_click(state: str) -> None:
    rows = standing(state)
    before = dataclasses.asdict(purchase_of(rows))
    (answer,) = hear(rows, START, CANCEL).messages
    assert isinstance(answer[1], Problem)
    assert answer[1].code == "order_state"
    assert dataclasses.asdict(purchase_of(rows)) == before


@pytest.mark.parametrize("state", ["cancelling", "ended"])
def test_what_is_given_up_already_is_given_up_again_without_a_trace(state: str) -> None:
    rows = standing(state)
    before = dataclasses.asdict(purchase_of(rows))
    said = hear(rows, START, CANCEL)
    assert [type(data) for _, data, _ in said.messages] == [PurchaseView]
    assert said.timers == []
    assert dataclasses.asdict(purchase_of(rows)) == before


# --- deadlines ------------------------------------------------------------------------------------------------------

WAITS = {
    "placed": timedelta(minutes=2),
    "to_sign": timedelta(minutes=15),  # as long as catalog keeps the seat
    "to_pay": timedelta(minutes=15),
    "paying": timedelta(minutes=15) + GRACE,
    "held": timedelta(minutes=1),
    "cancelling": timedelta(minutes=5),
    "refunding": timedelta(hours=1),
}
WHEN_LATE = {
    "placed": ("ended", ["GiveBackSeat", "PurchaseEnded"]),
    "to_sign": ("ended", ["GiveBackSeat", "PurchaseEnded"]),
    "to_pay": ("ended", ["GiveBackSeat", "PurchaseEnded"]),
    "paying": ("cancelling", ["CancelPayment"]),
    "held": ("held", ["TakeSeat"]),
    "cancelling": ("cancelling", ["CancelPayment"]),
    "refunding": ("refunding", ["RefundOrder"]),
}


def deadline_of(state: str) -> PurchaseDeadline:
    """The deadline of that state, fired."""
    return PurchaseDeadline.model_validate({"order_id": ORDER_ID, "state": state})


@pytest.mark.parametrize("state", STEPS)
def test_every_state_has_its_deadline(state: str) -> None:
    rows: Rows = {}
    said = hear(rows, START, placing())
    for step in WAY[state]:
        message_of = {"offer": seat_reserved(ORDER_ID, START), "sign": signing(rows), "pay": PAYING, "held": HELD}
        message_of |= {"cancel": CANCEL, "no seat": problem("seat_expired", TakeSeat)}
        said = hear(rows, START, message_of[step])
    due = START + WAITS[state]
    assert purchase_of(rows).act_by == due
    assert said.timers == [(due, deadline_of(state))]


@pytest.mark.parametrize("state", STEPS)
def test_when_its_time_is_over_every_state_gives_up_or_asks_again(state: str) -> None:
    rows = standing(state)
    due = START + WAITS[state]
    said = hear(rows, due, deadline_of(state))
    after, names = WHEN_LATE[state]
    assert (purchase_of(rows).state, said.names) == (after, names)
    if after == "ended":
        assert (said.timers, purchase_of(rows).reason) == ([None], "expired")
    else:
        assert said.timers == [(due + WAITS[after], deadline_of(after))]
        assert purchase_of(rows).act_by == due + WAITS[after]


@pytest.mark.parametrize("state", STEPS)
def test_a_deadline_that_is_not_due_any_more_finds_nothing_to_do(state: str) -> None:
    rows = standing(state)
    before = dataclasses.asdict(purchase_of(rows))
    too_early = hear(rows, START + WAITS[state] - timedelta(microseconds=1), deadline_of(state))
    assert (too_early.messages, too_early.timers) == ([], [])
    for other in set(STATES) - {state}:
        said = hear(rows, START + timedelta(days=30), deadline_of(other))
        assert (said.messages, said.timers) == ([], [])
    assert dataclasses.asdict(purchase_of(rows)) == before


@pytest.mark.parametrize("state", sorted(DONE))
def test_a_purchase_that_is_done_waits_for_nothing(state: str) -> None:
    rows = standing(state)
    before = dataclasses.asdict(purchase_of(rows))
    assert before["act_by"] is None
    for late in STATES:
        said = hear(rows, START + timedelta(days=30), deadline_of(late))
        assert (said.messages, said.timers) == ([], [])
    assert dataclasses.asdict(purchase_of(rows)) == before


# --- what races -----------------------------------------------------------------------------------------------------


def test_the_money_and_the_deadline_in_one_poll_go_by_who_came_first() -> None:
    due = START + WAITS["paying"]
    rows = standing("paying")
    assert hear(rows, due, HELD, deadline_of("paying")).names == ["TakeSeat"]
    assert purchase_of(rows).state == "held"
    rows = standing("paying")
    assert hear(rows, due, deadline_of("paying"), HELD).names == ["CancelPayment", "RefundOrder"]
    assert purchase_of(rows).state == "cancelling"


def test_a_seat_that_is_kept_after_the_purchase_was_given_up_comes_back() -> None:
    rows = standing("placed")
    said = hear(rows, START, CANCEL, seat_reserved(ORDER_ID, START))
    assert said.names == ["GiveBackSeat", "PurchaseEnded"], "the seat goes back behind its reservation"
    assert purchase_of(rows).contract_sha256 == ""


def test_a_seat_lost_while_paying_gives_the_purchase_up() -> None:
    rows = standing("paying")
    assert hear(rows, START, problem("seat_expired", ExtendSeat)).names == ["CancelPayment"]
    assert hear(rows, START, HELD).names == ["RefundOrder"]
    assert hear(rows, START, REFUNDED).names == ["GiveBackSeat", "PurchaseEnded"]


def test_a_seat_taken_while_the_money_goes_back_is_given_back_at_the_end() -> None:
    rows = standing("refunding")
    assert hear(rows, START, TAKEN, REFUNDED).names == ["GiveBackSeat", "PurchaseEnded"]
    assert LessonRow not in rows or not rows[LessonRow]


def test_one_poll_may_bring_a_purchase_from_its_seat_to_its_course() -> None:
    rows = standing("placed")
    offer = seat_reserved(ORDER_ID, START)
    hear(rows, START, offer)
    said = hear(rows, START, signing(rows), PAYING, HELD, TAKEN, TAKEN)
    assert purchase_of(rows).state == "enrolled"
    assert said.names == ["ExtendSeat", "CollectPayment", "TakeSeat", "PurchaseEnrolled"]
    (enrolled,) = said.of(PurchaseEnrolled)
    assert enrolled == PurchaseEnrolled(
        order_id=ORDER_ID,
        account_id=ACCOUNT_ID,
        institution_id=INSTITUTION_ID,
        course_id=COURSE_ID,
        title=offer.title,
        price_fen=PRICE_FEN,
        lessons=3,
    )
    assert sum(one.price_fen for one in rows[LessonRow].values()) == PRICE_FEN


@pytest.mark.parametrize(("method", "window"), [("alipay", timedelta(minutes=15)), ("bank_counter", timedelta(days=1))])
def test_the_seat_is_kept_a_little_longer_than_the_payment_is_waited_for(method: Any, window: timedelta) -> None:
    rows = standing("to_pay")
    said = hear(rows, START, PayPurchase(order_id=ORDER_ID, method=method))
    extend, collect = said.of(ExtendSeat, CollectPayment)
    assert isinstance(extend, ExtendSeat)
    assert isinstance(collect, CollectPayment)
    assert (collect.pay_by, collect.amount_fen, collect.method) == (START + window, PRICE_FEN, method)
    assert extend.until == START + window + GRACE


@pytest.mark.parametrize(("words", "told"), [("无余位", "无余位"), ("满" * 2_001, "满" * 2_000)])
def test_a_refusal_is_told_in_its_words_as_far_as_they_fit(words: str, told: str) -> None:
    rows = standing("placed")
    full = problem("course_full", ReserveSeat).model_copy(update={"detail": words})
    [ended] = hear(rows, START, full).of(PurchaseEnded)
    assert isinstance(ended, PurchaseEnded)
    assert rows[PurchaseRow][ORDER_ID].detail == ended.detail == told


@pytest.mark.parametrize(("state", "why"), [("to_sign", CANCEL), ("paying", FAILED)])
def test_what_no_service_has_refused_in_words_is_told_in_none(state: str, why: Data) -> None:
    rows = standing(state)
    hear(rows, START, why)
    assert (rows[PurchaseRow][ORDER_ID].state, rows[PurchaseRow][ORDER_ID].detail) == ("ended", "")
