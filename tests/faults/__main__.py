"""Each fault strikes a stack of real processes under load; when it is quiet again, everything is checked."""

import argparse
import asyncio
import logging
import os
import secrets
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from rich.console import Console

from ops.provision import ROOT
from ops.stack import stack_folder
from ops.stack.progress import showing
from ops.stack.servers import Servers, discard, start_servers, stop_servers
from shared.clock import set_offset
from tests.faults import report
from tests.faults.drills import FAULTS
from tests.faults.drills.base import Skipped
from tests.faults.mistakes import MISTAKES, SEEN_UNDER
from tests.faults.strike import Outcome, strike


def main() -> int:
    """Strikes with all faults or one; 0 if nothing was wrong after any of them, or a mistake was seen."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--one", default=os.environ.get("ONE", ""), help="only this fault, or these: a,b,c")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or 0), help="repeats a run's chance")
    parser.add_argument(
        "--break",
        dest="mistake",
        default=os.environ.get("BREAK", ""),
        choices=["", "all", *MISTAKES],
        help="build the road wrongly on purpose, and see whether it is seen",
    )
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON only")
    arguments = parser.parse_args()
    names = [name for name in arguments.one.split(",") if name] or list(FAULTS)
    if unknown := set(names) - FAULTS.keys():
        parser.error(f"no fault is called {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    console = Console(stderr=True, highlight=False)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # the load's own clients: that a broker is away is meant
    folder = stack_folder() / "faults"
    discard(folder)
    with showing(console) as progress:
        servers = start_servers(folder, progress)
    try:
        if arguments.mistake:
            chosen = MISTAKES if arguments.mistake == "all" else [arguments.mistake]
            return _see(console, list(chosen), arguments.seed, servers, folder)
        outcomes: list[Outcome] = []
        for name in names:
            outcomes.append(_strike(console, name, arguments.seed, servers, folder))
            (folder / "faults.json").write_text(report.as_json(outcomes), encoding="utf-8")
    finally:
        stop_servers(folder)
    if arguments.json:
        print(report.as_json(outcomes))
    else:
        report.show(Console(highlight=False, width=160), outcomes)
    if not arguments.one:
        machine = f"{os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
        report.write_page(ROOT / "docs/faults.md", outcomes, datetime.now(UTC).date(), machine)
    print(report.summary(outcomes), file=sys.stderr)
    return 1 if any(one.all_wrong for one in outcomes) else 0


def _strike(console: Console, name: str, seed: int, servers: Servers, folder: Path, mistake: str = "") -> Outcome:
    """One fault; what stopped it in the middle is part of what was found."""
    fault, seed = FAULTS[name], seed or secrets.randbits(32)
    with console.status(f"{name} (SEED={seed}): {fault.does}"):
        try:
            outcome = asyncio.run(strike(name, fault, seed, servers, folder, mistake=mistake, again=not mistake))
        except Skipped as skipped:
            outcome = Outcome(name, fault.number, fault.does, seed, skipped=str(skipped))
        except Exception as error:  # whatever it was, the faults after it are struck too, and the run has failed
            if not mistake:
                console.print(traceback.format_exc())
            outcome = Outcome(name, fault.number, fault.does, seed, failed=f"{type(error).__name__}: {error}"[:2000])
            servers = start_servers(folder)
            asyncio.run(set_offset(servers.postgres_admin_dsn, timedelta(0)))
    sign = "-" if outcome.skipped else "✗" if outcome.all_wrong else "✓"
    console.print(f"  {sign} {name}  [dim]{sum(outcome.took.values()):.0f} s[/dim]")
    return outcome


def _see(console: Console, mistakes: list[str], seed: int, servers: Servers, folder: Path) -> int:
    """Builds each mistake into the road and strikes: 0 if every one of them was seen."""
    unseen = []
    for mistake in mistakes:
        outcome = _strike(console, SEEN_UNDER[mistake], seed, servers, folder, mistake)
        seen = [
            f"{invariant}, {check}: {len(places)} places ({places[0]})"
            for invariant, checks in outcome.violations.items()
            for check, places in checks.items()
            if places
        ]
        seen += [outcome.failed.splitlines()[0]] if outcome.failed else []
        console.print(f"{mistake} under {outcome.fault}: " + ("; ".join(seen) or "NOT SEEN"))
        unseen += [] if seen else [mistake]
    print(f"faults: {len(mistakes)} mistakes, {len(unseen)} not seen", file=sys.stderr)
    return 1 if unseen else 0


if __name__ == "__main__":
    sys.exit(main())
