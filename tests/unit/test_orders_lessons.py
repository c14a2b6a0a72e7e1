"""The rules of a lesson: applied for after its end, answered once, never paid unless confirmed."""

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.orders.lessons import domain
from services.orders.lessons.domain import Lesson, Reminders
from services.orders.lessons.use_cases import answer_by, planned, reminders
from shared import policy
from shared.contracts.errors import Refused
from shared.policy import Category, Rule
from shared.working_days import SHANGHAI, add_working_days
from tests.unit.test_orders_contract import seat_reserved

ORDER_ID = UUID(int=1)
ENDS_AT = datetime(2026, 3, 2, 11, 0, tzinfo=UTC)
NOW = ENDS_AT + timedelta(hours=1)
DUE = ENDS_AT + timedelta(days=9)
PAID = DUE + timedelta(hours=1)
STATES = ("planned", "applied", "objected", "confirmed", "paid_out", "divided")


def lesson(state: str = "planned", **changes: Any) -> Lesson:
    """A lesson that was taught, as it came to `state`."""
    made = Lesson(ORDER_ID, 1, ENDS_AT - timedelta(hours=1), ENDS_AT, 10_000, state)
    if state != "planned":
        made.applied_at, made.answer_by = NOW, DUE
    if state in ("confirmed", "paid_out"):
        made.confirmed_by, made.answered_at = "guardian", NOW
    if state == "paid_out":
        made.paid_at = PAID
    if state in ("objected", "divided"):
        made.objection, made.answered_at = "没有上课", NOW
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def assert_refused(code: str, one: Lesson, decide: Any) -> Refused:
    before = deepcopy(one)
    with pytest.raises(Refused) as caught:
        decide(one)
    assert caught.value.code == code
    assert one == before, "a refusal changed the lesson"
    return caught.value


def test_a_new_lesson_is_planned_and_nobody_has_said_anything() -> None:
    new = Lesson(ORDER_ID, 1, ENDS_AT - timedelta(hours=1), ENDS_AT, 10_000)
    assert (new.state, new.confirmed_by, new.objection) == ("planned", "", "")
    assert (new.applied_at, new.answer_by, new.answered_at) == (None, None, None)
    assert new.subject == f"{ORDER_ID}:1"


# --- planned ------------------------------------------------------------------------------------------------------


def test_the_prices_of_the_planned_lessons_add_up_and_the_last_takes_the_remainder() -> None:
    plan = seat_reserved(count=3).model_dump(mode="json")["lessons"]
    lessons = planned(ORDER_ID, 10_000, plan)
    assert [one.price_fen for one in lessons] == [3333, 3333, 3334]
    assert [(one.lesson_no, one.starts_at, one.ends_at) for one in lessons] == [
        (time.lesson_no, time.starts_at, time.ends_at) for time in seat_reserved(count=3).lessons
    ]
    assert {(one.order_id, one.state, one.confirmed_by) for one in lessons} == {(ORDER_ID, "planned", "")}


# --- applied for --------------------------------------------------------------------------------------------------


def test_a_taught_lesson_is_applied_for_and_waits_for_its_guardian() -> None:
    one = lesson()
    assert domain.apply(one, DUE, NOW)
    assert one == lesson("applied")


def test_a_lesson_can_be_applied_for_at_its_very_end() -> None:
    assert domain.apply(lesson(), DUE, ENDS_AT)


def test_a_lesson_that_is_not_over_cannot_be_applied_for() -> None:
    a_moment_before = ENDS_AT - timedelta(microseconds=1)
    refused = assert_refused("lesson_not_over", lesson(), lambda one: domain.apply(one, DUE, a_moment_before))
    assert refused.figures == {"ends_at": ENDS_AT.isoformat()}


def test_applied_for_again_a_lesson_keeps_its_deadline() -> None:
    one = lesson("applied")
    assert not domain.apply(one, DUE + timedelta(days=1), NOW + timedelta(days=1))
    assert one == lesson("applied")


@pytest.mark.parametrize("state", ["objected", "confirmed", "paid_out", "divided"])
def test_a_lesson_that_was_answered_cannot_be_applied_for_again(state: str) -> None:
    refused = assert_refused("lesson_state", lesson(state), lambda one: domain.apply(one, DUE, NOW))
    assert refused.figures == {"state": state}


