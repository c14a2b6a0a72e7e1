"""Stacks of real processes that are made to crash, beside each other on the session's servers."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Final

import pytest

from ops.scenario import Scenario
from ops.stack import processes
from ops.stack.servers import Servers
from ops.stack_layout import PART_NAMES, Stack
from shared.clock import get_offset, set_offset
from shared.ids import new_id
from shared.working_days import SHANGHAI, shanghai

PAUSE_S: Final = (0.1, 1.0)
MOST_AWAY: Final = 2
"""From one kill to the next, no longer. A process needs two seconds to be back, so often others are away too; but
with more of them away the load would stand still, and who is idle is not hurt by a kill."""
LOOK_S: Final = 0.02
SESSION_TIMEOUT_S: Final = 6.0
SHORT_SESSIONS: Final = {"YIKE_SESSION_TIMEOUT_MS": str(int(SESSION_TIMEOUT_S * 1000))}
"""So long Kafka keeps the partitions of a process that did not say goodbye."""
DAY: Final = time(9, 30), time(19)
"""Reminders may be sent then, and there is time left for it."""


async def kill_at_random(stack: Stack, chance: random.Random, times: int) -> None:
    """kill -9 of a random process, so many times."""
    for _ in range(times):
        await asyncio.sleep(chance.uniform(*PAUSE_S))
        victim = chance.choice(PART_NAMES)
        while not stack.state(victim).ready or _away(stack) >= MOST_AWAY:
            await asyncio.sleep(LOOK_S)
        stack.kill(victim)
        while stack.state(victim).ready:
            await asyncio.sleep(LOOK_S)


async def wait_for_morning(stack: Stack, scenario: Scenario, days: int = 0) -> None:
    """Moves the clock by so many days and on to the next morning, unless it is day then: at night notices wait."""
    then = shanghai(scenario.now() + timedelta(days=days))
    if not DAY[0] <= then.time() <= DAY[1]:
        morning = datetime.combine(then.date(), DAY[0], SHANGHAI)
        then = morning if morning > then else morning + timedelta(days=1)
    if (by := then - scenario.now()) > timedelta(0):
        scenario.clock_offset = await stack.advance(by)


def _away(stack: Stack) -> int:
    return sum(not stack.state(name).ready for name in PART_NAMES)


@asynccontextmanager
async def started(
    servers: Servers,
    folder: Path,
    *,
    modules: Mapping[str, str] | None = None,
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> AsyncIterator[Stack]:
    """All processes, their own databases and topics; both are gone in the end, and the clock is where it was.

    In: what to run in place of a process and what to tell it, by name, as in `Stack.start`.

    The supervisor waits a little longer after each crash of a process that has not run for half a minute. Here they
    crash for a living.
    """
    name = f"f{new_id().hex[-8:]}"
    offset = await get_offset(servers.postgres_admin_dsn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "STEADY_AFTER_S", 0.0)
        stack = await Stack.start(
            folder,
            servers=servers,
            namespace=f"{name}.",
            suffix=f"_{name}",
            modules=modules,
            extra_env={"*": SHORT_SESSIONS, **(settings or {})},
        )
        try:
            yield stack
        finally:
            await stack.remove()
            await set_offset(servers.postgres_admin_dsn, offset)
