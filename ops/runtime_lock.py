"""The part of requirements.lock that a running service needs: no servers, no tools of development.

Used by the Dockerfile (`python runtime_lock.py requirements.lock > runtime.lock`), so it needs nothing but Python. The
lock says behind each package who asked for it; what `[project].dependencies` asks for, and what that asks for, stays.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = "yike (pyproject.toml)"


@dataclass(frozen=True)
class Locked:
    """One package of a lock: its lines, and who asked for it."""

    name: str
    lines: tuple[str, ...]
    asked_by: tuple[str, ...]


def packages(lock: str) -> Iterator[Locked]:
    """The packages of a lock that `uv pip compile --annotation-style line` has written."""
    for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        name = re.match(r"[A-Za-z0-9_.-]+", block)
        if name is None:
            continue
        via = re.search(r"^\s*# via (.+)$", block, re.MULTILINE)
        if via is None:
            raise ValueError(f"the lock does not say who asked for {name[0]}")
        lines = tuple(line for line in block.splitlines() if line and not line.lstrip().startswith("#"))
        yield Locked(name[0], lines, tuple(one.strip() for one in via[1].split(",")))


def runtime(lock: str) -> list[Locked]:
    """The packages that the project itself needs, directly or not, in the lock's order."""
    known = list(packages(lock))
    kept = {PROJECT}
    while True:
        more = {one.name for one in known if kept.intersection(one.asked_by)} - kept
        if not more:
            return [one for one in known if one.name in kept]
        kept |= more


def main() -> None:
    """Prints the runtime part of the lock named on the command line."""
    for package in runtime(Path(sys.argv[1]).read_text(encoding="utf-8")):
        print("\n".join(package.lines))


if __name__ == "__main__":
    main()
