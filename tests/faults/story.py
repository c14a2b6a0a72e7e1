"""The demo's story, as often as a test wants it, with what must have become of it in the end."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import asyncpg

from ops.scenario import Bought, Guardian, Institution, Scenario
from ops.stack_layout import Stack
from shared.clock import get_offset
from shared.contracts.catalog import CourseView
from shared.messaging.rpc import GatewayClient
from tests.faults.invariants import Expected
from tests.faults.stacks import wait_for_morning

LESSONS_TAUGHT: Final = 3
SEATS: Final = 100
HELD_S: Final = 60.0


@dataclass
class Story:
    """An institution with a course that has begun and one that will; families that have bought the first one twice."""

    stack: Stack
    scenario: Scenario
    institution: Institution
    next_course: CourseView
    waiting: deque[tuple[Bought, Bought]]
    expected: Expected = field(default_factory=Expected)

    async def flow(self) -> None:
        """A family signs in and buys. Meanwhile another's lessons are confirmed and paid out, objected to, and wait
        for an answer, and its complaint holds the money of its other order. Needs one of `waiting`."""
        first, second = self.waiting.popleft()
        await asyncio.gather(self._buys(), self._has_lessons(first), self._complains(second))

    async def _buys(self) -> None:
        guardian = await self.scenario.new_guardian()
        bought = await self.scenario.buy(guardian, self.institution, self.next_course)
        self.expected.orders[bought.order_id] = "enrolled"

    async def _has_lessons(self, bought: Bought) -> None:
        await self.scenario.apply_for(bought, 1)
        await self.scenario.confirm(bought, 1)
        await self.scenario.apply_for(bought, 2)
        await self.scenario.object_to(bought, 2, "老师迟到四十分钟，未补课")
        await self.scenario.apply_for(bought, 3)
        await self.scenario.until_lesson(bought, 1, "paid_out")
        self._expect(bought, "paid_out", "objected", "applied")

    async def _complains(self, bought: Bought) -> None:
        filing = await self.scenario.complain(bought.order_id, bought.guardian, self.institution)
        self.expected.complaints[filing.filing_id] = bought.order_id
        await self._until_held(bought.order_id)
        await self.scenario.apply_for(bought, 1)
        await self.scenario.confirm(bought, 1)
        self._expect(bought, "confirmed")

    async def _until_held(self, order_id: UUID) -> None:
        """Looked up in the database: to ask escrow would be one more message on its road."""
        connection = await asyncpg.connect(self.stack.dsn("escrow"))
        try:
            async with asyncio.timeout(HELD_S):
                while not await connection.fetchval("SELECT suspensions FROM accounts WHERE order_id = $1", order_id):
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()

    def _expect(self, bought: Bought, *states: str) -> None:
        for number, state in enumerate(states, 1):
            self.expected.lessons[bought.order_id, number] = state


@asynccontextmanager
async def beginning(stack: Stack, flows: int) -> AsyncIterator[Story]:
    """The beginning of a story of at most so many flows: bought, and the first three lessons taught."""
    async with GatewayClient(stack.client_settings, "test") as client:
        scenario = Scenario(client, stack.keys, stack.sms_file, seed=1)
        scenario.clock_offset = await get_offset(stack.admin_dsn)
        institution = await scenario.open_institution("常州蓝天体育培训中心")
        course = await scenario.publish_course(institution, "少儿篮球基础班", seats=SEATS)
        guardians = await asyncio.gather(*(scenario.new_guardian() for _ in range(flows)))
        pairs = await asyncio.gather(*(_twice(scenario, guardian, institution, course) for guardian in guardians))
        await wait_for_morning(stack, scenario, days=LESSONS_TAUGHT + 1)
        next_course = await scenario.publish_course(institution, "少儿篮球提高班", seats=SEATS)
        story = Story(stack, scenario, institution, next_course, deque(pairs))
        story.expected.orders = {bought.order_id: "enrolled" for pair in pairs for bought in pair}
        yield story


async def _twice(
    scenario: Scenario, guardian: Guardian, institution: Institution, course: CourseView
) -> tuple[Bought, Bought]:
    first, second = await asyncio.gather(*(scenario.buy(guardian, institution, course) for _ in range(2)))
    return first, second
