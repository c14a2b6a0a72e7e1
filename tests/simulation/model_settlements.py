"""The model of gathered payouts: how an institution is paid, what goes out together, and what its lessons make of the
bank's answers; see `model.py`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tests.simulation.model import DAY
from tests.simulation.model_banks import BANKS, cut_off, is_account
from tests.simulation.model_payments import INSTRUCT, Account, Books, Payment
from tests.simulation.simulation import Heard

CLOSE: Final = "escrow.settlement.close.v1"
SETTLEMENT_TIMER: Final = "escrow.settlement.deadline.v1"

Lesson = tuple[str, int]
"""Order and number; 0 is what the institution keeps of a refund."""


@dataclass
class Gathered:
    """A lesson that is paid out with others, of a settlement once it has gone out."""

    bank: str
    supervised: str
    payout_account: str
    amount: int
    settlement: str | None = None


@dataclass
class Settlement(Payment):
    """One payout of many lessons. `booked`: the step at which all of them are."""

    bank: str = ""
    supervised: str = ""
    lessons: tuple[Lesson, ...] = ()
    booked: int = 0

    @property
    def step(self) -> int:
        """How often its money has moved: out, back, out again …"""
        return 2 * self.turn + (self.state == "paid")


class Settlements:
    """The mode and the accounts of the one institution, and its settlements by id."""

    def __init__(self, books: Books, institution: str, authority: str) -> None:
        self.books = books
        self.institution = institution
        self.authority = authority
        self.chosen: tuple[str, str] | None = None
        """The mode and who chose it."""
        self.accounts: dict[str, tuple[str, str]] = {}
        """Bank → where its payouts go now, and who changed it."""
        self.gathered: dict[Lesson, Gathered] = {}
        self.settlements: dict[str, Settlement] = {}
        self.ids: dict[Lesson, str] = {}
        """What escrow calls the settlement of a lesson: the one thing that no rule says."""

    @property
    def mode(self) -> str:
        """How the institution is paid."""
        return self.chosen[0] if self.chosen else "at_once"

    def redirected(self, account: Account) -> str | None:
        """Where payouts of an order go, if not where it said when it was paid."""
        is_theirs = account.institution == self.institution
        return self.accounts[account.bank][0] if is_theirs and account.bank in self.accounts else None

    def hear(self, m: Heard) -> str:
        """A choice, a cut-off, a deadline, or that lessons follow."""
        match m.type:
            case "escrow.settlement.choose.v1":
                return self._choose(m)
            case "escrow.payout_account.change.v1":
                return self._change_account(m)
            case "escrow.settlement.close.v1":
                self._close(m)
            case "escrow.settlement.deadline.v1":
                self._passes(m, m.data["settlement_id"])
            case "escrow.settlement.book.v1":
                self._follow(m, m.data["settlement_id"])
        return ""

    # --- what is chosen -----------------------------------------------------------------------------------------

    def _choose(self, m: Heard) -> str:
        if m.actor not in (self.institution, self.authority):
            return "!actor_forbidden"
        if self.mode in ("daily", "weekly") and self.mode != m.data["mode"]:
            for bank in self._open_banks():
                self.books.timers.pop((CLOSE, self._cut_off(m, bank)[0]), None)
        if self.chosen is None or self.chosen[0] != m.data["mode"]:
            self.chosen = m.data["mode"], m.actor
        self.close_what_is_open(m)
        return self.mode

    def _change_account(self, m: Heard) -> str:
        bank, account = m.data["bank"], m.data["payout_account"]
        if m.actor != self.institution:
            return "!actor_forbidden"
        if bank not in BANKS:
            return "!bank_unknown"
        if not is_account(account):
            return "!bank_account_invalid"
        self.accounts[bank] = account, m.actor
        return self.mode

    def close_what_is_open(self, m: Heard) -> None:
        """After a choice, and after a thaw. What is gathered goes out as the mode says now."""
        for bank in self._open_banks():
            if self.mode == "at_once":
                self.books.said[CLOSE, self.institution] += 1
                self.books.counts["gathered, and then at once"] += 1
            else:
                self._set_cut_off(m, bank)

    def _open_banks(self) -> set[str]:
        return {one.bank for one in self.gathered.values() if one.settlement is None}

    def _set_cut_off(self, m: Heard, bank: str) -> None:
        subject, due = self._cut_off(m, bank)
        self.books.timers[CLOSE, subject] = due

    def _cut_off(self, m: Heard, bank: str) -> tuple[str, datetime]:
        due = cut_off(bank, self.mode, m.now)
        return f"{self.institution}:{bank}:{due.isoformat()}", due

    # --- what goes out together -----------------------------------------------------------------------------------

    def gather(self, m: Heard, order: str, number: int, account: Account, payment: Payment) -> None:
        """A payout waits for the cut-off."""
        payment.state = "gathered"
        payee = self.redirected(account) or account.payout_account
        self.gathered[order, number] = Gathered(account.bank, account.supervised, payee, payment.amount)
        self._set_cut_off(m, account.bank)

    def _close(self, m: Heard) -> None:
        bank = m.data["bank"]
        waiting = [lesson for lesson, one in self.gathered.items() if one.bank == bank and one.settlement is None]
        if not waiting:
            return
        if self.books.frozen(self.institution):
            self.books.counts["settlements not closed while frozen"] += 1
            return
        supervised, to = min(self._between(bank, lesson) for lesson in waiting)
        lessons = tuple(lesson for lesson in waiting if self._between(bank, lesson) == (supervised, to))
        id_ = self.ids.get(lessons[0], "none")
        for lesson in lessons:
            self.gathered[lesson].settlement, self.gathered[lesson].payout_account = id_, to
        if len(lessons) < len(waiting):  # of other accounts: a sum is of two only
            self.books.said[CLOSE, self.institution] += 1
            self.books.counts["cut-offs with more than one sum"] += 1
        amount = sum(self.gathered[lesson].amount for lesson in lessons)
        settlement = Settlement(amount, to=to, bank=bank, supervised=supervised, lessons=lessons)
        self.settlements[id_] = settlement
        self.books.said["escrow.settlement_closed.v1", self.institution] += 1
        self.books.counts[f"settlements of {min(len(lessons), 3)} lessons"] += 1
        self._tell(m, id_, settlement)

    def _between(self, bank: str, lesson: Lesson) -> tuple[str, str]:
        """From which account to which it would go now."""
        one = self.gathered[lesson]
        return one.supervised, self.accounts[bank][0] if bank in self.accounts else one.payout_account

    def _tell(self, m: Heard, id_: str, settlement: Settlement) -> None:
        settlement.state = "sent"
        self.books.banks.tell(
            ("gathered", id_, 0, settlement.attempt),
            bank=settlement.bank,
            supervised=settlement.supervised,
            amount=settlement.amount,
            to=settlement.to or "",
        )
        self.books.said[INSTRUCT, id_] += 1
        self._look_again(m, id_, settlement)

    def _look_again(self, m: Heard, id_: str, settlement: Settlement) -> None:
        self.books.timers[SETTLEMENT_TIMER, id_] = m.now + settlement.look_again_in()

    def _passes(self, m: Heard, id_: str) -> None:
        settlement = self.settlements[id_]
        if settlement.state == "sent":
            settlement.asks += 1
            self._tell(m, id_, settlement)
        elif settlement.state == "refused" and self.books.frozen(self.institution):
            self.books.timers[SETTLEMENT_TIMER, id_] = m.now + DAY
            self.books.counts["settlements not tried anew while frozen"] += 1
        elif settlement.state == "refused":
            settlement.attempt, settlement.asks = settlement.attempt + 1, 0
            if settlement.bank in self.accounts:
                settlement.to = self.accounts[settlement.bank][0]
            self._tell(m, id_, settlement)

    # --- what the bank says -----------------------------------------------------------------------------------------

    def told(self, m: Heard, id_: str, attempt: int) -> None:
        """Of a settlement. Its lessons follow later."""
        settlement, outcome, reference = self.settlements[id_], m.data["outcome"], m.data["reference"]
        if attempt != settlement.attempt or reference in settlement.returned:
            return
        if outcome == "paid" and settlement.state == "sent":
            settlement.state, settlement.reference = "paid", reference
            self.books.timers.pop((SETTLEMENT_TIMER, id_), None)
            said = "escrow.settlement_paid.v1"
        elif outcome == "refused" and settlement.state == "sent":
            settlement.state = "refused"
            said = "escrow.settlement_delayed.v1"
            self.books.counts["settlements refused"] += 1
        elif outcome == "returned" and settlement.state == "paid":
            settlement.returned.append(settlement.reference)
            settlement.state, settlement.reference, settlement.turn = "refused", "", settlement.turn + 1
            said = "escrow.settlement_delayed.v1"
        else:
            return
        if settlement.state == "refused":
            self._look_again(m, id_, settlement)
        self.books.said[said, self.institution] += 1
        self.books.said["escrow.settlement.book.v1", id_] += outcome != "refused"

    def _follow(self, m: Heard, id_: str) -> None:
        settlement = self.settlements[id_]
        if m.data["step"] != settlement.step:
            return
        references = [*settlement.returned, settlement.reference]
        for order, number in settlement.lessons:
            payment = self.books.accounts[order].payments["payout", number]
            while (step := 2 * payment.turn + (payment.state == "paid")) < settlement.step:
                if step % 2:
                    payment.state, payment.turn = "gathered", payment.turn + 1
                    self.books.said["escrow.payout_returned.v1", order] += 1
                else:
                    payment.state = "paid"
                    self.books.said["escrow.settled.v1", order] += 1
                payment.reference = references[payment.turn] if payment.state == "paid" else ""
        settlement.booked = settlement.step
