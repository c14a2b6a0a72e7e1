"""What purchases hear: gateways, catalog's answers, escrow's events, their own deadlines."""

from collections.abc import Sequence
from typing import Any, Final

from services.orders.purchases import queries, use_cases
from shared.contracts.catalog import SeatGivenBack, SeatReserved, SeatTaken
from shared.contracts.envelope import Message, Problem
from shared.contracts.escrow import Refunded
from shared.contracts.orders import (
    PlacePurchase,
    ShowPurchase,
)
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")
HEARD_BY_OTHERS_TOO: Final = (Refunded, Problem)
"""Money goes back, commands are refused: `services/orders/handlers.py` gives them to purchases and to refunds."""


@handlers.on(PlacePurchase)
async def on_place_purchase(work: UnitOfWork, messages: Sequence[Message[PlacePurchase]]) -> None:
    """Guardians buy courses."""
    await use_cases.place(work, messages)


@handlers.on(SeatReserved)
async def on_seat_reserved(work: UnitOfWork, messages: Sequence[Message[SeatReserved]]) -> None:
    """Catalog keeps seats."""
    await use_cases.reserved(work, messages)


@handlers.on(*(contract for contract in use_cases.MOVES if contract not in HEARD_BY_OTHERS_TOO))
async def on_move(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Guardians sign, pay or give up, money comes or fails, steps are late."""
    await use_cases.move(work, messages)


@handlers.on(SeatTaken)
async def on_seat_taken(work: UnitOfWork, messages: Sequence[Message[SeatTaken]]) -> None:
    """Seats are sold."""
    await use_cases.seat_taken(work, messages)


@handlers.on(SeatGivenBack)
async def on_seat_given_back(work: UnitOfWork, messages: Sequence[Message[SeatGivenBack]]) -> None:
    """Seats are free again: the end of an undoing, nothing follows."""


@handlers.on(ShowPurchase)
@each
async def on_show_purchase(work: UnitOfWork, message: Message[ShowPurchase]) -> None:
    """Somebody asks how a purchase stands."""
    await queries.show_purchase(work, message)
