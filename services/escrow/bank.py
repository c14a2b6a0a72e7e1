"""What banks are told and what they say: instructions out; results stored raw first, then applied.

Releases and results change the same rows, so one batch of both is one load and one write."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from services.escrow import ledger, settlements, suspense
from services.escrow.domain import (
    SUSPENSE,
    Account,
    Answer,
    Gathered,
    Instruction,
    Purpose,
    Settlement,
    Suspense,
    Transfer,
    Verdict,
    come_back,
    conclude,
    fail_payment,
    hold,
    judge_collect,
    judge_outgoing,
    judge_unknown,
    next_ask,
    purpose_of,
    release,
    settle,
    settlement_of,
    start,
)
from services.escrow.payees import Payees, payees_of
from services.escrow.tables import INSTRUCTION_CHANGES, BankResultRow, GatheredRow, InstructionRow, SettlementRow
from shared.contracts.bank import Instruct, Result
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import (
    Held,
    InstructionDeadline,
    PaymentDeadline,
    PaymentFailed,
    PayoutReturned,
    RefundDelayed,
    Refunded,
    Released,
    ReleaseLesson,
    Settled,
)
from shared.ids import derived_id
from shared.messaging.work import UnitOfWork


@dataclass(slots=True)
class RawResult:
    """A bank's result as stored."""

    id: UUID
    order_id: UUID | None
    number: str
    kind: str
    outcome: str
    amount_fen: int
    bank: str
    reference: str
    reason: str
    happened_at: datetime
    received_at: datetime
    verdict: str


def instruct(work: UnitOfWork, account: Account, instruction: Instruction, cause: Message[Any]) -> None:
    """Tells the bank, and sets the timer that asks again if no final answer comes."""
    number = instruction.number
    collect = instruction.kind == "collect"
    payout_account = instruction.counter_account or account.payout_account
    work.send(
        Instruct(
            order_id=account.order_id,
            number=number,
            kind=instruction.kind,
            bank=account.bank,
            supervised_account=account.supervised_account,
            counter_account=payout_account if instruction.kind == "payout" else "",
            amount_fen=instruction.amount_fen,
            method=account.method if collect else "",
            refund_of=_collect_number(account) if instruction.kind == "refund" else "",
            # Money that was matched has not come under the number of its order.
            refund_reference=account.paid_reference if instruction.kind == "refund" else "",
            valid_until=account.pay_by if collect else None,
        ),
        cause,
    )
    set_deadline(work, instruction, cause)


def set_deadline(
    work: UnitOfWork, instruction: Instruction, cause: Message[Any], due_at: datetime | None = None
) -> None:
    """When to look at this instruction again. The timer's subject is its key, so a new attempt moves it."""
    data = InstructionDeadline(order_id=instruction.order_id, number=instruction.number)
    work.set_timer(data, due_at or work.now + next_ask(instruction), cause, subject=instruction.subject)


def _collect_number(account: Account) -> str:
    return Instruction(account.order_id, 0, "collect", account.price_fen, account.opened_at).number


def begin(
    work: UnitOfWork, account: Account, instruction: Instruction, cause: Message[Any], payees: Payees
) -> Transfer:
    """Money of a payout or refund starts moving: the transfer to post. Tells the bank, or gathers the payout with
    others; and of a payout tells everybody."""
    transfer = start(account, instruction, work.now, gathered=payees.gathers(account, instruction))
    if instruction.state == "gathered":
        payees.gather(work, account, instruction, cause)
    else:
        if instruction.kind == "payout":
            instruction.counter_account = payees.redirected(account)
        instruct(work, account, instruction, cause)
    if instruction.kind == "payout":
        _announce_release(work, account, instruction, cause)
    return transfer


def _announce_release(work: UnitOfWork, account: Account, instruction: Instruction, cause: Message[Any]) -> None:
    work.send(
        Released(
            order_id=account.order_id,
            lesson_no=instruction.lesson_no,
            amount_fen=instruction.amount_fen,
            number=instruction.number,
        ),
        cause,
    )


