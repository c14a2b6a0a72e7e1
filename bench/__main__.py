"""`python -m bench`: the whole system under load, a table, and one last line of figures."""

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
import uvloop
from rich.console import Console
from rich.table import Table

from bench.cores import Cores
from bench.hops import Hops
from bench.ledger import Ledger, Rate, ledger_alone
from bench.load import LoadGateway, lessons, purchases
from bench.long import Midnight, midnight, rate_when_full
from bench.relay import relay_rate
from bench.town import LESSONS, PURCHASE_WINDOW, WINDOW, Sizes, lesson_by_lesson, prepare
from bench.tpcb import tpcb_rate
from ops.bank import desk
from ops.cli.base import PIPE_COLUMNS
from ops.copies import a_copy
from ops.stack import stack_folder
from ops.stack.progress import showing
from ops.stack.scheduling import finish_batches
from ops.stack.servers import discard
from ops.stack_layout import PART_NAMES, Stack
from services.escrow import audit
from shared.ids import new_id
from shared.settings import SERVICES

HALF_SECONDS: Final = 15
IDLE_PER_S: Final = 8.0
COLD_ORDERS: Final = 10_000
NOT_MEASURED: Final = "-"
PARTS: Final = ("lessons", "ledger", "midnight")

QUICK: Final = Sizes(
    guardians=20,
    courses=4,
    purchases=500,
    lessons=2400,
    transfers=4000,
    relay_rows=20_000,
    with_copies=1200,
    idle=20,
    one_per_commit=300,
    tpcb_seconds=3,
    full=200_000,
    silent=3000,
)


@dataclass
class Figures:
    """What was measured. Ratios are of two figures of this run; None: of `make bench-long` only."""

    purchases_per_s: float = 0.0
    lessons_per_s: float = 0.0
    ledger_cold_per_s: float = 0.0
    ledger_hot_per_s: float = 0.0
    relay_per_s: float = 0.0
    lesson_p50_ms: float = 0.0
    lesson_p99_ms: float = 0.0
    idle_p95_ms: float = 0.0
    batch_gain: float = 0.0
    vs_pgbench: float = 0.0
    copies_ratio: float = 0.0
    ledger_copies_ratio: float = 0.0
    rows10m_ratio: float | None = None
    midnight_s_per_500k: float | None = None
    ledger_check_s: float = 0.0
    rss_mib: float = 0.0
    tpcb_per_s: float = 0.0
    rss_by_process_mib: dict[str, float] = field(default_factory=dict)
    ledger: dict[str, Rate] = field(default_factory=dict)
    midnight: Midnight | None = None

    def line(self) -> str:
        """The last line of the bench."""
        shown = " ".join(f"{name}={_in_short(name, getattr(self, name))}" for name in WHAT)
        return f"bench: {shown}"


WHAT: Final = {
    "purchases_per_s": "complete purchases per second",
    "lessons_per_s": "complete lessons per second",
    "ledger_cold_per_s": "ledger, transfers per second, many orders",
    "ledger_hot_per_s": "ledger, transfers per second, one order",
    "relay_per_s": "relay, rows per second",
    "lesson_p50_ms": "lesson, apply to settled, at half of the peak: p50, ms",
    "lesson_p99_ms": "p99, ms",
    "idle_p95_ms": "lesson on an idle system: p95, ms",
    "batch_gain": "ledger, batches against one message per commit",
    "vs_pgbench": "ledger against pgbench's TPC-B",
    "copies_ratio": "lessons, two copies of each service against one",
    "ledger_copies_ratio": "ledger, two copies of escrow against one",
    "rows10m_ratio": "ledger, ten million transfers in the tables against few",
    "midnight_s_per_500k": "half a million silent lessons confirmed and instructed, s",
    "ledger_check_s": "the books proved, all that is in the tables then, s",
    "rss_mib": "memory of the largest service, MiB",
}
"""The figures of the last line, in words."""


def _in_short(name: str, value: float | None) -> str:
    if not value:
        return NOT_MEASURED
    return f"{value:.2f}" if name.endswith(("_gain", "_ratio", "pgbench")) else f"{value:.0f}"


