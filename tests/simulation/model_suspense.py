"""The model of money in suspense: what belongs nowhere, and what operators and banks make of it; see `model.py`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shared.ids import derived_id
from tests.simulation.model import end_of_working_day
from tests.simulation.model_payments import INSTRUCT, INSTRUCTION_TIMER, PAYMENT_TIMER, Account, Books, Payment
from tests.simulation.simulation import Heard

OPERATOR: Final = "li"
DECIDE_WORKING_DAYS: Final = 3
REMIND_WORKING_DAYS: Final = 1
SUSPENSE_TIMER: Final = "escrow.suspense.deadline.v1"
RETURN_TIMER: Final = "escrow.suspense.return_deadline.v1"


@dataclass
class Receipt:
    """One movement at a bank that belongs nowhere. `back`: what the bank was told when it was to go back."""

    bank: str
    account: str
    reference: str
    order: str | None
    amount: int
    reason: str
    due_at: datetime
    state: str = "open"
    matched: str | None = None
    decided: tuple[str, str] = ("", "")
    """Who has decided last, and why."""
    back: Payment | None = None

    def row(self) -> tuple[object, ...]:
        """As it stands in its table."""
        came = self.bank, self.account, self.reference, self.order, self.amount, self.reason
        return *came, self.due_at, self.state, self.matched, *self.decided


class Suspense:
    """Receipts by id, which is made of the bank and its own number of the movement."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.receipts: dict[str, Receipt] = {}

    # --- it comes -----------------------------------------------------------------------------------------------

    def book(self, m: Heard, reason: str, order: str | None) -> None:
        """Money came that belongs nowhere; each movement is booked once."""
        bank, reference = m.data["bank"], m.data["reference"]
        receipt_id = str(derived_id("receipt", bank, reference))
        if receipt_id not in self.receipts:
            place = bank, m.data["account"], reference
            self.receipts[receipt_id] = receipt = Receipt(*place, order, m.data["amount_fen"], reason, m.now)
            self._wait(m, receipt_id, receipt)
            self.books.said["escrow.suspense_booked.v1", receipt_id] += 1
            self.books.counts[f"suspense: {reason}"] += 1

    def _wait(self, m: Heard, receipt_id: str, receipt: Receipt) -> None:
        receipt.due_at = end_of_working_day(m.now, DECIDE_WORKING_DAYS)
        self.books.timers[SUSPENSE_TIMER, receipt_id] = receipt.due_at

    # --- people and timers --------------------------------------------------------------------------------------

    def hear(self, m: Heard) -> str:
        """An operator's decision, or a deadline."""
        receipt_id = m.data["receipt_id"]
        receipt = self.receipts.get(receipt_id)
        if m.type in (SUSPENSE_TIMER, RETURN_TIMER):
            if receipt is not None:
                self._passes(m, receipt_id, receipt)
            return ""
        if m.actor != OPERATOR:
            return "!actor_forbidden"
        if receipt is None:
            return "!suspense_unknown"
        if m.type == "escrow.suspense.match.v1":
            return self._match(m, receipt_id, receipt)
        return self._return(m, receipt_id, receipt)

    def _match(self, m: Heard, receipt_id: str, receipt: Receipt) -> str:
        order = m.data["order_id"]
        if (receipt.state, receipt.matched) == ("matched", order):
            return receipt.state
        account = self.books.accounts.get(order)
        if account is None:
            return "!order_unknown"
        if receipt.state != "open":
            return "!suspense_state"
        if (receipt.bank, receipt.account) != (account.bank, account.supervised):
            return "!suspense_elsewhere"
        if account.state not in ("collecting", "failed"):
            return "!order_state"
        if account.price != receipt.amount:
            return "!amount_invalid"
        receipt.state, receipt.matched = "matched", order
        receipt.decided = m.actor, m.data["reason"]
        self.books.counts[f"matched with an order that was {account.state}"] += 1
        account.state, account.reference = "held", receipt.reference
        collect = account.payments["collect", 0]
        collect.state, collect.reference = "paid", receipt.reference
        collect.attempt += 1  # what the bank was told is not waited for any more
        for timer in (
            (SUSPENSE_TIMER, receipt_id),
            (PAYMENT_TIMER, order),
            (INSTRUCTION_TIMER, f"{order}:collect:0"),
        ):
            self.books.timers.pop(timer, None)
        self.books.said.update([("escrow.held.v1", order), ("escrow.suspense_matched.v1", receipt_id)])
        return receipt.state

    def _return(self, m: Heard, receipt_id: str, receipt: Receipt) -> str:
        if receipt.state == "returning":
            return receipt.state
        if receipt.state != "open":
            return "!suspense_state"
        receipt.state, receipt.decided = "returning", (m.actor, m.data["reason"])
        if receipt.back is None:
            receipt.back = Payment(receipt.amount)
        else:  # it came back: under a number of its own each time
            receipt.back.attempt, receipt.back.asks = receipt.back.attempt + 1, 0
        self._tell(m, receipt_id, receipt.back)
        return receipt.state

    def _tell(self, m: Heard, receipt_id: str, back: Payment) -> None:
        back.state = "sent"
        receipt = self.receipts[receipt_id]
        self.books.banks.tell(
            ("return", receipt_id, 0, back.attempt),
            bank=receipt.bank,
            supervised=receipt.account,
            amount=back.amount,
            reference=receipt.reference,
        )
        self.books.said[INSTRUCT, receipt_id] += 1
        self.books.timers[RETURN_TIMER, receipt_id] = m.now + back.look_again_in()

    def _passes(self, m: Heard, receipt_id: str, receipt: Receipt) -> None:
        back = receipt.back
        if m.type == SUSPENSE_TIMER:
            if receipt.state in ("open", "returning") and receipt.due_at <= m.now:
                self.books.said["escrow.suspense_overdue.v1", receipt_id] += 1
                self.books.timers[m.type, receipt_id] = end_of_working_day(m.now, REMIND_WORKING_DAYS)
                self.books.counts["suspense: overdue"] += 1
        elif back is not None and back.state == "sent":
            back.asks += 1
            self._tell(m, receipt_id, back)
        elif back is not None and back.state == "refused":
            back.attempt, back.asks = back.attempt + 1, 0
            self._tell(m, receipt_id, back)

    # --- what the bank says of what was to go back ------------------------------------------------------------------

    def told(self, m: Heard, receipt_id: str, attempt: int) -> None:
        """Of a number that was given for it."""
        receipt = self.receipts[receipt_id]
        back, outcome, reference = receipt.back, m.data["outcome"], m.data["reference"]
        assert back is not None
        if attempt != back.attempt or reference in back.returned:
            return
        if outcome == "paid" and back.state == "sent":
            receipt.state, back.state, back.reference = "returned", "paid", reference
            for timer in (SUSPENSE_TIMER, RETURN_TIMER):
                self.books.timers.pop((timer, receipt_id), None)
            self.books.said["escrow.suspense_returned.v1", receipt_id] += 1
        elif outcome == "refused" and back.state == "sent":
            back.state = "refused"
            self.books.timers[RETURN_TIMER, receipt_id] = m.now + back.look_again_in()
            self.books.counts["returns refused"] += 1
        elif outcome == "returned" and back.state == "paid":
            back.returned.append(back.reference)
            back.state, back.reference, back.turn = "dropped", "", back.turn + 1
            receipt.state = "open"
            self._wait(m, receipt_id, receipt)
            self.books.said["escrow.suspense_reopened.v1", receipt_id] += 1


def reason_of(account: Account | None, m: Heard) -> str:
    """Why money that came under the number of an order's collection is not the order's fee; nothing if it is, or is
    booked already."""
    if account is None:
        return "unknown_number"
    if m.data["bank"] != account.bank or m.data["account"] != account.supervised:
        return "foreign"
    if account.reference:
        return "" if m.data["reference"] == account.reference else "double"
    if account.state == "failed":
        return "late" if account.reason == "expired" else "dead"
    more = m.data["amount_fen"] - account.price
    return "over" if more > 0 else "short" if more else ""
