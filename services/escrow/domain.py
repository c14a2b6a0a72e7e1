"""The rules of escrow, pure: accounts, transfers, instructions, and what a bank's answer means.

Every function first refuses, then changes the state objects it was given and says what must go out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from shared.contracts.errors import Refused
from shared.ids import instruction_number
from shared.money import lesson_price_fen

Balance = Literal["paid", "held", "releasing", "released", "refunding", "refunded"]
Kind = Literal["collect", "payout", "refund"]

PENDING: Final = 1
RESOLVED: Final = 2

ASK_AGAIN_AFTER: Final = timedelta(minutes=5)
"""The first time an instruction without a final answer is asked again; doubled each time [ours]."""
ASK_AGAIN_AT_MOST: Final = timedelta(hours=6)
RETRY_REFUSED_AFTER: Final = timedelta(minutes=30)
"""When a refused or returned payment is first tried with a new number; doubled each time [ours]."""
RETRY_REFUSED_AT_MOST: Final = timedelta(days=1)
MOST_ATTEMPTS: Final = 35
"""One base-36 digit of the number: a month of tries; after that a person must act."""

LETTER: Final[dict[Kind, str]] = {"collect": "C", "payout": "P", "refund": "R"}
KIND_OF_LETTER: Final[dict[str, Kind]] = {"C": "collect", "P": "payout", "R": "refund"}


@dataclass(slots=True)
class Account:
    """The supervised money of one order (fen). paid = held + releasing + released + refunding + refunded, always.

    `state` says how its payment and its one refund stand; `given_back` are the lessons whose fee goes back to the
    guardian, whatever the contract lets the institution keep of it: nothing is ever released for them.
    """

    order_id: UUID
    account_id: UUID
    institution_id: UUID
    bank: str
    supervised_account: str
    payout_account: str
    price_fen: int
    lessons: int
    method: str
    pay_by: datetime
    opened_at: datetime
    state: str = "collecting"
    reason: str = ""
    paid_reference: str = ""
    suspensions: int = 0
    given_back: list[int] = field(default_factory=list)
    paid_fen: int = 0
    held_fen: int = 0
    releasing_fen: int = 0
    released_fen: int = 0
    refunding_fen: int = 0
    refunded_fen: int = 0


@dataclass(slots=True, frozen=True)
class Transfer:
    """One movement: `amount_fen` leaves balance `debit` of the order and enters `credit`. Its first five fields are
    what it is for, and its key."""

    order_id: UUID
    lesson_no: int
    kind: str
    turn: int
    phase: int
    debit: str
    credit: str
    amount_fen: int
    made_at: datetime


@dataclass(slots=True)
class Instruction:
    """What the bank was told for one purpose: lesson 0 is the whole order, and of payouts what the institution keeps
    of a refund. `attempt` grows after a definite refusal,
    `turn` each time a payment that was made came back; `returned` are the references of those."""

    order_id: UUID
    lesson_no: int
    kind: Kind
    amount_fen: int
    changed_at: datetime
    attempt: int = 0
    turn: int = 0
    state: str = "sent"
    reference: str = ""
    asks: int = 0
    returned: list[str] = field(default_factory=list)

    @property
    def key(self) -> tuple[UUID, int, str]:
        """The primary key."""
        return self.order_id, self.lesson_no, self.kind

    @property
    def number(self) -> str:
        """The number under which the bank knows the present attempt."""
        return instruction_number(LETTER[self.kind], self.order_id, self.lesson_no, self.attempt)


@dataclass(slots=True, frozen=True)
class Purpose:
    """What a number stands for."""

    kind: Kind
    order_id: UUID
    lesson_no: int
    attempt: int


def purpose_of(number: str) -> Purpose | None:
    """The purpose written in `number`; None for a number that is not one of ours."""
    kind = KIND_OF_LETTER.get(number[:1])
    if kind is None or len(number) != 30 or not number.isascii() or not number.isalnum() or number != number.upper():
        return None
    order = int(number[1:26], 36)
    if order >= 1 << 128:
        return None
    return Purpose(kind, UUID(int=order), int(number[26:29], 36), int(number[29], 36))


def move(account: Account, transfer: Transfer) -> None:
    """Applies a transfer to the balances in hand. Raises Refused escrow_insufficient before anything is changed."""
    if transfer.debit == transfer.credit or transfer.amount_fen <= 0:
        raise ValueError(f"not a transfer: {transfer}")
    if transfer.debit == "outside":
        account.paid_fen += transfer.amount_fen
    else:
        left = getattr(account, f"{transfer.debit}_fen") - transfer.amount_fen
        if left < 0:
            raise Refused("escrow_insufficient", missing_fen=-left)
        setattr(account, f"{transfer.debit}_fen", left)
    name = f"{transfer.credit}_fen"
    setattr(account, name, getattr(account, name) + transfer.amount_fen)


def hold(account: Account, reference: str, now: datetime) -> Transfer:
    """The whole fee has arrived: it is held (outside → held). `reference` is the bank's own number of the payment."""
    transfer = Transfer(account.order_id, 0, "hold", 0, RESOLVED, "outside", "held", account.price_fen, now)
    move(account, transfer)
    account.state = "held"
    account.paid_reference = reference
    return transfer


