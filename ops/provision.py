"""What must exist before a service starts: role and database, tables, topics. All of it idempotent.

In: an administrator's DSN and Kafka's address. Out: one DSN for each service, which opens its own database
and no other. Used by the embedded stack, by the one-shot containers `migrate` and `topics`, and by tests.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code
from alembic import command
from alembic.config import Config

ROOT = Path(__file__).resolve().parents[1]
ADMIN_TIMEOUT_MS = 30_000
LOOPBACK = (None, "", "127.0.0.1", "localhost", "::1")

# alembic keeps its present context in module globals: one upgrade at a time in a process.
_alembic_lock = threading.Lock()


class TopicLike(Protocol):
    """What is needed of a topic of `shared.contracts.topics`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def partitions(self) -> int:
        """How many partitions it shall have."""

    def config(self) -> dict[str, str]:
        """Its settings, all written out."""


@dataclass(frozen=True)
class TopicsReport:
    """What `ensure_topics` did and found; `differing` holds one sentence for each difference."""

    created: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    differing: tuple[str, ...] = field(default=())


def package_folder(service: str) -> Path:
    """The folder of a service's code; the stand-in bank lives on the operator's side."""
    return ROOT / ("ops/bank" if service == "bank" else f"services/{service}")


def database_name(service: str, suffix: str = "") -> str:
    """The name of a service's database and of its role, which are the same word."""
    return f"yike_{service}{suffix}"


async def create_databases(
    admin_dsn: str,
    services: Iterable[str],
    *,
    suffix: str = "",
    passwords: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Make a role and a database for each service, or leave those that exist, and return service → DSN.

    `suffix` is added to every name, so that tests live side by side on one server. `passwords` (by service)
    is left out only for a server on this very machine, where the passwords are no secret: each is its role's
    name. The role owns its database and may enter no other.
    """
    if passwords is None and urlsplit(admin_dsn).hostname not in LOOPBACK:
        raise ValueError("passwords must be given for a PostgreSQL that is not on this machine")
    dsns: dict[str, str] = {}
    connection = await asyncpg.connect(admin_dsn)
    try:
        for service in services:
            name = database_name(service, suffix)
            password = name if passwords is None else passwords[service]
            await _create_one(connection, name, password)
            dsns[service] = _with_login(admin_dsn, name, password)
    finally:
        await connection.close()
    return dsns


async def drop_databases(admin_dsn: str, services: Iterable[str], *, suffix: str = "") -> None:
    """Remove the databases and roles of `services`, whoever is connected; for tests."""
    connection = await asyncpg.connect(admin_dsn)
    try:
        for service in services:
            name = database_name(service, suffix)
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await connection.execute(f'DROP ROLE IF EXISTS "{name}"')
    finally:
        await connection.close()


async def upgrade(service: str, dsn: str, revision: str = "head") -> None:
    """Bring one service's tables to `revision` with its own alembic history. Forward only.

    A service without migrations is left alone. Two upgrades of the same database at once wait for each other.
    """
    folder = package_folder(service) / "migrations"
    if folder.exists():
        await asyncio.to_thread(_upgrade, folder, dsn, revision)


async def provision(admin_dsn: str, services: Sequence[str], *, suffix: str = "") -> dict[str, str]:
    """Databases and tables for all `services` on a server of this machine; returns service → DSN."""
    dsns = await create_databases(admin_dsn, services, suffix=suffix)
    for service, dsn in dsns.items():
        await upgrade(service, dsn)
    return dsns


async def ensure_topics(
    kafka: str,
    *,
    replication_factor: int = 1,
    topics: Sequence[TopicLike] | None = None,
    client_options: Mapping[str, Any] | None = None,
) -> TopicsReport:
    """Create the topics that are missing; report, without touching, those that differ.

    `topics` defaults to all of `shared.contracts.topics`; `client_options` are aiokafka's (SASL, TLS).
    With three replicas a write is safe on two of them, so `min.insync.replicas` follows the factor.
    """
    wanted = {topic.name: topic for topic in (_all_topics() if topics is None else topics)}
    options = dict(client_options or {})
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka, request_timeout_ms=ADMIN_TIMEOUT_MS, **options)
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        missing = [topic for name, topic in wanted.items() if name not in existing]
        if missing:
            await _create_topics(admin, missing, replication_factor)
        present = [topic for name, topic in wanted.items() if name in existing]
        differing = await _differences(admin, present, replication_factor) if present else []
    finally:
        await admin.close()
    return TopicsReport(tuple(t.name for t in missing), tuple(t.name for t in present), tuple(differing))


def alembic_config(folder: Path, dsn: str) -> Config:
    """alembic's configuration for one `migrations` folder and one database, without any ini file."""
    config = Config()
    # A per cent sign begins a substitution in alembic's configuration.
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["url"] = dsn
    return config


def _upgrade(folder: Path, dsn: str, revision: str) -> None:
    with _alembic_lock:
        command.upgrade(alembic_config(folder, dsn), revision)


async def _create_one(connection: "asyncpg.Connection[asyncpg.Record]", name: str, password: str) -> None:
    # Names come from our own list and a password cannot be a parameter of these statements: quoted as a
    # literal.
    secret = "'" + password.replace("'", "''") + "'"
    # Two provisioners at once: the other one's role or database is as good.
    with contextlib.suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
            await connection.execute(f'CREATE ROLE "{name}" NOSUPERUSER NOCREATEDB NOCREATEROLE')
    await connection.execute(f'ALTER ROLE "{name}" LOGIN PASSWORD {secret}')
    if not await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        # An administrator who is no superuser (managed servers) may give a database only to a role he is
        # member of.
        await connection.execute(f'GRANT "{name}" TO CURRENT_USER')
    with contextlib.suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
    await connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')


def in_database(dsn: str, name: str) -> str:
    """The same server and user, another database."""
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


def _with_login(admin_dsn: str, name: str, password: str) -> str:
    """The administrator's DSN with another user, password and database, on the same server."""
    parts = urlsplit(admin_dsn)
    where = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(name)}:{quote(password, safe='')}@{where}", path=f"/{name}").geturl()