# --- confirmed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["applied", "objected"])
def test_a_guardian_confirms_what_waits_and_what_was_objected_to(state: str) -> None:
    one = lesson(state)
    later = NOW + timedelta(hours=3)
    assert domain.confirm(one, "guardian", later)
    assert (one.state, one.confirmed_by, one.answered_at, one.consumed) == ("confirmed", "guardian", later, True)


def test_silence_confirms_what_waits_and_is_known_for_ever() -> None:
    one = lesson("applied")
    assert domain.confirm(one, "silence", DUE)
    assert (one.state, one.confirmed_by) == ("confirmed", "silence")
    assert not domain.confirm(one, "guardian", DUE + timedelta(days=1))
    assert domain.paid_out(one, PAID)
    assert domain.came_back(one)
    assert (one.state, one.confirmed_by, one.answered_at) == ("confirmed", "silence", DUE)


def test_silence_never_confirms_what_was_objected_to() -> None:
    assert_refused("lesson_state", lesson("objected"), lambda one: domain.confirm(one, "silence", DUE))


def test_a_lesson_nobody_applied_for_cannot_be_confirmed() -> None:
    assert_refused("lesson_state", lesson(), lambda one: domain.confirm(one, "guardian", NOW))
    assert_refused("lesson_state", lesson(), lambda one: domain.confirm(one, "silence", NOW))


@pytest.mark.parametrize("state", ["confirmed", "paid_out"])
def test_confirmed_again_nothing_changes(state: str) -> None:
    one = lesson(state)
    assert not domain.confirm(one, "guardian", NOW + timedelta(days=1))
    assert not domain.confirm(one, "silence", NOW + timedelta(days=1))
    assert one == lesson(state)


# --- objected to --------------------------------------------------------------------------------------------------


def test_a_guardian_objects_with_a_reason() -> None:
    one = lesson("applied")
    assert domain.object_to(one, "没有上课", NOW)
    assert one == lesson("objected")
    assert not domain.object_to(one, "没有上课", NOW + timedelta(days=1)), "the same again changes nothing"
    assert one == lesson("objected")


def test_another_objection_is_refused() -> None:
    assert_refused("lesson_state", lesson("objected"), lambda one: domain.object_to(one, "换了老师", NOW))


@pytest.mark.parametrize("state", ["planned", "confirmed", "paid_out", "divided"])
def test_what_does_not_wait_cannot_be_objected_to(state: str) -> None:
    assert_refused("lesson_state", lesson(state), lambda one: domain.object_to(one, "没有上课", NOW))


# --- decided by the authority -------------------------------------------------------------------------------------


def test_an_authority_confirms_what_was_objected_to_and_that_is_known_for_ever() -> None:
    one = lesson("objected")
    assert domain.confirm(one, "authority", DUE)
    assert domain.paid_out(one, DUE)
    assert (one.state, one.confirmed_by, one.answered_at, one.consumed) == ("paid_out", "authority", DUE, True)


@pytest.mark.parametrize("state", ["planned", "applied", "divided"])
def test_an_authority_confirms_nothing_else(state: str) -> None:
    assert_refused("lesson_state", lesson(state), lambda one: domain.confirm(one, "authority", NOW))


def test_what_was_objected_to_is_divided_and_nobody_confirms_it_then() -> None:
    one = lesson("objected")
    domain.divide(one, 40, DUE)
    assert one == lesson("divided", answered_at=DUE, returned_fen=40)
    for by in domain.CONFIRMS:
        assert_refused("lesson_state", one, lambda one, by=by: domain.confirm(one, by, DUE))


@pytest.mark.parametrize("state", ["planned", "applied", "confirmed", "paid_out", "divided"])
def test_only_what_was_objected_to_is_divided(state: str) -> None:
    assert_refused("lesson_state", lesson(state), lambda one: domain.divide(one, 40, NOW))


# --- silence ------------------------------------------------------------------------------------------------------


def test_silence_begins_when_the_time_to_answer_is_over() -> None:
    assert domain.silent(lesson("applied"), DUE)
    assert not domain.silent(lesson("applied"), DUE - timedelta(microseconds=1))


@pytest.mark.parametrize("state", ["planned", "objected", "confirmed", "paid_out", "divided"])
def test_a_late_deadline_finds_nothing_to_do_where_nobody_is_waited_for(state: str) -> None:
    assert not domain.silent(lesson(state), DUE + timedelta(days=1))