PAID: Final = frozenset({"held", "refunding", "refunded"})
"""States of an order whose fee has come."""


def release(
    account: Account, existing: Instruction | None, lesson_no: int, now: datetime, *, frozen: bool = False
) -> Instruction | None:
    """One lesson's fee is released: the payout instruction to write, `waiting` while a complaint holds the order or its
    institution is `frozen`.

    None when the lesson has been released before: a repeated command changes nothing. Raises Refused: lesson_unknown,
    order_state, lesson_settled (its fee goes back to the guardian), amount_invalid, escrow_insufficient.
    """
    if existing is not None:
        return None
    amount = _price(account, lesson_no)
    if amount == 0:
        raise Refused("amount_invalid", "the price of this lesson is 0 fen")
    _require_held(account, amount, lesson_no)
    return _payout(account, lesson_no, amount, now, frozen)


def divide(
    account: Account,
    decided: Sequence[Instruction],
    lesson_no: int,
    release_fen: int,
    now: datetime,
    *,
    frozen: bool = False,
) -> list[Instruction]:
    """The authority's decision on one lesson: `release_fen` of its price to the institution, the rest to the guardian.

    `decided` are the instructions that stand for this lesson already: the same decision again changes nothing (no
    instructions), another is refused lesson_settled. Also Refused: lesson_unknown, order_state, amount_invalid (more
    than the price), escrow_insufficient.
    """
    if decided:
        if sum(one.amount_fen for one in decided if one.kind == "payout") != release_fen:
            raise Refused("lesson_settled")
        return []
    price = _price(account, lesson_no)
    if not 0 <= release_fen <= price or price == 0:
        raise Refused("amount_invalid", price_fen=price)
    _require_held(account, price, lesson_no)
    new: list[Instruction] = []
    if release_fen:
        new.append(_payout(account, lesson_no, release_fen, now, frozen))
    else:
        account.given_back = [*account.given_back, lesson_no]
    if release_fen < price:
        new.append(Instruction(account.order_id, lesson_no, "refund", price - release_fen, now))
    return new


def refund(
    account: Account,
    existing: Instruction | None,
    decided: Iterable[int],
    lessons: Sequence[int],
    deduction_fen: int,
    reason: str,
    now: datetime,
    *,
    frozen: bool = False,
) -> list[Instruction]:
    """The one refund of an order: the fee of `lessons`, less `deduction_fen`, which the institution keeps.

    No `lessons` means all that nothing was decided about; `decided` are the others (released, divided). Returns the
    refund and, if there is a deduction, its payout; nothing when there is nothing (more) to send back or it was asked
    before. Raises Refused: lesson_settled (one of the lessons was decided), lesson_unknown, refund_exists (other
    lessons went back before), amount_invalid (the deduction leaves nothing to send back), order_state.
    """
    if existing is not None:
        if not set(lessons) <= set(account.given_back):
            raise Refused("refund_exists")
        return []
    settled = {*decided, *account.given_back}
    if not lessons:
        lessons = [number for number in range(1, account.lessons + 1) if number not in settled]
    clash = sorted(settled.intersection(lessons))
    if clash:
        raise Refused("lesson_settled", lesson_no=clash[0])
    amount = sum(_price(account, number) for number in lessons)
    if amount == 0:
        return []
    if deduction_fen >= amount:
        raise Refused("amount_invalid", fee_fen=amount)
    if amount > account.held_fen:
        raise Refused("escrow_insufficient", missing_fen=amount - account.held_fen)
    account.given_back = [*account.given_back, *lessons]
    new: list[Instruction] = []
    if deduction_fen:
        new.append(_payout(account, 0, deduction_fen, now, frozen))
    account.state = "refunding"
    account.reason = reason
    new.append(Instruction(account.order_id, 0, "refund", amount - deduction_fen, now))
    return new


