"""What every service's `migrations/env.py` runs: alembic on asyncpg, one migrator at a time, forward only.

    from services.escrow.tables import metadata
    from shared.migrations_env import run

    run(metadata)

The address comes from whoever starts alembic, as `config.attributes["url"]` (ops/provision.py does): it holds
a password and so stands in no ini file.
"""

import asyncio

from alembic import context
from sqlalchemy import Connection, MetaData, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.database import async_url

MIGRATION_LOCK = 0x59494B45
""" "YIKE" as a number: the advisory lock that one migrator holds in the service's own database."""


def run(metadata: MetaData) -> None:
    """Bring the database to the revision alembic was asked for; `metadata` serves `--autogenerate`.

    Must not be called from inside a running event loop (ops/provision.py gives it a thread).
    """
    if context.is_offline_mode():
        raise SystemExit("migrations are run against a database, not printed")
    asyncio.run(_migrate(str(context.config.attributes["url"]), metadata))


async def _migrate(url: str, metadata: MetaData) -> None:
    engine = create_async_engine(async_url(url), poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            # Two deployments at once: the second waits here and then finds nothing to do. The lock belongs to
            # the session, not to a transaction, so a migration may commit in between (CREATE INDEX
            # CONCURRENTLY).
            await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            await connection.commit()
            await connection.run_sync(_run_on, metadata)
    finally:
        await engine.dispose()


def _run_on(connection: Connection, metadata: MetaData) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()
