"""What a fault is, and what it may use."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from ops.cli.site import connected
from ops.provision import database_name
from ops.scenario import Scenario
from ops.stack.postgres import free_port
from ops.stack.processes import answers
from ops.stack_layout import PART_NAMES, STACK_PARTITIONS, Stack
from shared.settings import SERVICES
from tests.faults.invariants import Expected
from tests.faults.load import Load
from tests.faults.stacks import LOOK_S

READY_S: Final = 60.0
_END_SESSIONS: Final = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE application_name = 'yike' AND ($1::text IS NULL OR datname = $1)
"""


class Skipped(Exception):
    """This machine does not allow the fault; why."""


@dataclass
class Drill:
    """What a fault may use: the stack, its servers' folder, chance, the load, a gateway. It counts its blows."""

    stack: Stack
    servers: Path
    chance: random.Random
    scenario: Scenario
    load: Load
    expected: Expected
    blows: int = 0
    measured: dict[str, float] = field(default_factory=dict)
    """What else is worth knowing, by name."""

    async def all_ready(self) -> None:
        """Until every process is ready again."""
        async with asyncio.timeout(READY_S):
            while not all(self.stack.state(name).ready for name in PART_NAMES):
                await asyncio.sleep(LOOK_S)

    async def end_sessions(self, name: str | None = None) -> int:
        """Ends all sessions that the services, or one of them, have at PostgreSQL; how many."""
        database = None if name is None else database_name(name, self.stack.site.suffix)
        async with connected(self.stack.admin_dsn) as connection:
            return int(await connection.fetchval(_END_SESSIONS, database))

    def pid(self, name: str) -> int:
        """Of a process that runs."""
        pid = self.stack.state(name).pid
        assert pid is not None
        return pid


@dataclass(frozen=True)
class Fault:
    """`number` is that of the proof issue. `settings` by process, as in `Stack.start`; `puppets`: the processes are
    told what to do while they run (`puppet.py`); `limited`: which server is one of its own with little room; `short`:
    part of `make test`; `requests_lost`: what gateways asked may be gone from the topics; `long`: too much is said to
    look at every message; `partitions` of each topic."""

    number: int
    strike: Callable[[Drill], Awaitable[None]]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    puppets: bool = False
    limited: str = ""
    short: bool = False
    requests_lost: bool = False
    long: bool = False
    partitions: int = STACK_PARTITIONS

    @property
    def does(self) -> str:
        """In words."""
        return (self.strike.__doc__ or "").strip()


@asynccontextmanager
async def a_copy(stack: Stack, name: str) -> AsyncIterator[psutil.Process]:
    """A second copy of a process, told what the first is told, beside it for as long as the block lasts."""
    assert name in SERVICES
    port = free_port()
    spec = stack.spec(name)
    with (stack.folder / "logs" / f"{name}-1.log").open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            *spec.argv,
            env={**os.environ, **spec.env, "YIKE_PORT": str(port), "YIKE_INSTANCE": f"{name}-1"},
            stdout=log,
            stderr=log,
            start_new_session=sys.platform != "win32",
        )
    try:
        async with asyncio.timeout(READY_S):
            while not await asyncio.to_thread(answers, f"http://127.0.0.1:{port}/health/ready"):
                await asyncio.sleep(LOOK_S)
        yield psutil.Process(child.pid)
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()