async def run(console: Console, sizes: Sizes, parts: Collection[str], *, long: bool) -> Figures:
    """Brings a fresh stack up, loads it, measures `parts`, proves the books; with `long`, full tables too, and a second
    stack for the midnight."""
    folder = stack_folder() / "bench"
    figures = Figures()
    if set(parts) != {"midnight"}:
        async with await _fresh_stack(console, folder) as stack:
            await _by_day(console, stack, sizes, figures, parts, long=long)
    if long and "midnight" in parts:
        async with await _fresh_stack(console, folder) as stack:
            figures.midnight = await midnight(console, stack, sizes.silent)
            figures.midnight_s_per_500k = figures.midnight.instructed_s * 500_000 / sizes.silent
            await _prove(console, stack)
    (folder / "bench.json").write_text(json.dumps(asdict(figures), indent=2), encoding="utf-8")
    return figures


async def _by_day(
    console: Console, stack: Stack, sizes: Sizes, figures: Figures, parts: Collection[str], *, long: bool
) -> None:
    if "lessons" in parts:
        await _over_kafka(console, stack, sizes, figures)
        figures.rss_by_process_mib = _memory(stack)
        figures.rss_mib = max(figures.rss_by_process_mib.values())
        await _prove(console, stack)
        figures.relay_per_s = await _timed(console, "the relay alone", relay_rate(stack, sizes.relay_rows))
    if "ledger" in parts:
        async with ledger_alone(stack) as ledger:
            await _ledger(console, ledger, sizes, figures, long=long)
        figures.ledger_check_s = await _prove(console, stack)


async def _fresh_stack(console: Console, folder: Path) -> Stack:
    await asyncio.to_thread(discard, folder)
    quiet = {name: {"YIKE_LOG_LEVEL": "WARNING"} for name in PART_NAMES}
    with showing(console) as progress:
        return await Stack.start(folder, progress=progress, extra_env=quiet)


async def _over_kafka(console: Console, stack: Stack, sizes: Sizes, figures: Figures) -> None:
    """Purchases, and lessons at the peak, at half of it, with two copies of everybody, and one by one."""
    orders = await prepare(console, stack, sizes)
    planned = lesson_by_lesson(orders)
    async with LoadGateway(stack.client_settings) as gateway:
        bought = await _timed(console, f"{len(orders)} purchases", purchases(gateway, orders, PURCHASE_WINDOW))
        figures.purchases_per_s = bought.per_s
        console.print(f"    {bought.per_s:.0f}/s, p50 {bought.percentile_ms(50):.0f} ms")
        await stack.advance(timedelta(days=LESSONS + 2))
        some = list(islice(planned, sizes.lessons))
        peak = await _timed(console, f"{len(some)} lessons", lessons(gateway, some, WINDOW))
        figures.lessons_per_s = peak.per_s
        console.print(f"    {peak.per_s:.0f}/s with {WINDOW} in flight, p50 {peak.percentile_ms(50):.0f} ms")
        left = LESSONS * len(orders) - sizes.lessons - sizes.with_copies - sizes.idle
        some = list(islice(planned, min(int(peak.per_s / 2 * HALF_SECONDS), left)))
        hops = await Hops.begin(stack)
        half = await _timed(console, f"{len(some)} lessons at half of that", lessons(gateway, some, 0, peak.per_s / 2))
        await hops.show(console)
        figures.lesson_p50_ms, figures.lesson_p99_ms = half.percentile_ms(50), half.percentile_ms(99)
    async with LoadGateway(stack.client_settings, linger_ms=0) as gateway:
        some = list(islice(planned, sizes.idle))
        idle = await _timed(console, f"{len(some)} lessons, {IDLE_PER_S:g}/s", lessons(gateway, some, 0, IDLE_PER_S))
        figures.idle_p95_ms = idle.percentile_ms(95)
        console.print(f"    p50 {idle.percentile_ms(50):.0f} ms, p95 {figures.idle_p95_ms:.0f} ms")
    async with LoadGateway(stack.client_settings) as gateway, AsyncExitStack() as closing:
        await asyncio.gather(*(closing.enter_async_context(a_copy(stack, name)) for name in SERVICES))
        some = list(islice(planned, sizes.with_copies))
        shared = await _timed(console, f"{len(some)} lessons, two copies of each", lessons(gateway, some, WINDOW))
        figures.copies_ratio = shared.per_s / peak.per_s


