"""What lessons and the objections to them hear: institutions, guardians, authorities, escrow's events, deadlines."""

from collections.abc import Sequence
from typing import Any

from services.orders.lessons import use_cases
from shared.contracts.envelope import Message
from shared.messaging.handlers import Handlers
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(*use_cases.HEARD)
async def on_lesson(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Institutions file lessons as taught, guardians answer or are silent; objections are answered and decided; fees
    are paid out or come back."""
    await use_cases.decide(work, messages)
