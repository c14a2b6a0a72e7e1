"""What is asked about many purchases: families, institutions, authorities."""

from services.orders.views import queries
from shared.contracts.envelope import Message
from shared.contracts.orders import ListInstitutionLessons, ListOrdersTotals, ListPurchases
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(ListPurchases)
@each
async def on_list_purchases(work: UnitOfWork, message: Message[ListPurchases]) -> None:
    """A family looks at what it has bought."""
    await queries.list_purchases(work, message)


@handlers.on(ListInstitutionLessons)
@each
async def on_list_institution_lessons(work: UnitOfWork, message: Message[ListInstitutionLessons]) -> None:
    """An institution looks at its lessons."""
    await queries.list_institution_lessons(work, message)


@handlers.on(ListOrdersTotals)
@each
async def on_list_totals(work: UnitOfWork, message: Message[ListOrdersTotals]) -> None:
    """An authority looks at its institutions."""
    await queries.list_totals(work, message)
