"""The model of invoices: for which lessons one is owed, what was issued, what was red-lettered; see `model.py`."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.simulation import Heard

if TYPE_CHECKING:
    from tests.simulation.model import Lesson, Orders, Purchase

STRANGER: Final = "00000000-0000-0000-0000-000000000001"
"""An institution that is none of the simulation's."""
DAYS: Final = timedelta(days=30)
"""One may be owed so long."""
CHANGED: Final = "orders.invoice.changed.v1"


@dataclass
class Invoice:
    """One invoice of an order."""

    order: str
    number: str
    lessons: tuple[int, ...]
    amount: int
    issued_at: datetime
    red: tuple[str, str] = ("", "")
    """The number of the red one, and why."""
    red_at: datetime | None = None

    @property
    def state(self) -> str:
        """As it is told."""
        return "red_lettered" if self.red_at else "issued"


def _received(lesson: "Lesson") -> int:
    if lesson.paid is None:
        return 0
    return lesson.objected.decision[1] if lesson.state == "divided" and lesson.objected else lesson.fee


def received(purchase: "Purchase") -> dict[int, tuple[int, datetime | None]]:
    """Lesson → what of its fee is with the institution now, and since when: nothing before it was paid out, or since it
    came back. Lesson 0: what it keeps of a refund."""
    fees = {number: (_received(one), one.paid) for number, one in purchase.lessons.items()}
    if purchase.refund and purchase.refund.kept_paid:
        fees[0] = purchase.refund.deduction, purchase.refund.kept_paid
    return dict(sorted(fees.items()))


