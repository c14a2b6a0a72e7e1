"""Timers: what falls due becomes one message, through the outbox, whichever copy of the service sees it first."""

import asyncio
from typing import Any, Final

import pydantic_core
import structlog
from sqlalchemy import CursorResult, text

from shared.contracts import topics
from shared.contracts.envelope import CONTRACTS, encode
from shared.database import Database, is_passing
from shared.messaging import metrics, outbox, sets
from shared.messaging.outbox import OutboxRow
from shared.messaging.relay import Relay
from shared.messaging.trace import child_traceparent
from shared.settings import Settings

log = structlog.get_logger()

POLL_S: Final = 0.5
PURGE_EVERY_S: Final = 600.0
PURGE_ROWS: Final = 20_000

# By ctid of an array made once: a sub-select that locks rows must not be run again for each row of the table.
_DUE: Final = text("""
DELETE FROM timers WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM timers WHERE due_at <= yike_now() ORDER BY due_at LIMIT :rows FOR UPDATE SKIP LOCKED))
RETURNING type, subject, id, data, key, correlationid, causationid, traceparent, due_at, yike_now() AS now
""")

_PURGES: Final = (
    text("""DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox
            WHERE created_at < yike_now() - make_interval(days => :days)
              AND NOT EXISTS (SELECT FROM unsent WHERE unsent.seq = outbox.seq) ORDER BY seq LIMIT :rows)"""),
    text("""DELETE FROM inbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM inbox
            WHERE received_at < yike_now() - make_interval(days => :days) AND parked IS NULL LIMIT :rows))"""),
)


class Timers:
    """Fires the due timers of one service and purges what is old."""

    def __init__(self, settings: Settings, service: str, database: Database, relay: Relay) -> None:
        self.settings = settings
        self.service = service
        self.database = database
        self.relay = relay

    async def run(self) -> None:
        """Fires until cancelled. Passing faults are waited out."""
        next_purge = asyncio.get_running_loop().time() + PURGE_EVERY_S
        while True:
            try:
                fired = await self.fire()
                if fired < self.settings.timer_rows:
                    await asyncio.sleep(POLL_S)
                if asyncio.get_running_loop().time() >= next_purge:
                    more = await self.purge()
                    next_purge = asyncio.get_running_loop().time() + (0.0 if more else PURGE_EVERY_S)
            except Exception as error:
                if not is_passing(error):
                    raise
                log.warning("timers wait", service=self.service, error=str(error)[:300])
                await asyncio.sleep(2 * POLL_S)

    async def fire(self) -> int:
        """One set of due timers: each row goes and its message is in the outbox, in one transaction. Returns how many.

        SKIP LOCKED lets several copies fire different sets at the same time; a row fires for one of them only.
        """
        async with self.database.session() as session, session.begin():
            rows = (await (await session.connection()).execute(_DUE, {"rows": self.settings.timer_rows})).all()
            rows = sorted(rows, key=lambda row: row.due_at)
            messages: list[OutboxRow] = []
            for row in rows:
                # Neither this service's version nor the data of a timer is judged here: one that nobody knows any more
                # must not hold up the others. It is sent, and parked by whoever cannot handle it.
                contract = CONTRACTS.get(row.type)
                trace = child_traceparent(row.traceparent)
                body = encode(
                    {
                        "specversion": "1.0",
                        "id": row.id,
                        "source": f"/yike/{self.service}/timers",
                        "type": row.type,
                        "time": row.now,
                        "subject": row.subject,
                        "correlationid": row.correlationid,
                        "causationid": row.causationid,
                        "partitionkey": row.key,
                        "traceparent": trace,
                        "data": pydantic_core.from_json(row.data),
                    }
                )
                messages.append(
                    OutboxRow(
                        id=row.id,
                        topic=contract.TOPIC if contract else topics.commands(self.service),
                        key=row.key,
                        partition=None,
                        type=row.type,
                        correlationid=row.correlationid,
                        replyto="",
                        traceparent=trace,
                        body=body,
                    )
                )
            await sets.write(session, *outbox.messages(messages))
        if rows:
            metrics.TIMERS_FIRED.labels(self.service).inc(len(rows))
            self.relay.wake()
        return len(rows)

    async def purge(self) -> bool:
        """Deletes sent outbox rows and inbox rows older than `keep_sent_days`, a bounded number at a time.

        Returns whether there may be more.
        """
        parameters = {"days": self.settings.keep_sent_days, "rows": PURGE_ROWS}
        more = False
        for statement in _PURGES:
            async with self.database.session() as session, session.begin():
                done: CursorResult[Any] = await (await session.connection()).execute(statement, parameters)
                more |= done.rowcount == PURGE_ROWS
        return more
