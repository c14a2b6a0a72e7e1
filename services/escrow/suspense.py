"""Money in suspense (挂账): booked at once, matched with its order or sent back by an operator, never unseen long."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from services.escrow import ledger
from services.escrow.domain import (
    Answer,
    Instruction,
    Purpose,
    Suspense,
    Verdict,
    ask_again,
    give_back,
    gone_back,
    judge_outgoing,
    judge_unknown,
    match,
    next_ask,
)
from services.escrow.tables import INSTRUCTION_CHANGES, InstructionRow, SuspenseRow
from shared.contracts.bank import Instruct, Result
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import (
    Held,
    InstructionDeadline,
    ListSuspense,
    MatchSuspense,
    PaymentDeadline,
    ReturnDeadline,
    ReturnSuspense,
    SuspenseBooked,
    SuspenseDeadline,
    SuspenseMatched,
    SuspenseOverdue,
    SuspensePage,
    SuspenseReopened,
    SuspenseReturned,
    SuspenseView,
)
from shared.messaging.work import UnitOfWork
from shared.policy import Category, policy_for
from shared.working_days import add_working_days, shanghai

REMIND_WORKING_DAYS: Final = 1
"""How long after its deadline, and after each reminder, money in suspense is told of again [ours]."""

_CHANGES: Final = ("state", "matched_order_id", "decided_by", "decision", "decided_at", "due_at")

_PAGE: Final = """
SELECT receipt_id FROM suspense WHERE {state} AND (CAST(:after AS uuid) IS NULL
  OR (booked_at, receipt_id) > (SELECT booked_at, receipt_id FROM suspense WHERE receipt_id = :after))
