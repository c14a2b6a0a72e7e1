"""The embedded stack itself: the servers, the provisioning of databases and topics, the supervisor of processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from ops.provision import create_databases, drop_databases, ensure_topics
from ops.stack import processes
from ops.stack.errors import StackError
from ops.stack.kafka import EmbeddedKafka
from ops.stack.kafka_jars import class_path
from ops.stack.postgres import EmbeddedPostgres, free_port
from ops.stack.processes import ProcessSpec, Supervisor, detached_states, start_detached, stop_detached
from ops.stack.servers import Servers, start_servers, stop_servers

WAIT_S = 30.0


@dataclass(frozen=True)
class SomeTopic:
    """A topic as `shared.contracts.topics` describes them."""

    name: str
    partitions: int = 3
    retention_ms: int = 3_600_000

    def config(self) -> dict[str, str]:
        return {"retention.ms": str(self.retention_ms)}


def some_topic(**changes: int) -> SomeTopic:
    return SomeTopic(f"test.{uuid4().hex}.v1", **changes)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` is true; fail saying `what` did not come about."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"after {WAIT_S:.0f} s still not: {what}")


@asynccontextmanager
async def connected(dsn: str) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def send(kafka: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value)


async def first_value(kafka: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka, group_id=uuid4().hex, auto_offset_reset="earliest")
    async with consumer:
        record = await asyncio.wait_for(consumer.getone(), WAIT_S)
    return bytes(record.value)


class TestPostgres:
    @pytest.fixture
    def postgres(self, tmp_path: Path) -> Iterator[EmbeddedPostgres]:
        server = EmbeddedPostgres(tmp_path / "postgres", tcp=True)
        yield server
        server.destroy()

    async def test_data_survive_a_restart_and_a_power_cut(self, postgres: EmbeddedPostgres) -> None:
        async with connected(postgres.start()) as connection:
            await connection.execute("CREATE TABLE kept (line text)")
            await connection.execute("INSERT INTO kept VALUES ('stopped')")
        postgres.stop()
        assert postgres.pid() is None
        async with connected(postgres.start()) as connection:
            await connection.execute("INSERT INTO kept VALUES ('killed')")
        postgres.kill()
        assert postgres.pid() is None
        async with connected(postgres.start()) as connection:
            lines = await connection.fetch("SELECT line FROM kept ORDER BY line")
        assert [line["line"] for line in lines] == ["killed", "stopped"]

    async def test_it_commits_to_disk_and_asks_for_a_password_over_tcp(self, postgres: EmbeddedPostgres) -> None:
        async with connected(postgres.start()) as connection:
            assert await connection.fetchval("SHOW fsync") == "on"
            assert await connection.fetchval("SHOW synchronous_commit") == "on"
            assert await connection.fetchval("SHOW server_version_num") >= "180000"
        async with connected(postgres.tcp_dsn()) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres")

    async def test_a_second_object_finds_and_stops_the_running_server(self, postgres: EmbeddedPostgres) -> None:
        postgres.start()
        other = EmbeddedPostgres(postgres.folder, tcp=True)
        other.start()
        assert other.pid() == postgres.pid()
        other.stop()
        assert postgres.pid() is None


class TestKafka:
    @pytest.fixture
    def kafka(self, tmp_path: Path) -> Iterator[EmbeddedKafka]:
        server = EmbeddedKafka(tmp_path / "kafka")
        yield server
        server.stop()

    async def test_a_message_survives_a_stop_and_a_kill_and_the_address_stays(self, kafka: EmbeddedKafka) -> None:
        address = await asyncio.to_thread(kafka.start)
        topic = some_topic()
        await ensure_topics(address, topics=[topic])
        await send(address, topic.name, b"one lesson")
        await asyncio.to_thread(kafka.stop)
        assert kafka.pid() is None
        assert await asyncio.to_thread(kafka.start) == address
        assert await first_value(address, topic.name) == b"one lesson"
        kafka.kill()
        assert kafka.pid() is None
        # By another object, as another process would.
        assert await asyncio.to_thread(EmbeddedKafka(kafka.folder).start) == address
        assert await first_value(address, topic.name) == b"one lesson"

    def test_an_unreachable_maven_names_the_ways_out(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.setenv(variable, str(tmp_path))
        monkeypatch.setenv("YIKE_MAVEN", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(StackError, match=r"(?s)YIKE_MAVEN.*YIKE_KAFKA.*YIKE_POSTGRES.*docker compose up"):
            class_path(lambda _: None)

    def test_a_damaged_jar_is_noticed_and_replaced_or_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        jars = class_path(lambda _: None)
        cache = tmp_path / "cache"
        monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: cache)
        (cache / "jars").mkdir(parents=True)
        for jar in jars:
            (cache / "jars" / jar.name).symlink_to(jar)
        damaged = cache / "jars" / jars[0].name
        damaged.unlink()
        damaged.write_bytes(b"half a jar")
        monkeypatch.setenv("YIKE_MAVEN", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(StackError, match=r"cannot be downloaded"):
            class_path(lambda _: None)


class TestServers:
    def test_servers_given_by_the_environment_are_used_and_not_stopped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("YIKE_KAFKA", "127.0.0.1:1")
        monkeypatch.setenv("YIKE_POSTGRES", "postgresql://somebody@127.0.0.1:2/postgres")
        assert start_servers(tmp_path) == Servers("127.0.0.1:1", "postgresql://somebody@127.0.0.1:2/postgres")
        stop_servers(tmp_path)
        assert not (tmp_path / "servers.json").exists()


class TestProvision:
    async def test_provisioning_twice_changes_nothing(self, servers: Servers) -> None:
        suffix = f"_{uuid4().hex[:8]}"
        try:
            first = await create_databases(servers.postgres_admin_dsn, ["orders", "escrow"], suffix=suffix)
            async with connected(first["escrow"]) as connection:
                await connection.execute("CREATE TABLE kept (id int)")
            assert await create_databases(servers.postgres_admin_dsn, ["orders", "escrow"], suffix=suffix) == first
            async with connected(first["escrow"]) as connection:
                assert await connection.fetchval("SELECT count(*) FROM kept") == 0
        finally:
            await drop_databases(servers.postgres_admin_dsn, ["orders", "escrow"], suffix=suffix)

    async def test_a_service_cannot_enter_the_database_of_another(self, servers: Servers) -> None:
        suffix = f"_{uuid4().hex[:8]}"
        try:
            dsns = await create_databases(servers.postgres_admin_dsn, ["orders", "escrow"], suffix=suffix)
            foreign = urlsplit(dsns["orders"])._replace(path=urlsplit(dsns["escrow"]).path).geturl()
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(foreign)
        finally:
            await drop_databases(servers.postgres_admin_dsn, ["orders", "escrow"], suffix=suffix)

    async def test_passwords_must_be_given_for_a_server_elsewhere(self) -> None:
        with pytest.raises(ValueError, match="passwords"):
            await create_databases("postgresql://admin@database.example/postgres", ["orders"])

    async def test_topics_are_made_once_and_a_difference_is_reported_not_mended(self, servers: Servers) -> None:
        topic = some_topic(partitions=3)
        made = await ensure_topics(servers.kafka, topics=[topic])
        assert made.created == (topic.name,)
        again = await ensure_topics(servers.kafka, topics=[topic])
        assert (again.created, again.present, again.differing) == ((), (topic.name,), ())
        changed = SomeTopic(topic.name, partitions=5, retention_ms=7)
        report = await ensure_topics(servers.kafka, topics=[changed])
        assert report.differing == (
            f"{topic.name}: 3 partitions, 5 written down",
            f"{topic.name}: retention.ms is 3600000, 7 written down",
        )

    async def test_what_is_produced_is_consumed(self, servers: Servers) -> None:
        topic = some_topic(partitions=1)
        await ensure_topics(servers.kafka, topics=[topic])
        await send(servers.kafka, topic.name, "一课一销".encode())
        assert await first_value(servers.kafka, topic.name) == "一课一销".encode()


def serving(name: str) -> ProcessSpec:
    """A process that answers HTTP."""
    port = free_port()
    argv = (sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1")
    return ProcessSpec(name, argv, health_url=f"http://127.0.0.1:{port}/")


class TestSupervisor:
    async def test_a_killed_child_comes_back_and_is_counted(self, tmp_path: Path) -> None:
        async with Supervisor(tmp_path, [serving("one"), serving("two")]) as supervisor:
            state = supervisor.states["one"]
            killed = state.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await until(lambda: state.ready and state.pid not in (None, killed), "the killed child is back")
            assert state.restarts == 1
            assert supervisor.states["two"].restarts == 0
            pids = [one.pid for one in supervisor.states.values() if one.pid is not None]
        assert len(pids) == 2
        assert not any(psutil.pid_exists(pid) for pid in pids)

    async def test_what_never_becomes_ready_is_an_error_with_its_log(self, tmp_path: Path) -> None:
        broken = ProcessSpec(
            "broken", (sys.executable, "-c", "raise SystemExit('no such table')"), health_url="http://127.0.0.1:1/"
        )
        with pytest.raises(StackError, match=r"(?s)broken ended with code 1.*no such table"):
            await Supervisor(tmp_path, [broken, serving("fine")]).start()

    async def test_one_that_ignores_sigterm_is_killed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.3)
        script = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
        log = tmp_path / "logs" / "deaf.log"
        async with Supervisor(tmp_path, [ProcessSpec("deaf", (sys.executable, "-c", script))]) as supervisor:
            await until(lambda: "deaf" in log.read_text(), "the child no longer hears SIGTERM")
            pid = supervisor.states["deaf"].pid
            assert pid is not None
        assert not psutil.pid_exists(pid)

    async def test_a_detached_stack_is_seen_and_stopped_from_outside(self, tmp_path: Path) -> None:
        pid = await asyncio.to_thread(start_detached, tmp_path, [serving("one"), serving("two")])
        states = detached_states(tmp_path)
        assert states is not None
        assert [(one.name, one.ready, one.restarts) for one in states] == [("one", True, 0), ("two", True, 0)]
        assert await asyncio.to_thread(stop_detached, tmp_path)
        assert detached_states(tmp_path) is None
        assert not await asyncio.to_thread(stop_detached, tmp_path)
        for child in (one.pid for one in states):
            assert child is not None
            assert not psutil.pid_exists(child)
        await until(lambda: not _alive(pid), "the supervisor is gone")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_in_the_foreground_a_signal_ends_everything(self, tmp_path: Path, number: signal.Signals) -> None:
        script = f"""
