"""Faults of the machine: clocks that jump, a log that cannot be written; and a long day without any fault."""

import asyncio
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from bench.load import Lesson, LoadGateway, Order, lessons, new_order, purchases
from ops.cli.site import connected
from ops.provision import database_name
from ops.scenario import Institution
from ops.stack_layout import PART_NAMES
from shared.clock import SETTING, get_offset
from tests.faults.drills.base import Drill
from tests.faults.load import LoadError, small_course
from tests.faults.stacks import wait_for_morning
from tests.faults.world import databases_of

JUMPS_S: Final = (3600.0, -3600.0, 0.0)
JUMP_LASTS_S: Final = 2.0
MUTE_S: Final = 10.0
SOAK: Final = os.environ.get("SOAK") or "10m"
SLICE_S: Final = 30.0
REST_S: Final = 2.0
"""Of each worker of the mixed load after each flow: without it they take whatever cores the soak leaves, and what is
measured is how long the queue of a full machine has become."""
PROBE: Final = 3000
PROBE_WINDOW: Final = 400
PURCHASES_AT_ONCE: Final = 200
LESSONS: Final = 12
PRICE_FEN: Final = 96_000
PER_CHILD: Final = 5
"""Orders of one child at one institution: 60 lessons and 4 800 yuan, as much as one charge may be."""
PER_COURSE: Final = 1500
"""New purchases beside: half of what all children may buy of a small course, for they choose by chance."""
NEW_PER_S: Final = 12
"""More than there are."""
# The first minutes are for pools, caches and plans.
MOST_RSS_GROWTH: Final = 1.10
MOST_DRIFT: Final = 2.0
MOST_DEAD: Final = 200_000
"""Of one table. The queues live of rows that die: a vacuum comes once a minute, and finds what a minute has left."""
MOST_UNSENT: Final = 20_000

_SIZES: Final = """
SELECT (SELECT count(*) FROM unsent) AS unsent, (SELECT count(*) FROM outbox) AS outbox,
       pg_database_size(current_database()) AS bytes, (SELECT max(n_dead_tup) FROM pg_stat_user_tables) AS dead
"""


async def clocks(drill: Drill) -> None:
    """the clock of each service in turn is an hour fast, then an hour slow, then right again"""
    drill.load.lenient = True
    offset = await get_offset(drill.stack.admin_dsn)
    async with connected(drill.stack.admin_dsn) as connection:
        for name in PART_NAMES:
            database = database_name(name, drill.stack.site.suffix)
            for jump_s in JUMPS_S:
                seconds = offset.total_seconds() + jump_s
                await connection.execute(f"ALTER DATABASE \"{database}\" SET {SETTING} = '{seconds}'")
                await drill.end_sessions(name)  # a setting of a database counts for new ones
                drill.blows += 1
                await asyncio.sleep(JUMP_LASTS_S)
            await connection.execute(f'ALTER DATABASE "{database}" RESET {SETTING}')
            await drill.end_sessions(name)


async def mute(drill: Drill) -> None:
    """no process can write its log: the disk of the logs is full"""
    full = Path("/dev/full")
    for name in PART_NAMES:
        log = drill.stack.folder / "logs" / f"{name}.log"
        await drill.stack.halt(name)
        log.rename(log.with_suffix(".before"))
        log.symlink_to(full)
        await drill.stack.resume(name)
        drill.blows += 1
    await drill.end_sessions()  # something to be logged
    done = len(drill.expected.lessons)
    await asyncio.sleep(MUTE_S)
    if len(drill.expected.lessons) == done:
        raise LoadError("no lesson was paid out while no log could be written")
    for name in PART_NAMES:
        log = drill.stack.folder / "logs" / f"{name}.log"
        await drill.stack.halt(name)
        log.unlink()
        log.with_suffix(".before").rename(log)
        await drill.stack.resume(name)


# --- the long day -----------------------------------------------------------------------------------------------------