ORDER BY booked_at, receipt_id LIMIT :most
"""
_OPEN_PAGE: Final = text(_PAGE.format(state="state = 'open'"))
_WHOLE_PAGE: Final = text(_PAGE.format(state="true"))


# --- booked -----------------------------------------------------------------------------------------------------------


async def book(work: UnitOfWork, money: Sequence[Suspense], causes: Mapping[UUID, Message[Result]]) -> None:
    """Books money that belongs nowhere, each movement once however often it is told, and sets its deadline."""
    if not money:
        return
    there = await work.load(SuspenseRow, Suspense, list(causes), lock=False)
    new = [one for one in money if one.receipt_id not in there]
    for one in new:
        _wait(work, one, causes[one.receipt_id])
        work.send(
            SuspenseBooked(
                receipt_id=one.receipt_id,
                order_id=one.order_id,
                number=one.number,
                amount_fen=one.amount_fen,
                reason=one.reason,
                due_at=one.due_at,
            ),
            causes[one.receipt_id],
        )
    work.insert(SuspenseRow, new, ignore_existing=True)


def _wait(work: UnitOfWork, money: Suspense, cause: Message[Any]) -> None:
    """A person is to decide until the deadline."""
    # The same for all categories: whose money it is, is not known.
    days = policy_for(work.region, Category.SUBJECT, shanghai(work.now).date()).suspense_working_days
    money.due_at = add_working_days(work.now, days)
    work.set_timer(SuspenseDeadline(receipt_id=money.receipt_id), money.due_at, cause)


async def deadline(work: UnitOfWork, message: Message[SuspenseDeadline]) -> None:
    """Nobody has decided in time, or the bank has not sent back what was decided: told, and once more each working
    day."""
    money = (await work.load(SuspenseRow, Suspense, [message.data.receipt_id])).get(message.data.receipt_id)
    if money is None or money.state not in ("open", "returning") or work.now < money.due_at:
        return
    work.send(
        SuspenseOverdue(
            receipt_id=money.receipt_id,
            order_id=money.order_id,
            amount_fen=money.amount_fen,
            reason=money.reason,
            state=money.state,
            due_at=money.due_at,
        ),
        message,
    )
    work.set_timer(message.data, add_working_days(work.now, REMIND_WORKING_DAYS), message)


# --- matched ----------------------------------------------------------------------------------------------------------


async def match_money(work: UnitOfWork, message: Message[MatchSuspense]) -> None:
    """An operator has found whose money it is: the order is held, and goes on, or sends it back if it was given up."""
    actor = work.actor(message, "operator")
    ask = message.data
    # Accounts are locked before receipts everywhere.
    account = (await ledger.accounts_of(work, [ask.order_id])).get(ask.order_id)
    money = await _known(work, ask.receipt_id)
    if (money.state, money.matched_order_id) != ("matched", ask.order_id):
        if account is None:
            raise Refused("order_unknown")
        key = (ask.order_id, 0, "collect")
        collect = (await work.load(InstructionRow, Instruction, [key]))[key]
        transfer = match(account, collect, money, work.now)
        _decided(work, money, actor.subject, ask.reason)
        ledger.post(work, [transfer], {account.order_id: account})
        work.update(InstructionRow, [collect], *INSTRUCTION_CHANGES)
        work.update(SuspenseRow, [money], *_CHANGES)
        work.cancel_timer(SuspenseDeadline, money.receipt_id)
        work.cancel_timer(PaymentDeadline, account.order_id)
        work.cancel_timer(InstructionDeadline, collect.subject)
        work.send(Held(order_id=account.order_id, account_id=account.account_id, amount_fen=account.price_fen), message)
        work.send(
            SuspenseMatched(receipt_id=money.receipt_id, order_id=account.order_id, amount_fen=money.amount_fen),
            message,
        )
    work.reply(message, view(money, None, work))


async def _known(work: UnitOfWork, receipt_id: UUID) -> Suspense:
    money = (await work.load(SuspenseRow, Suspense, [receipt_id])).get(receipt_id)
    if money is None:
        raise Refused("suspense_unknown")
    return money


def _decided(work: UnitOfWork, money: Suspense, by: str, reason: str) -> None:
    money.decided_by, money.decision, money.decided_at = by, reason, work.now


# --- sent back --------------------------------------------------------------------------------------------------------


async def return_money(work: UnitOfWork, message: Message[ReturnSuspense]) -> None:
    """An operator sends the money back to where it came from."""
    actor = work.actor(message, "operator")
    ask = message.data
    money = await _known(work, ask.receipt_id)
    existing = await _return_of(work, ask.receipt_id)
    instruction = give_back(money, existing, work.now)
    if instruction is not None:
        _decided(work, money, actor.subject, ask.reason)
        work.update(SuspenseRow, [money], *_CHANGES)
        if existing is None:
            work.insert(InstructionRow, [instruction])
        else:
            work.update(InstructionRow, [instruction], *INSTRUCTION_CHANGES)
        _instruct(work, money, instruction, message)
    work.reply(message, view(money, instruction or existing, work))


async def _return_of(work: UnitOfWork, receipt_id: UUID) -> Instruction | None:
    key = (receipt_id, 0, "return")
    return (await work.load(InstructionRow, Instruction, [key])).get(key)


def _instruct(work: UnitOfWork, money: Suspense, instruction: Instruction, cause: Message[Any]) -> None:
    """Tells the bank, and sets the timer that asks again if no final answer comes."""
    work.send(
        Instruct(
            order_id=money.receipt_id,
            number=instruction.number,
            kind="refund",
            bank=money.bank,
            supervised_account=money.account,
            amount_fen=money.amount_fen,
            refund_reference=money.reference,
        ),
        cause,
    )
    _look_again(work, instruction, cause)


def _look_again(work: UnitOfWork, instruction: Instruction, cause: Message[Any]) -> None:
    work.set_timer(ReturnDeadline(receipt_id=instruction.order_id), work.now + next_ask(instruction), cause)


async def return_deadline(work: UnitOfWork, message: Message[ReturnDeadline]) -> None:
    """The bank has said nothing final of a return, or has refused it: the same number again, or a new one."""
    receipt_id = message.data.receipt_id
    money = (await work.load(SuspenseRow, Suspense, [receipt_id])).get(receipt_id)
    instruction = await _return_of(work, receipt_id)
    if money is not None and instruction is not None and ask_again(instruction, work.now):
        work.update(InstructionRow, [instruction], *INSTRUCTION_CHANGES)
        _instruct(work, money, instruction, message)


async def return_told(work: UnitOfWork, message: Message[Result], purpose: Purpose) -> Verdict:
    """What a bank says of a return; booked where it says something new. The caller keeps it with the verdict."""
    result = message.data
    answer = Answer(result.outcome, purpose.attempt, result.amount_fen, result.reference, result.reason)
    money = (await work.load(SuspenseRow, Suspense, [purpose.order_id])).get(purpose.order_id)
    instruction = await _return_of(work, purpose.order_id)
    if money is None or instruction is None or purpose.lesson_no or money.bank != result.bank:
        return judge_unknown("return", answer)
    verdict = judge_outgoing(instruction, answer)
    if verdict != "applied":
        return verdict
    gone_back(money, instruction, answer, work.now)
    if money.state == "returned":
        work.cancel_timer(ReturnDeadline, money.receipt_id)
        work.cancel_timer(SuspenseDeadline, money.receipt_id)
        gone = SuspenseReturned(receipt_id=money.receipt_id, order_id=money.order_id, amount_fen=money.amount_fen)
        work.send(gone, message)
    elif money.state == "open":
        _wait(work, money, message)
        work.send(
            SuspenseReopened(
                receipt_id=money.receipt_id,
                order_id=money.order_id,
                amount_fen=money.amount_fen,
                reason=result.reason,
                due_at=money.due_at,
            ),
            message,
        )
    else:
        _look_again(work, instruction, message)
    work.update(SuspenseRow, [money], *_CHANGES)
    work.update(InstructionRow, [instruction], *INSTRUCTION_CHANGES)
    return verdict


# --- looked at --------------------------------------------------------------------------------------------------------


async def list_money(work: UnitOfWork, message: Message[ListSuspense]) -> None:
    """Money in suspense, oldest first, a page of it."""
    work.actor(message, "operator")
    ask = message.data
    statement = _WHOLE_PAGE if ask.all_states else _OPEN_PAGE
    parameters = {"after": ask.after, "most": ask.limit + 1}
    found = list((await (await work.connection()).execute(statement, parameters)).scalars())
    shown = found[: ask.limit]
    rows = await work.load(SuspenseRow, Suspense, shown, lock=False)
    keys = [(receipt_id, 0, "return") for receipt_id in shown]
    returns = await work.load(InstructionRow, Instruction, keys, lock=False)
    work.reply(
        message,
        SuspensePage(
            receipts=tuple(view(rows[one], returns.get((one, 0, "return")), work) for one in shown),
            next_after=shown[-1] if len(found) > len(shown) else None,
        ),
    )


def view(money: Suspense, instruction: Instruction | None, work: UnitOfWork) -> SuspenseView:
    """Money in suspense as an operator sees it."""
    return SuspenseView(
        receipt_id=money.receipt_id,
        order_id=money.order_id,
        number=money.number,
        bank=money.bank,
        account=money.account,
        reference=money.reference,
        amount_fen=money.amount_fen,
        reason=money.reason,
        state=money.state,
        booked_at=money.booked_at,
        due_at=money.due_at,
        overdue=money.state in ("open", "returning") and work.now >= money.due_at,
        age_seconds=int((work.now - money.booked_at).total_seconds()),
        matched_order_id=money.matched_order_id,
        decided_by=money.decided_by,
        decision=money.decision,
        return_number=instruction.number if instruction else "",
    )
