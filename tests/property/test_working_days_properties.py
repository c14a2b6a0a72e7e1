"""Working days: what holds for every start and every number of days."""

from datetime import UTC, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.working_days import (
    REMINDERS_FROM,
    REMINDERS_UNTIL,
    add_working_days,
    is_rest_day,
    is_working_day,
    next_waking_time,
    shanghai,
)

instants = st.datetimes(datetime(2020, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
counts = st.integers(1, 60)


@given(instants, counts, counts)
def test_more_working_days_never_end_earlier(start: datetime, n: int, m: int) -> None:
    assert (add_working_days(start, n) < add_working_days(start, m)) == (n < m)


@given(instants, st.timedeltas(timedelta(0), timedelta(days=40)), counts)
def test_a_later_start_never_ends_earlier(start: datetime, wait: timedelta, n: int) -> None:
    assert add_working_days(start, n) <= add_working_days(start + wait, n)


@given(instants, counts)
def test_a_deadline_is_shanghai_midnight_after_the_nth_working_day(start: datetime, n: int) -> None:
    due = add_working_days(start, n)
    assert due.tzinfo is UTC
    assert shanghai(due).time() == time()
    last = shanghai(due).date() - timedelta(days=1)
    assert is_working_day(last)
    day, counted = shanghai(start).date(), 0
    while day < last:
        day += timedelta(days=1)
        counted += is_working_day(day)
    assert counted == n


@given(instants, counts, counts)
def test_days_counted_in_two_steps_from_a_working_day_end_as_in_one(start: datetime, n: int, m: int) -> None:
    inside = add_working_days(start, n) - timedelta(seconds=1)
    assert add_working_days(inside, m) == add_working_days(start, n + m)


@given(instants)
def test_a_day_is_either_worked_or_rested(start: datetime) -> None:
    assert is_working_day(start.date()) != is_rest_day(start.date())


@given(instants)
def test_a_reminder_leaves_in_waking_hours_within_eleven_hours(start: datetime) -> None:
    sent = next_waking_time(start)
    assert REMINDERS_FROM <= shanghai(sent).time() < REMINDERS_UNTIL
    assert timedelta(0) <= sent - start <= timedelta(hours=11)
    assert next_waking_time(sent) == sent
