"""`yike up`, `yike down`, `yike status`, `yike demo`: the whole system on this machine."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final

import asyncpg
import psutil
from cyclopts import Parameter
from rich.console import Console

from ops import stories
from ops.cli.base import (
    DONE,
    FOUND,
    USUAL,
    WRONG_CALL,
    CommandError,
    Common,
    age,
    console,
    error_console,
    local,
    table,
    yuan,
)
from ops.cli.kafka import Lag, looking
from ops.cli.site import Found, connected
from ops.stack.processes import ProcessState, detached_states, start_detached, stop_detached
from ops.stack.servers import embedded_postgres, running_servers, stop_servers
from ops.stack_layout import PART_NAMES, Site, prepare, process_specs
from services.escrow.watch import NEEDS_A_PERSON
from shared.clock import machine_now
from shared.working_days import horizon_alarm, shanghai

MIB: Final = 1024 * 1024
_ROAD: Final = """
SELECT (SELECT count(*) FROM unsent) AS unsent,
       (SELECT extract(epoch FROM yike_now() - created_at)::float8
        FROM outbox WHERE seq = (SELECT min(seq) FROM unsent)) AS oldest_s,
       (SELECT count(*) FROM inbox) AS inbox,
       (SELECT count(*) FROM inbox WHERE parked IS NOT NULL) AS parked,
       (SELECT count(*) FROM timers) AS timers,
       (SELECT min(due_at) FROM timers) AS next_due,
       (SELECT extract(epoch FROM min(due_at) - yike_now())::float8 FROM timers) AS next_due_in_s
"""


@dataclass(frozen=True)
class Road:
    """How one service's road is: what waits to be published, was handled, is parked, will fall due."""

    service: str
    unsent: int
    oldest_s: float | None
    inbox: int
    parked: int
    timers: int
    next_due: datetime | None
    next_due_in_s: float | None


@dataclass(frozen=True)
class Running:
    """One process as it runs now."""

    name: str
    pid: int | None
    ready: bool
    restarts: int
    since: str | None
    rss_mib: float | None
    url: str


async def up(*, restart: Annotated[bool, Parameter(negative="")] = False, common: Common = USUAL) -> int:
    """Start the whole system in the background: servers, databases, tables, keys, topics, services and bank.

    The first time downloads Kafka's jars (44 MiB). Needs no Docker; YIKE_KAFKA and YIKE_POSTGRES point at servers
    that already run. Safe to call again: what runs is left alone.

    For example:

        yike up
        yike up --home /tmp/second      a second stack beside the first

    Parameters
    ----------
    restart
        Start the services again even if they run, to take up changed code.
    """
    folder = common.folder
    states = detached_states(folder)
    site = Site.load(folder)
    if states and site and all(state.ready for state in states) and not restart:
        common.say("Runs already; --restart starts the services again.")
    else:
        await asyncio.to_thread(stop_detached, folder)
        with common.progress() as progress:
            site = await prepare(folder, progress=progress, fixed_ports=True)
            await asyncio.to_thread(start_detached, folder, process_specs(site), progress)
    data = {
        "home": folder,
        "kafka": site.kafka,
        "postgres": site.admin_dsn,
        "urls": {name: site.url(name) for name in PART_NAMES},
        "logs": folder / "logs",
        "sms": site.sms_file,
        "keys": site.keys,
    }
    common.show(data, lambda console: _draw_up(console, data))
    return DONE


async def down(
    *,
    delete: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    common: Common = USUAL,
) -> int:
    """Stop the services, then the servers. Data stay for the next `yike up`.

    For example:

        yike down
        yike down --delete --yes

    Parameters
    ----------
    delete
        Also delete the stack's folder: databases, topics, keys, logs.
    yes
        Do not ask.
    """
    folder = common.folder
    if delete:
        common.confirm(f"Delete everything in {folder}?", yes=yes)
    had_processes = await asyncio.to_thread(stop_detached, folder)
    had_servers = await asyncio.to_thread(_stop_servers, folder)
    if delete:
        await asyncio.to_thread(_delete, folder)
    data = {"stopped_processes": had_processes, "stopped_servers": had_servers, "deleted": delete}

    def draw(console: Console) -> None:
        console.print("Stopped." if had_processes or had_servers else f"Nothing ran in {folder}.")
        if delete:
            console.print(f"Deleted {folder}.")

    common.show(data, draw)
    return DONE


def _stop_servers(folder: Path) -> bool:
    had = running_servers(folder) is not None
    if had:
        stop_servers(folder)
    return had


def _delete(folder: Path) -> None:
    """Removes a stack's folder; whatever is no stack's folder stays."""
    if not folder.exists():
        return
    if not any((folder / name).exists() for name in ("site.json", "kafka")):
        raise CommandError(f"{folder} is not the folder of a stack.", "Nothing was deleted.")
    embedded_postgres(folder).destroy()
    shutil.rmtree(folder)


