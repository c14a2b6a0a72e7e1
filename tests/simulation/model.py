"""What must become of purchases, lessons, money and complaints: the rules of orders, escrow and complaints written down
a second time, message by message, without a line of theirs.

Each model hears what its service has committed, in the same order, and says how a request must be answered: the state
that stands in the answer, or the code of a refusal behind `!`. Then its fields are what must stand in the tables.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from tests.simulation.simulation import Heard

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
SILENCE_WORKING_DAYS: Final = 7
ANSWER_WORKING_DAYS: Final = 5
DECIDE_WORKING_DAYS: Final = 15
OVERDUE_WORKING_DAYS: Final = 5

Timers = dict[tuple[str, str], datetime]
"""(type, subject) → when it is due."""
Said = Counter[tuple[str, str]]
"""(type, key) → how often."""


def end_of_working_day(now: datetime, days: int) -> datetime:
    """Midnight after the n-th working day from tomorrow on; right as long as there are no holidays."""
    day = now.astimezone(SHANGHAI).replace(hour=0, minute=0, second=0, microsecond=0)
    while days:
        day += DAY
        days -= day.weekday() < 5
    return (day + DAY).astimezone(UTC)


# --- orders -------------------------------------------------------------------------------------------------------


@dataclass
class Objection:
    """The objection to a lesson. `decision`: what, how much of the fee is the institution's, why, and whose it was."""

    evidence: str
    answer_by: datetime
    state: str = "raised"
    answer: str = ""
    decide_by: datetime | None = None
    overdue: int = 0
    decision: tuple[str, int, str, str] = ("", 0, "", "")


@dataclass
class Lesson:
    """One lesson of an enrolled order."""

    ends_at: datetime
    price: int
    state: str = "planned"
    by: str = ""
    answer_by: datetime | None = None
    objection: str = ""
    objected: Objection | None = None

    def said(self) -> tuple[str, str]:
        """What the guardian has said against it."""
        return self.objection, self.objected.evidence if self.objected else ""


@dataclass
class Purchase:
    """One purchase. `drawn`: there is a contract; `plan`: when its lessons end, and their prices."""

    guardian: str
    course: str
    state: str = ""
    act_by: datetime | None = None
    reason: str = ""
    drawn: bool = False
    signed: bool = False
    method: str = ""
    plan: list[tuple[datetime, int]] = field(default_factory=list)
    lessons: dict[int, Lesson] = field(default_factory=dict)


WAITS: Final = {"placed": 2 * MINUTE, "held": MINUTE, "cancelling": 5 * MINUTE, "refunding": HOUR}
RELEASE: Final = "escrow.lesson.release.v1"
DIVIDE: Final = "escrow.lesson.divide.v1"
REFUND: Final = "escrow.order.refund.v1"
ASKS: Final = {
    "placed": ("catalog.seat.reserve.v1",),
    "paying": ("catalog.seat.extend.v1", "escrow.payment.collect.v1"),
    "held": ("catalog.seat.take.v1",),
    "cancelling": ("escrow.payment.cancel.v1",),
    "refunding": (REFUND,),
}
"""What a state asks of others when it begins."""
PURCHASE_TIMER: Final = "orders.purchase.deadline.v1"
LESSON_TIMER: Final = "orders.lesson.deadline.v1"
OBJECTION_TIMER: Final = "orders.objection.deadline.v1"
MOVED: Final = "orders.objection.moved.v1"


