"""What of an enrolled purchase is consumed, left and given back: one rule for every view. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from services.orders.lessons.domain import CONSUMED

GIVEN_BACK: Final = frozenset({"refunded"})
"""States of a lesson whose fee the guardian has back. A lesson in any other state is left, asked back or not; but for
`divided` ones, of whose fee each side has a part: given back as a lesson, and each part as money."""


@dataclass(slots=True)
class Sums:
    """Lessons and fen; consumed + left + refunded is all of them."""

    consumed_lessons: int = 0
    consumed_fen: int = 0
    left_lessons: int = 0
    left_fen: int = 0
    refunded_lessons: int = 0
    refunded_fen: int = 0


def sums_of(lessons: Iterable[tuple[str, int, int, int]]) -> Sums:
    """The sums of `lessons`: (state, how many, their fen, what of that went back where they were divided)."""
    sums = Sums()
    for state, count, fen, returned_fen in lessons:
        if state == "divided":
            sums.refunded_lessons += count
            sums.refunded_fen += returned_fen
            sums.consumed_fen += fen - returned_fen
        elif state in CONSUMED:
            sums.consumed_lessons += count
            sums.consumed_fen += fen
        elif state in GIVEN_BACK:
            sums.refunded_lessons += count
            sums.refunded_fen += fen
        else:
            sums.left_lessons += count
            sums.left_fen += fen
    return sums
