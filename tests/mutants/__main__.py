"""`python -m tests.mutants`: one small fault after the other, and whether a test notices."""

import argparse
import hashlib
import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ops.stack import stack_folder
from tests.mutants import report
from tests.mutants.nursery import ROOT, Baseline
from tests.mutants.operators import Mutant, mutants
from tests.mutants.targets import TESTS, needs_servers
from tests.mutants.workers import HEAVY, TRUE, Done, Task, own_servers, run

CHUNK: Final = 10
SHOWN: Final = 500
TOLD: Final = 20
"""So many lines of progress where there is no terminal for a bar."""
WORKERS_PER_CORE: Final = 2
"""More than one: who tests the road mostly waits."""


STORE: Final = stack_folder() / "mutants" / "mutants.json"
Verdicts = dict[tuple[str, int], dict[str, Any]]
"""By file and number of the mutant."""


@dataclass
class Run:
    """What is to be done, and what became of it."""

    found: dict[str, list[Mutant]]
    wanted: dict[str, list[int]]
    hashes: dict[str, str]
    """Of the files: a verdict is of a file as it was."""
    verdicts: Verdicts = field(default_factory=dict)
    untrue: list[str] = field(default_factory=list)
    """Modules that were killed as they are: there is no relying on the verdicts of their mutants."""

    def note(self, done: Done) -> None:
        """Writes down a verdict."""
        path = done.task.path
        if done.number == TRUE:
            self.untrue += [f"{path} by {done.killer}"] if done.verdict != "survived" else []
            return
        mutant = self.found[path][done.number]
        about = {name: getattr(mutant, name) for name in ("line", "scope", "operator", "before", "after")}
        verdict = {"verdict": done.verdict, "killer": done.killer, "seconds": round(done.seconds, 2)}
        self.verdicts[path, done.number] = {
            "path": path,
            "hash": self.hashes[path],
            "number": done.number,
            **about,
            **verdict,
        }


def choose(only: str, sample: int, seed: int) -> Run:
    """The mutants of the files whose path contains a word of `only`; of these a sample, if one is asked for."""
    words = only.split() or [""]
    paths = [path for path in TESTS if any(word in path for word in words)]
    found = {path: mutants((ROOT / path).read_text(encoding="utf-8"))[1] for path in paths}
    everyone = [(path, number) for path, them in found.items() for number in range(len(them))]
    if sample and sample < len(everyone):
        everyone = sorted(random.Random(seed).sample(everyone, sample))
    hashes = {path: hashlib.sha256((ROOT / path).read_bytes()).hexdigest()[:16] for path in paths}
    return Run(found, {path: [n for p, n in everyone if p == path] for path in found}, hashes)


def leave_out_killed(chosen: Run, known: Verdicts) -> None:
    """Takes over what was killed before."""
    for (path, number), one in known.items():
        if one["verdict"] != "survived" and number in chosen.wanted.get(path, ()):
            chosen.wanted[path].remove(number)
            chosen.verdicts[path, number] = one


def remembered(everyone: Run) -> Verdicts:
    """The last verdict of each mutant there is, of files that are as they were then."""
    if not STORE.exists():
        return {}
    found = {(one["path"], one["number"]): one for one in json.loads(STORE.read_text(encoding="utf-8"))["mutants"]}
    return {key: one for key, one in found.items() if one["hash"] == everyone.hashes.get(key[0])}


def remember(everyone: Run, verdicts: Verdicts, seconds: dict[str, float]) -> None:
    """Writes down all that is known, here and in the document."""
    result = report.result(list(verdicts.values()), seconds, {path: len(them) for path, them in everyone.found.items()})
    STORE.parent.mkdir(parents=True, exist_ok=True)
    STORE.write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
    report.write_document(result)


def tasks_of(chosen: Run) -> list[Task]:
    """In parts, those with servers first, for they take longest; mixed, so that a run that is ended has seen of all.

    Before all mutants comes each module as it is: a score means something only if that survives in their place.
    """
    true = [Task(path=path, numbers=(TRUE,)) for path, numbers in chosen.wanted.items() if numbers]
    parts = [
        Task(path=path, numbers=tuple(numbers[first : first + CHUNK]))
        for path, numbers in chosen.wanted.items()
        for first in range(0, len(numbers), CHUNK)
    ]
    random.Random(0).shuffle(parts)
    return sorted([*true, *parts], key=lambda task: not any(map(needs_servers, TESTS[task.path])))


