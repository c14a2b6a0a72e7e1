"""The rules of escrow, pure: accounts, transfers, instructions, and what a bank's answer means.

Every function first refuses, then changes the state objects it was given and says what must go out.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from shared.contracts.errors import Refused
from shared.ids import instruction_number
from shared.money import MAX_FEN, lesson_price_fen

Kind = Literal["collect", "payout", "refund", "return"]
"""What a bank is told to do; `return`: money in suspense goes back to where it came from."""

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

LETTER: Final[dict[Kind, str]] = {"collect": "C", "payout": "P", "refund": "R", "return": "S"}
KIND_OF_LETTER: Final[dict[str, Kind]] = {letter: kind for kind, letter in LETTER.items()}
GATHERED: Final = "G"
"""The letter of a gathered payout's number: of a settlement, not of an order."""


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
    district: str = ""


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
    of a refund. `attempt` grows after a definite refusal, `turn` each time a payment that was made came back;
    `returned` are the references of those. Of a `return`, the order is the receipt in suspense. In state `gathered` the
    bank is not told of it, but of the settlement it is in."""

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
    counter_account: str | None = None
    """Where a payout of this attempt goes, if not to the account's own payout account."""

    @property
    def key(self) -> tuple[UUID, int, str]:
        """The primary key."""
        return self.order_id, self.lesson_no, self.kind

    @property
    def number(self) -> str:
        """The number under which the bank knows the present attempt."""
        return instruction_number(LETTER[self.kind], self.order_id, self.lesson_no, self.attempt)

    @property
    def subject(self) -> str:
        """What its timer is known by, whatever the attempt."""
        return f"{self.order_id}:{self.kind}:{self.lesson_no}"


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
    parts = _parts(number)
    return Purpose(kind, *parts) if kind and parts else None


def settlement_of(number: str) -> tuple[UUID, int] | None:
    """The settlement and the attempt written in the `number` of a gathered payout; None for any other number."""
    parts = _parts(number)
    if parts is None or number[:1] != GATHERED or parts[1] != 0:
        return None
    return parts[0], parts[2]


def _parts(number: str) -> tuple[UUID, int, int] | None:
    if len(number) != 30 or not number.isascii() or not number.isalnum() or number != number.upper():
        return None
    subject = int(number[1:26], 36)
    if subject >= 1 << 128:
        return None
    return UUID(int=subject), int(number[26:29], 36), int(number[29], 36)


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


def start(account: Account, instruction: Instruction, now: datetime, *, gathered: bool = False) -> Transfer:
    """Money starts moving (held → releasing or refunding), pending until the bank has paid; `gathered` with others of
    its institution, or each at once."""
    moving, _ = _balances(instruction)
    transfer = _moved(account, instruction, PENDING, "held", moving, now)
    instruction.state = "gathered" if gathered else "sent"
    instruction.changed_at = now
    return transfer


def _balances(instruction: Instruction) -> tuple[str, str]:
    """Where money of a payout or refund is on its way, and where it is when the bank has paid."""
    return ("releasing", "released") if instruction.kind == "payout" else ("refunding", "refunded")


def _moved(account: Account, instruction: Instruction, phase: int, debit: str, credit: str, now: datetime) -> Transfer:
    """A movement of a payout or refund, applied to the account."""
    kind = "release" if instruction.kind == "payout" else "refund"
    purpose = (account.order_id, instruction.lesson_no, kind, instruction.turn, phase)
    transfer = Transfer(*purpose, debit, credit, instruction.amount_fen, now)
    move(account, transfer)
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
    "short",
    "over",
    "late",  # the time to pay was over
    "dead",  # the payment was refused, or given up before its time was over
    "double",
    "foreign",  # at another bank, or in another supervised account, than the order's
    "conflict",  # contradicts what is booked: a person must look
]
SUSPENSE: Final[frozenset[str]] = frozenset({"unknown_number", "short", "over", "late", "dead", "double", "foreign"})
"""What is booked as suspense when it is said of money that came: late, twice, in another amount, for an unknown or dead
order; never lost and never swallowed [law: 预收费须全额进入监管账户; the words: ours]."""


