"""`yike bank`: the stand-in that plays the banks in demos and tests. What it shall do wrong, and what it has done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape

from ops.bank import desk, statements
from ops.bank.behaviour import Name
from ops.cli.base import DONE, FOUND, NO_STACK, USUAL, WRONG_CALL, CommandError, Common, local, table, yuan
from ops.cli.site import Found, clock_now, rows
from ops.cli.when import day_of, moment, span
from shared.contracts.bank import InstructionKind

app = App(
    name="bank",
    help="The stand-in that plays all supervising banks: tell it what to do wrong, read what it has done.",
)

_ACTIVE: Final = """
SELECT id, name, kind, order_id, number_prefix, percentage, times_left, seconds, delta_fen, reason FROM behaviours
WHERE times_left IS NULL OR times_left > 0 ORDER BY id
"""
Fen = Annotated[int, Parameter(validator=Number(gte=1))]


@app.command
async def tell(
    behaviour: Name,
    *,
    kind: InstructionKind | None = None,
    order: UUID | None = None,
    number: str = "",
    times: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    always: Annotated[bool, Parameter(negative="")] = False,
    percent: Annotated[int, Parameter(validator=Number(gte=1, lte=100))] = 100,
    after: str = "0s",
    by_fen: int = 0,
    reason: str = "",
    common: Common = USUAL,
) -> int:
    """Tell the bank how to meet the next instructions.

    slow answers late; refuse refuses; unknown does it and says it does not know; silent does it and says nothing;
    repeat says the result twice; pay_twice pays twice; wrong_amount collects another amount; accept_first accepts now
    and pays later; return_after gives back what it has paid (退票).

    For example:

        yike bank tell refuse --kind payout --reason account_closed
        yike bank tell silent --order 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11 --times 3
        yike bank tell slow --after 30s --always --percent 10
        yike bank tell wrong_amount --kind collect --by-fen -100

    Parameters
    ----------
    behaviour
        What to do.
    kind
        Only instructions of this kind.
    order
        Only instructions for this order.
    number
        Only instructions whose number begins so.
    times
        To how many instructions.
    always
        To all of them, until `yike bank clear`.
    percent
        To so many in a hundred of those that fit.
    after
        For slow, accept_first and return_after: how much later, such as 30s or 2d.
    by_fen
        For wrong_amount: how many fen more (or, negative, less).
    reason
        For refuse: the bank's word.
    """
    found = Found(common)
    try:
        id_ = await desk.set_behaviour(
            found.dsn("bank"),
            behaviour,
            kind=kind,
            order_id=order,
            number_prefix=number,
            percentage=percent,
            times=None if always else times,
            seconds=span(after).total_seconds(),
            delta_fen=by_fen,
            reason=reason,
        )
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.UndefinedTableError) as error:
        raise _unreachable(error) from None
    except asyncpg.PostgresError as error:
        raise CommandError(f"The bank cannot do that: {error}", status=WRONG_CALL) from None
    common.show(
        {"behaviour_id": id_, "behaviour": behaviour}, lambda console: console.print(f"Told: {behaviour} ({id_})")
    )
    return DONE


@app.command
async def behaviours(*, common: Common = USUAL) -> int:
    """Show what the bank is told and has not used up."""
    active = [dict(row) for row in await rows(Found(common).dsn("bank"), _ACTIVE)]
    common.show(active, lambda console: _draw_behaviours(console, active))
    return DONE


@app.command
async def clear(*, order: UUID | None = None, common: Common = USUAL) -> int:
    """Make the bank behave again. What it has put off still comes.

    Parameters
    ----------
    order
        Only what was told for this order.
    """
    try:
        await desk.clear_behaviours(Found(common).dsn("bank"), order)
    except (OSError, asyncpg.PostgresError) as error:
        raise _unreachable(error) from None
    common.show({"cleared": True}, lambda console: console.print("The bank behaves."))
    return DONE


@app.command
async def statement(
    day: str = "",
    *,
    form: statements.Form = "csv",
    out: Path | None = None,
    bank: str = "",
    since: str = "",
    until: str = "",
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 200,
    common: Common = USUAL,
) -> int:
    """Show the bank's own statement (对账单): balances, and the entries of a time, oldest first. Or write one day's.

    Exits with 1 if a balance is not the sum of its entries.

    For example:

        yike bank statement
        yike bank statement 2026-11-23 --form camt053 --out statement.xml
        yike bank statement --bank icbc --since 1d --json

    Parameters
    ----------
    day
        Write the statement of this day of Shanghai as a file, as a bank sends it in the morning: with --out.
    form
        csv or camt053 (ISO 20022, version 001.08).
    out
        The file to write.
    bank
        Only this bank; of a file icbc, if none is named.
    since
        From this moment (ISO 8601 or a span back from now); else from the beginning.
    until
        To this moment, exclusive; else to the end.
    limit
        At most so many entries.
    """
    found = Found(common)
    if day or out:
        return await _write_statement(found, day, form, out, bank or "icbc", common)
    now = await clock_now(found.admin_dsn)
    first, last = (moment(typed, now) if typed else None for typed in (since, until))
    try:
        read = await desk.statement(found.dsn("bank"), bank=bank, since=first, until=last, limit=limit)
        wrong = await desk.out_of_balance(found.dsn("bank"))
    except (OSError, asyncpg.PostgresError) as error:
        raise _unreachable(error) from None
    data = {"balances": read.balances, "entries": read.entries, "more": bool(read.next_after), "out_of_balance": wrong}
    common.show(data, lambda console: _draw_statement(console, read, wrong))
    return FOUND if wrong else DONE


@app.command
async def deposit(
    bank: str,
    account: str,
    fen: Fen,
    *,
    number: str = "",
    order: UUID | None = None,
    common: Common = USUAL,
) -> int:
    """Let money come in that nobody has asked for. It must end in suspense, never in an order.

    For example:

        yike bank deposit icbc SUPERVISED-1 5000

    Parameters
    ----------
    bank
        Code of the bank.
    account
        Number of the supervised account.
    fen
        How much.
    number
        The number it is said to be for: a known one makes it a second or a late payment. Else nobody's.
    order
        The order it is said to be for.
    """
    try:
        result = await desk.unsolicited(
            Found(common).dsn("bank"),
            bank=bank,
            supervised_account=account,
            amount_fen=fen,
            number=number,
            order_id=order,
        )
    except OSError as error:
        raise _unreachable(error) from None
    data = result.model_dump(mode="json")
    common.show(data, lambda console: console.print(f"{yuan(fen)} came in, reference {result.reference}"))
    return DONE


async def _write_statement(
    found: Found, typed: str, form: statements.Form, out: Path | None, bank: str, common: Common
) -> int:
    if not typed or out is None:
        raise CommandError("A statement is written of a day into a file.", "Name both: DATE --out FILE.", WRONG_CALL)
    day = day_of(typed)
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            lines = await statements.write(found.dsn("bank"), bank, day, form, file)
    except (OSError, asyncpg.PostgresError) as error:
        raise _unreachable(error) from None
    data = {"bank": bank, "day": day.isoformat(), "form": form, "file": str(out), "lines": lines}
    common.show(data, lambda console: console.print(f"{lines} lines of {bank} on {day} are in {escape(str(out))}"))
    return DONE


def _unreachable(error: Exception) -> CommandError:
    return CommandError(f"The bank's book cannot be opened: {error}", "Is the stack up? `yike up` starts it.", NO_STACK)


def _draw_behaviours(console: Console, active: Sequence[dict[str, Any]]) -> None:
    if not active:
        console.print("The bank behaves.")
        return
    lines = table("The bank is told", "behaviour", "kind", "order", "percent", "times left", "more", right=["percent"])
    for row in active:
        more = ", ".join(
            f"{name} {row[name]}" for name in ("number_prefix", "seconds", "delta_fen", "reason") if row[name]
        )
        times = "always" if row["times_left"] is None else str(row["times_left"])
        order = str(row["order_id"] or "any")
        lines.add_row(row["name"], row["kind"] or "any", order, str(row["percentage"]), times, escape(more))
    console.print(lines)


def _draw_statement(console: Console, read: desk.Statement, wrong: Sequence[str]) -> None:
    balances = table("Balances", "bank", "account", "balance", right=["balance"])
    for account in read.balances:
        balances.add_row(account.bank, escape(account.account), yuan(account.balance_fen))
    console.print(balances)
    columns = ("time", "bank", "number", "kind", "outcome", "amount", "reason")
    lines = table(f"{len(read.entries)} entries{', and more' if read.next_after else ''}", *columns, right=["amount"])
    for entry in read.entries:
        said = (local(entry.happened_at), entry.bank, escape(entry.number), entry.kind, entry.outcome)
        lines.add_row(*said, yuan(entry.amount_fen), escape(entry.reason))
    console.print(lines)
    for line in wrong:
        console.print(f"[red]out of balance: {line}[/red]")
