"""A second copy of a process beside the first, as where a service is scaled: for the bench and for faults."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import psutil

from ops.stack.postgres import free_port
from ops.stack.processes import answers
from ops.stack_layout import Stack
from shared.settings import SERVICES

READY_S: Final = 60.0
LOOK_S: Final = 0.02


@asynccontextmanager
async def a_copy(stack: Stack, name: str) -> AsyncIterator[psutil.Process]:
    """The copy, ready, told what the first is told, for as long as the block lasts. It has no name in its group, so
    its partitions go back at once when it ends.

    Raises TimeoutError if it is not ready within a minute.
    """
    assert name in SERVICES
    port = free_port()
    spec = stack.spec(name)
    with (stack.folder / "logs" / f"{name}-1.log").open("ab") as log:
        child = await asyncio.create_subprocess_exec(
            *spec.argv,
            env={**os.environ, **spec.env, "YIKE_PORT": str(port), "YIKE_INSTANCE": ""},
            stdout=log,
            stderr=log,
            start_new_session=sys.platform != "win32",
        )
    try:
        async with asyncio.timeout(READY_S):
            while not await asyncio.to_thread(answers, f"http://127.0.0.1:{port}/health/ready"):
                await asyncio.sleep(LOOK_S)
        yield psutil.Process(child.pid)
    finally:
        if child.returncode is None:
            child.terminate()
            await child.wait()