async def move_money(work: UnitOfWork, messages: Sequence[Message[ReleaseLesson] | Message[Result]]) -> None:
    """Releases confirmed lessons: held → releasing, one payout instruction each; or lets them wait for a complaint.
    Stores every result with its verdict, and books those that say something new."""
    purposes = {message.id: _purpose(message.data) for message in messages}
    known = [purpose for purpose in purposes.values() if purpose]
    accounts = await ledger.accounts_of(work, [purpose.order_id for purpose in known])
    keys = {(purpose.order_id, purpose.lesson_no, purpose.kind) for purpose in known}
    instructions = await work.load(InstructionRow, Instruction, keys, lock=False)
    gathered = {message.id: _settlement(message.data) for message in messages}
    sums = await work.load(SettlementRow, Settlement, {key[0] for key in gathered.values() if key})
    paid_out = {message.data.order_id for message in messages if isinstance(message.data, ReleaseLesson)}
    institutions = {accounts[order_id].institution_id for order_id in paid_out & accounts.keys()}
    back = [purposes[message.id] for message in messages if _came_back(message.data)]
    alone = {(purpose.order_id, purpose.lesson_no) for purpose in back if purpose and purpose.kind == "payout"}
    together = await work.load(GatheredRow, Gathered, alone, lock=False)
    booking = _Booking(work, await payees_of(work, institutions), frozenset(together))
    for message in messages:
        purpose = purposes[message.id]
        account = accounts.get(purpose.order_id) if purpose else None
        instruction = instructions.get((purpose.order_id, purpose.lesson_no, purpose.kind)) if purpose else None
        if isinstance(message.data, Result):
            if purpose is not None and purpose.kind == "return":
                booking.keep(message, await suspense.return_told(work, message, purpose))
                continue
            number = gathered[message.id]
            if number is not None and number[0] in sums:
                booking.book_gathered(message, sums[number[0]], number[1])
            else:
                booking.book(message, purpose, account, instruction)
            continue
        with work.answering(message):
            if account is None:
                raise Refused("order_unknown")
            new = booking.release(message, account, instruction)
            if new is not None:
                instructions[new.key] = new
    await booking.write()


def _purpose(data: ReleaseLesson | Result) -> Purpose | None:
    if isinstance(data, Result):
        return purpose_of(data.number)
    return Purpose("payout", data.order_id, data.lesson_no, 0)


def _came_back(data: ReleaseLesson | Result) -> bool:
    return isinstance(data, Result) and data.outcome == "returned"


def _settlement(data: ReleaseLesson | Result) -> tuple[UUID, int] | None:
    return settlement_of(data.number) if isinstance(data, Result) else None


