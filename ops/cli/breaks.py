"""`yike breaks`: what differs from the banks' statements. Listing reads escrow's database; saying why and agreeing are
requests over Kafka, each with its operator's own token: who asks is told by the token, not by who types."""

from typing import Annotated
from uuid import UUID

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape

from ops.cli.asking import ask_with
from ops.cli.base import DONE, FOUND, USUAL, Common, table, yuan
from ops.cli.site import Found, clock_now, connected
from ops.cli.when import day_of
from services.escrow.breaks import page_of
from shared.contracts.envelope import Request
from shared.contracts.escrow import BreakPage, BreakView, ProposeBreak, ResolveBreak

app = App(name="breaks", help="What differs between the banks' statements and our books (对账差异).")

Token = Annotated[str, Parameter(env_var="YIKE_TOKEN")]


@app.command(name="list")
async def list_(
    *,
    bank: str = "",
    day: str = "",
    after: UUID | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 100,
    common: Common = USUAL,
) -> int:
    """List the breaks that nobody has resolved, oldest first, with their age in working days. Exits with 1 if any.

    For example:

        yike breaks list
        yike breaks list --bank icbc --day 2026-11-23 --json

    Parameters
    ----------
    bank
        Only this bank's.
    day
        Only those of the statement of this day.
    after
        Go on after this break.
    limit
        At most so many.
    """
    found = Found(common)
    now = await clock_now(found.admin_dsn)
    async with connected(found.dsn("escrow")) as connection:
        page = await page_of(connection, now, bank, day_of(day) if day else None, after, limit)
    common.show(page.model_dump(mode="json"), lambda console: draw(console, page))
    return FOUND if page.breaks else DONE


@app.command
async def propose(break_id: UUID, *, reason: str, token: Token, common: Common = USUAL) -> int:
    """Say why a break may be laid to rest. Another operator must agree.

    For example:

        yike breaks propose 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11 --reason "bank's fee" --token $(yike token operator li)

    Parameters
    ----------
    break_id
        Id of the break.
    reason
        Why.
    token
        Token of the operator who says so.
    """
    return await _ask(ProposeBreak(break_id=break_id, reason=reason), token, common)


@app.command
async def resolve(break_id: UUID, *, token: Token, common: Common = USUAL) -> int:
    """Agree to what another operator has said of a break: it is resolved.

    For example:

        yike breaks resolve 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11 --token $(yike token operator wang)

    Parameters
    ----------
    break_id
        Id of the break.
    token
        Token of the operator who agrees.
    """
    return await _ask(ResolveBreak(break_id=break_id), token, common)


async def _ask(request: Request, token: str, common: Common) -> int:
    answer = await ask_with(Found(common), token, request, BreakView)
    one = answer.found
    words = f"{one.type} of {one.day} is {one.state}: {escape(one.reason)}"
    common.show(one.model_dump(mode="json"), lambda console: console.print(words))
    return DONE


def draw(console: Console, page: BreakPage) -> None:
    """A page of breaks, for a person."""
    if not page.breaks:
        console.print("[green]No breaks.[/green]")
        return
    columns = ("break", "day", "bank", "type", "number", "reference", "ours", "theirs", "age", "state", "note")
    heading = f"{len(page.breaks)} breaks{', and more' if page.next_after else ''}"
    lines = table(heading, *columns, right=["ours", "theirs", "age"])
    for one in page.breaks:
        age = f"[red]{one.age_working_days} wd[/red]" if one.overdue else f"{one.age_working_days} wd"
        what = (str(one.break_id), f"{one.day:%m-%d}", one.bank, one.type, escape(one.number), escape(one.reference))
        note = escape(f"{one.note} {one.reason}".strip())
        lines.add_row(*what, yuan(one.ours_fen), yuan(one.theirs_fen), age, one.state, note)
    console.print(lines)
