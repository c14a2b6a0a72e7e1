"""Every process dies once right after each step of the road, while the demo's story runs: nothing shows of it after."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from ops.stack.servers import Servers
from ops.stack_layout import PART_NAMES
from shared.messaging.crash import EXIT_STATUS, LABELS
from tests.faults import puppet
from tests.faults.haste import haste
from tests.faults.invariants import check
from tests.faults.stacks import started
from tests.faults.story import Story, beginning
from tests.faults.world import quiet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PASSINGS: Final = {
    "catalog": (1, 2),
    "orders": (4, 9, 14),
    "escrow": (1, 2, 3),
    "complaints": (1,),
    "notify": (1, 3),
    "bank": (1, 2),
}
"""The how-manieth passing of the label ends a process, label by label in turn: each is reached in one story."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes are armed."""
    return tmp_path_factory.mktemp("armed")


@pytest.fixture(scope="module")
async def story(servers: Servers, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """The beginning of a story with a flow for each label."""
    modules = dict.fromkeys(PART_NAMES, puppet.MODULE)
    settings = puppet.environment(folder)
    async with (
        started(servers, tmp_path_factory.mktemp("faults"), modules=modules, settings=settings) as stack,
        beginning(stack, len(LABELS)) as begun,
    ):
        await quiet(stack)
        assert await check(stack, begun.expected) == []
        yield begun


@pytest.mark.parametrize("label", LABELS)
async def test_nothing_is_lost_or_done_twice_when_every_process_dies_after(
    label: str, story: Story, folder: Path
) -> None:
    stack, turn = story.stack, LABELS.index(label)
    before = {name: stack.state(name).restarts for name in PART_NAMES}
    await puppet.arm(stack, folder, label, {name: some[turn % len(some)] for name, some in PASSINGS.items()})

    async with haste(stack):
        await story.flow()
        await asyncio.gather(*(stack.until_crashed(name) for name in PART_NAMES))
        await quiet(stack)

    ends = {name: (stack.state(name).restarts - before[name], stack.state(name).last_exit_code) for name in PART_NAMES}
    assert ends == dict.fromkeys(PART_NAMES, (1, EXIT_STATUS))
    assert await check(stack, story.expected) == []
