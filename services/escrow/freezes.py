"""Frozen institutions: their payouts wait; when they thaw, what waited goes out, once, some orders at a time."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from services.escrow import ledger, settlements
from services.escrow.payees import payees_of
from services.escrow.tables import FreezeRow
from services.escrow.use_cases import let_go_of
from shared.contracts.catalog import InstitutionFrozen, InstitutionThawed
from shared.contracts.envelope import Message
from shared.contracts.escrow import ThawPayouts
from shared.messaging.work import UnitOfWork

ORDERS_AT_ONCE: Final = 200
"""Orders thawed in one transaction."""

# By the index of what waits, whoever it waits for: there is little of it beside all that was ever released.
_WAITING: Final = text("""
SELECT DISTINCT i.order_id FROM instructions i JOIN accounts a ON a.order_id = i.order_id
WHERE i.state = 'waiting' AND a.institution_id = :institution AND a.suspensions = 0
  AND (CAST(:after AS uuid) IS NULL OR i.order_id > :after) ORDER BY i.order_id LIMIT :most
""")


@dataclass(slots=True)
class Freeze:
    """What catalog told last of an institution: `frozen`, `thawing` (what waited goes out) or `thawed`."""

    institution_id: UUID
    state: str
    change_no: int
    changed_at: datetime


async def freeze(work: UnitOfWork, message: Message[InstitutionFrozen]) -> None:
    """No payouts from now on: what is released waits. What was told before changes nothing."""
    await _note(work, message.data.institution_id, message.data.change_no, "frozen")


async def thaw(work: UnitOfWork, message: Message[InstitutionThawed]) -> None:
    """Payouts again: what waited begins to go out."""
    institution_id = message.data.institution_id
    if await _note(work, institution_id, message.data.change_no, "thawing"):
        work.send(ThawPayouts(institution_id=institution_id, change_no=message.data.change_no), message)


async def _note(work: UnitOfWork, institution_id: UUID, change_no: int, state: str) -> bool:
    known = (await work.load(FreezeRow, Freeze, [institution_id])).get(institution_id)
    told = Freeze(institution_id, state, change_no, work.now)
    if known is None:
        work.insert(FreezeRow, [told])
    elif known.change_no < change_no:
        work.update(FreezeRow, [told], "state", "change_no", "changed_at")
    else:
        return False
    return True


async def next_orders(work: UnitOfWork, ask: ThawPayouts) -> list[UUID]:
    """The orders whose payouts go out next."""
    parameters = {"institution": ask.institution_id, "after": ask.after, "most": ORDERS_AT_ONCE}
    return list((await (await work.connection()).execute(_WAITING, parameters)).scalars())


async def let_go(work: UnitOfWork, message: Message[ThawPayouts]) -> None:
    """The next orders of a thawing institution; those a complaint holds go on waiting. Frozen again: it stops."""
    ask = message.data
    known = (await work.load(FreezeRow, Freeze, [ask.institution_id])).get(ask.institution_id)
    if known is None or known.state != "thawing" or ask.change_no not in (0, known.change_no):
        return
    order_ids = await next_orders(work, ask)
    accounts = await ledger.accounts_of(work, order_ids)
    free = {order_id: account for order_id, account in accounts.items() if account.suspensions == 0}
    payees = await payees_of(work, [ask.institution_id])
    ledger.post(work, await let_go_of(work, message, free, payees), free)
    if len(order_ids) == ORDERS_AT_ONCE:
        work.send(ThawPayouts(institution_id=ask.institution_id, change_no=ask.change_no, after=order_ids[-1]), message)
    else:
        await settlements.close_what_is_open(work, ask.institution_id, message)
        known.state, known.changed_at = "thawed", work.now
        work.update(FreezeRow, [known], "state", "changed_at")
