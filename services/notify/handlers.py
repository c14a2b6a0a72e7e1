"""What notify hears."""

from collections.abc import Sequence

from services.notify import codes, reminders, use_cases
from shared.contracts.complaints import FilingMoved
from shared.contracts.envelope import Message
from shared.contracts.escrow import PayoutReturned, Refunded, Settled, SettlementDelayed
from shared.contracts.notify import CheckCode, NameContact, SendCode, SetContact
from shared.contracts.orders import (
    ContractDrawn,
    LessonApplied,
    LessonConfirmed,
    LessonObjected,
    LessonWaiting,
    RefundMoved,
)
from shared.messaging.handlers import Handlers
from shared.messaging.work import UnitOfWork

handlers = Handlers("notify")


@handlers.on(SendCode)
async def on_send_code(work: UnitOfWork, messages: Sequence[Message[SendCode]]) -> None:
    """A code by SMS. Public: whoever asks has no account yet, or is not signed in."""
    await codes.send_codes(work, messages)


@handlers.on(CheckCode)
async def on_check_code(work: UnitOfWork, messages: Sequence[Message[CheckCode]]) -> None:
    """A code as typed. A batch and not `each`: a wrong try is counted although the answer is a refusal."""
    await codes.check_codes(work, messages)


@handlers.on(SetContact)
async def on_set_contact(work: UnitOfWork, messages: Sequence[Message[SetContact]]) -> None:
    """The phone of an account, from orders."""
    await use_cases.set_contacts(work, messages)


@handlers.on(NameContact)
async def on_name_contact(work: UnitOfWork, messages: Sequence[Message[NameContact]]) -> None:
    """The phone of an institution, from itself."""
    await use_cases.name_contacts(work, messages)


@handlers.on(ContractDrawn)
async def on_contract_drawn(work: UnitOfWork, messages: Sequence[Message[ContractDrawn]]) -> None:
    """A contract waits for its signature."""
    await use_cases.remind(work, [reminders.contract_waiting(message, work.now) for message in messages])


@handlers.on(LessonApplied)
async def on_lesson_applied(work: UnitOfWork, messages: Sequence[Message[LessonApplied]]) -> None:
    """A lesson waits for its confirmation."""
    await use_cases.remind(work, [reminders.lesson_waiting(message, work.now) for message in messages])


@handlers.on(LessonWaiting)
async def on_lesson_waiting(work: UnitOfWork, messages: Sequence[Message[LessonWaiting]]) -> None:
    """A lesson still waits. What was to be said of that before and was not sent yet is overtaken."""
    await use_cases.drop_overtaken(work, messages)
    await use_cases.remind(work, [reminders.lesson_waiting(message, work.now) for message in messages])


@handlers.on(LessonConfirmed)
async def on_lesson_confirmed(work: UnitOfWork, messages: Sequence[Message[LessonConfirmed]]) -> None:
    """A lesson waits no more. A guardian who was silent is told what that means."""
    await use_cases.drop_answered(work, messages, use_cases.EVERY_REMINDER)
    await use_cases.remind(work, [reminders.lesson_auto_confirmed(message, work.now) for message in messages])


@handlers.on(LessonObjected)
async def on_lesson_objected(work: UnitOfWork, messages: Sequence[Message[LessonObjected]]) -> None:
    """The guardian has answered: nothing is to be said, and what was to be said is overtaken."""
    await use_cases.drop_answered(work, messages, use_cases.EVERY_REMINDER)


@handlers.on(Settled)
async def on_settled(work: UnitOfWork, messages: Sequence[Message[Settled]]) -> None:
    """A lesson's fee was paid out; the lesson waits for nobody any more. Its later reminders, if there were any, were
    dropped when it was confirmed: here, where every lesson comes by, one look has to do."""
    await use_cases.drop_answered(work, messages)
    await use_cases.remind(work, [reminders.lesson_settled(message, work.now) for message in messages])


@handlers.on(Refunded)
async def on_refunded(work: UnitOfWork, messages: Sequence[Message[Refunded]]) -> None:
    """The rest of an order went back to the guardian."""
    await use_cases.remind(work, [reminders.order_refunded(message, work.now) for message in messages])


@handlers.on(PayoutReturned)
async def on_payout_returned(work: UnitOfWork, messages: Sequence[Message[PayoutReturned]]) -> None:
    """A payout came back to escrow: its institution is told."""
    await use_cases.remind(work, [reminders.payout_returned(message, work.now) for message in messages])


@handlers.on(SettlementDelayed)
async def on_settlement_delayed(work: UnitOfWork, messages: Sequence[Message[SettlementDelayed]]) -> None:
    """A gathered payout came back to escrow, or was refused."""
    await use_cases.remind(work, [reminders.settlement_returned(message, work.now) for message in messages])


@handlers.on(RefundMoved)
async def on_refund_moved(work: UnitOfWork, messages: Sequence[Message[RefundMoved]]) -> None:
    """A refund moved on."""
    await use_cases.remind(work, [reminders.refund_moved(message, work.now) for message in messages])


@handlers.on(FilingMoved)
async def on_filing_moved(work: UnitOfWork, messages: Sequence[Message[FilingMoved]]) -> None:
    """A complaint moved on; an anonymous one has nobody to be told."""
    await use_cases.remind(work, [reminders.complaint_moved(message, work.now) for message in messages])
