"""Payments that need a person: refused by the bank, or made and come back, and not made since."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, text

from services.escrow.domain import Account, Instruction, Suspense, next_try, purpose_of
from services.escrow.tables import IN_TROUBLE, AccountRow, InstructionRow, SuspenseRow
from shared.contracts.envelope import Message
from shared.contracts.errors import FieldError, Refused
from shared.contracts.escrow import ListTrouble, TroublePage, TroubleView
from shared.messaging.work import UnitOfWork

_PAGE: Final = text(f"""
SELECT order_id, lesson_no, kind FROM instructions
WHERE kind <> 'collect' AND {IN_TROUBLE}
  AND (CAST(:order_id AS uuid) IS NULL OR (order_id, lesson_no, kind) > (:order_id, :lesson_no, :kind))
ORDER BY order_id, lesson_no, kind LIMIT :most
""")
# A return begins a new turn: what was refused before the payment was made is no trouble any more.
_WHY: Final = text("""
SELECT DISTINCT ON (left(number, 29)) left(number, 29) AS purpose, outcome, reason,
  coalesce(max(received_at) FILTER (WHERE outcome = 'returned') OVER (PARTITION BY left(number, 29)),
           min(received_at) OVER (PARTITION BY left(number, 29))) AS since
FROM bank_results
WHERE verdict = 'applied' AND outcome IN ('refused', 'returned') AND left(number, 29) = ANY(CAST(:purposes AS text[]))
ORDER BY left(number, 29), received_at DESC, id DESC
""")


async def list_trouble(work: UnitOfWork, message: Message[ListTrouble]) -> None:
    """A page of them, for operators and authorities."""
    work.actor(message, "operator", "authority")
    ask = message.data
    after = purpose_of(ask.after) if ask.after else None
    if ask.after and after is None:
        raise Refused("request_invalid", errors=[FieldError(field="after", message="not a number of ours")])
    parameters = {
        "order_id": after.order_id if after else None,
        "lesson_no": after.lesson_no if after else 0,
        "kind": after.kind if after else "",
        "most": ask.limit + 1,
    }
    keys = [tuple(row) for row in await (await work.connection()).execute(_PAGE, parameters)]
    found = await work.load(InstructionRow, Instruction, keys, lock=False)
    payments = [found[key] for key in keys[: ask.limit]]
    views = await _views(work, payments)
    work.reply(message, TroublePage(payments=views, next_after=views[-1].number if len(keys) > len(views) else None))


async def _views(work: UnitOfWork, payments: Sequence[Instruction]) -> tuple[TroubleView, ...]:
    purposes = [one.number[:29] for one in payments]
    rows = await (await work.connection()).execute(_WHY, {"purposes": purposes})
    why = {row.purpose: row for row in rows}
    ids = [one.order_id for one in payments]
    accounts = await work.load(AccountRow, Account, ids, lock=False)
    money = await work.load(SuspenseRow, Suspense, ids, lock=False)
    return tuple(
        _view(one, why.get(one.number[:29]), accounts.get(one.order_id), money.get(one.order_id)) for one in payments
    )


def _view(one: Instruction, why: Row[Any] | None, account: Account | None, money: Suspense | None) -> TroubleView:
    bank = account.bank if account else money.bank if money else "unknown"
    since: datetime = why.since if why else one.changed_at
    return TroubleView(
        order_id=one.order_id if account else None,
        receipt_id=one.order_id if money else None,
        institution_id=account.institution_id if account else None,
        lesson_no=one.lesson_no,
        kind=one.kind,
        number=one.number,
        bank=bank,
        amount_fen=one.amount_fen,
        state=one.state,
        attempts=one.attempt + 1,
        returned=one.turn,
        outcome=why.outcome if why else "",
        why=why.reason if why else "",
        since=since,
        next_try_at=next_try(one),
    )
