"""What complaints hears, and which use case answers."""

from collections.abc import Sequence

from services.complaints import queries, use_cases
from shared.contracts.complaints import FileComplaint, FilingDeadline, MoveFiling, ShowFiling
from shared.contracts.envelope import Message
from shared.contracts.orders import PurchaseEnrolled
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("complaints")


@handlers.on(FileComplaint)
@each
async def on_file(work: UnitOfWork, message: Message[FileComplaint]) -> None:
    """A complaint or report comes in."""
    await use_cases.file(work, message)


@handlers.on(MoveFiling)
@each
async def on_move(work: UnitOfWork, message: Message[MoveFiling]) -> None:
    """An authority decides."""
    await use_cases.move_on(work, message)


@handlers.on(ShowFiling)
async def on_show(work: UnitOfWork, messages: Sequence[Message[ShowFiling]]) -> None:
    """Somebody asks how a filing stands."""
    await queries.show(work, messages)


@handlers.on(FilingDeadline)
@each
async def on_deadline(work: UnitOfWork, message: Message[FilingDeadline]) -> None:
    """A clock has run out."""
    await use_cases.deadline(work, message)


@handlers.on(PurchaseEnrolled)
async def on_enrolled(work: UnitOfWork, messages: Sequence[Message[PurchaseEnrolled]]) -> None:
    """Orders that can be complained about."""
    await use_cases.remember_orders(work, messages)
