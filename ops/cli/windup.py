"""`yike windup`: an institution is closed or gone; every unconsumed lesson of all its orders goes back."""

import asyncio
from typing import Annotated, Final
from uuid import UUID

from cyclopts import App, Parameter

from ops.cli.asking import Reason, ask
from ops.cli.base import DONE, USUAL, Common, yuan
from ops.cli.site import Found
from shared.contracts.orders import PlanWindUp, ShowWindUp, StartWindUp, WindUpView

app = App(
    name="windup", help="An institution is closed or gone (卷款跑路): refund all its orders, with a dry run first."
)

LOOK_S: Final = 0.5
By = Annotated[str, Parameter(env_var="YIKE_AUTHORITY")]
"""The authority whose decision it is."""


@app.command
async def plan(institution: UUID, *, by: By, common: Common = USUAL) -> int:
    """Show what winding an institution up would refund now; nothing is changed.

    For example:

        yike windup plan INSTITUTION --by changzhou-edu

    Parameters
    ----------
    institution
        Its id.
    by
        The authority's name, as its tokens have it.
    """
    view = await ask(Found(common), PlanWindUp(institution_id=institution), WindUpView, by, role="authority")
    return _shown(common, view)


@app.command
async def start(institution: UUID, reason: Reason, *, by: By, yes: bool = False, common: Common = USUAL) -> int:
    """Refund every unconsumed lesson of all orders of an institution, and end its purchases that are not paid yet.

    The authority's decision. Some orders at a time; it goes on by itself, whatever crashes, also when this command is
    ended: say it again to watch. Once finished, said again it looks at every order once more and refunds what has
    become refundable since; nothing is refunded twice.

    For example:

        yike windup start INSTITUTION "人去楼空，已立案" --by changzhou-edu

    Parameters
    ----------
    institution
        Its id.
    reason
        Why; it is kept with the decision, and each family reads it.
    by
        The authority's name, as its tokens have it.
    yes
        Do not ask whether it is meant.
    """
    found = Found(common)
    planned = await ask(found, PlanWindUp(institution_id=institution), WindUpView, by, role="authority")
    common.confirm(f"Refund {planned.orders} orders, {yuan(planned.refund_fen)}?", yes=yes)
    request = StartWindUp(institution_id=institution, reason=reason)
    view = await ask(found, request, WindUpView, by, role="authority")
    with common.counting("orders refunded", max(view.orders, 1)) as done:
        while view.finished_at is None:
            await asyncio.sleep(LOOK_S)
            view = await ask(found, ShowWindUp(institution_id=institution), WindUpView, by, role="authority")
            done(view.done_orders)
    return _shown(common, view)


@app.command
async def show(institution: UUID, *, by: By, common: Common = USUAL) -> int:
    """Show how far the last winding up of an institution is.

    Parameters
    ----------
    institution
        Its id.
    by
        The authority's name, as its tokens have it.
    """
    view = await ask(Found(common), ShowWindUp(institution_id=institution), WindUpView, by, role="authority")
    return _shown(common, view)


def _shown(common: Common, view: WindUpView) -> int:
    waiting = f"; {view.pending} lessons wait for their own answer" if view.pending else ""
    unpaid = f"; {view.given_up} purchases that are not paid are given up" if view.given_up else ""
    if view.started_at is None:
        head = "To be refunded:"
    elif view.finished_at is None:
        head = f"Under way, {view.done_orders} orders with {yuan(view.done_fen)} done, of:"
    else:
        head = f"Finished: {view.done_orders} orders with {yuan(view.done_fen)} are with the bank, of:"
    words = f"{head} {view.orders} orders, {view.lessons} lessons, {yuan(view.refund_fen)}{waiting}{unpaid}"
    common.show(view.model_dump(mode="json"), lambda console: console.print(words))
    return DONE
