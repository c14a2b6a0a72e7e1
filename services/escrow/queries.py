"""What gateways may ask of escrow."""

from typing import Final

from services.escrow.domain import Account, Instruction
from services.escrow.tables import AccountRow, InstructionRow
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import (
    AccountView,
    EscrowTotals,
    InstitutionMoney,
    LessonMoney,
    ListEscrowTotals,
    ShowAccount,
)
from shared.institutions import sums_by_institution
from shared.messaging.work import UnitOfWork


async def show_account(work: UnitOfWork, message: Message[ShowAccount]) -> None:
    """The order's account, for its guardian, its institution, an authority or an operator; nobody else learns of it."""
    actor = work.actor(message, "guardian", "institution", "authority", "operator")
    order_id = message.data.order_id
    account = (await work.load(AccountRow, Account, [order_id], lock=False)).get(order_id)
    if account is None or not actor.may_see(guardian=account.account_id, institution=account.institution_id):
        raise Refused("order_unknown")
    instructions = await work.load_all(InstructionRow, Instruction, [order_id], by=("order_id",), lock=False)
    work.reply(
        message,
        AccountView(
            order_id=order_id,
            state=account.state,
            paid_fen=account.paid_fen,
            held_fen=account.held_fen,
            releasing_fen=account.releasing_fen,
            released_fen=account.released_fen,
            refunding_fen=account.refunding_fen,
            refunded_fen=account.refunded_fen,
            suspended=account.suspensions > 0,
            lessons=tuple(
                LessonMoney(
                    lesson_no=one.lesson_no,
                    amount_fen=one.amount_fen,
                    state="waiting" if one.state == "waiting" else "released" if one.state == "paid" else "releasing",
                )
                for one in instructions
                if one.kind == "payout"
            ),
        ),
    )


# Sums over the accounts of an index, in one statement, so of one moment. What waits is found by the index of what
# waits, whoever it waits for: there is little of it.
_BY_INSTITUTION: Final = """
SELECT i.district, i.institution_id, s.*, coalesce(w.waiting_fen, 0) AS waiting_fen FROM pairs i
CROSS JOIN LATERAL (
  SELECT count(*) AS rows,
    CAST(sum(paid_fen) AS bigint) AS paid_fen, CAST(sum(held_fen) AS bigint) AS held_fen,
    CAST(sum(releasing_fen) AS bigint) AS releasing_fen, CAST(sum(released_fen) AS bigint) AS released_fen,
    CAST(sum(refunding_fen) AS bigint) AS refunding_fen, CAST(sum(refunded_fen) AS bigint) AS refunded_fen
  FROM accounts a WHERE a.district = i.district AND a.institution_id = i.institution_id) s
LEFT JOIN (
  SELECT a.district, a.institution_id, CAST(sum(n.amount_fen) AS bigint) AS waiting_fen
  FROM instructions n JOIN accounts a ON a.order_id = n.order_id
  WHERE n.state = 'waiting' AND (a.district, a.institution_id) IN (SELECT district, institution_id FROM pairs)
  GROUP BY a.district, a.institution_id) w ON w.district = i.district AND w.institution_id = i.institution_id
ORDER BY i.district, i.institution_id
"""


async def list_totals(work: UnitOfWork, message: Message[ListEscrowTotals]) -> None:
    """The money by district and institution; for authorities and operators."""
    work.actor(message, "authority", "operator")
    rows, next_after = await sums_by_institution(await work.connection(), "accounts", _BY_INSTITUTION, message.data)
    institutions = tuple(
        InstitutionMoney(
            district=row.district,
            institution_id=row.institution_id,
            orders=row.rows,
            paid_fen=row.paid_fen,
            held_fen=row.held_fen,
            releasing_fen=row.releasing_fen,
            released_fen=row.released_fen,
            refunding_fen=row.refunding_fen,
            refunded_fen=row.refunded_fen,
            waiting_fen=row.waiting_fen,
        )
        for row in rows
    )
    work.reply(message, EscrowTotals(institutions=institutions, next_after=next_after))
