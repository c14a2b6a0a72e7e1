"""The relay alone: rows of a usual size put into one outbox at once, published and marked by its service."""

import asyncio
import time

import asyncpg

from ops.stack_layout import Stack
from shared.contracts import topics
from shared.messaging.outbox import CHANNEL

SERVICE = "complaints"
BODY_BYTES = 700

_FILL = """
WITH filled AS (
  INSERT INTO outbox (id, topic, key, partition, type, correlationid, replyto, traceparent, body, created_at)
  SELECT gen_random_uuid(), $1, gen_random_uuid()::text, NULL, 'bench.row.v1', gen_random_uuid(), '',
         '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', repeat('x', $2), yike_now()
  FROM generate_series(1, $3) RETURNING seq)
INSERT INTO unsent SELECT seq FROM filled
"""


async def relay_rate(stack: Stack, rows: int) -> float:
    """Rows per second between their commit and the last mark."""
    connection = await asyncpg.connect(stack.dsn(SERVICE), command_timeout=300)
    try:
        await connection.execute(_FILL, topics.gateway_replies("bench"), BODY_BYTES, rows)
        began = time.monotonic()
        await connection.execute(f"NOTIFY {CHANNEL}")
        while await connection.fetchval("SELECT EXISTS (SELECT FROM unsent)"):
            if time.monotonic() > began + 300:
                raise TimeoutError("the relay did not end")
            await asyncio.sleep(0.01)
        return rows / (time.monotonic() - began)
    finally:
        await connection.close()
