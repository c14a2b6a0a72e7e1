"""How the institution is paid: who chooses that, and where the money goes."""

from typing import Final
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ops.bank.behaviour import Name
from shared.actors import Actor
from shared.contracts.escrow import ChangePayoutAccount, ChooseSettlement, SettlementMode
from shared.settings import PARTICIPANTS
from tests.simulation.model_settlements import CLOSE
from tests.simulation.people import AUTHORITY
from tests.simulation.rules import Rules

MODES: Final[tuple[SettlementMode, ...]] = ("at_once", "daily", "weekly")
ACCOUNTS: Final = (
    *(("icbc", "622200000001"), ("icbc", "622200000002"), ("pboc", "622200000001"), ("icbc", "账号")),
    *(("abc", "622848000009"), ("jiangnan", "622452000009")),
)
"""Two to which it may move, one at a bank that does not supervise, one that is none; two at other banks."""
SUMS_GO_WRONG: Final[tuple[Name, ...]] = (
    *("refuse", "return_after", "return_after", "silent", "unknown", "slow", "repeat", "accept_first"),
)


class SettlementRules(Rules):
    """Modes of settlement, and payout accounts."""

    @rule(mode=st.sampled_from(MODES), who=st.sampled_from((0, 0, 0, 1, 1, 2, 3)))
    def chooses(self, mode: SettlementMode, who: int) -> None:
        """The institution chooses how it is paid, or the authority does; or somebody tries who may not."""
        stranger = Actor(str(UUID(int=1)), "institution")
        self._choose(mode, (self.people.institution_actor, AUTHORITY, self.people.guardians[0], stranger)[who])

    def _choose(self, mode: SettlementMode, actor: Actor) -> None:
        self.ask(ChooseSettlement(institution_id=self.people.institution.institution_id, mode=mode), actor)

    @rule(which=st.sampled_from((0, 1, 0, 1, 2, 3, 4, 5)), who=st.sampled_from((0, 0, 0, 1)))
    def has_another_account(self, which: int, who: int) -> None:
        """The institution has another payout account, or names one that cannot be; only it may."""
        self._change_account(which, (self.people.institution_actor, AUTHORITY)[who])

    def _change_account(self, which: int, actor: Actor) -> None:
        bank, account = ACCOUNTS[which]
        institution_id = self.people.institution.institution_id
        self.ask(ChangePayoutAccount(institution_id=institution_id, bank=bank, payout_account=account), actor)

    @rule(name=st.sampled_from(SUMS_GO_WRONG), minutes=st.sampled_from((1, 20, 2000)))
    def bank_will_not_settle(self, name: Name, minutes: int) -> None:
        """The bank will misbehave when it is told a sum."""
        self.misbehave(name, "payout", None, minutes, number_prefix="G")

    def goes_to_cut_off(self) -> None:
        """It is the next cut-off for which something was gathered, if it comes in time."""
        due = sorted(due for (type_, _), due in self.agreement.escrow.timers.items() if type_ == CLOSE)
        if due and self.simulation.now < due[0] <= self.last_day:
            self.run(self.simulation.set_clock(due[0]))
        for name in PARTICIPANTS:
            self.run(self.simulation.fire(name))
