"""The one clock: the database's `now()` plus an offset that only a test or demo stack sets, for all services at once.

The offset is a server-wide setting (`yike.clock_offset_seconds`, PostgreSQL 17+ lets a superuser set it with ALTER
SYSTEM); the SQL function `yike_now()` in each database adds it. No service reads its own machine's clock for a rule.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

SETTING: Final = "yike.clock_offset_seconds"
_NOW: Final = text("SELECT yike_now()")


async def now(session: AsyncSession) -> datetime:
    """The time of this transaction, aware UTC."""
    moment = (await (await session.connection()).execute(_NOW)).scalar_one()
    assert isinstance(moment, datetime)
    return moment


async def set_offset(admin_dsn: str, offset: timedelta) -> None:
    """Moves the clock of every service on the server at `admin_dsn` (superuser) and waits until it has moved."""
    seconds = offset.total_seconds()
    connection = await asyncpg.connect(admin_dsn)
    try:
        await connection.execute(f"ALTER SYSTEM SET {SETTING} = '{seconds}'")
        await connection.execute("SELECT pg_reload_conf()")
        while (
            float(await connection.fetchval(f"SELECT coalesce(nullif(current_setting('{SETTING}', true), ''), '0')"))
            != seconds
        ):
            await connection.execute("SELECT pg_sleep(0.01)")
    finally:
        await connection.close()


async def get_offset(admin_dsn: str) -> timedelta:
    """The offset in force on the server at `admin_dsn`."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        value = await connection.fetchval(f"SELECT coalesce(nullif(current_setting('{SETTING}', true), ''), '0')")
    finally:
        await connection.close()
    return timedelta(seconds=float(value))


def machine_now() -> datetime:
    """This machine's clock, aware UTC: for logs, pauses and the outside of the system; never for a rule."""
    return datetime.now(UTC)