import asyncio, signal, sys
from pathlib import Path
from ops.stack.processes import ProcessSpec, Supervisor
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits that it is ignored
async def main():
    sleeping = ProcessSpec("sleeping", (sys.executable, "-c", "import time; time.sleep(600)"))
    async with Supervisor(Path({str(tmp_path)!r}), [sleeping]) as supervisor:
        print(supervisor.states["sleeping"].pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
        command = (sys.executable, "-c", script)
        # A group of its own, so that the signal reaches this process alone, as `kill` does.
        foreground = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert foreground.stdout is not None
        child = int(await asyncio.to_thread(foreground.stdout.readline))
        foreground.send_signal(number)
        await asyncio.to_thread(foreground.wait, WAIT_S)
        foreground.stdout.close()
        assert not _alive(child)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
    async def test_a_killed_supervisor_takes_its_children_with_it(self, tmp_path: Path) -> None:
        supervisor = await asyncio.to_thread(start_detached, tmp_path, [serving("one")])
        states = detached_states(tmp_path)
        assert states is not None
        child = states[0].pid
        assert child is not None
        os.kill(supervisor, signal.SIGKILL)
        await until(lambda: not _alive(child), "the child has ended")


def _alive(pid: int) -> bool:
    """Is there a process with this number that is not only waiting to be reaped?"""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
