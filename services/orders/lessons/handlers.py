"""What lessons hear: institutions, guardians, escrow's events, their own deadlines."""

from collections.abc import Sequence
from typing import Any

from services.orders.lessons import use_cases
from shared.contracts.envelope import Message
from shared.messaging.handlers import Handlers
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(*use_cases.DECISIONS)
async def on_lesson(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Institutions file lessons as taught, guardians answer or are silent, fees are paid out or come back."""
    await use_cases.decide(work, messages)
