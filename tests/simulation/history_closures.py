"""An institution is gone: an authority closes it and winds it up, whatever its orders are at."""

import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from shared.actors import Actor
from shared.contracts.catalog import SetInstitutionState
from shared.contracts.complaints import MoveFiling
from shared.contracts.orders import PlanWindUp, ShowWindUp, StartWindUp
from shared.settings import PARTICIPANTS
from tests.simulation.history import DECISIONS, REFUND_STEPS, History
from tests.simulation.history_suspense import OPERATOR
from tests.simulation.people import AUTHORITY, LATE_COURSE, LESSONS, OF_NEIGHBOUR
from tests.simulation.rules import MOST_ORDERS
from tests.simulation.simulation import CONSUMER_LABELS, RELAY_LABELS

State = Literal["listed", "suspended", "closed"]
STATES: Final[tuple[State, ...]] = ("listed", "suspended", "suspended", "closed")
GONE: Final = "机构失联"
"""Why it is closed, and wound up."""
LOOKS: Final = {"plan": PlanWindUp, "show": ShowWindUp}
PAID: Final = (
    *("as it is", "filed", "filed", "objected", "answered", "confirmed", "unpaid", "quarrelled over"),
    *("asked back", "contested", "granted in part", "granted in part", "rejected", "withdrawn"),
)
"""What an order that was paid is at when its institution is gone."""
UNPAID: Final = ("to_sign", "to_pay", "paying", "held", "placed")
"""What a purchase is at that is made at the last moment; those last that go on by themselves."""
GOES_ON: Final = ("goes on", "goes on", "another goes on", "another goes on", "works")
ROUND_IT: Final = ("start", "start", "the same start", "show", "plan", "somebody else", "an hour", "dies", "publishes")
OTHERS_SAY: Final = (
    *("apply", "confirm", "object", "answer", "accept", "release", "give back", "split", "give up"),
    *("ask again", "withdraw", "answer yes", "answer no", "grant", "grant some", "reject"),
)
ELSE: Final = (
    *("buys", "buys", "closes", "closes", "freeze", "thaw", "days pass", "the complaints are closed"),
    "the neighbour too",
)


@dataclass(frozen=True)
class Doom:
    """How an institution ends: `paid` is what its paid orders are at, `unpaid` what purchases are at that are made at
    the last moment, `first` what happens right before the decision, `then` what happens after it, and to which order.
    `early`: before all else, not in the end. `beside`: the neighbour has an order, too."""

    early: bool
    beside: bool
    paid: list[str]
    unpaid: list[str]
    first: str
    then: list[tuple[str, int]]
    lesson: int
    rounds: int
    label: str


HAPPENS: Final = st.one_of(*(st.sampled_from(some) for some in (GOES_ON, ROUND_IT, ROUND_IT, OTHERS_SAY, ELSE)))
DOOMS: Final = st.builds(
    Doom,
    early=st.booleans(),
    beside=st.booleans(),
    paid=st.lists(st.sampled_from(PAID), min_size=1, max_size=3),
    unpaid=st.lists(st.sampled_from(UNPAID), max_size=2),
    first=st.sampled_from(("", "plan", "closes", "freeze", "daily")),
    then=st.lists(st.tuples(HAPPENS, st.integers(0, 5)), max_size=10),
    lesson=st.integers(1, LESSONS),
    rounds=st.sampled_from((0, 0, 1, 3)),
    label=st.sampled_from((*CONSUMER_LABELS, *RELAY_LABELS)),
)


