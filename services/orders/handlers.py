"""All that orders hears: the handlers of its parts, and what more than one of them hears."""

from collections.abc import Sequence
from typing import Any

from services.orders.families.handlers import handlers as families
from services.orders.invoices.handlers import handlers as invoices
from services.orders.lessons import use_cases as lessons
from services.orders.objections.handlers import handlers as objections
from services.orders.purchases import use_cases as purchases
from services.orders.purchases.handlers import handlers as of_purchases
from services.orders.refunds import use_cases as refunds
from services.orders.refunds.handlers import handlers as of_refunds
from services.orders.views.handlers import handlers as of_views
from shared.contracts.envelope import Message, Problem
from shared.contracts.escrow import Refunded
from shared.messaging.handlers import Handlers
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")
handlers.include(families)
handlers.include(of_purchases)
handlers.include(objections)
handlers.include(invoices)
handlers.include(of_refunds)
handlers.include(of_views)


@handlers.on(*lessons.HEARD)
async def on_lesson(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Institutions file lessons as taught, guardians answer or are silent; objections are answered and decided; fees
    are paid out or come back. Lesson 0 is no lesson: it is what an institution keeps of a refund."""
    if of_lessons := [message for message in messages if message.data.lesson_no]:
        await lessons.decide(work, of_lessons)
    if kept := [message for message in messages if not message.data.lesson_no]:
        await refunds.kept(work, kept)


@handlers.on(Refunded)
async def on_refunded(work: UnitOfWork, messages: Sequence[Message[Refunded]]) -> None:
    """Money went back: a purchase that was given up ends, a refund of a paid order is over. A divided lesson's part
    was decided before."""
    of_orders = [message for message in messages if not message.data.lesson_no]
    await purchases.move(work, of_orders)
    await refunds.paid(work, of_orders)


@handlers.on(Problem)
async def on_problem(work: UnitOfWork, messages: Sequence[Message[Problem]]) -> None:
    """A command was refused: of a purchase's step, or of a refund."""
    await purchases.move(work, messages)
    await refunds.refused(work, messages)
