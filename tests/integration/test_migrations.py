"""Migrations on databases that have rows already."""

from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from ops.provision import create_databases, drop_databases, upgrade
from ops.stack.servers import Servers
from ops.stack_layout import PART_NAMES
from shared.contracts.escrow import SuspenseDeadline
from shared.contracts.orders import ObjectionDeadline
from shared.ids import new_id

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


CHILD = b"c" * 32


async def test_purchases_that_stand_get_the_hash_of_their_child(dsns: dict[str, str]) -> None:
    """So that they count for the limits of one charge from the first day on."""
    await upgrade("orders", dsns["orders"], "0004")
    connection = await asyncpg.connect(dsns["orders"])
    try:
        account, child, placed, drawn = (new_id() for _ in range(4))
        await connection.execute("INSERT INTO accounts VALUES ($1, $2, '', 0, now())", account, b"p" * 32)
        await connection.execute(
            "INSERT INTO children VALUES ($1, $2, $3, '', 'unchecked', now())", child, account, CHILD
        )
        for order_id, institution in ((placed, None), (drawn, new_id())):
            await connection.execute(
                """INSERT INTO purchases (order_id, account_id, child_id, course_id, state, reason, placed_at,
                     institution_id, title, category, price_fen, lessons, contract_sha256, signer_version, method)
                   VALUES ($1, $2, $3, $1, 'placed', '', now(), $4, '', '', 0, 0, '', 0, '')""",
                order_id,
                account,
                child,
                institution,
            )
        await upgrade("orders", dsns["orders"], "0005")
        found = await connection.fetch("SELECT order_id, child_hash, detail FROM purchases")
        assert {row["order_id"]: (row["child_hash"], row["detail"]) for row in found} == {
            placed: (None, ""),
            drawn: (CHILD, ""),
        }
    finally:
        await connection.close()


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
    await upgrade("orders", dsns["orders"], "0005")
    connection = await asyncpg.connect(dsns["orders"])
    try:
        await connection.execute(_OBJECT)
        await upgrade("orders", dsns["orders"], "0006")
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
