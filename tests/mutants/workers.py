"""The processes that do the work: each has servers of its own, for the clock of a server is moved by its tests."""

import asyncio
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ops.stack.servers import Servers, embedded_postgres, start_servers, stop_servers
from tests.mutants import nursery
from tests.mutants.nursery import ROOT, Baseline, Nursery, Verdict
from tests.mutants.operators import mutants
from tests.mutants.targets import TESTS, needs_servers

TRUE: Final = -1
_FORK: Final = multiprocessing.get_context("fork")
# What everything needs and nothing is mutated of; forked, it is imported once.
HEAVY: Final = (
    "alembic.command", "chinese_calendar", "faststream.kafka", "hypothesis", "joserfc.jwt", "joserfc.jwe",
    "prometheus_client", "pytest_asyncio.plugin", "sqlmodel.ext.asyncio.session", "structlog", "uvicorn",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A test file to take the baseline of (no `path`), or some mutants of a module."""

    test_file: str = ""
    path: str = ""
    numbers: tuple[int, ...] = ()
    """TRUE is the module as it is."""


@dataclass(frozen=True)
class Done:
    """What became of one test file, or one mutant; `error` says that the run itself failed."""

    task: Task
    number: int = -1
    verdict: Verdict = "killed"
    killer: str = ""
    seconds: float = 0.0
    baseline: Baseline | None = None
    error: str = ""


def run(
    tasks: Sequence[Task], workers: int, servers: Sequence[Servers], baselines: dict[str, Baseline]
) -> Iterator[Done]:
    """Does `tasks` in that many processes; yields what is done as it comes."""
    queue: Any = _FORK.SimpleQueue()
    results: Any = _FORK.SimpleQueue()
    running = [
        _FORK.Process(target=_work, args=(queue, results, servers[number] if servers else None, baselines), daemon=True)
        for number in range(workers)
    ]
    for one in running:
        one.start()
    # Both queues are pipes: who fills the one to the end before he reads the other waits for who waits for him.
    threading.Thread(target=_hand_out, args=(queue, (*tasks, *[None] * workers)), daemon=True).start()
    try:
        for _ in range(sum(max(1, len(task.numbers)) for task in tasks)):
            yield results.get()
    finally:
        for one in running:
            with suppress(ProcessLookupError):
                os.killpg(one.pid or 0, signal.SIGKILL)
            one.kill()
            one.join()


def _hand_out(queue: Any, tasks: Sequence[Task | None]) -> None:
    for task in tasks:
        queue.put(task)


def _work(queue: Any, results: Any, servers: Servers | None, baselines: dict[str, Baseline]) -> None:
    os.setpgid(0, 0)  # so that it can be ended with its nursery
    nursery.prepare(*(servers.kafka, servers.postgres_admin_dsn) if servers else ("", ""))
    while (task := queue.get()) is not None:
        child = os.fork()
        if child == 0:
            _do_and_exit(task, results, servers, baselines)
        os.waitpid(child, 0)


def _do_and_exit(task: Task, results: Any, servers: Servers | None, baselines: dict[str, Baseline]) -> None:
    try:
        _do(task, results, servers, baselines)
    except BaseException:  # whatever it is, it is shown by the process that waits for the result
        results.put(Done(task, error=traceback.format_exc()))
    finally:
        os._exit(0)


def _do(task: Task, results: Any, servers: Servers | None, baselines: dict[str, Baseline]) -> None:
    if task.test_file:
        results.put(Done(task, baseline=nursery.take_baseline(task.test_file)))
        return
    tree, found = mutants((ROOT / task.path).read_text(encoding="utf-8"))
    home = Nursery(task.path, tree, {name: baselines[name] for name in TESTS[task.path]})
    home.warm_up()
    on_servers = servers is not None and any(map(needs_servers, TESTS[task.path]))
    for number in task.numbers:
        verdict, killer, seconds = home.decide(None if number == TRUE else found[number])
        results.put(Done(task, number, verdict, killer, seconds))
        if on_servers and servers:
            asyncio.run(_set_clock(servers))  # the test may have been ended before it did so
    if on_servers and servers:
        asyncio.run(_clean(servers))


async def _set_clock(servers: Servers) -> None:
    from shared import clock

    await clock.set_offset(servers.postgres_admin_dsn, timedelta(0))


async def _clean(servers: Servers) -> None:
    """Removes what tests that were ended have left: nothing of this worker is alive."""
    connection = await asyncpg.connect(servers.postgres_admin_dsn)
    try:
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'yike\\_%'"):
            await connection.execute(f'DROP DATABASE IF EXISTS "{row[0]}" WITH (FORCE)')
    finally:
        await connection.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    try:
        with suppress(KafkaError):  # too busy to answer: the names are new in each test, so what is left is in no way
            await admin.start()
            names = [name for name in await admin.list_topics() if not name.startswith("__")]
            if names:
                await admin.delete_topics(names)
    finally:
        await admin.close()


@contextmanager
def own_servers(count: int) -> Iterator[list[Servers]]:
    """So many pairs of servers, in folders that go with them."""
    with tempfile.TemporaryDirectory(prefix=f"yike-tests-{os.getpid()}-") as name, ExitStack() as stack:
        folders = [Path(name) / str(number) for number in range(count)]
        for folder in folders:  # each is stopped, whatever becomes of another
            stack.callback(embedded_postgres(folder).destroy)
            stack.callback(stop_servers, folder)
        with ThreadPoolExecutor(max(1, count)) as pool:
            started = list(pool.map(start_servers, folders))
        yield started
