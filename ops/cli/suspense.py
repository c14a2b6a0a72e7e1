"""`yike suspense` and `yike trouble`: money and payments that need a person."""

from typing import Annotated, Any, Final
from uuid import UUID

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape

from ops.cli.asking import Reason, ask
from ops.cli.base import DONE, USUAL, Common, age, local, table, yuan
from ops.cli.site import Found
from shared.contracts.escrow import (
    ListSuspense,
    ListTrouble,
    MatchSuspense,
    ReturnSuspense,
    SuspensePage,
    SuspenseView,
    TroublePage,
    TroubleView,
)

app = App(
    name="suspense",
    help="Money that came and belongs nowhere (挂账): list it, match it with its order, send it back.",
)

PAGE: Final = 100

Limit = Annotated[int, Parameter(validator=Number(gte=1))]
By = Annotated[str, Parameter(env_var="YIKE_OPERATOR")]


@app.command(name="list")
async def list_(
    *, all_: Annotated[bool, Parameter(name="--all", negative="")] = False, limit: Limit = 100, common: Common = USUAL
) -> int:
    """List money in suspense, oldest first, with its age and deadline.

    It came late, twice (double), in another amount (short, over), for an unknown number or a dead order, or to another
    bank or account than the order's (foreign). Match it or return it, each with a reason, before its deadline.

    For example:

        yike suspense list
        yike suspense list --all --json

    Parameters
    ----------
    all_
        Also what was matched, was returned, or is on its way back.
    limit
        At most so many.
    """
    found = Found(common)
    receipts: list[SuspenseView] = []
    after: UUID | None = None
    while len(receipts) < limit:
        size = min(PAGE, limit - len(receipts))
        page = await ask(found, ListSuspense(all_states=all_, limit=size, after=after), SuspensePage)
        receipts += page.receipts
        after = page.next_after
        if after is None:
            break
    data = {"receipts": [one.model_dump(mode="json") for one in receipts], "more": after is not None}
    common.show(data, lambda console: _draw_receipts(console, receipts, more=after is not None))
    return DONE


@app.command(name="match")
async def match(receipt: UUID, order: UUID, reason: Reason, *, by: By = "", common: Common = USUAL) -> int:
    """Match money in suspense with the order it was for: the order is held, as if the payment had come as asked.

    Only an order that is not paid, at the same bank and account, and exactly its price. A purchase that still waits
    goes on; one that has ended sends the money back the way it came. Said twice, it is done once.

    For example:

        yike suspense match RECEIPT ORDER "the guardian showed the transfer slip"

    Parameters
    ----------
    receipt
        Id of the receipt, as `yike suspense list` shows it.
    order
        Id of the order.
    reason
        Why; it is kept with your name.
    by
        Your name, if it is not that of your account on this machine.
    """
    request = MatchSuspense(receipt_id=receipt, order_id=order, reason=reason)
    return _decided(common, await ask(Found(common), request, SuspenseView, by))


@app.command(name="return")
async def return_(receipt: UUID, reason: Reason, *, by: By = "", common: Common = USUAL) -> int:
    """Send money in suspense back to where it came from.

    The bank is told, and asked again until it has said that it is done; `yike suspense list --all` shows it. Money that
    comes back once more is open again. Said twice, it is done once.

    For example:

        yike suspense return RECEIPT "paid twice, the guardian asked for it"

    Parameters
    ----------
    receipt
        Id of the receipt, as `yike suspense list` shows it.
    reason
        Why; it is kept with your name.
    by
        Your name, if it is not that of your account on this machine.
    """
    request = ReturnSuspense(receipt_id=receipt, reason=reason)
    return _decided(common, await ask(Found(common), request, SuspenseView, by))


def _decided(common: Common, view: SuspenseView) -> int:
    where = f" with order {view.matched_order_id}" if view.matched_order_id else ""
    number = f", number {view.return_number}" if view.return_number else ""
    common.show(
        view.model_dump(mode="json"),
        lambda console: console.print(f"{yuan(view.amount_fen)}: {view.state}{where}{number}"),
    )
    return DONE


async def trouble(*, limit: Limit = 100, common: Common = USUAL) -> int:
    """List payouts, refunds and returns that the bank refused or that came back (退票), and that are not paid yet.

    Each is tried again by itself under a new number, later and later; the bank's reason says what a person must mend:
    an account that was closed, a wrong name. Without a next try, only a person can do anything.

    For example:

        yike trouble
        yike trouble --json

    Parameters
    ----------
    limit
        At most so many.
    """
    found = Found(common)
    payments: list[TroubleView] = []
    after: str | None = None
    while len(payments) < limit:
        page = await ask(found, ListTrouble(limit=min(PAGE, limit - len(payments)), after=after), TroublePage)
        payments += page.payments
        after = page.next_after
        if after is None:
            break
    data = {"payments": [one.model_dump(mode="json") for one in payments], "more": after is not None}
    common.show(data, lambda console: _draw_payments(console, payments, more=after is not None))
    return DONE


def _draw_receipts(console: Console, receipts: list[SuspenseView], *, more: bool) -> None:
    if not receipts:
        console.print("[green]No money is in suspense.[/green]")
        return
    columns = ("booked", "age", "deadline", "why", "amount", "bank", "state", "receipt", "for")
    lines = table(f"{len(receipts)} receipts{', and more' if more else ''}", *columns, right=["age", "amount"])
    for one in receipts:
        deadline = f"[red]{local(one.due_at)}[/red]" if one.overdue else local(one.due_at)
        when = (local(one.booked_at), age(one.age_seconds), deadline)
        whose = one.matched_order_id or one.order_id or escape(one.number)
        lines.add_row(*when, one.reason, yuan(one.amount_fen), one.bank, one.state, str(one.receipt_id), str(whose))
    console.print(lines)


def _draw_payments(console: Console, payments: list[TroubleView], *, more: bool) -> None:
    if not payments:
        console.print("[green]No payment is in trouble.[/green]")
        return
    columns = ("since", "kind", "amount", "bank", "tries", "last", "why", "next try", "order or receipt", "lesson")
    lines = table(f"{len(payments)} payments{', and more' if more else ''}", *columns, right=["amount", "tries"])
    for one in payments:
        what: tuple[Any, ...] = (one.kind, yuan(one.amount_fen), one.bank, str(one.attempts), one.outcome)
        next_try = local(one.next_try_at) if one.next_try_at else "[red]never[/red]"
        whose = str(one.order_id or one.receipt_id or "")
        lines.add_row(local(one.since), *what, escape(one.why), next_try, whose, str(one.lesson_no or ""))
    console.print(lines)