@dataclass(slots=True, frozen=True)
class Answer:
    """A bank's result as the rules see it."""

    outcome: str
    attempt: int
    amount_fen: int
    reference: str
    reason: str


def judge_unknown(kind: str, answer: Answer, *, elsewhere: bool = False) -> Verdict:
    """What an answer to an instruction that was never given means, or `elsewhere`, to another bank or account: money
    that came is suspense, money that went is for a person."""
    if answer.outcome != "paid":
        return "unknown_number"
    if kind != "collect":
        return "conflict"
    return "foreign" if elsewhere else "unknown_number"


def judge_collect(account: Account, instruction: Instruction, answer: Answer) -> Verdict:
    """What an answer to a collection means. `applied`: the caller holds (paid) or fails (refused) the payment."""
    if answer.outcome in ("accepted", "unknown"):
        return "noted"
    if answer.outcome == "paid":
        if account.paid_reference:
            return "repeated" if answer.reference == account.paid_reference else "double"
        if account.state != "collecting":
            return "late" if account.reason == "expired" else "dead"
        if answer.attempt != instruction.attempt:
            return "unknown_number"
        if answer.amount_fen == account.price_fen:
            return "applied"
        return "short" if answer.amount_fen < account.price_fen else "over"
    if answer.outcome == "refused":
        if answer.attempt != instruction.attempt:
            return "stale"
        if account.state == "collecting":
            return "applied"
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


def judge_outgoing(instruction: "Instruction | Settlement", answer: Answer) -> Verdict:
    """What an answer to a payout (of a lesson, or gathered) or refund means; `applied`: the caller books it."""
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
        told_before: Verdict = "repeated" if instruction.state == "refused" else "conflict"
        return "applied" if instruction.state == "sent" else told_before
    if answer.outcome == "returned":
        if instruction.state in ("refused", "dropped"):
            return "stale"
        as_told = instruction.state == "paid" and answer.amount_fen == instruction.amount_fen
        return "applied" if as_told else "conflict"  # a payment nobody told of cannot come back
    return "conflict"


def settle(account: Account, instruction: Instruction, reference: str, now: datetime) -> Transfer:
    """The bank has paid: the pending movement is posted (releasing → released, or refunding → refunded)."""
    moving, there = _balances(instruction)
    transfer = _moved(account, instruction, RESOLVED, moving, there, now)
    instruction.state = "paid"
    instruction.reference = reference
    instruction.changed_at = now
    if (instruction.kind, instruction.lesson_no) == ("refund", 0):
        account.state = "refunded"
    return transfer


def come_back(account: Account, instruction: Instruction, now: datetime, *, gathered: bool = False) -> Transfer:
    """A payment that was made came back (退票): a new pending movement the other way, to be paid under a new number,
    its own or that of the settlement in which it was `gathered`."""
    instruction.turn += 1
    moving, there = _balances(instruction)
    transfer = _moved(account, instruction, PENDING, there, moving, now)
    instruction.state = "gathered" if gathered else "refused"
    instruction.returned = [*instruction.returned, instruction.reference]
    instruction.reference = ""
    instruction.changed_at = now
    if (instruction.kind, instruction.lesson_no) == ("refund", 0):
        account.state = "refunding"
    return transfer


def next_ask(instruction: "Instruction | Settlement") -> timedelta:
    """How long to wait for the bank before the instruction is looked at again."""
    if instruction.state == "refused":
        return min(RETRY_REFUSED_AFTER * (1 << min(instruction.attempt, 10)), RETRY_REFUSED_AT_MOST)
    # A clamp before the power: the count has no limit.
    return min(ASK_AGAIN_AFTER * (1 << min(instruction.asks, 10)), ASK_AGAIN_AT_MOST)


def would_still_collect(account: Account, instruction: Instruction, now: datetime) -> bool:
    """Asked again what became of a payment that was given up, a bank that has not collected it would do so: until its
    window is over."""
    return instruction.kind == "collect" and account.state != "collecting" and now <= account.pay_by


