"""The bank's statement of every day on which money moved, compared with results, instructions and ledger."""

from datetime import date, timedelta
from pathlib import Path
from typing import Final

from ops.bank import statements as bank_files
from ops.cli.base import Common
from ops.cli.reconcile import run
from ops.cli.site import rows
from ops.stack_layout import Stack
from services.escrow.statements import StatementFile
from tests.faults.world import Row, quiet

_DAYS: Final = """
SELECT bank, min((happened_at AT TIME ZONE 'Asia/Shanghai')::date) AS first,
       max((happened_at AT TIME ZONE 'Asia/Shanghai')::date) AS last
FROM entries WHERE outcome IN ('paid', 'returned') GROUP BY bank ORDER BY bank
"""
BREAKS: Final = "SELECT * FROM breaks WHERE state NOT IN ('resolved', 'closed') ORDER BY day, break_id"


async def breaks(stack: Stack, folder: Path) -> list[str]:
    """Reconciles day after day, as an operator does; what is left unexplained. The stack is quiet before and after."""
    for bank, first, last in await rows(stack.dsn("bank"), _DAYS):
        for number in range((last - first).days + 1):
            await _reconcile(stack, folder, bank, first + timedelta(days=number))
    await quiet(stack)
    return [in_words(row) for row in await rows(stack.dsn("escrow"), BREAKS)]


def in_words(row: Row) -> str:
    """One of `BREAKS`."""
    return (
        f"{row['bank']} {row['day']}: {row['type']} {row['number']} {row['reference']}, "
        f"theirs {row['theirs_fen']} fen, ours {row['ours_fen']} {row['note']}"
    )


async def _reconcile(stack: Stack, folder: Path, bank: str, day: date) -> None:
    path = folder / f"{bank}-{day}.csv"
    with path.open("w", encoding="utf-8", newline="") as out:
        await bank_files.write(stack.dsn("bank"), bank, day, "csv", out)
    await run(stack.dsn("escrow"), StatementFile.open(path, day), bank, Common(json=True))
