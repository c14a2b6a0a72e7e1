"""What is asked about objections; what changes them changes their lessons too: see `services/orders/handlers.py`."""

from services.orders.objections import queries
from shared.contracts.envelope import Message
from shared.contracts.orders import ShowObjection
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(ShowObjection)
@each
async def on_show_objection(work: UnitOfWork, message: Message[ShowObjection]) -> None:
    """Somebody asks how an objection stands."""
    await queries.show_objection(work, message)
