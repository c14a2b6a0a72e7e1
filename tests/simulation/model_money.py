"""The model of escrow: what must become of the money of each order; see `model.py`."""

from datetime import datetime
from typing import Final

from tests.simulation.model import DAY, MINUTE
from tests.simulation.model_banks import Banks
from tests.simulation.model_breaks import Breaks
from tests.simulation.model_payments import (
    INSTRUCT,
    INSTRUCTION_TIMER,
    PAYMENT_TIMER,
    Account,
    Books,
    Payment,
)
from tests.simulation.model_settlements import Settlements
from tests.simulation.model_suspense import Suspense, reason_of
from tests.simulation.simulation import Heard

PAID: Final = ("held", "refunding", "refunded")
"""States of an account in which a lesson can be released or divided; a refund may have left some lessons out."""
SEND_BACK: Final = ("escrow.payment.cancel.v1", "escrow.order.refund.v1")
FAILED: Final = "escrow.payment_failed.v1"
REFUNDED: Final = "escrow.refunded.v1"
DELAYED: Final = "escrow.refund_delayed.v1"
KINDS: Final = {"C": "collect", "P": "payout", "R": "refund", "S": "return", "G": "gathered"}


class Escrow(Books):
    """Accounts and what banks were told."""

    def __init__(self, institution: str, authority: str, banks: Banks) -> None:
        super().__init__(banks)
        self.suspense = Suspense(self)
        self.settlements = Settlements(self, institution, authority)
        self.breaks = Breaks(self)

    def hear(self, m: Heard) -> str:
        """One message."""
        if m.type in ("catalog.institution.frozen.v1", "catalog.institution.thawed.v1", "escrow.payouts.thaw.v1"):
            self._freeze(m, m.data["institution_id"], m.data["change_no"])
            return ""
        if m.type.startswith("escrow.suspense."):
            return self.suspense.hear(m)
        if m.type.startswith("escrow.break."):
            return self.breaks.hear(m)
        if m.type.startswith(("escrow.settlement.", "escrow.payout_account.")):
            return self.settlements.hear(m)
        if m.type == "bank.result.v1":
            self._told(m)
            return ""
        order = m.data["order_id"]
        account = self.accounts.get(order)
        if m.type == "escrow.payment.collect.v1":
            if account is None:
                pay_by = datetime.fromisoformat(m.data["pay_by"])
                at = self.banks.places[order]
                place = at.bank, at.supervised, at.payout, m.data["institution_id"]
                self.accounts[order] = account = Account(m.data["amount_fen"], m.data["lessons"], pay_by, *place)
                account.payments["collect", 0] = payment = Payment(account.price)
                self.timers[PAYMENT_TIMER, order] = pay_by
                self._tell(m, order, "collect", 0, payment)
        elif account is not None:
            self._about(m, order, account)
        elif m.type in SEND_BACK:
            self.said[FAILED, order] += 1
        return ""

    def _freeze(self, m: Heard, institution: str, change: int) -> None:
        state, known = self.freezes.get(institution, ("", 0))
        if m.type == "escrow.payouts.thaw.v1":
            if (state, known) == ("thawing", change):
                self.freezes[institution] = "thawed", change
                for order, account in self.accounts.items():
                    self._let_go(m, order, account)
                self.settlements.close_what_is_open(m)
        elif known < change:
            thaws = m.type == "catalog.institution.thawed.v1"
            self.freezes[institution] = "thawing" if thaws else "frozen", change
            self.said["escrow.payouts.thaw.v1", institution] += thaws

    def _let_go(self, m: Heard, order: str, account: Account) -> None:
        """What waited goes out, if nothing else holds it."""
        for (kind, number), payment in account.payments.items():
            if payment.state == "waiting" and not account.suspended and not self.frozen(account.institution):
                self.counts["payouts that waited for a thaw"] += m.type == "escrow.payouts.thaw.v1"
                self._begin(m, order, account, kind, number)

    def _begin(self, m: Heard, order: str, account: Account, kind: str, number: int) -> None:
        """A payout goes out, or is gathered with others; a refund always goes out."""
        payment, ours = account.payments[kind, number], self.settlements.institution
        if kind == "payout":
            self.said["escrow.released.v1", order] += 1
            if account.institution == ours and self.settlements.mode != "at_once":
                self.settlements.gather(m, order, number, account, payment)
                return
            payment.to = self.settlements.redirected(account)
        self._tell(m, order, kind, number, payment)

    def _about(self, m: Heard, order: str, account: Account) -> None:
        match m.type:
            case "escrow.lesson.release.v1":
                self._release(m, order, account)
            case "escrow.lesson.divide.v1":
                self._divide(m, order, account)
            case "escrow.releases.suspend.v1":
                account.complaints.setdefault(m.data["complaint_id"], True)
            case "escrow.releases.resume.v1":
                account.complaints[m.data["complaint_id"]] = False
                self._let_go(m, order, account)
            case type_ if type_ in SEND_BACK:
                self._send_back(m, order, account)
            case "escrow.payment.deadline.v1" if account.state == "collecting":
                account.state, account.reason = "failed", "expired"
                self.said[FAILED, order] += 1
            case "escrow.instruction.deadline.v1":
                kind, number, _ = purpose_of(m.data["number"])
                payment = account.payments[kind, number]
                if kind == "collect" and account.state != "collecting" and m.now <= account.pay_by:
                    self.timers[INSTRUCTION_TIMER, f"{order}:collect:0"] = account.pay_by + 5 * MINUTE
                elif payment.state == "sent":
                    payment.asks += 1
                    self._tell(m, order, kind, number, payment)
                elif payment.state == "refused" and kind == "payout" and self.frozen(account.institution):
                    self.timers[INSTRUCTION_TIMER, f"{order}:payout:{number}"] = m.now + DAY
                    self.counts["payouts not tried anew while frozen"] += 1
                elif payment.state == "refused" and kind != "collect":
                    payment.to = self.settlements.redirected(account) if kind == "payout" else None
                    payment.attempt, payment.asks = payment.attempt + 1, 0
                    self._tell(m, order, kind, number, payment)

    def _release(self, m: Heard, order: str, account: Account) -> None:
        number = m.data["lesson_no"]
        known = ("payout", number) in account.payments or number in account.given_back
        if not known and account.state in PAID:
            self._pay_out(m, order, account, number, account.fee(number))

    def _pay_out(self, m: Heard, order: str, account: Account, number: int, amount: int) -> None:
        payment = Payment(amount, "waiting")
        account.payments["payout", number] = payment
        if not account.suspended and not self.frozen(account.institution):
            self._begin(m, order, account, "payout", number)

    def _divide(self, m: Heard, order: str, account: Account) -> None:
        number, part = m.data["lesson_no"], m.data["release_fen"]
        decided = account.payments.keys() & {("payout", number), ("refund", number)} or number in account.given_back
        if decided or account.state not in PAID:
            return
        if not part:
            account.given_back.add(number)
        payments = {"payout": Payment(part, "waiting"), "refund": Payment(account.fee(number) - part, "waiting")}
        for kind, payment in payments.items():
            if payment.amount:
                account.payments[kind, number] = payment
                if kind == "refund" or not (account.suspended or self.frozen(account.institution)):
                    self._begin(m, order, account, kind, number)

    def _send_back(self, m: Heard, order: str, account: Account) -> None:
        refund = account.payments.get(("refund", 0))
        decided = {number for _, number in account.payments} | account.given_back
        left = [number for number in range(1, account.lessons + 1) if number not in decided]
        asked = set(m.data.get("lessons", ()))
        if refund is not None and not asked <= account.given_back:
            return
        if refund is None and asked:
            if asked & decided:
                return
            left = sorted(asked)
        if account.state == "collecting":
            account.state, account.reason = "failed", m.data["reason"]
            self.timers.pop((PAYMENT_TIMER, order), None)
            self.said[FAILED, order] += 1
        elif account.state == "failed":  # its end is told once more
            self.said[FAILED, order] += 1
        elif refund is None and left:
            account.state = "refunding"
            account.given_back.update(left)
            if kept := m.data.get("deduction_fen", 0):
                self._pay_out(m, order, account, 0, kept)
            account.payments["refund", 0] = payment = Payment(sum(map(account.fee, left)) - kept)
            self._tell(m, order, "refund", 0, payment)
        elif refund is None or refund.state == "paid":
            self.said[REFUNDED, order] += 1

    def _tell(self, m: Heard, order: str, kind: str, number: int, payment: Payment) -> None:
        payment.state = "sent"
        account = self.accounts[order]
        self.banks.tell(
            (kind, order, number, payment.attempt),
            bank=account.bank,
            supervised=account.supervised,
            amount=payment.amount,
            to=(payment.to or account.payout_account) if kind == "payout" else "",
            reference=account.reference if kind == "refund" else "",
        )
        self.said[INSTRUCT, order] += 1
        self._look_again(m, order, kind, number, payment)

    def _look_again(self, m: Heard, order: str, kind: str, number: int, payment: Payment) -> None:
        self.timers[INSTRUCTION_TIMER, f"{order}:{kind}:{number}"] = m.now + payment.look_again_in()

    def _told(self, m: Heard) -> None:
        """What a bank says of a number."""
        number = m.data["number"]
        if number[0] not in KINDS:
            self.suspense.book(m, "unknown_number", m.data["order_id"])
            return
        kind, lesson, attempt = purpose_of(number)
        if kind == "return":
            self.suspense.told(m, m.data["order_id"], attempt)
        elif kind == "gathered":
            self.settlements.told(m, m.data["order_id"], attempt)
        elif kind == "collect":
            self._came(m, m.data["order_id"], attempt)
        else:
            self._went(m, m.data["order_id"], (kind, lesson), attempt)

    def _came(self, m: Heard, order: str, attempt: int) -> None:
        """The fee has come, will not come, or something else has come in its place."""
        account, outcome = self.accounts.get(order), m.data["outcome"]
        if outcome not in ("paid", "refused"):
            return
        reason = reason_of(account, m) if outcome == "paid" else ""
        if reason:
            self.suspense.book(m, reason, order)
        if account is None or m.data["bank"] != account.bank:
            return
        collect = account.payments["collect", 0]
        if collect.state == "sent" and attempt == collect.attempt:
            self.timers.pop((INSTRUCTION_TIMER, f"{order}:collect:0"), None)
            collect.state = "dropped"  # unless it is what was waited for
        if account.state == "collecting" and not reason:
            self.timers.pop((PAYMENT_TIMER, order), None)
            collect.state = outcome
            if outcome == "paid":
                account.state = "held"
                account.reference = collect.reference = m.data["reference"]
            else:
                account.state, account.reason = "failed", "refused"
            self.said["escrow.held.v1" if outcome == "paid" else FAILED, order] += 1

    def _went(self, m: Heard, order: str, key: tuple[str, int], attempt: int) -> None:
        """A payout or a refund was made, will not be made, or came back."""
        account, (kind, number) = self.accounts[order], key
        payment, outcome, reference = account.payments[key], m.data["outcome"], m.data["reference"]
        if attempt != payment.attempt or reference in payment.returned:
            return
        if outcome == "paid" and payment.state == "sent":
            payment.state, payment.reference = "paid", reference
            self.counts["refunds paid while frozen"] += kind == "refund" and self.frozen(account.institution)
            self.timers.pop((INSTRUCTION_TIMER, f"{order}:{kind}:{number}"), None)
            self.said[REFUNDED if kind == "refund" else "escrow.settled.v1", order] += 1
            if (kind, number) == ("refund", 0):
                account.state = "refunded"
        elif outcome == "refused" and payment.state == "sent":
            payment.state = "refused"
            self._look_again(m, order, kind, number, payment)
            if kind == "refund":
                self.said[DELAYED, order] += 1
        elif outcome == "returned" and payment.state == "paid":
            payment.returned.append(payment.reference)
            payment.state, payment.reference, payment.turn = "refused", "", payment.turn + 1
            self._look_again(m, order, kind, number, payment)
            if kind == "refund":
                account.state = account.state if number else "refunding"
                self.said[DELAYED, order] += 1
            else:
                self.said["escrow.payout_returned.v1", order] += 1


def purpose_of(number: str) -> tuple[str, int, int]:
    """Kind, lesson and attempt that stand in the number of an instruction."""
    return KINDS[number[0]], int(number[26:29], 36), int(number[29], 36)
