"""Gathered payouts (汇总结算): an institution chooses; at its bank's cut-off one instruction pays many lessons.

A gathered lesson is released as any other (held → releasing); only the bank is told later, and of the sum. What the
bank says of the sum its lessons follow, some hundred in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from services.escrow import domain, ledger
from services.escrow.domain import (
    PENDING,
    RETRY_REFUSED_AT_MOST,
    Account,
    Answer,
    Gathered,
    Instruction,
    Settlement,
    Transfer,
    ask_again,
    first_settlement,
    gathered_number,
    next_ask,
)
from services.escrow.payees import payees_of, set_closing, unset_closing
from services.escrow.tables import GatheredRow, InstructionRow, PayoutAccountRow, SettlementModeRow, SettlementRow
from shared.banks import check_account, next_cut_off
from shared.contracts.bank import MOST_GATHERED, GatheredLesson, Instruct
from shared.contracts.envelope import Message
from shared.contracts.escrow import (
    BookSettlement,
    ChangePayoutAccount,
    ChooseSettlement,
    CloseSettlement,
    PayoutAccount,
    PayoutReturned,
    Settled,
    SettlementClosed,
    SettlementDeadline,
    SettlementDelayed,
    SettlementMode,
    SettlementPaid,
    SettlementView,
)
from shared.ids import new_id
from shared.messaging.work import UnitOfWork

LESSONS_AT_ONCE: Final = 300
"""Lessons that follow their settlement in one transaction."""
SETTLEMENT_CHANGES: Final = (
    *("payout_account", "changed_at", "number", "attempt", "turn", "state"),
    *("reference", "reason", "asks", "returned", "booked_step"),
)
_LESSON_CHANGES: Final = ("turn", "state", "reference", "returned", "changed_at")

_BANKS: Final = text("""
SELECT DISTINCT bank FROM gathered WHERE institution_id = :institution AND settlement_id IS NULL ORDER BY bank
""")
_OPEN: Final = text("""
SELECT order_id, lesson_no, institution_id, bank, supervised_account, payout_account, amount_fen, gathered_at
FROM gathered WHERE institution_id = :institution AND bank = :bank AND settlement_id IS NULL
ORDER BY supervised_account, payout_account, order_id, lesson_no LIMIT :most FOR UPDATE
""")
_NEXT: Final = text("""
SELECT order_id, lesson_no FROM gathered WHERE settlement_id = :settlement
  AND (order_id, lesson_no) > (CAST(:order_id AS uuid), CAST(:lesson_no AS int))
ORDER BY order_id, lesson_no LIMIT :most
""")


@dataclass(slots=True)
class Mode:
    """How an institution is paid; who chose."""

    institution_id: UUID
    mode: SettlementMode
    changed_by: str
    changed_at: datetime


@dataclass(slots=True)
class OtherAccount:
    """Where an institution's payouts of one bank go; who changed it."""

    institution_id: UUID
    bank: str
    payout_account: str
    changed_by: str
    changed_at: datetime


# --- what an institution chooses --------------------------------------------------------------------------------------


async def choose(work: UnitOfWork, message: Message[ChooseSettlement]) -> None:
    """At once, daily or weekly from now on. What is gathered goes out at the new mode's cut-off, or now."""
    ask = message.data
    actor = work.actor(message, "institution", "authority", own={"institution": ask.institution_id})
    known = (await work.load(SettlementModeRow, Mode, [ask.institution_id])).get(ask.institution_id)
    chosen = Mode(ask.institution_id, ask.mode, actor.subject, work.now)
    if known is None:
        work.insert(SettlementModeRow, [chosen])
    elif known.mode != ask.mode:
        work.update(SettlementModeRow, [chosen], "mode", "changed_by", "changed_at")
        if known.mode != "at_once":
            for bank in await _open_banks(work, ask.institution_id):
                unset_closing(work, ask.institution_id, bank, next_cut_off(bank, known.mode, work.now))
    await close_what_is_open(work, ask.institution_id, message)
    await _show(work, message, ask.institution_id)


async def change_payout_account(work: UnitOfWork, message: Message[ChangePayoutAccount]) -> None:
    """Payouts of the institution's orders at one bank go to another account from now on."""
    ask = message.data
    actor = work.actor(message, "institution", subject=ask.institution_id)
    check_account(ask.bank, payout_account=ask.payout_account)
    key = (ask.institution_id, ask.bank)
    known = (await work.load(PayoutAccountRow, OtherAccount, [key])).get(key)
    changed = OtherAccount(*key, ask.payout_account, actor.subject, work.now)
    if known is None:
        work.insert(PayoutAccountRow, [changed])
    elif known.payout_account != ask.payout_account:
        work.update(PayoutAccountRow, [changed], "payout_account", "changed_by", "changed_at")
    await _show(work, message, ask.institution_id)


