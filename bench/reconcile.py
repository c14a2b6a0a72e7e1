"""A day of a million lines against a million results, instructions and transfers: how long, and how much memory.

    python -m bench.reconcile --lines 1000000

Starts a PostgreSQL of its own, fills escrow's tables with one day by SQL, writes that day's statement as CSV and as
camt.053, and lets a process of its own reconcile each, as `yike reconcile` does. Nine in ten are payouts of
lessons, the others payments of orders.
"""

import argparse
import asyncio
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date, datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg

from ops.cli.base import Common
from ops.cli.reconcile import run
from ops.provision import create_databases, upgrade
from ops.stack.servers import embedded_postgres
from services.escrow.statements import COLUMNS, StatementFile
from shared.ids import instruction_number
from shared.working_days import SHANGHAI

DAY: Final = date(2026, 11, 23)
LESSONS: Final = 9
FEN: Final = 100
ORDERS_AT_ONCE: Final = 20_000

_ORDER: Final = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
_FILL: Final = (
    f"""INSERT INTO accounts (order_id, account_id, institution_id, district, bank, supervised_account, payout_account,
          price_fen, lessons, method, pay_by, opened_at, state, reason, paid_reference, suspensions, given_back,
          paid_fen, held_fen, releasing_fen, released_fen, refunding_fen, refunded_fen)
        SELECT {_ORDER}, {_ORDER}, {_ORDER}, '', 'icbc', 'S-1', 'P-1', {LESSONS * FEN}, {LESSONS},
          'alipay', $2, $2, 'held', '', 'B' || n || '-0', 0, '[]', {LESSONS * FEN}, 0, 0, {LESSONS * FEN}, 0, 0
        FROM generate_series(1, $1::int) n""",
    f"""INSERT INTO transfers SELECT {_ORDER}, 0, 'hold', 0, 2, 'outside', 'held', {LESSONS * FEN}, $2
        FROM generate_series(1, $1::int) n""",
    f"""INSERT INTO transfers SELECT {_ORDER}, l, 'release', 0, p, CASE p WHEN 1 THEN 'held' ELSE 'releasing' END,
          CASE p WHEN 1 THEN 'releasing' ELSE 'released' END, {FEN}, $2
        FROM generate_series(1, $1::int) n, generate_series(1, {LESSONS}) l, generate_series(1, 2) p""",
    f"""INSERT INTO instructions SELECT {_ORDER}, l, CASE l WHEN 0 THEN 'collect' ELSE 'payout' END, 0, 0, 'paid',
          CASE l WHEN 0 THEN {LESSONS * FEN} ELSE {FEN} END, 'B' || n || '-' || l, 0, '[]', $2
        FROM generate_series(1, $1::int) n, generate_series(0, {LESSONS}) l""",
)
_RESULTS: Final = (
    "id", "order_id", "number", "kind", "outcome", "amount_fen", "bank", "reference", "reason", "happened_at",
    "received_at", "verdict",
)  # fmt: skip


async def fill(dsn: str, orders: int) -> None:
    """A day of escrow: each order is paid and its lessons are paid out."""
    noon = datetime.combine(DAY, datetime.min.time().replace(hour=12), SHANGHAI)
    connection = await asyncpg.connect(dsn)
    try:
        for statement in _FILL:
            await connection.execute(statement, orders, noon)
        for first in range(1, orders + 1, ORDERS_AT_ONCE):
            some = range(first, min(first + ORDERS_AT_ONCE, orders + 1))
            records = [
                (
                    UUID(int=n << 8 | lesson), order_of(n), number_of(n, lesson), "payout" if lesson else "collect",
                    "paid", fen_of(lesson), "icbc", f"B{n}-{lesson}", "", noon, noon, "applied",
                )
                for n in some
                for lesson in range(LESSONS + 1)
            ]  # fmt: skip
            await connection.copy_records_to_table("bank_results", records=records, columns=_RESULTS)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


def order_of(n: int) -> UUID:
    """The n-th order."""
    return UUID(f"00000000-0000-7000-8000-{n:012x}")


def number_of(n: int, lesson: int) -> str:
    """What the bank was told under."""
    return instruction_number("P" if lesson else "C", order_of(n), lesson, 0)


