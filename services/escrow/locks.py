"""The rows of a whole poll, locked at once and in one order everywhere: accounts, settlements, money in suspense.

Commands, results of banks and timers of the same orders come on different topics, so two copies of escrow may have them
at the same time. One message after the other they would lock as they come, and each copy could hold what the other asks
for next: PostgreSQL ends one of the two after a second, and its batch is tried again.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from services.escrow import freezes, ledger, settlements
from services.escrow.domain import Settlement, Suspense, purpose_of, settlement_of
from services.escrow.tables import SettlementRow, SuspenseRow
from shared.contracts.bank import Result
from shared.contracts.envelope import Message
from shared.contracts.escrow import BookSettlement, ThawPayouts
from shared.messaging.work import UnitOfWork


async def take(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Locks what these messages name, and the accounts of what follows from them in the same transaction."""
    orders, sums, receipts = set[UUID](), set[UUID](), set[UUID]()
    for message in messages:
        data = message.data
        if isinstance(data, Result):  # what it is about stands in its number
            if number := settlement_of(data.number):
                sums.add(number[0])
            elif purpose := purpose_of(data.number):
                (receipts if purpose.kind == "return" else orders).add(purpose.order_id)
            continue
        for ids, name in ((orders, "order_id"), (sums, "settlement_id"), (receipts, "receipt_id")):
            if id_ := getattr(data, name, None):
                ids.add(id_)
        if isinstance(data, BookSettlement):
            orders |= {order_id for order_id, _ in await settlements.next_lessons(work, data)}
        elif isinstance(data, ThawPayouts):
            orders |= set(await freezes.next_orders(work, data))
    await ledger.accounts_of(work, list(orders))
    await work.load(SettlementRow, Settlement, sums)
    await work.load(SuspenseRow, Suspense, receipts)
