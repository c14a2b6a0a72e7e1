"""Is `requirements.lock` in date with `pyproject.toml`? And the one place that knows how it is made.

In: `pyproject.toml` (dependencies and the dependency group `dev`, which holds `stack`).
Out: `requirements.lock`, one file with the versions and hashes of everything, for every platform, and no
address.

    python -m ops.check.lock            fails when the lock no longer fits (what `make check` calls)
    python -m ops.check.lock --fix      adds and removes what pyproject.toml asks for, moves nothing else
    python -m ops.check.lock --upgrade  moves everything to the newest that fits (what `make lock` calls)
"""

import difflib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
PROJECT = ROOT / "pyproject.toml"
HEADER = "# Made by `make lock` from pyproject.toml. Versions and hashes of everything; do not edit by hand.\n"
NETWORK_WORDS = ("dns error", "failed to fetch", "connect", "timed out", "offline", "error sending request")


def compile_lock(output: Path, *, upgrade: bool = False, offline: bool = False) -> None:
    """Resolve pyproject.toml into `output`, whose present content is what uv prefers unless `upgrade`.

    Raises subprocess.CalledProcessError with uv's own words in `stderr`.
    """
    uv = Path(sys.executable).with_name("uv")
    command = [
        str(uv) if uv.exists() else "uv",
        *("pip", "compile", "pyproject.toml", "--group", "dev"),
        *("--universal", "--python-version", "3.11", "--generate-hashes"),
        # Nothing of the machine that made it may stand in the lock: no address, no path, no command line.
        *("--no-header", "--no-emit-index-url", "--no-emit-find-links", "--annotation-style", "line"),
        *("--quiet", "--output-file", str(output)),
    ]
    if upgrade:
        command.append("--upgrade")
    if offline:
        command.append("--offline")
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    output.write_text(HEADER + output.read_text(encoding="utf-8").removeprefix(HEADER), encoding="utf-8")


def addresses(text: str) -> list[str]:
    """The lines of a lock that name an index, a host or a folder of one machine; there should be none."""
    return [line for line in text.splitlines() if re.search(r"://|--(extra-)?index-url|--find-links| @ ", line)]


def compile_online_or_from_cache(output: Path) -> str:
    """Compile with the network, or from uv's cache when there is none.

    Returns "" when compiled, else the reason why neither worked; a lock that really cannot be resolved is an
    error and is raised.
    """
    try:
        compile_lock(output)
    except subprocess.CalledProcessError as online:
        if not any(word in str(online.stderr).lower() for word in NETWORK_WORDS):
            raise
        try:
            compile_lock(output, offline=True)
        except subprocess.CalledProcessError:
            return str(online.stderr).strip()
    return ""


def names_missing(lock_text: str) -> list[str]:
    """Direct dependencies of pyproject.toml that the lock lacks: what can be told with no network at all."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    wanted: list[object] = list(project["project"]["dependencies"])
    for group in project["dependency-groups"].values():
        wanted.extend(group)
    # An entry that is no string includes another group, whose own entries are in this list as well.
    names = [re.split(r"[^A-Za-z0-9_.-]", entry)[0] for entry in wanted if isinstance(entry, str)]
    locked = {_plain(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock_text, re.MULTILINE)}
    return [name for name in names if _plain(name) not in locked]


def _plain(name: str) -> str:
    """A package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check() -> int:
    """Compare the lock with what would be compiled now, preferring its own versions. Returns an exit code."""
    before = LOCK.read_text(encoding="utf-8")
    if found := addresses(before):
        print(f"requirements.lock names an address or a path: {found[0]}")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / LOCK.name
        shutil.copyfile(LOCK, fresh)
        unreachable = compile_online_or_from_cache(fresh)
        if unreachable:
            missing = names_missing(before)
            if missing:
                print(f"requirements.lock lacks {', '.join(missing)}: run `make lock`")
                return 1
            print("requirements.lock: no package registry reachable, compared the names only: in date")
            return 0
        after = fresh.read_text(encoding="utf-8")
    # Comments say who asked for what; a newer uv may word them differently.
    old, new = ([line for line in text.splitlines() if not line.lstrip().startswith("#")] for text in (before, after))
    if old == new:
        print("requirements.lock: in date")
        return 0
    print("\n".join(difflib.unified_diff(old, new, "requirements.lock", "pyproject.toml asks for", n=0, lineterm="")))
    print("requirements.lock is out of date: run `python -m ops.check.lock --fix` or `make lock`")
    return 1


def main(arguments: list[str]) -> int:
    """Run one of the three commands of the module's docstring; returns the exit code."""
    try:
        if arguments in (["--fix"], ["--upgrade"]):
            compile_lock(LOCK, upgrade=arguments == ["--upgrade"])
            return 0
        if arguments:
            print(__doc__)
            return 2
        return check()
    except subprocess.CalledProcessError as error:
        print(f"uv could not resolve pyproject.toml:\n{error.stderr}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
