"""What lessons hear: institutions, guardians, escrow's events, their own deadlines."""

from collections.abc import Sequence

from services.orders.lessons import use_cases
from shared.contracts.envelope import Message
from shared.contracts.escrow import PayoutReturned, Settled
from shared.contracts.orders import ApplyLesson, ConfirmLesson, LessonDeadline, ObjectLesson
from shared.messaging.handlers import Handlers
from shared.messaging.work import UnitOfWork

handlers = Handlers("orders")


@handlers.on(ApplyLesson)
async def on_apply_lesson(work: UnitOfWork, messages: Sequence[Message[ApplyLesson]]) -> None:
    """Institutions file lessons as taught."""
    await use_cases.apply_lessons(work, messages)


@handlers.on(ConfirmLesson)
async def on_confirm_lesson(work: UnitOfWork, messages: Sequence[Message[ConfirmLesson]]) -> None:
    """Guardians confirm."""
    await use_cases.confirm_lessons(work, messages)


@handlers.on(ObjectLesson)
async def on_object_lesson(work: UnitOfWork, messages: Sequence[Message[ObjectLesson]]) -> None:
    """Guardians object."""
    await use_cases.object_to_lessons(work, messages)


@handlers.on(LessonDeadline)
async def on_lesson_deadline(work: UnitOfWork, messages: Sequence[Message[LessonDeadline]]) -> None:
    """Guardians are silent."""
    await use_cases.deadlines(work, messages)


@handlers.on(Settled)
async def on_settled(work: UnitOfWork, messages: Sequence[Message[Settled]]) -> None:
    """Fees were paid out."""
    await use_cases.settled(work, messages)


@handlers.on(PayoutReturned)
async def on_payout_returned(work: UnitOfWork, messages: Sequence[Message[PayoutReturned]]) -> None:
    """Paid fees came back."""
    await use_cases.payouts_returned(work, messages)
