"""A pytest plugin: the real Kafka and the real PostgreSQL, started once for the whole session.

STACK=embedded     (default) from packages, see ops/stack
STACK=containers   testcontainers, for who has Docker
YIKE_KAFKA, YIKE_POSTGRES   servers that already run; nothing is started in their place
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from ops.stack.postgres import free_port
from ops.stack.servers import Servers, embedded_postgres, start_servers, stop_servers

KAFKA_IMAGE = "apache/kafka:4.3.0"
POSTGRES_IMAGE = "postgres:18"
KAFKA_READY_LINE = "Kafka Server started"
CONTAINER_START_TIMEOUT_S = 120
FOLDER_PREFIX = "yike-tests-"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Both servers, shared by all tests; isolate by database suffix and topic name, never by restarting them."""
    stack = os.environ.get("STACK", "embedded")
    if stack not in ("embedded", "containers"):
        raise pytest.UsageError(f"STACK is embedded or containers, not {stack!r}")
    with _containers() if stack == "containers" else _embedded() as running:
        yield running


@contextmanager
def _embedded() -> Iterator[Servers]:
    _remove_leftovers()
    # The number of the process is in the name, so that a later session can tell whether its owner still lives.
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{os.getpid()}-") as name:
        folder = Path(name)
        try:
            yield start_servers(folder)
        finally:
            _remove(folder)


def _remove_leftovers() -> None:
    """Stop and delete the servers of sessions that were killed before they could do it themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        owner = folder.name.removeprefix(FOLDER_PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            _remove(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path) -> None:
    stop_servers(folder)
    embedded_postgres(folder).destroy()


@contextmanager
def _containers() -> Iterator[Servers]:
    with ExitStack() as running:
        kafka = os.environ.get("YIKE_KAFKA") or running.enter_context(_kafka_container())
        postgres = os.environ.get("YIKE_POSTGRES") or running.enter_context(_postgres_container())
        yield Servers(kafka, postgres)


@contextmanager
def _kafka_container() -> Iterator[str]:
    """One KRaft node. testcontainers' own KafkaContainer drives Confluent's images only."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    # The broker tells its clients where it is, so its port must be known before it starts and be the same outside.
    port = free_port()
    docker_host = urlsplit(os.environ.get("DOCKER_HOST", "")).hostname or "127.0.0.1"
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{docker_host}:{port}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port).with_envs(**settings)
    container.waiting_for(LogMessageWaitStrategy(KAFKA_READY_LINE).with_startup_timeout(CONTAINER_START_TIMEOUT_S))
    with container:
        yield f"{docker_host}:{port}"


@contextmanager
def _postgres_container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(POSTGRES_IMAGE, driver=None).with_command("-c max_connections=200")
    with container:
        yield container.get_connection_url()
