"""`yike clock`: the one clock of a demo or test stack, moved for all services at once."""

from datetime import timedelta
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from ops.cli.base import DONE, USUAL, WRONG_CALL, CommandError, Common, age, local
from ops.cli.site import Found, clock_now
from ops.cli.when import span
from ops.stack_layout import advance_clock
from shared.clock import get_offset

app = App(name="clock", help="The one clock: PostgreSQL's time plus an offset that only a demo or test stack may have.")


@app.command
async def show(*, common: Common = USUAL) -> int:
    """Show what time it is for every service, and how far that is ahead of the real time.

    For example:

        yike clock show
    """
    await _show(Found(common), common)
    return DONE


@app.command
async def advance(by: str, *, force: Annotated[bool, Parameter(negative="")] = False, common: Common = USUAL) -> int:
    """Move the clock of all services forward: what falls due in between happens now.

    Only in a stack that has a PostgreSQL of its own (`yike up`, `yike demo`); the clock is the server's, so elsewhere
    it is other people's too. It does not go back. Tokens expire by the same clock.

    For example:

        yike clock advance 7d
        yike clock advance 1h30m

    Parameters
    ----------
    by
        How far: weeks w, days d, hours h, minutes m, seconds s, together as in 1d12h.
    force
        Also on a PostgreSQL given by YIKE_POSTGRES. Never in production.
    """
    found = Found(common)
    if not found.may_move_clock and not force:
        raise CommandError(
            "This PostgreSQL was not started for this stack: its clock may be other people's as well.",
            "If it is a test server, say --force.",
            WRONG_CALL,
        )
    by_span = span(by)
    await clock_now(found.admin_dsn)  # says so when the server is away
    await advance_clock(found.admin_dsn, by_span)
    await _show(found, common)
    return DONE


async def _show(found: Found, common: Common) -> None:
    now = await clock_now(found.admin_dsn)
    offset: timedelta = await get_offset(found.admin_dsn)
    data = {"now": now, "offset_seconds": offset.total_seconds()}

    def draw(console: Console) -> None:
        ahead = f", {age(offset.total_seconds())} ahead" if offset else ", the real time"
        console.print(f"{now:%Y}-{local(now)} in Shanghai{ahead}")

    common.show(data, draw)
