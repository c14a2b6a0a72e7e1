"""The ledger: the only writer of balances.

Transfers are double entries in one row and never change; balances are kept beside them, in one row per order, so that
strangers never contend and the law of escrow is a CHECK of that row (docs/adr/0002). `post` takes any number of
transfers of any number of orders and writes them in two statements.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from services.escrow.domain import Account, Transfer
from services.escrow.tables import AccountRow, TransferRow
from shared.messaging.work import UnitOfWork

_CHANGING: Final = (
    "state",
    "reason",
    "paid_reference",
    "suspensions",
    "paid_fen",
    "held_fen",
    "releasing_fen",
    "released_fen",
    "refunding_fen",
    "refunded_fen",
)
_GIVEN_BACK: Final = ("given_back",)


async def accounts_of(work: UnitOfWork, order_ids: Sequence[UUID]) -> dict[UUID, Account]:
    """The accounts of `order_ids`, locked in id order until the commit; orders that have none are left out."""
    return await work.load(AccountRow, Account, order_ids)


def post(
    work: UnitOfWork, transfers: Sequence[Transfer], accounts: Mapping[UUID, Account], *, given_back: bool = False
) -> None:
    """Writes `transfers`, which the rules have applied to `accounts` already, and the accounts they changed;
    `given_back` too where lessons were given back: no release does that.

    The database refuses what the rules must never let through: a second transfer of one cause (primary key), an
    overdraft or an account out of balance (CHECK). Such a batch fails as a whole and its messages are tried alone.
    """
    work.insert(TransferRow, transfers)
    work.update(AccountRow, [accounts[key] for key in sorted(accounts)], *_CHANGING, *_GIVEN_BACK[:given_back])
