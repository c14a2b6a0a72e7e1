"""What invoices hear: institutions, and whoever wants to see."""

from services.orders.invoices import queries, use_cases
from shared.contracts.envelope import Message
from shared.contracts.orders import IssueInvoice, ListOverdueInvoices, RedLetterInvoice, ShowInvoices
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(IssueInvoice)
@each
async def on_issue_invoice(work: UnitOfWork, message: Message[IssueInvoice]) -> None:
    """An institution has issued an invoice."""
    await use_cases.issue(work, message)


@handlers.on(RedLetterInvoice)
@each
async def on_red_letter_invoice(work: UnitOfWork, message: Message[RedLetterInvoice]) -> None:
    """An institution has undone an invoice."""
    await use_cases.red_letter(work, message)


@handlers.on(ShowInvoices)
@each
async def on_show_invoices(work: UnitOfWork, message: Message[ShowInvoices]) -> None:
    """Somebody asks for the invoices of an order."""
    await queries.show_invoices(work, message)


@handlers.on(ListOverdueInvoices)
@each
async def on_list_overdue_invoices(work: UnitOfWork, message: Message[ListOverdueInvoices]) -> None:
    """Somebody asks what an institution owes for too long."""
    await queries.list_overdue(work, message)
