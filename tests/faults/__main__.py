"""`python -m tests.faults`: each fault strikes a stack under load; then everything is checked from outside."""

import argparse
import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
from dataclasses import asdict
from typing import Final

from rich.console import Console
from rich.table import Table

from ops.stack import stack_folder
from ops.stack.progress import showing
from ops.stack.servers import start_servers, stop_servers
from tests.faults.drills import FAULTS
from tests.faults.strike import Outcome, strike

PLACES_SHOWN: Final = 3


def show(console: Console, outcomes: list[Outcome]) -> None:
    """The matrix: a line for each fault, and each place that is wrong."""
    table = Table(title="Faults under load", title_justify="left")
    for heading in ("fault", "blows", "restarts", "messages", "purchases", "lessons", "s", "quiet after s", "wrong"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for one in outcomes:
        counts = (one.blows, one.restarts, one.messages, one.purchases, one.lessons)
        table.add_row(one.fault, *map(str, counts), f"{one.seconds:.0f}", f"{one.recovered_s:.1f}", str(one.wrong))
    console.print(table)
    for one in outcomes:
        for check, places in one.violations.items():
            for place in places[:PLACES_SHOWN]:
                console.print(f"{one.fault} SEED={one.seed}: {check}: {place}")


def main() -> int:
    """Strikes with all faults or one; 0 if nothing was wrong after any of them."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--one", default=os.environ.get("ONE", ""), choices=["", *FAULTS], help="only this fault")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or 0), help="repeats a run's chance")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON only")
    arguments = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the load's own clients: that a broker is away is meant
    folder = stack_folder() / "faults"
    if folder.exists():
        stop_servers(folder)
        shutil.rmtree(folder)
    outcomes: list[Outcome] = []
    with showing(console) as progress:
        servers = start_servers(folder, progress)
    try:
        for name in [arguments.one] if arguments.one else list(FAULTS):
            seed = arguments.seed or secrets.randbits(32)
            with console.status(f"{name} (SEED={seed}): {(FAULTS[name].__doc__ or '').strip()}"):
                outcomes.append(asyncio.run(strike(name, seed, servers, folder)))
            last = outcomes[-1]
            console.print(f"  {'✗' if last.wrong else '✓'} {name}  [dim]{last.seconds + last.recovered_s:.0f} s[/dim]")
    finally:
        stop_servers(folder)
    written = json.dumps([asdict(one) for one in outcomes], indent=2)
    (folder / "faults.json").write_text(written, encoding="utf-8")
    if arguments.json:
        print(written)
    else:
        show(Console(highlight=False, width=110), outcomes)
    wrong = sum(one.wrong for one in outcomes)
    checks = len(outcomes[0].violations)
    print(f"faults: {len(outcomes)} faults, {checks} invariants, {wrong} violations", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
