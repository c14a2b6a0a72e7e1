"""Identifiers: UUIDv7 made when a row is written, UUIDv5 derived from what a thing is for, short numbers for banks."""

import functools
from typing import Final
from uuid import UUID, uuid5

import uuid_utils.compat

_BASE36: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PAIRS: Final = [high + low for high in _BASE36 for low in _BASE36]
_UUID_BASE36_LENGTH: Final = 25  # 36**25 > 2**128

NAMESPACE: Final = UUID("6f7a3b1e-5d0c-5c8a-9a51-1b6d7c0e2f40")


def new_id() -> UUID:
    """A new UUIDv7: unique, and in the order of its making within one process."""
    return uuid_utils.compat.uuid7()


def derived_id(*parts: object) -> UUID:
    """The same UUID for the same `parts`, always: the primary key of a thing that may be asked for twice."""
    return uuid5(NAMESPACE, "\x1f".join(map(str, parts)))


def base36(number: int, width: int) -> str:
    """`number` in base 36, upper case, padded with zeros to `width`. Raises ValueError when it does not fit."""
    if not 0 <= number < 36**width:
        raise ValueError(f"{number} does not fit {width} base-36 digits")
    pairs: list[str] = []
    rest = number
    while rest:
        rest, pair = divmod(rest, 36 * 36)
        pairs.append(_PAIRS[pair])
    return "".join(reversed(pairs)).lstrip("0").rjust(width, "0")


@functools.lru_cache(4096)
def instruction_number(kind: str, order_id: UUID, lesson_no: int, attempt: int) -> str:
    """The number of a bank instruction: one letter, the order, the lesson, the attempt; 30 ASCII characters.

    Deterministic, so that every retry after an unknown outcome carries the same number (DOMAIN.md, lessons and
    release); `attempt` grows only after a definite refusal. `lesson_no` 0 means the whole order.
    """
    if len(kind) != 1:
        raise ValueError("the kind of an instruction is one letter")
    return kind + base36(order_id.int, _UUID_BASE36_LENGTH) + base36(lesson_no, 3) + base36(attempt, 1)
