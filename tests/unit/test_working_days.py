"""Working days of 2026 with its shifted days (调休), deadlines, waking hours, and the end of the calendar."""

from datetime import UTC, date, datetime, timedelta

import pytest

from shared.working_days import (
    SHANGHAI,
    add_working_days,
    horizon,
    horizon_alarm,
    is_rest_day,
    is_working_day,
    next_waking_time,
    shanghai,
    spring_festival,
    until_words,
)


def local(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    """A Shanghai wall-clock time as an instant in UTC."""
    return datetime(year, month, day, hour, minute, tzinfo=SHANGHAI).astimezone(UTC)


@pytest.mark.parametrize(
    "day",
    [date(2026, 1, 4), date(2026, 2, 14), date(2026, 2, 28), date(2026, 5, 9), date(2026, 9, 20), date(2026, 10, 10)],
)
def test_a_weekend_worked_in_exchange_is_a_working_day_and_no_rest_day(day: date) -> None:
    assert day.weekday() >= 5
    assert is_working_day(day)
    assert not is_rest_day(day)


@pytest.mark.parametrize(
    "day",
    [date(2026, 1, 2), date(2026, 2, 23), date(2026, 4, 6), date(2026, 5, 5), date(2026, 6, 19), date(2026, 10, 7)],
)
def test_a_weekday_inside_a_holiday_is_a_rest_day(day: date) -> None:
    assert day.weekday() < 5
    assert is_rest_day(day)


def test_the_spring_festival_is_its_holidays_from_the_first_to_the_last_of_a_known_year() -> None:
    assert spring_festival(2026) == (date(2026, 2, 15), date(2026, 2, 23))
    assert spring_festival(2025) == (date(2025, 1, 28), date(2025, 2, 4))
    assert spring_festival(horizon().year + 1) is None


def test_ordinary_weekdays_and_weekends_are_what_they_look_like() -> None:
    assert is_working_day(date(2026, 11, 23))
    assert is_rest_day(date(2026, 11, 21))
    assert is_rest_day(date(2026, 11, 22))


def test_seven_working_days_over_national_day_skip_the_holiday_and_count_the_shifted_saturday() -> None:
    # Taught on Wednesday 30 September; 8, 9, 10 (worked Saturday), 12, 13, 14, 15 October are the seven.
    assert add_working_days(local(2026, 9, 30, 18), 7) == local(2026, 10, 16)


def test_a_deadline_is_the_end_of_the_last_day_not_its_beginning() -> None:
    due = add_working_days(local(2026, 11, 23, 9), 1)
    assert shanghai(due) == datetime(2026, 11, 25, tzinfo=SHANGHAI)
    assert shanghai(due - timedelta(microseconds=1)).date() == date(2026, 11, 24)


def test_the_hour_of_the_start_changes_nothing() -> None:
    early, late = local(2026, 11, 23, 0, 0), local(2026, 11, 23, 23, 59)
    assert add_working_days(early, 3) == add_working_days(late, 3)


def test_the_start_day_is_judged_in_shanghai_not_in_utc() -> None:
    # 17:00 UTC on Monday is already Tuesday in Shanghai.
    assert add_working_days(datetime(2026, 11, 23, 17, tzinfo=UTC), 1) == local(2026, 11, 26)


def test_something_filed_on_saturday_counts_from_monday() -> None:
    assert add_working_days(local(2026, 11, 21, 12), 1) == local(2026, 11, 24)


@pytest.mark.parametrize("n", [0, -1, 401])
def test_a_period_outside_its_limits_is_a_mistake(n: int) -> None:
    with pytest.raises(ValueError, match="working days"):
        add_working_days(local(2026, 11, 23), n)


def test_a_period_may_be_as_long_as_the_limit() -> None:
    assert add_working_days(local(2026, 1, 5), 400) > local(2027, 7, 1)


def test_a_naive_time_is_refused_everywhere() -> None:
    naive = datetime(2026, 11, 23)  # noqa: DTZ001
    for function in (shanghai, next_waking_time):
        with pytest.raises(ValueError, match="time zone"):
            function(naive)
    with pytest.raises(ValueError, match="time zone"):
        add_working_days(naive, 1)


def test_after_the_horizon_monday_to_friday_count_and_nothing_raises() -> None:
    new_year = date(horizon().year + 1, 1, 1)
    assert is_working_day(new_year) == (new_year.weekday() < 5)
    assert add_working_days(local(horizon().year, 12, 20), 30) > local(horizon().year + 1, 1, 1)


def test_the_calendar_covers_2026() -> None:
    assert horizon() >= date(2026, 12, 31)


def test_the_alarm_rings_before_the_calendar_ends_and_after() -> None:
    assert horizon_alarm(horizon() - timedelta(days=60)) is None
    soon = horizon_alarm(horizon() - timedelta(days=59))
    assert soon is not None
    assert "59 days" in soon
    today = horizon_alarm(horizon())
    assert today is not None
    assert "ends in 0 days" in today
    over = horizon_alarm(horizon() + timedelta(days=1))
    assert over is not None
    assert "ended 1 days ago" in over
    over = horizon_alarm(horizon() + timedelta(days=3))
    assert over is not None
    assert "ended 3 days ago" in over


def test_a_reminder_in_the_daytime_goes_out_at_once() -> None:
    for hour in (8, 12, 20):
        assert next_waking_time(local(2026, 11, 23, hour)) == local(2026, 11, 23, hour)


def test_a_reminder_at_night_waits_for_eight() -> None:
    assert next_waking_time(local(2026, 11, 23, 7, 59)) == local(2026, 11, 23, 8)
    assert next_waking_time(local(2026, 11, 23, 21)) == local(2026, 11, 24, 8)
    assert next_waking_time(local(2026, 11, 30, 23, 30)) == local(2026, 12, 1, 8)


@pytest.mark.parametrize(
    ("moment", "words"),
    [
        ("2026-12-02T16:00:00+00:00", "12月2日24时"),
        ("2026-12-02T15:59:00+00:00", "12月2日23:59"),
        ("2026-12-02T16:01:00+00:00", "12月3日00:01"),
        ("2026-12-31T16:00:00+00:00", "12月31日24时"),
        ("2026-03-01T02:05:00+00:00", "3月1日10:05"),
    ],
)
def test_midnight_is_read_as_the_end_of_the_day_before(moment: str, words: str) -> None:
    assert until_words(datetime.fromisoformat(moment)) == words


def test_a_deadline_without_a_time_zone_is_not_put_into_words() -> None:
    with pytest.raises(ValueError, match="time zone"):
        until_words(datetime(2026, 12, 2))  # noqa: DTZ001
