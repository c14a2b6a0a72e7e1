"""The stack of real processes that the tests of a module share."""

from collections.abc import AsyncIterator

import pytest

from ops.stack.servers import Servers
from ops.stack_layout import Stack
from tests.faults.stacks import started


@pytest.fixture(scope="module")
async def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A stack for each module."""
    async with started(servers, tmp_path_factory.mktemp("faults")) as made:
        yield made
