"""The demo's story, and then the whole history is read once more by everybody: no change."""

import asyncio
from typing import Final

import pytest

from ops.stack_layout import Stack
from tests.faults.invariants import check
from tests.faults.replay import replay
from tests.faults.story import beginning
from tests.faults.world import quiet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FAMILIES: Final = 3


async def test_reading_the_whole_history_again_changes_nothing_and_says_nothing_new(stack: Stack) -> None:
    async with beginning(stack, FAMILIES) as story:
        await asyncio.gather(*(story.flow() for _ in range(FAMILIES)))
        await quiet(stack)
        assert await check(stack, story.expected) == []
        assert await replay(stack) == []
        assert await check(stack, story.expected) == []
