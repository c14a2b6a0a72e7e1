"""Stacks of real processes for the fault tests, on the session's servers: one for each module."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ops.stack import processes
from ops.stack.servers import Servers
from ops.stack_layout import Stack
from shared.clock import get_offset, set_offset
from shared.ids import new_id


@asynccontextmanager
async def started(servers: Servers, folder: Path, **options: Any) -> AsyncIterator[Stack]:
    """All processes, their own databases and topics; both are gone in the end, and the clock is where it was.

    The supervisor waits a little longer after each crash of a process that has not run for half a minute. Here they
    crash for a living.
    """
    name = f"f{new_id().hex[-8:]}"
    offset = await get_offset(servers.postgres_admin_dsn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "STEADY_AFTER_S", 0.0)
        stack = await Stack.start(folder, servers=servers, namespace=f"{name}.", suffix=f"_{name}", **options)
        try:
            yield stack
        finally:
            await stack.remove()
            await set_offset(servers.postgres_admin_dsn, offset)


@pytest.fixture(scope="module")
async def stack(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """The stack of a module."""
    settings = {"*": {"YIKE_SESSION_TIMEOUT_MS": "6000"}}
    async with started(servers, tmp_path_factory.mktemp("faults"), extra_env=settings) as made:
        yield made
