"""Breaks (对账差异): what people do about them, and when they are overdue. One operator says why, another agrees."""

from datetime import date, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from services.escrow.reconcile import Connection, connection_of, overdue_from
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import (
    Break,
    BreakDeadline,
    BreakPage,
    BreaksOverdue,
    BreakView,
    ListBreaks,
    ProposeBreak,
    ResolveBreak,
)
from shared.messaging.work import UnitOfWork
from shared.working_days import MAX_WORKING_DAYS, add_working_days, is_working_day, shanghai

_ONE: Final = "SELECT * FROM breaks WHERE break_id = $1 FOR UPDATE"
_PAGE: Final = """
SELECT * FROM breaks WHERE state IN ('open', 'proposed') AND ($1 = '' OR bank = $1) AND ($2::date IS NULL OR day = $2)
  AND ($3::uuid IS NULL OR (first_seen, break_id) > (SELECT first_seen, break_id FROM breaks WHERE break_id = $3))
ORDER BY first_seen, break_id LIMIT $4
"""
_PROPOSE: Final = """
UPDATE breaks SET state = 'proposed', reason = $2, proposed_by = $3, changed_at = $4 WHERE break_id = $1 RETURNING *
"""
_RESOLVE: Final = """
UPDATE breaks SET state = 'resolved', resolved_by = $2, changed_at = $3 WHERE break_id = $1 RETURNING *
"""
_LEFT: Final = """
SELECT count(*)::int AS breaks, min(first_seen) AS first_seen FROM breaks
WHERE bank = $1 AND day = $2 AND state IN ('open', 'proposed')
"""


def age_working_days(first_seen: datetime, now: datetime) -> int:
    """Working days since the day on which a break was seen first, which does not count; at most a year's."""
    first, last = shanghai(first_seen).date(), shanghai(now).date()
    last = min(last, first + timedelta(days=2 * MAX_WORKING_DAYS))
    return sum(is_working_day(first + timedelta(days=n)) for n in range(1, (last - first).days + 1))


async def list_breaks(work: UnitOfWork, message: Message[ListBreaks]) -> None:
    """The breaks nobody has resolved, oldest first."""
    work.actor(message, "operator", "authority")
    ask = message.data
    page = await page_of(await connection_of(work), work.now, ask.bank, ask.day, ask.after, ask.limit)
    work.reply(message, page, keep=False)


async def page_of(
    connection: Connection, now: datetime, bank: str, day: date | None, after: UUID | None, limit: int
) -> BreakPage:
    """A page of unresolved breaks."""
    rows = await connection.fetch(_PAGE, bank, day, after, limit + 1)
    shown = tuple(_shown(row, now) for row in rows[:limit])
    return BreakPage(breaks=shown, next_after=shown[-1].break_id if len(rows) > limit else None)


async def propose(work: UnitOfWork, message: Message[ProposeBreak]) -> None:
    """Somebody says why a break may be laid to rest; said again, by anybody, it replaces what was said.

    Refused: break_unknown, break_state.
    """
    actor = work.actor(message, "operator")
    connection = await connection_of(work)
    await _unresolved(connection, message.data.break_id)
    row = await connection.fetchrow(_PROPOSE, message.data.break_id, message.data.reason, actor.subject, work.now)
    assert row is not None
    work.reply(message, BreakView(found=_shown(row, work.now)))


async def resolve(work: UnitOfWork, message: Message[ResolveBreak]) -> None:
    """Somebody else agrees [ours: 双人复核]. Refused: break_unknown, break_state, break_second_person."""
    actor = work.actor(message, "operator")
    connection = await connection_of(work)
    row = await _unresolved(connection, message.data.break_id)
    if row["state"] != "proposed":
        raise Refused("break_state", "nobody has said why yet", state=row["state"])
    if row["proposed_by"] == actor.subject:
        raise Refused("break_second_person")
    resolved = await connection.fetchrow(_RESOLVE, message.data.break_id, actor.subject, work.now)
    assert resolved is not None
    work.reply(message, BreakView(found=_shown(resolved, work.now)))


async def _unresolved(connection: Connection, break_id: UUID) -> asyncpg.Record:
    row = await connection.fetchrow(_ONE, break_id)
    if row is None:
        raise Refused("break_unknown")
    if row["state"] not in ("open", "proposed"):
        raise Refused("break_state", state=row["state"])
    return row


async def break_deadline(work: UnitOfWork, message: Message[BreakDeadline]) -> None:
    """The breaks of a day should be resolved by now: if they are not, everybody is told, every working day."""
    due = message.data
    row = await (await connection_of(work)).fetchrow(_LEFT, due.bank, due.day)
    assert row is not None
    if not row["breaks"]:
        return
    age = age_working_days(row["first_seen"], work.now)
    if overdue_from(row["first_seen"], work.now) <= work.now:
        work.send(BreaksOverdue(bank=due.bank, day=due.day, breaks=row["breaks"], age_working_days=age), message)
    work.set_timer(due, add_working_days(work.now, 1), message, subject=f"{due.bank}:{due.day}")


def _shown(row: asyncpg.Record, now: datetime) -> Break:
    age = age_working_days(row["first_seen"], now)
    overdue = row["state"] in ("open", "proposed") and overdue_from(row["first_seen"], now) <= now
    values = {name: row[name] for name in row.keys() & Break.model_fields.keys()}
    return Break(**values, age_working_days=age, overdue=overdue)
