"""The outbox and the timers: everything a transaction wants said, written with it."""

from typing import Final

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from shared.messaging.work import OutboxRow, TimerRow, UnitOfWork

CHANNEL: Final = "yike_outbox"

_INSERT: Final = text("""
INSERT INTO outbox (id, topic, key, partition, type, correlationid, replyto, traceparent, body, created_at)
SELECT * FROM unnest(CAST(:id AS uuid[]), CAST(:topic AS text[]), CAST(:key AS text[]), CAST(:partition AS smallint[]),
  CAST(:type AS text[]), CAST(:correlationid AS uuid[]), CAST(:replyto AS text[]), CAST(:traceparent AS text[]),
  CAST(:body AS text[]), CAST(:created_at AS timestamptz[]))
""")

_SET_TIMERS: Final = text("""
INSERT INTO timers (type, subject, id, due_at, data, key, correlationid, causationid, traceparent)
SELECT * FROM unnest(CAST(:type AS text[]), CAST(:subject AS text[]), CAST(:id AS uuid[]),
  CAST(:due_at AS timestamptz[]), CAST(:data AS text[]), CAST(:key AS text[]), CAST(:correlationid AS uuid[]),
  CAST(:causationid AS uuid[]), CAST(:traceparent AS text[]))
ON CONFLICT (type, subject) DO UPDATE SET id = excluded.id, due_at = excluded.due_at, data = excluded.data,
  key = excluded.key, correlationid = excluded.correlationid, causationid = excluded.causationid,
  traceparent = excluded.traceparent
""")

# One type at a time: an index condition on both columns, whatever the planner thinks it knows of a table that grows and
# shrinks by the second. (A join with unnest was once planned as a nested loop over the whole table, twice.)
_CANCEL_TIMERS: Final = text("DELETE FROM timers WHERE type = :type AND subject = ANY(CAST(:subjects AS text[]))")

_OUTBOX_COLUMNS: Final = tuple(OutboxRow.__slots__)
_TIMER_COLUMNS: Final = tuple(TimerRow.__slots__)


async def write_outbox(session: AsyncSession, rows: list[OutboxRow]) -> None:
    """Inserts `rows` in their order in one statement."""
    if rows:
        columns = {name: [getattr(row, name) for row in rows] for name in _OUTBOX_COLUMNS}
        await (await session.connection()).execute(_INSERT, columns)


async def write_timers(session: AsyncSession, wanted: list[TimerRow]) -> None:
    """Sets and cancels timers; of several wishes for one (type, subject) the last one counts."""
    last = {(timer.type, timer.subject): timer for timer in wanted}
    ordered = [last[key] for key in sorted(last)]
    cancelled: dict[str, list[str]] = {}
    for timer in ordered:
        if timer.due_at is None:
            cancelled.setdefault(timer.type, []).append(timer.subject)
    kept = [timer for timer in ordered if timer.due_at is not None]
    connection = await session.connection() if ordered else None
    for type_, subjects in cancelled.items():
        assert connection is not None
        await connection.execute(_CANCEL_TIMERS, {"type": type_, "subjects": subjects})
    if kept and connection:
        columns = {name: [getattr(timer, name) for timer in kept] for name in _TIMER_COLUMNS}
        await connection.execute(_SET_TIMERS, columns)


async def flush(work: UnitOfWork) -> None:
    """Writes what `work` has collected, in its transaction."""
    await write_outbox(work.session, work.outbox)
    await write_timers(work.session, work.timers)
