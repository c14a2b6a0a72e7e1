"""Migrations on databases that have rows already."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from ops.provision import create_databases, drop_databases, upgrade
from ops.stack.servers import Servers
from ops.stack_layout import PART_NAMES
from shared.contracts.escrow import SuspenseDeadline

_SAY = """
INSERT INTO outbox (id, topic, key, type, correlationid, replyto, traceparent, body, created_at, sent_at)
SELECT gen_random_uuid(), 'x', 'x', 'x', gen_random_uuid(), '', '', '', now(), CASE WHEN n % 2 = 0 THEN now() END
FROM generate_series(1, 6) n
"""


@pytest.fixture
async def dsns(servers: Servers) -> AsyncIterator[dict[str, str]]:
    """Databases without tables."""
    yield await create_databases(servers.postgres_admin_dsn, PART_NAMES, suffix="_migrations")
    await drop_databases(servers.postgres_admin_dsn, PART_NAMES, suffix="_migrations")


@pytest.mark.parametrize("service", PART_NAMES)
async def test_what_was_not_sent_before_the_second_migration_is_unsent_after_it(
    dsns: dict[str, str], service: str
) -> None:
    await upgrade(service, dsns[service], "0001")
    connection = await asyncpg.connect(dsns[service])
    try:
        await connection.execute(_SAY)
        await upgrade(service, dsns[service], "0002")
        assert [row["seq"] for row in await connection.fetch("SELECT seq FROM unsent ORDER BY seq")] == [1, 3, 5]
        assert await connection.fetchval("SELECT count(*) FROM outbox") == 6
    finally:
        await connection.close()


_BOOKED = """
INSERT INTO suspense (receipt_id, order_id, number, bank, reference, amount_fen, reason, state, booked_at)
SELECT gen_random_uuid(), NULL, 'X', 'icbc', n::text, 100, 'wrong_amount', state, now() - interval '9 days'
FROM unnest(ARRAY['open', 'returned']) WITH ORDINALITY s (state, n)
"""


async def test_what_was_in_suspense_before_it_had_a_deadline_is_told_of_at_once(dsns: dict[str, str]) -> None:
    await upgrade("escrow", dsns["escrow"], "0003")
    connection = await asyncpg.connect(dsns["escrow"])
    try:
        await connection.execute(_BOOKED)
        await upgrade("escrow", dsns["escrow"])
        rows = await connection.fetch("SELECT * FROM suspense ORDER BY state")
        assert [(row["state"], row["account"], row["decision"]) for row in rows] == [
            ("open", "", ""),
            ("returned", "", ""),
        ]
        (timer,) = await connection.fetch("SELECT * FROM timers WHERE due_at <= now()")
        assert (timer["type"], timer["subject"]) == (SuspenseDeadline.TYPE, str(rows[0]["receipt_id"]))
        assert SuspenseDeadline.model_validate_json(timer["data"]).receipt_id == rows[0]["receipt_id"]
    finally:
        await connection.close()
