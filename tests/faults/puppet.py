"""A process of the stack that does as it is told: `python -m tests.faults.puppet` runs a part's own module, and

- dies at a crash point it is given while it runs (`arm`). `YIKE_CRASH_AT` is read when a process starts, and to start
  one costs two seconds of a core: sixty times, in one test. The run after that knows nothing of it;
- plays a part, if YIKE_PUPPET_PLAYS names one: `tomorrow`, whose contracts all have one more field, or one of
  `mistakes.py`.

In: YIKE_PUPPET_RUNS, the module; YIKE_PUPPET_FILE, where `label:n` is written. The file goes when it has been read.
"""

import asyncio
import importlib
import os
import pkgutil
import runpy
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

import shared.contracts
from ops.stack_layout import PARTS_BY_NAME, Stack
from shared.contracts.envelope import CONTRACTS
from shared.messaging import crash
from tests.faults.mistakes import MISTAKES

MODULE: Final = "tests.faults.puppet"
LOOK_S: Final = 0.02
TOMORROW: Final = "tomorrow"
NEW_FIELD: Final = "written_by_the_next_version"


def environment(folder: Path) -> dict[str, dict[str, str]]:
    """What each process of a stack must be told to be a puppet."""
    return {
        name: {"YIKE_PUPPET_RUNS": part.module, "YIKE_PUPPET_FILE": str(folder / f"{name}.arm")}
        for name, part in PARTS_BY_NAME.items()
    }


async def arm(stack: Stack, folder: Path, label: str, passings: Mapping[str, int]) -> None:
    """Each process shall die at its n-th passing of `label` from now on; returns when all of them know."""
    for name, times in passings.items():
        fresh = folder / f"{name}.new"
        fresh.write_text(f"{label}:{times}", encoding="ascii")
        fresh.replace(folder / f"{name}.arm")
    while unread := [name for name in passings if (folder / f"{name}.arm").exists()]:
        assert all(stack.state(name).ready for name in unread)  # who has read it may have died of it already
        await asyncio.sleep(LOOK_S)


def _watch(path: Path) -> None:
    while True:
        time.sleep(LOOK_S)
        if path.exists():
            label, _, times = path.read_text(encoding="ascii").partition(":")
            crash._left = int(times)  # first the number: a label that is known is counted
            crash._label = label
            path.unlink()


def _play_tomorrow() -> None:
    """Every contract gets a field more, written in all that is said; what was said before does not have it."""
    for module in pkgutil.iter_modules(shared.contracts.__path__):
        importlib.import_module(f"shared.contracts.{module.name}")
    for contract in CONTRACTS.values():
        contract.__annotations__[NEW_FIELD] = str
        contract.__pydantic_fields__[NEW_FIELD] = FieldInfo(annotation=str, default="yes")
        contract.model_rebuild(force=True)


if __name__ == "__main__":
    threading.Thread(target=_watch, args=(Path(os.environ["YIKE_PUPPET_FILE"]),), daemon=True).start()
    if (plays := os.environ.get("YIKE_PUPPET_PLAYS", "")) == TOMORROW:
        _play_tomorrow()
    elif plays:
        MISTAKES[plays]()
    runpy.run_module(os.environ["YIKE_PUPPET_RUNS"], run_name="__main__")
