"""Money that nobody asked for, and what operators decide about it."""

from dataclasses import replace
from typing import Final
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ops.bank import desk
from ops.bank.behaviour import Name
from shared.actors import Actor
from shared.contracts.escrow import MatchSuspense, ReturnSuspense
from shared.ids import derived_id, instruction_number
from shared.settings import PARTICIPANTS
from tests.simulation.model_suspense import OPERATOR as LI
from tests.simulation.people import AUTHORITY, PRICE_FEN
from tests.simulation.rules import ORDER, WHICH, Rules

OPERATOR: Final = Actor(LI, "operator")
NOT_ITS_BANK: Final = "ccb"
NOT_ITS_ACCOUNT: Final = "1105000000001"
STRAYS: Final = ("nobody's", "names an order", "too little", "again", "short", "over", "elsewhere", "at another bank")
"""A number that nobody gave; one that names an order, with its price or less; the rest: the number of the order's own
collection, the right amount or not, in its supervised account or not."""
RETURNS_GO_WRONG: Final[tuple[Name, ...]] = ("refuse", "return_after", "silent", "unknown", "slow", "repeat")
DECISIONS: Final = ("match", "match", "match another", "return", *RETURNS_GO_WRONG, "days pass")


class SuspenseRules(Rules):
    """Strays, and operators."""

    def __init__(self) -> None:
        super().__init__()
        self.strays = 0

    def comes(self, what: str, order_id: UUID) -> None:
        """Money comes in that nobody asked for, maybe for an order that is paid, or not to be paid any more."""
        self.strays += 1
        of_order = what not in ("nobody's", "names an order", "too little")
        letter, numbered = ("C", order_id) if of_order else ("X", derived_id("stray", self.strays))
        known = self.agreement.escrow.accounts.get(str(order_id))
        if of_order and known is None:
            return  # no bank knows the number of a collection that it was not told of
        banks = self.agreement.banks
        place = banks.places.get(str(order_id), banks.place)
        if what == "at another bank":
            place = banks.place if banks.place.bank != place.bank else replace(place, bank=NOT_ITS_BANK)
        coming = desk.unsolicited(
            self.simulation.processes["bank"].settings.database,
            bank=place.bank,
            supervised_account=NOT_ITS_ACCOUNT if what == "elsewhere" else place.supervised,
            amount_fen=PRICE_FEN + {"too little": -1, "short": -1, "over": 1}.get(what, 0),
            number=instruction_number(letter, numbered, 0, 0),
            order_id=None if what == "nobody's" else order_id,
        )
        self.run(coming)
        self.simulation.processes["bank"].has_said = True
        self.simulation.counts[f"strays: {what}"] += 1

    @rule(order=ORDER, what=st.sampled_from(STRAYS))
    def money_comes(self, order: int, what: str) -> None:
        """Somebody pays what nobody asked for."""
        self.comes(what, self.order_ids[order % len(self.order_ids)])

    @rule(
        order=ORDER,
        strays=st.lists(st.sampled_from(STRAYS), min_size=1, max_size=2),
        then=st.lists(st.sampled_from(DECISIONS), min_size=1, max_size=5),
        rounds=st.sampled_from((0, 1, 4)),
    )
    def money_goes_astray(self, order: int, strays: list[str], then: list[str], rounds: int) -> None:
        """Money comes, the bank tells of it, and an operator decides; the bank may not do what he decides."""
        order_id = self.order_ids[order % len(self.order_ids)]
        known = set(self.agreement.escrow.suspense.receipts)
        for what in strays:
            self.comes(what, order_id)
        self.works(2, PARTICIPANTS)
        new = [id_ for id_ in self.agreement.escrow.suspense.receipts if id_ not in known]
        for number, what in enumerate(then if new else ()):
            self._decide(what, UUID(new[number % len(new)]), order_id)
            self.works(rounds, PARTICIPANTS)

    def _decide(self, what: str, receipt_id: UUID, order_id: UUID) -> None:
        another = self.order_ids[(self.order_ids.index(order_id) + 1) % len(self.order_ids)]
        match what:
            case "match" | "match another":
                order_id = another if what == "match another" else order_id
                self.ask(MatchSuspense(receipt_id=receipt_id, order_id=order_id, reason="家长补付"), OPERATOR)
            case "return":
                self.ask(ReturnSuspense(receipt_id=receipt_id, reason="非本平台款项"), OPERATOR)
            case "days pass":
                self.later(days=1)
            case "refuse" | "return_after" | "silent" | "unknown" | "slow" | "repeat" as how:
                self.misbehave(how, "refund", receipt_id, 20)
                self.ask(ReturnSuspense(receipt_id=receipt_id, reason="非本平台款项"), OPERATOR)

    @precondition(lambda self: bool(self.agreement.escrow.suspense.receipts))
    @rule(which=WHICH, order=ORDER, matches=st.booleans(), who=st.sampled_from((0, 0, 0, 0, 1, 2)))
    def operator_decides(self, which: int, order: int, matches: bool, who: int) -> None:
        """An operator matches or returns any money, or some that there is not; or somebody tries who is none."""
        receipts = [*self.agreement.escrow.suspense.receipts, str(derived_id("no receipt"))]
        receipt_id, order_id = UUID(receipts[which % len(receipts)]), self.order_ids[order % len(self.order_ids)]
        actor = (OPERATOR, AUTHORITY, self.people.guardians[0])[who]
        if matches:
            self.ask(MatchSuspense(receipt_id=receipt_id, order_id=order_id, reason="经核对"), actor)
        else:
            self.ask(ReturnSuspense(receipt_id=receipt_id, reason="无法核对"), actor)

    def return_what_is_open(self) -> None:
        """At the end: an operator who never decides is reminded for ever."""
        for receipt_id, receipt in self.agreement.escrow.suspense.receipts.items():
            if receipt.state == "open":
                self.ask(ReturnSuspense(receipt_id=UUID(receipt_id), reason="逾期退回"), OPERATOR)
