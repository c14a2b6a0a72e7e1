"""What must become of purchases, lessons, money and complaints: the rules of orders, escrow and complaints written down
a second time, message by message, without a line of theirs.

Each model hears what its service has committed, in the same order, and says how a request must be answered: the state
that stands in the answer, or the code of a refusal behind `!`. Then its fields are what must stand in the tables.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from tests.simulation import Heard

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
SILENCE_WORKING_DAYS: Final = 7

Timers = dict[tuple[str, str], datetime]
"""(type, subject) → when it is due."""


def end_of_working_day(now: datetime, days: int) -> datetime:
    """Midnight after the n-th working day from tomorrow on; right as long as there are no holidays."""
    day = now.astimezone(SHANGHAI).replace(hour=0, minute=0, second=0, microsecond=0)
    while days:
        day += DAY
        days -= day.weekday() < 5
    return (day + DAY).astimezone(UTC)


# --- orders -------------------------------------------------------------------------------------------------------


@dataclass
class Lesson:
    """One lesson of an enrolled order."""

    ends_at: datetime
    state: str = "planned"
    by: str = ""
    answer_by: datetime | None = None
    objection: str = ""


@dataclass
class Purchase:
    """One purchase. `drawn`: there is a contract; `plan`: when its lessons end."""

    guardian: str
    course: str
    state: str = ""
    act_by: datetime | None = None
    reason: str = ""
    drawn: bool = False
    signed: bool = False
    method: str = ""
    plan: list[datetime] = field(default_factory=list)
    lessons: dict[int, Lesson] = field(default_factory=dict)


WAITS: Final = {"placed": 2 * MINUTE, "held": MINUTE, "cancelling": 5 * MINUTE, "refunding": HOUR}
ASKS: Final = {
    "placed": ("catalog.seat.reserve.v1",),
    "paying": ("catalog.seat.extend.v1", "escrow.payment.collect.v1"),
    "held": ("catalog.seat.take.v1",),
}
"""What a state asks of others: their refusal ends it. Later states ask again instead."""
PURCHASE_TIMER: Final = "orders.purchase.deadline.v1"
LESSON_TIMER: Final = "orders.lesson.deadline.v1"


class Orders:
    """Purchases and their lessons."""

    def __init__(self, institution: str, contracts: dict[str, str]) -> None:
        self.institution = institution
        self.contracts = contracts
        self.purchases: dict[str, Purchase] = {}
        self.timers: Timers = {}

    def hear(self, m: Heard) -> str:
        """One message."""
        order = str(m.data.get("order_id", m.partitionkey))
        purchase = self.purchases.get(order)
        if m.type == "orders.purchase.place.v1":
            return self._place(m, order, purchase)
        if purchase is None:
            return "!order_unknown"
        if "lesson_no" in m.data:
            return self._lesson(m, order, purchase)
        return self._purchase(m, order, purchase)

    def _place(self, m: Heard, order: str, known: Purchase | None) -> str:
        if m.actor != m.data["account_id"]:
            return "!actor_forbidden"
        if known is None:
            self.purchases[order] = known = Purchase(m.actor, m.data["course_id"])
            self._enter(order, known, "placed", m)
        elif (known.guardian, known.course) != (m.data["account_id"], m.data["course_id"]):
            return "!order_exists"
        return known.state

    def _purchase(self, m: Heard, order: str, p: Purchase) -> str:
        match m.type, p.state:
            case "orders.purchase.show.v1", _:
                may_see = m.actor == p.guardian or (p.drawn and m.actor == self.institution)
                return p.state if may_see else "!order_unknown"
            case (("orders.contract.sign.v1" | "orders.purchase.pay.v1" | "orders.purchase.cancel.v1"), _):
                return self._asked(m, order, p) if m.actor == p.guardian else "!actor_forbidden"
            case "catalog.seat.reserved.v1", "placed":
                p.drawn = True
                p.plan = [datetime.fromisoformat(one["ends_at"]) for one in m.data["lessons"]]
                self._enter(order, p, "to_sign", m, datetime.fromisoformat(m.data["expires_at"]))
            case "escrow.held.v1", "paying":
                self._enter(order, p, "held", m)
            case "catalog.seat.taken.v1", "held":
                self._enter(order, p, "enrolled", m)
                p.lessons = {number: Lesson(ends_at) for number, ends_at in enumerate(p.plan, 1)}
            case "escrow.payment_failed.v1", ("paying" | "cancelling"):
                self._end(order, p, m.data["reason"], m)
            case "escrow.refunded.v1", ("cancelling" | "refunding"):
                self._end(order, p, "refunded", m)
            case "problem.v1", _ if m.data["request_type"] in ASKS.get(p.state, ()):
                self._give_up(order, p, m.data["code"], m)
            case "orders.purchase.deadline.v1", state:
                if m.data["state"] == state and p.act_by is not None and p.act_by <= m.now:
                    if state in ("held", "cancelling", "refunding"):
                        self._enter(order, p, state, m)
                    else:
                        self._give_up(order, p, "expired", m)
        return ""

    def _asked(self, m: Heard, order: str, p: Purchase) -> str:
        done = p.state in ("paying", "held", "enrolled")
        if m.type == "orders.contract.sign.v1":
            if p.drawn and m.data["contract_sha256"] != self.contracts.get(order):
                return "!contract_changed"
            if p.signed and (done or p.state == "to_pay"):
                return p.state
            if p.state != "to_sign":
                return "!order_state"
            p.signed = True
            self._enter(order, p, "to_pay", m, p.act_by)
        elif m.type == "orders.purchase.pay.v1":
            if done and p.method == m.data["method"]:
                return p.state
            if p.state != "to_pay":
                return "!order_state"
            p.method = m.data["method"]
            window = DAY if p.method == "bank_counter" else 15 * MINUTE
            self._enter(order, p, "paying", m, m.now + window + 2 * MINUTE)
        elif p.state not in ("cancelling", "ended"):
            if p.state in ("held", "enrolled", "refunding"):
                return "!order_state"
            self._give_up(order, p, "cancelled", m)
        return p.state

    def _enter(self, order: str, p: Purchase, state: str, m: Heard, act_by: datetime | None = None) -> None:
        p.state = state
        p.act_by = act_by or (m.now + WAITS[state] if state in WAITS else None)
        self.timers.pop((PURCHASE_TIMER, order), None)
        if p.act_by is not None:
            self.timers[PURCHASE_TIMER, order] = p.act_by

    def _give_up(self, order: str, p: Purchase, reason: str, m: Heard) -> None:
        if p.state in ("placed", "to_sign", "to_pay"):
            self._end(order, p, reason, m)
        else:
            p.reason = reason
            self._enter(order, p, {"paying": "cancelling", "held": "refunding"}[p.state], m)

    def _end(self, order: str, p: Purchase, reason: str, m: Heard) -> None:
        p.reason = p.reason or reason
        self._enter(order, p, "ended", m)

    def _lesson(self, m: Heard, order: str, p: Purchase) -> str:
        number = m.data["lesson_no"]
        lesson = p.lessons.get(number)
        if lesson is None:
            return "!lesson_unknown"
        timer = (LESSON_TIMER, f"{order}:{number}")
        asks = {
            "orders.lesson.apply.v1": self.institution,
            "orders.lesson.confirm.v1": p.guardian,
            "orders.lesson.object.v1": p.guardian,
        }
        if m.actor != asks.get(m.type, m.actor):
            return "!actor_forbidden"
        match m.type, lesson.state:
            case "orders.lesson.apply.v1", "planned":
                if m.now < lesson.ends_at:
                    return "!lesson_not_over"
                lesson.state = "applied"
                lesson.answer_by = self.timers[timer] = end_of_working_day(m.now, SILENCE_WORKING_DAYS)
            case "orders.lesson.confirm.v1", ("applied" | "objected"):
                lesson.state, lesson.by = "confirmed", "guardian"
                self.timers.pop(timer, None)
            case "orders.lesson.object.v1", "applied":
                lesson.state, lesson.objection = "objected", m.data["reason"]
                self.timers.pop(timer, None)
            case "orders.lesson.deadline.v1", "applied" if lesson.answer_by and lesson.answer_by <= m.now:
                lesson.state, lesson.by = "confirmed", "silence"
            case "escrow.settled.v1", "confirmed":
                lesson.state = "paid_out"
            case "escrow.payout_returned.v1", "paid_out":
                lesson.state = "confirmed"
            case "orders.lesson.apply.v1", "applied":
                pass
            case "orders.lesson.confirm.v1", ("confirmed" | "paid_out"):
                pass
            case "orders.lesson.object.v1", "objected" if lesson.objection == m.data["reason"]:
                pass
            case (("orders.lesson.apply.v1" | "orders.lesson.confirm.v1" | "orders.lesson.object.v1"), _):
                return "!lesson_state"
        return lesson.state


# --- escrow -------------------------------------------------------------------------------------------------------


@dataclass
class Payment:
    """What a bank was told: `turn` counts what came back, `attempt` what was refused or came back and tried anew."""

    amount: int
    state: str = "sent"
    attempt: int = 0
    turn: int = 0
    asks: int = 0
    reference: str = ""
    returned: set[str] = field(default_factory=set)

    def look_again_in(self) -> timedelta:
        """When the bank is asked again, or, after a refusal, told anew."""
        if self.state == "refused":
            return min(HOUR / 2 * (1 << min(self.attempt, 10)), DAY)
        return min(5 * MINUTE * (1 << min(self.asks, 10)), 6 * HOUR)


@dataclass
class Account:
    """The money of one order; payments by (kind, lesson)."""

    price: int
    lessons: int
    pay_by: datetime
    state: str = "collecting"
    complaints: dict[str, bool] = field(default_factory=dict)
    """Complaint → still open."""
    payments: dict[tuple[str, int], Payment] = field(default_factory=dict)

    @property
    def suspended(self) -> int:
        """Complaints that hold its releases."""
        return sum(self.complaints.values())

    def balances(self) -> tuple[int, ...]:
        """Paid, held, releasing, released, refunding, refunded: nothing but what its payments say."""

        def total(kind: str, *states: str) -> int:
            return sum(p.amount for (k, _), p in self.payments.items() if k == kind and p.state in states)

        paid = total("collect", "paid")
        gone = [total(kind, *states) for kind in ("payout", "refund") for states in (("sent", "refused"), ("paid",))]
        return paid, paid - sum(gone), *gone


PAYMENT_TIMER: Final = "escrow.payment.deadline.v1"
INSTRUCTION_TIMER: Final = "escrow.instruction.deadline.v1"
KINDS: Final = {"C": "collect", "P": "payout", "R": "refund"}


class Escrow:
    """Accounts and what banks were told."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.timers: Timers = {}

    def hear(self, m: Heard) -> str:
        """One message."""
        order = m.data["order_id"]
        account = self.accounts.get(order)
        if m.type == "escrow.payment.collect.v1":
            if account is None:
                pay_by = datetime.fromisoformat(m.data["pay_by"])
                self.accounts[order] = account = Account(m.data["amount_fen"], m.data["lessons"], pay_by)
                account.payments["collect", 0] = Payment(account.price)
                self.timers[PAYMENT_TIMER, order] = pay_by
        elif account is not None:
            self._about(m, order, account)
        return ""

    def _about(self, m: Heard, order: str, account: Account) -> None:
        match m.type:
            case "escrow.lesson.release.v1":
                self._release(m, order, account)
            case "escrow.releases.suspend.v1":
                account.complaints.setdefault(m.data["complaint_id"], True)
            case "escrow.releases.resume.v1":
                account.complaints[m.data["complaint_id"]] = False
                if not account.suspended and account.state == "held":
                    for (kind, number), payment in account.payments.items():
                        if payment.state == "waiting":
                            self._tell(m, order, kind, number, payment)
            case "escrow.payment.cancel.v1" | "escrow.order.refund.v1":
                self._send_back(m, order, account)
            case "escrow.payment.deadline.v1" if account.state == "collecting":
                account.state = "failed"
            case "bank.result.v1":
                self._result(m, order, account)
            case "escrow.instruction.deadline.v1":
                kind, number, _ = purpose_of(m.data["number"])
                payment = account.payments[kind, number]
                if payment.state == "sent":
                    payment.asks += 1
                    self._tell(m, order, kind, number, payment)
                elif payment.state == "refused":
                    payment.attempt, payment.asks = payment.attempt + 1, 0
                    self._tell(m, order, kind, number, payment)

    def _release(self, m: Heard, order: str, account: Account) -> None:
        number = m.data["lesson_no"]
        if ("payout", number) in account.payments or account.state != "held":
            return
        each, rest = divmod(account.price, account.lessons)
        payment = Payment(each + rest if number == account.lessons else each, "waiting")
        account.payments["payout", number] = payment
        if not account.suspended:
            self._tell(m, order, "payout", number, payment)

    def _send_back(self, m: Heard, order: str, account: Account) -> None:
        held = account.balances()[1]
        if account.state == "collecting":
            account.state = "failed"
            self.timers.pop((PAYMENT_TIMER, order), None)
        elif account.state == "held" and held:
            account.state = "refunding"
            for payment in account.payments.values():
                if payment.state == "waiting":
                    payment.state = "dropped"
            account.payments["refund", 0] = payment = Payment(held)
            self._tell(m, order, "refund", 0, payment)

    def _tell(self, m: Heard, order: str, kind: str, number: int, payment: Payment) -> None:
        payment.state = "sent"
        self._look_again(m, order, kind, number, payment)

    def _look_again(self, m: Heard, order: str, kind: str, number: int, payment: Payment) -> None:
        self.timers[INSTRUCTION_TIMER, f"{order}:{kind}:{number}"] = m.now + payment.look_again_in()

    def _result(self, m: Heard, order: str, account: Account) -> None:
        kind, number, attempt = purpose_of(m.data["number"])
        payment, outcome, reference = account.payments[kind, number], m.data["outcome"], m.data["reference"]
        if attempt != payment.attempt or reference in payment.returned:
            return
        if kind == "collect":
            if account.state == "collecting" and outcome in ("paid", "refused"):
                self.timers.pop((PAYMENT_TIMER, order), None)
                payment.state, payment.reference = outcome, reference if outcome == "paid" else ""
                account.state = "held" if outcome == "paid" else "failed"
        elif outcome == "paid" and payment.state == "sent":
            payment.state, payment.reference = "paid", reference
            self.timers.pop((INSTRUCTION_TIMER, f"{order}:{kind}:{number}"), None)
            if kind == "refund":
                account.state = "refunded"
        elif outcome == "refused" and payment.state == "sent":
            payment.state = "refused"
            self._look_again(m, order, kind, number, payment)
        elif outcome == "returned" and payment.state == "paid":
            payment.returned.add(payment.reference)
            payment.state, payment.reference, payment.turn = "refused", "", payment.turn + 1
            self._look_again(m, order, kind, number, payment)
            if kind == "refund":
                account.state = "refunding"


