"""What of an enrolled purchase is consumed, left and given back: one rule for every view. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

CONSUMED: Final = frozenset({"confirmed", "paid_out"})
"""States of a lesson whose fee is the institution's."""
GIVEN_BACK: Final = frozenset({"refunded"})
"""States of a lesson whose fee the guardian has back. A lesson in any other state is left, asked back or not."""


@dataclass(slots=True)
class Sums:
    """Lessons and fen; consumed + left + refunded is all of them."""

    consumed_lessons: int = 0
    consumed_fen: int = 0
    left_lessons: int = 0
    left_fen: int = 0
    refunded_lessons: int = 0
    refunded_fen: int = 0


def sums_of(lessons: Iterable[tuple[str, int, int]]) -> Sums:
    """The sums of `lessons`: (state, how many, their fen)."""
    sums = Sums()
    for state, count, fen in lessons:
        if state in CONSUMED:
            sums.consumed_lessons += count
            sums.consumed_fen += fen
        elif state in GIVEN_BACK:
            sums.refunded_lessons += count
            sums.refunded_fen += fen
        else:
            sums.left_lessons += count
            sums.left_fen += fen
    return sums
