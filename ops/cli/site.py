"""Finding the stack a command works on, and its parts one by one: a command needs only what it asks for."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import asyncpg.connection

from ops.cli.base import NO_STACK, CommandError, Common
from ops.provision import database_name, in_database
from ops.stack_layout import PART_NAMES, Site
from shared.clock import get_offset
from shared.settings import ClientSettings

Connection: TypeAlias = "asyncpg.connection.Connection[asyncpg.Record]"


class Found:
    """The stack of the folder, or that of YIKE_KAFKA and YIKE_POSTGRES where they are set."""

    def __init__(self, common: Common) -> None:
        self._folder = common.folder
        self._site = Site.load(common.folder)
        self._given_kafka = os.environ.get("YIKE_KAFKA", "")
        self._given_postgres = os.environ.get("YIKE_POSTGRES", "")

    @property
    def site(self) -> Site:
        """What `yike up` or the demo has written down. Raises CommandError when there was none in this folder."""
        if self._site is None:
            raise self._nothing("YIKE_KAFKA and YIKE_POSTGRES")
        return self._site

    @property
    def client_settings(self) -> ClientSettings:
        """How to reach Kafka. YIKE_KAFKA wins, with the other YIKE_KAFKA_… settings beside it."""
        if self._given_kafka:
            return ClientSettings()
        if self._site is None:
            raise self._nothing("YIKE_KAFKA")
        return self._site.client_settings()

    @property
    def admin_dsn(self) -> str:
        """PostgreSQL's administrator. YIKE_POSTGRES wins."""
        if self._given_postgres:
            return self._given_postgres
        if self._site is None:
            raise self._nothing("YIKE_POSTGRES")
        return self._site.admin_dsn

    @property
    def suffix(self) -> str:
        """What the names of this stack's databases end with."""
        return self._site.suffix if self._site and not self._given_postgres else ""

    def dsn(self, service: str) -> str:
        """One service's database, entered as the administrator."""
        return in_database(self.admin_dsn, database_name(service, self.suffix))

    @property
    def keys(self) -> Path:
        """The folder of keys. YIKE_KEYS wins."""
        if given := os.environ.get("YIKE_KEYS"):
            return Path(given)
        if self._site is None:
            raise self._nothing("YIKE_KEYS")
        return self._site.keys

    @property
    def keys_to_make(self) -> Path:
        """Where missing keys go: YIKE_KEYS, or the folder of a stack that may not exist yet."""
        return Path(os.environ.get("YIKE_KEYS") or self._folder / "keys")

    @property
    def may_move_clock(self) -> bool:
        """Only the clock of a PostgreSQL that was started for this very stack is nobody else's."""
        return bool(self._site and self._site.embedded and not self._given_postgres)

    def _nothing(self, settings: str) -> CommandError:
        return CommandError(
            f"There is no stack in {self._folder}.",
            f"Start one with `yike up`, name its folder with --home or YIKE_HOME, or set {settings}.",
            NO_STACK,
        )


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """A connection to one database. Raises CommandError when it does not answer."""
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        where = urlsplit(dsn).path.lstrip("/")
        raise CommandError(
            f"PostgreSQL does not let us into {where}: {error}", "Is it up? `yike up` starts it.", NO_STACK
        ) from None
    try:
        yield connection
    finally:
        await connection.close()


async def rows(dsn: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """The rows of one query; none where the tables were never made: such a service has said and heard nothing."""
    async with connected(dsn) as connection:
        try:
            return list(await connection.fetch(query, *arguments))
        except asyncpg.UndefinedTableError:
            return []


async def clock_now(admin_dsn: str) -> datetime:
    """The one clock's time: PostgreSQL's, plus the offset of a demo or test stack."""
    async with connected(admin_dsn) as connection:
        now: datetime = await connection.fetchval("SELECT now()")
    return now + await get_offset(admin_dsn)


def check_service(name: str) -> str:
    """`name`, if a process is called so. Raises CommandError."""
    if name not in PART_NAMES:
        raise CommandError(f"No service is called {name!r}.", f"There are {', '.join(PART_NAMES)}.", 2)
    return name
