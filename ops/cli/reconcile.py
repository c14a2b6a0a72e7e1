"""`yike reconcile`: a bank's statement of a day, loaded into escrow's database and compared, all in one transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ops.cli.base import DONE, FOUND, NO_STACK, USUAL, WRONG_CALL, CommandError, Common, console, error_console, yuan
from ops.cli.breaks import draw
from ops.cli.site import Found, connected
from ops.cli.when import day_of
from services.escrow import breaks
from services.escrow import reconcile as escrow
from services.escrow.statements import BadStatement, Form, StatementFile
from shared.clock import now
from shared.contracts.escrow import BreakPage, ReconciliationView
from shared.database import Database, is_passing
from shared.keys import KeyRing
from shared.messaging.work import UnitOfWork

_NO_KEYS: Final = KeyRing("escrow", None, MappingProxyType({}), MappingProxyType({}), MappingProxyType({}), None, None)
"""Nobody's token is verified here: who has the database's DSN is the operator."""
MOST_SHOWN: Final = 50


async def reconcile(
    day: str,
    *,
    file: Path,
    bank: str = "icbc",
    form: Form | None = None,
    common: Common = USUAL,
) -> int:
    """Compare a bank's statement of a day (对账单) with what it was told, what it said, and the ledger.

    The file is loaded as a whole or not at all; the same file again changes nothing, a corrected one replaces it.
    Exits with 1 if there are breaks that nobody has resolved, with 0 if there are none, and says which.

    For example:

        yike reconcile 2026-11-23 --file icbc-20261123.csv
        yike reconcile 2026-11-23 --file statement.xml --bank ccb --json

    Parameters
    ----------
    day
        The day of Shanghai that the statement is of.
    file
        CSV (UTF-8 or GB18030) or camt.053.
    bank
        Code of the bank.
    form
        csv or camt053; else it is told from the file.
    """
    found = Found(common)
    wanted = day_of(day)
    dsn = found.dsn("escrow")
    async with connected(dsn):
        pass  # says in words when there is none
    try:
        statement = StatementFile.open(file, wanted, form)
        view, page = await run(dsn, statement, bank, common)
    except BadStatement as error:
        hint = "Nothing was loaded. services/escrow/statements.py says what a statement looks like."
        raise CommandError(f"{file}: {error}", hint, WRONG_CALL) from None
    except FileNotFoundError:
        raise CommandError(f"There is no file {file}.", status=WRONG_CALL) from None
    except Exception as error:
        if not is_passing(error):
            raise
        raise CommandError(f"Escrow's database does not go along: {error}", "Nothing was loaded.", NO_STACK) from None
    data: dict[str, Any] = view.model_dump(mode="json") | {"shown": page.model_dump(mode="json")["breaks"]}
    common.show(data, lambda console: _draw(console, view, page))
    return DONE if view.no_breaks else FOUND


async def run(dsn: str, statement: StatementFile, bank: str, common: Common) -> tuple[ReconciliationView, BreakPage]:
    """Loads a file and compares it, in one transaction, with a bar; how the day stands, and its first breaks."""
    database = Database(dsn, pool_size=1)
    try:
        with _bar(statement, error_console if common.json else console):
            async with database.session() as session, session.begin():
                work = UnitOfWork("escrow", session, _NO_KEYS, await now(session))
                view = await escrow.load(work, statement, bank, "yike")
                connection = await escrow.connection_of(work)
                page = await breaks.page_of(connection, work.now, bank, statement.day, None, MOST_SHOWN)
                await work.flush()
        return view, page
    finally:
        await database.close()


@contextmanager
def _bar(statement: StatementFile, console: Console) -> Iterator[None]:
    """How much of the file is read, and that it is being compared."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        reading = bars.add_task("reading", total=statement.size)
        comparing: list[TaskID] = []

        def told(read: int) -> None:
            bars.update(reading, completed=read)
            if read >= statement.size and not comparing:
                comparing.append(bars.add_task("comparing", total=None))

        statement.told = told
        yield


def _draw(console: Console, view: ReconciliationView, page: BreakPage) -> None:
    moved = f"in {yuan(view.in_fen)}, out {yuan(view.out_fen)}"
    balances = f"from {yuan(view.opening_fen)} to {yuan(view.closing_fen)}; by our books {yuan(view.ours_fen)}"
    console.print(f"[bold]{view.bank} {view.day}[/bold]  {view.lines} lines, {moved}, {balances}")
    if view.resolved:
        console.print(f"{view.resolved} breaks were resolved")
    if view.no_breaks:
        console.print("[green]No breaks: statement, instructions and ledger agree.[/green]")
        return
    counts = ", ".join(f"{count} {type_}" for type_, count in view.breaks.items())
    console.print(f"[red]{sum(view.breaks.values())} breaks:[/red] {counts}")
    draw(console, page)
