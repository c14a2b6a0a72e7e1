"""What all commands share: the options, the two ways to print (for a person, for a program), and how they fail."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from cyclopts import Parameter
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from ops.stack.progress import Progress, showing

DONE: Final = 0
FOUND: Final = 1
"""The command worked and found something wrong: a violation, a process that is not ready, a letter not replayed."""
WRONG_CALL: Final = 2
NO_STACK: Final = 3
"""No stack, or one that does not answer."""
NOT_FOUND: Final = 4
"""The thing asked for does not exist."""
INTERRUPTED: Final = 130

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")

PIPE_COLUMNS: Final = 160
"""How wide tables are where nobody looks at a terminal: in a file, a pipe or the log of CI."""

console: Final = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
error_console: Final = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_COLUMNS)


class CommandError(Exception):
    """A command cannot do what was asked. In: what is wrong, what to do about it, the exit status."""

    def __init__(self, what: str, hint: str = "", status: int = FOUND) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.status = status


@Parameter(name="*", group="Every command")
@dataclass(frozen=True)
class Common:
    """The options of every command."""

    home: Annotated[Path, Parameter(env_var="YIKE_HOME")] = Path(".yike")
    """Folder of the stack, made by `yike up`."""
    json: Annotated[bool, Parameter(negative="")] = False
    """Print one JSON document instead of tables and colours."""

    @property
    def folder(self) -> Path:
        """The absolute path of the stack's folder."""
        return self.home.absolute()

    def show(self, data: Any, render: Callable[[Console], None]) -> None:
        """Prints `data` as JSON, or lets `render` draw it."""
        if self.json:
            print(json.dumps(data, ensure_ascii=False, indent=2, default=plain))
        else:
            render(console)

    def say(self, words: str) -> None:
        """A line for a person; nothing where a program listens."""
        if not self.json:
            console.print(words)

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A progress display that never gets into the JSON."""
        with showing(error_console if self.json else console) as shown:
            yield shown

    @contextmanager
    def counting(self, words: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar of so many steps, gone at the end; it is told how many are done. Nothing where a program listens."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, console=console, disable=self.json, transient=True) as bars:
            task = bars.add_task(words, total=total)
            yield lambda done: bars.update(task, completed=done)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Goes on if `yes` was given or a person at a terminal says so. Raises CommandError otherwise."""
        if yes:
            return
        if self.json or not sys.stdin.isatty():
            raise CommandError(f"{question} Nobody is there to say yes.", "Say it with --yes.", WRONG_CALL)
        if console.input(f"{escape(question)} [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was done.", status=INTERRUPTED)


USUAL: Final = Common()


def plain(value: Any) -> Any:
    """Anything of ours as JSON: models and dataclasses as objects, times in ISO 8601, the rest as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    return str(value)


class Lines(Table):
    """A table under a heading that may be wider than itself (rich folds a title to the width of its table)."""

    def __init__(self, heading: str) -> None:
        super().__init__(box=None, pad_edge=False, header_style="dim")
        self.heading = heading

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self.heading, style="bold")
        yield from super().__rich_console__(console, options)


def table(heading: str, *columns: str, right: Sequence[str] = ()) -> Lines:
    """An empty table; columns named in `right` hold numbers."""
    made = Lines(heading)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def local(moment: datetime | None) -> str:
    """A moment as people of Changzhou read it."""
    return moment.astimezone(SHANGHAI).strftime("%m-%d %H:%M:%S") if moment else ""


def age(seconds: float | None) -> str:
    """A span in the largest unit that says enough."""
    if seconds is None:
        return ""
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{sign}{seconds / length:.0f} {unit}"
    return f"{sign}{seconds:.1f} s"


def yuan(fen: int) -> str:
    """Fen as yuan."""
    return f"{'-' if fen < 0 else ''}¥{abs(fen) // 100:,}.{abs(fen) % 100:02d}"