class _Booking:
    """The rows that one batch of releases and results comes to."""

    def __init__(self, work: UnitOfWork, payees: Payees, together: frozenset[tuple[UUID, int]]) -> None:
        """`together`: lessons that were paid with others, so that nothing can come back under their own numbers."""
        self.work = work
        self.payees = payees
        self.together = together
        self.raw: list[RawResult] = []
        self.suspense: list[Suspense] = []
        self.causes: dict[UUID, Message[Result]] = {}
        self.transfers: list[Transfer] = []
        self.accounts: dict[UUID, Account] = {}
        self.new: dict[tuple[UUID, int, str], Instruction] = {}
        self.instructions: dict[tuple[UUID, int, str], Instruction] = {}
        self.settlements: dict[UUID, Settlement] = {}

    def release(
        self, message: Message[ReleaseLesson], account: Account, existing: Instruction | None
    ) -> Instruction | None:
        """Releases one lesson; returns its instruction if that is new."""
        frozen = account.institution_id in self.payees.frozen
        instruction = release(account, existing, message.data.lesson_no, self.work.now, frozen=frozen)
        if instruction is None:
            return None
        if instruction.state == "sent":
            self.transfers.append(begin(self.work, account, instruction, message, self.payees))
            self.accounts[account.order_id] = account
        self.new[instruction.key] = instruction
        return instruction

    def book(
        self,
        message: Message[Result],
        purpose: Purpose | None,
        account: Account | None,
        instruction: Instruction | None,
    ) -> None:
        """Judges one result, keeps it raw, and books it where it says something new."""
        result = message.data
        attempt = purpose.attempt if purpose else 0
        answer = Answer(result.outcome, attempt, result.amount_fen, result.reference, result.reason)
        verdict: Verdict
        if account is None or instruction is None:
            verdict = judge_unknown(purpose.kind if purpose else result.kind, answer)
        elif account.bank != result.bank:  # another bank was never told
            verdict = judge_unknown(instruction.kind, answer, elsewhere=True)
        elif instruction.kind == "collect":
            if result.account in ("", account.supervised_account):
                verdict = judge_collect(account, instruction, answer)
            else:
                verdict = judge_unknown("collect", answer, elsewhere=True)
            if verdict == "applied":
                self._collected(message, account, instruction)
            elif conclude(instruction, answer, self.work.now):
                self.work.cancel_timer(InstructionDeadline, instruction.subject)
                self._changed(account, instruction)
        else:
            verdict = judge_outgoing(instruction, answer)
            if verdict == "applied" and _came_back(result) and instruction.key[:2] in self.together:
                verdict = "conflict"  # the bank was never told this number
            if verdict == "applied":
                self._paid_out(message, account, instruction)
        if verdict in SUSPENSE and result.outcome == "paid":
            self._suspend(message, verdict, account.order_id if account else result.order_id)
        self.keep(message, verdict)

    def book_gathered(self, message: Message[Result], settlement: Settlement, attempt: int) -> None:
        """The same of a gathered payout."""
        result = message.data
        answer = Answer(result.outcome, attempt, result.amount_fen, result.reference, result.reason)
        if settlement.bank != result.bank:
            verdict = judge_unknown("payout", answer)
        else:
            verdict = judge_outgoing(settlement, answer)
        if verdict == "applied":
            settlements.answered(self.work, message, settlement, answer)
            self.settlements[settlement.settlement_id] = settlement
        self.keep(message, verdict)

    def _collected(self, message: Message[Result], account: Account, instruction: Instruction) -> None:
        result = message.data
        if result.outcome == "paid":
            self.transfers.append(hold(account, result.reference, self.work.now))
            instruction.state, instruction.reference = "paid", result.reference
            held = Held(order_id=account.order_id, account_id=account.account_id, amount_fen=account.price_fen)
            self.work.send(held, message)
        else:
            fail_payment(account, "refused")
            instruction.state = "refused"
            self.work.send(PaymentFailed(order_id=account.order_id, reason="refused"), message)
        instruction.changed_at = self.work.now
        self.work.cancel_timer(PaymentDeadline, account.order_id)
        self.work.cancel_timer(InstructionDeadline, instruction.subject)
        self._changed(account, instruction)

    def _paid_out(self, message: Message[Result], account: Account, instruction: Instruction) -> None:
        result, work = message.data, self.work
        order_id, lesson_no, amount = account.order_id, instruction.lesson_no, instruction.amount_fen
        if result.outcome == "paid":
            self.transfers.append(settle(account, instruction, result.reference, work.now))
            work.cancel_timer(InstructionDeadline, instruction.subject)
            if instruction.kind == "payout":
                work.send(
                    Settled(
                        order_id=order_id,
                        account_id=account.account_id,
                        institution_id=account.institution_id,
                        lesson_no=lesson_no,
                        amount_fen=amount,
                    ),
                    message,
                )
            else:
                refunded = Refunded(
                    order_id=order_id, account_id=account.account_id, lesson_no=lesson_no, amount_fen=amount
                )
                work.send(refunded, message)
        elif result.outcome == "returned":
            self.transfers.append(come_back(account, instruction, work.now))
            set_deadline(work, instruction, message)
            if instruction.kind == "refund":
                self._delayed(message, account, instruction)
            else:
                work.send(
                    PayoutReturned(
                        order_id=order_id,
                        institution_id=account.institution_id,
                        lesson_no=lesson_no,
                        amount_fen=amount,
                        reason=result.reason,
                        turn=instruction.turn,
                    ),
                    message,
                )
        else:
            instruction.state = "refused"
            instruction.changed_at = work.now
            set_deadline(work, instruction, message)
            if instruction.kind == "refund":
                self._delayed(message, account, instruction)
        self._changed(account, instruction)

    def _delayed(self, message: Message[Result], account: Account, instruction: Instruction) -> None:
        """A refund that was refused or came back is tried again; a person must look why."""
        result = message.data
        delayed = RefundDelayed(
            order_id=account.order_id,
            institution_id=account.institution_id,
            lesson_no=instruction.lesson_no,
            amount_fen=instruction.amount_fen,
            outcome=result.outcome,
            reason=result.reason,
        )
        self.work.send(delayed, message)

    def _changed(self, account: Account, instruction: Instruction) -> None:
        self.accounts[account.order_id] = account
        if instruction.key not in self.new:
            self.instructions[instruction.key] = instruction

    def _suspend(self, message: Message[Result], verdict: Verdict, order_id: UUID | None) -> None:
        """Books money at once, whatever it is; the same movement told twice is one row."""
        result = message.data
        receipt_id = derived_id("receipt", result.bank, result.reference)
        if receipt_id in self.causes:
            return
        self.causes[receipt_id] = message
        self.suspense.append(
            Suspense(
                receipt_id=receipt_id,
                order_id=order_id,
                number=result.number,
                bank=result.bank,
                account=result.account,
                reference=result.reference,
                amount_fen=result.amount_fen,
                reason=verdict,
                booked_at=self.work.now,
                due_at=self.work.now,
            )
        )

    def keep(self, message: Message[Result], verdict: Verdict) -> None:
        """Keeps one result raw, with what became of it."""
        result = message.data
        self.raw.append(
            RawResult(
                id=message.id,
                order_id=result.order_id,
                number=result.number,
                kind=result.kind,
                outcome=result.outcome,
                amount_fen=result.amount_fen,
                bank=result.bank,
                reference=result.reference,
                reason=result.reason,
                happened_at=result.happened_at,
                received_at=self.work.now,
                verdict=verdict,
            )
        )

    async def write(self) -> None:
        """Each table once."""
        self.work.insert(BankResultRow, self.raw)
        await suspense.book(self.work, self.suspense, self.causes)
        ledger.post(self.work, self.transfers, self.accounts)
        self.work.insert(InstructionRow, list(self.new.values()))
        changed = [self.instructions[key] for key in sorted(self.instructions)]
        self.work.update(InstructionRow, changed, *INSTRUCTION_CHANGES)
        self.payees.write(self.work)
        answered = [self.settlements[key] for key in sorted(self.settlements)]
        self.work.update(SettlementRow, answered, *settlements.SETTLEMENT_CHANGES)
