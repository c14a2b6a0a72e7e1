"""A process of the stack that can be told while it runs where it shall die: `python -m tests.faults.armed`.

`YIKE_CRASH_AT` is read when a process starts, and to start one costs two seconds of a core: sixty times, in one test.
So the very same crash points are set in a process that runs already; the run after that knows nothing of it.

In: YIKE_ARMED_MODULE, what to run; YIKE_ARMED_FILE, where `label:n` is written. The file goes when it has been read.
"""

import asyncio
import os
import runpy
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ops.stack_layout import PARTS_BY_NAME, Stack
from shared.messaging import crash

MODULE: Final = "tests.faults.armed"
LOOK_S: Final = 0.02


def environment(folder: Path) -> dict[str, dict[str, str]]:
    """What each process of a stack must be told to be armed through `folder`."""
    return {
        name: {"YIKE_ARMED_MODULE": part.module, "YIKE_ARMED_FILE": str(folder / name)}
        for name, part in PARTS_BY_NAME.items()
    }


async def arm(stack: Stack, folder: Path, label: str, passings: Mapping[str, int]) -> None:
    """Each process shall die at its n-th passing of `label` from now on; returns when all of them know."""
    for name, times in passings.items():
        fresh = folder / f"{name}.new"
        fresh.write_text(f"{label}:{times}", encoding="ascii")
        fresh.replace(folder / name)
    while any((folder / name).exists() for name in passings):
        assert all(stack.state(name).ready for name in passings)
        await asyncio.sleep(LOOK_S)


def _watch(path: Path) -> None:
    while True:
        time.sleep(LOOK_S)
        if path.exists():
            label, _, times = path.read_text(encoding="ascii").partition(":")
            crash._left = int(times)  # first the number: a label that is known is counted
            crash._label = label
            path.unlink()


if __name__ == "__main__":
    threading.Thread(target=_watch, args=(Path(os.environ["YIKE_ARMED_FILE"]),), daemon=True).start()
    runpy.run_module(os.environ["YIKE_ARMED_MODULE"], run_name="__main__")
