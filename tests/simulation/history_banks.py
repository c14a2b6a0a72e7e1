"""At which bank the institution is: it moves to another at any moment, with money in flight."""

from dataclasses import replace
from typing import Final, Literal
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from ops.bank.behaviour import Name
from shared.actors import Actor
from shared.contracts.bank import InstructionKind
from shared.contracts.catalog import BankAccount, UpdateDisclosure
from shared.contracts.escrow import ChangePayoutAccount, ChooseSettlement, SettlementMode
from shared.ids import derived_id
from shared.settings import PARTICIPANTS
from tests.simulation.model_banks import RESERVE, Place, account_of, place_of
from tests.simulation.model_suspense import OPERATOR
from tests.simulation.people import AUTHORITY
from tests.simulation.rules import MOST_ORDERS, ORDER, Rules

PLACES: Final = (
    Place("abc", "1060000000001", "622848000001"),
    Place("jiangnan", "1070000000001", "622452000001"),
    Place("boc", "1040000000001", "621660000001"),
    Place("icbc", "1102000000009", "622200000008"),
    Place("icbc", "1102000000009", "622200000007"),
)
"""Three other banks; the same bank, with other accounts."""
NO_PLACES: Final = (
    Place("pboc", "1060000000001", "622848000001"),
    Place("abc", "账号", "622848000001"),
    Place("abc", "1060000000001", " 6228"),
    None,
)
"""A bank that does not supervise, what is no number of an account, nothing disclosed."""
WRONG: Final[tuple[tuple[InstructionKind, Name], ...]] = (
    *(("payout", "refuse"), ("payout", "return_after"), ("payout", "silent"), ("payout", "slow")),
    *(("refund", "refuse"), ("refund", "return_after"), ("collect", "slow"), ("collect", "silent")),
)
TWO_SUMS: Final = ("moves within", "buys", "goes on", "another goes on", "goes on", "another goes on", "cut-off")
BEGINNINGS: Final = (
    ("goes on", "moves", "buys"),
    ("moves", "buys", "goes on", "another goes on"),
    TWO_SUMS,
)
"""A lesson is on its way when it moves; or orders of two banks, or of two accounts of one bank, go on together."""
IN_FLIGHT: Final = (
    *("moves", "moves on", "moves back", "moves within", "buys", "goes on", "goes on", "goes on", "another goes on"),
    *("another goes on", "another goes on", "refund", "refund of another", "another account", "cut-off", "cut-off"),
    *("days pass", "at_once", "daily", "weekly"),
)


