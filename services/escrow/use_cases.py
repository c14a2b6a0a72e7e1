"""What escrow does when asked: load the accounts of the batch, decide each message, write each table once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.escrow import ledger
from services.escrow.bank import begin, instruct, set_deadline
from services.escrow.domain import (
    ASK_AGAIN_AFTER,
    RETRY_REFUSED_AT_MOST,
    Account,
    Instruction,
    Transfer,
    ask_again,
    divide,
    fail_payment,
    purpose_of,
    refund,
    would_still_collect,
)
from services.escrow.payees import Payees, payees_of
from services.escrow.tables import INSTRUCTION_CHANGES, AccountRow, InstructionRow, SuspensionRow
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import (
    CancelPayment,
    CollectPayment,
    DivideLesson,
    InstructionDeadline,
    PaymentDeadline,
    PaymentFailed,
    Refunded,
    RefundOrder,
    ResumeReleases,
    SuspendReleases,
)
from shared.messaging.work import UnitOfWork


@dataclass(slots=True)
class Suspension:
    """A complaint's hold on an order's releases."""

    order_id: UUID
    complaint_id: UUID
    ended: bool
    changed_at: datetime


async def collect(work: UnitOfWork, messages: Sequence[Message[CollectPayment]]) -> None:
    """Opens the accounts and asks the banks to collect. Asked again for the same order, it changes nothing."""
    existing = await work.load(AccountRow, Account, {message.data.order_id for message in messages}, lock=False)
    accounts: list[Account] = []
    instructions: list[Instruction] = []
    for message in messages:
        with work.answering(message):
            ask = message.data
            known = existing.get(ask.order_id)
            if known is not None:
                _refuse_other_terms(known, ask)
                continue
            account = Account(
                order_id=ask.order_id,
                account_id=ask.account_id,
                institution_id=ask.institution_id,
                bank=ask.account.bank,
                supervised_account=ask.account.supervised_account,
                payout_account=ask.account.payout_account,
                price_fen=ask.amount_fen,
                lessons=ask.lessons,
                method=ask.method,
                pay_by=ask.pay_by,
                opened_at=work.now,
                district=ask.district,
            )
            instruction = Instruction(ask.order_id, 0, "collect", ask.amount_fen, work.now)
            instruct(work, account, instruction, message)
            work.set_timer(PaymentDeadline(order_id=ask.order_id), ask.pay_by, message)
            existing[ask.order_id] = account
            accounts.append(account)
            instructions.append(instruction)
    work.insert(AccountRow, accounts)
    work.insert(InstructionRow, instructions)


def _refuse_other_terms(known: Account, ask: CollectPayment) -> None:
    account = BankAccount(
        bank=known.bank, supervised_account=known.supervised_account, payout_account=known.payout_account
    )
    terms = (known.account_id, known.institution_id, account, known.price_fen, known.lessons)
    if terms != (ask.account_id, ask.institution_id, ask.account, ask.amount_fen, ask.lessons):
        raise Refused("hold_exists", price_fen=known.price_fen, lessons=known.lessons)


async def suspend(work: UnitOfWork, message: Message[SuspendReleases]) -> None:
    """A complaint holds the order's further releases. The same complaint counts once."""
    account, known = await _account_and_suspension(work, message.data)
    if known is not None:
        return
    work.insert(SuspensionRow, [_suspension(work, message.data, ended=False)])
    account.suspensions += 1
    ledger.post(work, [], {account.order_id: account})


async def resume(work: UnitOfWork, message: Message[ResumeReleases]) -> None:
    """The complaint is closed: when it was the last one, what fell due in between goes out, once."""
    account, known = await _account_and_suspension(work, message.data)
    if known is not None and known.ended:
        return
    row = _suspension(work, message.data, ended=True)
    if known is None:  # closed before it was heard of: remembered, so that a late suspension does not stand for ever
        work.insert(SuspensionRow, [row])
        return
    work.update(SuspensionRow, [row], "ended", "changed_at")
    account.suspensions -= 1
    transfers: list[Transfer] = []
    payees = await payees_of(work, [account.institution_id])
    if account.suspensions == 0 and account.institution_id not in payees.frozen:
        transfers = await let_go_of(work, message, {account.order_id: account}, payees)
    ledger.post(work, transfers, {account.order_id: account})


async def let_go_of(
    work: UnitOfWork, cause: Message[Any], accounts: Mapping[UUID, Account], payees: Payees
) -> list[Transfer]:
    """What waited of these orders goes out; the transfers to post."""
    of_orders = await work.load_all(InstructionRow, Instruction, list(accounts), by=("order_id",))
    waiting = [instruction for instruction in of_orders if instruction.state == "waiting"]
    transfers = [begin(work, accounts[one.order_id], one, cause, payees) for one in waiting]
    work.update(InstructionRow, waiting, *INSTRUCTION_CHANGES, "counter_account")
    payees.write(work)
    return transfers


async def cancel_payment(work: UnitOfWork, message: Message[CancelPayment]) -> None:
    """The purchase was given up: nothing more is expected, and what is held goes back."""
    await _send_back(work, message, RefundOrder(order_id=message.data.order_id, reason=message.data.reason))


async def refund_order(work: UnitOfWork, message: Message[RefundOrder]) -> None:
    """The fee of some lessons, or of all, goes back the way it came."""
    await _send_back(work, message, message.data)


