"""The supervisor of the embedded stack: one operating-system process for each service, kept running.

In: a list of ProcessSpec. Out: running processes, a log file for each, and `<folder>/processes.json` that
tells `yike status` who runs since when and how often it was restarted. Two ways to use it:

    async with Supervisor(folder, specs, progress):      in the foreground (`yike demo`), inside asyncio
        ...
    start_detached(folder, specs) … stop_detached(folder)    in the background (`yike up`, `yike down`)

In containers and in Kubernetes their own supervisors do this; nothing of the services depends on it.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from ops.stack.errors import StackError
from ops.stack.progress import Progress, Silent
from ops.stack.scheduling import finish_batches

READY_TIMEOUT_S = 120.0
# A process that has crashed so often before it was ready even once will not get there by trying again.
START_ATTEMPTS = 4
STOP_TIMEOUT_S = 15.0
RESTART_PAUSE_FIRST_S = 0.2
RESTART_PAUSE_MAX_S = 10.0
# A process that ran this long has recovered: its next crash is a new story and begins with the short pause.
STEADY_AFTER_S = 30.0
HEALTH_POLL_S = 0.1
LOG_MAX_BYTES = 20 * 1024 * 1024

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class ProcessSpec:
    """One process. `env` is laid over the present environment; no `health_url`: running is ready."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    health_url: str | None = None


@dataclass
class ProcessState:
    """What is known of one process; `since` is when its present run began, UTC."""

    name: str
    pid: int | None = None
    ready: bool = False
    restarts: int = 0
    since: str | None = None
    last_exit_code: int | None = None