def _all_topics() -> Sequence[TopicLike]:
    # Here, not at the top: databases can be made with no contract loaded.
    from shared.contracts.topics import ALL_TOPICS

    return ALL_TOPICS


def _config(topic: TopicLike, replication_factor: int) -> dict[str, str]:
    return {**topic.config(), "min.insync.replicas": str(max(1, replication_factor - 1))}


async def _create_topics(admin: AIOKafkaAdminClient, missing: Sequence[TopicLike], factor: int) -> None:
    answer = await admin.create_topics(
        [NewTopic(topic.name, topic.partitions, factor, topic_configs=_config(topic, factor)) for topic in missing],
        timeout_ms=ADMIN_TIMEOUT_MS,
    )
    for name, code, *reason in answer.topic_errors:
        error = for_code(code)
        if code != 0 and error is not TopicAlreadyExistsError:
            raise error(f"topic {name}: {reason[0] if reason else ''}")


async def _differences(admin: AIOKafkaAdminClient, topics: Sequence[TopicLike], factor: int) -> list[str]:
    found: list[str] = []
    partitions = {one["topic"]: len(one["partitions"]) for one in await admin.describe_topics([t.name for t in topics])}
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    configs: dict[str, dict[str, str]] = {}
    for response in await admin.describe_configs(resources):
        for _code, _reason, _kind, name, entries in response.resources:
            configs[name] = {entry[0]: entry[1] for entry in entries}
    for topic in topics:
        if partitions[topic.name] != topic.partitions:
            found.append(f"{topic.name}: {partitions[topic.name]} partitions, {topic.partitions} written down")
        for key, value in _config(topic, factor).items():
            if configs[topic.name].get(key) != value:
                found.append(f"{topic.name}: {key} is {configs[topic.name].get(key)}, {value} written down")
    return found
