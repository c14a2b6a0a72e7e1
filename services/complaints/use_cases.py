"""What complaints does when asked: load, decide, save, say."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

from services.complaints.domain import (
    CHANGING,
    CLOSED,
    Filing,
    Order,
    Step,
    check_filing,
    filing_number,
    is_same_step,
    move,
    pass_deadline,
    start,
    submitted_on,
)
from services.complaints.queries import view
from services.complaints.routing import load_hotlines, route
from services.complaints.tables import FilingRow, OrderRow, StepRow
from shared.contracts.complaints import FileComplaint, FilingDeadline, FilingMoved, MoveFiling
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import ResumeReleases, SuspendReleases
from shared.contracts.orders import PurchaseEnrolled
from shared.messaging.work import UnitOfWork
from shared.policy import ComplaintClocks, policy_for
from shared.sealing import encrypt_at_rest, keyed_hash

_HOTLINES: Final = {(row.department, row.category.value): row.hotline for row in load_hotlines().values()}
"""Number by (department, category): one department may answer two categories under different numbers."""


class Content(BaseModel):
    """What a person wrote, as it is encrypted. An institution's name may be a person's (上门家教)."""

    institution_name: str
    text: str


async def remember_orders(work: UnitOfWork, messages: Sequence[Message[PurchaseEnrolled]]) -> None:
    """Keeps whose orders they are; told again, nothing changes."""
    orders = {m.data.order_id: Order(m.data.order_id, m.data.account_id) for m in messages}
    work.insert(OrderRow, [orders[key] for key in sorted(orders)], ignore_existing=True)


async def file(work: UnitOfWork, message: Message[FileComplaint]) -> None:
    """Files a complaint or report, routed to its department; a complaint on an order holds its further releases."""
    asked, account_id = message.data, _guardian(work, message)
    # Defaults are left out, so that a field added to the contract later does not make an old filing another one.
    content_hash = keyed_hash(work.ring, f"{account_id} {asked.model_dump_json(exclude_defaults=True)}")
    known = (await work.load(FilingRow, Filing, [asked.filing_id])).get(asked.filing_id)
    if known is not None:
        if known.content_hash != content_hash:
            raise Refused("idempotency_conflict")
        work.reply(message, view(known, with_order=True))
        return
    order_ids = [asked.order_id] if asked.order_id else []
    orders = await work.load(OrderRow, Order, order_ids, lock=False)
    check_filing(asked, account_id, orders.get(asked.order_id))
    line = route(asked.area, asked.category)
    filing = Filing(
        filing_id=asked.filing_id,
        number=filing_number(asked.kind, keyed_hash(work.ring, f"number {asked.filing_id}"), submitted_on(work.now)),
        kind=asked.kind,
        type=asked.type,
        area=line.area.value,
        category=line.category.value,
        department=line.department,
        hotline=line.hotline,
        account_id=account_id,
        order_id=asked.order_id,
        content=encrypt_at_rest(work.ring, Content(institution_name=asked.institution_name, text=asked.text)),
        content_hash=content_hash,
        state="submitted",
        state_reason="",
        submitted_at=work.now,
        act_by=None,
    )
    step = start(filing, _clocks(work, filing), work.now)
    work.insert(FilingRow, [filing])
    work.insert(StepRow, [step])
    if filing.order_id:
        work.send(SuspendReleases(order_id=filing.order_id, complaint_id=filing.filing_id), message)
    _tell(work, filing, message)
    work.reply(message, view(filing, with_order=True))


async def move_on(work: UnitOfWork, message: Message[MoveFiling]) -> None:
    """The authority takes a filing one step on; what closes a complaint lets its order's releases go on."""
    actor = work.actor(message, "authority")
    asked = message.data
    filing = await _existing(work, asked.filing_id)
    if not is_same_step(filing, asked.state, asked.reason, asked.transferred_to):
        hotline = _HOTLINES.get((asked.transferred_to, filing.category), "")
        step = move(
            filing,
            asked.state,
            asked.reason,
            to=(asked.transferred_to, hotline) if asked.transferred_to else None,
            decided_by=actor.subject,
            clocks=_clocks(work, filing),
            now=work.now,
        )
        await _save(work, filing, step)
        if filing.state in CLOSED and filing.order_id:
            work.send(ResumeReleases(order_id=filing.order_id, complaint_id=filing.filing_id), message)
        _tell(work, filing, message)
    work.reply(message, view(filing, with_order=True))


async def deadline(work: UnitOfWork, message: Message[FilingDeadline]) -> None:
    """A clock has run out: said once, and a new one runs. A timer that comes late finds nothing to do."""
    found = await work.load(FilingRow, Filing, [message.data.filing_id])
    filing = found.get(message.data.filing_id)
    if filing is None:
        return
    step = pass_deadline(filing, message.data.state, _clocks(work, filing), work.now)
    if step is not None:
        await _save(work, filing, step)
        _tell(work, filing, message, overdue=True)


def _guardian(work: UnitOfWork, message: Message[Any]) -> UUID | None:
    """The account of a signed-in guardian. No token, or one of another role: nobody. A bad token is refused."""
    if not message.actortoken:
        return None
    actor = work.actor(message)
    return UUID(actor.subject) if actor.role == "guardian" else None


def _clocks(work: UnitOfWork, filing: Filing) -> ComplaintClocks:
    """The clocks of today where the filing is handled."""
    return policy_for(filing.area, filing.category, submitted_on(work.now)).complaints


async def _existing(work: UnitOfWork, filing_id: UUID) -> Filing:
    found = await work.load(FilingRow, Filing, [filing_id])
    if filing_id not in found:
        raise Refused("complaint_unknown")
    return found[filing_id]


async def _save(work: UnitOfWork, filing: Filing, step: Step) -> None:
    work.update(FilingRow, [filing], *CHANGING)
    work.insert(StepRow, [step])


def _tell(work: UnitOfWork, filing: Filing, cause: Message[Any], *, overdue: bool = False) -> None:
    """Tells what has happened, and sets or cancels the one timer of the filing."""
    work.send(
        FilingMoved(
            filing_id=filing.filing_id,
            number=filing.number,
            kind=filing.kind,
            account_id=filing.account_id,
            order_id=filing.order_id,
            state=filing.state,
            department=filing.department,
            hotline=filing.hotline,
            overdue=overdue,
        ),
        cause,
    )
    if filing.act_by is None:
        work.cancel_timer(FilingDeadline, filing.filing_id)
    else:
        work.set_timer(FilingDeadline(filing_id=filing.filing_id, state=filing.state), filing.act_by, cause)
