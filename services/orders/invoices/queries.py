"""What may be asked about invoices: those of an order, and what an institution has owed for too long."""

from collections.abc import Collection
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import text

from services.orders.invoices import domain
from services.orders.invoices.domain import Fee, Invoice
from services.orders.lessons.domain import Enrolment, Lesson
from services.orders.lessons.tables import LessonRow
from services.orders.purchases.tables import PurchaseRow
from services.orders.refunds.domain import Refund
from services.orders.refunds.tables import RefundRow
from shared.contracts import orders as words
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.orders import InvoicesView, LessonKey, ListOverdueInvoices, OverdueInvoices, OwedInvoice
from shared.messaging.work import UnitOfWork
from shared.policy import Category, policy_for
from shared.working_days import shanghai

MOST_SHOWN: Final = 100
"""Invoices of one order that are shown, the newest; each lesson has one that counts [ours]."""

_OF_ORDER: Final = text("""
SELECT invoice_id, order_id, institution_id, number, lessons, amount_fen, state, issued_at,
  red_number, red_reason, red_at
FROM invoices WHERE order_id = :order_id ORDER BY issued_at DESC, invoice_id DESC LIMIT :most
""")
_COVERED: Final = text("SELECT lesson_no FROM invoice_lessons WHERE order_id = :order_id")

# Through the institution's purchases, in the order of their index, and then their lessons by primary key: `lessons` is
# written with every lesson and gets no index for this. `paid_at` stands where something was paid out, whatever it was.
_OVERDUE: Final = text("""
SELECT p.order_id, fee.lesson_no
FROM purchases p
JOIN unnest(CAST(:categories AS text[]), CAST(:befores AS timestamptz[])) AS due (category, before)
  ON due.category = p.category
JOIN LATERAL (
  SELECT l.lesson_no, l.paid_at FROM lessons l WHERE l.order_id = p.order_id
  UNION ALL SELECT 0, r.kept_paid_at FROM refunds r WHERE r.order_id = p.order_id
) AS fee ON fee.paid_at < due.before
WHERE p.institution_id = :institution_id AND p.order_id >= :after_order
  AND (p.order_id, fee.lesson_no) > (:after_order, :after_lesson)
  AND NOT EXISTS (SELECT FROM invoice_lessons i WHERE i.order_id = p.order_id AND i.lesson_no = fee.lesson_no)
ORDER BY p.order_id, fee.lesson_no LIMIT :most
""")
_FIRST: Final = UUID(int=0)


def view(invoice: Invoice) -> words.Invoice:
    """The invoice as it is shown."""
    return words.Invoice(
        invoice_id=invoice.invoice_id,
        number=invoice.number,
        lessons=tuple(invoice.lessons),
        amount_fen=invoice.amount_fen,
        state=invoice.state,
        issued_at=invoice.issued_at,
        red_number=invoice.red_number,
        red_reason=invoice.red_reason,
        red_at=invoice.red_at,
    )


async def covered_lessons(work: UnitOfWork, order_id: UUID) -> frozenset[int]:
    """The lessons of an order that have an issued invoice."""
    found = await (await work.connection()).execute(_COVERED, {"order_id": order_id})
    return frozenset(found.scalars())


async def received(work: UnitOfWork, lessons: Collection[tuple[UUID, int]]) -> dict[tuple[UUID, int], Fee]:
    """What the institutions have received of these lessons (order, number; 0: what is kept of the order's refund)."""
    found = await work.load(LessonRow, Lesson, lessons, lock=False)
    refunded = {order_id for order_id, number in lessons if number == 0}
    refunds = await work.load_all(RefundRow, Refund, refunded, by=("order_id",), lock=False)
    return {(fee.order_id, fee.lesson_no): fee for fee in domain.fees(found.values(), refunds)}


async def show_invoices(work: UnitOfWork, message: Message[words.ShowInvoices]) -> None:
    """The invoices of an order and what is owed. Whose it is not, is told the same as if it did not exist."""
    actor = work.actor(message, "guardian", "institution", "authority", "operator")
    order_id = message.data.order_id
    purchase = (await work.load(PurchaseRow, Enrolment, [order_id], lock=False)).get(order_id)
    if purchase is None or not actor.may_see(guardian=purchase.account_id, institution=purchase.institution_id):
        raise Refused("order_unknown")
    lessons = await work.load_all(LessonRow, Lesson, [order_id], by=("order_id",), lock=False)
    refunds = await work.load_all(RefundRow, Refund, [order_id], by=("order_id",), lock=False)
    found = await (await work.connection()).execute(_OF_ORDER, {"order_id": order_id, "most": MOST_SHOWN})
    invoices = tuple(view(Invoice(**row)) for row in found.mappings())
    owed = domain.owed(domain.fees(lessons, refunds), await covered_lessons(work, order_id))
    shown = InvoicesView(
        order_id=order_id,
        invoices=invoices,
        owed=tuple(_owed(work, fee, purchase) for fee in owed),
        owed_fen=sum(fee.amount_fen for fee in owed),
    )
    work.reply(message, shown)


async def list_overdue(work: UnitOfWork, message: Message[ListOverdueInvoices]) -> None:
    """What an institution has owed an invoice for too long; its own, or any institution's for an authority."""
    ask = message.data
    work.actor(message, "institution", "authority", "operator", own={"institution": ask.institution_id})
    parameters = {
        "institution_id": ask.institution_id,
        "after_order": ask.after.order_id if ask.after else _FIRST,
        "after_lesson": ask.after.lesson_no if ask.after else 0,
        "categories": [category.value for category in Category],
        "befores": [work.now - timedelta(days=_days(work, category.value)) for category in Category],
        "most": ask.limit + 1,
    }
    found = (await (await work.connection()).execute(_OVERDUE, parameters)).all()
    keys = [(row.order_id, row.lesson_no) for row in found[: ask.limit]]
    fees = await received(work, keys)
    purchases = await work.load(PurchaseRow, Enrolment, {order_id for order_id, _ in keys}, lock=False)
    page = OverdueInvoices(
        institution_id=ask.institution_id,
        owed=tuple(_owed(work, fees[key], purchases[key[0]]) for key in keys),
        next_after=LessonKey(order_id=keys[-1][0], lesson_no=keys[-1][1]) if len(found) > ask.limit else None,
    )
    work.reply(message, page)


def _owed(work: UnitOfWork, fee: Fee, purchase: Enrolment) -> OwedInvoice:
    assert fee.paid_at is not None
    return OwedInvoice(
        order_id=fee.order_id,
        lesson_no=fee.lesson_no,
        title=purchase.title,
        amount_fen=fee.amount_fen,
        paid_at=fee.paid_at,
        overdue=domain.overdue(fee, _days(work, purchase.category), work.now),
    )


def _days(work: UnitOfWork, category: str) -> int:
    return policy_for(work.region, category, shanghai(work.now).date()).invoice_days