def test_a_guardian_has_seven_working_days_from_the_day_after() -> None:
    thursday = datetime(2026, 3, 5, 19, 30, tzinfo=SHANGHAI)
    due = answer_by("changzhou", Category.SPORTS, thursday)
    assert due == datetime(2026, 3, 17, tzinfo=SHANGHAI), "6 and 9-13 and 16 March count, the end of the 16th is due"
    assert due == add_working_days(thursday, 7)
    assert due == answer_by("changzhou", Category.SPORTS, thursday.replace(hour=0, minute=0)), (
        "the hour changes nothing"
    )


@pytest.fixture
def region_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], str]:
    """Makes a region in which families have so many working days."""

    def made(name: str, days: int) -> str:
        rule = Rule(name, date(2026, 1, 1), "[local] a region's own", {"confirm_silence_working_days": days})
        monkeypatch.setattr(policy, "_PARENTS", {**policy._PARENTS, name: policy.NATION})
        monkeypatch.setattr(policy, "RULES", (*policy.RULES, rule))
        return name

    return made


@pytest.mark.parametrize("days", [1, 5, 15])
def test_a_region_has_its_own_days_of_silence(region_with: Callable[[str, int], str], days: int) -> None:
    region = region_with(f"silent-{days}", days)
    assert answer_by(region, Category.SPORTS, NOW) == add_working_days(NOW, days)
    assert answer_by("changzhou", Category.SPORTS, NOW) == add_working_days(NOW, 7)


def test_no_region_has_more_than_fifteen_days_of_silence(region_with: Callable[[str, int], str]) -> None:
    with pytest.raises(ValueError, match="cap"):
        answer_by(region_with("silent-16", 16), Category.SPORTS, NOW)


# --- reminders ----------------------------------------------------------------------------------------------------


