"""One fault on a stack of its own: load, blow, quiet, checks."""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Final

from bench.load import Lesson, LoadGateway, Order, lessons, new_order, purchases
from ops.scenario import Scenario
from ops.stack.servers import Servers
from ops.stack_layout import PART_NAMES, Stack
from shared.clock import get_offset
from shared.messaging.rpc import GatewayClient
from tests.faults.drills import FAULTS, Drill
from tests.faults.invariants import Expected, kafka_of, quiet, violations
from tests.faults.stacks import started

FAMILIES: Final = 6
COURSE_LESSONS: Final = 12
SEATS: Final = 5000
BOUGHT: Final = 300
"""Orders whose lessons are the load, beside new purchases."""
WAVE: Final = 50
WINDOW: Final = 25
BEFORE_S: Final = 3.0
"""So long the load goes on before the fault, and after it."""
QUIET_S: Final = 180.0


@dataclass(frozen=True)
class Outcome:
    """What one fault did, and what was found after it. `recovered_s`: from the end of fault and load until quiet."""

    fault: str
    seed: int
    blows: int
    restarts: int
    messages: int
    purchases: int
    lessons: int
    seconds: float
    recovered_s: float
    violations: Mapping[str, list[str]]

    @property
    def wrong(self) -> int:
        """How many places are wrong."""
        return sum(map(len, self.violations.values()))


@dataclass
class Load:
    """Purchases of one course and lessons of another, wave after wave, until it is `ended`."""

    stack: Stack
    expected: Expected
    orders: Iterator[Order]
    untaught: Iterator[Lesson]
    ended: bool = False

    async def run(self) -> None:
        """Ends with the waves under way."""
        async with AsyncExitStack() as closing:
            gateways = [await closing.enter_async_context(LoadGateway(self.stack.client_settings)) for _ in range(2)]
            await asyncio.gather(self._buy(gateways[0]), self._teach(gateways[1]))

    async def _buy(self, gateway: LoadGateway) -> None:
        while not self.ended and (wave := list(islice(self.orders, WAVE))):
            await purchases(gateway, wave, WINDOW)
            self.expected.orders |= {order.order_id: "enrolled" for order in wave}

    async def _teach(self, gateway: LoadGateway) -> None:
        while not self.ended and (wave := list(islice(self.untaught, WAVE))):
            await lessons(gateway, wave, WINDOW)
            self.expected.lessons |= {(order.order_id, number): "paid_out" for order, number in wave}


async def strike(name: str, seed: int, servers: Servers, folder: Path) -> Outcome:
    """One fault on a stack of its own."""
    chance = random.Random(seed)
    expected = Expected()
    async with AsyncExitStack() as closing:
        stack = await closing.enter_async_context(started(servers, folder / name))
        client = await closing.enter_async_context(GatewayClient(stack.client_settings, "test"))
        scenario = Scenario(client, stack.keys, stack.sms_file, seed=seed)
        scenario.clock_offset = await get_offset(stack.admin_dsn)
        institution = await scenario.open_institution("常州蓝天体育培训中心")
        guardians = [await scenario.new_guardian() for _ in range(FAMILIES)]
        course = await scenario.publish_course(institution, "少儿篮球基础班", lessons=COURSE_LESSONS, seats=SEATS)
        bought = [new_order(guardians[n % FAMILIES], institution, course) for n in range(BOUGHT)]
        async with LoadGateway(stack.client_settings) as gateway:
            await purchases(gateway, bought, WINDOW)
        expected.orders |= {order.order_id: "enrolled" for order in bought}
        scenario.clock_offset = await stack.advance(timedelta(days=COURSE_LESSONS + 2))
        course = await scenario.publish_course(institution, "少儿篮球提高班", lessons=COURSE_LESSONS, seats=SEATS)

        load = Load(
            stack,
            expected,
            (new_order(guardians[n % FAMILIES], institution, course) for n in range(SEATS)),
            ((order, number) for number in range(1, COURSE_LESSONS + 1) for order in bought),
        )
        drill = Drill(stack, folder, chance, guardians[0], course)
        began = time.monotonic()
        running = asyncio.create_task(load.run())
        await asyncio.sleep(BEFORE_S)
        await FAULTS[name](drill)
        await asyncio.sleep(BEFORE_S)
        load.ended = True
        await running
        ended = time.monotonic()
        expected.orders |= {place.order_id: "to_sign" for place in drill.placed}
        await quiet(stack, timeout_s=QUIET_S)
        recovered = time.monotonic()
        async with kafka_of(stack) as kafka:
            messages = sum((await kafka.ends()).values())
        return Outcome(
            fault=name,
            seed=seed,
            blows=drill.blows,
            restarts=sum(stack.state(part).restarts for part in PART_NAMES),
            messages=messages,
            purchases=len(expected.orders),
            lessons=len(expected.lessons),
            seconds=ended - began,
            recovered_s=recovered - ended,
            violations=await violations(stack, expected),
        )
