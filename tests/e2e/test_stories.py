"""Each story of `yike demo`, on real processes: all that it tells happens, and the books prove at its end."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from rich.console import Console

from ops import stories
from ops.scenario import Institution, Scenario
from ops.stack.servers import Servers
from ops.stack_layout import Stack
from ops.stories.stage import Story
from shared.clock import get_offset, set_offset
from shared.messaging.rpc import GatewayClient


@pytest.fixture(scope="module")
async def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """All processes, apart from whatever else is on the servers; the clock is set right again at the end."""
    name = f"story{uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("stories")
    running = await Stack.start(folder, servers=servers, namespace=f"{name}.", suffix=f"_{name}")
    offset = await get_offset(running.admin_dsn)
    try:
        yield running
    finally:
        await set_offset(running.admin_dsn, offset)
        await running.remove()


@pytest.fixture(scope="module")
def institutions() -> list[Institution]:
    """Those of all stories so far: the proof adds up what the bank holds for every one of them."""
    return []


@pytest.mark.parametrize("name", stories.STORIES)
async def test_a_story_happens_as_it_is_told(name: str, stack: Stack, institutions: list[Institution]) -> None:
    story = Story(Console(quiet=True), stack, None, institutions=institutions)
    async with GatewayClient(stack.client_settings, "demo") as client:
        scenario = Scenario(client, stack.keys, stack.sms_file)
        scenario.clock_offset = await get_offset(stack.admin_dsn)
        await stories.load(name)(story, stack, scenario)
    await story.account_of_it()
    assert [words for words, happened in story.told if not happened] == []
    assert story.good
