"""Migrations on databases that have rows already."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from ops.provision import create_databases, drop_databases, upgrade
from ops.stack.servers import Servers
from ops.stack_layout import PART_NAMES
from shared.contracts.orders import ObjectionDeadline

_SAY = """
INSERT INTO outbox (id, topic, key, type, correlationid, replyto, traceparent, body, created_at, sent_at)
SELECT gen_random_uuid(), 'x', 'x', 'x', gen_random_uuid(), '', '', '', now(), CASE WHEN n % 2 = 0 THEN now() END
FROM generate_series(1, 6) n
"""

_OBJECT = """
INSERT INTO lessons (order_id, lesson_no, starts_at, ends_at, price_fen, state, confirmed_by, applied_at, answer_by,
                     answered_at, objection)
SELECT gen_random_uuid(), 3, now(), now(), 100, state, '', now(), now(), now(), '没有上课'
FROM unnest(ARRAY['objected', 'applied']) state
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


async def test_what_was_objected_to_before_there_were_answers_waits_for_one_from_now_on(dsns: dict[str, str]) -> None:
    await upgrade("orders", dsns["orders"], "0002")
    connection = await asyncpg.connect(dsns["orders"])
    try:
        await connection.execute(_OBJECT)
        await upgrade("orders", dsns["orders"], "0003")
        (row,) = await connection.fetch("SELECT *, answer_by - yike_now() AS left FROM objections")
        assert (row["lesson_no"], row["state"], row["reason"]) == (3, "raised", "没有上课")
        assert timedelta(days=6) < row["left"] <= timedelta(days=7)
        (timer,) = await connection.fetch("SELECT * FROM timers")
        assert (timer["subject"], timer["due_at"]) == (f"{row['order_id']}:3", row["answer_by"])
        asked = ObjectionDeadline.model_validate_json(timer["data"])
        assert (asked, timer["type"]) == (ObjectionDeadline(order_id=row["order_id"], lesson_no=3), asked.TYPE)
        assert timer["key"] == asked.partition_key
    finally:
        await connection.close()
