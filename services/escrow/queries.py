"""What gateways may ask of escrow."""

from services.escrow.domain import Account, Instruction
from services.escrow.tables import AccountRow, InstructionRow
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import AccountView, LessonMoney, ShowAccount
from shared.messaging.work import UnitOfWork


async def show_account(work: UnitOfWork, message: Message[ShowAccount]) -> None:
    """The order's account, for its guardian, its institution, an authority or an operator; nobody else learns of it."""
    actor = work.actor(message, "guardian", "institution", "authority", "operator")
    order_id = message.data.order_id
    account = (await work.load(AccountRow, Account, [order_id], lock=False)).get(order_id)
    owner = {
        "guardian": str(account.account_id) if account else "",
        "institution": str(account.institution_id) if account else "",
    }
    if account is None or owner.get(actor.role, actor.subject) != actor.subject:
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
