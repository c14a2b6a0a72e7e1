"""Servers of which one has little room on its disk."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ops.stack.servers import Servers, embedded_kafka, embedded_postgres
from tests.faults.drills.base import Skipped

ROOM_MIB: Final = 1024


@contextmanager
def little_room(which: str, servers: Servers) -> Iterator[tuple[Servers, Path]]:
    """`servers`, but `which` of them (postgres or kafka) is another one, in a file system of its own; and its folder.

    Raises Skipped where nobody may mount one.
    """
    with _mounted(which) as folder:
        server = embedded_postgres(folder) if which == "postgres" else embedded_kafka(folder)
        address = server.start()
        try:
            kafka = address if which == "kafka" else servers.kafka
            yield Servers(kafka, address if which == "postgres" else servers.postgres_admin_dsn), folder
        finally:
            server.stop()


@contextmanager
def _mounted(which: str) -> Iterator[Path]:
    """A folder with a small file system in its folder `which`."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise Skipped("only root may mount a file system of limited size, and only on Linux")
    folder = Path(tempfile.mkdtemp(prefix="yike-room-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user
    room = folder / which
    room.mkdir()
    try:
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_MIB}m", "yike-room", str(room)]
        mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            raise Skipped(f"no file system of limited size may be mounted here: {mounted.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(room)], check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