async def _show(work: UnitOfWork, message: Message[Any], institution_id: UUID) -> None:
    payees = await payees_of(work, [institution_id])
    accounts = [PayoutAccount(bank=bank, payout_account=name) for (_, bank), name in sorted(payees.accounts.items())]
    mode = payees.modes.get(institution_id, "at_once")
    work.reply(message, SettlementView(institution_id=institution_id, mode=mode, payout_accounts=tuple(accounts)))


async def close_what_is_open(work: UnitOfWork, institution_id: UUID, cause: Message[Any]) -> None:
    """What is gathered goes out: at the cut-offs of the institution's mode (timers), or now if it is paid at once."""
    mode = (await payees_of(work, [institution_id])).modes.get(institution_id)
    for bank in await _open_banks(work, institution_id):
        if mode:
            set_closing(work, institution_id, bank, next_cut_off(bank, mode, work.now), cause)
        else:  # no timer, which would wait as long as a clock that was fast is put back
            work.send(CloseSettlement(institution_id=institution_id, bank=bank), cause)


async def _open_banks(work: UnitOfWork, institution_id: UUID) -> Sequence[str]:
    """Where something is gathered that has not gone out."""
    return (await (await work.connection()).execute(_BANKS, {"institution": institution_id})).scalars().all()


# --- what was gathered goes out ---------------------------------------------------------------------------------------


async def close(work: UnitOfWork, message: Message[CloseSettlement]) -> None:
    """What was gathered goes out: one settlement, and the same again while there is more. Of a frozen institution it
    waits, and goes out after the thaw."""
    ask = message.data
    payees = await payees_of(work, [ask.institution_id])
    if ask.institution_id in payees.frozen:
        return
    parameters = {"institution": ask.institution_id, "bank": ask.bank, "most": MOST_GATHERED + 1}
    found = [Gathered(*row) for row in await (await work.connection()).execute(_OPEN, parameters)]
    if not found:
        return
    for one in found:
        one.payout_account = payees.accounts.get((one.institution_id, one.bank), one.payout_account)
    chosen = first_settlement(found, MOST_GATHERED)
    settlement = domain.close(new_id(), chosen, work.now)
    work.insert(SettlementRow, [settlement])
    work.update(GatheredRow, chosen, "settlement_id", "payout_account")
    _instruct(work, settlement, chosen, message)
    work.send(
        SettlementClosed(
            settlement_id=settlement.settlement_id,
            institution_id=settlement.institution_id,
            bank=settlement.bank,
            payout_account=settlement.payout_account,
            number=settlement.number,
            amount_fen=settlement.amount_fen,
            lessons=settlement.lessons,
        ),
        message,
    )
    if len(chosen) < len(found):
        work.send(ask, message)


def _instruct(work: UnitOfWork, settlement: Settlement, lessons: Sequence[Gathered], cause: Message[Any]) -> None:
    """Tells the bank, and sets the timer that asks again. The same number always says the same."""
    ordered = sorted(lessons, key=lambda one: (one.order_id, one.lesson_no))
    work.send(
        Instruct(
            order_id=settlement.settlement_id,
            number=settlement.number,
            kind="payout",
            bank=settlement.bank,
            supervised_account=settlement.supervised_account,
            counter_account=settlement.payout_account,
            amount_fen=settlement.amount_fen,
            lessons=tuple(
                GatheredLesson(order_id=one.order_id, lesson_no=one.lesson_no, amount_fen=one.amount_fen)
                for one in ordered
            ),
        ),
        cause,
    )
    _set_deadline(work, settlement, cause)


def _set_deadline(work: UnitOfWork, settlement: Settlement, cause: Message[Any]) -> None:
    deadline = SettlementDeadline(settlement_id=settlement.settlement_id)
    work.set_timer(deadline, work.now + next_ask(settlement), cause)


# --- what the bank says -----------------------------------------------------------------------------------------------


