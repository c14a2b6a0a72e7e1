"""Plans of statements that look up a set of rows, made where they are worst: on tables that are empty (docs/adr/0007).

A plan is kept by its connection, so one that goes through a whole table, once for each key, is felt until it is made
again.
"""

import re
from collections.abc import AsyncIterator
from typing import Final

import pytest

from ops.provision import create_databases, drop_databases, upgrade
from ops.stack.servers import Servers
from services.notify import use_cases as notify
from services.orders.purchases import open_orders
from shared import database as shared_database
from shared.database import Database, renew_plans
from shared.messaging import inbox, outbox

SERVICES: Final = ("orders", "notify")
STATEMENTS: Final = {
    "answers kept in the inbox": ("orders", inbox._NOTE, {"inbox"}),
    "messages claimed again by replays": ("orders", inbox._RECLAIM.text, {"inbox"}),
    "timers cancelled": ("orders", outbox._CANCEL_TIMERS, {"timers"}),
    "what children have open": ("orders", open_orders._OPEN.text, {"purchases", "lessons"}),
    "SMS released by a contact": ("notify", notify._RELEASE.text, {"sms"}),
    "SMS dropped": ("notify", notify._DROP.text, {"sms"}),
}


@pytest.fixture(scope="module")
async def databases(servers: Servers) -> AsyncIterator[dict[str, Database]]:
    dsns = await create_databases(servers.postgres_admin_dsn, SERVICES, suffix="_plans")
    for name, dsn in dsns.items():
        await upgrade(name, dsn)
    found = {name: Database(dsn) for name, dsn in dsns.items()}
    yield found
    for database in found.values():
        await database.close()
    await drop_databases(servers.postgres_admin_dsn, SERVICES, suffix="_plans")


@pytest.mark.parametrize("what", STATEMENTS)
async def test_a_set_is_looked_up_by_its_keys(databases: dict[str, Database], what: str) -> None:
    service, sql, tables = STATEMENTS[what]
    names: dict[str, int] = {}
    numbered = re.sub(r"(?<!:):@?(\w+)", lambda name: f"${names.setdefault(name[1], len(names) + 1)}", sql)
    connection = await databases[service].connect()
    try:
        await connection.execute(f"PREPARE it AS {numbered}")
        lines = await connection.fetch(f"EXPLAIN EXECUTE it ({', '.join(['NULL'] * len(names))})")
    finally:
        await connection.close()
    plan = "\n".join(str(line[0]) for line in lines)
    assert "Join Filter" not in plan, plan
    for table in tables:
        assert re.search(rf"Scan (using \w+ )?on {table}\b", plan), plan
    assert plan.count("Index Cond") >= len(tables), plan


async def test_a_plan_is_made_again_when_it_is_old(
    databases: dict[str, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    explain = "EXPLAIN EXECUTE it (NULL)"
    async with databases["orders"].engine.connect() as connection:
        await connection.exec_driver_sql("PREPARE it (uuid[]) AS SELECT FROM outbox WHERE id = ANY($1)")
        await renew_plans(connection)
        empty = (await connection.exec_driver_sql(explain)).scalars().all()
        await connection.exec_driver_sql(
            "INSERT INTO outbox (id, topic, key, type, correlationid, replyto, traceparent, body, created_at) SELECT "
            "gen_random_uuid(), 'x', 'x', 'x', gen_random_uuid(), '', '', '', now() FROM generate_series(1, 5000)"
        )
        await renew_plans(connection)
        assert (await connection.exec_driver_sql(explain)).scalars().all() == empty
        monkeypatch.setattr(shared_database, "PLANS_S", 0.0)
        await renew_plans(connection)
        assert (await connection.exec_driver_sql(explain)).scalars().all() != empty