async def status(*, common: Common = USUAL) -> int:
    """Show how everything is: processes, each service's road, and what nobody has read yet.

    Exits with 0 if every process is ready and nothing is parked, else with 1.

    For example:

        yike status
        yike status --json
        watch yike status
    """
    found = Found(common)
    states = detached_states(common.folder)
    site = Site.load(common.folder)
    processes = [_running(state, site) for state in states or ()]
    roads = [road for road in await asyncio.gather(*(_road(found, name) for name in PART_NAMES)) if road]
    lags = await _lags(found)
    needs = await _needs_a_person(found)
    alarms = [alarm] if (alarm := horizon_alarm(shanghai(machine_now()).date())) else []
    if needs.get("overdue"):
        alarms.append(f"{needs['overdue']} receipts in suspense are past their deadline: yike suspense list")
    data = {
        "processes": processes,
        "roads": roads,
        "lag": list(lags.values()),
        "needs_a_person": needs,
        "alarms": alarms,
    }

    def draw(console: Console) -> None:
        _draw_status(console, processes, roads, lags)
        if needs.get("open") or needs.get("returning") or needs.get("trouble"):
            console.print(
                f"For a person: {needs['open']} receipts in suspense and {needs['returning']} on their way back, "
                f"{yuan(needs['fen'])} (yike suspense list); {needs['trouble']} payments refused or come back "
                "(yike trouble)"
            )
        for alarm in alarms:
            console.print(f"[yellow]{alarm}[/yellow]")

    common.show(data, draw)
    well = all(one.ready for one in processes) and not any(road.parked for road in roads)
    return DONE if well and (processes or site is None) else FOUND


def _running(state: ProcessState, site: Site | None) -> Running:
    rss: float | None = None
    if state.pid is not None:
        try:
            rss = round(psutil.Process(state.pid).memory_info().rss / MIB, 1)
        except psutil.Error:
            rss = None
    url = site.url(state.name) if site else ""
    return Running(state.name, state.pid, state.ready, state.restarts, state.since, rss, url)


async def _road(found: Found, service: str) -> Road | None:
    """One service's road; None where its database was never site."""
    try:
        async with connected(found.dsn(service)) as connection:
            row = await connection.fetchrow(_ROAD)
    except asyncpg.PostgresError:
        return None
    return Road(service, **dict(row)) if row else None


async def _needs_a_person(found: Found) -> dict[str, int]:
    """What of escrow's waits for an operator; nothing where its database was never made, or is of an older version."""
    try:
        async with connected(found.dsn("escrow")) as connection:
            row = await connection.fetchrow(NEEDS_A_PERSON)
    except asyncpg.PostgresError:
        return {}
    return dict(row) if row else {}


async def _lags(found: Found) -> Mapping[str, Lag]:
    settings = found.client_settings
    async with looking(settings) as kafka:
        return {name: await kafka.lag(name) for name in PART_NAMES}


def _draw_up(console: Console, data: Mapping[str, Any]) -> None:
    console.print("[green]Yike is up.[/green]")
    for name in ("kafka", "postgres", "sms", "keys", "logs"):
        console.print(f"  {name:<12} {data[name]}", soft_wrap=True)
    for name, url in data["urls"].items():
        console.print(f"  {name:<12} {url}/health/ready  /metrics  /docs/asyncapi", soft_wrap=True)
    console.print("[dim]Next: yike status · yike timeline ORDER · yike ledger check · yike down[/dim]")


def _draw_status(
    console: Console, processes: Sequence[Running], roads: Sequence[Road], lags: Mapping[str, Lag]
) -> None:
    if processes:
        lines = table(
            "Processes", "name", "pid", "state", "restarts", "since", "MiB", "address", right=["pid", "restarts", "MiB"]
        )
        for one in processes:
            state = "[green]ready[/green]" if one.ready else "[red]not ready[/red]"
            restarts = f"[yellow]{one.restarts}[/yellow]" if one.restarts else "0"
            since = local(datetime.fromisoformat(one.since)) if one.since else ""
            lines.add_row(one.name, str(one.pid or ""), state, restarts, since, str(one.rss_mib or ""), one.url)
        console.print(lines)
    else:
        console.print("[yellow]No processes are supervised from this folder[/yellow] (yike up starts them).")
    numbers = ("unsent", "oldest", "inbox", "timers", "parked", "lag")
    lines = table("Road", "service", "unsent", "oldest", "inbox", "timers", "next due", "parked", "lag", right=numbers)
    for road in roads:
        lag = lags.get(road.service)
        due = f"{local(road.next_due)}, in {age(road.next_due_in_s)}" if road.next_due else ""
        parked = f"[red]{road.parked}[/red]" if road.parked else "0"
        behind = str(lag.records) if lag else ""
        lines.add_row(
            road.service, str(road.unsent), age(road.oldest_s), str(road.inbox), str(road.timers), due, parked, behind
        )
    console.print(lines)
    for lag in lags.values():
        for topic, waiting in lag.by_topic.items():
            console.print(f"  [yellow]{lag.group} has {waiting} records of {topic} before it[/yellow]")
    if any(road.parked for road in roads):
        console.print("[dim]Parked messages: yike dlq list[/dim]")


async def demo(
    *, story: Annotated[str, Parameter(help=f"Which story:\n\n{stories.listed()}")] = "purchase", common: Common = USUAL
) -> int:
    """Play a whole story on a stack of its own in the foreground; ctrl-C ends it.

    Exits with 0 only if all that the story tells has happened and the books prove, those of the bank as well.

    For example:

        yike demo
        yike demo --story silence
    """
    if story not in stories.STORIES:
        raise CommandError(f"There is no story {story!r}.", f"There are: {', '.join(stories.STORIES)}.", WRONG_CALL)
    from ops import demo as stage  # plays with half of this package: not for every command

    return await stage.run(common, error_console if common.json else console, story)
