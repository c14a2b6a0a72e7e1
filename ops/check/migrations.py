"""Do the migrations of each service make exactly the tables its `tables.py` describes? Asked of PostgreSQL.

Two scratch databases for each service: one upgraded from nothing to head, one made straight from
`tables.metadata`. alembic compares the first with the metadata (tables, columns, types, defaults), and the
catalogues of both are compared for what alembic does not look at: check constraints, predicates and
expressions of indexes, foreign keys.

Migrations are forward only: there is no downgrade, and none is tested. A mistake is mended by the next
migration.

    python -m ops.check.migrations                        fails on any difference (what `make check` calls)
    python -m ops.check.migrations --new escrow "words"   writes the next migration from the difference
"""

import asyncio
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, pool
from sqlalchemy.ext.asyncio import create_async_engine

from ops.provision import alembic_config, create_databases, drop_databases, package_folder, upgrade
from ops.stack.postgres import EmbeddedPostgres
from shared.database import async_url
from shared.settings import PARTICIPANTS

CATALOGUE = """\
SELECT 'constraint ' || conrelid::regclass || '.' || conname || ': ' || pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND conrelid <> 0
   AND conrelid::regclass::text <> 'alembic_version'
UNION ALL
SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'
UNION ALL
SELECT 'column ' || attrelid::regclass || '.' || attname || ' ' || format_type(atttypid, atttypmod)
       || CASE WHEN attnotnull THEN ' not null' ELSE '' END || CASE attidentity WHEN '' THEN '' ELSE '
       identity' END || coalesce(' generated or default ' || pg_get_expr(adbin, adrelid), '')
  FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
  LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped
   AND relname <> 'alembic_version'
"""

ENV = """\
from {package}.tables import metadata
from shared.migrations_env import run

run(metadata)
"""

TEMPLATE = '''\
"""${message}

Revision ${up_revision}, after ${down_revision}.
"""

import sqlalchemy as sa
import sqlmodel
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
'''


async def differences(service: str, migrated_dsn: str, described_dsn: str) -> list[str]:
    """Upgrade one empty database, fill the other from the metadata, and say in words how they differ."""
    tables = importlib.import_module(f"{_package(service)}.tables")
    metadata: MetaData = tables.metadata
    if not (package_folder(service) / "migrations").exists():
        return [f"{service} has tables but no migrations"]
    await upgrade(service, migrated_dsn)
    found = [_readable(change) for change in await _with_engine(migrated_dsn, _compare, metadata)]
    await _with_engine(described_dsn, lambda connection, _: metadata.create_all(connection), metadata)
    migrated, described = await _catalogue(migrated_dsn), await _catalogue(described_dsn)
    found += [f"only the migrations make: {line}" for line in sorted(migrated - described)]
    found += [f"only tables.py describes: {line}" for line in sorted(described - migrated)]
    return found


async def check() -> int:
    """Check every service whose folder exists; prints what differs and returns an exit code."""
    services = [name for name in PARTICIPANTS if package_folder(name).exists()]
    failed = 0
    async with scratch_server() as admin_dsn:
        for service in services:
            if not (package_folder(service) / "tables.py").exists():
                print(f"{service}: has no tables.py")
                failed += 1
                continue
            async with (
                scratch(admin_dsn, service, "_migrated") as one,
                scratch(admin_dsn, service, "_described") as two,
            ):
                try:
                    found = await differences(service, one, two)
                except Exception as error:  # whatever is wrong with one service, the others are still checked
                    found = [f"{type(error).__name__}: {error}"]
            print(f"{service}: {'migrations and tables agree' if not found else 'migrations and tables differ'}")
            for line in found:
                print(f"    {line}")
            failed += bool(found)
    print("migrations: forward only, downgrades are not supported")
    return 1 if failed else 0


async def new(service: str, message: str) -> int:
    """Write the next migration of `service`: what its tables.py has and its migrations lack."""
    folder = package_folder(service) / "migrations"
    (folder / "versions").mkdir(parents=True, exist_ok=True)
    if not (folder / "env.py").exists():
        (folder / "env.py").write_text(ENV.format(package=_package(service)), encoding="utf-8")
    number = f"{len(list((folder / 'versions').glob('[0-9]*.py'))) + 1:04d}"
    async with scratch_server() as admin_dsn, scratch(admin_dsn, service, "_new") as dsn:
        await upgrade(service, dsn)
        with tempfile.TemporaryDirectory() as place:
            # alembic wants its template beside env.py. One for all services is enough, so it works on a copy.
            copy = Path(place) / "migrations"
            shutil.copytree(folder, copy)
            (copy / "script.py.mako").write_text(TEMPLATE, encoding="utf-8")
            config = alembic_config(copy, dsn)
            config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
            options: dict[str, Any] = {"autogenerate": True, "rev_id": number}
            await asyncio.to_thread(command.revision, config, message, **options)
            made = next((copy / "versions").glob(f"{number}_*.py"))
            shutil.copy(made, folder / "versions" / made.name)
    await asyncio.to_thread(_tidy, folder)
    print(f"wrote {folder / 'versions' / made.name}; read it: alembic misses checks and functions")
    return 0


@asynccontextmanager
async def scratch_server() -> AsyncIterator[str]:
    """An administrator's DSN: YIKE_POSTGRES, or an embedded server for as long as the block lasts."""
    if given := os.environ.get("YIKE_POSTGRES"):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="yike-check-") as folder:
        postgres = EmbeddedPostgres(Path(folder) / "postgres")
        try:
            yield postgres.start()
        finally:
            postgres.destroy()


@asynccontextmanager
async def scratch(admin_dsn: str, service: str, suffix: str) -> AsyncIterator[str]:
    """The DSN of a fresh empty database, removed after the block."""
    await drop_databases(admin_dsn, [service], suffix=suffix)
    dsns = await create_databases(admin_dsn, [service], suffix=suffix)
    try:
        yield dsns[service]
    finally:
        await drop_databases(admin_dsn, [service], suffix=suffix)


def _tidy(folder: Path) -> None:
    """Remove what the template imported in vain and format, so that the new file passes `make check`."""
    ruff = str(Path(sys.executable).with_name("ruff"))
    subprocess.run([ruff, "check", "--fix", "--quiet", str(folder)], check=False)
    subprocess.run([ruff, "format", "--quiet", str(folder)], check=True)


def _package(service: str) -> str:
    return "ops.bank" if service == "bank" else f"services.{service}"


async def _with_engine(dsn: str, work: Any, metadata: MetaData) -> Any:
    engine = create_async_engine(async_url(dsn), poolclass=pool.NullPool)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work, metadata)
    finally:
        await engine.dispose()


def _compare(connection: Connection, metadata: MetaData) -> list[Any]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
    )
    return list(compare_metadata(context, metadata))


def _readable(change: Any) -> str:
    """One difference of alembic's as a line: tuples name what would have to be done to the database."""
    if isinstance(change, list):
        return "; ".join(_readable(one) for one in change)
    verb, *subject = change
    return f"{verb.replace('_', ' ')}: {', '.join(str(part) for part in subject if part is not None)}"


async def _catalogue(dsn: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return {str(row[0]) for row in await connection.fetch(CATALOGUE)}
    finally:
        await connection.close()


def main(arguments: list[str]) -> int:
    """Run one of the two commands of the module's docstring; returns the exit code."""
    match arguments:
        case []:
            return asyncio.run(check())
        case ["--new", service, message]:
            return asyncio.run(new(service, message))
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
