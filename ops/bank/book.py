"""The rules of the stand-in bank, pure: what an instruction does to the book, and what is said of it.

The book is accounts and immutable entries. A number moves money once: asked again, the bank says again what it did.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from ops.bank.behaviour import Behaviour
from shared.contracts.bank import Instruct, InstructionKind, Outcome, Result
from shared.ids import derived_id
from shared.money import MAX_FEN

OUTSIDE: Final = ""
"""The account of the world outside: a payer's own bank. It has no row and no balance."""

Act = Literal["answer", "pay", "return"]
Key = tuple[str, str]
"""(bank, account), (bank, number) or (bank, reference)."""


@dataclass(slots=True)
class Account:
    """An account at a bank; `balance_fen` is never below zero."""

    bank: str
    account: str
    balance_fen: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing the bank did about a number, in the order of `step` from 0; see `tables.EntryRow`."""

    bank: str
    number: str
    step: int
    order_id: UUID | None
    kind: InstructionKind
    outcome: Outcome
    amount_fen: int
    from_account: str
    to_account: str
    refund_of: str | None
    reference: str
    reason: str
    happened_at: datetime

    @property
    def moved(self) -> bool:
        """Whether money moved."""
        return self.outcome in ("paid", "returned")


@dataclass(frozen=True, slots=True)
class Later:
    """Something to do about the number at `due_at`."""

    act: Act
    due_at: datetime


@dataclass(slots=True)
class Said:
    """What the bank says now, and what it puts off."""

    results: list[Result] = field(default_factory=list)
    later: list[Later] = field(default_factory=list)


class Book:
    """The part of the book that a batch needs. Changes are in `written` (entries) and `changed` (accounts)."""

    def __init__(self, accounts: Iterable[Account], entries: Iterable[Entry], refunds: Iterable[Entry] = ()) -> None:
        self._accounts: dict[Key, Account] = {(a.bank, a.account): a for a in accounts}
        self._entries: dict[Key, list[Entry]] = {}
        self._refunds: dict[Key, list[Entry]] = {}
        self._movements: dict[Key, Entry] = {}
        self.written: list[Entry] = []
        self._changed: set[Key] = set()
        known = {(e.bank, e.number, e.step): e for e in (*entries, *refunds)}
        for _, entry in sorted(known.items(), key=lambda item: item[0]):
            self._index(entry)

    @property
    def changed(self) -> list[Account]:
        """The accounts whose balance has changed, in the order of their key."""
        return [self._accounts[key] for key in sorted(self._changed)]

    def entries_of(self, bank: str, number: str) -> Sequence[Entry]:
        """What was done about a number, oldest first."""
        return self._entries.get((bank, number), ())

    # --- rules ------------------------------------------------------------------------------------------------------

    def instruct(self, asked: Instruct, behaviour: Behaviour | None, now: datetime) -> Said:
        """Does what `asked` says unless its number was done before, and says so, as `behaviour` will have it."""
        said = Said()
        if not self.entries_of(asked.bank, asked.number):
            self._begin(asked, behaviour, now, said)
        results = self._known(asked.bank, asked.number)
        name = behaviour.name if behaviour else ""
        if behaviour and name == "slow":
            said.later.append(Later("answer", now + timedelta(seconds=behaviour.seconds)))
        elif name == "unknown":
            said.results = [_unknown(asked, now)]
        elif name == "repeat":
            said.results = results + results
        elif name != "silent":
            said.results = results
        return said

    def act(self, bank: str, number: str, act: Act, now: datetime) -> Said:
        """Does what was put off. Late or done already, it changes nothing; an unknown number says nothing."""
        entries = self.entries_of(bank, number)
        if not entries:
            return Said()
        last = entries[-1]
        if act == "answer":
            return Said(self._known(bank, number))
        if act == "pay" and last.outcome == "accepted":
            reason = self._shortage(last, last.amount_fen)
            entry = self._write(last, "refused" if reason else "paid", now, reason=reason)
            return Said([told(entry)])
        if act == "return" and last.outcome == "paid" and self._balance(bank, last.to_account) >= last.amount_fen:
            entry = self._write(last, "returned", now, reason="account_closed")
            return Said([told(entry)])
        return Said()

    def _begin(self, asked: Instruct, behaviour: Behaviour | None, now: datetime, said: Said) -> None:
        name = behaviour.name if behaviour else ""
        asked = self._in_full(asked)
        first = _first(asked, now)
        reason = self._fault(asked, now)
        if behaviour and name == "refuse" and not reason:
            reason = behaviour.reason or "refused_by_bank"
        if reason:
            self._write(first, "refused", now, reason=reason)
            return
        if behaviour and name == "accept_first":
            self._write(first, "accepted", now)
            said.later.append(Later("pay", now + timedelta(seconds=behaviour.seconds)))
            return
        amount = asked.amount_fen
        if behaviour and name == "wrong_amount":
            amount = min(max(amount + behaviour.delta_fen, 1), MAX_FEN)
        paid = self._write(first, "paid", now, amount_fen=amount)
        if name == "pay_twice" and not self._shortage(paid, amount):
            self._write(first, "paid", now)
        if behaviour and name == "return_after":
            said.later.append(Later("return", now + timedelta(seconds=behaviour.seconds)))

    def _in_full(self, asked: Instruct) -> Instruct:
        """A refund of one movement, with the number under which that came, and the account if it was not named."""
        came = self._movements.get((asked.bank, asked.refund_reference))
        if asked.kind != "refund" or came is None:
            return asked
        account = asked.supervised_account or came.to_account
        return asked.model_copy(update={"refund_of": came.number, "supervised_account": account})

    def _fault(self, asked: Instruct, now: datetime) -> str:
        """Why the bank cannot do it, or nothing."""
        if asked.supervised_account == OUTSIDE:
            return "account_unknown"
        if asked.kind == "collect":
            return "expired" if asked.valid_until is not None and asked.valid_until <= now else ""
        if asked.kind == "payout" and asked.counter_account in (OUTSIDE, asked.supervised_account):
            return "counter_account_invalid"
        if asked.kind == "refund":
            came = [e for e in self.entries_of(asked.bank, asked.refund_of) if _came_in(e)]
            named = [e for e in came if asked.refund_reference in ("", e.reference)]
            if not any(e.to_account == asked.supervised_account for e in named):
                return "refund_of_unknown"
            if asked.amount_fen > sum(e.amount_fen for e in named):
                return "refund_exceeds_collection"
            left = sum(e.amount_fen for e in came) - self._paid_back(asked.bank, asked.refund_of)
            if asked.amount_fen > left:
                return "refund_exceeds_collection"
        return self._shortage(_first(asked, now), asked.amount_fen)

    def _shortage(self, entry: Entry, amount_fen: int) -> str:
        if entry.from_account == OUTSIDE or self._balance(entry.bank, entry.from_account) >= amount_fen:
            return ""
        return "insufficient_balance"

    def _paid_back(self, bank: str, collected: str) -> int:
        """What refunds of a collection have taken, less what came back of them."""
        refunds = self._refunds.get((bank, collected), ())
        return sum({"paid": e.amount_fen, "returned": -e.amount_fen}.get(e.outcome, 0) for e in refunds)

    def _known(self, bank: str, number: str) -> list[Result]:
        """All there is to say of a number: an acceptance only while nothing has followed it."""
        entries = self.entries_of(bank, number)
        return [told(e) for e in entries if e.outcome != "accepted" or e is entries[-1]]

    # --- the book itself --------------------------------------------------------------------------------------------

    def _balance(self, bank: str, account: str) -> int:
        """What can leave an account; the world outside always has enough."""
        return MAX_FEN if account == OUTSIDE else self._accounts[bank, account].balance_fen

    def _write(
        self, like: Entry, outcome: Outcome, now: datetime, *, amount_fen: int | None = None, reason: str = ""
    ) -> Entry:
        """A new entry about the number of `like`, and the money it moves; a return goes the other way."""
        step = len(self.entries_of(like.bank, like.number))
        back = outcome == "returned"
        entry = Entry(
            bank=like.bank,
            number=like.number,
            step=step,
            order_id=like.order_id,
            kind=like.kind,
            outcome=outcome,
            amount_fen=like.amount_fen if amount_fen is None else amount_fen,
            from_account=like.to_account if back else like.from_account,
            to_account=like.from_account if back else like.to_account,
            refund_of=like.refund_of,
            reference=_reference(like.bank, like.number, step),
            reason=reason,
            happened_at=now,
        )
        if entry.moved:
            self._move(entry.bank, entry.from_account, -entry.amount_fen)
            self._move(entry.bank, entry.to_account, entry.amount_fen)
        self._index(entry)
        self.written.append(entry)
        return entry

    def _move(self, bank: str, account: str, amount_fen: int) -> None:
        if account != OUTSIDE:
            self._accounts[bank, account].balance_fen += amount_fen
            self._changed.add((bank, account))

    def _index(self, entry: Entry) -> None:
        self._entries.setdefault((entry.bank, entry.number), []).append(entry)
        self._movements[entry.bank, entry.reference] = entry
        if entry.refund_of:
            self._refunds.setdefault((entry.bank, entry.refund_of), []).append(entry)


def accounts_of(asked: Instruct) -> list[Key]:
    """The accounts an instruction may move money on."""
    names = [asked.supervised_account] + ([asked.counter_account] if asked.kind == "payout" else [])
    return [(asked.bank, name) for name in names if name != OUTSIDE]


def told(entry: Entry) -> Result:
    """An entry in the bank's words. Told again, it is the same to the letter."""
    return Result(
        order_id=entry.order_id,
        number=entry.number,
        kind=entry.kind,
        outcome=entry.outcome,
        amount_fen=entry.amount_fen,
        bank=entry.bank,
        reference=entry.reference,
        account=entry.to_account if _came_in(entry) else "",
        reason=entry.reason,
        happened_at=entry.happened_at,
    )