def at(month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    """2026 in Shanghai."""
    return datetime(2026, month, day, hour, minute, tzinfo=SHANGHAI)


def filed(when: datetime, region: str = "changzhou") -> tuple[Lesson, Reminders]:
    """A lesson filed then, and its reminders."""
    one = lesson("applied", applied_at=when, answer_by=answer_by(region, Category.SPORTS, when))
    return one, reminders(region, Category.SPORTS, one)


def test_a_guardian_is_reminded_in_the_morning_of_the_third_and_of_the_last_working_day() -> None:
    one, times = filed(at(3, 5, 19, 30))
    assert one.answer_by == at(3, 17)
    assert times == Reminders(at(3, 10, 8), at(3, 16, 8))


def test_holidays_do_not_count_and_a_saturday_worked_in_exchange_does() -> None:
    one, times = filed(at(9, 30, 20))  # the eve of the National Day; 10 October is worked in exchange
    assert one.answer_by == at(10, 16)
    assert times == Reminders(at(10, 10, 8), at(10, 15, 8))


def test_what_is_filed_on_a_sunday_counts_from_monday_on() -> None:
    assert filed(at(3, 8, 10))[1] == Reminders(at(3, 11, 8), at(3, 17, 8))


@pytest.mark.parametrize(
    ("days", "third_day", "last_day"),
    [(1, None, at(3, 6, 8)), (3, None, at(3, 10, 8)), (4, at(3, 10, 8), at(3, 11, 8))],
)
def test_where_the_third_day_is_the_last_one_there_is_one_reminder(
    region_with: Callable[[str, int], str], days: int, third_day: datetime | None, last_day: datetime
) -> None:
    one, times = filed(at(3, 5, 19, 30), region_with(f"short-{days}", days))
    assert times == Reminders(third_day, last_day)
    assert times.after(at(3, 5, 19, 30)) == (third_day or last_day)
    assert times.after(last_day) is None
    assert domain.remind(one, times, last_day) == "last_day"
    assert domain.remind(one, times, last_day + timedelta(hours=1)) is None


def test_each_reminder_is_told_once_and_not_before_its_time() -> None:
    one, times = filed(at(3, 5, 19, 30))
    assert times.third_day is not None
    moment = timedelta(microseconds=1)
    told = [
        domain.remind(one, times, now)
        for day in (times.third_day, times.last_day)
        for now in (day - moment, day, day + moment)
    ]
    assert told == [None, "third_day", None, None, "last_day", None]
    assert one.reminded_at == times.last_day


def test_of_two_reminders_that_are_due_at_once_the_last_is_told() -> None:
    one, times = filed(at(3, 5, 19, 30))
    assert domain.remind(one, times, times.last_day + timedelta(hours=2)) == "last_day"
    assert domain.remind(one, times, times.last_day + timedelta(hours=3)) is None


@pytest.mark.parametrize("state", ["planned", "objected", "confirmed", "paid_out"])
def test_nobody_is_reminded_of_what_was_answered(state: str) -> None:
    times = filed(at(3, 5, 19, 30))[1]
    one = lesson(state)
    assert domain.remind(one, times, times.last_day) is None
    assert one == lesson(state)


@pytest.mark.parametrize(
    ("applied_at", "answered_at", "told"),
    [
        (at(3, 5, 19, 30), at(3, 5, 19, 31), False),
        (at(3, 5, 20, 54), at(3, 5, 22), False),
        (at(3, 5, 20, 56), at(3, 5, 22), True),
        (at(3, 5, 21, 30), at(3, 6, 7, 59), True),
        (at(3, 5, 21, 30), at(3, 6, 8), False),
        (at(3, 6, 2), at(3, 6, 7), True),
        (at(3, 6, 8), at(3, 6, 8, 1), False),
    ],
)
def test_an_answer_is_told_where_a_reminder_waits_for_the_morning(
    applied_at: datetime, answered_at: datetime, told: bool
) -> None:
    one = filed(applied_at)[0]
    assert domain.may_still_be_reminded(one, answered_at) == told


def test_what_nobody_has_filed_nobody_is_reminded_of() -> None:
    assert domain.may_still_be_reminded(lesson("planned"), at(3, 5, 22)) is False


def test_an_answer_is_told_where_a_later_reminder_was_given() -> None:
    one, times = filed(at(3, 5, 19, 30))
    assert times.third_day is not None
    domain.remind(one, times, times.third_day)
    assert domain.may_still_be_reminded(one, times.third_day + timedelta(days=2))


# --- paid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_only_what_was_confirmed_is_paid_out_and_only_what_was_paid_out_comes_back(state: str) -> None:
    assert domain.paid_out(lesson(state), PAID) == (state in ("confirmed", "divided"))
    assert domain.came_back(lesson(state)) == (state == "paid_out")


def test_of_a_divided_lesson_the_institution_receives_its_part_and_it_stays_divided() -> None:
    one = lesson("objected")
    domain.divide(one, 40, DUE)
    assert domain.released_fen(one) == 0
    assert domain.paid_out(one, PAID)
    assert not domain.paid_out(one, PAID)
    assert (one.state, one.paid_at, domain.released_fen(one)) == ("divided", PAID, one.price_fen - 40)
    assert domain.came_back(one)
    assert (one.state, one.paid_at, domain.released_fen(one)) == ("divided", None, 0)


def test_what_came_back_is_paid_again() -> None:
    one = lesson("confirmed")
    assert domain.paid_out(one, PAID)
    assert domain.came_back(one)
    assert one == lesson("confirmed")
    assert domain.paid_out(one, PAID)
    assert one == lesson("paid_out")


@pytest.mark.parametrize("state", STATES)
def test_what_was_released_is_what_the_institution_has_received(state: str) -> None:
    one = lesson(state)
    assert domain.released_fen(one) == (10_000 if state == "paid_out" else 0)
    if domain.came_back(one):
        assert (one.paid_at, domain.released_fen(one)) == (None, 0)


@pytest.mark.parametrize("state", STATES)
def test_consumed_is_what_was_confirmed(state: str) -> None:
    assert lesson(state).consumed == (state in ("confirmed", "paid_out"))


def test_of_an_institution_that_is_gone_an_untaught_lesson_goes_back_whole_and_once() -> None:
    one = lesson()
    assert domain.give_back(one, NOW)
    assert (one.state, one.returned_fen, one.answered_at) == ("divided", one.price_fen, NOW)
    assert not domain.give_back(one, NOW)


@pytest.mark.parametrize("state", ["applied", "confirmed", "objected", "paid_out", "refunding", "refunded"])
def test_a_lesson_that_was_filed_or_asked_back_does_not_go_back_by_itself(state: str) -> None:
    assert not domain.give_back(lesson(state), NOW)
    assert not domain.give_back(lesson(price_fen=0), NOW)