def ask_again(instruction: "Instruction | Settlement", now: datetime) -> bool:
    """No final answer in time: the same number again after an unknown outcome, a new one after a definite refusal.

    False when there is nothing to ask: it is paid, waits for a complaint, is gathered, has no attempts left, or is a
    collection that was refused.
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


# --- money in suspense ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Suspense:
    """Money that came and belongs nowhere (挂账), one movement at a bank: open → matched, or → returning → returned.

    `account` is the supervised account it came to, where the bank told it; `order_id` the order it named. What was
    decided is `decision`, by `decided_by`. Returned money that comes back once more is open again.
    """

    receipt_id: UUID
    order_id: UUID | None
    number: str
    bank: str
    account: str
    reference: str
    amount_fen: int
    reason: str
    booked_at: datetime
    due_at: datetime
    state: str = "open"
    matched_order_id: UUID | None = None
    decided_by: str = ""
    decision: str = ""
    decided_at: datetime | None = None


def match(account: Account, collect: Instruction, money: Suspense, now: datetime) -> Transfer:
    """The money is the order's fee: held as if it had come as asked (outside → held).

    Raises Refused: suspense_state (decided before), suspense_elsewhere, order_state (it is paid), amount_invalid (not
    exactly the price).
    """
    _require_open(money)
    if account.bank != money.bank or money.account not in ("", account.supervised_account):
        raise Refused("suspense_elsewhere", bank=account.bank, supervised_account=account.supervised_account)
    if account.state not in ("collecting", "failed"):
        raise Refused("order_state", state=account.state)
    if account.price_fen != money.amount_fen:
        raise Refused("amount_invalid", price_fen=account.price_fen, amount_fen=money.amount_fen)
    transfer = hold(account, money.reference, now)
    account.reason = ""
    collect.state, collect.reference, collect.changed_at = "paid", money.reference, now
    collect.attempt += 1  # under the number the bank was told nothing is waited for any more, whatever it says of it
    money.state, money.matched_order_id = "matched", account.order_id
    return transfer


def give_back(money: Suspense, existing: Instruction | None, now: datetime) -> Instruction | None:
    """The money goes back to where it came from: the instruction to give; None when it is on its way already.

    Raises Refused: suspense_state (matched, or returned), suspense_attempts (sent back too often, and it came again).
    """
    if money.state == "returning":
        return None
    _require_open(money)
    if existing is None:
        existing = Instruction(money.receipt_id, 0, "return", money.amount_fen, now)
    elif existing.attempt >= MOST_ATTEMPTS:
        raise Refused("suspense_attempts", attempts=existing.attempt + 1)
    else:  # it came back: the number under which it went is used up
        existing.attempt += 1
        existing.state, existing.asks, existing.changed_at = "sent", 0, now
    money.state = "returning"
    return existing


def gone_back(money: Suspense, instruction: Instruction, answer: Answer, now: datetime) -> None:
    """The bank's answer to a return, which `judge_outgoing` has found to be `applied`."""
    instruction.changed_at = now
    if answer.outcome == "paid":
        instruction.state, instruction.reference = "paid", answer.reference
        money.state = "returned"
    elif answer.outcome == "returned":  # nothing is asked of the bank until a person has decided anew
        instruction.turn += 1
        instruction.returned = [*instruction.returned, instruction.reference]
        instruction.state, instruction.reference = "dropped", ""
        money.state = "open"
    elif instruction.attempt >= MOST_ATTEMPTS:  # no number is left: a person decides anew
        instruction.state, money.state = "dropped", "open"
    else:
        instruction.state = "refused"


def _require_open(money: Suspense) -> None:
    if money.state != "open":
        raise Refused("suspense_state", state=money.state)


def next_try(instruction: Instruction) -> datetime | None:
    """When a payment that was refused is tried anew, or one without an answer is asked again; None when never."""
    if instruction.state == "refused" and instruction.attempt >= MOST_ATTEMPTS:
        return None
    return instruction.changed_at + next_ask(instruction)


