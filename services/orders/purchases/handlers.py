"""What purchases hear: gateways, catalog's answers, escrow's events, their own deadlines."""

from collections.abc import Sequence

from services.orders.purchases import queries, use_cases
from shared.contracts.catalog import SeatGivenBack, SeatReserved, SeatTaken
from shared.contracts.envelope import Message, Problem
from shared.contracts.escrow import Held, PaymentFailed, Refunded
from shared.contracts.orders import (
    CancelPurchase,
    PayPurchase,
    PlacePurchase,
    PurchaseDeadline,
    ShowPurchase,
    SignContract,
)
from shared.messaging.handlers import Handlers, each
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(PlacePurchase)
async def on_place_purchase(work: UnitOfWork, messages: Sequence[Message[PlacePurchase]]) -> None:
    """Guardians buy courses."""
    await use_cases.place(work, messages)


@handlers.on(SeatReserved)
async def on_seat_reserved(work: UnitOfWork, messages: Sequence[Message[SeatReserved]]) -> None:
    """Catalog keeps seats."""
    await use_cases.reserved(work, messages)


@handlers.on(SignContract)
async def on_sign_contract(work: UnitOfWork, messages: Sequence[Message[SignContract]]) -> None:
    """Guardians sign."""
    await use_cases.sign_contracts(work, messages)


@handlers.on(PayPurchase)
async def on_pay_purchase(work: UnitOfWork, messages: Sequence[Message[PayPurchase]]) -> None:
    """Guardians choose how to pay."""
    await use_cases.pay(work, messages)


@handlers.on(CancelPurchase)
async def on_cancel_purchase(work: UnitOfWork, messages: Sequence[Message[CancelPurchase]]) -> None:
    """Guardians give up."""
    await use_cases.cancel(work, messages)


@handlers.on(Held)
async def on_held(work: UnitOfWork, messages: Sequence[Message[Held]]) -> None:
    """Money is in escrow."""
    await use_cases.held(work, messages)


@handlers.on(PaymentFailed)
async def on_payment_failed(work: UnitOfWork, messages: Sequence[Message[PaymentFailed]]) -> None:
    """Money will not come."""
    await use_cases.payment_failed(work, messages)


@handlers.on(Refunded)
async def on_refunded(work: UnitOfWork, messages: Sequence[Message[Refunded]]) -> None:
    """Money is back."""
    await use_cases.refunded(work, messages)


@handlers.on(SeatTaken)
async def on_seat_taken(work: UnitOfWork, messages: Sequence[Message[SeatTaken]]) -> None:
    """Seats are sold."""
    await use_cases.seat_taken(work, messages)


@handlers.on(SeatGivenBack)
async def on_seat_given_back(work: UnitOfWork, messages: Sequence[Message[SeatGivenBack]]) -> None:
    """Seats are free again: the end of an undoing, nothing follows."""


@handlers.on(Problem)
async def on_problem(work: UnitOfWork, messages: Sequence[Message[Problem]]) -> None:
    """Commands were refused."""
    await use_cases.problems(work, messages)


@handlers.on(PurchaseDeadline)
async def on_purchase_deadline(work: UnitOfWork, messages: Sequence[Message[PurchaseDeadline]]) -> None:
    """Steps are late."""
    await use_cases.deadlines(work, messages)


@handlers.on(ShowPurchase)
@each
async def on_show_purchase(work: UnitOfWork, message: Message[ShowPurchase]) -> None:
    """Somebody asks how a purchase stands."""
    await queries.show_purchase(work, message)
