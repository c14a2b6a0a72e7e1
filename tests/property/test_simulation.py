"""Random histories of the whole system, played on its real parts, against a model of what must become of them.

    SEED=7 EXAMPLES=200 STEPS=80 .venv/bin/python -m pytest tests/property/test_simulation.py

A failure names its seed; the same seed, EXAMPLES and STEPS play the same histories again.
"""

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, cast
from uuid import UUID

import pytest
from hypothesis import HealthCheck, event, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    get_state_machine_test,
    initialize,
    invariant,
    precondition,
    rule,
)

from ops.bank import desk
from ops.bank.behaviour import Name
from ops.stack.servers import Servers
from shared.actors import Actor
from shared.contracts.bank import InstructionKind
from shared.contracts.complaints import FileComplaint, FilingState, MoveFiling
from shared.contracts.envelope import Request
from shared.contracts.orders import (
    ApplyLesson,
    CancelPurchase,
    ConfirmLesson,
    ObjectLesson,
    PayPurchase,
    PlacePurchase,
    ShowPurchase,
    SignContract,
)
from shared.ids import derived_id
from shared.messaging.handlers import in_groups
from shared.settings import PARTICIPANTS
from tests.faults import invariants
from tests.simulation import CONSUMER_LABELS, RELAY_LABELS, START, Heard, Simulation
from tests.simulation_model import Complaints, Escrow, Orders, same
from tests.simulation_people import AUTHORITY, COURSES, LESSONS, People, move_in

EXAMPLES: Final = int(os.environ.get("EXAMPLES") or 50)
STEPS: Final = int(os.environ.get("STEPS") or 40)
MOST_ORDERS: Final = 4
LAST_DAY: Final = START + timedelta(days=21)
"""The model knows no holidays, and what is left to do then takes a week more."""
UNSIGNED: Final = "f" * 64
"""The SHA-256 of a contract that nobody has drawn."""

WHO: Final = st.sampled_from(PARTICIPANTS)
WHICH: Final = st.integers(0, 7)
PICKS: Final = st.lists(WHICH, min_size=1, max_size=8)
COURSE: Final = st.integers(0, len(COURSES) - 1)
ORDER: Final = st.integers(0, MOST_ORDERS - 1)
REQUESTS: Final = ("show", "sign", "pay", "pay at the counter", "give up", "apply", "confirm", "object", "buy again")
MISBEHAVIOUR: Final[dict[InstructionKind, tuple[Name, ...]]] = {
    # Silence about a collection is settled by a statement of the bank, which a person reads.
    "collect": ("refuse", "repeat", "slow", "accept_first", "pay_twice"),
    "payout": ("refuse", "repeat", "slow", "accept_first", "silent", "unknown", "return_after"),
    "refund": ("refuse", "repeat", "slow", "accept_first", "silent", "unknown", "return_after"),
}
STEPS_OF_FILINGS: Final[tuple[FilingState, ...]] = ("accepted", "rejected", "in_progress", "mediated", "unfounded")
MOMENTS: Final = ("a minute", "a quarter", "an hour", "a day", "due", "almost due", "taught", "almost taught")
SECOND: Final = timedelta(seconds=1)

CHECKS: Final = (
    invariants.the_books_prove,
    invariants.every_order_is_balanced,
    invariants.nothing_waits_in_an_outbox,
    invariants.everything_said_stands_on_its_topic,
    invariants.nothing_stands_on_a_topic_that_was_not_said,
    invariants.each_key_keeps_its_order,
    invariants.everybody_has_heard_what_is_for_him,
    invariants.nobody_lags,
    invariants.dead_letters_are_as_expected,
    invariants.no_step_and_no_timer_is_late,
    invariants.what_is_enrolled_is_paid_seated_and_planned,
    invariants.lessons_agree_with_escrow,
    invariants.seats_add_up,
)
"""What holds at rest whatever has happened; the other checks of that module are about banks that behave."""