# --- gathered payouts: one for many lessons of an institution ---------------------------------------------------------


@dataclass(slots=True)
class Gathered:
    """A lesson whose fee goes out together with others; of one settlement once it is closed, and for ever. It may go
    with those of the same bank, supervised account and payout account only."""

    order_id: UUID
    lesson_no: int
    institution_id: UUID
    bank: str
    supervised_account: str
    payout_account: str
    amount_fen: int
    gathered_at: datetime
    settlement_id: UUID | None = None


@dataclass(slots=True)
class Settlement:
    """A gathered payout: what the bank was told, and how it stands; attempts, turns and returns as an instruction's.

    `booked_step` is the last step (`step`) that all its lessons have followed: they do so some at a time.
    """

    settlement_id: UUID
    institution_id: UUID
    bank: str
    supervised_account: str
    payout_account: str
    amount_fen: int
    lessons: int
    closed_at: datetime
    changed_at: datetime
    number: str
    attempt: int = 0
    turn: int = 0
    state: str = "sent"
    reference: str = ""
    reason: str = ""
    asks: int = 0
    returned: list[str] = field(default_factory=list)
    booked_step: int = 0

    @property
    def kind(self) -> Kind:
        """As an instruction's."""
        return "payout"

    @property
    def step(self) -> int:
        """How many times money has moved: paid, come back, paid again …"""
        return 2 * self.turn + (self.state == "paid")


def gathered_number(settlement_id: UUID, attempt: int) -> str:
    """The number under which the bank knows an attempt of a gathered payout; 30 characters as all others."""
    return instruction_number(GATHERED, settlement_id, 0, attempt)


def first_settlement(open_lessons: Sequence[Gathered], most: int) -> list[Gathered]:
    """Those of `open_lessons`, sorted by their accounts, that go out first in one sum: of the same two accounts, `most`
    of them, and no more than a payout may be."""
    first = open_lessons[0]
    alike = itertools.takewhile(
        lambda one: (one.supervised_account, one.payout_account) == (first.supervised_account, first.payout_account),
        open_lessons[:most],
    )
    chosen: list[Gathered] = []
    amount = 0
    for one in alike:
        amount += one.amount_fen
        if amount > MAX_FEN:
            break
        chosen.append(one)
    return chosen


def close(settlement_id: UUID, chosen: Sequence[Gathered], now: datetime) -> Settlement:
    """What was gathered goes out: the settlement of `chosen`, which from now on are in it."""
    first = chosen[0]
    for one in chosen:
        one.settlement_id = settlement_id
    return Settlement(
        settlement_id=settlement_id,
        institution_id=first.institution_id,
        bank=first.bank,
        supervised_account=first.supervised_account,
        payout_account=first.payout_account,
        amount_fen=sum(one.amount_fen for one in chosen),
        lessons=len(chosen),
        closed_at=now,
        changed_at=now,
        number=gathered_number(settlement_id, 0),
    )


def answer_settlement(settlement: Settlement, answer: Answer, now: datetime) -> None:
    """A bank's answer that `judge_outgoing` has found to be new."""
    settlement.reason = answer.reason
    settlement.changed_at = now
    if answer.outcome == "paid":
        settlement.state = "paid"
        settlement.reference = answer.reference
        return
    settlement.state = "refused"
    if answer.outcome == "returned":
        settlement.turn += 1
        settlement.returned = [*settlement.returned, settlement.reference]
        settlement.reference = ""


def follow(account: Account, instruction: Instruction, settlement: Settlement, now: datetime) -> list[Transfer]:
    """A lesson follows its settlement, over as many steps as it is behind: paid, come back, paid again … The transfers
    to post, none if it is there."""
    transfers: list[Transfer] = []
    while (step := 2 * instruction.turn + (instruction.state == "paid")) < settlement.step:
        if step % 2:
            transfers.append(come_back(account, instruction, now, gathered=True))
        else:
            references = [*settlement.returned, settlement.reference]
            transfers.append(settle(account, instruction, references[instruction.turn], now))
    return transfers