class Invoices:
    """Invoices by id, and by institution and number whose each number is."""

    def __init__(self, orders: "Orders") -> None:
        self.orders = orders
        self.invoices: dict[str, Invoice] = {}
        self.numbers: dict[tuple[str, str], str] = {}
        self.counts: Counter[str] = Counter()

    def covered(self, order: str) -> dict[int, str]:
        """Lesson → its invoice, if that stands."""
        standing = [(id_, one) for id_, one in self.invoices.items() if one.order == order and one.red_at is None]
        return {number: id_ for id_, one in standing for number in one.lessons}

    def owed(self, order: str, purchase: "Purchase") -> dict[int, int]:
        """Lesson → the fee for which an invoice is owed."""
        covered = self.covered(order)
        return {no: fee for no, (fee, _) in received(purchase).items() if fee and no not in covered}

    def hear(self, m: Heard) -> str:
        """A request; the answer in words, or the code of a refusal."""
        if m.type == "orders.invoice.list_overdue.v1":
            return self._list(m)
        order = m.data["order_id"]
        purchase = self.orders.purchases.get(order)
        known = purchase is not None and (purchase.drawn or bool(purchase.told))
        if m.type == "orders.invoice.show.v1":
            if purchase is None or not self._may_see(m.actor, purchase, known=known):
                return "!order_unknown"
            return self._show(m, order, purchase)
        if m.actor not in (STRANGER, self.orders.institution, *self.orders.neighbours.values()):
            return "!actor_forbidden"
        if purchase is None or not known:
            return "!order_unknown"
        if m.actor != purchase.institution:
            return "!actor_forbidden"
        return self._issue(m, order, purchase) if m.type == "orders.invoice.issue.v1" else self._redden(m, order)

    def _may_see(self, actor: str, purchase: "Purchase", *, known: bool) -> bool:
        return actor in (purchase.guardian, self.orders.authority) or (known and actor == purchase.institution)

    # --- what is told -----------------------------------------------------------------------------------------------

    def _issue(self, m: Heard, order: str, purchase: "Purchase") -> str:
        id_, number, amount = m.data["invoice_id"], m.data["number"], m.data["amount_fen"]
        lessons = tuple(sorted(set(m.data["lessons"])))
        there = self.invoices.get(id_)
        if there is not None:
            same = (there.order, there.number, there.lessons, there.amount) == (order, number, lessons, amount)
            return self._told(there) if same else "!invoice_exists"
        covered, fees = self.covered(order), {no: fee for no, (fee, _) in received(purchase).items()}
        for lesson in lessons:
            if lesson not in fees:
                return "!lesson_unknown"
            if lesson in covered:
                return "!invoice_exists"
            if not fees[lesson]:
                return "!invoice_lesson_not_released"
        if amount != sum(fees[lesson] for lesson in lessons):
            return "!invoice_amount"
        if (m.actor, number) in self.numbers:
            return "!invoice_exists"
        again = any(one.order == order and set(lessons) & set(one.lessons) for one in self.invoices.values())
        self.counts["invoices issued after a red one" if again else "invoices issued"] += 1
        self.counts["invoices issued for what is kept of a refund"] += 0 in lessons
        return self._changed(id_, (m.actor, number), Invoice(order, number, lessons, amount, m.now))

    def _redden(self, m: Heard, order: str) -> str:
        id_, number = m.data["invoice_id"], m.data["red_number"]
        invoice = self.invoices.get(id_)
        if invoice is None or invoice.order != order:
            return "!invoice_unknown"
        if invoice.red_at is not None:
            return self._told(invoice) if invoice.red == (number, m.data["reason"]) else "!invoice_state"
        if (m.actor, number) in self.numbers:
            return "!invoice_exists"
        invoice.red, invoice.red_at = (number, m.data["reason"]), m.now
        self.counts["invoices red-lettered"] += 1
        return self._changed(id_, (m.actor, number), invoice)

    def _changed(self, id_: str, number: tuple[str, str], invoice: Invoice) -> str:
        self.invoices[id_] = invoice
        self.numbers[number] = id_
        self.orders.said[CHANGED, invoice.order] += 1
        return self._told(invoice)

    def _told(self, invoice: Invoice) -> str:
        return f"{invoice.number} {invoice.state} {list(invoice.lessons)} {invoice.amount} {invoice.red}"

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _show(self, m: Heard, order: str, purchase: "Purchase") -> str:
        of_order = [(one.issued_at, id_) for id_, one in self.invoices.items() if one.order == order]
        told = [self._told(self.invoices[id_]) for _, id_ in sorted(of_order, reverse=True)]
        owed = self.owed(order, purchase)
        late = [(number, fee, self._late(m, purchase, number)) for number, fee in owed.items()]
        self.counts["invoices shown as overdue"] += sum(one[2] for one in late)
        return f"{told} {late} {sum(owed.values())}"

    def _late(self, m: Heard, purchase: "Purchase", number: int) -> bool:
        _, paid = received(purchase)[number]
        return paid is not None and paid + DAYS < m.now

    def _list(self, m: Heard) -> str:
        asked = m.data["institution_id"]
        if m.actor not in (asked, self.orders.authority):
            return "!actor_forbidden"
        late = [
            (order, number, fee)
            for order, purchase in sorted(self.orders.purchases.items())
            if purchase.institution == asked
            for number, fee in self.owed(order, purchase).items()
            if self._late(m, purchase, number)
        ]
        if after := m.data["after"]:
            late = [one for one in late if one[:2] > (after["order_id"], after["lesson_no"])]
        page = late[: m.data["limit"]]
        self.counts["lists with overdue invoices"] += bool(page)
        return f"{page} {page[-1][:2] if len(late) > len(page) else None}"


def in_words(type_: str, data: dict[str, Any]) -> str:
    """An answer about invoices, as the model gives it."""
    if type_ == "orders.invoice.view.v1":
        return _told(data["invoice"])
    if type_ == "orders.invoice.of_order.v1":
        owed = [(one["lesson_no"], one["amount_fen"], one["overdue"]) for one in data["owed"]]
        return f"{[_told(one) for one in data['invoices']]} {owed} {data['owed_fen']}"
    after = data["next_after"]
    assert all(one["overdue"] for one in data["owed"]), data
    late = [(one["order_id"], one["lesson_no"], one["amount_fen"]) for one in data["owed"]]
    return f"{late} {(after['order_id'], after['lesson_no']) if after else None}"


def _told(one: dict[str, Any]) -> str:
    red = one["red_number"], one["red_reason"]
    return f"{one['number']} {one['state']} {one['lessons']} {one['amount_fen']} {red}"