class History(RuleBasedStateMachine):
    """One history. Its rules are what people, the bank, Kafka, the scheduler and power cuts may do."""

    simulation: ClassVar[Simulation]
    people: ClassVar[People]

    def __init__(self) -> None:
        super().__init__()
        self.run = self.simulation.run
        self.run(self.simulation.begin())
        self.simulation.watcher = self
        self.orders = Orders(self.people.institution_actor.subject, self.simulation.contracts)
        self.escrow = Escrow()
        self.complaints = Complaints()
        self.order_ids: list[UUID] = []
        self.filing_ids: list[UUID] = []
        self.asked: dict[UUID, tuple[Request, Actor]] = {}
        """Message id → what was asked first under it."""
        self.expected: dict[UUID, str] = {}
        self.heard: dict[tuple[str, UUID], tuple[Heard, str]] = {}
        self.changed: set[str] = set()
        self.answers: Counter[UUID] = Counter()
        self.counts: Counter[str] = Counter()

    # --- what was committed -----------------------------------------------------------------------------------------

    def handled(self, service: str, batch: Sequence[Heard]) -> None:
        """The model hears what the service has handled, kind by kind as its handlers do; repeats it does not hear."""
        self.changed.add(service)
        entries = self.simulation.processes[service].handlers.entries
        fresh: dict[UUID, Heard] = {}
        for m in batch:
            if (service, m.id) not in self.heard:
                fresh.setdefault(m.id, m)
        for group in in_groups(cast(Any, fresh.values()), lambda m: id(entries[m.type].handle)):
            for m in cast(Sequence[Heard], group):
                self.heard[service, m.id] = m, self._hear(service, m)
        for m in batch:
            first, answer = self.heard[service, m.id]
            if m.asking is not None:
                is_same = (first.type, first.data) == (m.type, m.data)
                self.expected[m.asking] = answer if is_same else "!idempotency_conflict"

    def _hear(self, service: str, m: Heard) -> str:
        models = {"orders": self.orders.hear, "escrow": self.escrow.hear, "complaints": self.complaints.hear}
        return models[service](m) if service in models else ""

    def fired(self, service: str, now: datetime) -> None:
        """Timers that were due are gone."""
        self.changed.add(service)
        for timers in [self.orders.timers] * (service == "orders") + [self.escrow.timers] * (service == "escrow"):
            for key in [key for key, due_at in timers.items() if due_at <= now]:
                del timers[key]

    @invariant()
    def tables_are_as_the_model_says(self) -> None:
        """Row by row, right after each commit, the timers too; and so are the answers that have come."""
        changed, self.changed = self.changed, set()
        if "orders" in changed:
            self.run(self._check_orders())
        if "escrow" in changed:
            self.run(self._check_escrow())
        if "complaints" in changed:
            self.run(self._check_complaints())
        self._check_answers()

    async def _check_orders(self) -> None:
        sql = "SELECT order_id::text, state, act_by, reason, method, signed_at IS NOT NULL AS signed FROM purchases"
        found = {row["order_id"]: tuple(row)[1:] for row in await self.simulation.rows("orders", sql)}
        purchases = self.orders.purchases
        agree(found, {id_: (p.state, p.act_by, p.reason, p.method, p.signed) for id_, p in purchases.items()})
        sql = "SELECT order_id::text, lesson_no, state, confirmed_by, answer_by, objection FROM lessons"
        found = {tuple(row)[:2]: tuple(row)[2:] for row in await self.simulation.rows("orders", sql)}
        lessons = {(id_, number): one for id_, p in purchases.items() for number, one in p.lessons.items()}
        agree(found, {key: (one.state, one.by, one.answer_by, one.objection) for key, one in lessons.items()})
        await self._check_timers("orders", self.orders.timers)

    async def _check_escrow(self) -> None:
        sql = """SELECT order_id::text, state, suspensions, paid_fen, held_fen, releasing_fen, released_fen,
                        refunding_fen, refunded_fen FROM accounts"""
        found = {row["order_id"]: tuple(row)[1:] for row in await self.simulation.rows("escrow", sql)}
        accounts = self.escrow.accounts
        agree(found, {id_: (one.state, one.suspended, *one.balances()) for id_, one in accounts.items()})
        sql = """SELECT order_id::text, kind, lesson_no, amount_fen, state, attempt, turn, asks, reference
                 FROM instructions"""
        found = {tuple(row)[:3]: tuple(row)[3:] for row in await self.simulation.rows("escrow", sql)}
        payments = {(id_, *key): one for id_, account in accounts.items() for key, one in account.payments.items()}
        told = {k: (p.amount, p.state, p.attempt, p.turn, p.asks, p.reference) for k, p in payments.items()}
        agree(found, told)
        await self._check_timers("escrow", self.escrow.timers)

    async def _check_complaints(self) -> None:
        rows = await self.simulation.rows("complaints", "SELECT filing_id::text, state FROM filings")
        found = {row["filing_id"]: row["state"] for row in rows}
        agree(found, {id_: filing[0] for id_, filing in self.complaints.filings.items()})

    async def _check_timers(self, service: str, timers: dict[tuple[str, str], datetime]) -> None:
        rows = await self.simulation.rows(service, "SELECT type, subject, due_at FROM timers")
        agree({(row["type"], row["subject"]): row["due_at"] for row in rows}, timers)

    def _check_answers(self) -> None:
        """Each asking has the answer that the model gives it, and one only, however often it is given."""
        for asking, answers in self.simulation.answers.items():
            for envelope in answers[self.answers[asking] :]:
                expected = self.expected[asking]
                assert same(expected, envelope), f"should be {expected}: {envelope}"
                unlike = [one for one in answers if one["data"] != envelope["data"]]
                ids = {one["id"] for one in answers}
                assert not unlike, (envelope, unlike)
                assert len(ids) == 1 or expected == "!idempotency_conflict", f"{asking} has the answers {ids}"
            self.answers[asking] = len(answers)

    # --- people ---------------------------------------------------------------------------------------------------

    def ask(self, request: Request, actor: Actor, message_id: UUID | None = None) -> None:
        """A gateway sends it."""
        asking = self.simulation.send(request, actor, message_id=message_id)
        self.asked.setdefault(message_id or asking, (request, actor))

    @initialize(guardian=st.integers(0, 1), course=COURSE, steps=st.integers(0, 6))
    def it_begins(self, guardian: int, course: int, steps: int) -> None:
        """A purchase, and what happens to it while all is well: signed, paid, a lesson filed, confirmed, the next."""
        self.buys(guardian, course)
        for _ in range(steps):
            self.run(self.simulation.settle())
            self.it_goes_on(0, 0)

    @precondition(lambda self: len(self.order_ids) < MOST_ORDERS)
    @rule(guardian=st.integers(0, 1), course=COURSE)
    def buys(self, guardian: int, course: int) -> None:
        """A guardian buys, maybe the last seat."""
        self.order_ids.append(derived_id("order", len(self.order_ids)))
        self._buy(self.order_ids[-1], guardian, course)

    def _buy(self, order_id: UUID, guardian: int, course: int) -> None:
        actor, course_id = self.people.guardians[guardian], self.people.courses[course].course_id
        self.ask(PlacePurchase(order_id=order_id, account_id=UUID(actor.subject), course_id=course_id), actor)

    @rule(order=ORDER, rounds=st.integers(0, 6))
    def it_goes_on(self, order: int, rounds: int) -> None:
        """Whoever has to do something about an order does it; then the services have some time."""
        self._goes_on(order)
        self.works(rounds, PARTICIPANTS)

    def _goes_on(self, order: int) -> None:
        order_id = self.order_ids[order % len(self.order_ids)]
        purchase = self.orders.purchases.get(str(order_id))
        state = purchase.state if purchase else ""
        guardian = Actor(purchase.guardian, "guardian") if purchase else self.people.guardians[0]
        if state in ("to_sign", "to_pay"):
            self._request({"to_sign": "sign", "to_pay": "pay"}[state], order_id, 1, guardian)
            return
        lessons = purchase.lessons.items() if purchase else ()
        for number, lesson in lessons:
            if lesson.state == "planned" and lesson.ends_at < LAST_DAY:
                if self.simulation.now < lesson.ends_at:
                    self.run(self.simulation.set_clock(lesson.ends_at))
                self._request("apply", order_id, number, self.people.institution_actor)
                return
            if lesson.state == "applied":
                self._request("confirm", order_id, number, guardian)
                return
        self._request("show", order_id, 1, guardian)

    @rule(order=ORDER, what=st.sampled_from(REQUESTS), lesson=st.integers(1, LESSONS + 1), who=st.integers(0, 3))
    def asks(self, order: int, what: str, lesson: int, who: int) -> None:
        """Anybody asks for anything."""
        order_id = self.order_ids[order % len(self.order_ids)]
        purchase = self.orders.purchases.get(str(order_id))
        owner = Actor(purchase.guardian, "guardian") if purchase else self.people.guardians[0]
        self._request(what, order_id, lesson, (*self.people.guardians, owner, self.people.institution_actor)[who])

    def _request(self, what: str, order_id: UUID, lesson: int, actor: Actor) -> None:
        about: dict[str, Any] = {"order_id": order_id}
        sha = self.simulation.contracts.get(str(order_id), UNSIGNED)
        match what:
            case "show":
                self.ask(ShowPurchase(**about), actor)
            case "sign":
                self.ask(SignContract(**about, contract_sha256=sha), actor)
            case "pay" | "pay at the counter":
                self.ask(PayPurchase(**about, method="alipay" if what == "pay" else "bank_counter"), actor)
            case "give up":
                self.ask(CancelPurchase(**about), actor)
            case "apply":
                self.ask(ApplyLesson(**about, lesson_no=lesson), actor)
            case "confirm":
                self.ask(ConfirmLesson(**about, lesson_no=lesson), actor)
            case "object":
                self.ask(ObjectLesson(**about, lesson_no=lesson, reason="老师迟到四十分钟"), actor)
            case "buy again":
                self._buy(order_id, lesson % 2, lesson // 2)

    @rule(order=ORDER, guardian=st.integers(0, 1))
    def complains(self, order: int, guardian: int) -> None:
        """A guardian files a complaint on an order, maybe on another's."""
        order_id = self.order_ids[order % len(self.order_ids)]
        self.filing_ids.append(derived_id("filing", len(self.filing_ids)))
        filing = FileComplaint(
            filing_id=self.filing_ids[-1],
            kind="complaint",
            type="no_invoice",
            area="天宁区",
            category="体育类",
            order_id=order_id,
            text="机构拒绝开具发票",
        )
        self.ask(filing, self.people.guardians[guardian])

    @precondition(lambda self: bool(self.filing_ids))
    @rule(filing=WHICH, state=st.sampled_from(STEPS_OF_FILINGS))
    def moves_a_complaint(self, filing: int, state: FilingState) -> None:
        """The authority takes a complaint a step on."""
        filing_id = self.filing_ids[filing % len(self.filing_ids)]
        self.ask(MoveFiling(filing_id=filing_id, state=state, reason="依法处理"), AUTHORITY)

    @rule(which=st.integers(0, 30), how=st.sampled_from(("the same", "anew", "something else")))
    def asks_again(self, which: int, how: str) -> None:
        """A gateway that has heard nothing asks again, under the same id or a new one; or mixes up its ids."""
        message_id, (request, actor) = list(self.asked.items())[which % len(self.asked)]
        if how == "something else" and "lesson_no" in type(request).model_fields:
            request = request.model_copy(update={"lesson_no": LESSONS + 1})
        self.ask(request, actor, None if how == "anew" else message_id)
        self.counts[f"asked again: {how}"] += 1

    # --- the bank, and time -----------------------------------------------------------------------------------------

    @rule(order=ORDER, name=WHICH, refunds=st.booleans(), minutes=st.sampled_from((1, 20, 2000)))
    def bank_will(self, order: int, name: int, refunds: bool, minutes: int) -> None:
        """The bank will misbehave, once."""
        order_id = self.order_ids[order % len(self.order_ids)]
        account = self.escrow.accounts.get(str(order_id))
        kind: InstructionKind = "refund" if refunds else "payout" if account else "collect"
        how = MISBEHAVIOUR[kind][name % len(MISBEHAVIOUR[kind])]
        dsn = self.simulation.processes["bank"].settings.database
        self.run(desk.set_behaviour(dsn, how, kind=kind, order_id=order_id, seconds=60.0 * minutes))
        self.counts[f"misbehaviours set: {kind}"] += 1

    @precondition(lambda self: self.simulation.now < LAST_DAY)
    @rule(until=st.sampled_from(MOMENTS))
    def time_passes(self, until: str) -> None:
        """To the second before something may happen, to the very moment, or for a while."""
        self.run(self._pass_time(until))

    async def _pass_time(self, until: str) -> None:
        now = self.simulation.now
        steps = {"a minute": 1, "a quarter": 15, "an hour": 60, "a day": 1440}
        moments = [now + timedelta(minutes=steps.get(until, 1))]
        if "due" in until:
            moments = await self.simulation.next_due()
        if "taught" in until:
            moments = [lesson.ends_at for course in self.people.courses for lesson in course.lessons]
        moments = [moment - SECOND * ("almost" in until) for moment in moments]
        later = sorted(moment for moment in moments if now < moment)
        await self.simulation.set_clock(min(later[0] if later else now, LAST_DAY))

    @rule(who=WHO)
    def timers_fire(self, who: str) -> None:
        """A service sees what is due."""
        self.run(self.simulation.fire(who))

    # --- the road ---------------------------------------------------------------------------------------------------

    @rule(who=WHICH, picks=PICKS)
    def polls(self, who: int, picks: list[int]) -> None:
        """A service handles some of what waits for it, in any order that Kafka may give."""
        self.run(self.simulation.poll(one_of(self.simulation.who_may_poll(), who), picks))

    @rule(who=WHICH, picks=PICKS, label=st.sampled_from(CONSUMER_LABELS))
    def dies_handling(self, who: int, picks: list[int], label: str) -> None:
        """A service dies while it handles; before its commit or after."""
        self.run(self.simulation.poll(one_of(self.simulation.who_may_poll(), who), picks, die_at=label))

    @rule(who=WHICH, rows=st.integers(1, 6))
    def publishes(self, who: int, rows: int) -> None:
        """A relay publishes some of what was said."""
        self.run(self.simulation.relay(one_of(self.simulation.who_may_publish(), who), rows))

    @rule(who=WHICH, rows=st.integers(1, 6), label=st.sampled_from(RELAY_LABELS))
    def dies_publishing(self, who: int, rows: int, label: str) -> None:
        """A relay dies; before it marks what it has published or after."""
        self.run(self.simulation.relay(one_of(self.simulation.who_may_publish(), who), rows, die_at=label))

    @rule(who=WHO, which=WHICH, back=st.integers(1, 5))
    def comes_again(self, who: str, which: int, back: int) -> None:
        """Kafka gives records again, a rebalance or an operator's doing."""
        self.simulation.come_again(who, which, back)

    @rule(which=st.integers(0, 60))
    def is_said_again(self, which: int) -> None:
        """A command comes once more under a new id."""
        self.simulation.say_again(which)

    @rule(rounds=st.integers(1, 6), names=st.permutations(PARTICIPANTS))
    def works(self, rounds: int, names: Sequence[str]) -> None:
        """Nothing special for a while."""
        for _ in range(rounds):
            self.run(self.simulation.round(names))

    # --- the end ----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """The bank behaves, everything is delivered, every deadline passes: then the whole world is looked at."""
        self.simulation.watcher = None
        if sys.exc_info()[0] is None:
            self.simulation.watcher = self
            self.run(self._come_to_rest())
            self.tables_are_as_the_model_says()
            self.run(self._check_the_end())
            self._count()
            self.simulation.watcher = None

    async def _come_to_rest(self) -> None:
        await desk.clear_behaviours(self.simulation.processes["bank"].settings.database)
        for _ in range(50):
            await self.simulation.settle()
            due = await self.simulation.next_due()
            if not due:
                return
            await self.simulation.set_clock(due[-1])
        raise AssertionError("never at rest: there is always a timer more")

    async def _check_the_end(self) -> None:
        world = await self.simulation.world()
        found = [(check.__name__, place) for check in CHECKS for place in check(world, invariants.Expected())]
        assert not found, found
        differences = list(money_that_banks_and_books_disagree_about(world))
        assert not differences, differences
        states = {id_: p.state for id_, p in self.orders.purchases.items()}
        assert set(states.values()) <= {"enrolled", "ended"}, states
        silent = [asking for asking in self.expected if not self.simulation.answers.get(asking)]
        assert not silent, [(asking, self.expected[asking]) for asking in silent]
        unheard = self.simulation.askings.keys() - self.expected.keys()
        assert not unheard, unheard
        for (_, id_), (first, answer) in self.heard.items():
            if first.asking is not None:
                ids = {e["id"] for a in self.simulation.answers.values() for e in a if e["causationid"] == str(id_)}
                conflicts = sum(self.expected[a] == "!idempotency_conflict" for a in self.expected)
                assert len(ids) == 1 or conflicts, f"{id_} ({answer}) has the answers {ids}"
        self.counts["suspense"] += len(world.tables["escrow.suspense"])

    def _count(self) -> None:
        counts = self.counts
        for purchase in self.orders.purchases.values():
            counts[f"purchases {purchase.state} {purchase.reason}".strip()] += 1
            for lesson in purchase.lessons.values():
                counts[f"lessons {lesson.state} {lesson.by}".strip()] += 1
        for account in self.escrow.accounts.values():
            counts[f"accounts {account.state}"] += 1
            for (kind, _), payment in account.payments.items():
                counts[f"{kind} {payment.state}"] += 1
                counts[f"{kind} came back"] += payment.turn
        for answer in self.expected.values():
            counts[f"refused: {answer[1:]}" if answer.startswith("!") else "answered"] += 1
        counts["complaints"] += len(self.complaints.filings)
        event(f"purchases enrolled: {sum(p.state == 'enrolled' for p in self.orders.purchases.values())}")
        self.simulation.counts += counts


def one_of(names: Sequence[str], number: int) -> str:
    """One of those who have something to do, else anybody."""
    return names[number % len(names)] if names else PARTICIPANTS[0]


def agree(found: dict[Any, Any], model: dict[Any, Any]) -> None:
    """The tables and the model say the same."""
    unlike = {key: (found.get(key), model.get(key)) for key in found.keys() | model.keys()}
    unlike = {key: both for key, both in unlike.items() if both[0] != both[1]}
    assert not unlike, f"table and model disagree: {unlike}"


def money_that_banks_and_books_disagree_about(world: invariants.World) -> Iterator[str]:
    """Account by account: what is in custody, suspense too, and what the institution has; then payment by payment."""
    should: Counter[str] = Counter()
    for row in world.tables["escrow.accounts"]:
        should[row["supervised_account"]] += row["held_fen"] + row["releasing_fen"] + row["refunding_fen"]
        should[row["payout_account"]] += row["released_fen"]
    for row in world.tables["escrow.suspense"]:
        should[world.tables["escrow.accounts"][0]["supervised_account"]] += row["amount_fen"]
    for row in world.tables["bank.accounts"]:
        if row["balance_fen"] != should[row["account"]]:
            yield f"{row['account']}: the bank has {row['balance_fen']} fen, the books {should[row['account']]}"
    paid = {entry["reference"]: entry for entry in world.tables["bank.entries"] if entry["outcome"] == "paid"}
    came_back = {entry["number"] for entry in world.tables["bank.entries"] if entry["outcome"] == "returned"}
    booked = {row["reference"] for row in world.tables["escrow.suspense"]}
    for row in world.tables["escrow.instructions"]:
        if row["state"] == "paid":
            booked.add(row["reference"])
            entry = paid.get(row["reference"])
            if entry is None or (entry["number"], entry["amount_fen"]) != (
                invariants.number_of(row),
                row["amount_fen"],
            ):
                yield f"{invariants.number_of(row)} is paid, and not at the bank"
        elif row["state"] in ("sent", "refused") and row["kind"] != "collect":
            yield f"{invariants.number_of(row)} is still {row['state']}"
    for reference, entry in paid.items():
        if reference not in booked and entry["number"] not in came_back:
            yield f"{entry['number']} was paid, and nobody has booked it"


@pytest.fixture(scope="module")
def simulation(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    with Simulation.running(servers, tmp_path_factory.mktemp("simulation")) as simulation:
        History.simulation = simulation
        History.people = simulation.run(move_in(simulation))
        yield simulation


# A failure is made smaller before it is shown, and that takes minutes.
@pytest.mark.timeout(1200)
@pytest.mark.slow
def test_whatever_happens_the_tables_and_the_model_agree(simulation: Simulation) -> None:
    number = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    playing = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,  # a run is its seed and nothing that an earlier one has left
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    simulation.counts.clear()
    try:
        seed(number)(get_state_machine_test(History, settings=playing))()
    except BaseException as failure:
        failure.add_note(f"the same histories again: SEED={number} EXAMPLES={EXAMPLES} STEPS={STEPS}")
        raise
    print(f"SEED={number}")
    for what, times in sorted(simulation.counts.items()):
        print(f"{times:6} {what}")
