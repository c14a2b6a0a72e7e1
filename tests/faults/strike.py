"""One fault on a stack of its own: load, blow, quiet, checks."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.load import LoadGateway, Order, new_order, purchases
from ops.scenario import Guardian, Scenario
from ops.stack.servers import Servers
from ops.stack_layout import PART_NAMES, Stack
from shared.clock import get_offset
from tests.faults import puppet, statements
from tests.faults.aggregates import sums
from tests.faults.drills.base import Drill, Fault
from tests.faults.invariants import Expected, violations
from tests.faults.load import PATIENCE_S, Gateway, Load, small_course
from tests.faults.replay import replay
from tests.faults.room import little_room
from tests.faults.stacks import started, wait_for_morning
from tests.faults.world import kafka_of, quiet

FAMILIES: Final = 12
CHILDREN: Final = 10
"""Of each family."""
COURSE_LESSONS: Final = 12
PRICE_FEN: Final = 96_000
"""Five orders of a child at one institution are 60 lessons and 4 800 yuan: as much as one charge may be."""
SEATS: Final = 20_000
BOUGHT: Final = 600
"""Orders whose lessons are the load, beside new purchases."""
COMPLAINED: Final = 40
"""So many of them are complained about."""
UNWANTED: Final = 40
"""And so many asked back."""
ELSEWHERE: Final = 24
"""Orders of each institution that is frozen, paid by the day, or wound up."""
WINDOW: Final = 200
BEFORE_S: Final = 3.0
"""So long the load goes on before the fault, and after it."""
QUIET_S: Final = 180.0
SHORT_PATIENCE_S: Final = 30.0
"""What a mistake has lost never comes; long enough for whatever the faults it is seen under only delay."""

Wrong = dict[str, dict[str, list[str]]]
"""The places that are wrong, by invariant and check."""


@dataclass(frozen=True)
class Outcome:
    """What one fault did, and what was found after it. `took`: seconds of each phase, `quiet` from the end of fault and
    load on."""

    fault: str
    number: int
    does: str
    seed: int
    blows: int = 0
    restarts: int = 0
    messages: int = 0
    purchases: int = 0
    lessons: int = 0
    complaints: int = 0
    took: Mapping[str, float] = field(default_factory=dict)
    violations: Mapping[str, Mapping[str, list[str]]] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)
    skipped: str = ""
    failed: str = ""

    def wrong(self, invariant: str) -> int | None:
        """How many places are wrong; None where it was not looked at."""
        checks = self.violations.get(invariant)
        return None if checks is None else sum(map(len, checks.values()))

    @property
    def all_wrong(self) -> int:
        """Over all invariants; a fault that could not be lived through to its end counts as one."""
        return bool(self.failed) + sum(self.wrong(invariant) or 0 for invariant in self.violations)


async def strike(
    name: str, fault: Fault, seed: int, servers: Servers, folder: Path, *, mistake: str = "", again: bool = True
) -> Outcome:
    """One fault on a stack of its own, in every process of which a `mistake` may be made. `again`: I10 is looked at."""
    chance = random.Random(seed)
    expected = Expected()
    phases = _Phases()
    settings = {part: {**one} for part, one in fault.settings.items()}
    modules: dict[str, str] = {}
    if fault.puppets or mistake:
        modules = dict.fromkeys(PART_NAMES, puppet.MODULE)
        for part, told in puppet.environment(folder / name).items():
            settings[part] = {**settings.get(part, {}), **told, "YIKE_PUPPET_PLAYS": mistake}
    async with AsyncExitStack() as closing:
        where = folder
        if fault.limited:
            servers, where = closing.enter_context(little_room(fault.limited, servers))
        stack = await closing.enter_async_context(started(servers, folder / name, modules=modules, settings=settings))
        phases.end("start")
        patience_s = SHORT_PATIENCE_S if mistake else PATIENCE_S
        gateway = await closing.enter_async_context(Gateway(stack.client_settings, patience_s))
        scenario = Scenario(gateway, stack.keys, stack.sms_file, seed=seed, patience_s=patience_s)
        scenario.clock_offset = await get_offset(stack.admin_dsn)
        load = await _prepared(stack, scenario, gateway, expected, chance)
        drill = Drill(stack, where, chance, scenario, load, expected)
        phases.end("prepare")
        running = asyncio.create_task(load.run())
        try:
            await _until_either(asyncio.create_task(_blow(fault, drill)), running)
            await load.end()
            await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await wait_for_morning(stack, scenario)
        phases.end("strike")
        await quiet(stack, timeout_s=QUIET_S)
        phases.end("quiet")
        breaks = [] if fault.long else await statements.breaks(stack, folder / name)
        phases.end("reconcile")
        async with kafka_of(stack) as kafka:
            messages = sum((await kafka.ends()).values())
        restarts = sum(stack.state(part).restarts for part in PART_NAMES)
        found: Wrong = await sums(stack) if fault.long else await violations(stack, expected)
        if not fault.long:
            found["I4"]["the statement of each day has no breaks"] = breaks
        phases.end("check")
        if again and not fault.long:
            places = await replay(stack, requests_lost=fault.requests_lost)
            found["I10"] = {"reading everything again changes nothing": places}
            phases.end("replay")
        return Outcome(
            fault=name,
            number=fault.number,
            does=fault.does,
            seed=seed,
            blows=drill.blows,
            restarts=restarts,
            messages=messages,
            purchases=len(expected.orders),
            lessons=len(expected.lessons),
            complaints=len(expected.complaints),
            took=phases.seconds,
            violations=found,
            measured=drill.measured,
        )


class _Phases:
    """Seconds of each phase, from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.monotonic()

    def end(self, phase: str) -> None:
        """It ends now."""
        now = time.monotonic()
        self.seconds[phase], self._began = now - self._began, now