def fen_of(lesson: int) -> int:
    """A lesson's price, or of all."""
    return FEN if lesson else LESSONS * FEN


def write(folder: Path, orders: int) -> tuple[Path, Path]:
    """The day's statement in both forms."""
    table, xml = folder / "day.csv", folder / "day.xml"
    with table.open("w", newline="") as first, xml.open("w") as second:
        rows = csv.writer(first)
        rows.writerow(COLUMNS)
        rows.writerow([f"{DAY} 00:00:00", "", "", "", "", "", "opening", "0.00"])
        second.write('<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt>\n')
        for code in ("OPBD", "CLBD"):
            second.write(
                f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{amount(0)}<Dt><Dt>{DAY}</Dt></Dt></Bal>"
            )
        for n in range(1, orders + 1):
            for lesson in range(LESSONS + 1):
                fen, number, reference = fen_of(lesson), number_of(n, lesson), f"B{n}-{lesson}"
                direction = "debit" if lesson else "credit"
                yuan = f"{fen // 100}.{fen % 100:02d}"
                rows.writerow([f"{DAY} 12:00:00", number, reference, direction, yuan, "P-1", "booked", "0.00"])
                second.write(
                    f"<Ntry>{amount(-fen if lesson else fen)}<Sts><Cd>BOOK</Cd></Sts>"
                    f"<BookgDt><DtTm>{DAY}T12:00:00+08:00</DtTm></BookgDt><AcctSvcrRef>{reference}</AcctSvcrRef>"
                    "<BkTxCd><Prtry><Cd>TRF</Cd></Prtry></BkTxCd><NtryDtls><TxDtls><Refs>"
                    f"<EndToEndId>{number}</EndToEndId></Refs></TxDtls></NtryDtls></Ntry>\n"
                )
        rows.writerow([f"{DAY} 23:59:59", "", "", "", "", "", "closing", "0.00"])
        second.write("</Stmt></BkToCstmrStmt></Document>\n")
    return table, xml


def amount(fen: int) -> str:
    """An amount in ISO's words."""
    side = "DBIT" if fen < 0 else "CRDT"
    return f'<Amt Ccy="CNY">{abs(fen) // 100}.{abs(fen) % 100:02d}</Amt><CdtDbtInd>{side}</CdtDbtInd>'


async def one(dsn: str, path: Path) -> dict[str, object]:
    """Reconciles one file in this process; seconds, CPU seconds and the most memory of all its life."""
    began = time.perf_counter()
    statement = StatementFile.open(path, DAY)
    view, _ = await run(dsn, statement, "icbc", Common(json=True))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "form": statement.form,
        "mib": round(statement.size / 2**20),
        "lines": view.lines,
        "breaks": view.breaks,
        "seconds": round(time.perf_counter() - began, 1),
        "own_cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_rss_mib": peak_rss_mib(),
    }


def peak_rss_mib() -> int:
    """The most memory this process has had. Not `ru_maxrss`: that is inherited from who started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


async def bench(lines: int) -> None:
    """Fills, writes, reconciles."""
    orders = lines // (LESSONS + 1)
    with tempfile.TemporaryDirectory(prefix="yike-bench-") as name:
        folder = Path(name)
        postgres = embedded_postgres(folder)
        try:
            dsn = (await create_databases(postgres.start(), ["escrow"]))["escrow"]
            await upgrade("escrow", dsn)
            began = time.perf_counter()
            await fill(dsn, orders)
            files = write(folder, orders)
            print(
                f"filled and written in {time.perf_counter() - began:.0f} s; load {os.getloadavg()[0]:.1f}", flush=True
            )
            for path in (*files, files[0]):  # the first once more: it replaces the other's lines
                command = [sys.executable, "-m", "bench.reconcile", "--dsn", dsn, "--file", str(path)]
                said = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
                print(said.stdout.strip(), f"load {os.getloadavg()[0]:.1f}", flush=True)
        finally:
            postgres.destroy()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--dsn", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.file:
        print(json.dumps(asyncio.run(one(asked.dsn, asked.file))))
    else:
        asyncio.run(bench(asked.lines))


if __name__ == "__main__":
    main()
