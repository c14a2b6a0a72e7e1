"""Random histories: what people, the bank, Kafka, the scheduler and power cuts may do, one rule for each."""

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from hypothesis import currently_in_test_context, event
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from ops.bank import desk
from ops.bank.behaviour import Name
from shared.actors import Actor
from shared.contracts.bank import InstructionKind
from shared.contracts.catalog import FreezeInstitution, ThawInstitution
from shared.contracts.complaints import FileComplaint, FilingState, MoveFiling
from shared.contracts.escrow import SettlementMode
from shared.contracts.orders import (
    AnswerObjection,
    AnswerRefund,
    ApplyLesson,
    CancelPurchase,
    ConfirmLesson,
    DecideObjection,
    DecideRefund,
    Decision,
    ObjectLesson,
    PayPurchase,
    PlacePurchase,
    RequestRefund,
    ShowObjection,
    ShowPurchase,
    SignContract,
    WithdrawRefund,
)
from shared.ids import derived_id
from shared.settings import PARTICIPANTS
from tests.simulation.history_banks import BankRules
from tests.simulation.history_breaks import BreakRules
from tests.simulation.history_invoices import InvoiceRules
from tests.simulation.history_settlements import SUMS_GO_WRONG, SettlementRules
from tests.simulation.history_suspense import DECISIONS as ABOUT_SUSPENSE
from tests.simulation.history_suspense import SuspenseRules
from tests.simulation.people import AUTHORITY, COURSES, LESSONS
from tests.simulation.rules import MOST_ORDERS, ORDER, WHICH
from tests.simulation.simulation import CONSUMER_LABELS, RELAY_LABELS

UNSIGNED: Final = "f" * 64
"""The SHA-256 of a contract that nobody has drawn."""

WHO: Final = st.sampled_from(PARTICIPANTS)
PICKS: Final = st.lists(WHICH, min_size=1, max_size=8)
COURSE: Final = st.integers(0, len(COURSES) - 1)
REFUND_STEPS: Final = (
    *("answer yes", "answer no", "grant", "grant less", "grant some", "reject", "withdraw", "ask again"),
)
DECISIONS: Final[dict[str, tuple[Decision, int]]] = {
    "release": ("release", 0),
    "give back": ("return", 0),
    "split": ("split", 1),
}
ABOUT_OBJECTIONS: Final = ("object", "show objection", "answer", "accept", *DECISIONS)
REQUESTS: Final = (
    *("show", "sign", "pay", "pay at the counter", "give up", "apply", "confirm", "buy again"),
    *ABOUT_OBJECTIONS,
)
TOGETHER: Final = (
    *("cut-off", "cut-off", "cut-off", "goes on", "goes on", "another goes on", "another goes on", "days pass"),
    *("freeze", "thaw", "another account", "at_once", "daily", "weekly"),
)
"""What may happen while payouts are gathered."""
MISBEHAVIOUR: Final[dict[InstructionKind, tuple[Name, ...]]] = {
    "collect": ("refuse", "repeat", "slow", "accept_first", "silent", "unknown", "pay_twice"),
    "payout": ("refuse", "repeat", "slow", "accept_first", "silent", "unknown", "return_after"),
    "refund": ("refuse", "repeat", "slow", "accept_first", "silent", "unknown", "return_after"),
}
STEPS_OF_FILINGS: Final[tuple[FilingState, ...]] = ("accepted", "rejected", "in_progress", "mediated", "unfounded")
MOMENTS: Final = ("a minute", "a quarter", "an hour", "a day", "due", "almost due", "taught", "almost taught")
SECOND: Final = timedelta(seconds=1)


