"""Whether tables agree with the models of banks, invoices and breaks; see `agreement.py`."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from tests.simulation.model_banks import BANKS, Banks, account_of
from tests.simulation.model_breaks import Breaks, Key
from tests.simulation.model_invoices import Invoices
from tests.simulation.model_money import Escrow
from tests.simulation.simulation import Simulation

Agree = Callable[[dict[Any, Any], dict[Any, Any]], None]

_NAMED: Final = """
SELECT institution_id::text, account, disclosure->'account' AS disclosed FROM institutions WHERE institution_id = $1
"""
_MOVES: Final = """
SELECT disclosure->'account' AS account FROM institution_changes WHERE disclosure IS NOT NULL AND change_no > 2
ORDER BY change_no
"""
_SOLD_AT: Final = "SELECT order_id::text, account FROM reservations WHERE course_id IS NOT NULL"
_INVOICES: Final = """
SELECT invoice_id::text, order_id::text, number, lessons::text, amount_fen, state, issued_at, red_number, red_reason,
  red_at FROM invoices
"""
_COVERED: Final = "SELECT order_id::text, lesson_no, invoice_id::text FROM invoice_lessons"
_NUMBERS: Final = "SELECT institution_id::text, number, invoice_id::text FROM invoice_numbers"
_STATEMENTS: Final = """
SELECT bank, day, form, lines, opening_fen, closing_fen, ours_fen,
  (SELECT count(*)::int FROM statement_lines l WHERE l.statement_id = s.statement_id) AS kept
FROM statements s WHERE state = 'closed'
"""
_LINES_OF_OTHERS: Final = """
SELECT statement_id FROM statement_lines JOIN statements USING (statement_id) WHERE state <> 'closed'
"""
_BREAKS: Final = """
SELECT break_id::text, bank, day, type, number, reference, ours_fen, theirs_fen, first_seen, state,
  CASE WHEN state = 'closed' THEN '' ELSE reason END AS reason, proposed_by, resolved_by FROM breaks
"""
_BALANCES: Final = "SELECT bank, account, balance_fen FROM accounts WHERE balance_fen <> 0"


async def check_banks(simulation: Simulation, model: Banks, agree: Agree) -> None:
    """What the institution has disclosed, now and before, and where each order that has a seat is to be paid."""
    rows = await simulation.rows("catalog", _NAMED, UUID(model.institution))
    found = {row["institution_id"]: (_read(row["account"]), _read(row["disclosed"])) for row in rows}
    agree(found, {model.institution: (account_of(model.disclosed),) * 2})
    moves = [_read(row["account"]) for row in await simulation.rows("catalog", _MOVES)]
    agree(dict(enumerate(moves)), dict(enumerate(map(account_of, model.moves))))
    sold = {row["order_id"]: _read(row["account"]) for row in await simulation.rows("catalog", _SOLD_AT)}
    agree(sold, {order: account_of(place) for order, place in model.places.items()})


def _read(account: Any) -> Any:
    return json.loads(account) if isinstance(account, str) else account


async def check_invoices(simulation: Simulation, model: Invoices, agree: Agree) -> None:
    """Invoices, the lessons that have one, and the numbers that were used."""
    found = {row["invoice_id"]: tuple(row)[1:] for row in await simulation.rows("orders", _INVOICES)}
    told = {
        id_: (one.order, one.number, str(list(one.lessons)), one.amount, one.state, one.issued_at, *one.red, one.red_at)
        for id_, one in model.invoices.items()
    }
    agree(found, told)
    found = {tuple(row)[:2]: row["invoice_id"] for row in await simulation.rows("orders", _COVERED)}
    orders = {one.order for one in model.invoices.values()}
    agree(found, {(order, number): id_ for order in orders for number, id_ in model.covered(order).items()})
    found = {tuple(row)[:2]: row["invoice_id"] for row in await simulation.rows("orders", _NUMBERS)}
    agree(found, model.numbers)


async def check_breaks(simulation: Simulation, model: Breaks, agree: Agree) -> None:
    """Statements, of which only the last of a day stands, and breaks; the model learns how escrow names these."""
    if not model.statements:
        return
    found: dict[Any, Any]
    found = {tuple(row)[:2]: tuple(row)[2:] for row in await simulation.rows("escrow", _STATEMENTS)}
    told = {
        of: (BANKS[of[0]][1], len(one.lines), one.opening, one.closing, model.held[of], len(one.lines))
        for of, one in model.statements.items()
    }
    agree(found, told)
    assert not await simulation.rows("escrow", _LINES_OF_OTHERS)
    rows = [tuple(row) for row in await simulation.rows("escrow", _BREAKS)]
    breaks = {
        key: (one.first_seen, one.state, "" if one.state == "closed" else one.reason, one.proposed_by, one.resolved_by)
        for key, one in model.breaks.items()
    }
    agree({Key(*row[1:8]): row[8:] for row in rows}, breaks)
    model.ids = {row[0]: Key(*row[1:8]) for row in rows}


async def check_custody(simulation: Simulation, model: Escrow, agree: Agree) -> None:
    """At the end, account by account at each bank: what the model says is there, without a look at escrow's tables."""
    should: Counter[tuple[str, str]] = Counter()
    for (order, number), gathered in model.settlements.gathered.items():
        assert gathered.settlement is not None, f"lesson {number} of {order} was never paid out"
    for settlement in model.settlements.settlements.values():
        should[settlement.bank, settlement.to or ""] += settlement.amount
    for order, account in model.accounts.items():
        _, held, releasing, _, refunding, _ = account.balances()
        should[account.bank, account.supervised] += held + releasing + refunding
        for (kind, number), payment in account.payments.items():
            alone = kind == "payout" and (order, number) not in model.settlements.gathered
            if alone and payment.state == "paid":
                should[account.bank, payment.to or account.payout_account] += payment.amount
    found = {(row["bank"], row["account"]): row["balance_fen"] for row in await simulation.rows("bank", _BALANCES)}
    agree(found, dict(+should))