async def _ledger(console: Console, ledger: Ledger, sizes: Sizes, figures: Figures, *, long: bool) -> None:
    """Escrow alone: many orders and one, one message per commit, two copies, full tables; and then pgbench alone."""
    cold = [new_id() for _ in range(min(COLD_ORDERS, sizes.transfers))]
    hot = new_id()
    each = -(-(2 * sizes.transfers + sizes.one_per_commit) // len(cold))
    releases = lesson_by_lesson(cold)
    await _timed(console, "orders for the ledger", ledger.open(dict.fromkeys(cold, each) | {hot: sizes.transfers}))
    few = await _timed(console, "the ledger, many orders", ledger.rate(list(islice(releases, sizes.transfers))))
    one = await _timed(
        console, "the ledger, one order", ledger.rate(list(islice(lesson_by_lesson([hot]), sizes.transfers)))
    )
    two = await _timed(console, "the ledger, two copies", ledger.rate_of_two(list(islice(releases, sizes.transfers))))
    alone = ledger.rate_one_per_commit(list(islice(releases, sizes.one_per_commit)))
    single = await _timed(console, "the ledger, one message per commit", alone)
    figures.ledger_cold_per_s, figures.ledger_hot_per_s = few.per_s, one.per_s
    figures.ledger_copies_ratio, figures.batch_gain = two.per_s / few.per_s, few.per_s / single.per_s
    figures.ledger = {"cold": few, "hot": one, "two copies": two, "one per commit": single}
    if long:
        with console.status("the ledger, full tables") as status:
            full = await rate_when_full(ledger, sizes.full, sizes.transfers, status.update)
        figures.rows10m_ratio = full.per_s / few.per_s
        figures.ledger["full tables"] = full
    for name, rate in figures.ledger.items():
        costs = ", ".join(f"{who} {us:.0f}" for who, us in rate.cpu_us.items() if us >= 0.5)
        console.print(f"    {name}: {rate.per_s:.0f}/s, {rate.cores:.1f} cores busy; µs of CPU each: {costs}")
    await ledger.stack.halt("escrow")
    figures.tpcb_per_s = await _timed(console, "pgbench", tpcb_rate(ledger.stack, sizes.tpcb_seconds))
    await ledger.stack.resume("escrow")
    figures.vs_pgbench = few.per_s / figures.tpcb_per_s


async def _timed(console: Console, words: str, doing: Any) -> Any:
    # What the load before has left in the kernel's cache goes to disk now: written in bursts later on, it would hold
    # up the commits of this one.
    await asyncio.to_thread(os.sync)
    cores = Cores.begin()
    with console.status(f"{words} …"):
        done = await doing
    console.print(f"  {words}  [dim]{time.perf_counter() - cores.began:.1f} s: {cores.words()}[/dim]")
    return done


def _memory(stack: Stack) -> dict[str, float]:
    """Resident MiB of each process."""
    found: dict[str, float] = {}
    for name in PART_NAMES:
        pid = stack.state(name).pid
        if pid is not None:
            found[name] = psutil.Process(pid).memory_info().rss / 2**20
    return found


async def _prove(console: Console, stack: Stack) -> float:
    """The books after the load: a figure of a system that is wrong is worth nothing. How many seconds it took."""
    await _quiet(stack)
    began = time.perf_counter()
    report = await audit.check(stack.dsn("escrow"))
    took_s = time.perf_counter() - began
    bank = await desk.out_of_balance(stack.dsn("bank"))
    if not report.good or bank:
        console.print(report.violations, bank)
        raise SystemExit("bench: the books are wrong")
    console.print(
        f"    books right: {report.orders} orders, {report.transfers} transfers, {report.moved_fen} fen moved; "
        f"proved in {took_s:.1f} s"
    )
    return took_s


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
    for name, words in WHAT.items():
        table.add_row(words, _in_short(name, getattr(figures, name)))
    for name, mib in figures.rss_by_process_mib.items():
        table.add_row(f"memory of {name}, MiB", f"{mib:.0f}")
    console.print(table)


def main() -> int:
    """Runs the bench; 0 if the books were right after each load."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small load, to try the bench itself")
    parser.add_argument("--long", action="store_true", help="ten million rows and a midnight too: half an hour")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only this part, or these; midnight is one of the long ones"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON only")
    arguments = parser.parse_args()
    if "midnight" in (arguments.part or ()) and not arguments.long:
        parser.error("midnight takes --long")
    console = Console(stderr=arguments.json, highlight=False, width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    finish_batches()
    gc.disable()  # a load that pauses to collect garbage measures itself
    sizes, parts = QUICK if arguments.quick else Sizes(), arguments.part or PARTS
    figures = uvloop.run(run(console, sizes, parts, long=arguments.long))
    if arguments.json:
        print(json.dumps(asdict(figures), indent=2))
    else:
        _show(console, figures)
        print(figures.line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