async def soak(drill: Drill) -> None:
    """no fault: half of the peak for ten minutes (SOAK=1h for longer); memory, latency and tables must not grow on"""
    await drill.load.end()
    async with LoadGateway(drill.stack.client_settings) as gateway:
        probe = [lesson for lesson, _ in zip(drill.load.lessons, range(PROBE), strict=False)]
        per_s = (await lessons(gateway, probe, PROBE_WINDOW)).per_s / 2
        slices = max(3, round(_seconds(SOAK) / SLICE_S))
        of_slice = int(per_s * SLICE_S)
        planned = _plan(await _buy(drill, gateway, slices * of_slice // LESSONS + 1))
        drill.load.rest_s = REST_S
        loading = asyncio.create_task(drill.load.run())
        seen: list[dict[str, float]] = []
        for number in range(slices):
            part = planned[number * of_slice : (number + 1) * of_slice]
            measured = await lessons(gateway, part, 0, per_s=per_s)
            seen.append(await _sizes(drill) | {"p99_ms": measured.percentile_ms(99)})
            drill.blows += 1
        await drill.load.end()
        await loading
    drill.measured |= {"per_s": per_s, "slices": slices} | {f"first_{k}": v for k, v in seen[slices // 3].items()}
    drill.measured |= {f"last_{k}": v for k, v in seen[-1].items()}
    _must_not_grow(seen)


def _seconds(words: str) -> float:
    found = re.fullmatch(r"(\d+)([smh])", words)
    if found is None:
        raise ValueError(f"SOAK={words}: a number and s, m or h, as in 10m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


async def _buy(drill: Drill, gateway: LoadGateway, number: int) -> list[Order]:
    """Orders whose lessons have been taught, at as many institutions as may sell so many to these children."""
    load, scenario = drill.load, drill.scenario
    most = PER_CHILD * len(load.guardians)
    orders: list[Order] = []
    institutions: list[Institution] = []
    while len(orders) < number:
        institution = await scenario.open_institution(f"常州红梅篮球培训中心{len(institutions)}")
        taught = await scenario.publish_course(
            institution, "少儿篮球长训班", lessons=LESSONS, price_fen=PRICE_FEN, seats=most
        )
        some = min(most, number - len(orders))
        part = [new_order(load.guardians[n % len(load.guardians)], institution, taught) for n in range(some)]
        await purchases(gateway, part, PURCHASES_AT_ONCE)
        orders += part
        institutions.append(institution)
    await wait_for_morning(drill.stack, scenario, days=LESSONS + 2)
    courses = 1 + int(_seconds(SOAK) * NEW_PER_S / PER_COURSE)
    load.courses = [await small_course(scenario, 2 + n) for n in range(courses)]
    load.sign_in_again()
    for institution in institutions:
        institution.token = scenario.token("institution", str(institution.institution_id))
    return orders


def _plan(orders: Sequence[Order]) -> list[Lesson]:
    return [(order, number) for number in range(1, LESSONS + 1) for order in orders]


async def _sizes(drill: Drill) -> dict[str, float]:
    found = {"rss_mib": max(psutil.Process(drill.pid(name)).memory_info().rss for name in PART_NAMES) / 2**20}
    async with databases_of(drill.stack) as databases:
        for name, connection in databases.items():
            sizes = await connection.fetchrow(_SIZES)
            assert sizes is not None
            found |= {f"{name}_{what}": float(size) for what, size in sizes.items()}
    return found


def _must_not_grow(seen: Sequence[dict[str, float]]) -> None:
    """The last third against the one before it. Raises LoadError."""
    third = len(seen) // 3
    middle, last = seen[third : 2 * third], seen[-third:]
    wrong = []
    for name, most in (("rss_mib", MOST_RSS_GROWTH), ("p99_ms", MOST_DRIFT)):
        before, after = (sorted(one[name] for one in part)[len(part) // 2] for part in (middle, last))
        wrong += [name] if after > before * most else []
    for what, bound in (("unsent", MOST_UNSENT), ("dead", MOST_DEAD)):
        names = [f"{part}_{what}" for part in PART_NAMES]
        wrong += [name for name in names if max(one[name] for one in last) > bound]
    if wrong:
        wrong = [f"{name}: {', '.join(f'{one[name]:.0f}' for one in seen)}" for name in wrong]
        raise LoadError("; ".join(wrong))
