"""Each bank's statement of a day, in its own form: as the bank's book has it, or wrong; and how escrow reads it."""

from collections.abc import AsyncIterator
from datetime import date
from io import StringIO
from pathlib import Path
from typing import Final

from ops.bank import statements as bank_files
from services.escrow import reconcile
from services.escrow.statements import StatementFile
from shared.messaging.work import UnitOfWork
from shared.working_days import SHANGHAI
from tests.simulation.model_banks import BANKS
from tests.simulation.model_breaks import Line, Statement
from tests.simulation.simulation import Simulation

_MOVES: Final = """
SELECT bank, reference, number, outcome, happened_at, kind = 'collect' OR outcome = 'returned' AS came_in, amount_fen,
  CASE WHEN kind = 'collect' OR outcome = 'returned' THEN from_account ELSE to_account END AS account
FROM entries WHERE outcome IN ('paid', 'returned') ORDER BY happened_at, number, step
"""
_PENDING: Final = (("已记账", "处理中"), ("已退回", "处理中"), ("<Cd>BOOK</Cd>", "<Cd>PDNG</Cd>"))
"""Our stand-in has nothing on its statement that has not moved: what it would write instead."""


async def moves(simulation: Simulation) -> dict[str, list[Line]]:
    """Bank → what it moved, oldest first."""
    found: dict[str, list[Line]] = {}
    for row in await simulation.rows("bank", _MOVES):
        fen = row["amount_fen"] if row["came_in"] else -row["amount_fen"]
        status = "returned" if row["outcome"] == "returned" else "booked"
        line = Line(row["reference"], row["number"], fen, row["happened_at"], status, row["account"])
        found.setdefault(row["bank"], []).append(line)
    return found


async def load(simulation: Simulation, bank: str, day: date, wrong: Statement | None) -> None:
    """Escrow reads the statement of a day, as it does for an operator: the bank's own, or the `wrong` one."""
    path: Path = simulation.folder / "statement"
    with path.open("w", encoding="utf-8", newline="") as out:
        if wrong is None:
            await bank_files.write(simulation.processes["bank"].settings.database, bank, day, BANKS[bank][1], out)
        else:
            out.write(await _written(bank, day, wrong))
    escrow = simulation.processes["escrow"]
    async with escrow.database.session() as session, session.begin():
        work = UnitOfWork("escrow", session, escrow.ring, simulation.now)
        await reconcile.load(work, StatementFile.open(path, day), bank, "yike")
        await work.flush()
    escrow.has_said = True
    simulation.counts[f"statements reconciled: {bank}"] += 1


async def _written(bank: str, day: date, statement: Statement) -> str:
    """What the stand-in would write, had it moved that."""
    out = StringIO(newline="")
    if BANKS[bank][1] == "csv":
        await bank_files.write_csv(out, day, _as_moved(statement), statement.opening, statement.closing)
    else:
        await bank_files.write_camt(out, bank, day, _as_moved(statement), statement.opening, statement.closing)
    text = out.getvalue().splitlines(keepends=True)
    places = [at for at, one in enumerate(text) if any(booked in one for booked, _ in _PENDING)]
    for at, line in zip(places, statement.lines, strict=True):
        for booked, pending in _PENDING if line.status == "pending" else ():
            text[at] = text[at].replace(booked, pending)
    return "".join(text)


async def _as_moved(statement: Statement) -> AsyncIterator[bank_files.Move]:
    balance = statement.opening
    for line in statement.lines:
        balance += line.fen
        yield bank_files.Move(
            number=line.number,
            reference=line.reference,
            returned=line.status == "returned",
            fen=line.fen,
            happened_at=line.at.astimezone(SHANGHAI),
            counter_account=line.account,
            balance_fen=balance,
        )