class Supervisor:
    """Starts the processes, waits until they are ready, restarts what crashes, stops them all in the end."""

    def __init__(self, folder: Path, specs: Sequence[ProcessSpec], progress: Progress | None = None) -> None:
        self.folder = folder.absolute()
        self.states = {spec.name: ProcessState(spec.name) for spec in specs}
        self._specs = tuple(specs)
        self._progress = progress or Silent()
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._ready = {spec.name: asyncio.Event() for spec in specs}
        self._hopeless = asyncio.Event()
        self._keepers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Supervisor":
        task = asyncio.current_task()
        if sys.platform != "win32" and task is not None:
            # asyncio.run turns ctrl-C into a cancellation of the block; SIGTERM shall do the same.
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await self.start()
        except BaseException:  # a cancellation too; it goes on its way
            self._forget_signal()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.stop()
        finally:
            self._forget_signal()

    @staticmethod
    def _forget_signal() -> None:
        if sys.platform != "win32":
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

    async def start(self) -> None:
        """Start every process at once and wait until all are ready.

        Stops them again and raises StackError, with the end of the logs, if one is not in time or keeps
        crashing.
        """
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        for spec in self._specs:
            self._progress.step(spec.name, "starting")
            self._keepers.append(asyncio.create_task(self._keep(spec), name=f"keep {spec.name}"))
        all_ready = asyncio.gather(*(ready.wait() for ready in self._ready.values()))
        hopeless = asyncio.create_task(self._hopeless.wait())
        try:
            await asyncio.wait((all_ready, hopeless), timeout=READY_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if not all_ready.done():
                raise StackError(self._not_ready())
        except BaseException:  # a cancellation too: nothing is left running, and it goes on its way
            await self.stop()
            raise
        finally:
            all_ready.cancel()
            hopeless.cancel()

    async def stop(self) -> None:
        """SIGTERM to all, SIGKILL to those that have not ended after STOP_TIMEOUT_S. Safe to call twice."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers.clear()
        await asyncio.gather(*(_end(child) for child in self._children.values()))
        self._children.clear()
        for state in self.states.values():
            state.pid, state.ready = None, False
        self._write()

    async def _keep(self, spec: ProcessSpec) -> None:
        """Run one process again and again until cancelled."""
        state, pause_s = self.states[spec.name], RESTART_PAUSE_FIRST_S
        while True:
            begun = time.monotonic()
            child = await self._spawn(spec)
            watch = asyncio.create_task(self._await_ready(spec, child))
            try:
                state.last_exit_code = await child.wait()
            finally:
                watch.cancel()
            state.pid, state.ready = None, False
            self._write()
            if time.monotonic() - begun > STEADY_AFTER_S:
                pause_s = RESTART_PAUSE_FIRST_S
            if state.restarts + 1 >= START_ATTEMPTS and not self._ready[spec.name].is_set():
                self._hopeless.set()
            self._progress.step(spec.name, f"ended with code {state.last_exit_code}, again in {pause_s:.1f} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, RESTART_PAUSE_MAX_S)
            state.restarts += 1

    async def _spawn(self, spec: ProcessSpec) -> asyncio.subprocess.Process:
        log = self.folder / "logs" / f"{spec.name}.log"
        if log.exists() and log.stat().st_size > LOG_MAX_BYTES:
            log.replace(log.with_suffix(".1.log"))
        with log.open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                *spec.argv,
                env={**os.environ, **spec.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C on the terminal is for us: we stop the services in order.
                start_new_session=True,
                preexec_fn=_prepare_child if sys.platform == "linux" else None,
            )
        self._children[spec.name] = child
        state = self.states[spec.name]
        state.pid, state.since = child.pid, datetime.now(UTC).isoformat(timespec="seconds")
        self._write()
        return child

    async def _await_ready(self, spec: ProcessSpec, child: asyncio.subprocess.Process) -> None:
        begun = time.monotonic()
        while spec.health_url is not None and not await asyncio.to_thread(answers, spec.health_url):
            self._progress.step(spec.name, f"waiting until ready, {time.monotonic() - begun:.0f} s")
            await asyncio.sleep(HEALTH_POLL_S)
        self.states[spec.name].ready = True
        self._ready[spec.name].set()
        self._write()
        self._progress.done(spec.name, f"ready, pid {child.pid}")

    def _not_ready(self) -> str:
        """The error text for processes that did not become ready, with the end of their logs."""
        parts = []
        for name in (name for name, ready in self._ready.items() if not ready.is_set()):
            log = self.folder / "logs" / f"{name}.log"
            tail = "\n    ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            code = self.states[name].last_exit_code
            why = "is not ready" if code is None else f"ended with code {code}"
            parts.append(f"{name} {why}; the end of {log}:\n    {tail}")
        return "\n".join(parts)

    def _write(self) -> None:
        """Put the state where another process can read it; whole or not at all."""
        known = {
            "supervisor": _identity(os.getpid()),
            "processes": [asdict(one) for one in self.states.values()],
        }
        fresh = self.folder / "processes.json.new"
        fresh.write_text(json.dumps(known, indent=2), encoding="utf-8")
        fresh.replace(self.folder / "processes.json")


def start_detached(folder: Path, specs: Sequence[ProcessSpec], progress: Progress | None = None) -> int:
    """Write `<folder>/stack.json`, start `python -m ops.stack.supervise` in the background, wait until all
    processes are ready. Returns the supervisor's process id; it outlives this process. A supervisor that runs
    already is stopped first, so that the processes are those of `specs`.
    """
    folder = folder.absolute()
    stop_detached(folder)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "processes.json").unlink(missing_ok=True)
    stack = folder / "stack.json"
    # The environments of services hold the passwords of their databases.
    stack.touch(mode=0o600)
    stack.write_text(json.dumps([asdict(spec) for spec in specs], indent=2), encoding="utf-8")
    with (folder / "logs" / "supervisor.log").open("wb") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "ops.stack.supervise", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _wait_for_detached(folder, supervisor, [spec.name for spec in specs], progress or Silent())
    return supervisor.pid


def stop_detached(folder: Path) -> bool:
    """Stop the background supervisor of `folder` and with it its processes; tells whether there was one."""
    process = _supervisor_process(folder)
    if process is None:
        return False
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S + 5)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT_S)
    return True


def detached_states(folder: Path) -> list[ProcessState] | None:
    """The state of each process for `yike status`; None when no supervisor runs for `folder`."""
    if _supervisor_process(folder) is None:
        return None
    return [ProcessState(**known) for known in _read_states(folder)["processes"]]


def read_specs(folder: Path) -> list[ProcessSpec]:
    """What `<folder>/stack.json` says shall run."""
    return [ProcessSpec(**spec) for spec in json.loads((folder / "stack.json").read_text(encoding="utf-8"))]


async def supervise(folder: Path, specs: Sequence[ProcessSpec]) -> None:
    """Keep `specs` running until SIGTERM or SIGINT: the whole life of the background supervisor."""
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(enough.set))
        else:
            loop.add_signal_handler(number, enough.set)
    supervisor = Supervisor(folder, specs)
    starting = asyncio.create_task(supervisor.start())
    stopping = asyncio.create_task(enough.wait())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return
    await starting
    await enough.wait()
    await supervisor.stop()


def _wait_for_detached(
    folder: Path, supervisor: subprocess.Popen[bytes], names: Sequence[str], progress: Progress
) -> None:
    shown: set[str] = set()
    begun = time.monotonic()
    while len(shown) < len(names):
        for known in _read_states(folder)["processes"]:
            state = ProcessState(**known)
            if state.ready and state.name not in shown:
                shown.add(state.name)
                progress.done(state.name, f"ready, pid {state.pid}")
            elif not state.ready:
                progress.step(state.name, f"waiting until ready, {time.monotonic() - begun:.0f} s")
        if supervisor.poll() is not None:
            log = folder / "logs" / "supervisor.log"
            raise StackError(log.read_text(encoding="utf-8", errors="replace").strip()[-4000:] or "nothing started")
        time.sleep(HEALTH_POLL_S)


def _read_states(folder: Path) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads((folder / "processes.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"supervisor": None, "processes": []}
    return known


def _supervisor_process(folder: Path) -> psutil.Process | None:
    """The supervisor that wrote `processes.json`, if it still runs and is not another with its number."""
    identity = _read_states(folder)["supervisor"]
    if identity is None or identity["pid"] == os.getpid():
        return None
    try:
        process = psutil.Process(identity["pid"])
        same = process.create_time() == identity["created_at_s"] and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None


def _identity(pid: int) -> dict[str, float]:
    return {"pid": pid, "created_at_s": psutil.Process(pid).create_time()}


def answers(url: str) -> bool:
    """Does a GET of `url` answer 2xx?"""
    # Straight to 127.0.0.1: a proxy of the environment has no business between two processes of one machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as response:
            return 200 <= int(response.status) < 300
    except (urllib.error.URLError, OSError):
        return False


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await child.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def _prepare_child() -> None:
    """Runs in the child between fork and exec."""
    assert _libc is not None
    # The belt: should we be killed with no time to stop anything, Linux tells the child to end.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    finish_batches()
