"""How the stand-in bank can misbehave, and which behaviour meets an instruction. Pure; rows are set in `desk.py`."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args
from uuid import UUID

from shared.contracts.bank import Instruct, InstructionKind

Name = Literal[
    "slow",
    "refuse",
    "unknown",
    "silent",
    "repeat",
    "pay_twice",
    "wrong_amount",
    "accept_first",
    "return_after",
]
"""slow: answers after `seconds`. refuse: refuses with `reason`. unknown: does it and says it does not know.
silent: does it and says nothing. repeat: says the result twice. pay_twice: pays twice, under two references.
wrong_amount: collects `delta_fen` more or less. accept_first: accepts now, pays after `seconds`.
return_after: what it paid comes back after `seconds` (退票)."""

NAMES: Final[tuple[Name, ...]] = get_args(Name)
KINDS_OF: Final[dict[Name, frozenset[InstructionKind]]] = {
    "wrong_amount": frozenset({"collect"}),
    "return_after": frozenset({"payout", "refund"}),
}
"""Where a behaviour makes sense; those not named: everywhere."""

MONEY: Final[frozenset[Name]] = frozenset({"refuse", "pay_twice", "wrong_amount", "accept_first", "return_after"})
"""These change what is done, so they meet a number only the first time; the others change what is said, each time."""


@dataclass(slots=True)
class Behaviour:
    """One row: what to do, to which instructions, how many times still (None: until it is cleared)."""

    id: UUID
    name: Name
    kind: InstructionKind | Literal[""] = ""
    order_id: UUID | None = None
    number_prefix: str = ""
    percentage: int = 100
    times_left: int | None = 1
    seconds: float = 0.0
    delta_fen: int = 0
    reason: str = ""

    @property
    def rank(self) -> tuple[bool, int, bool, UUID]:
        """The narrowest comes first, among equals the oldest: so several for one order are met one after another."""
        return (self.order_id is None, -len(self.number_prefix), not self.kind, self.id)


def meet(active: Sequence[Behaviour], asked: Instruct, message_id: UUID, *, known: bool) -> Behaviour | None:
    """The behaviour that meets this instruction, one time of it used up. `known`: its number was done before.

    The percentage is decided by message id: a message tried again meets the same, an instruction asked again may not.
    """
    for behaviour in sorted(active, key=lambda b: b.rank):
        if _matches(behaviour, asked, message_id, known=known):
            if behaviour.times_left is not None:
                behaviour.times_left -= 1
            return behaviour
    return None


def _matches(behaviour: Behaviour, asked: Instruct, message_id: UUID, *, known: bool) -> bool:
    if behaviour.times_left == 0 or (known and behaviour.name in MONEY):
        return False
    if asked.kind not in KINDS_OF.get(behaviour.name, {asked.kind}) or behaviour.kind not in ("", asked.kind):
        return False
    if behaviour.order_id not in (None, asked.order_id) or not asked.number.startswith(behaviour.number_prefix):
        return False
    return _lot(behaviour.id, message_id) < behaviour.percentage


def _lot(behaviour_id: UUID, message_id: UUID) -> int:
    """0..99, evenly, the same for the same two."""
    digest = hashlib.blake2b(behaviour_id.bytes + message_id.bytes, digest_size=8).digest()
    return int.from_bytes(digest) % 100
