"""Each bank's statement, in its own form, of every day on which money moved, compared with escrow's books at the end
of a history."""

from datetime import date
from pathlib import Path
from typing import Final

from ops.bank import statements as bank_files
from services.escrow import reconcile
from services.escrow.statements import StatementFile
from shared.messaging.work import UnitOfWork
from tests.faults.statements import BREAKS, in_words
from tests.simulation.model_banks import BANKS
from tests.simulation.simulation import Simulation

_DAYS: Final = """
SELECT DISTINCT bank, (happened_at AT TIME ZONE 'Asia/Shanghai')::date AS day FROM entries
WHERE outcome IN ('paid', 'returned') ORDER BY bank, day
"""


async def breaks(simulation: Simulation) -> list[str]:
    """Loads them day by day, as an operator does; what is left unexplained."""
    for bank, day in await simulation.rows("bank", _DAYS):
        await _reconcile(simulation, bank, day)
        simulation.counts[f"statements reconciled: {bank}"] += 1
    return [in_words(row) for row in await simulation.rows("escrow", BREAKS)]


async def _reconcile(simulation: Simulation, bank: str, day: date) -> None:
    path: Path = simulation.folder / "statement"
    with path.open("w", encoding="utf-8", newline="") as out:
        await bank_files.write(simulation.processes["bank"].settings.database, bank, day, BANKS[bank][1], out)
    escrow = simulation.processes["escrow"]
    async with escrow.database.session() as session, session.begin():
        work = UnitOfWork("escrow", session, escrow.ring, simulation.now)
        await reconcile.load(work, StatementFile.open(path, day), bank, "yike")
        await work.flush()
