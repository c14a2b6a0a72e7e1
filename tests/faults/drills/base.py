"""What a fault is, and what it may use."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ops.cli.site import connected
from ops.provision import database_name
from ops.scenario import Scenario
from ops.stack_layout import PART_NAMES, Stack
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
    look at every message."""

    number: int
    strike: Callable[[Drill], Awaitable[None]]
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    puppets: bool = False
    limited: str = ""
    short: bool = False
    requests_lost: bool = False
    long: bool = False

    @property
    def does(self) -> str:
        """In words."""
        return (self.strike.__doc__ or "").strip()
