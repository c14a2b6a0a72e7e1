"""Which processes a stack has, how each is started and what each is told. The one place that says so.

`yike up`, the demo, the tests, the bench and the check of docker-compose.yml all read it. Two ways to run the
processes: in the background (`yike up`, see ops/cli/running.py), or inside this process:

    async with await Stack.start(folder) as stack:
        await stack.restart("escrow", {"YIKE_CRASH_AT": "commit:1"})

`<folder>/site.json` remembers where everything is, so that every other command of `yike` finds it.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from aiokafka.admin import AIOKafkaAdminClient

from ops.provision import (
    ADMIN_TIMEOUT_MS,
    ROOT,
    TopicsReport,
    create_databases,
    drop_databases,
    ensure_topics,
    upgrade,
)
from ops.stack.errors import StackError
from ops.stack.postgres import free_port
from ops.stack.processes import READY_TIMEOUT_S, STOP_TIMEOUT_S, ProcessSpec, ProcessState, Supervisor
from ops.stack.progress import Progress, Silent
from ops.stack.servers import Servers, start_servers, stop_servers
from shared.clock import get_offset, set_offset
from shared.contracts.topics import ALL_TOPICS, Topic
from shared.keys import generate_keys
from shared.settings import PARTICIPANTS, ClientSettings


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the system. `port` is the one `yike up` asks for first; `reads` are settings only it has.

    `poll_every_ms`: for whom nobody waits by the millisecond, fewer and larger batches leave more for the others.
    """

    name: str
    module: str
    port: int
    reads: tuple[str, ...] = ()
    poll_every_ms: int | None = None

    @property
    def command(self) -> tuple[str, ...]:
        """What a container of it runs."""
        return ("python", "-m", self.module)


