"""Apache Kafka's jars: which ones, from where, and that they are the very ones of `kafka.lock.toml`.

In: the lock (coordinates and SHA-256, made by jgo, checked in). Out: a class path of files in the user's
cache. The lock names no address: jgo knows Maven Central, and YIKE_MAVEN names a mirror where that is out of
reach.

    python -m ops.stack.kafka_jars          resolve VERSION anew and write the lock
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from ops.stack.errors import WAYS_OUT, StackError

if TYPE_CHECKING:
    from jgo.env import LockedDependency
    from jgo.maven import Dependency, MavenContext

LOCK = Path(__file__).with_name("kafka.lock.toml")
# Kafka itself, and what carries its log (slf4j) to log4j2: Kafka's own distribution adds the same jar.
ROOTS = (
    ("org.apache.kafka", "kafka_2.13", "4.3.1"),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4"),
)
DOWNLOADS_AT_ONCE = 8
HTTP_TIMEOUT_S = 30


def class_path(say: Callable[[str], None]) -> list[Path]:
    """The jars of the lock, each verified against its SHA-256; those missing from the cache are fetched.

    `say` is told what is being fetched. Raises StackError when a jar cannot be had or is not the locked one.
    """
    from jgo.env import LockFile

    locked: list[LockedDependency] = LockFile.load(LOCK).dependencies
    folder = Path(platformdirs.user_cache_path("yike", appauthor=False)) / "jars"
    wanted = {folder / _file_name(jar): jar for jar in locked}
    missing = [jar for path, jar in wanted.items() if _sha256(path) != jar.sha256]
    if missing:
        _fetch(missing, folder, say)
    return list(wanted)


def _fetch(missing: list["LockedDependency"], folder: Path, say: Callable[[str], None]) -> None:
    """Download `missing` beside the cache, verify, then move into it: it holds no half files."""
    folder.mkdir(parents=True, exist_ok=True)
    say(f"downloading {len(missing)} jars of Apache Kafka (44 MiB, once)")
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix="fetching-") as scratch,
        ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool,
    ):
        context = _maven(Path(scratch))
        running = {pool.submit(_download, context, jar): jar for jar in missing}
        try:
            for count, finished in enumerate(as_completed(running), start=1):
                jar = running[finished]
                fetched = finished.result()
                found = _sha256(fetched)
                if found != jar.sha256:
                    raise StackError(f"{_file_name(jar)} is not the locked file: {found}, {LOCK.name} has {jar.sha256}")
                fetched.replace(folder / _file_name(jar))
                say(f"downloading jars of Apache Kafka, {count} of {len(missing)}")
        except StackError:
            raise
        except Exception as error:  # whatever jgo, requests or the disk raise, the operator needs the ways out
            for waiting in running:
                waiting.cancel()
            raise StackError(
                f"Apache Kafka's jars cannot be downloaded: {error}\n"
                f"If Maven Central is out of reach, YIKE_MAVEN names a mirror of it. {WAYS_OUT}"
            ) from error


def _download(context: "MavenContext", jar: "LockedDependency") -> Path:
    artifact = context.project(jar.groupId, jar.artifactId).at_version(jar.version).artifact(jar.classifier or "")
    return Path(artifact.resolve())


def _maven(cache: Path) -> "MavenContext":
    """jgo's view of Maven: only `cache`, then the mirror if one is named, else Maven Central."""
    from jgo.maven import MavenContext

    mirror = os.environ.get("YIKE_MAVEN")
    repositories = {"mirror": mirror.rstrip("/")} if mirror else None
    return MavenContext(repo_cache=cache, remote_repos=repositories, timeout=HTTP_TIMEOUT_S)


def _file_name(jar: "LockedDependency") -> str:
    classifier = f"-{jar.classifier}" if jar.classifier else ""
    return f"{jar.artifactId}-{jar.version}{classifier}.jar"


def _sha256(path: Path) -> str | None:
    """The file's SHA-256, or None when there is no such file."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_lock() -> int:
    """Resolve ROOTS with everything they need and write the lock; returns the number of jars."""
    from jgo.env import LockFile
    from jgo.parse import Coordinate

    with tempfile.TemporaryDirectory() as scratch:
        context = _maven(Path(scratch))
        jars: dict[tuple[str, str], Dependency] = {}
        # One by one: jgo takes roots resolved together as each other's bills of material, and log4j's would
        # put kafka-clients 3.9 beside the broker 4.3.
        for group, name, version in ROOTS:
            root = Coordinate(groupId=group, artifactId=name, version=version, scope="compile")
            named, needed = context.resolver.resolve([context.create_dependency(root)])
            for jar in (*named, *needed):
                if jar.scope in ("compile", "runtime"):
                    jars.setdefault((jar.groupId, jar.artifactId), jar)
        lock = LockFile.from_resolved_dependencies(list(jars.values()), environment_name="kafka")
    lock.save(LOCK)
    return len(jars)


if __name__ == "__main__":
    print(f"{LOCK.name}: {write_lock()} jars")
    sys.exit(0)