def purpose_of(number: str) -> tuple[str, int, int]:
    """Kind, lesson and attempt that stand in the number of an instruction."""
    return KINDS[number[0]], int(number[26:29], 36), int(number[29], 36)


# --- complaints ---------------------------------------------------------------------------------------------------

NEXT: Final = {
    "submitted": ("accepted", "rejected"),
    "accepted": ("in_progress",),
    "in_progress": ("mediated", "unfounded"),
}


class Complaints:
    """Filings on orders. `owners`: whose are the orders it has heard of; a filing is state, last reason, order."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.filings: dict[str, tuple[str, str, str]] = {}

    def hear(self, m: Heard) -> str:
        """One message."""
        if m.type == "orders.purchase.enrolled.v1":
            self.owners[m.data["order_id"]] = m.data["account_id"]
            return ""
        filing_id = m.data["filing_id"]
        known = self.filings.get(filing_id)
        if m.type == "complaints.file.v1":
            order = m.data["order_id"]
            if known is not None:
                return known[0]
            if order not in self.owners:
                return "!order_unknown"
            if self.owners[order] != m.actor:
                return "!actor_forbidden"
            self.filings[filing_id] = "submitted", "", order
        elif m.type == "complaints.move.v1":
            state, reason = m.data["state"], m.data["reason"]
            if known is None:
                return "!complaint_unknown"
            if known[:2] != (state, reason):
                if state not in NEXT.get(known[0], ()):
                    return "!complaint_state"
                self.filings[filing_id] = state, reason, known[2]
        return self.filings[filing_id][0] if filing_id in self.filings else ""


def same(expected: str, envelope: dict[str, Any]) -> bool:
    """Whether an answer says what it must."""
    data = envelope["data"]
    said = "!" + data["code"] if envelope["type"] == "problem.v1" else str(data["state"])
    return said == expected