def _price(account: Account, lesson_no: int) -> int:
    if not 1 <= lesson_no <= account.lessons:
        raise Refused("lesson_unknown", lessons=account.lessons)
    if account.state not in PAID:
        raise Refused("order_state", state=account.state)
    return lesson_price_fen(account.price_fen, account.lessons, lesson_no)


def _require_held(account: Account, amount_fen: int, lesson_no: int) -> None:
    if lesson_no in account.given_back:
        raise Refused("lesson_settled", lesson_no=lesson_no)
    if amount_fen > account.held_fen:
        raise Refused("escrow_insufficient", missing_fen=amount_fen - account.held_fen)


def _payout(account: Account, lesson_no: int, amount_fen: int, now: datetime, frozen: bool) -> Instruction:
    """A payout, which waits while a complaint holds the order or its institution is frozen."""
    state = "waiting" if account.suspensions or frozen else "sent"
    return Instruction(account.order_id, lesson_no, "payout", amount_fen, now, state=state)


def start(account: Account, instruction: Instruction, now: datetime) -> Transfer:
    """Money starts moving (held → releasing or refunding), pending until the bank has paid."""
    payout = instruction.kind == "payout"
    transfer = Transfer(
        account.order_id,
        instruction.lesson_no,
        "release" if payout else "refund",
        instruction.turn,
        PENDING,
        "held",
        "releasing" if payout else "refunding",
        instruction.amount_fen,
        now,
    )
    move(account, transfer)
    instruction.state = "sent"
    instruction.changed_at = now
    return transfer


def fail_payment(account: Account, reason: str) -> bool:
    """The fee is not expected any more. False when it was held, or given up, before."""
    if account.state != "collecting":
        return False
    account.state = "failed"
    account.reason = reason
    return True


# --- what a bank's answer means ---------------------------------------------------------------------------------------

Verdict = Literal[
    "applied",
    "noted",  # accepted or unknown: not final, the number will be asked again
    "repeated",
    "stale",  # about an attempt or a state that has passed
    "unknown_number",
    "wrong_amount",
    "late",
    "double",
    "conflict",  # contradicts what is booked: a person must look
]
SUSPENSE: Final[frozenset[str]] = frozenset({"unknown_number", "wrong_amount", "late", "double"})


@dataclass(slots=True, frozen=True)
class Answer:
    """A bank's result as the rules see it."""

    outcome: str
    attempt: int
    amount_fen: int
    reference: str
    reason: str


def judge_unknown(kind: str, answer: Answer) -> Verdict:
    """What an answer to an instruction that was never given means: money that came is suspense, money that went is for
    a person."""
    return "conflict" if answer.outcome == "paid" and kind != "collect" else "unknown_number"


def judge_collect(account: Account, instruction: Instruction, answer: Answer) -> Verdict:
    """What an answer to a collection means. `applied`: the caller holds (paid) or fails (refused) the payment."""
    if answer.outcome in ("accepted", "unknown"):
        return "noted"
    if answer.outcome == "paid":
        if account.paid_reference:
            return "repeated" if answer.reference == account.paid_reference else "double"
        if account.state != "collecting":
            return "late"
        if answer.attempt != instruction.attempt:
            return "unknown_number"
        return "applied" if answer.amount_fen == account.price_fen else "wrong_amount"
    if answer.outcome == "refused":
        if account.state == "collecting":
            return "applied" if answer.attempt == instruction.attempt else "stale"
        return "repeated" if account.state == "failed" else "conflict"
    return "conflict"


def conclude(instruction: Instruction, answer: Answer, now: datetime) -> bool:
    """The bank has given its final answer to a collection, and it is not what was waited for: the payment was given up
    meanwhile, or another amount came. Nothing is asked any more; what came is suspense."""
    if instruction.state != "sent" or answer.attempt != instruction.attempt:
        return False
    if answer.outcome not in ("paid", "refused"):
        return False
    instruction.state = "dropped"
    instruction.changed_at = now
    return True


