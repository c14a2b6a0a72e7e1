"""Where a mutant lives: a process of its own, forked from one that has loaded everything else already.

A nursery belongs to one module. It imports all of the project that does not import that module, so what a child has
still to import, the mutant and what stands on it, is little; nothing of the true module is ever in a child. The tests
that run the changed lines are run, those first that have killed before; the first that fails ends the child.
"""

import gc
import importlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any, Final, Literal

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutants.operators import Mutant, compile_mutant
from tests.mutants.targets import TESTS, TIMED, module_of, needs_servers

ROOT: Final = Path(__file__).resolve().parents[2]
PARTS: Final = ("services", "shared", "ops", "gateway")
PLUGINS: Final = ("pytest_asyncio.plugin", "pytest_timeout", "_hypothesis_pytestplugin")
# What makes a failure easy to read costs more here than the tests: of a failure only its place is wanted.
WITHOUT: Final = ("no:cacheprovider", "no:unraisableexception", "no:threadexception")
OPTIONS: Final = ("-q", "--assert=plain")
TIMEOUT_S: Final = 40
TRACED_TIMEOUT_S: Final = 400
WAIT_S: Final = "5"
"""How long a test waits for what must come: less than in `make test`, for here what does not come is the rule."""
LIMIT_TIMES: Final = 3.0
LIMIT_MORE_S: Final = 12.0

Verdict = Literal["killed", "survived", "timed out"]


@dataclass
class Baseline:
    """What one test file does when nothing is changed."""

    failed: dict[str, str] = field(default_factory=dict)
    """By test, why; such a test decides nothing."""
    modules: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """By test, in their order."""
    lines: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """By test ("" for what fixtures run), then by mutated file."""


def prepare(kafka: str, postgres: str) -> None:
    """Sets what all tests run here need; without servers those that ask for them fail."""
    os.chdir(ROOT)
    os.environ |= {"STACK": "containers", "YIKE_KAFKA": kafka, "YIKE_POSTGRES": postgres, "TEST_WAIT_S": WAIT_S}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.dont_write_bytecode = False  # some set-ups forbid it, and every child would compile the tests again
    settings.register_profile(
        "mutants",
        max_examples=40,
        derandomize=True,  # a mutant has the same verdict each time
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),  # that it fails is enough, not how little makes it fail
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutants")


def _run(files: Sequence[str], plugin: object, timeout_s: int = TIMEOUT_S) -> int:
    options = [*OPTIONS, f"--timeout={timeout_s}", *(part for name in (*PLUGINS, *WITHOUT) for part in ("-p", name))]
    if not any(needs_servers(name) for name in files):
        options.append("--noconftest")  # the harness imports half of the project
    return int(pytest.main([*options, *files], plugins=[plugin]))


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


# --- the baseline -----------------------------------------------------------------------------------------------------


class _Watching:
    """A plugin that notes how long each test takes and which lines of the mutated files it runs."""

    def __init__(self) -> None:
        self.baseline = Baseline()
        self._files = {str(ROOT / path): path for path in TESTS}
        self._hits: dict[tuple[str, str], set[int]] = {}
        self._now = ""

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        path = self._files.get(frame.f_code.co_filename)
        if path is None:
            return None
        self._hits.setdefault((self._now, path), set()).add(frame.f_lineno)
        return self.trace

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        self._now = item.nodeid
        try:
            return (yield)
        finally:
            self._now = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.baseline.seconds[report.nodeid] = self.baseline.seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self.baseline.failed[report.nodeid] = report.longreprtext

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.baseline.failed[report.nodeid] = report.longreprtext

    def result(self) -> Baseline:
        for (test, path), lines in self._hits.items():
            self.baseline.lines.setdefault(test, {})[path] = sorted(lines)
        for test in self.baseline.failed:
            self.baseline.seconds.pop(test, None)
        self.baseline.modules = [name for name in sys.modules if name.split(".")[0] in PARTS]
        return self.baseline


def take_baseline(test_file: str) -> Baseline:
    """Runs one test file as it is, in this process, which is good for nothing after it."""
    _silence()
    watching = _Watching()
    threading.settrace(watching.trace)  # of threads to come
    sys.settrace(watching.trace)
    _run([test_file], watching, TRACED_TIMEOUT_S)
    sys.settrace(None)
    return watching.result()


