"""What a person sees while the stack comes up: a line for each part, with its seconds so far."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import Progress as RichBars
from rich.progress import SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Progress(Protocol):
    """Told what each part is doing. Called from several threads at once."""

    def step(self, part: str, text: str) -> None:
        """`part` (kafka, postgres, catalog, …) has begun `text`."""

    def done(self, part: str, text: str) -> None:
        """`part` is ready; `text` says where."""


class Silent:
    """Says nothing; for tests."""

    def step(self, part: str, text: str) -> None:
        """Nothing."""

    def done(self, part: str, text: str) -> None:
        """Nothing."""


class PlainLines:
    """One printed line for each step: for logs and CI, where nothing can be drawn over."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: dict[str, float] = {}
        self._shown: dict[str, str] = {}

    def step(self, part: str, text: str) -> None:
        """Print the step, once: a count or a clock that moves on is no new step."""
        self._begun.setdefault(part, time.monotonic())
        wording = re.sub(r"\d+", "", text)
        if self._shown.get(part) == wording:
            return
        self._shown[part] = wording
        self._console.print(f"  {part:<12} {text}", highlight=False)

    def done(self, part: str, text: str) -> None:
        """Print the result with its seconds."""
        seconds = time.monotonic() - self._begun.pop(part, time.monotonic())
        self._console.print(f"  {part:<12} [green]{text}[/green]  {seconds:.1f} s", highlight=False)


class LiveLines:
    """One line for each part, drawn over, with a spinner and a clock."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def _task(self, part: str) -> TaskID:
        with self._lock:
            if part not in self._tasks:
                self._tasks[part] = self._bars.add_task("", total=1, part=part)
            return self._tasks[part]

    def step(self, part: str, text: str) -> None:
        """Show the step in the part's line."""
        self._bars.update(self._task(part), description=text)

    def done(self, part: str, text: str) -> None:
        """Stop the part's clock."""
        self._bars.update(self._task(part), description=f"[green]{text}[/green]", completed=1)


@contextmanager
def showing(console: Console) -> Iterator[Progress]:
    """A progress display on `console` during the block: live on a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        yield PlainLines(console)
        return
    columns = (SpinnerColumn(finished_text="[green]✓[/green]"), TextColumn("{task.fields[part]:<12}"))
    with RichBars(*columns, TextColumn("{task.description}"), TimeElapsedColumn(), console=console) as bars:
        yield LiveLines(bars)
