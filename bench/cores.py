"""Who has had the cores: CPU seconds by kind of process between two moments."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

import psutil

from ops.stack_layout import PARTS

SERVERS: Final = {"postgres": "PostgreSQL", "java": "Kafka"}
LOAD: Final = "load"


@dataclass
class Cores:
    """CPU seconds at a moment: of each kind of process, and of all that ran."""

    began: float
    before: dict[str, float]
    all_before: float

    @classmethod
    def begin(cls) -> "Cores":
        """Looks now."""
        return cls(time.perf_counter(), _used(), _all_used())

    def seconds(self) -> dict[str, float]:
        """CPU seconds since then by kind of process, copies together; the greatest first."""
        after = _used()
        found = {name: seconds - self.before.get(name, 0.0) for name, seconds in after.items()}
        # Who was started anew since has only what it used itself.
        found |= {name: after[name] for name, seconds in found.items() if seconds < 0}
        return dict(sorted(found.items(), key=lambda one: -one[1]))

    def busy(self) -> float:
        """How many cores were busy since then, whoever had them."""
        return (_all_used() - self.all_before) / (time.perf_counter() - self.began)

    def words(self) -> str:
        """As in "1.9 cores busy: escrow 0.74, PostgreSQL 0.28, …"."""
        passed = time.perf_counter() - self.began
        shares = {name: seconds / passed for name, seconds in self.seconds().items()}
        shown = ", ".join(f"{name} {share:.2f}" for name, share in shares.items() if share >= 0.005)
        return f"{self.busy():.1f} cores busy: {shown}"


def _used() -> dict[str, float]:
    used: defaultdict[str, float] = defaultdict(float)
    for process in psutil.process_iter(["name", "pid", "cpu_times", "cmdline"]):
        found = process.info
        if found["cpu_times"] is not None and (name := _who(found)):
            used[name] += found["cpu_times"].user + found["cpu_times"].system
    return dict(used)


def _all_used() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _who(process: dict[str, Any]) -> str | None:
    if process["pid"] == os.getpid():
        return LOAD
    if process["name"] in SERVERS:
        return SERVERS[process["name"]]
    words = process["cmdline"] or ()
    return next((part.name for part in PARTS if part.module in words), None)
