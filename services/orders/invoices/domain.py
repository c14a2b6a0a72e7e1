"""The rules of invoices (发票), pure.

[law: 发票管理办法 19, 20] Who receives money for a service gives an invoice for it, and who pays asks for one.
[law: 发票管理办法实施细则 27] An invoice that was wrong is undone with a red one (红字发票), never changed.
(Numbers of articles are of the texts before their revision of 2023; no original was at hand.)
[DOMAIN] The institution owes an invoice for what was released; the platform tracks owed, issued, red-lettered.
[ours] Owed from the day the bank has paid the fee out; what one invoice covers is of one order. What an institution
keeps of a refund (penalty, used materials) is released to it as well, and is the order's lesson 0 here.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services.orders.lessons.domain import Lesson, released_fen
from services.orders.refunds.domain import Refund
from shared.contracts.errors import Refused


@dataclass(slots=True, frozen=True)
class Fee:
    """What of a lesson the institution has received, and when the bank had paid it: nothing before, or since it came
    back. Lesson 0: what it keeps of the order's refund."""

    order_id: UUID
    lesson_no: int
    amount_fen: int
    paid_at: datetime | None


def fees(lessons: Iterable[Lesson], refunds: Iterable[Refund]) -> list[Fee]:
    """What the institution has received of these orders, by order and lesson. A refund that keeps nothing for it has no
    lesson 0."""
    kept = [
        Fee(refund.order_id, 0, refund.deduction_fen, refund.kept_paid_at) for refund in refunds if refund.kept_paid_at
    ]
    taught = [Fee(one.order_id, one.lesson_no, released_fen(one), one.paid_at) for one in lessons]
    return sorted([*kept, *taught], key=lambda fee: (fee.order_id, fee.lesson_no))


@dataclass(slots=True)
class Invoice:
    """One invoice as the institution has told it. It is never changed but by its red one (红字发票)."""

    invoice_id: UUID
    order_id: UUID
    institution_id: UUID
    number: str
    lessons: list[int]
    amount_fen: int
    state: str
    issued_at: datetime
    red_number: str = ""
    red_reason: str = ""
    red_at: datetime | None = None


def check_told_again(known: Invoice, asked: Invoice) -> None:
    """An invoice told again is the one that is known. Raises Refused invoice_exists if its id is another's."""
    same = ("order_id", "institution_id", "number", "lessons", "amount_fen")
    if any(getattr(known, name) != getattr(asked, name) for name in same):
        raise Refused("invoice_exists")


def check_invoice(asked: Invoice, received: Mapping[int, Fee], covered: Collection[int]) -> None:
    """An invoice is exactly of what was `received` for its lessons, all known by number; `covered` are those that have
    one.

    Raises Refused: lesson_unknown, invoice_exists, invoice_lesson_not_released, invoice_amount.
    """
    for number in asked.lessons:
        if number not in received:
            raise Refused("lesson_unknown", lesson_no=number)
        if number in covered:
            raise Refused("invoice_exists", lesson_no=number)
        if received[number].amount_fen == 0:
            raise Refused("invoice_lesson_not_released", lesson_no=number)
    released = sum(received[number].amount_fen for number in asked.lessons)
    if asked.amount_fen != released:
        raise Refused("invoice_amount", released_fen=released)


def red_letter(invoice: Invoice, red_number: str, reason: str, now: datetime) -> bool:
    """The invoice is undone with a red one. False when that was told before.

    Raises Refused: invoice_state (undone with another red one), invoice_exists (its own number is not a red one's).
    """
    if invoice.state == "red_lettered":
        if (invoice.red_number, invoice.red_reason) != (red_number, reason):
            raise Refused("invoice_state", red_number=invoice.red_number)
        return False
    if red_number == invoice.number:
        raise Refused("invoice_exists", number=red_number)
    invoice.state = "red_lettered"
    invoice.red_number = red_number
    invoice.red_reason = reason
    invoice.red_at = now
    return True


def owed(received: Iterable[Fee], covered: Collection[int]) -> list[Fee]:
    """The fees of one order for which an invoice is owed: received, none issued, or a red one since."""
    return [fee for fee in received if fee.amount_fen and fee.lesson_no not in covered]


def overdue(fee: Fee, days: int, now: datetime) -> bool:
    """Whether the invoice of a fee has been owed for more than `days` days."""
    return fee.paid_at is not None and now - fee.paid_at > timedelta(days=days)