def judge_outgoing(instruction: Instruction, answer: Answer) -> Verdict:
    """What an answer to a payout or refund means; `applied`: the caller books it."""
    if answer.outcome in ("accepted", "unknown"):
        return "noted"
    if answer.outcome == "paid" and answer.reference in instruction.returned:
        return "repeated"  # of a payment that was booked, and came back since
    if answer.attempt != instruction.attempt:
        # A number that was definitely refused is dead. That it was paid after all is for a person.
        return "conflict" if answer.outcome == "paid" else "stale"
    if answer.outcome == "paid":
        if instruction.reference == answer.reference:
            return "repeated"
        as_told = instruction.state == "sent" and answer.amount_fen == instruction.amount_fen
        return "applied" if as_told else "conflict"
    if answer.outcome == "refused":
        return {"sent": "applied", "refused": "repeated"}.get(instruction.state, "conflict")  # type: ignore[return-value]
    if answer.outcome == "returned":
        if instruction.state == "refused":
            return "stale"
        as_told = instruction.state == "paid" and answer.amount_fen == instruction.amount_fen
        return "applied" if as_told else "conflict"  # a payment nobody told of cannot come back
    return "conflict"


def settle(account: Account, instruction: Instruction, reference: str, now: datetime) -> Transfer:
    """The bank has paid: the pending movement is posted (releasing → released, or refunding → refunded)."""
    payout = instruction.kind == "payout"
    transfer = Transfer(
        account.order_id,
        instruction.lesson_no,
        "release" if payout else "refund",
        instruction.turn,
        RESOLVED,
        "releasing" if payout else "refunding",
        "released" if payout else "refunded",
        instruction.amount_fen,
        now,
    )
    move(account, transfer)
    instruction.state = "paid"
    instruction.reference = reference
    instruction.changed_at = now
    if not payout and instruction.lesson_no == 0:
        account.state = "refunded"
    return transfer


def come_back(account: Account, instruction: Instruction, now: datetime) -> Transfer:
    """A payment that was made came back (退票): a new pending movement the other way, to be paid under a new number."""
    payout = instruction.kind == "payout"
    instruction.turn += 1
    transfer = Transfer(
        account.order_id,
        instruction.lesson_no,
        "release" if payout else "refund",
        instruction.turn,
        PENDING,
        "released" if payout else "refunded",
        "releasing" if payout else "refunding",
        instruction.amount_fen,
        now,
    )
    move(account, transfer)
    instruction.state = "refused"
    instruction.returned = [*instruction.returned, instruction.reference]
    instruction.reference = ""
    instruction.changed_at = now
    if not payout and instruction.lesson_no == 0:
        account.state = "refunding"
    return transfer


def next_ask(instruction: Instruction) -> timedelta:
    """How long to wait for the bank before the instruction is looked at again."""
    if instruction.state == "refused":
        return min(RETRY_REFUSED_AFTER * (1 << min(instruction.attempt, 10)), RETRY_REFUSED_AT_MOST)
    # A clamp before the power: the count has no limit.
    return min(ASK_AGAIN_AFTER * (1 << min(instruction.asks, 10)), ASK_AGAIN_AT_MOST)


def would_still_collect(account: Account, instruction: Instruction, now: datetime) -> bool:
    """Asked again what became of a payment that was given up, a bank that has not collected it would do so: until its
    window is over."""
    return instruction.kind == "collect" and account.state != "collecting" and now <= account.pay_by


def ask_again(instruction: Instruction, now: datetime) -> bool:
    """No final answer in time: the same number again after an unknown outcome, a new one after a definite refusal.

    False when there is nothing to ask: it is paid, waits for a complaint, has no attempts left, or is a collection that
    was refused.
    """
    if instruction.state == "refused":
        if instruction.attempt >= MOST_ATTEMPTS or instruction.kind == "collect":
            return False
        instruction.attempt += 1
        instruction.asks = 0
        instruction.state = "sent"
    elif instruction.state == "sent":
        instruction.asks += 1
    else:
        return False
    instruction.changed_at = now
    return True
