"""Working days (工作日) of the State Council's calendar with shifted days (调休), and Shanghai time.

Instants come in and go out as aware datetimes in UTC; every judgement is made on the Shanghai calendar. The
calendar is data of the library chinesecalendar and ends with a year; `horizon_alarm` says when it runs out.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from chinese_calendar import constants as calendar_data

SHANGHAI: Final = ZoneInfo("Asia/Shanghai")

MAX_WORKING_DAYS: Final = 400
"""Longest period counted, in working days: a clock beyond a year is a mistake, not a rule [ours]."""

REMINDERS_FROM: Final = time(8)
REMINDERS_UNTIL: Final = time(21)
"""Reminders (提醒) are sent from 08:00 until before 21:00 Shanghai time [DOMAIN: SMS]."""

# The library's own is_workday() looks for the smallest and largest key on every call; a midnight batch
# calls it millions of times. The same data as two sets answers in constant time.
_HOLIDAY_NAMES: Final[Mapping[date, str]] = calendar_data.holidays
_HOLIDAYS: Final[frozenset[date]] = frozenset(_HOLIDAY_NAMES)
_SHIFTED_WORKDAYS: Final[frozenset[date]] = frozenset(calendar_data.workdays)
_HORIZON: Final = date(max(_HOLIDAYS).year, 12, 31)


def shanghai(instant: datetime) -> datetime:
    """The same instant on the Shanghai clock. Raises ValueError for a naive datetime."""
    if instant.tzinfo is None:
        raise ValueError("a datetime without a time zone is not an instant")
    return instant.astimezone(SHANGHAI)


def is_working_day(day: date) -> bool:
    """Whether offices work on `day` (a Shanghai date): Monday to Friday, less holidays, plus 调休.

    [law: the State Council's yearly notice]. After `horizon()` and before the data, Monday to Friday count
    [ours].
    """
    return day in _SHIFTED_WORKDAYS or (day.weekday() < 5 and day not in _HOLIDAYS)


def is_rest_day(day: date) -> bool:
    """Whether `day` (a Shanghai date) is a rest day or public holiday (休息日、法定节假日).

    A Saturday worked in exchange (调休) is not one: schools are open on it.
    """
    return not is_working_day(day)


@lru_cache(maxsize=64)
def spring_festival(year: int) -> tuple[date, date] | None:
    """The first and the last day of that year's holidays of 春节, None for a year whose holidays are not known."""
    days = [day for day, name in _HOLIDAY_NAMES.items() if day.year == year and name == "Spring Festival"]
    return (min(days), max(days)) if days else None


@lru_cache(maxsize=4096)
def _nth_working_day(after: date, n: int) -> date:
    """The n-th working day after the date `after`, which itself does not count."""
    day = after
    while n:
        day += timedelta(days=1)
        n -= is_working_day(day)
    return day


def add_working_days(start: datetime, n: int) -> datetime:
    """The end, in UTC, of the n-th working day after the Shanghai date of `start`.

    The day something happens does not count, the count begins the day after (民法典 201), and the last day
    ends at 24:00 (民法典 203) [law]. So the answer is the first instant that is too late: 00:00 Shanghai of
    the next day. The hour of `start` therefore changes nothing, and nobody loses a day by acting in the
    evening. Raises ValueError for a naive `start` or n outside 1..400.
    """
    if not 1 <= n <= MAX_WORKING_DAYS:
        raise ValueError(f"{n} working days is outside 1..{MAX_WORKING_DAYS}")
    last = _nth_working_day(shanghai(start).date(), n)
    return datetime.combine(last + timedelta(days=1), time(), SHANGHAI).astimezone(UTC)


def horizon() -> date:
    """The last date whose holidays are known."""
    return _HORIZON


def horizon_alarm(today: date, days: int = 60) -> str | None:
    """What to tell the operator when fewer than `days` calendar days of known holidays are left, else None.

    Deadlines already reach past the horizon before it is reached, so the alarm comes early [ours: 60 days].
    """
    left = (_HORIZON - today).days
    if left >= days:
        return None
    state = f"ends in {left} days" if left >= 0 else f"ended {-left} days ago"
    return (
        f"the working-day calendar {state} ({_HORIZON}): after it Monday to Friday count as working days, "
        "holidays included; upgrade chinesecalendar once the State Council's notice (November) is in it"
    )


def until_words(moment: datetime) -> str:
    """A deadline as people read it on the Shanghai clock: “12月2日10:15”. Midnight is 24时 of the day before.

    Raises ValueError for a naive datetime.
    """
    local = shanghai(moment)
    if local.time() == time():
        day = local.date() - timedelta(days=1)
        return f"{day.month}月{day.day}日24时"
    return f"{local.month}月{local.day}日{local:%H:%M}"


def next_waking_time(instant: datetime, opens: time = REMINDERS_FROM, closes: time = REMINDERS_UNTIL) -> datetime:
    """`instant` itself if reminders may be sent then (opens <= Shanghai < closes), else the next `opens`.

    Raises ValueError for a naive `instant`.
    """
    local = shanghai(instant)
    if opens <= local.time() < closes:
        return instant
    day = local.date() if local.time() < opens else local.date() + timedelta(days=1)
    return datetime.combine(day, opens, SHANGHAI).astimezone(UTC)