def money_in(
    bank: str,
    supervised_account: str,
    number: str,
    amount_fen: int,
    now: datetime,
    *,
    step: int = 0,
    order_id: UUID | None = None,
) -> Entry:
    """Money that comes in without an instruction: the entry for it."""
    return Entry(
        bank=bank,
        number=number,
        step=step,
        order_id=order_id,
        kind="collect",
        outcome="paid",
        amount_fen=amount_fen,
        from_account=OUTSIDE,
        to_account=supervised_account,
        refund_of=None,
        reference=_reference(bank, number, step),
        reason="",
        happened_at=now,
    )


def _came_in(entry: Entry) -> bool:
    return entry.kind == "collect" and entry.outcome == "paid"


def _first(asked: Instruct, now: datetime) -> Entry:
    """The instruction in the form of an entry: from where to where. A form only, it is never written."""
    supervised = asked.supervised_account
    return Entry(
        bank=asked.bank,
        number=asked.number,
        step=0,
        order_id=asked.order_id,
        kind=asked.kind,
        outcome="accepted",
        amount_fen=asked.amount_fen,
        from_account=OUTSIDE if asked.kind == "collect" else supervised,
        to_account={"collect": supervised, "payout": asked.counter_account, "refund": OUTSIDE}[asked.kind],
        refund_of=asked.refund_of if asked.kind == "refund" and asked.refund_of else None,
        reference="",
        reason="",
        happened_at=now,
    )


def _unknown(asked: Instruct, now: datetime) -> Result:
    """The bank does not know whether it did it. The reference is of no movement, so it never looks like one."""
    return Result(
        order_id=asked.order_id,
        number=asked.number,
        kind=asked.kind,
        outcome="unknown",
        amount_fen=asked.amount_fen,
        bank=asked.bank,
        reference=_reference(asked.bank, asked.number, "unknown"),
        reason="timeout",
        happened_at=now,
    )


def _reference(bank: str, number: str, step: int | str) -> str:
    """The bank's own number (银行流水号): the same for the same step, whoever tries the batch again."""
    return f"B{derived_id('bank', bank, number, step).hex}"