PARTS: Final = (
    Part("catalog", "services.catalog.app", 8001),
    Part("orders", "services.orders.app", 8002),
    Part("escrow", "services.escrow.app", 8003),
    Part("complaints", "services.complaints.app", 8004, poll_every_ms=100),
    Part("notify", "services.notify.app", 8005, ("YIKE_SMS_FILE",), poll_every_ms=100),
    Part("bank", "ops.bank.app", 8006),
)
PARTS_BY_NAME: Final = {part.name: part for part in PARTS}
PART_NAMES: Final = tuple(part.name for part in PARTS)
EVERY_PART_READS: Final = ("YIKE_DATABASE", "YIKE_KAFKA", "YIKE_KEYS", "YIKE_PORT", "YIKE_NAMESPACE")
"""The settings that every process of a stack is given."""
KEY_HOLDERS: Final = (*PARTICIPANTS, "ops")
"""Who has keys: everybody on the road, and the operator's side, which issues the tokens that are not a guardian's."""
CRASH_POLL_S: Final = 0.02
STACK_PARTITIONS: Final = 2
"""Of a stack on one machine, which runs one copy of each service: every partition costs a share of each poll and of
each round of the relay (docs/adr/0008)."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a stack is: all that a command needs to work on it. `embedded`: its PostgreSQL was started with it."""

    kafka: str
    admin_dsn: str
    dsns: Mapping[str, str]
    keys: Path
    sms_file: Path
    ports: Mapping[str, int] = field(default_factory=dict)
    namespace: str = ""
    partitions: int = STACK_PARTITIONS
    suffix: str = ""
    embedded: bool = False

    def save(self, folder: Path) -> None:
        """Writes `<folder>/site.json`, readable by its owner only: the addresses hold passwords."""
        path = folder / "site.json.new"
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self), indent=2, default=str), encoding="utf-8")
        path.replace(folder / "site.json")

    @classmethod
    def load(cls, folder: Path) -> "Site | None":
        """What was saved in `folder`, or None."""
        try:
            known = json.loads((folder / "site.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(**known | {"keys": Path(known["keys"]), "sms_file": Path(known["sms_file"])})

    def url(self, name: str) -> str:
        """The HTTP address of one process."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def client_settings(self) -> ClientSettings:
        """What a gateway, or an operator's reader of topics, needs to know."""
        return ClientSettings(kafka=self.kafka, namespace=self.namespace, partitions=self.partitions)


def topics_of(settings: ClientSettings) -> list[Topic]:
    """All topics as a stack has them: with its namespace before each name, and its number of partitions."""
    found: list[Topic] = []
    for topic in ALL_TOPICS:
        shared = topic.kind not in ("dead letters", "gateway replies")
        partitions = settings.partitions if shared else topic.partitions
        found.append(replace(topic, name=settings.namespace + topic.name, partitions=partitions))
    return found


async def prepare(
    folder: Path,
    *,
    progress: Progress,
    servers: Servers | None = None,
    namespace: str = "",
    suffix: str = "",
    fixed_ports: bool = False,
) -> Site:
    """Everything before the first process: servers, databases, tables, keys, topics. Safe to call again.

    `servers` None: those of `folder` are started. `suffix` ends every database's and role's name.
    """
    folder = _made(folder)
    running = await asyncio.to_thread(start_servers, folder, progress) if servers is None else servers
    progress.step("databases", "making roles and databases")
    dsns = await create_databases(running.postgres_admin_dsn, PART_NAMES, suffix=suffix, passwords=given_passwords())
    for name, dsn in dsns.items():
        progress.step("databases", f"bringing the tables of {name} up to date")
        await upgrade(name, dsn)
    progress.done("databases", f"{len(dsns)} databases, tables up to date")
    keys = folder / "keys"
    generate_keys(keys, KEY_HOLDERS)
    site = Site(
        kafka=running.kafka,
        admin_dsn=running.postgres_admin_dsn,
        dsns=dsns,
        keys=keys,
        sms_file=folder / "sms.jsonl",
        ports=choose_ports(folder, fixed=fixed_ports),
        namespace=namespace,
        suffix=suffix,
        embedded=servers is None and not os.environ.get("YIKE_POSTGRES"),
    )
    progress.step("topics", f"making {len(ALL_TOPICS)} topics")
    report = await ensure_topics(running.kafka, topics=topics_of(site.client_settings()))
    progress.done("topics", topics_in_words(report))
    site.save(folder)
    return site


def _made(folder: Path) -> Path:
    """The absolute path of `folder`, which then exists."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def topics_in_words(report: TopicsReport) -> str:
    """What `ensure_topics` did, in one line."""
    words = f"{len(report.created)} topics made, {len(report.present)} were there"
    return words + (f", {len(report.differing)} differences" if report.differing else "")


def given_passwords() -> dict[str, str] | None:
    """The passwords of the databases from YIKE_<NAME>_PASSWORD, or None where none is set (a local server)."""
    found = {name: os.environ.get(password_variable(name), "") for name in PART_NAMES}
    if not any(found.values()):
        return None
    missing = [password_variable(name) for name, value in found.items() if not value]
    if missing:
        raise StackError(f"Passwords are given for some databases only; missing: {', '.join(missing)}")
    return found


def password_variable(name: str) -> str:
    """The variable with the password of one process's database."""
    return f"YIKE_{name.upper()}_PASSWORD"


def choose_ports(folder: Path, *, fixed: bool) -> dict[str, int]:
    """A free port for each process: with `fixed` last time's or its own first, else any."""
    last = Site.load(folder)
    chosen: dict[str, int] = {}
    for part in PARTS:
        wanted = (last.ports.get(part.name) if last else None) or part.port
        while (port := free_port(wanted if fixed else None)) in chosen.values():
            wanted = 0
        chosen[part.name] = port
    return chosen


def process_specs(
    site: Site,
    names: Sequence[str] = PART_NAMES,
    *,
    extra_env: Mapping[str, Mapping[str, str]] | None = None,
    modules: Mapping[str, str] | None = None,
) -> list[ProcessSpec]:
    """What the supervisor shall run. `extra_env` by name, "*" for all; `modules` lets a test play a part itself."""
    extra = extra_env or {}
    unknown = sorted({*names, *extra, *(modules or {})} - {*PART_NAMES, "*"})
    if unknown:
        raise StackError(f"No process is called {', '.join(unknown)}; there are {', '.join(PART_NAMES)}")
    return [
        ProcessSpec(
            name,
            (sys.executable, "-m", (modules or {}).get(name) or PARTS_BY_NAME[name].module),
            {**_environment(site, PARTS_BY_NAME[name]), **extra.get("*", {}), **extra.get(name, {})},
            health_url=f"{site.url(name)}/health/ready",
        )
        for name in names
    ]


def _environment(site: Site, part: Part) -> dict[str, str]:
    everything = {
        "YIKE_DATABASE": site.dsns[part.name],
        "YIKE_KAFKA": site.kafka,
        "YIKE_KEYS": str(site.keys),
        "YIKE_PORT": str(site.ports[part.name]),
        "YIKE_NAMESPACE": site.namespace,
        "YIKE_SMS_FILE": str(site.sms_file),
    }
    wanted = {name: everything[name] for name in (*EVERY_PART_READS, *part.reads)}
    # The processes find the code wherever `yike` was called from.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    # One copy of each here: a killed process gets its partitions back as soon as it is there again. Where a service is
    # scaled (compose, Kubernetes) its copies have no names.
    if part.poll_every_ms is not None:
        wanted["YIKE_POLL_EVERY_MS"] = str(part.poll_every_ms)
    return wanted | {"PYTHONPATH": os.pathsep.join(paths), "YIKE_INSTANCE": f"{part.name}-0"}


class _Processes(Supervisor):
    """A supervisor that can also stop one process and start it again, with settings for one run only."""

    def __init__(self, folder: Path, specs: Sequence[ProcessSpec], progress: Progress | None = None) -> None:
        super().__init__(folder, specs, progress)
        self.specs = {spec.name: spec for spec in specs}
        self._once: dict[str, Mapping[str, str]] = {}

    async def _spawn(self, spec: ProcessSpec) -> asyncio.subprocess.Process:
        once = self._once.pop(spec.name, {})
        return await super()._spawn(replace(spec, env={**spec.env, **once}))

    async def halt(self, name: str) -> None:
        """Ends one process (SIGTERM, then SIGKILL) and keeps it ended."""
        keepers = [keeper for keeper in self._keepers if keeper.get_name() == f"keep {name}"]
        for keeper in keepers:
            keeper.cancel()
            self._keepers.remove(keeper)
        await asyncio.gather(*keepers, return_exceptions=True)
        child = self._children.pop(name, None)
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            try:
                await asyncio.wait_for(child.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                child.kill()
                await child.wait()
        state = self.states[name]
        state.pid, state.ready = None, False
        self._ready[name].clear()
        self._write()

    async def resume(self, name: str, once: Mapping[str, str]) -> None:
        """Starts a halted process, its first run with `once` laid over its settings; waits until it is ready."""
        if once:
            self._once[name] = dict(once)
        self._keepers.append(asyncio.create_task(self._keep(self.specs[name]), name=f"keep {name}"))
        try:
            await asyncio.wait_for(self._ready[name].wait(), READY_TIMEOUT_S)
        except TimeoutError:
            raise StackError(self._not_ready()) from None


class Stack:
    """A stack whose processes are kept by this process: for the demo, tests and bench. Made by `Stack.start`."""

    def __init__(self, folder: Path, site: Site, processes: _Processes, owns_servers: bool) -> None:
        self.folder = folder
        self.site = site
        self._processes = processes
        self._owns_servers = owns_servers
        self._crashes_seen = dict.fromkeys(processes.states, 0)

    @classmethod
    async def start(
        cls,
        folder: Path,
        *,
        progress: Progress | None = None,
        services: Sequence[str] = PART_NAMES,
        extra_env: Mapping[str, Mapping[str, str]] | None = None,
        servers: Servers | None = None,
        namespace: str = "",
        suffix: str = "",
        modules: Mapping[str, str] | None = None,
        fixed_ports: bool = False,
    ) -> "Stack":
        """Prepares everything, starts `services` and waits until all are ready. Raises StackError with their logs.

        In: `extra_env` settings by process ("*": all), in every run. Tests that crash processes set
        YIKE_SESSION_TIMEOUT_MS=6000 there: so long Kafka keeps the partitions of one that did not say goodbye.
        `servers` that run already and are left alone in the end; `namespace` before every topic and group, `suffix`
        behind every database: both isolate stacks on one pair of servers; `modules` by process, in place of its own;
        `fixed_ports` asks for the well-known ports first.
        """
        folder = _made(folder)
        shown = progress or Silent()
        site = await prepare(
            folder,
            progress=shown,
            servers=servers,
            namespace=namespace,
            suffix=suffix,
            fixed_ports=fixed_ports,
        )
        specs = process_specs(site, services, extra_env=extra_env, modules=modules)
        stack = cls(folder, site, _Processes(folder, specs, shown), servers is None)
        try:
            await stack._processes.start()
        except BaseException:  # a cancellation too: nothing is left running, and it goes on its way
            await stack.stop()
            raise
        return stack

    async def stop(self) -> None:
        """Ends the processes, then the servers if they were started here. Safe to call twice."""
        await self._processes.stop()
        if self._owns_servers:
            await asyncio.to_thread(stop_servers, self.folder)

    async def remove(self) -> None:
        """Stops, and takes what a `suffix` and `namespace` set apart from the servers: databases and topics."""
        await self._processes.stop()
        if self.site.suffix:
            await drop_databases(self.admin_dsn, PART_NAMES, suffix=self.site.suffix)
        if self.site.namespace:
            await _delete_topics(self.kafka, [topic.name for topic in topics_of(self.client_settings)])
        await self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- where things are -------------------------------------------------------------------------------------------

    @property
    def kafka(self) -> str:
        """Kafka's bootstrap address."""
        return self.site.kafka

    @property
    def admin_dsn(self) -> str:
        """The address of PostgreSQL's administrator."""
        return self.site.admin_dsn

    @property
    def keys(self) -> Path:
        """The folder of all keys; `KeyRing.load(stack.keys, "ops")` issues tokens."""
        return self.site.keys

    @property
    def sms_file(self) -> Path:
        """Where notify's file provider writes, a line for each SMS."""
        return self.site.sms_file

    @property
    def client_settings(self) -> ClientSettings:
        """For `GatewayClient(stack.client_settings, "test")`."""
        return self.site.client_settings()

    def dsn(self, service: str) -> str:
        """The address of one service's database, with that service's own role."""
        return self.site.dsns[service]

    def url(self, service: str) -> str:
        """The HTTP address of one process: /health/ready, /metrics, /docs/asyncapi."""
        return self.site.url(service)

    def spec(self, service: str) -> ProcessSpec:
        """How one process is started, in every run."""
        return self._processes.specs[service]

    def state(self, service: str) -> ProcessState:
        """What is known of one process now: pid, ready, restarts, last_exit_code."""
        return self._processes.states[service]

    def log(self, service: str) -> str:
        """All that one process has written."""
        return (self.folder / "logs" / f"{service}.log").read_text(encoding="utf-8", errors="replace")

    # --- faults -----------------------------------------------------------------------------------------------------

    async def restart(self, service: str, env: Mapping[str, str] | None = None) -> None:
        """Ends one process cleanly, starts it again and waits until it is ready.

        `env` counts for the next run only: a process that `YIKE_CRASH_AT` ends comes back without it.
        """
        await self.halt(service)
        await self.resume(service, env)

    async def halt(self, service: str) -> None:
        """Ends one process cleanly and keeps it ended until `resume`."""
        await self._processes.halt(service)

    async def resume(self, service: str, env: Mapping[str, str] | None = None) -> None:
        """Starts a halted process; `env` as in `restart`."""
        self._crashes_seen[service] = self.state(service).restarts
        await self._processes.resume(service, env or {})

    def kill(self, service: str) -> None:
        """SIGKILL to one process, as a power cut; the supervisor brings it back (see `until_crashed`)."""
        self._crashes_seen[service] = self.state(service).restarts
        pid = self.state(service).pid
        if pid is not None:
            os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    async def until_crashed(self, service: str, *, timeout_s: float = 60.0) -> None:
        """Waits until one process has ended by itself since the last `restart`, `resume` or `kill`, and is back."""
        deadline = time.monotonic() + timeout_s
        while self.state(service).restarts <= self._crashes_seen[service] or not self.state(service).ready:
            if time.monotonic() > deadline:
                raise StackError(f"{service} has not crashed and come back within {timeout_s:g} s")
            await asyncio.sleep(CRASH_POLL_S)
        self._crashes_seen[service] = self.state(service).restarts

    # --- time -------------------------------------------------------------------------------------------------------

    async def advance(self, by: timedelta) -> timedelta:
        """Moves the clock of everything on this PostgreSQL forward; returns the offset now in force."""
        return await advance_clock(self.admin_dsn, by)


async def advance_clock(admin_dsn: str, by: timedelta) -> timedelta:
    """Adds `by` to the offset of the one clock; returns the offset now in force. Raises StackError for going back."""
    if by < timedelta(0):
        raise StackError("The clock does not go back: what has happened has happened.")
    offset = await get_offset(admin_dsn) + by
    await set_offset(admin_dsn, offset)
    return offset


async def _delete_topics(kafka: str, names: Sequence[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka, request_timeout_ms=ADMIN_TIMEOUT_MS)
    await admin.start()
    try:
        existing = set(await admin.list_topics())
        doomed = [name for name in names if name in existing]
        if doomed:
            await admin.delete_topics(doomed)
    finally:
        await admin.close()