class ClosingHistory(History):
    """A history in which the institution may be gone: in most of them it is, and nothing else has to end before its
    time."""

    def __init__(self) -> None:
        super().__init__()
        self.doom: Doom | None = None
        self.last_start: UUID | None = None

    @initialize(doom=st.one_of(st.none(), DOOMS, DOOMS))
    def it_may_end_badly(self, doom: Doom | None) -> None:
        """That is known first."""
        self.doom = doom
        if doom is not None and doom.early:
            self.is_gone(doom)

    @rule(
        what=st.sampled_from(("plan", "show", "start")), who=st.sampled_from((0, 0, 1, 2, 3)), neighbour=st.booleans()
    )
    def is_looked_up(self, what: str, who: int, neighbour: bool) -> None:
        """Somebody asks what there would be to refund, or how far it is; or somebody decides who may not."""
        actor = (AUTHORITY, OPERATOR, self.people.institution_actor, self.people.guardians[0])[who]
        what = "show" if what == "start" and actor == AUTHORITY else what
        self._wind_up(what, actor, neighbour=neighbour)

    def _wind_up(self, what: str, actor: Actor = AUTHORITY, *, neighbour: bool = False) -> None:
        institution = self.people.neighbour if neighbour else self.people.institution
        about: dict[str, Any] = {"institution_id": institution.institution_id}
        self.ask(StartWindUp(**about, reason=GONE) if what == "start" else LOOKS[what](**about), actor)
        self.simulation.counts[f"winding up: {what}"] += 1

    @precondition(lambda self: self.doom is not None)
    @rule(state=st.sampled_from(STATES), who=st.sampled_from((0, 1, 1, 1)))
    def is_closed(self, state: State, who: int) -> None:
        """The authority suspends the institution, lists it again or closes it; or somebody tries who may not."""
        self._close(state, (self.people.institution_actor, AUTHORITY)[who])

    def _close(self, state: State, actor: Actor = AUTHORITY) -> None:
        institution_id = self.people.institution.institution_id
        self.ask(SetInstitutionState(institution_id=institution_id, state=state, reason=GONE), actor)

    @precondition(lambda self: self.doom is not None)
    @rule(doom=DOOMS)
    def is_gone(self, doom: Doom) -> None:
        """Its orders are at this and that when the authority decides; then everybody goes on."""
        if doom.first == "daily":
            self._choose("daily", self.people.institution_actor)
        if self.agreement.catalog.frozen_until is not None and doom.lesson > 1:
            self._thaw()
        while len(self._living()) < len(doom.paid) and len(self.order_ids) < MOST_ORDERS:
            self.buys(len(self.order_ids) % 2, 1)
        if doom.beside and len(self.order_ids) < MOST_ORDERS + doom.beside:
            self.buys(len(self.order_ids) % 2, OF_NEIGHBOUR)
        for order_id in self._living():
            self._enrol(order_id)
        for order_id, stage in zip(self._enrolled(), doom.paid, strict=False):
            self._bring(order_id, stage, doom.lesson)
        for stage in sorted(doom.unpaid, key=UNPAID.index):
            if len(self.order_ids) < MOST_ORDERS + len(doom.unpaid):
                self.buys(len(self.order_ids) % 2, LATE_COURSE)
                self._bring_new(self.order_ids[-1], stage)
        self.works(doom.rounds, PARTICIPANTS)
        for what in (doom.first, "plan", "start"):
            self._happens(what, doom.lesson, doom.label)
        for what, number in doom.then:
            self._happens(what, number, doom.label)
            self.works(doom.rounds, PARTICIPANTS)

    def teardown(self) -> None:
        """Whatever has happened before: a doomed institution is gone in the end."""
        if sys.exc_info()[0] is None and self.doom is not None and not self.doom.early:
            self.is_gone(self.doom)
        super().teardown()

    # --- what its orders are at ---------------------------------------------------------------------------------------

    def _living(self) -> list[UUID]:
        purchases = self.agreement.orders.purchases
        return [id_ for id_ in self.order_ids if str(id_) not in purchases or purchases[str(id_)].state != "ended"]

    def _enrol(self, order_id: UUID) -> None:
        """Into its course, if it can be."""
        self.run(self.simulation.settle())
        purchase = self.agreement.orders.purchases[str(order_id)]
        for state in ("to_sign", "to_pay"):
            if purchase.state == state:
                self._goes_on(self.order_ids.index(order_id))
                self.run(self.simulation.settle())

    def _bring(self, order_id: UUID, stage: str, lesson: int) -> None:
        """On from there as far as it goes."""
        purchase = self.agreement.orders.purchases[str(order_id)]
        if stage == "as it is":
            return
        guardian, institution = Actor(purchase.guardian, "guardian"), self.institution_of(order_id)
        if stage == "quarrelled over":
            self._complain(order_id, guardian)
            self.run(self.simulation.settle())
        if stage == "unpaid":
            self.misbehave("refuse", "payout", order_id, 2000)
        one = purchase.lessons[lesson]
        if one.state == "planned" and one.ends_at < self.last_day:
            if self.simulation.now < one.ends_at:
                self.run(self.simulation.set_clock(one.ends_at))
            self._request("apply", order_id, lesson, institution)
        said = {
            "objected": ("object",),
            "answered": ("object", "answer"),
            "confirmed": ("confirm",),
            "unpaid": ("confirm",),
            "quarrelled over": ("confirm",),
        }
        for what in said.get(stage, ()):
            self._request(what, order_id, lesson, institution if what == "answer" else guardian)
        steps = {
            "asked back": (),
            "contested": ("answer no",),
            "granted in part": ("answer no", "grant some"),
            "rejected": ("answer no", "reject"),
            "withdrawn": ("withdraw",),
        }
        if stage in steps:
            self._request("confirm", order_id, lesson, guardian)
            self.run(self.simulation.settle())
            self._ask_back(order_id, purchase.back_fen(self.simulation.now), [], purchase.guardian)
            for step in steps[stage]:
                self.run(self.simulation.settle())
                self._step_of_refund(order_id, step)
        if stage != "confirmed":
            self.run(self.simulation.settle())
        self.simulation.counts[f"brought to: {stage}"] += 1

    def _bring_new(self, order_id: UUID, stage: str) -> None:
        """A purchase that was just made, to where it waits; nothing passes meanwhile but what it needs."""
        purchases = self.agreement.orders.purchases
        if stage == "placed":
            self.run(self.simulation.poll("orders"))
            return
        for wanted, rounds in {"to_sign": 8, "to_pay": 3, "paying": 3, "held": 12}.items():
            for _ in range(rounds):
                if str(order_id) not in purchases or purchases[str(order_id)].state != wanted:
                    self.works(1, PARTICIPANTS)
            if wanted == stage or purchases[str(order_id)].state != wanted:
                break
            if wanted == "to_sign":
                self.works(1, PARTICIPANTS)  # the guardian is shown the contract
            if wanted != "paying":
                self._goes_on(self.order_ids.index(order_id))
        self.simulation.counts[f"brought to: {purchases[str(order_id)].state}"] += 1

    # --- what happens then --------------------------------------------------------------------------------------------

    def _happens(self, what: str, number: int, label: str) -> None:
        order_id = self.order_ids[number % len(self.order_ids)]
        match what:
            case "plan" | "show" | "start":
                before = set(self.asked)
                self._wind_up(what)
                self.last_start = (set(self.asked) - before).pop() if what == "start" else self.last_start
            case "the same start" if self.last_start is not None:
                request, actor = self.asked[self.last_start]
                self.ask(request, actor, self.last_start)
            case "somebody else":
                self._wind_up(("plan", "start")[number % 2], (OPERATOR, self.people.institution_actor)[number // 2 % 2])
            case "goes on" | "another goes on":
                self._goes_on(number + (what != "goes on"))
            case "works":
                self.works(3, PARTICIPANTS)
            case "an hour":  # it is started, nothing goes on of it for so long, and it is started again
                self._wind_up("start")
                self.run(self.simulation.poll("orders"))
                moment = min(self.simulation.now + timedelta(hours=1), self.last_day)
                self.run(self.simulation.set_clock(max(self.simulation.now, moment)))
                self._wind_up("start")
            case "dies" if label in RELAY_LABELS:
                self.run(self.simulation.relay("orders", 1, label))
            case "dies":
                self.run(self.simulation.poll("orders", [0, 1], label))
            case "publishes":
                self.run(self.simulation.relay("orders", number))
            case "buys" if len(self.order_ids) < MOST_ORDERS + 2:
                self.buys(number % 2, LATE_COURSE)
            case "closes":
                self._close("suspended")
                self._close("closed")
            case "freeze":
                self._freeze(self.simulation.now + timedelta(minutes=1500))
            case "thaw":
                self._thaw()
            case "the neighbour too":
                self._wind_up("start", neighbour=True)
            case "days pass":
                self.later(days=2)
            case "the complaints are closed":
                for filing_id in self.filing_ids:
                    self.ask(MoveFiling(filing_id=filing_id, state="rejected", reason="依法处理"), AUTHORITY)
            case _ if what in REFUND_STEPS and order_id in dict(self.refunds):
                self._step_of_refund(order_id, what)
            case _ if what in OTHERS_SAY:
                self._somebody_says(what, order_id, 1 + number // 2)

    def _somebody_says(self, what: str, order_id: UUID, lesson: int) -> None:
        """Who may say it."""
        purchase = self.agreement.orders.purchases.get(str(order_id))
        guardian = Actor(purchase.guardian, "guardian") if purchase else self.people.guardians[0]
        speakers = dict.fromkeys(("apply", "answer", "accept"), self.institution_of(order_id))
        speakers |= dict.fromkeys(DECISIONS, AUTHORITY)
        self._request(what, order_id, lesson, speakers.get(what, guardian))
