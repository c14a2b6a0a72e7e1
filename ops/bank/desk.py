"""The bank's counter: what operators and tests do there directly, beside the messages. Each takes the bank's DSN."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
from sqlmodel.ext.asyncio.session import AsyncSession

from ops.bank.behaviour import Name
from ops.bank.book import Account, Entry, money_in, told
from ops.bank.tables import AccountRow, EntryRow
from shared.clock import now
from shared.contracts.bank import InstructionKind, Result
from shared.contracts.envelope import encode
from shared.database import Database
from shared.ids import new_id
from shared.messaging import outbox, sets
from shared.messaging.outbox import OutboxRow
from shared.messaging.trace import new_traceparent

MOST_ENTRIES: Final = 1000
"""Most entries of one statement; the next page begins `after` the last."""

_ADD: Final = """
INSERT INTO behaviours (id, name, kind, order_id, number_prefix, percentage, times_left, seconds, delta_fen, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_CLEAR: Final = """
UPDATE behaviours SET times_left = 0
WHERE (times_left IS NULL OR times_left > 0) AND ($1::uuid IS NULL OR order_id = $1) AND ($2::uuid IS NULL OR id = $2)
"""
_BALANCES: Final = """
SELECT bank, account, balance_fen FROM accounts WHERE $1 = '' OR bank = $1 ORDER BY bank, account
"""
_ENTRIES: Final = """
SELECT bank, number, step, order_id, kind, outcome, amount_fen, from_account, to_account, refund_of, reference, reason,
       happened_at
FROM entries
WHERE ($1 = '' OR bank = $1) AND ($2::timestamptz IS NULL OR happened_at >= $2)
  AND ($3::timestamptz IS NULL OR happened_at < $3)
  AND ($4::timestamptz IS NULL OR (happened_at, bank, number, step) > ($4, $5::text, $6::text, $7::int))
ORDER BY happened_at, bank, number, step LIMIT $8
"""
_OUT_OF_BALANCE: Final = """
WITH moves AS (
  SELECT bank, to_account AS account, amount_fen FROM entries WHERE outcome IN ('paid', 'returned')
  UNION ALL
  SELECT bank, from_account, -amount_fen FROM entries WHERE outcome IN ('paid', 'returned')),
sums AS (SELECT bank, account, sum(amount_fen) AS fen FROM moves WHERE account <> '' GROUP BY bank, account)
SELECT coalesce(a.bank, s.bank) AS bank, coalesce(a.account, s.account) AS account,
       coalesce(a.balance_fen, 0) AS balance_fen, coalesce(s.fen, 0)::bigint AS entries_fen
FROM accounts a FULL JOIN sums s ON s.bank = a.bank AND s.account = a.account
WHERE coalesce(a.balance_fen, 0) <> coalesce(s.fen, 0) ORDER BY 1, 2
"""
Place = tuple[datetime, str, str, int]
"""Where a page of entries ended: (happened_at, bank, number, step)."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The bank's statement (对账单): balances now, and entries oldest first. `next_after`: there may be more."""

    balances: tuple[Account, ...]
    entries: tuple[Entry, ...]
    next_after: Place | None

    def balance_fen(self, account: str) -> int:
        """What stands on an account, over all banks; zero if there is none."""
        return sum(one.balance_fen for one in self.balances if one.account == account)


async def set_behaviour(
    dsn: str,
    name: Name,
    *,
    kind: InstructionKind | None = None,
    order_id: UUID | None = None,
    number_prefix: str = "",
    percentage: int = 100,
    times: int | None = 1,
    seconds: float = 0.0,
    delta_fen: int = 0,
    reason: str = "",
) -> UUID:
    """The next `times` (None: all, until cleared) instructions that match are met with `name`; see `behaviour.Name`."""
    behaviour_id = new_id()
    async with _connected(dsn) as connection:
        await connection.execute(
            _ADD,
            behaviour_id,
            name,
            kind or "",
            order_id,
            number_prefix,
            percentage,
            times,
            float(seconds),
            delta_fen,
            reason,
        )
    return behaviour_id


async def clear_behaviours(dsn: str, order_id: UUID | None = None, *, behaviour_id: UUID | None = None) -> None:
    """Ends all behaviours, those of one order, or one. What was put off already still comes."""
    async with _connected(dsn) as connection:
        await connection.execute(_CLEAR, order_id, behaviour_id)


async def statement(
    dsn: str,
    *,
    bank: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    after: Place | None = None,
    limit: int = MOST_ENTRIES,
) -> Statement:
    """Balances of all accounts (of `bank`) now, and the entries of [since, until), one page of them."""
    limit = min(limit, MOST_ENTRIES)
    async with _connected(dsn) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        balances = await connection.fetch(_BALANCES, bank)
        place = after or (None, None, None, None)
        rows = await connection.fetch(_ENTRIES, bank, since, until, *place, limit)
    entries = tuple(Entry(*row) for row in rows)
    last = entries[-1] if len(entries) == limit else None
    return Statement(
        balances=tuple(Account(*row) for row in balances),
        entries=entries,
        next_after=(last.happened_at, last.bank, last.number, last.step) if last else None,
    )


async def out_of_balance(dsn: str) -> list[str]:
    """The proof of the book: every account whose balance is not the sum of its entries. None is right."""
    async with _connected(dsn) as connection:
        rows = await connection.fetch(_OUT_OF_BALANCE)
    return [f"{r['bank']} {r['account']}: {r['balance_fen']} fen, entries {r['entries_fen']} fen" for r in rows]


async def unsolicited(
    dsn: str,
    *,
    bank: str,
    supervised_account: str,
    amount_fen: int,
    number: str = "",
    order_id: UUID | None = None,
) -> Result:
    """Money comes in that nobody asked for, and the running bank tells of it.

    With a `number` known already (of an order): money for it once more, or late.
    """
    number = number or f"X{new_id().hex[:29]}"
    database = Database(dsn, pool_size=1)
    try:
        async with database.session() as session, session.begin():
            result = await _take_in(session, bank, supervised_account, amount_fen, number, order_id)
    finally:
        await database.close()
    return result


async def _take_in(
    session: AsyncSession, bank: str, account: str, amount_fen: int, number: str, order_id: UUID | None
) -> Result:
    moment, key = await now(session), (bank, account)
    await sets.write(session, sets.insert(AccountRow, [Account(bank, account)], ignore_existing=True))
    held = (await sets.load(session, AccountRow, Account, [key]))[key]
    known = await sets.load_all(session, EntryRow, Entry, [(bank, number)], by=("bank", "number"), lock=False)
    entry = money_in(bank, account, number, amount_fen, moment, step=len(known), order_id=order_id)
    held.balance_fen += amount_fen
    result = told(entry)
    await sets.write(
        session,
        sets.insert(EntryRow, [entry]),
        sets.update(AccountRow, [held], "balance_fen"),
        *outbox.messages([_spoken(result, moment)]),
    )
    return result


def _spoken(result: Result, moment: datetime) -> OutboxRow:
    """The outbox row for a result that answers nothing."""
    message_id, traceparent = new_id(), new_traceparent()
    key = str(result.order_id or result.number)
    body = encode(
        {
            "specversion": "1.0",
            "id": message_id,
            "source": "/yike/bank",
            "type": result.TYPE,
            "time": moment,
            "subject": key,
            "correlationid": message_id,
            "partitionkey": key,
            "traceparent": traceparent,
            "data": result,
        }
    )
    return OutboxRow(message_id, result.TOPIC, key, None, result.TYPE, message_id, "", traceparent, body)


@asynccontextmanager
async def _connected(dsn: str) -> "AsyncIterator[asyncpg.Connection[Any]]":
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()
