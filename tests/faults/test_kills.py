"""Twenty times a random process is killed under load, as by a power cut. SEED=… repeats the order of the kills."""

import asyncio
import os
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Final

import pytest

from bench.load import LoadGateway, Order, lessons, new_order, purchases
from ops.scenario import Scenario
from ops.stack_layout import Stack
from shared.clock import get_offset
from shared.messaging.rpc import GatewayClient
from tests.faults.haste import haste
from tests.faults.invariants import Expected, check, quiet
from tests.faults.stacks import kill_at_random

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

KILLS: Final = 20
FAMILIES: Final = 6
COURSE_LESSONS: Final = 12
SEATS: Final = 5000
WAVE: Final = 100
WINDOW: Final = 50


async def test_twenty_kills_under_load_lose_nothing_repeat_nothing_and_leave_nothing_stuck(stack: Stack) -> None:
    seed = int(os.environ.get("SEED") or secrets.randbits(32))
    print(f"SEED={seed}")
    chance = random.Random(seed)
    async with GatewayClient(stack.client_settings, "test") as client:
        scenario = Scenario(client, stack.keys, stack.sms_file, seed=seed)
        scenario.clock_offset = await get_offset(stack.admin_dsn)
        orders = await _orders(scenario)
    expected = Expected()

    async with haste(stack), LoadGateway(stack.client_settings) as gateway:

        async def buy() -> None:
            wave = list(islice(orders, WAVE))
            await purchases(gateway, wave, WINDOW)
            expected.orders |= {order.order_id: "enrolled" for order in wave}
            bought.extend(wave)

        async def teach() -> None:
            wave = list(islice(untaught, WAVE))
            await lessons(gateway, wave, WINDOW)
            expected.lessons |= {(order.order_id, number): "paid_out" for order, number in wave}

        bought: list[Order] = []
        await _while_killing(stack, chance, KILLS // 2, buy)
        await stack.advance(timedelta(days=COURSE_LESSONS + 2))
        untaught = ((order, number) for number in range(1, COURSE_LESSONS + 1) for order in bought)
        await _while_killing(stack, chance, KILLS - KILLS // 2, teach)
        await quiet(stack)

    print(f"{len(expected.orders)} purchases and {len(expected.lessons)} lessons")
    assert await check(stack, expected) == []


async def _orders(scenario: Scenario) -> Iterator[Order]:
    """Orders without end of a few families; none is placed yet."""
    institution = await scenario.open_institution("常州蓝天体育培训中心")
    course = await scenario.publish_course(institution, "少儿篮球基础班", lessons=COURSE_LESSONS, seats=SEATS)
    guardians = await asyncio.gather(*(scenario.new_guardian() for _ in range(FAMILIES)))
    return (new_order(guardians[number % FAMILIES], institution, course) for number in range(SEATS))


async def _while_killing(stack: Stack, chance: random.Random, times: int, wave: Callable[[], Awaitable[None]]) -> None:
    """Plays one wave of the load after the other until the kills are over."""
    killing = asyncio.create_task(kill_at_random(stack, chance, times))
    try:
        while not killing.done():
            await wave()
        await killing
    finally:
        killing.cancel()
        await asyncio.gather(killing, return_exceptions=True)
