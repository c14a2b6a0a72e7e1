"""What the rules of a history have in common: who is there, what was bought, and how anybody asks for anything."""

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar, Final
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ops.bank import desk
from ops.bank.behaviour import Name
from shared.actors import Actor
from shared.contracts.bank import InstructionKind
from shared.contracts.envelope import Request
from shared.settings import PARTICIPANTS
from tests.simulation.agreement import Agreement
from tests.simulation.people import AUTHORITY, People
from tests.simulation.simulation import Simulation

MOST_ORDERS: Final = 4
DAYS: Final = 21
"""Of a history; what is left to do then takes some weeks more."""
WHICH: Final = st.integers(0, 7)
ORDER: Final = st.integers(0, MOST_ORDERS - 1)


class Rules(RuleBasedStateMachine):
    """A history in which nothing special happens."""

    simulation: ClassVar[Simulation]
    people: ClassVar[People]

    def __init__(self) -> None:
        super().__init__()
        self.run = self.simulation.run
        self.run(self.simulation.begin())
        self.last_day = self.simulation.start + timedelta(days=DAYS)
        self.courses = self.people.courses[self.simulation.start]
        self.agreement = Agreement(self.simulation, self.people, AUTHORITY.subject)
        self.simulation.watcher = self.agreement
        self.order_ids: list[UUID] = []
        self.asked: dict[UUID, tuple[Request, Actor]] = {}
        """Message id → what was asked first under it."""

    @invariant()
    def tables_and_answers_are_as_the_models_say(self) -> None:
        """After every rule."""
        self.run(self.agreement.check())

    def institution_of(self, order_id: UUID) -> Actor:
        """Who files its lessons."""
        purchase = self.agreement.orders.purchases.get(str(order_id))
        return Actor(purchase.institution, "institution") if purchase else self.people.institution_actor

    def ask(self, request: Request, actor: Actor, message_id: UUID | None = None) -> None:
        """A gateway sends it."""
        asking = self.simulation.send(request, actor, message_id=message_id)
        self.asked.setdefault(message_id or asking, (request, actor))

    @rule(rounds=st.integers(1, 4), names=st.permutations(PARTICIPANTS))
    def works(self, rounds: int, names: Sequence[str]) -> None:
        """Nothing special for a while."""
        for _ in range(rounds):
            self.run(self.simulation.round(names))

    def buys(self, guardian: int, course: int) -> None:
        """A guardian buys."""
        raise NotImplementedError

    def _goes_on(self, order: int) -> None:
        """Whoever has to do something about an order does it."""
        raise NotImplementedError

    def _ask_back(self, order_id: UUID, fen: int, excluded: Sequence[int], guardian: str) -> None:
        """The guardian of an order asks for the rest of its fee."""
        raise NotImplementedError

    def _step_of_refund(self, order_id: UUID, step: str) -> None:
        """Somebody has a say about a refund."""
        raise NotImplementedError

    def goes_to_cut_off(self) -> None:
        """It is the next cut-off."""
        raise NotImplementedError

    def later(self, days: int) -> None:
        """Days pass, up to the last one, and what is due falls due."""
        later = min(self.simulation.now + timedelta(days=days), self.last_day)
        self.run(self.simulation.set_clock(max(self.simulation.now, later)))
        for name in PARTICIPANTS:
            self.run(self.simulation.fire(name))

    def misbehave(
        self, how: Name, kind: InstructionKind, order_id: UUID | None, minutes: int, *, number_prefix: str = ""
    ) -> None:
        """The bank will, once, when it is told something of this kind."""
        dsn, seconds = self.simulation.processes["bank"].settings.database, 60.0 * minutes
        meeting = desk.set_behaviour(
            dsn, how, kind=kind, order_id=order_id, number_prefix=number_prefix, seconds=seconds
        )
        self.run(meeting)
        self.simulation.counts[f"misbehaviours set: {number_prefix or kind}"] += 1
