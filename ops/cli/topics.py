"""`yike topics`, `yike migrate`, `yike keys`: what must exist before a service starts. All of it safe to repeat."""

from typing import Annotated

import asyncpg
from aiokafka.errors import KafkaError
from cyclopts import App, Parameter
from rich.console import Console

from ops.cli.base import DONE, FOUND, NO_STACK, USUAL, WRONG_CALL, CommandError, Common, age, table
from ops.cli.kafka import looking
from ops.cli.site import Found, check_service
from ops.provision import TopicsReport, create_databases, ensure_topics, upgrade
from ops.stack_layout import KEY_HOLDERS, PART_NAMES, given_passwords, password_variable, topics_in_words, topics_of
from shared.contracts.topics import Topic
from shared.keys import generate_keys
from shared.messaging.broker import client_security

app = App(name="topics", help="The topics of the system, as written down in shared/contracts/topics.py.")


@app.command(name="list")
async def list_(*, common: Common = USUAL) -> int:
    """Show every topic: whose, of what kind, what its key is, and what Kafka has of it.

    Exits with 1 if a topic is missing or has another number of partitions than written down.

    For example:

        yike topics list
    """
    settings = Found(common).client_settings
    wanted = topics_of(settings)
    async with looking(settings) as kafka:
        existing = {topic.name: kafka.partitions(topic.name) for topic in wanted}
        bounds = await kafka.bounds(place for found in existing.values() for place in found)
    records = {name: sum(bounds[p][1] - bounds[p][0] for p in found) for name, found in existing.items()}
    data = [
        {
            "name": topic.name,
            "owner": topic.owner,
            "kind": topic.kind,
            "key": topic.key,
            "partitions": topic.partitions,
            "partitions_found": len(existing[topic.name]),
            "retention_ms": topic.retention_ms,
            "records": records[topic.name],
        }
        for topic in wanted
    ]
    common.show(data, lambda console: _draw(console, wanted, {n: len(p) for n, p in existing.items()}, records))
    return DONE if all(len(existing[topic.name]) == topic.partitions for topic in wanted) else FOUND


@app.command
async def ensure(
    *,
    replication_factor: Annotated[int, Parameter(name="--replication-factor")] = 1,
    common: Common = USUAL,
) -> int:
    """Make the topics that are missing; report, without touching, those that differ from what is written down.

    Exits with 1 if one differs: changing partitions moves keys, so a person decides.

    For example:

        yike topics ensure
        YIKE_KAFKA=broker:9092 yike topics ensure --replication-factor 3

    Parameters
    ----------
    replication_factor
        Copies of each partition. A write is safe on all but one of them (min.insync.replicas).
    """
    settings = Found(common).client_settings
    try:
        report = await ensure_topics(
            settings.kafka,
            replication_factor=replication_factor,
            topics=topics_of(settings),
            client_options=client_security(settings),
        )
    except KafkaError as error:
        raise CommandError(f"Kafka at {settings.kafka}: {error}", "Is it up?", NO_STACK) from None
    common.show(report, lambda console: _draw_ensured(console, report))
    return FOUND if report.differing else DONE


async def migrate(*service: str, common: Common = USUAL) -> int:
    """Make what databases are missing and bring the tables of every service up to date. Forward only.

    On a PostgreSQL of another machine give each database's password as YIKE_<SERVICE>_PASSWORD.

    For example:

        yike migrate
        YIKE_POSTGRES=postgresql://postgres:…@db/postgres YIKE_CATALOG_PASSWORD=… yike migrate

    Parameters
    ----------
    service
        Only these; else all.
    """
    found = Found(common)
    names = [check_service(name) for name in service] or list(PART_NAMES)
    try:
        dsns = await create_databases(found.admin_dsn, names, suffix=found.suffix, passwords=given_passwords())
    except ValueError as error:
        variables = ", ".join(password_variable(name) for name in names)
        raise CommandError(f"{error}.", f"Set {variables}.", WRONG_CALL) from None
    except (OSError, asyncpg.PostgresError) as error:
        raise CommandError(f"PostgreSQL does not let us in: {error}", "Is it up?", NO_STACK) from None
    with common.progress() as progress:
        for name, dsn in dsns.items():
            progress.step(name, "bringing its tables up to date")
            await upgrade(name, dsn)
            progress.done(name, "up to date")
    common.show({"migrated": names}, lambda console: console.print(f"[green]{len(names)} databases up to date[/green]"))
    return DONE


def keys(*, common: Common = USUAL) -> int:
    """Make the keys that are missing: to sign, to read what is sealed, to encrypt. What is there stays.

    They go to the stack's folder (`keys/`), or to YIKE_KEYS. For development: in production each service is given its
    own private files and public.json, never the folder.

    For example:

        yike keys
        YIKE_KEYS=/keys yike keys
    """
    folder = Found(common).keys_to_make
    generate_keys(folder, KEY_HOLDERS)
    common.show({"keys": folder, "holders": KEY_HOLDERS}, lambda console: console.print(f"Keys are in {folder}"))
    return DONE


def _draw(console: Console, wanted: list[Topic], partitions: dict[str, int], records: dict[str, int]) -> None:
    columns = ("topic", "owner", "kind", "partitions", "kept", "records", "key")
    lines = table(f"{len(wanted)} topics", *columns, right=["partitions", "records"])
    for topic in wanted:
        have = partitions[topic.name]
        count = str(have) if have == topic.partitions else f"[red]{have} of {topic.partitions}[/red]"
        name = topic.name if have else f"[red]{topic.name} (missing)[/red]"
        kept = age(topic.retention_ms / 1000)
        lines.add_row(name, topic.owner, topic.kind, count, kept, str(records[topic.name]), topic.key)
    console.print(lines)
    if not all(partitions.values()):
        console.print("[dim]Missing topics: yike topics ensure[/dim]")


def _draw_ensured(console: Console, report: TopicsReport) -> None:
    console.print(topics_in_words(report))
    for line in report.differing:
        console.print(f"[yellow]{line}[/yellow]")