class History(SuspenseRules, SettlementRules, BankRules, InvoiceRules, BreakRules):
    """One history. Its rules are what people, the bank, Kafka, the scheduler and power cuts may do."""

    def __init__(self) -> None:
        super().__init__()
        self.filing_ids: list[UUID] = []
        self.refunds: list[tuple[UUID, UUID]] = []
        """The order and the id of each."""

    # --- people ---------------------------------------------------------------------------------------------------

    @initialize(guardian=st.integers(0, 1), courses=st.lists(COURSE, min_size=1, max_size=3), steps=st.integers(0, 6))
    def it_begins(self, guardian: int, courses: list[int], steps: int) -> None:
        """Purchases, and what becomes of the first while all is well: signed, paid, a lesson filed, confirmed."""
        for course in courses:
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
        actor, course_id = self.people.guardians[guardian], self.courses[course].course_id
        self.ask(PlacePurchase(order_id=order_id, account_id=UUID(actor.subject), course_id=course_id), actor)

    @rule(order=ORDER, rounds=st.integers(0, 3))
    def it_goes_on(self, order: int, rounds: int) -> None:
        """Whoever has to do something about an order does it; then the services have some time."""
        self._goes_on(order)
        self.works(rounds, PARTICIPANTS)

    def _goes_on(self, order: int) -> None:
        order_id = self.order_ids[order % len(self.order_ids)]
        purchase = self.agreement.orders.purchases.get(str(order_id))
        state = purchase.state if purchase else ""
        guardian = Actor(purchase.guardian, "guardian") if purchase else self.people.guardians[0]
        if state in ("to_sign", "to_pay"):
            self._request({"to_sign": "sign", "to_pay": "pay"}[state], order_id, 1, guardian)
            return
        lessons = purchase.lessons.items() if purchase else ()
        for number, lesson in lessons:
            if lesson.state == "planned" and lesson.ends_at < self.last_day:
                if self.simulation.now < lesson.ends_at:
                    self.run(self.simulation.set_clock(lesson.ends_at))
                self._request("apply", order_id, number, self.institution_of(order_id))
                return
            if lesson.state == "applied":
                self._request("confirm", order_id, number, guardian)
                return
            if lesson.objected is not None and lesson.objected.state == "raised":
                self._request("answer", order_id, number, self.institution_of(order_id))
                return
            if lesson.objected is not None and lesson.state == "objected":
                self._request(list(DECISIONS)[number % len(DECISIONS)], order_id, number, AUTHORITY)
                return
        self._request("show", order_id, 1, guardian)

    @precondition(lambda self: any(p.state == "paying" for p in self.agreement.orders.purchases.values()))
    @rule(order=ORDER, rounds=st.integers(0, 6))
    def thinks_better_of_it(self, order: int, rounds: int) -> None:
        """A guardian gives up while the money is on its way, maybe when it has come already."""
        paying = [(id_, p) for id_, p in self.agreement.orders.purchases.items() if p.state == "paying"]
        order_id, purchase = paying[order % len(paying)]
        self.works(rounds, PARTICIPANTS)
        self._request("give up", UUID(order_id), 1, Actor(purchase.guardian, "guardian"))

    @precondition(lambda self: bool(self._to_pay()) or len(self.order_ids) < MOST_ORDERS)
    @rule(
        order=ORDER,
        how=st.sampled_from(("refuse", "slow", "slow", "silent")),
        stray=st.sampled_from(("nobody's", "names an order", "too little", "again")),
        first=st.sampled_from(("match", "match", "match", "match another", "return")),
        then=st.lists(st.sampled_from(ABOUT_SUSPENSE), max_size=4),
        rounds=st.sampled_from((0, 1, 4)),
    )
    def pays_in_another_way(self, order: int, how: Name, stray: str, first: str, then: list[str], rounds: int) -> None:
        """The bank does not collect as it was asked, and the guardian pays as nobody asked."""
        if not self._to_pay():
            self.buys(order % 2, 1)
            self.run(self.simulation.settle())
        for order_id in self._to_pay()[:1]:
            self.misbehave(how, "collect", order_id, 2000)
            for _ in range(2):  # it is signed, and paid
                self._goes_on(self.order_ids.index(order_id))
                self.run(self.simulation.settle())
            self.money_goes_astray(self.order_ids.index(order_id), [stray], [first, *then], rounds)

    def _enrolled(self) -> list[UUID]:
        return [UUID(id_) for id_, one in self.agreement.orders.purchases.items() if one.state == "enrolled"]

    def _to_pay(self) -> list[UUID]:
        purchases = self.agreement.orders.purchases.items()
        return [UUID(order_id) for order_id, one in purchases if one.state in ("to_sign", "to_pay")]

    @rule(order=ORDER, what=st.sampled_from(REQUESTS), lesson=st.integers(1, LESSONS + 1), who=st.integers(0, 5))
    def asks(self, order: int, what: str, lesson: int, who: int) -> None:
        """Anybody asks for anything."""
        order_id = self.order_ids[order % len(self.order_ids)]
        purchase = self.agreement.orders.purchases.get(str(order_id))
        owner = Actor(purchase.guardian, "guardian") if purchase else self.people.guardians[0]
        anybody = (
            *self.people.guardians,
            owner,
            self.institution_of(order_id),
            AUTHORITY,
            self.people.institution_actor,
        )
        self._request(what, order_id, lesson, anybody[who])

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
            case "show objection":
                self.ask(ShowObjection(**about, lesson_no=lesson), actor)
            case "answer" | "accept":
                self.ask(AnswerObjection(**about, lesson_no=lesson, text="已补课", accepts=what == "accept"), actor)
            case "release" | "give back" | "split":
                decision, part = DECISIONS[what]
                asked = DecideObjection(
                    **about, lesson_no=lesson, decision=decision, release_fen=part, reason="双方各有责任"
                )
                self.ask(asked, actor)
            case "buy again":
                self._buy(order_id, lesson % 2, lesson // 2)

    @precondition(lambda self: any(p.state == "enrolled" for p in self.agreement.orders.purchases.values()))
    @rule(order=ORDER, excluding=st.booleans(), fen=st.sampled_from((0, 0, 0, 1)), steps=st.lists(
        st.tuples(st.sampled_from(REFUND_STEPS), st.integers(0, 3)), max_size=3))  # fmt: skip
    def wants_it_back(self, order: int, excluding: bool, fen: int, steps: list[tuple[str, int]]) -> None:
        """The guardian of a paid order asks for the rest of its fee, and some have their say."""
        enrolled = [(id_, p) for id_, p in self.agreement.orders.purchases.items() if p.state == "enrolled"]
        order_id, purchase = enrolled[order % len(enrolled)]
        waiting = [number for number, one in purchase.lessons.items() if one.state in ("applied", "objected")]
        self._ask_back(
            UUID(order_id),
            purchase.back_fen(self.simulation.now) + fen,
            waiting if excluding else [],
            purchase.guardian,
        )
        for step, rounds in steps:
            self.works(rounds, PARTICIPANTS)
            self._step_of_refund(UUID(order_id), step)

    def _ask_back(self, order_id: UUID, fen: int, excluded: Sequence[int], guardian: str) -> None:
        refund_id = derived_id("refund", len(self.refunds))
        self.refunds.append((order_id, refund_id))
        request = RequestRefund(
            order_id=order_id, refund_id=refund_id, reason="孩子转学", quoted_fen=fen, excluded=tuple(excluded)
        )
        self.ask(request, Actor(guardian, "guardian"))

    def _step_of_refund(self, order_id: UUID, step: str, refund_id: UUID | None = None) -> None:
        """About the refund that was asked for last, whether or not it came to be, unless another is named."""
        refund_id = refund_id or [of_refund for of_order, of_refund in self.refunds if of_order == order_id][-1]
        about: dict[str, Any] = {"order_id": order_id, "refund_id": refund_id}
        purchase = self.agreement.orders.purchases[str(order_id)]
        match step:
            case "answer yes" | "answer no":
                answer = AnswerRefund(**about, agrees=step == "answer yes")
                self.ask(answer, self.institution_of(order_id))
            case "grant" | "grant less" | "grant some" | "reject":
                about["deduction_fen"] = 100 if step == "grant less" else 0
                known = purchase.refunds.get(str(refund_id))
                about["lessons"] = known.lessons[:1] if known and step == "grant some" else ()
                self.ask(DecideRefund(**about, granted=step != "reject", reason=step), AUTHORITY)
            case "withdraw":
                self.ask(WithdrawRefund(**about), Actor(purchase.guardian, "guardian"))
            case "ask again":
                self._ask_back(order_id, purchase.back_fen(self.simulation.now), [], purchase.guardian)
        self.simulation.counts[f"refunds: {step}"] += 1

    @precondition(lambda self: bool(self.refunds))
    @rule(which=WHICH, step=st.sampled_from(REFUND_STEPS))
    def refund_goes_on(self, which: int, step: str) -> None:
        """Somebody has a say about a refund, maybe too late."""
        self._step_of_refund(self.refunds[which % len(self.refunds)][0], step)

    @rule(order=ORDER, guardian=st.integers(0, 1))
    def complains(self, order: int, guardian: int) -> None:
        """A guardian files a complaint on an order, maybe on another's."""
        self._complain(self.order_ids[order % len(self.order_ids)], self.people.guardians[guardian])

    def _complain(self, order_id: UUID, actor: Actor) -> None:
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
        self.ask(filing, actor)

    @precondition(lambda self: any(p.state == "enrolled" for p in self.agreement.orders.purchases.values()))
    @rule(order=ORDER, complaints=st.integers(1, 2), closed=st.integers(1, 2), rounds=st.sampled_from((1, 3, 6)))
    def quarrels(self, order: int, complaints: int, closed: int, rounds: int) -> None:
        """The guardian of a paid order complains, maybe twice; its lessons go on; some complaints are closed."""
        enrolled = [(id_, p) for id_, p in self.agreement.orders.purchases.items() if p.state == "enrolled"]
        order_id, purchase = enrolled[order % len(enrolled)]
        for _ in range(complaints):
            self._complain(UUID(order_id), Actor(purchase.guardian, "guardian"))
        filed = self.filing_ids[-complaints:]
        self.simulation.counts[f"quarrels of {complaints} complaints"] += 1
        for _ in range(2):  # a lesson is filed, and confirmed
            self.works(rounds, PARTICIPANTS)
            self._goes_on(self.order_ids.index(UUID(order_id)))
        self.works(rounds, PARTICIPANTS)
        for filing_id in filed[:closed]:
            self.ask(MoveFiling(filing_id=filing_id, state="rejected", reason="依法处理"), AUTHORITY)
        self.works(rounds, PARTICIPANTS)

    @precondition(lambda self: any(p.state == "enrolled" for p in self.agreement.orders.purchases.values()))
    @rule(
        order=ORDER,
        lesson=st.integers(1, LESSONS),
        then=st.lists(st.sampled_from(("works", "days pass", "confirm", *ABOUT_OBJECTIONS)), max_size=4),
        rounds=st.sampled_from((0, 1, 3)),
    )
    def disputes(self, order: int, lesson: int, then: list[str], rounds: int) -> None:
        """A lesson is filed and its guardian objects; whoever may say something about that says it, at once or days
        later."""
        enrolled = [(id_, p) for id_, p in self.agreement.orders.purchases.items() if p.state == "enrolled"]
        order_id, purchase = enrolled[order % len(enrolled)]
        guardian, institution = Actor(purchase.guardian, "guardian"), self.institution_of(UUID(order_id))
        speakers = dict.fromkeys(("object", "confirm", "show objection"), guardian)
        speakers |= dict.fromkeys(("apply", "answer", "accept"), institution)
        if self.simulation.now < purchase.lessons[lesson].ends_at < self.last_day:
            self.run(self.simulation.set_clock(purchase.lessons[lesson].ends_at))
        for what in ("apply", "object", *then):
            if what == "works":
                self.works(3, PARTICIPANTS)
            elif what == "days pass":
                self.later(days=7)
            else:
                self._request(what, UUID(order_id), lesson, speakers.get(what, AUTHORITY))
            self.works(rounds, PARTICIPANTS)

    @rule(minutes=st.sampled_from((-1, 0, 1, 20, 1500, 10_000, 300_000)), who=st.sampled_from((0, 1, 1, 1, 1)))
    def freezes(self, minutes: int, who: int) -> None:
        """The authority freezes the institution, or sets another end; or somebody tries who may not."""
        until = self.simulation.now + timedelta(minutes=minutes)
        self._freeze(until, (self.people.institution_actor, AUTHORITY)[who])

    def _freeze(self, until: datetime, actor: Actor = AUTHORITY) -> None:
        institution_id = self.people.institution.institution_id
        self.ask(FreezeInstitution(institution_id=institution_id, until=until, reason="涉嫌挪用预收费"), actor)

    @precondition(lambda self: self.agreement.catalog.frozen_until is not None)
    @rule(who=st.sampled_from((0, 1, 1, 1)))
    def thaws(self, who: int) -> None:
        """The authority lifts a freeze; or the institution would like to."""
        self._thaw((self.people.institution_actor, AUTHORITY)[who])

    def _thaw(self, actor: Actor = AUTHORITY) -> None:
        institution_id = self.people.institution.institution_id
        self.ask(ThawInstitution(institution_id=institution_id, reason="已整改"), actor)

    @precondition(lambda self: any(p.state == "enrolled" for p in self.agreement.orders.purchases.values()))
    @rule(
        order=ORDER,
        then=st.lists(
            st.sampled_from(("goes on", "goes on", "buys", "refund", "thaw", "freeze", "days pass")), max_size=6
        ),
        rounds=st.sampled_from((0, 1, 3)),
        minutes=st.sampled_from((20, 1500, 10_000)),
        refuses=st.booleans(),
    )
    def is_frozen_meanwhile(self, order: int, then: list[str], rounds: int, minutes: int, refuses: bool) -> None:
        """The institution is frozen while an order of it goes on, another is bought, or one is given back; `refuses`:
        the bank has just refused a payout."""
        enrolled = [id_ for id_, p in self.agreement.orders.purchases.items() if p.state == "enrolled"]
        order_id = UUID(enrolled[order % len(enrolled)])
        purchase = self.agreement.orders.purchases[str(order_id)]
        if refuses:
            self.misbehave("refuse", "payout", order_id, 10)
        for _ in range(2 * refuses):  # a lesson is filed, and confirmed
            self._goes_on(self.order_ids.index(order_id))
            self.works(4, PARTICIPANTS)
        for what in ("freeze", *then):
            if what == "freeze":
                self._freeze(self.simulation.now + timedelta(minutes=minutes))
            elif what == "thaw":
                self._thaw()
            elif what == "goes on":
                self._goes_on(self.order_ids.index(order_id))
            elif what == "refund":
                self._ask_back(order_id, purchase.back_fen(self.simulation.now), [], purchase.guardian)
                self.works(rounds, PARTICIPANTS)
                self._step_of_refund(order_id, "answer yes")
            elif what == "buys" and len(self.order_ids) < MOST_ORDERS:
                self.buys(order % 2, 1)
            elif what == "days pass":
                self.later(days=2)
            self.works(rounds, PARTICIPANTS)

    @precondition(lambda self: bool(self._enrolled()) or len(self.order_ids) < MOST_ORDERS)
    @rule(
        order=ORDER,
        mode=st.sampled_from(("daily", "daily", "weekly")),
        how=st.sampled_from(("", *SUMS_GO_WRONG)),
        minutes=st.sampled_from((1, 20, 2000)),
        then=st.lists(st.sampled_from(TOGETHER), min_size=1, max_size=7),
        rounds=st.sampled_from((0, 1, 3)),
    )
    def is_paid_together(
        self, order: int, mode: SettlementMode, how: Name | Literal[""], minutes: int, then: list[str], rounds: int
    ) -> None:
        """The institution is paid by the day or by the week while orders of it go on, and the bank may not settle."""
        if not self._enrolled():
            self.buys(order % 2, 1)
            for _ in range(2):  # it is signed, and paid
                self.run(self.simulation.settle())
                self._goes_on(len(self.order_ids) - 1)
            self.run(self.simulation.settle())
        enrolled = self._enrolled() or self.order_ids
        self._choose(mode, self.people.institution_actor)
        self.works(1, PARTICIPANTS)
        if how:
            self.misbehave(how, "payout", None, minutes, number_prefix="G")
        for what in ("goes on", "goes on", *then):
            match what:
                case "goes on" | "another goes on":
                    one = enrolled[(order + (what != "goes on")) % len(enrolled)]
                    self._goes_on(self.order_ids.index(one))
                    self.works(3, PARTICIPANTS)
                case "cut-off":
                    self.goes_to_cut_off()
                case "days pass":
                    self.later(days=2)
                case "freeze":
                    self._freeze(self.simulation.now + timedelta(minutes=minutes))
                case "thaw":
                    self._thaw()
                case "another account":
                    self._change_account(order % 2, self.people.institution_actor)
                case "at_once" | "daily" | "weekly" as chosen:
                    self._choose(chosen, AUTHORITY)
            self.works(rounds, PARTICIPANTS)

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
        self.simulation.counts[f"asked again: {how}"] += 1

    # --- the bank, and time -----------------------------------------------------------------------------------------

    @rule(order=ORDER, name=WHICH, refunds=st.booleans(), minutes=st.sampled_from((1, 20, 2000)))
    def bank_will(self, order: int, name: int, refunds: bool, minutes: int) -> None:
        """The bank will misbehave, once."""
        order_id = self.order_ids[order % len(self.order_ids)]
        account = self.agreement.escrow.accounts.get(str(order_id))
        kind: InstructionKind = "refund" if refunds else "payout" if account else "collect"
        how = MISBEHAVIOUR[kind][name % len(MISBEHAVIOUR[kind])]
        self.misbehave(how, kind, order_id, minutes)

    @precondition(lambda self: self.simulation.now < self.last_day)
    @rule(until=st.sampled_from(MOMENTS), quietly=st.booleans())
    def time_passes(self, until: str, quietly: bool) -> None:
        """To the second before something may happen, to the moment itself, or for a while.

        `quietly`: whoever had to sign or to pay has done so before, and everything was delivered.
        """
        for state in ("placed", "to_sign", "to_pay") if quietly else ():
            self.run(self.simulation.settle())
            for order, order_id in enumerate(self.order_ids):
                purchase = self.agreement.orders.purchases.get(str(order_id))
                if purchase is not None and purchase.state == state:
                    self._goes_on(order)
        self.run(self._pass_time(until))

    async def _pass_time(self, until: str) -> None:
        now = self.simulation.now
        steps = {"a minute": 1, "a quarter": 15, "an hour": 60, "a day": 1440}
        moments = [now + timedelta(minutes=steps.get(until, 1))]
        if "due" in until:
            moments = await self.simulation.next_due()
        if "taught" in until:
            moments = [lesson.ends_at for course in self.courses for lesson in course.lessons]
        moments = [moment - SECOND * ("almost" in until) for moment in moments]
        later = sorted(moment for moment in moments if now < moment)
        await self.simulation.set_clock(min(later[0] if later else now, self.last_day))

    @rule(who=WHO)
    def timers_fire(self, who: str) -> None:
        """A service sees what is due."""
        self.run(self.simulation.fire(who))

    # --- the road ---------------------------------------------------------------------------------------------------

    @rule(who=WHICH, picks=PICKS)
    def polls(self, who: int, picks: list[int]) -> None:
        """A service handles some of what waits for it, in any order that Kafka may give."""
        self.run(self.simulation.poll(one_of(self.simulation.who_may_poll(), who), picks))

    @rule(who=WHICH, picks=PICKS, label=st.sampled_from((*CONSUMER_LABELS, "commit", "commit")))
    def dies_handling(self, who: int, picks: list[int], label: str) -> None:
        """A service dies while it handles; before its commit or after."""
        self.run(self.simulation.poll(one_of(self.simulation.who_may_poll(), who), picks, die_at=label))

    @rule(who=WHICH, picks=PICKS)
    def two_copies_handle(self, who: int, picks: list[int]) -> None:
        """Two copies of a service handle the same records at the same time, as in a rebalance."""
        name = one_of(self.simulation.who_may_poll(), who)
        if self.run(self.simulation.poll(name, picks, in_two_copies=True)):
            self.simulation.counts["polls of two copies"] += 1

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

    @rule(which=st.integers(0, 20))
    def is_said_again(self, which: int) -> None:
        """A command comes once more under a new id."""
        self.simulation.say_again(which)

    # --- the end ----------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """The bank behaves, everything is delivered, every deadline passes: then the whole world is looked at."""
        self.simulation.counts["histories"] += 1
        if sys.exc_info()[0] is None:
            self.run(self._come_to_rest())
            self.invoices_are_late()
            self.banks_send_statements()
            self.run(self.agreement.check_the_end())
            counts = self.agreement.counts()
            if currently_in_test_context():  # a history may be played by hand as well
                event(f"purchases enrolled: {counts['purchases enrolled']}")
            self.simulation.counts += counts
        self.simulation.watcher = None

    async def _come_to_rest(self) -> None:
        await desk.clear_behaviours(self.simulation.processes["bank"].settings.database)
        for _ in range(50):
            await self.simulation.settle()
            self._decides()
            self._decide_what_is_contested()
            self.return_what_is_open()
            await self.simulation.settle()
            due = await self.simulation.next_due()
            if due:
                await self.simulation.set_clock(due[-1])
            elif not self.simulation.say_again_what_to_collect():
                return
        raise AssertionError("never at rest: there is always a timer more")

    def _decide_what_is_contested(self) -> None:
        """An authority that never decides is reminded for ever."""
        for id_, purchase in self.agreement.orders.purchases.items():
            if purchase.refund and purchase.refund.state == "contested":
                self._step_of_refund(UUID(id_), "grant", UUID(list(purchase.refunds)[-1]))

    def _decides(self) -> None:
        """The authority decides what waits for it: of every other lesson only when it was late once."""
        for order_id, purchase in self.agreement.orders.purchases.items():
            for number, lesson in purchase.lessons.items():
                objection = lesson.objected
                with_authority = objection is not None and objection.state in ("answered", "unanswered")
                if objection is not None and with_authority and objection.overdue >= number % 2:
                    self._request(list(DECISIONS)[number % len(DECISIONS)], UUID(order_id), number, AUTHORITY)


def one_of(names: Sequence[str], number: int) -> str:
    """One of those who have something to do, else anybody."""
    return names[number % len(names)] if names else PARTICIPANTS[0]
