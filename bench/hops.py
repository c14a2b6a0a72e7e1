"""Where the time goes: the services' own metrics before and after a load, as a table by process and stage."""

import asyncio
import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from ops.stack_layout import PART_NAMES, Stack

STAGES = (
    "poll",
    "decode",
    "inbox",
    "load",
    "decide",
    "save",
    "commit",
    "offsets",
    "relay_read",
    "relay_send",
    "relay_mark",
)
"""In the order of the road. `poll` is the wait for records; the relay's are of its rounds."""

Sums = dict[tuple[str, str], tuple[float, float]]
"""(process, what) → (sum, count)."""


@dataclass
class Hops:
    """The metrics at the beginning of a load."""

    stack: Stack
    before: Sums

    @classmethod
    async def begin(cls, stack: Stack) -> "Hops":
        """Reads the metrics now."""
        return cls(stack, await _read(stack))

    async def show(self, console: Console) -> None:
        """A table of what has passed since: messages per batch, and mean milliseconds of one batch by stage."""
        after = await _read(self.stack)
        table = Table(title="One batch: messages, and milliseconds by stage", title_justify="left")
        for column in ("process", "batches", "messages", *STAGES):
            table.add_column(column, justify="left" if column == "process" else "right")
        for name in PART_NAMES:
            cells = [f"{self._mean(after, name, stage) * 1000:.1f}" for stage in STAGES]
            batches = self._delta(after, name, "batch")
            table.add_row(name, f"{batches[1]:.0f}", f"{self._mean(after, name, 'batch'):.1f}", *cells)
        console.print(table)

    def _delta(self, after: Sums, name: str, what: str) -> tuple[float, float]:
        total, count = after.get((name, what), (0.0, 0.0))
        old_total, old_count = self.before.get((name, what), (0.0, 0.0))
        return total - old_total, count - old_count

    def _mean(self, after: Sums, name: str, what: str) -> float:
        total, count = self._delta(after, name, what)
        return total / count if count else 0.0


async def _read(stack: Stack) -> Sums:
    texts = await asyncio.gather(*(asyncio.to_thread(_fetch, stack.url(name)) for name in PART_NAMES))
    found: Sums = {}
    for name, text in zip(PART_NAMES, texts, strict=True):
        for family in text_string_to_metric_families(text):
            if family.name not in ("yike_stage_seconds", "yike_batch_messages"):
                continue
            for sample in family.samples:
                what = sample.labels.get("stage", "batch")
                total, count = found.get((name, what), (0.0, 0.0))
                if sample.name.endswith("_sum"):
                    found[name, what] = (sample.value, count)
                elif sample.name.endswith("_count"):
                    found[name, what] = (total, sample.value)
    return found


def _fetch(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
    return text
