"""The days on which offices work in 2026, written out from the State Council's notice. There is none for 2027 yet:
until then Monday to Friday count."""

from datetime import date, timedelta
from typing import Final


def _days(first: date, last: date) -> set[date]:
    return {first + timedelta(days=number) for number in range((last - first).days + 1)}


HOLIDAYS: Final = (
    _days(date(2026, 1, 1), date(2026, 1, 3))  # 元旦
    | _days(date(2026, 2, 15), date(2026, 2, 23))  # 春节
    | _days(date(2026, 4, 4), date(2026, 4, 6))  # 清明节
    | _days(date(2026, 5, 1), date(2026, 5, 5))  # 劳动节
    | _days(date(2026, 6, 19), date(2026, 6, 21))  # 端午节
    | _days(date(2026, 9, 25), date(2026, 9, 27))  # 中秋节
    | _days(date(2026, 10, 1), date(2026, 10, 7))  # 国庆节
)
WORKED: Final = {date(2026, *day) for day in ((1, 4), (2, 14), (2, 28), (5, 9), (9, 20), (10, 10))}
"""Saturdays and Sundays that are worked in exchange (调休)."""
SATURDAY: Final = 5


def is_working_day(day: date) -> bool:
    """Monday to Friday, less holidays, and what is worked in exchange."""
    return day in WORKED or (day.weekday() < SATURDAY and day not in HOLIDAYS)
