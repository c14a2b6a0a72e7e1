"""`yike outbox`: puts back on the topics what the databases still know, after Kafka has lost its log."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from cyclopts import App, Parameter
from rich.console import Console

from ops.cli.base import DONE, USUAL, Common, local, table
from ops.cli.site import Found, check_service, clock_now, connected, rows
from ops.cli.when import moment
from ops.stack.progress import Progress
from ops.stack_layout import PART_NAMES

app = App(name="outbox", help="The record of everything the services have said; the truth behind the topics.")

BATCH_ROWS: Final = 5000
_BOUNDS: Final = """
SELECT count(*) AS rows, max(seq) AS last FROM outbox o
WHERE created_at >= $1 AND NOT EXISTS (SELECT FROM unsent u WHERE u.seq = o.seq)
"""
# By ascending seq below a fixed end: the relay publishes rows while this runs, and they are not taken twice.
_BATCH: Final = """
WITH batch AS (
  SELECT seq FROM outbox WHERE created_at >= $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4),
marked AS (INSERT INTO unsent SELECT seq FROM batch ON CONFLICT DO NOTHING)
SELECT count(*) AS rows, max(seq) AS last FROM batch
"""


@dataclass(frozen=True)
class Republished:
    """What was marked in one service's outbox."""

    service: str
    rows: int


@app.command
async def republish(
    *,
    since: Annotated[str, Parameter(name="--since")],
    service: Annotated[tuple[str, ...], Parameter(name="--service", negative="")] = (),
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    common: Common = USUAL,
) -> int:
    """Publish everything said since a moment once more.

    For the day on which Kafka has lost its log: the databases hold every message, and the inboxes make what arrives
    twice harmless. Stop the services first: what they have not published yet is newer than what was lost. Rows are
    marked unsent in batches; the relays publish them in their old order when they are started again. What is older
    than the services keep their inboxes (30 days) must not be republished, for nobody would know it again.

    For example:

        yike outbox republish --since 2h
        yike outbox republish --since 2026-03-01T08:00 --service escrow --yes

    Parameters
    ----------
    since
        A moment (ISO 8601; Shanghai's time where no zone is given) or a span back from now, such as 2h or 1d12h.
    service
        Only this service's outbox; may be given several times.
    yes
        Do not ask.
    """
    found = Found(common)
    names = [check_service(name) for name in service] or list(PART_NAMES)
    start = moment(since, await clock_now(found.admin_dsn))
    bounds = {name: await _bounds(found, name, start) for name in names}
    total = sum(count for count, _ in bounds.values())
    if total:
        common.confirm(f"Publish {total} messages said since {local(start)} once more?", yes=yes)
    with common.progress() as progress:
        work = (_mark(found, name, start, *bounds[name], progress) for name in names)
        done = await asyncio.gather(*work)
    common.show({"since": start, "outboxes": done}, lambda console: _draw(console, start, done))
    return DONE


async def _bounds(found: Found, service: str, since: datetime) -> tuple[int, int]:
    """How many rows there are to mark, and the last of them now."""
    read = await rows(found.dsn(service), _BOUNDS, since)
    return (read[0]["rows"], read[0]["last"] or 0) if read else (0, 0)


async def _mark(
    found: Found, service: str, since: datetime, expected: int, end: int, progress: Progress
) -> Republished:
    marked, last = 0, 0
    async with connected(found.dsn(service)) as connection:
        while last < end:
            row = await connection.fetchrow(_BATCH, since, last, end, BATCH_ROWS)
            assert row is not None
            if not row["rows"]:
                break
            marked, last = marked + row["rows"], row["last"]
            progress.step(service, f"{marked} of {expected} messages marked")
    progress.done(service, f"{marked} messages will be published again")
    return Republished(service, marked)


def _draw(console: Console, since: datetime, done: Sequence[Republished]) -> None:
    lines = table(f"Said since {local(since)}, published once more", "outbox", "messages", right=["messages"])
    for one in done:
        lines.add_row(one.service, str(one.rows))
    console.print(lines)
    console.print("[dim]The relays are at it: yike status shows what is still unsent.[/dim]")
