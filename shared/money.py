"""Money as integer fen (分): the two annotated types, the price of one lesson, yuan as people write it.

No float anywhere: 0.1 yuan has no exact float, and a supervised account (监管账户) must balance to the fen.
"""

import re
from typing import Annotated, Final

from pydantic import Field

MAX_FEN: Final = 10**12
"""Ten billion yuan: far above any real amount, and sums of millions of rows still fit bigint [ours]."""

Fen = Annotated[int, Field(strict=True, ge=0, le=MAX_FEN)]
"""An amount in fen, 0..10**12. Strict: a bool, float or string is a fault, never rounded or parsed."""

PositiveFen = Annotated[int, Field(strict=True, ge=1, le=MAX_FEN)]
"""As `Fen`, but not zero: what is paid, released or refunded."""

# [0-9], not \d: int() would read Arabic-Indic digits, which a bank's form does not.
_YUAN: Final = re.compile(r"(?:0|[1-9][0-9]{0,10}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,3})(?:\.([0-9]{1,2}))?")


def lesson_price_fen(total_fen: int, lessons: int, lesson_no: int) -> int:
    """The price in fen of lesson `lesson_no` (1-based) of `lessons` that cost `total_fen` together.

    `total_fen // lessons`; the last lesson takes the remainder, so that the prices add up to the total
    [ours]. This is what one release (拨付) moves. Raises ValueError outside 0 <= total, 1 <= lesson_no <=
    lessons.
    """
    if total_fen < 0 or lessons < 1 or not 1 <= lesson_no <= lessons:
        raise ValueError(f"no lesson {lesson_no} of {lessons} in a total of {total_fen} fen")
    each_fen, remainder_fen = divmod(total_fen, lessons)
    return each_fen + remainder_fen if lesson_no == lessons else each_fen


def yuan(fen: int) -> str:
    """`fen` as yuan for people: 123450 -> "1,234.50". A negative difference keeps its sign."""
    whole, cents = divmod(abs(fen), 100)
    return f"{'-' if fen < 0 else ''}{whole:,}.{cents:02d}"


def parse_yuan(text: str) -> int:
    """Fen from yuan as typed or printed: "1,234.5" -> 123450, exactly.

    Thousands separators only where they belong, at most two decimals, no sign, no currency mark.
    Raises ValueError for anything else, or above `MAX_FEN`.
    """
    found = _YUAN.fullmatch(text)
    if found is None:
        raise ValueError("not an amount in yuan")
    whole = text.partition(".")[0].replace(",", "")
    fen = int(whole) * 100 + int((found.group(1) or "").ljust(2, "0"))
    if fen > MAX_FEN:
        raise ValueError(f"more than {yuan(MAX_FEN)} yuan")
    return fen