async def _blow(fault: Fault, drill: Drill) -> None:
    await asyncio.sleep(BEFORE_S)
    await fault.strike(drill)
    await asyncio.sleep(BEFORE_S)


async def _until_either(striking: "asyncio.Task[None]", running: "asyncio.Task[None]") -> None:
    """Until the blow is over; a load that fails meanwhile ends it."""
    await asyncio.wait({striking, running}, return_when=asyncio.FIRST_COMPLETED)
    if not striking.done() and running.exception() is None:
        await striking  # the fault itself has ended the load
    if not striking.done():
        striking.cancel()
        await asyncio.gather(striking, return_exceptions=True)
        running.result()
    striking.result()


async def _prepared(
    stack: Stack, scenario: Scenario, gateway: Gateway, expected: Expected, chance: random.Random
) -> Load:
    """An institution, a course that is over and bought, one that will begin tomorrow, and families."""
    institution = await scenario.open_institution("常州蓝天体育培训中心")
    authority, operator = scenario.token("authority", "changzhou-edu"), scenario.token("operator", "li")
    guardians = await asyncio.gather(*(scenario.new_guardian() for _ in range(FAMILIES)))
    for _ in range(CHILDREN - 1):
        guardians += await asyncio.gather(*(scenario.with_another_child(one) for one in guardians[:FAMILIES]))
    course = await scenario.publish_course(
        institution, "少儿篮球基础班", lessons=COURSE_LESSONS, price_fen=PRICE_FEN, seats=SEATS
    )
    bought = [new_order(guardians[n % len(guardians)], institution, course) for n in range(BOUGHT)]
    frozen, gathered, gone = [await _orders_elsewhere(scenario, guardians, name) for name in ("青枫", "红梅", "天宁")]
    all_bought = [*bought, *frozen, *gathered, *gone]
    async with LoadGateway(stack.client_settings) as loading:
        await purchases(loading, all_bought, WINDOW)
    expected.orders |= {order.order_id: "enrolled" for order in all_bought}
    await quiet(stack)
    await wait_for_morning(stack, scenario, days=COURSE_LESSONS + 2)
    next_course = await small_course(scenario, 1)
    return Load(
        scenario,
        gateway,
        expected,
        chance,
        guardians,
        institution,
        [next_course],
        taught=bought[UNWANTED:-COMPLAINED],
        complained=bought[-COMPLAINED:],
        unwanted=bought[:UNWANTED],
        frozen=frozen,
        gathered=gathered,
        gone=gone,
        authority=authority,
        operator=operator,
        bank=stack.dsn("bank"),
    )


async def _orders_elsewhere(scenario: Scenario, guardians: Sequence[Guardian], name: str) -> list[Order]:
    """Orders to be bought of an institution of their own."""
    institution = await scenario.open_institution(f"常州{name}篮球培训中心")
    course = await scenario.publish_course(
        institution, "少儿篮球基础班", lessons=COURSE_LESSONS, price_fen=PRICE_FEN, seats=SEATS
    )
    return [new_order(guardians[n % len(guardians)], institution, course) for n in range(ELSEWHERE)]
