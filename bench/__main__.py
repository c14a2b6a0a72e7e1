"""`python -m bench`: the whole system under load, a table, and one last line of figures."""

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, Final

import asyncpg
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from bench.hops import Hops
from bench.ledger import Ledger, ledger_rates
from bench.load import LoadGateway, lessons, purchases
from bench.relay import relay_rate
from bench.town import LESSONS, PURCHASE_WINDOW, WINDOW, Sizes, prepare
from ops.bank import desk
from ops.cli.base import PIPE_COLUMNS
from ops.stack import stack_folder
from ops.stack.progress import showing
from ops.stack.scheduling import finish_batches
from ops.stack.servers import discard
from ops.stack_layout import PART_NAMES, Stack
from services.escrow import audit

HALF_SECONDS: Final = 15


QUICK: Final = Sizes(guardians=20, courses=4, purchases=500, lessons=2400, transfers=4000, relay_rows=20_000)


@dataclass
class Figures:
    """What was measured."""

    purchases_per_s: float = 0.0
    lessons_per_s: float = 0.0
    ledger_cold_per_s: float = 0.0
    ledger_hot_per_s: float = 0.0
    relay_per_s: float = 0.0
    lesson_p50_ms: float = 0.0
    lesson_p99_ms: float = 0.0
    rss_mib: float = 0.0
    rss_by_process_mib: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """The last line of the bench."""
        shown = {name: value for name, value in asdict(self).items() if not isinstance(value, dict)}
        return "bench: " + " ".join(f"{name}={value:.0f}" for name, value in shown.items())


async def run(console: Console, sizes: Sizes) -> Figures:
    """Brings a fresh stack up, loads it, measures, proves the books."""
    folder = stack_folder() / "bench"
    await asyncio.to_thread(discard, folder)
    figures = Figures()
    with showing(console) as progress:
        stack = await Stack.start(
            folder, progress=progress, extra_env={name: {"YIKE_LOG_LEVEL": "WARNING"} for name in PART_NAMES}
        )
    async with stack:
        orders = await prepare(console, stack, sizes)
        async with LoadGateway(stack.client_settings) as gateway:
            bought = await _timed(console, f"{len(orders)} purchases", purchases(gateway, orders, PURCHASE_WINDOW))
            figures.purchases_per_s = bought.per_s
            console.print(f"    {bought.per_s:.0f}/s, p50 {bought.percentile_ms(50):.0f} ms")
            await stack.advance(timedelta(days=LESSONS + 2))
            planned = [(order, number) for number in range(1, LESSONS + 1) for order in orders]
            peak = await _timed(console, f"{sizes.lessons} lessons", lessons(gateway, planned[: sizes.lessons], WINDOW))
            figures.lessons_per_s = peak.per_s
            console.print(f"    {peak.per_s:.0f}/s with {WINDOW} in flight, p50 {peak.percentile_ms(50):.0f} ms")
            count = min(int(peak.per_s / 2 * HALF_SECONDS), len(planned) - sizes.lessons)
            rest = planned[sizes.lessons : sizes.lessons + count]
            hops = await Hops.begin(stack)
            half = await _timed(console, f"{count} lessons at half of that", lessons(gateway, rest, 0, peak.per_s / 2))
            await hops.show(console)
            figures.lesson_p50_ms, figures.lesson_p99_ms = half.percentile_ms(50), half.percentile_ms(99)
        figures.rss_by_process_mib = _memory(stack)
        figures.rss_mib = max(figures.rss_by_process_mib.values())
        await _prove(console, stack)
        figures.relay_per_s = await _timed(console, "the relay alone", relay_rate(stack, sizes.relay_rows))
        rates: Ledger = await _timed(console, "the ledger alone", ledger_rates(stack, sizes.transfers))
        figures.ledger_cold_per_s, figures.ledger_hot_per_s = rates.cold_per_s, rates.hot_per_s
        await _prove(console, stack)
    (folder / "bench.json").write_text(json.dumps(asdict(figures), indent=2), encoding="utf-8")
    return figures


async def _timed(console: Console, words: str, doing: Any) -> Any:
    # What the load before has left in the kernel's cache goes to disk now: written in bursts later on, it would hold
    # up the commits of this one.
    await asyncio.to_thread(os.sync)
    began = time.perf_counter()
    with console.status(f"{words} …"):
        done = await doing
    console.print(f"  {words}  [dim]{time.perf_counter() - began:.1f} s[/dim]")
    return done


def _memory(stack: Stack) -> dict[str, float]:
    """Resident MiB of each process."""
    found: dict[str, float] = {}
    for name in PART_NAMES:
        pid = stack.state(name).pid
        if pid is not None:
            found[name] = psutil.Process(pid).memory_info().rss / 2**20
    return found


async def _prove(console: Console, stack: Stack) -> None:
    """The books after the load: a figure of a system that is wrong is worth nothing."""
    await _quiet(stack)
    report = await audit.check(stack.dsn("escrow"))
    bank = await desk.out_of_balance(stack.dsn("bank"))
    if not report.good or bank:
        console.print(report.violations, bank)
        raise SystemExit("bench: the books are wrong")
    console.print(
        f"    books right: {report.orders} orders, {report.transfers} transfers, {report.moved_fen} fen moved"
    )


async def _quiet(stack: Stack) -> None:
    """Waits until every outbox is empty."""
    for name in PART_NAMES:
        connection = await asyncpg.connect(stack.dsn(name))
        try:
            while await connection.fetchval("SELECT EXISTS (SELECT FROM unsent)"):
                await connection.execute("SELECT pg_sleep(0.1)")
        finally:
            await connection.close()


def _show(console: Console, figures: Figures) -> None:
    table = Table(title="Measured on this machine", title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    rows = [
        ("complete purchases per second", f"{figures.purchases_per_s:.0f}"),
        ("complete lessons per second", f"{figures.lessons_per_s:.0f}"),
        (
            "lesson, apply to settled, at half of that: p50, p99",
            f"{figures.lesson_p50_ms:.0f} ms, {figures.lesson_p99_ms:.0f} ms",
        ),
        ("ledger, transfers per second, many orders", f"{figures.ledger_cold_per_s:.0f}"),
        ("ledger, transfers per second, one order", f"{figures.ledger_hot_per_s:.0f}"),
        ("relay, rows per second", f"{figures.relay_per_s:.0f}"),
    ]
    rows += [(f"memory of {name}", f"{mib:.0f} MiB") for name, mib in figures.rss_by_process_mib.items()]
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main() -> int:
    """Runs the bench; 0 if the books were right after each load."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small load, to try the bench itself")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON only")
    arguments = parser.parse_args()
    console = Console(stderr=arguments.json, highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    finish_batches()
    gc.disable()  # a load that pauses to collect garbage measures itself
    figures = uvloop.run(run(console, QUICK if arguments.quick else Sizes()))
    if arguments.json:
        print(json.dumps(asdict(figures), indent=2))
    else:
        _show(console, figures)
        print(figures.line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
