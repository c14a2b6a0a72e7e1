"""The database of one service: engine, sessions, and which of its errors pass by themselves."""

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pydantic_core
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # it takes no parameters at run time

LOOK_UPS_ONLY: Final = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_material")
"""What the planner must do without: every statement of a service looks rows up by index, a set of them as a nested loop
over its keys. A statement that compares whole tables turns them on for itself."""
PLANS_S: Final = 10.0
"""A plan is used so long, in seconds. One made while a table was nearly empty (a queue, at night) is a bad one for the
rush that follows, and the server itself makes another only when the table has been analysed."""

_PASSING_CLASSES: Final = ("08", "40", "53", "57", "58")
"""Connection, rollback (serialisation, deadlock), resources (disk full too), operator intervention, system error."""
_PASSING_STATES: Final = frozenset({"55P03", "25006"})
"""Lock not available; read-only transaction, as seen in the moment of a failover."""


class Database:
    """One pool of connections. `url` is a plain `postgresql://` DSN; a socket folder may stand in `?host=`."""

    def __init__(self, url: str, *, pool_size: int = 4, statement_timeout_s: float = 60.0) -> None:
        self._url = url
        self._options: dict[str, Any] = {
            "timeout": 10,
            # Longer than the server's own limit: for the day when the network swallows its answer.
            "command_timeout": statement_timeout_s + 30,
            "server_settings": {
                # A plan made while a table was empty, and kept while it grew to millions, must be the right one too.
                "plan_cache_mode": "force_generic_plan",
                **dict.fromkeys(LOOK_UPS_ONLY, "off"),
                "jit": "off",
                "statement_timeout": str(int(statement_timeout_s * 1000)),
                "lock_timeout": "20000",
                "idle_in_transaction_session_timeout": "60000",
                "application_name": "yike",
            },
        }
        self.engine: AsyncEngine = create_async_engine(
            async_url(url),
            pool_size=pool_size,
            max_overflow=2,
            pool_timeout=30,
            pool_pre_ping=False,  # a dead connection is a passing fault; the road retries it without a ping per batch
            json_deserializer=pydantic_core.from_json,
            connect_args=self._options | {"prepared_statement_cache_size": 500},
        )

    def session(self) -> AsyncSession:
        """A new session; use it as `async with … as session, session.begin():`."""
        return AsyncSession(self.engine, expire_on_commit=False, autoflush=False)

    async def connect(self) -> Connection:
        """A connection of one's own, outside the pool and outside any transaction; the caller closes it."""
        return await asyncpg.connect(self._url, **self._options)

    async def close(self) -> None:
        """Closes all connections."""
        await self.engine.dispose()


async def renew_plans(connection: AsyncConnection) -> None:
    """Lets the server forget the plans of `connection` when they are older than `PLANS_S`: each is made again when it
    is next used, by how full its tables are by then."""
    now = time.monotonic()
    if now - connection.info.setdefault("planned_at", now) > PLANS_S:
        await connection.exec_driver_sql("DISCARD PLANS")
        connection.info["planned_at"] = now


def async_url(url: str) -> str:
    """The DSN in SQLAlchemy's words for asyncpg."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1)


def is_passing(error: BaseException) -> bool:
    """True when the same work may succeed later: connection lost, deadlock, serialisation, server away, disk full."""
    if isinstance(error, (OSError, asyncio.TimeoutError, PoolTimeoutError)):
        return True
    cause = getattr(error.orig, "__cause__", None) if isinstance(error, DBAPIError) else error
    if isinstance(cause, asyncpg.DataError):
        return False  # asyncpg counts a value it cannot encode as an interface error; it will never fit
    if isinstance(cause, (asyncpg.InterfaceError, asyncpg.InternalClientError)):
        # The second is for a statement sent between the server's last words and the end of the connection.
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, (InterfaceError, OperationalError)):
        return True
    state = sqlstate(error)
    return state[:2] in _PASSING_CLASSES or state in _PASSING_STATES


def sqlstate(error: BaseException) -> str:
    """The five-character SQLSTATE of a database error, or an empty text."""
    original: Any = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or "")
