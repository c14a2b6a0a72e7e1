"""What waits for a person, as figures for Prometheus: looked at now and then beside the consumer."""

import asyncio
from typing import TYPE_CHECKING, Final

import structlog
from prometheus_client import Gauge
from sqlalchemy import text

from services.escrow.tables import IN_TROUBLE
from shared.database import is_passing

if TYPE_CHECKING:  # the command line takes the statement from here, and no web server with it
    from shared.service import Service

log = structlog.get_logger()

LOOK_EVERY_S: Final = 15.0

SUSPENSE: Final = Gauge("yike_suspense_receipts", "movements of money in suspense, by state", ("state",))
SUSPENSE_FEN: Final = Gauge("yike_suspense_fen", "fen in suspense, neither matched nor returned")
SUSPENSE_OVERDUE: Final = Gauge("yike_suspense_overdue", "movements of money in suspense past their deadline")
TROUBLE: Final = Gauge(
    "yike_payments_in_trouble",
    "payments refused or come back, not paid yet",
)

# By the indexes suspense_open, instructions_trouble and settlements_trouble: what was done with costs nothing.
NEEDS_A_PERSON: Final = f"""
SELECT count(*) FILTER (WHERE state = 'open') AS open, count(*) FILTER (WHERE state = 'returning') AS returning,
       coalesce(sum(amount_fen), 0)::bigint AS fen, count(*) FILTER (WHERE due_at <= yike_now()) AS overdue,
       (SELECT count(*) FROM instructions
        WHERE kind <> 'collect' AND {IN_TROUBLE})
       + (SELECT count(*) FROM settlements WHERE {IN_TROUBLE}) AS trouble
FROM suspense WHERE state IN ('open', 'returning')
"""


async def watch(service: "Service") -> None:
    """Looks until it is cancelled; a database that is away is looked at again."""
    while True:
        try:
            async with service.database.session() as session:
                row = (await (await session.connection()).execute(text(NEEDS_A_PERSON))).one()
            SUSPENSE.labels("open").set(row.open)
            SUSPENSE.labels("returning").set(row.returning)
            SUSPENSE_FEN.set(row.fen)
            SUSPENSE_OVERDUE.set(row.overdue)
            TROUBLE.set(row.trouble)
        except Exception as error:
            if not is_passing(error):
                raise
            log.warning("what waits for a person was not counted", error=repr(error)[:300])
        await asyncio.sleep(LOOK_EVERY_S)