async def _send_back(work: UnitOfWork, message: Message[Any], ask: RefundOrder) -> None:
    order_id = ask.order_id
    account = (await ledger.accounts_of(work, [order_id])).get(order_id)
    if account is None or fail_payment(account, ask.reason):
        work.cancel_timer(PaymentDeadline, order_id)
        work.send(PaymentFailed(order_id=order_id, reason=ask.reason), message)
        if account is not None:
            ledger.post(work, [], {order_id: account})
        return
    of_order = await work.load_all(InstructionRow, Instruction, [order_id], by=("order_id",))
    existing = next((one for one in of_order if one.kind == "refund" and one.lesson_no == 0), None)
    decided = {one.lesson_no for one in of_order if one.lesson_no}
    payees = await payees_of(work, [account.institution_id])
    frozen = account.institution_id in payees.frozen
    new: list[Instruction] = []
    if account.state != "failed":
        new = refund(account, existing, decided, ask.lessons, ask.deduction_fen, ask.reason, work.now, frozen=frozen)
    if new:
        _begin(work, message, account, new, payees)
    else:
        _repeat_end(work, account, existing, message)


async def divide_lesson(work: UnitOfWork, message: Message[DivideLesson]) -> None:
    """The authority has decided on one lesson: its fee goes to the institution, to the guardian, or to both."""
    ask = message.data
    account = (await ledger.accounts_of(work, [ask.order_id])).get(ask.order_id)
    if account is None:
        raise Refused("order_unknown")
    keys = [(ask.order_id, ask.lesson_no, kind) for kind in ("payout", "refund")]
    decided = list((await work.load(InstructionRow, Instruction, keys)).values())
    payees = await payees_of(work, [account.institution_id])
    frozen = account.institution_id in payees.frozen
    new = divide(account, decided, ask.lesson_no, ask.release_fen, work.now, frozen=frozen)
    if new:
        _begin(work, message, account, new, payees)


def _begin(work: UnitOfWork, cause: Message[Any], account: Account, new: Sequence[Instruction], payees: Payees) -> None:
    """New payments of one order start, but for those that wait."""
    transfers = [begin(work, account, one, cause, payees) for one in new if one.state == "sent"]
    work.insert(InstructionRow, new)
    payees.write(work)
    ledger.post(work, transfers, {account.order_id: account}, given_back=True)


def _repeat_end(work: UnitOfWork, account: Account, refunded: Instruction | None, message: Message[Any]) -> None:
    """Asked again for an order whose end was told before: told again, so that a saga that lost its place goes on.
    All of it released meanwhile: nothing goes back, and that is told too."""
    if account.state == "failed":
        work.send(PaymentFailed(order_id=account.order_id, reason=account.reason), message)
    elif refunded is None or refunded.state == "paid":
        amount = refunded.amount_fen if refunded else 0
        work.send(Refunded(order_id=account.order_id, account_id=account.account_id, amount_fen=amount), message)


async def _account_and_suspension(
    work: UnitOfWork, ask: SuspendReleases | ResumeReleases
) -> tuple[Account, Suspension | None]:
    account = (await ledger.accounts_of(work, [ask.order_id])).get(ask.order_id)
    if account is None:
        raise Refused("order_unknown")
    key = (ask.order_id, ask.complaint_id)
    return account, (await work.load(SuspensionRow, Suspension, [key])).get(key)


def _suspension(work: UnitOfWork, ask: SuspendReleases | ResumeReleases, *, ended: bool) -> Suspension:
    return Suspension(ask.order_id, ask.complaint_id, ended, work.now)


async def payment_deadline(work: UnitOfWork, message: Message[PaymentDeadline]) -> None:
    """The money has not come in time; should it come later, it is suspense."""
    account = (await ledger.accounts_of(work, [message.data.order_id])).get(message.data.order_id)
    if account is not None and fail_payment(account, "expired"):
        ledger.post(work, [], {account.order_id: account})
        work.send(PaymentFailed(order_id=account.order_id, reason="expired"), message)


async def instruction_deadlines(work: UnitOfWork, messages: Sequence[Message[InstructionDeadline]]) -> None:
    """Banks that gave no final answer are asked again. A payout they refused is not tried anew while the institution is
    frozen."""
    accounts = await ledger.accounts_of(work, [message.data.order_id for message in messages])
    purposes = {message.id: purpose_of(message.data.number) for message in messages}
    keys = {(p.order_id, p.lesson_no, p.kind) for p in purposes.values() if p is not None}
    instructions = await work.load(InstructionRow, Instruction, keys, lock=False)
    refused = {one.order_id for one in instructions.values() if one.state == "refused" and one.order_id in accounts}
    payees = await payees_of(work, (accounts[order_id].institution_id for order_id in refused))
    changed: dict[tuple[UUID, int, str], Instruction] = {}
    for message in messages:
        purpose = purposes[message.id]
        instruction = instructions.get((purpose.order_id, purpose.lesson_no, purpose.kind)) if purpose else None
        account = accounts.get(message.data.order_id)
        if instruction is None or account is None:
            continue
        if would_still_collect(account, instruction, work.now):
            set_deadline(work, instruction, message, account.pay_by + ASK_AGAIN_AFTER)
        elif (instruction.kind, instruction.state) == ("payout", "refused") and account.institution_id in payees.frozen:
            set_deadline(work, instruction, message, work.now + RETRY_REFUSED_AT_MOST)
        elif ask_again(instruction, work.now):
            if instruction.kind == "payout" and instruction.asks == 0:  # a new number, to where payouts go now
                instruction.counter_account = payees.redirected(account)
            instruct(work, account, instruction, message)
            changed[instruction.key] = instruction
    work.update(InstructionRow, [changed[key] for key in sorted(changed)], *INSTRUCTION_CHANGES, "counter_account")
