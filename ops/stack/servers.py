"""The two servers together: started in parallel, remembered in `<folder>/servers.json`, stopped by anyone.

YIKE_KAFKA and YIKE_POSTGRES point at servers that already run; nothing is started or stopped in their place.
"""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.stack.kafka import EmbeddedKafka
from ops.stack.postgres import EmbeddedPostgres
from ops.stack.progress import Progress, Silent
from ops.stack.scheduling import finish_batches


@dataclass(frozen=True)
class Servers:
    """Where the two servers are: Kafka's bootstrap "host:port" and the DSN of PostgreSQL's administrator."""

    kafka: str
    postgres_admin_dsn: str


def start_servers(folder: Path, progress: Progress | None = None) -> Servers:
    """Start what does not run yet (at first about 15 s with a download, else 3 s) until both answer.

    Safe to call again: running servers are found and left alone. They outlive this process.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    shown = progress or Silent()
    with ThreadPoolExecutor(2, initializer=finish_batches) as pool:  # what its threads start inherits it
        postgres = pool.submit(_postgres, folder, shown)
        kafka = pool.submit(_kafka, folder, shown)
    servers = Servers(kafka.result(), postgres.result())
    _record(folder, servers)
    return servers


def stop_servers(folder: Path) -> None:
    """Stop both servers of `folder`, cleanly and in parallel; those not started here are left alone."""
    folder = folder.absolute()
    with ThreadPoolExecutor(2) as pool:
        stopping = [pool.submit(embedded_kafka(folder).stop), pool.submit(embedded_postgres(folder).stop)]
    for one in stopping:
        one.result()
    (folder / "servers.json").unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Stop the servers of `folder` and delete it with all that is in it; nothing where there is none."""
    if folder.exists():
        stop_servers(folder)
        shutil.rmtree(folder)


def running_servers(folder: Path) -> Servers | None:
    """The servers last started for `folder`, or None when they were stopped or never started."""
    try:
        recorded = json.loads((folder / "servers.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Servers(recorded["kafka"], recorded["postgres_admin_dsn"])


def embedded_postgres(folder: Path) -> EmbeddedPostgres:
    """The embedded PostgreSQL of a stack's folder."""
    return EmbeddedPostgres(folder.absolute() / "postgres")


def embedded_kafka(folder: Path) -> EmbeddedKafka:
    """The embedded Kafka of a stack's folder."""
    return EmbeddedKafka(folder.absolute() / "kafka")


def _postgres(folder: Path, progress: Progress) -> str:
    if given := os.environ.get("YIKE_POSTGRES"):
        progress.done("postgres", "given by YIKE_POSTGRES")
        return given
    progress.step("postgres", "starting PostgreSQL 18")
    dsn = embedded_postgres(folder).start()
    progress.done("postgres", "ready")
    return dsn


def _kafka(folder: Path, progress: Progress) -> str:
    if given := os.environ.get("YIKE_KAFKA"):
        progress.done("kafka", "given by YIKE_KAFKA")
        return given
    progress.step("kafka", "looking for its jars")
    bootstrap = embedded_kafka(folder).start(lambda text: progress.step("kafka", text))
    progress.done("kafka", f"ready at {bootstrap}")
    return bootstrap


def _record(folder: Path, servers: Servers) -> None:
    pids = {"kafka_pid": embedded_kafka(folder).pid(), "postgres_pid": embedded_postgres(folder).pid()}
    path = folder / "servers.json"
    # An address given by the operator may hold a password.
    path.touch(mode=0o600)
    path.write_text(json.dumps({**asdict(servers), **pids}, indent=2), encoding="utf-8")
