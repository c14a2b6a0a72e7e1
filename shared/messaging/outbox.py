"""The outbox and the timers: everything a transaction wants said, written with it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from shared.messaging.sets import NOTHING, Write

CHANNEL: Final = "yike_outbox"
OLDEST: Final = """
SELECT coalesce(extract(epoch FROM yike_now() - min(created_at)), 0)::float8
FROM outbox WHERE seq = (SELECT min(seq) FROM unsent)
"""
"""The age of the oldest message that is not published yet, in seconds."""


@dataclass(slots=True)
class OutboxRow:
    """A message to publish. `partition` only for an answer to one copy of a gateway."""

    id: UUID
    topic: str
    key: str
    partition: int | None
    type: str
    correlationid: UUID
    replyto: str
    traceparent: str
    body: str


@dataclass(slots=True)
class TimerRow:
    """A timer to set (`due_at` given) or to cancel (`due_at` None)."""

    type: str
    subject: str
    id: UUID
    due_at: datetime | None
    data: str
    key: str
    correlationid: UUID
    causationid: UUID | None
    traceparent: str


_INSERT: Final = """
INSERT INTO outbox (id, topic, key, partition, type, correlationid, replyto, traceparent, body, created_at)
SELECT * FROM unnest(CAST(:@id AS uuid[]), CAST(:@topic AS text[]), CAST(:@key AS text[]),
  CAST(:@partition AS smallint[]), CAST(:@type AS text[]), CAST(:@correlationid AS uuid[]),
  CAST(:@replyto AS text[]), CAST(:@traceparent AS text[]), CAST(:@body AS text[])), yike_now()
RETURNING seq
"""
_WAIT: Final = "INSERT INTO unsent (seq) SELECT seq FROM _outbox"

_SET_TIMERS: Final = """
INSERT INTO timers (type, subject, id, due_at, data, key, correlationid, causationid, traceparent)
SELECT * FROM unnest(CAST(:@type AS text[]), CAST(:@subject AS text[]), CAST(:@id AS uuid[]),
  CAST(:@due_at AS timestamptz[]), CAST(:@data AS text[]), CAST(:@key AS text[]), CAST(:@correlationid AS uuid[]),
  CAST(:@causationid AS uuid[]), CAST(:@traceparent AS text[]))
ON CONFLICT (type, subject) DO UPDATE SET id = excluded.id, due_at = excluded.due_at, data = excluded.data,
  key = excluded.key, correlationid = excluded.correlationid, causationid = excluded.causationid,
  traceparent = excluded.traceparent
WHERE (timers.due_at, timers.data, timers.key) IS DISTINCT FROM (excluded.due_at, excluded.data, excluded.key)
"""

_CANCEL_TIMERS: Final = """
DELETE FROM timers t USING unnest(CAST(:@type AS text[]), CAST(:@subject AS text[])) AS u (type, subject)
WHERE t.type = u.type AND t.subject = u.subject
"""

_OUTBOX_COLUMNS: Final = tuple(OutboxRow.__slots__)
_TIMER_COLUMNS: Final = tuple(TimerRow.__slots__)


def _columns(names: Iterable[str], rows: Sequence[Any]) -> dict[str, list[Any]]:
    return {name: list(map(attrgetter(name), rows)) for name in names}


def messages(rows: Sequence[OutboxRow]) -> tuple[Write, Write]:
    """Inserts `rows` in their order, to be published."""
    if not rows:
        return NOTHING, NOTHING
    return Write("outbox", _INSERT, _columns(_OUTBOX_COLUMNS, rows)), Write("unsent", _WAIT, {})


def timers(wanted: Iterable[TimerRow]) -> tuple[Write, Write]:
    """Cancels and sets timers; of several wishes for one (type, subject) the last one counts.

    One that stands as it is wanted is left alone, so deciding the same again changes nothing.
    """
    last = {(timer.type, timer.subject): timer for timer in wanted}
    ordered = [last[key] for key in sorted(last)]
    cancelled = [timer for timer in ordered if timer.due_at is None]
    kept = [timer for timer in ordered if timer.due_at is not None]
    return (
        Write("timers_cancelled", _CANCEL_TIMERS, _columns(("type", "subject"), cancelled)) if cancelled else NOTHING,
        Write("timers_set", _SET_TIMERS, _columns(_TIMER_COLUMNS, kept)) if kept else NOTHING,
    )
