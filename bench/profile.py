"""`make profile`: lessons at full load, and a flame graph of every process meanwhile, by py-spy."""

import argparse
import asyncio
import gc
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from bench.hops import Hops
from bench.load import LoadGateway, lessons, purchases
from bench.town import LESSONS, PURCHASE_WINDOW, WINDOW, Sizes, prepare
from bench.traceable import MODULE
from ops.cli.base import PIPE_COLUMNS
from ops.stack import stack_folder
from ops.stack.progress import showing
from ops.stack.scheduling import finish_batches
from ops.stack.servers import discard
from ops.stack_layout import PART_NAMES, PARTS_BY_NAME, Stack

RATE_HZ: Final = 200
WRITING_S: Final = 60.0


async def run(console: Console, sizes: Sizes) -> list[Path]:
    """Brings a fresh stack up, loads it with purchases and then lessons; the flame graphs of the lessons."""
    folder = stack_folder() / "profile"
    await asyncio.to_thread(discard, folder)
    settings = {
        name: {"YIKE_LOG_LEVEL": "WARNING", "YIKE_TRACEABLE_RUNS": PARTS_BY_NAME[name].module} for name in PART_NAMES
    }
    with showing(console) as progress:
        stack = await Stack.start(
            folder, progress=progress, extra_env=settings, modules=dict.fromkeys(PART_NAMES, MODULE)
        )
    async with stack:
        orders = await prepare(console, stack, sizes)
        async with LoadGateway(stack.client_settings) as gateway:
            with console.status(f"{len(orders)} purchases …"):
                await purchases(gateway, orders, PURCHASE_WINDOW)
            await stack.advance(timedelta(days=LESSONS + 2))
            planned = [(order, number) for number in range(1, LESSONS + 1) for order in orders]
            hops = await Hops.begin(stack)
            with console.status(f"{len(planned)} lessons, every process watched …"):
                watching = [await _watch(stack, name, folder / f"{name}.svg") for name in PART_NAMES]
                measured = await lessons(gateway, planned, WINDOW)
                await asyncio.gather(*(_end(one) for one in watching))
            console.print(f"  {measured.per_s:.0f} lessons/s while watched")
            await hops.show(console)
    return [folder / f"{name}.svg" for name in PART_NAMES]


async def _watch(stack: Stack, name: str, graph: Path) -> asyncio.subprocess.Process:
    spy = Path(sys.executable).with_name("py-spy")
    options = f"--pid {stack.state(name).pid} --rate {RATE_HZ} --duration unlimited --nonblocking --format flamegraph"
    return await asyncio.create_subprocess_exec(
        *(str(spy), "record", *options.split(), "--output", str(graph)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


async def _end(watching: asyncio.subprocess.Process) -> None:
    """Tells py-spy to write what it has seen. Raises RuntimeError with its words if it could not look."""
    if watching.returncode is None:
        watching.send_signal(signal.SIGINT)
    _, words = await asyncio.wait_for(watching.communicate(), WRITING_S)
    if watching.returncode:
        raise RuntimeError(f"py-spy could not watch a process: {words.decode(errors='replace').strip()}")


def main() -> int:
    """Profiles and says where the graphs are."""
    parser = argparse.ArgumentParser(prog="make profile", description=__doc__)
    parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    finish_batches()
    gc.disable()
    for graph in uvloop.run(run(console, Sizes(purchases=1500, lessons=0))):
        console.print(f"  {graph}")
    console.print("Open them in a browser: the wider a bar, the more of the time was spent under it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
