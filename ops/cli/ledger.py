"""`yike ledger`: whether the books are right, and what one order's books say. Read only, from escrow's database."""

from typing import Any, Final
from uuid import UUID

from cyclopts import App
from rich.console import Console

from ops.cli.base import DONE, FOUND, NOT_FOUND, USUAL, CommandError, Common, local, table, yuan
from ops.cli.site import Found, connected, rows
from services.escrow import audit

app = App(name="ledger", help="The books of escrow: every fen of every order, proved from the transfers alone.")

_ACCOUNT: Final = "SELECT * FROM accounts WHERE order_id = $1"
_TRANSFERS: Final = "SELECT * FROM transfers WHERE order_id = $1 ORDER BY made_at, lesson_no, turn, phase"
_INSTRUCTIONS: Final = "SELECT * FROM instructions WHERE order_id = $1 ORDER BY changed_at, lesson_no"
BALANCES: Final = ("paid_fen", "held_fen", "releasing_fen", "released_fen", "refunding_fen", "refunded_fen")


@app.command
async def check(*, common: Common = USUAL) -> int:
    """Prove the books: from nothing but the transfers, on one snapshot, while the services run.

    Stored balances are the sums of transfers; of every order paid = held + releasing + released + refunding +
    refunded; no lesson is released twice; every payment is booked. Exits with 1 if anything is wrong.

    For example:

        yike ledger check
        yike ledger check --json
    """
    dsn = Found(common).dsn("escrow")
    async with connected(dsn):
        with common.counting("proofs", len(audit.CHECKS)) as done:
            report = await audit.check(dsn, done)
    common.show(report, lambda console: _draw_report(console, report))
    return DONE if report.good else FOUND


@app.command
async def show(order: UUID, *, common: Common = USUAL) -> int:
    """Show the books of one order: its balances, every transfer, every instruction to the bank.

    For example:

        yike ledger show 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11

    Parameters
    ----------
    order
        Id of the order.
    """
    dsn = Found(common).dsn("escrow")
    account = await rows(dsn, _ACCOUNT, order)
    if not account:
        raise CommandError(
            f"Escrow has no account of order {order}.", "It has one from the moment of payment.", NOT_FOUND
        )
    data: dict[str, Any] = {
        "account": dict(account[0]),
        "transfers": [dict(row) for row in await rows(dsn, _TRANSFERS, order)],
        "instructions": [dict(row) for row in await rows(dsn, _INSTRUCTIONS, order)],
    }
    common.show(data, lambda console: _draw_order(console, data))
    return DONE


def _draw_report(console: Console, report: audit.AuditReport) -> None:
    console.print(
        f"{report.orders} orders, {report.transfers} transfers that moved {yuan(report.moved_fen)}; "
        f"paid {yuan(report.paid_fen)}, in custody {yuan(report.custody_fen)}, in suspense {yuan(report.suspense_fen)}"
    )
    for name in report.checks:
        places = report.violations.get(name)
        console.print(f"[red]✗[/red] {name}" if places else f"[green]✓[/green] {name}")
        for place in places or ():
            console.print(f"    [red]{place}[/red]")
    if report.good:
        console.print("[green]The books are right.[/green]")
    else:
        console.print(
            f"[red]{len(report.violations)} of {len(report.checks)} proofs fail.[/red] Stop payouts, then look."
        )


def _draw_order(console: Console, data: dict[str, Any]) -> None:
    account = data["account"]
    console.print(f"[bold]Order {account['order_id']}[/bold]  {account['state']} {account.get('reason', '')}")
    equation = "  ".join(f"{name.removesuffix('_fen')} {yuan(account[name])}" for name in BALANCES)
    console.print(f"  {equation}  of {yuan(account['price_fen'])} for {account['lessons']} lessons")
    if account.get("suspensions"):
        console.print("  [yellow]releases are held by a complaint[/yellow]")
    lines = table("Transfers", "time", "kind", "lesson", "phase", "from", "to", "amount", right=["lesson", "amount"])
    for row in data["transfers"]:
        phase = {1: "pending", 2: "final"}.get(row["phase"], str(row["phase"]))
        made = (local(row["made_at"]), row["kind"], str(row["lesson_no"] or ""), phase)
        lines.add_row(*made, row["debit"], row["credit"], yuan(row["amount_fen"]))
    console.print(lines)
    lines = table(
        "Instructions to the bank", "changed", "kind", "lesson", "attempt", "state", "amount", right=["amount"]
    )
    for row in data["instructions"]:
        changed = (local(row["changed_at"]), row["kind"], str(row["lesson_no"] or ""), str(row["attempt"]))
        lines.add_row(*changed, row["state"], yuan(row["amount_fen"]))
    console.print(lines)