class Orders:
    """Purchases and their lessons."""

    def __init__(self, institution: str, authority: str, contracts: dict[str, str]) -> None:
        self.institution = institution
        self.authority = authority
        self.contracts = contracts
        self.purchases: dict[str, Purchase] = {}
        self.timers: Timers = {}
        self.said: Said = Counter()

    def hear(self, m: Heard) -> str:
        """One message."""
        order = str(m.data.get("order_id", m.partitionkey))
        purchase = self.purchases.get(order)
        if m.type == "orders.purchase.place.v1":
            return self._place(m, order, purchase)
        if purchase is None:
            return "!order_unknown"
        if m.type.startswith("orders.objection."):
            return self._objection(m, order, purchase)
        if "lesson_no" in m.data and m.type != "escrow.refunded.v1":
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
                return p.state if self._may_see(m, p) else "!order_unknown"
            case (("orders.contract.sign.v1" | "orders.purchase.pay.v1" | "orders.purchase.cancel.v1"), _):
                return self._asked(m, order, p) if m.actor == p.guardian else "!actor_forbidden"
            case "catalog.seat.reserved.v1", "placed":
                p.drawn = True
                ends = [datetime.fromisoformat(one["ends_at"]) for one in m.data["lessons"]]
                each, rest = divmod(m.data["price_fen"], len(ends))
                p.plan = [(end, each + rest * (end is ends[-1])) for end in ends]
                self._enter(order, p, "to_sign", m, datetime.fromisoformat(m.data["expires_at"]))
                self.said["orders.contract.drawn.v1", order] += 1
            case "escrow.held.v1", "paying":
                self._enter(order, p, "held", m)
            case "escrow.held.v1", ("cancelling" | "ended"):
                self.said[REFUND, order] += 1
            case "catalog.seat.taken.v1", "held":
                self._enter(order, p, "enrolled", m)
                self.said["orders.purchase.enrolled.v1", order] += 1
                p.lessons = {number: Lesson(*one) for number, one in enumerate(p.plan, 1)}
            case "escrow.payment_failed.v1", ("paying" | "cancelling"):
                self._end(order, p, m.data["reason"], m)
            case "escrow.refunded.v1", ("cancelling" | "refunding"):
                self._end(order, p, "refunded", m)
            case "problem.v1", ("placed" | "paying" | "held") if m.data["request_type"] in ASKS[p.state]:
                self._give_up(order, p, m.data["code"], m)
            case "orders.purchase.deadline.v1", state:
                if m.data["state"] == state and p.act_by is not None and p.act_by <= m.now:
                    if state in ("held", "cancelling", "refunding"):
                        self._enter(order, p, state, m)
                    else:
                        self._give_up(order, p, "expired", m)
        return ""

    def _may_see(self, m: Heard, p: Purchase) -> bool:
        return m.actor in (p.guardian, self.authority) or (p.drawn and m.actor == self.institution)

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
        self.said.update((type_, order) for type_ in ASKS.get(state, ()))
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
        self.said.update([("catalog.seat.give_back.v1", order), ("orders.purchase.ended.v1", order)])
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
                self.said["orders.lesson.applied.v1", order] += 1
            case "orders.lesson.confirm.v1", ("applied" | "objected"):
                lesson.state, lesson.by = "confirmed", "guardian"
                self.said[RELEASE, order] += 1
                self.timers.pop(timer, None)
                if lesson.objected is not None:
                    self._moves(order, number, lesson.objected, "withdrawn")
            case "orders.lesson.object.v1", "applied":
                lesson.state, lesson.objection = "objected", m.data["reason"]
                self.said["orders.lesson.objected.v1", order] += 1
                self.timers.pop(timer, None)
                answer_by = end_of_working_day(m.now, ANSWER_WORKING_DAYS)
                lesson.objected = Objection(m.data["evidence"], answer_by)
                self._moves(order, number, lesson.objected, "raised")
            case "orders.lesson.deadline.v1", "applied" if lesson.answer_by and lesson.answer_by <= m.now:
                lesson.state, lesson.by = "confirmed", "silence"
                self.said[RELEASE, order] += 1
            case "escrow.settled.v1", "confirmed":
                lesson.state = "paid_out"
            case "escrow.payout_returned.v1", "paid_out":
                lesson.state = "confirmed"
            case "orders.lesson.apply.v1", "applied":
                pass
            case "orders.lesson.confirm.v1", ("confirmed" | "paid_out"):
                pass
            case "orders.lesson.object.v1", "objected" if lesson.objected and (
                lesson.objection,
                lesson.objected.evidence,
            ) == (m.data["reason"], m.data["evidence"]):
                pass
            case (("orders.lesson.apply.v1" | "orders.lesson.confirm.v1" | "orders.lesson.object.v1"), _):
                return "!lesson_state"
        return lesson.state

    def _objection(self, m: Heard, order: str, p: Purchase) -> str:
        number = m.data["lesson_no"]
        lesson = p.lessons.get(number)
        if m.type == "orders.objection.show.v1" and not self._may_see(m, p):
            return "!order_unknown"
        if lesson is None:
            return "!lesson_unknown"
        asks = {"orders.objection.answer.v1": self.institution, "orders.objection.decide.v1": self.authority}
        if m.actor != asks.get(m.type, m.actor):
            return "!actor_forbidden"
        objection = lesson.objected
        if objection is None:
            return "!objection_unknown"
        match m.type:
            case "orders.objection.answer.v1" if m.data["accepts"]:
                return self._decide(order, number, lesson, objection, ("return", 0, m.data["text"], "institution"))
            case "orders.objection.answer.v1" if objection.answer != m.data["text"]:
                if objection.state != "raised":
                    return "!objection_state"
                objection.answer = m.data["text"]
                objection.decide_by = end_of_working_day(m.now, DECIDE_WORKING_DAYS)
                self._moves(order, number, objection, "answered")
            case "orders.objection.decide.v1":
                part = lesson.price if m.data["decision"] == "release" else m.data["release_fen"]
                made = (m.data["decision"], part, m.data["reason"], "authority")
                return self._decide(order, number, lesson, objection, made)
            case "orders.objection.deadline.v1":
                self._passes(m, order, number, objection)
        return objection.state

    def _decide(
        self, order: str, number: int, lesson: Lesson, objection: Objection, made: tuple[str, int, str, str]
    ) -> str:
        if objection.decision != made:
            if objection.state not in ("raised", "answered", "unanswered")[made[3] == "authority" :]:
                return "!objection_state"
            objection.decision = made
            released = made[0] == "release"
            lesson.state, lesson.by = ("confirmed", "authority") if released else ("divided", "")
            self.said[RELEASE if released else DIVIDE, order] += 1
            self._moves(order, number, objection, "decided")
        return objection.state

    def _passes(self, m: Heard, order: str, number: int, objection: Objection) -> None:
        if objection.state == "raised" and objection.answer_by <= m.now:
            objection.decide_by = end_of_working_day(m.now, DECIDE_WORKING_DAYS)
            self._moves(order, number, objection, "unanswered")
        elif objection.state in ("answered", "unanswered") and objection.decide_by and objection.decide_by <= m.now:
            objection.overdue += 1
            objection.decide_by = end_of_working_day(m.now, OVERDUE_WORKING_DAYS)
            self._moves(order, number, objection, objection.state)

    def _moves(self, order: str, number: int, objection: Objection, state: str) -> None:
        objection.state = state
        self.said[MOVED, order] += 1
        timer = (OBJECTION_TIMER, f"{order}:{number}")
        self.timers.pop(timer, None)
        act_by = {"raised": objection.answer_by, "decided": None, "withdrawn": None}.get(state, objection.decide_by)
        if act_by is not None:
            self.timers[timer] = act_by


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
        self.said: Said = Counter()

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
            self.said["escrow.releases.suspend.v1", order] += 1
        elif m.type == "complaints.move.v1":
            state, reason = m.data["state"], m.data["reason"]
            if known is None:
                return "!complaint_unknown"
            if known[:2] != (state, reason):
                if state not in NEXT.get(known[0], ()):
                    return "!complaint_state"
                self.filings[filing_id] = state, reason, known[2]
                if state not in NEXT:
                    self.said["escrow.releases.resume.v1", known[2]] += 1
        return self.filings[filing_id][0] if filing_id in self.filings else ""


def same(expected: str, envelope: dict[str, Any]) -> bool:
    """Whether an answer says what it must."""
    data = envelope["data"]
    said = "!" + data["code"] if envelope["type"] == "problem.v1" else str(data["state"])
    return said == expected
