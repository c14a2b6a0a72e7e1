"""What may be asked about refunds."""

from typing import Final

from sqlalchemy import text

from services.orders.refunds.domain import Refund, latest
from services.orders.refunds.tables import RefundRow
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.orders import ListRefunds, RefundPage, RefundView, ShowRefund
from shared.messaging.work import UnitOfWork
from shared.pages import first_that_fit

# By the index of those that are open: there are few of them beside all that were ever paid. Ids are in time order.
_PAGE: Final = text("""
SELECT refund_id FROM refunds
WHERE closed_at IS NULL AND (CASE :which WHEN 'trouble' THEN overdue OR trouble <> '' ELSE state = :which END)
  AND (CAST(:institution AS uuid) IS NULL OR institution_id = :institution)
  AND (CAST(:after AS uuid) IS NULL OR refund_id > :after)
ORDER BY refund_id LIMIT :most
""")


def view(refund: Refund) -> RefundView:
    """A refund as everybody concerned sees it."""
    return RefundView(
        refund_id=refund.refund_id,
        order_id=refund.order_id,
        account_id=refund.account_id,
        institution_id=refund.institution_id,
        state=refund.state,
        ground=refund.ground,
        lessons=tuple(refund.lessons),
        fee_fen=refund.fee_fen,
        deduction_fen=refund.deduction_fen,
        refund_fen=refund.refund_fen,
        reason=refund.reason,
        answer=refund.answer,
        decision=refund.decision,
        asked_at=refund.asked_at,
        act_by=refund.act_by,
        overdue=refund.overdue,
        trouble=refund.trouble,
    )


async def show(work: UnitOfWork, message: Message[ShowRefund]) -> None:
    """The last refund of an order; whose it is not, is told the same as if there were none."""
    actor = work.actor(message, "guardian", "institution", "authority", "operator")
    refunds = await work.load_all(RefundRow, Refund, [message.data.order_id], by=("order_id",), lock=False)
    refund = latest(refunds)
    if refund is None or not actor.may_see(guardian=refund.account_id, institution=refund.institution_id):
        raise Refused("refund_unknown")
    work.reply(message, view(refund))


async def list_refunds(work: UnitOfWork, message: Message[ListRefunds]) -> None:
    """Those that wait for an institution, an authority, or a person; an institution sees its own only."""
    ask = message.data
    work.actor(message, "institution", "authority", "operator", own={"institution": ask.institution_id})
    parameters = {"which": ask.which, "institution": ask.institution_id, "after": ask.after, "most": ask.limit}
    ids = list((await (await work.connection()).execute(_PAGE, parameters)).scalars())
    shown = first_that_fit(map(view, await work.load_all(RefundRow, Refund, ids, lock=False)))
    more = len(shown) < len(ids) or len(ids) == ask.limit
    work.reply(message, RefundPage(refunds=tuple(shown), next_after=shown[-1].refund_id if more and shown else None))
