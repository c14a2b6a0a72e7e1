"""What must become of purchases, lessons, money and complaints: the rules of orders, escrow and complaints written down
a second time, message by message, without a line of theirs.

Each model hears what its service has committed, in the same order, and says how a request must be answered: the state
that stands in the answer, or the code of a refusal behind `!`. Then its fields are what must stand in the tables.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from tests.simulation.model_days import is_working_day
from tests.simulation.model_invoices import Invoices
from tests.simulation.simulation import Heard

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
SILENCE_WORKING_DAYS: Final = 7
REMINDER_WORKING_DAYS: Final = (3, SILENCE_WORKING_DAYS)
PENALTY_BASIS_POINTS: Final = 500
"""What every contract here lets the institution keep of what goes back later."""
MOST_FEN: Final = 500_000
"""What a child may have open at the institution; of the other limits the courses here are far from."""
ANSWER_WORKING_DAYS: Final = 5
DECIDE_WORKING_DAYS: Final = 15
OVERDUE_WORKING_DAYS: Final = 5

Timers = dict[tuple[str, str], datetime]
"""(type, subject) → when it is due."""
Said = Counter[tuple[str, str]]
"""(type, key) → how often."""


def end_of_working_day(now: datetime, days: int) -> datetime:
    """Midnight after the n-th working day from tomorrow on."""
    day = now.astimezone(SHANGHAI).replace(hour=0, minute=0, second=0, microsecond=0)
    while days:
        day += DAY
        days -= is_working_day(day.date())
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

    starts_at: datetime
    ends_at: datetime
    fee: int
    state: str = "planned"
    by: str = ""
    answer_by: datetime | None = None
    objection: str = ""
    applied: datetime | None = None
    reminded: datetime | None = None
    paid: datetime | None = None
    objected: Objection | None = None

    @property
    def reminders(self) -> list[datetime]:
        """Eight in the morning of the third working day and of the last."""
        assert self.applied is not None
        return [end_of_working_day(self.applied, days) - 16 * HOUR for days in REMINDER_WORKING_DAYS]

    def reminder_may_be_unsent(self, now: datetime) -> bool:
        """It was filed in this very night, or its guardian was reminded since."""
        assert self.applied is not None
        filed = (self.applied + 5 * MINUTE).astimezone(SHANGHAI)
        morning = filed.replace(hour=8, minute=0, second=0, microsecond=0) + DAY * (filed.hour >= 8)
        at_night = not 8 <= filed.hour < 21
        return self.reminded is not None or (at_night and now < morning)

    def said(self) -> tuple[str, str]:
        """What the guardian has said against it."""
        return self.objection, self.objected.evidence if self.objected else ""


@dataclass
class Refund:
    """One refund of an enrolled order: its lessons, and what the institution keeps of their fee."""

    state: str
    lessons: list[int]
    act_by: datetime | None
    deduction: int = 0
    agrees: bool | None = None
    decision: str = ""
    kept_paid: datetime | None = None


@dataclass
class Purchase:
    """One purchase. `drawn`: it has a contract; `plan`: when its lessons begin and end; `told`: why it was refused."""

    guardian: str
    course: str
    institution: str
    state: str = ""
    act_by: datetime | None = None
    reason: str = ""
    drawn: bool = False
    told: str = ""
    signed: bool = False
    method: str = ""
    plan: list[tuple[datetime, datetime]] = field(default_factory=list)
    lessons: dict[int, Lesson] = field(default_factory=dict)
    price: int = 0
    paid_at: datetime | None = None
    refunds: dict[str, Refund] = field(default_factory=dict)

    @property
    def refund(self) -> Refund | None:
        """The last one: those before were rejected or withdrawn."""
        return list(self.refunds.values())[-1] if self.refunds else None

    def none_taken(self, now: datetime) -> bool:
        """Paid less than 7 days ago, and no lesson was filed or has begun: everything goes back, and at once."""
        planned = all(one.state == "planned" and now < one.starts_at for one in self.lessons.values())
        return planned and self.paid_at is not None and now < self.paid_at + 7 * DAY

    def back_fen(self, now: datetime) -> int:
        """What would be quoted: the fee of what was not taught, less the penalty unless none was taken."""
        fee = sum(lesson.fee for lesson in self.lessons.values() if lesson.state == "planned")
        return fee if self.none_taken(now) else fee - fee * PENALTY_BASIS_POINTS // 10_000


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
REFUND_TIMER: Final = "orders.refund.deadline.v1"
OF_REFUNDS: Final = ("escrow.refund_delayed.v1", "escrow.settled.v1", "escrow.payout_returned.v1")
"""What is told of an order, and not of one of its lessons, once it is paid."""
OBJECTION_TIMER: Final = "orders.objection.deadline.v1"
MOVED: Final = "orders.objection.moved.v1"


class Orders:
    """Purchases and their lessons."""

    def __init__(self, institution: str, authority: str, contracts: dict[str, str]) -> None:
        self.institution = institution
        self.authority = authority
        self.contracts = contracts
        self.neighbours: dict[str, str] = {}
        """Course → its institution, if that is another one."""
        self.purchases: dict[str, Purchase] = {}
        self.timers: Timers = {}
        self.said: Said = Counter()
        self.invoices = Invoices(self)

    def hear(self, m: Heard) -> str:
        """One message."""
        if m.type.startswith("orders.invoice."):
            return self.invoices.hear(m)
        order = str(m.data.get("order_id", m.partitionkey))
        purchase = self.purchases.get(order)
        if m.type == "orders.purchase.place.v1":
            return self._place(m, order, purchase)
        if purchase is None:
            return "!order_unknown"
        if m.type.startswith("orders.objection."):
            return self._objection(m, order, purchase)
        if m.data.get("lesson_no"):
            # A divided lesson's part that has gone back was decided before, and is not the refund of the order.
            return "" if m.type == "escrow.refunded.v1" else self._lesson(m, order, purchase)
        if m.type.startswith("orders.refund.") or m.type in OF_REFUNDS:
            return self._refund(m, order, purchase)
        return self._purchase(m, order, purchase)

    def _place(self, m: Heard, order: str, known: Purchase | None) -> str:
        if m.actor != m.data["account_id"]:
            return "!actor_forbidden"
        if known is None:
            course = m.data["course_id"]
            of = self.neighbours.get(course, self.institution)
            self.purchases[order] = known = Purchase(m.actor, course, of)
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
                p.price = m.data["price_fen"]
                if (whole := self._open_fen(p) + p.price) > MOST_FEN:
                    p.told = f"共 {whole / 100:,.2f} 元（本次 {p.price / 100:,.2f} 元），上限 5,000.00 元"
                    self._end(order, p, "course_limit_price", m)
                    return ""
                p.drawn = True
                p.plan = [
                    (datetime.fromisoformat(one["starts_at"]), datetime.fromisoformat(one["ends_at"]))
                    for one in m.data["lessons"]
                ]
                self._enter(order, p, "to_sign", m, datetime.fromisoformat(m.data["expires_at"]))
                self.said["orders.contract.drawn.v1", order] += 1
            case "escrow.held.v1", "paying":
                p.paid_at = m.now
                self._enter(order, p, "held", m)
            case "escrow.held.v1", ("cancelling" | "ended"):
                self.said[REFUND, order] += 1
            case "catalog.seat.taken.v1", "held":
                self._enter(order, p, "enrolled", m)
                self.said["orders.purchase.enrolled.v1", order] += 1
                each, rest = divmod(p.price, len(p.plan))
                p.lessons = {
                    number: Lesson(starts_at, ends_at, each + rest * (number == len(p.plan)))
                    for number, (starts_at, ends_at) in enumerate(p.plan, 1)
                }
            case "escrow.payment_failed.v1", ("paying" | "cancelling"):
                self._end(order, p, m.data["reason"], m)
            case "escrow.refunded.v1", ("cancelling" | "refunding"):
                self._end(order, p, "refunded", m)
            case "escrow.refunded.v1", "enrolled" if p.refund and p.refund.state == "paying":
                self._set_refund(m, order, p, p.refund, "paid", None, "refunded")
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
        of_institution = (p.drawn or p.told) and m.actor == p.institution
        return m.actor in (p.guardian, self.authority) or bool(of_institution)

    def _open_fen(self, new: Purchase) -> int:
        """What the guardian's one child has open at the institution: prepaid and not consumed."""
        fen = 0
        for p in self.purchases.values():
            is_theirs = (p.guardian, p.institution) == (new.guardian, new.institution)
            if is_theirs and p.drawn and p.state == "enrolled":
                gone = ("confirmed", "paid_out", "divided", "refunded")
                fen += sum(one.fee for one in p.lessons.values() if one.state not in gone)
            elif is_theirs and p.drawn and p.state != "ended":
                fen += p.price
        return fen

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

    def _refund(self, m: Heard, order: str, p: Purchase) -> str:
        """Refunds: one at a time, of every planned lesson."""
        if m.type == "orders.refund.request.v1":
            return self._ask_back(m, order, p)
        asks = {"orders.refund.withdraw.v1": p.guardian, "orders.refund.answer.v1": p.institution}  # anyone decides
        if m.actor != asks.get(m.type, m.actor):
            return "!actor_forbidden"
        one = p.refunds.get(m.data["refund_id"]) if "refund_id" in m.data else p.refund
        if one is None:
            return "!refund_unknown"
        match m.type, one.state:
            case "orders.refund.withdraw.v1", ("asked" | "contested"):
                self._set_refund(m, order, p, one, "withdrawn", None, "planned")
            case "orders.refund.withdraw.v1", "withdrawn":
                pass
            case "orders.refund.answer.v1", _ if one.agrees == m.data["agrees"]:
                pass
            case "orders.refund.answer.v1", "asked":
                one.agrees = m.data["agrees"]
                if one.agrees:
                    self._pay_back(m, order, p, one)
                else:
                    self._set_refund(m, order, p, one, "contested", end_of_working_day(m.now, 15))
            case "orders.refund.decide.v1", _ if one.decision == m.data["reason"]:
                pass
            case "orders.refund.decide.v1", "contested" if m.data["granted"]:
                one.decision, one.deduction = m.data["reason"], m.data["deduction_fen"]
                chosen = sorted(m.data["lessons"]) or one.lessons
                for number in set(one.lessons) - set(chosen):
                    p.lessons[number].state = "planned"
                one.lessons = chosen
                self._pay_back(m, order, p, one)
            case "orders.refund.decide.v1", "contested":
                one.decision = m.data["reason"]
                self._set_refund(m, order, p, one, "rejected", None, "planned")
            case "escrow.settled.v1", _:
                one.kept_paid = one.kept_paid or m.now
                self.invoices.counts["kept of a refund and paid out"] += 1
            case "escrow.payout_returned.v1", _:
                one.kept_paid = None
            case "escrow.refund_delayed.v1", "paid":
                self._pay_back(m, order, p, one)
            case "escrow.refund_delayed.v1", "paying":
                self._set_refund(m, order, p, one, "paying", one.act_by)
            case "orders.refund.deadline.v1", state if state == m.data["state"] and one.act_by and one.act_by <= m.now:
                if state == "asked":
                    self._pay_back(m, order, p, one)
                else:
                    self._set_refund(m, order, p, one, state, end_of_working_day(m.now, 5))
            case "orders.refund.answer.v1" | "orders.refund.decide.v1" | "orders.refund.withdraw.v1", _:
                return "!refund_state"
        return one.state

    def _ask_back(self, m: Heard, order: str, p: Purchase) -> str:
        if m.actor != p.guardian:
            return "!actor_forbidden"
        if m.data["refund_id"] in p.refunds:
            return p.refunds[m.data["refund_id"]].state
        if p.state != "enrolled":
            return "!order_state"
        if p.refund and p.refund.state in ("asked", "contested", "paying", "paid"):
            return "!refund_exists"
        planned = [number for number, lesson in p.lessons.items() if lesson.state == "planned"]
        if not planned:
            return "!refund_nothing"
        waiting = [number for number, lesson in p.lessons.items() if lesson.state in ("applied", "objected")]
        if not set(waiting) <= set(m.data["excluded"]):
            return "!refund_pending"
        if m.data["quoted_fen"] != p.back_fen(m.now):
            return "!refund_changed"
        kept = sum(p.lessons[number].fee for number in planned) - p.back_fen(m.now)
        one = p.refunds[m.data["refund_id"]] = Refund("asked", planned, None, kept)
        if p.none_taken(m.now):
            self._pay_back(m, order, p, one)
        else:
            self._set_refund(m, order, p, one, "asked", end_of_working_day(m.now, 5), "refunding")
        return one.state

    def _pay_back(self, m: Heard, order: str, p: Purchase, one: Refund) -> None:
        self._set_refund(m, order, p, one, "paying", m.now + 15 * DAY, "refunding")

    def _set_refund(
        self,
        m: Heard,
        order: str,
        p: Purchase,
        one: Refund,
        state: str,
        act_by: datetime | None,
        lessons: str = "",
    ) -> None:
        one.state, one.act_by = state, act_by
        self.timers.pop((REFUND_TIMER, order), None)
        if act_by is not None:
            self.timers[REFUND_TIMER, order] = act_by
        for number in one.lessons if lessons else ():
            p.lessons[number].state = lessons
        self.said["orders.refund.moved.v1", order] += 1
        if state == "paying":
            self.said.update([(REFUND, order), ("catalog.seat.give_back.v1", order)])

    def _lesson(self, m: Heard, order: str, p: Purchase) -> str:
        number = m.data["lesson_no"]
        lesson = p.lessons.get(number)
        if lesson is None:
            return "!lesson_unknown"
        timer = (LESSON_TIMER, f"{order}:{number}")
        asks = {
            "orders.lesson.apply.v1": p.institution,
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
                lesson.applied, lesson.answer_by = m.now, end_of_working_day(m.now, SILENCE_WORKING_DAYS)
                self.timers[timer] = lesson.reminders[0]
                self.said["orders.lesson.applied.v1", order] += 1
            case "orders.lesson.confirm.v1", ("applied" | "objected"):
                lesson.state, lesson.by = "confirmed", "guardian"
                self.said[RELEASE, order] += 1
                if lesson.reminder_may_be_unsent(m.now):
                    self.said["orders.lesson.confirmed.v1", order] += 1
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
                self.said.update([(RELEASE, order), ("orders.lesson.confirmed.v1", order)])
            case "orders.lesson.deadline.v1", "applied":
                assert lesson.applied is not None
                assert lesson.answer_by is not None
                if any((lesson.reminded or lesson.applied) < due <= m.now for due in lesson.reminders):
                    lesson.reminded = m.now
                    self.timers[timer] = min(due for due in (*lesson.reminders, lesson.answer_by) if due > m.now)
                    self.said["orders.lesson.waiting.v1", order] += 1
            case "escrow.settled.v1", "confirmed":
                lesson.state, lesson.paid = "paid_out", m.now
            case "escrow.payout_returned.v1", "paid_out":
                lesson.state, lesson.paid = "confirmed", None
            case "escrow.settled.v1", "divided":
                lesson.paid = lesson.paid or m.now
            case "escrow.payout_returned.v1", "divided":
                lesson.paid = None
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
        asks = {"orders.objection.answer.v1": p.institution, "orders.objection.decide.v1": self.authority}
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
                part = lesson.fee if m.data["decision"] == "release" else m.data["release_fen"]
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