# --- mutants ----------------------------------------------------------------------------------------------------------


class _ReachedError(BaseException):
    """Something imports the module that is to be mutated."""


class _Finder(MetaPathFinder, Loader):
    """Gives the mutant to whoever imports its module; as long as there is none, whoever does so is not imported."""

    def __init__(self, path: str) -> None:
        self.name = module_of(path)
        self.file = str(ROOT / path)
        self.code: CodeType | None = None

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        if self.code is None:
            raise _ReachedError
        return spec_from_file_location(name, self.file, loader=self)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        assert self.code is not None
        exec(self.code, module.__dict__)


class _Deciding:
    """A plugin that runs the chosen tests in their order and ends the process at the first failure."""

    def __init__(self, tests: Sequence[str], answer: int) -> None:
        self.rank = {test: rank for rank, test in enumerate(tests)}
        self.answer = answer

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.rank), key=lambda i: self.rank[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.end(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.end("import")

    def end(self, killer: str) -> None:
        os.write(self.answer, killer.encode())
        os._exit(1)


@dataclass
class Nursery:
    """What one module's mutants share."""

    path: str
    tree: Any
    baselines: Mapping[str, Baseline]
    killers: Counter[str] = field(default_factory=Counter)

    def warm_up(self) -> None:
        """Imports all that does not stand on the module."""
        self.finder = _Finder(self.path)
        sys.meta_path.insert(0, self.finder)
        for name in dict.fromkeys(name for one in self.baselines.values() for name in one.modules):
            with suppress(_ReachedError):
                importlib.import_module(name)
        assert self.finder.name not in sys.modules
        gc.freeze()  # what all children have is not theirs to look through

    def tests_for(self, mutant: Mutant | None) -> list[str]:
        """The tests that run its lines, file by file; those that have killed come first, then the shortest."""
        if mutant is None:
            return [test for one in self.baselines.values() for test in one.seconds]
        chosen: list[tuple[int, int, int, float, str]] = []
        for order, one in enumerate(self.baselines.values()):
            in_fixtures = self._hits(one, "", mutant)
            tests = [t for t in one.seconds if not mutant.lines or in_fixtures or self._hits(one, t, mutant)]
            kills = sum(self.killers[test] for test in tests)
            chosen += [(-kills, order, -self.killers[test], one.seconds[test], test) for test in tests]
        return [test for *_, test in sorted(chosen)]

    def _hits(self, one: Baseline, test: str, mutant: Mutant) -> bool:
        return any(line in mutant.lines for line in one.lines.get(test, {}).get(self.path, ()))

    def decide(self, mutant: Mutant | None) -> tuple[Verdict, str, float]:
        """Verdict, the test that killed it, and seconds. None is the module as it is, which must survive all tests."""
        tests = self.tests_for(mutant)
        if not tests:
            return "survived", "no test runs it", 0.0
        began = time.monotonic()
        verdict, killer = self._try(mutant, tests)
        if killer.startswith(TIMED) or (needs_servers(killer) and time.monotonic() - began > float(WAIT_S)):
            # Who has waited in vain may have been kept waiting by chance: what the mutant did happens again.
            verdict, killer = self._try(mutant, [killer, *(test for test in tests if test != killer)])
        self.killers[killer] += bool(killer)
        return verdict, killer, time.monotonic() - began

    def _try(self, mutant: Mutant | None, tests: Sequence[str]) -> tuple[Verdict, str]:
        files = list(dict.fromkeys(test.split("::")[0] for test in tests))
        expected = sum(one.seconds.get(test, 0) for one in self.baselines.values() for test in tests)
        until = time.monotonic() + expected * LIMIT_TIMES + LIMIT_MORE_S
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.setsid()  # what its tests start ends with it
            threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
            _silence()
            self.finder.code = compile_mutant(self.tree, mutant, ROOT / self.path)
            os._exit(_run(files, _Deciding(tests, writing)))
        os.close(writing)
        status = self._wait(child, until)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with os.fdopen(reading) as answer:
            killer = answer.read()
        if status is None:
            return "timed out", ""
        return ("killed", killer or "the process ended") if status else ("survived", "")

    def _wait(self, child: int, until: float) -> int | None:
        """The child's exit status; None if it had to be killed."""
        pause = 0.005
        while time.monotonic() < until:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(pause)
            pause = min(pause * 1.3, 0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
