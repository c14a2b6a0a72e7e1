"""The relay alone: rows of a usual size put into one outbox at once, published and marked by its service."""

import asyncio
import time

import asyncpg

from ops.stack_layout import Stack
from shared.contracts import topics

SERVICE = "complaints"
BODY_BYTES = 700

_FILL = """
INSERT INTO outbox (id, topic, key, partition, type, correlationid, replyto, traceparent, body, created_at)
SELECT gen_random_uuid(), $1, gen_random_uuid()::text, NULL, 'bench.row.v1', gen_random_uuid(), '',
       '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', repeat('x', $2), yike_now()
FROM generate_series(1, $3)
"""
_SENT = "SELECT count(*), min(sent_at), max(sent_at) FROM outbox WHERE type = 'bench.row.v1' AND sent_at IS NOT NULL"


async def relay_rate(stack: Stack, rows: int) -> float:
    """Rows per second between the first and the last mark."""
    connection = await asyncpg.connect(stack.dsn(SERVICE), command_timeout=300)
    try:
        await connection.execute(_FILL, topics.gateway_replies("bench"), BODY_BYTES, rows)
        deadline = time.monotonic() + 300
        while True:
            row = await connection.fetchrow(_SENT)
            assert row is not None
            count, first, last = row
            if count >= rows:
                break
            if time.monotonic() > deadline:
                raise TimeoutError("the relay did not end")
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
    return float(rows / max((last - first).total_seconds(), 0.001))