def answered(work: UnitOfWork, message: Message[Any], settlement: Settlement, answer: Answer) -> None:
    """A new answer to a gathered payout; its lessons follow. The caller writes the settlement."""
    domain.answer_settlement(settlement, answer, work.now)
    if settlement.state == "paid":
        work.cancel_timer(SettlementDeadline, settlement.settlement_id)
        work.send(
            SettlementPaid(
                settlement_id=settlement.settlement_id,
                institution_id=settlement.institution_id,
                number=settlement.number,
                amount_fen=settlement.amount_fen,
                lessons=settlement.lessons,
            ),
            message,
        )
    else:
        _set_deadline(work, settlement, message)
        work.send(
            SettlementDelayed(
                settlement_id=settlement.settlement_id,
                institution_id=settlement.institution_id,
                number=settlement.number,
                amount_fen=settlement.amount_fen,
                outcome="returned" if answer.outcome == "returned" else "refused",
                reason=answer.reason,
            ),
            message,
        )
    if answer.outcome in ("paid", "returned"):
        work.send(BookSettlement(settlement_id=settlement.settlement_id, step=settlement.step), message)


async def deadline(work: UnitOfWork, message: Message[SettlementDeadline]) -> None:
    """The bank has given no final answer: the same number again, or after a refusal a new one, to the account that the
    institution has now. Nothing is tried anew while it is frozen."""
    key = message.data.settlement_id
    settlement = (await work.load(SettlementRow, Settlement, [key])).get(key)
    if settlement is None:
        return
    if settlement.state == "refused":
        payees = await payees_of(work, [settlement.institution_id])
        if settlement.institution_id in payees.frozen:
            work.set_timer(message.data, work.now + RETRY_REFUSED_AT_MOST, message)
            return
        place = (settlement.institution_id, settlement.bank)
        settlement.payout_account = payees.accounts.get(place, settlement.payout_account)
    if ask_again(settlement, work.now):
        settlement.number = gathered_number(settlement.settlement_id, settlement.attempt)
        lessons = await work.load_all(GatheredRow, Gathered, [key], by=("settlement_id",), lock=False)
        _instruct(work, settlement, lessons, message)
        work.update(SettlementRow, [settlement], *SETTLEMENT_CHANGES)


async def next_lessons(work: UnitOfWork, ask: BookSettlement) -> list[tuple[UUID, int]]:
    """The lessons (order, number) that follow next."""
    after = {"order_id": ask.after_order or UUID(int=0), "lesson_no": ask.after_lesson}
    parameters = {"settlement": ask.settlement_id, "most": LESSONS_AT_ONCE} | after
    return [(row.order_id, row.lesson_no) for row in await (await work.connection()).execute(_NEXT, parameters)]


async def book(work: UnitOfWork, message: Message[BookSettlement]) -> None:
    """The next lessons follow their settlement, whatever steps they are behind; a pass for a step that has been
    followed by another leaves all to that one's."""
    ask = message.data
    places = await next_lessons(work, ask)
    accounts = await ledger.accounts_of(work, [order_id for order_id, _ in places])
    settlement = (await work.load(SettlementRow, Settlement, [ask.settlement_id])).get(ask.settlement_id)
    if settlement is None or settlement.step != ask.step:
        return
    keys = [(order_id, lesson_no, "payout") for order_id, lesson_no in places]
    instructions = await work.load(InstructionRow, Instruction, keys, lock=False)
    transfers: list[Transfer] = []
    for key in keys:
        account, instruction = accounts[key[0]], instructions[key]
        followed = domain.follow(account, instruction, settlement, work.now)
        for transfer in followed:
            _tell(work, message, account, settlement, transfer)
        transfers += followed
    work.update(InstructionRow, [instructions[key] for key in keys], *_LESSON_CHANGES)
    ledger.post(work, transfers, accounts)
    if len(places) == LESSONS_AT_ONCE:
        last = {"after_order": places[-1][0], "after_lesson": places[-1][1]}
        work.send(BookSettlement(settlement_id=ask.settlement_id, step=ask.step, **last), message)
    else:
        settlement.booked_step = ask.step
        work.update(SettlementRow, [settlement], *SETTLEMENT_CHANGES)


def _tell(
    work: UnitOfWork, message: Message[Any], account: Account, settlement: Settlement, transfer: Transfer
) -> None:
    of_lesson: dict[str, Any] = {
        "order_id": account.order_id,
        "institution_id": account.institution_id,
        "lesson_no": transfer.lesson_no,
        "amount_fen": transfer.amount_fen,
    }
    if transfer.phase == PENDING:
        returned = PayoutReturned(
            reason=settlement.reason, turn=transfer.turn, settlement_id=settlement.settlement_id, **of_lesson
        )
        work.send(returned, message)
    else:
        work.send(Settled(account_id=account.account_id, **of_lesson), message)
