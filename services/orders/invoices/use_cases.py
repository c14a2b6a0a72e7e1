"""What institutions tell of their invoices. Few beside lessons, so one at a time."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from services.orders.invoices import domain
from services.orders.invoices.domain import Invoice
from services.orders.invoices.queries import covered_lessons, received, view
from services.orders.invoices.tables import InvoiceLessonRow, InvoiceNumberRow, InvoiceRow
from services.orders.lessons.domain import Enrolment
from services.orders.purchases.tables import PurchaseRow
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.orders import InvoiceChanged, InvoiceView, IssueInvoice, RedLetterInvoice
from shared.messaging.work import UnitOfWork

_UNCOVER: Final = text("DELETE FROM invoice_lessons WHERE order_id = :order_id AND invoice_id = :invoice_id")


@dataclass(slots=True)
class Covered:
    """A lesson, or what is kept of the refund (0), and its issued invoice."""

    order_id: UUID
    lesson_no: int
    invoice_id: UUID


@dataclass(slots=True)
class UsedNumber:
    """A number that an institution has used."""

    institution_id: UUID
    number: str
    invoice_id: UUID


async def issue(work: UnitOfWork, message: Message[IssueInvoice]) -> None:
    """The institution has issued an invoice for fees of one order. The same again changes nothing."""
    ask = message.data
    purchase = await _purchase(work, message)
    assert purchase.institution_id is not None
    asked = Invoice(
        invoice_id=ask.invoice_id,
        order_id=ask.order_id,
        institution_id=purchase.institution_id,
        number=ask.number,
        lessons=sorted(set(ask.lessons)),
        amount_fen=ask.amount_fen,
        state="issued",
        issued_at=work.now,
    )
    known = (await work.load(InvoiceRow, Invoice, [ask.invoice_id])).get(ask.invoice_id)
    if known is not None:
        domain.check_told_again(known, asked)
        work.reply(message, InvoiceView(order_id=ask.order_id, invoice=view(known)))
        return
    fees = await received(work, [(ask.order_id, number) for number in asked.lessons])
    covered = await covered_lessons(work, ask.order_id)
    domain.check_invoice(asked, {fee.lesson_no: fee for fee in fees.values()}, covered)
    work.insert(InvoiceRow, [asked])
    await _use_number(work, asked, asked.number)
    work.insert(InvoiceLessonRow, [Covered(asked.order_id, number, asked.invoice_id) for number in asked.lessons])
    _tell(work, message, purchase, asked)


async def red_letter(work: UnitOfWork, message: Message[RedLetterInvoice]) -> None:
    """The institution has undone an invoice: its lessons are owed one again. The same again changes nothing."""
    ask = message.data
    purchase = await _purchase(work, message)
    invoice = (await work.load(InvoiceRow, Invoice, [ask.invoice_id])).get(ask.invoice_id)
    if invoice is None or invoice.order_id != ask.order_id:
        raise Refused("invoice_unknown")
    if not domain.red_letter(invoice, ask.red_number, ask.reason, work.now):
        work.reply(message, InvoiceView(order_id=ask.order_id, invoice=view(invoice)))
        return
    await _use_number(work, invoice, ask.red_number)
    work.update(InvoiceRow, [invoice], "state", "red_number", "red_reason", "red_at")
    parameters = {"order_id": invoice.order_id, "invoice_id": invoice.invoice_id}
    await (await work.connection()).execute(_UNCOVER, parameters)
    _tell(work, message, purchase, invoice)


async def _purchase(work: UnitOfWork, message: Message[IssueInvoice] | Message[RedLetterInvoice]) -> Enrolment:
    """The order an institution speaks of, locked: what is told of its invoices is judged one after the other.

    Raises Refused: actor_unauthenticated, actor_forbidden, order_unknown.
    """
    order_id = message.data.order_id
    purchase = (await work.load(PurchaseRow, Enrolment, [order_id])).get(order_id)
    if purchase is None or purchase.institution_id is None:
        work.actor(message, "institution")
        raise Refused("order_unknown")
    work.actor(message, "institution", subject=purchase.institution_id)
    return purchase


async def _use_number(work: UnitOfWork, invoice: Invoice, number: str) -> None:
    """Two orders of one institution may be told of at once: whoever writes the number first has it."""
    if not await work.insert_new(InvoiceNumberRow, UsedNumber(invoice.institution_id, number, invoice.invoice_id)):
        raise Refused("invoice_exists", number=number)


def _tell(work: UnitOfWork, message: Message[Any], purchase: Enrolment, invoice: Invoice) -> None:
    changed = InvoiceChanged(
        order_id=invoice.order_id,
        account_id=purchase.account_id,
        institution_id=invoice.institution_id,
        invoice=view(invoice),
    )
    work.send(changed, message)
    work.reply(message, InvoiceView(order_id=invoice.order_id, invoice=view(invoice)))
