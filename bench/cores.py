"""Who has had the cores: CPU seconds by process of the stack between two moments, as shares of one core."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

import psutil

from ops.stack_layout import PARTS

SERVERS: Final = {"postgres": "PostgreSQL", "java": "Kafka"}
LOAD: Final = "load"
REST: Final = "rest"
"""The kernel's own, and whatever else runs on this machine."""


@dataclass
class Cores:
    """CPU seconds by whoever used them, at a moment."""

    began: float
    before: defaultdict[str, float]

    @classmethod
    def begin(cls) -> "Cores":
        """Looks now."""
        return cls(time.perf_counter(), _used())

    def seconds(self) -> dict[str, float]:
        """CPU seconds since then by kind of process, copies together; the greatest first."""
        after = _used()
        found = {name: seconds - self.before[name] for name, seconds in after.items()}
        # Who was started anew has only what it used itself; the rest is a difference of clocks that tick.
        found |= {name: after[name] for name, seconds in found.items() if seconds < 0 and name != REST}
        return dict(sorted(found.items(), key=lambda one: -one[1]))

    def words(self) -> str:
        """As in "escrow 74 %, PostgreSQL 28 %, … of one core"."""
        passed = time.perf_counter() - self.began
        shares = {name: seconds / passed for name, seconds in self.seconds().items()}
        shown = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005)
        cores = psutil.cpu_count() or 1
        return f"{shown} of a core; all {cores} cores {sum(shares.values()) / cores:.0%}"


def _used() -> defaultdict[str, float]:
    used: defaultdict[str, float] = defaultdict(float)
    for process in psutil.process_iter(["name", "pid", "cpu_times", "cmdline"]):
        found = process.info
        if found["cpu_times"] is not None and (name := _who(found)):
            used[name] += found["cpu_times"].user + found["cpu_times"].system
    times = psutil.cpu_times()
    used[REST] = sum(times) - times.idle - getattr(times, "iowait", 0.0) - sum(used.values())
    return used


def _who(process: dict[str, Any]) -> str | None:
    if process["pid"] == os.getpid():
        return LOAD
    if process["name"] in SERVERS:
        return SERVERS[process["name"]]
    words = process["cmdline"] or ()
    return next((part.name for part in PARTS if part.module in words), None)