class BankRules(Rules):
    """Moves to another bank."""

    @initialize(
        where=st.sampled_from((None, 0, 1, 2, 3, 3)),
        buys=st.booleans(),
        two_sums=st.sampled_from((False, False, False, False, True)),
    )
    def is_elsewhere(self, where: int | None, buys: bool, two_sums: bool) -> None:
        """It has moved before anybody bought, or while somebody buys; and then somebody does. `two_sums`: it is paid by
        the day from the beginning, and from two accounts of one bank, which later there is seldom time for."""
        if two_sums:
            self.moves_with_money_in_flight(
                order=0, where=where or 0, mode="daily", wrong=None, first=TWO_SUMS, then=[], rounds=0
            )
        elif where is not None:
            self._move(self._place(where))
            self.works(1, PARTICIPANTS)
            if buys and len(self.order_ids) < MOST_ORDERS - 1:
                self._pay_for_another()

    @rule(where=st.integers(-1, len(PLACES) - 1), again=st.booleans())
    def moves(self, where: int, again: bool) -> None:
        """The authority enters the account that the institution has now; -1: the first. `again`: then all who have
        bought ask for their seats once more."""
        self._move(self._place(where))
        if again:
            self.works(1, PARTICIPANTS)
            self.simulation.say_again_all(RESERVE)

    @precondition(lambda self: len(self.order_ids) < MOST_ORDERS)
    @rule(
        guardian=st.integers(0, 1),
        course=st.integers(1, 2),
        where=st.integers(-1, len(PLACES) - 1),
        rounds=st.sampled_from((1, 2, 4)),
        again=st.integers(0, 2),
    )
    def moves_while_somebody_buys(self, guardian: int, course: int, where: int, rounds: int, again: int) -> None:
        """Before the guardian has the contract, or signs it, or pays; some commands of the purchase come once more."""
        self.buys(guardian, course)
        self.works(rounds, PARTICIPANTS)
        self._move(self._place(where))
        self.works(1, PARTICIPANTS)
        for which in range(again):
            self.simulation.say_again(2 * which)  # the one before what was just said again
        self.works(1, PARTICIPANTS)
        for _ in range(2):
            self._goes_on(len(self.order_ids) - 1)
            self.works(4, PARTICIPANTS)

    @rule(
        where=st.sampled_from((*range(len(NO_PLACES)), "same")),
        who=st.integers(0, 4),
        whose=st.booleans(),
    )
    def would_like_to_move(self, where: int | Literal["same"], who: int, whose: bool) -> None:
        """To where it cannot, or is; or somebody enters it who may not; or of an institution that there is not."""
        place = self.agreement.banks.place if where == "same" else NO_PLACES[where]
        people = (AUTHORITY, AUTHORITY, self.people.institution_actor, Actor(OPERATOR, "operator"))
        self._move(place, (*people, self.people.guardians[0])[who], whose=whose)

    def _place(self, where: int) -> Place:
        return PLACES[where] if where >= 0 else place_of(self.people.institution.account)

    def _move(self, place: Place | None, actor: Actor = AUTHORITY, *, whose: bool = True) -> None:
        account = account_of(place)
        asked = UpdateDisclosure(
            institution_id=self.people.institution.institution_id if whose else derived_id("no institution"),
            disclosure=self.people.disclosure.model_copy(update={"account": account and BankAccount(**account)}),
            reason="更换监管银行",
        )
        self.ask(asked, actor)

    @precondition(lambda self: bool(self._paid_orders()) or len(self.order_ids) < MOST_ORDERS)
    @rule(
        order=ORDER,
        where=st.integers(0, len(PLACES) - 1),
        mode=st.sampled_from(("", "", "daily", "daily", "weekly")),
        wrong=st.sampled_from((None, None, *WRONG)),
        first=st.sampled_from(BEGINNINGS),
        then=st.lists(st.sampled_from(IN_FLIGHT), min_size=2, max_size=8),
        rounds=st.sampled_from((0, 1, 3)),
    )
    def moves_with_money_in_flight(
        self,
        order: int,
        where: int,
        mode: SettlementMode | Literal[""],
        wrong: tuple[InstructionKind, Name] | None,
        first: tuple[str, ...],
        then: list[str],
        rounds: int,
    ) -> None:
        """The institution moves while orders of it go on, others are bought, money goes back or out in sums; and
        something may go wrong at a bank."""
        if not self._paid_orders():
            self._pay_for_another()
        if mode or first == TWO_SUMS:
            self._settle_by(mode or "daily")
        if wrong:
            self.misbehave(wrong[1], wrong[0], None, 20)
        mine = (self._paid_orders() or self.order_ids)[order % max(1, len(self._paid_orders()))]
        for what in (*first, *then):
            match what:
                case "moves" | "moves on" | "moves back":
                    self._move(self._place({"moves": where, "moves on": (where + 1) % len(PLACES)}.get(what, -1)))
                case "moves within":
                    place = self.agreement.banks.places.get(str(mine), self.agreement.banks.place)
                    self._move(replace(place, supervised=f"1108{where:09}"))
                    self.works(1, PARTICIPANTS)
                case "buys" if len(self.order_ids) < MOST_ORDERS:
                    self._pay_for_another()
                case "goes on":
                    self._goes_on(self.order_ids.index(mine))
                case "another goes on":
                    self._goes_on(len(self.order_ids) - 1)
                case "refund" | "refund of another":
                    self._give_back(mine if what == "refund" else self.order_ids[-1], rounds)
                case "another account":
                    self._pay_elsewhere(mine, order)
                case "cut-off":
                    self.goes_to_cut_off()
                case "days pass":
                    self.later(days=2)
                case "at_once" | "daily" | "weekly" as chosen:
                    self._settle_by(chosen)
            self.works(3 if mode or first == TWO_SUMS else rounds, PARTICIPANTS)  # else little is ever gathered

    def _paid_orders(self) -> list[UUID]:
        return [UUID(id_) for id_, one in self.agreement.orders.purchases.items() if one.state == "enrolled"]

    def _pay_for_another(self) -> None:
        """Bought, signed and paid, by each guardian in turn: no child may have too much open."""
        self.buys(len(self.order_ids) % 2, 1)
        for _ in range(2):
            self.run(self.simulation.settle())
            self._goes_on(len(self.order_ids) - 1)
        self.works(4, PARTICIPANTS)

    def _give_back(self, order_id: UUID, rounds: int) -> None:
        purchase = self.agreement.orders.purchases.get(str(order_id))
        if purchase is not None:
            self._ask_back(order_id, purchase.back_fen(self.simulation.now), [], purchase.guardian)
            self.works(rounds, PARTICIPANTS)
            self._step_of_refund(order_id, "answer yes")

    def _settle_by(self, mode: SettlementMode) -> None:
        institution_id = self.people.institution.institution_id
        self.ask(ChooseSettlement(institution_id=institution_id, mode=mode), self.people.institution_actor)
        self.works(1, PARTICIPANTS)

    def _pay_elsewhere(self, order_id: UUID, number: int) -> None:
        """Its payouts at the bank of an order go to another account."""
        place = self.agreement.banks.places.get(str(order_id), self.agreement.banks.place)
        institution_id = self.people.institution.institution_id
        changed = ChangePayoutAccount(
            institution_id=institution_id, bank=place.bank, payout_account=f"62220000002{number}"
        )
        self.ask(changed, self.people.institution_actor)