def go(chosen: Run, workers: int, console: Console) -> dict[str, float]:
    """Does it; how many seconds each part took."""
    files = list(dict.fromkeys(name for path, numbers in chosen.wanted.items() if numbers for name in TESTS[path]))
    for name in HEAVY:
        importlib.import_module(name)
    moments = [time.monotonic()]
    with ExitStack() as stack:
        servers = stack.enter_context(own_servers(workers)) if any(map(needs_servers, files)) else []
        moments.append(time.monotonic())
        baselines: dict[str, Baseline] = {}
        slowest_first = [Task(name) for name in sorted(files, key=lambda name: not needs_servers(name))]
        for done in _shown(run(slowest_first, workers, servers, {}), "baseline", len(files), console):
            assert done.baseline is not None
            for test, why in done.baseline.failed.items():
                console.print(f"fails with nothing changed, and is left out: {test}", markup=False)
                console.print(why[-SHOWN:], markup=False, style="dim")
            baselines[done.task.test_file] = done.baseline
        moments.append(time.monotonic())
        tasks = tasks_of(chosen)
        total = sum(len(task.numbers) for task in tasks)
        for done in _shown(run(tasks, workers, servers, baselines), "mutants", total, console):
            chosen.note(done)
        moments.append(time.monotonic())
    return dict(zip(("servers", "baseline", "mutants"), (b - a for a, b in pairwise(moments)), strict=True))


def _shown(work: Iterator[Done], what: str, total: int, console: Console) -> Iterator[Done]:
    """`work`, with a bar that says how far it is."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    more = TimeRemainingColumn(), TextColumn("{task.fields[survived]} survived")
    with Progress(*columns, *more, console=console) as progress:
        bar = progress.add_task(what, total=total, survived=0)
        survived = 0
        for number, done in enumerate(work, start=1):
            if done.error:
                raise SystemExit(f"{done.task}: {done.error}")
            survived += done.verdict == "survived" and done.number != TRUE
            progress.update(bar, advance=1, survived=survived)
            if not console.is_terminal and (number % (total // TOLD + 1) == 0):
                console.print(f"{what}: {number} of {total}, {survived} survived")
            yield done


def _end(*_: object) -> None:
    """As ctrl-C: what was started is ended, and a second signal does not come between."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def main() -> int:
    """0 if enough mutants are killed."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    environ = os.environ
    parser.add_argument("--only", default=environ.get("ONLY", ""), help="files whose path contains one of these")
    parser.add_argument("--sample", type=int, default=int(environ.get("SAMPLE") or 0), help="so many, by chance")
    parser.add_argument("--seed", type=int, default=int(environ.get("SEED") or 0), help="repeats a sample")
    parser.add_argument("--again", action="store_true", default=bool(environ.get("AGAIN")), help="only what survived")
    parser.add_argument("--workers", type=int, default=WORKERS_PER_CORE * (os.cpu_count() or 2))
    parser.add_argument("--report", action="store_true", help="try nothing: what is known, and the document anew")
    parser.add_argument("--json", action="store_true", help="print the result as JSON only")
    arguments = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    everyone = choose("", 0, 0)
    chosen = choose(arguments.only, arguments.sample, arguments.seed)
    known = remembered(everyone)
    if arguments.again:
        leave_out_killed(chosen, known)
    signal.signal(signal.SIGTERM, _end)
    seconds: dict[str, float] = {}
    try:
        if not arguments.report:
            seconds = go(chosen, arguments.workers, console)
    finally:
        remember(everyone, remembered(everyone) | chosen.verdicts, seconds)
    sizes = {path: len(numbers) for path, numbers in chosen.found.items()}
    result = report.result(list((known if arguments.report else chosen.verdicts).values()), seconds, sizes)
    for one in chosen.untrue:
        console.print(f"killed with nothing changed: {one}", markup=False, style="red")
    if arguments.json:
        print(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        report.show(Console(highlight=False, width=140), result)
    return 1 if chosen.untrue else report.status(result)


if __name__ == "__main__":
    sys.exit(main())
