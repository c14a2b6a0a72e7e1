"""The rules of a lesson: applied for after its end, answered once, never paid unless confirmed."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.orders.lessons import domain
from services.orders.lessons.domain import Lesson
from services.orders.lessons.use_cases import answer_by, planned
from shared.contracts.errors import Refused
from shared.policy import Category
from shared.working_days import SHANGHAI, add_working_days
from tests.unit.test_orders_contract import seat_reserved

ORDER_ID = UUID(int=1)
ENDS_AT = datetime(2026, 3, 2, 11, 0, tzinfo=UTC)
NOW = ENDS_AT + timedelta(hours=1)
DUE = ENDS_AT + timedelta(days=9)
STATES = ("planned", "applied", "objected", "confirmed", "paid_out", "divided")


def lesson(state: str = "planned", **changes: Any) -> Lesson:
    """A lesson that was taught, as it came to `state`."""
    made = Lesson(ORDER_ID, 1, ENDS_AT - timedelta(hours=1), ENDS_AT, 10_000, state)
    if state != "planned":
        made.applied_at, made.answer_by = NOW, DUE
    if state in ("confirmed", "paid_out"):
        made.confirmed_by, made.answered_at = "guardian", NOW
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
    assert domain.paid_out(one)
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
    assert domain.paid_out(one)
    assert (one.state, one.confirmed_by, one.answered_at, one.consumed) == ("paid_out", "authority", DUE, True)


@pytest.mark.parametrize("state", ["planned", "applied", "divided"])
def test_an_authority_confirms_nothing_else(state: str) -> None:
    assert_refused("lesson_state", lesson(state), lambda one: domain.confirm(one, "authority", NOW))


def test_what_was_objected_to_is_divided_and_nobody_confirms_it_then() -> None:
    one = lesson("objected")
    domain.divide(one, DUE)
    assert one == lesson("divided", answered_at=DUE)
    for by in domain.CONFIRMS:
        assert_refused("lesson_state", one, lambda one, by=by: domain.confirm(one, by, DUE))


@pytest.mark.parametrize("state", ["planned", "applied", "confirmed", "paid_out", "divided"])
def test_only_what_was_objected_to_is_divided(state: str) -> None:
    assert_refused("lesson_state", lesson(state), lambda one: domain.divide(one, NOW))


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


# --- paid ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", STATES)
def test_only_what_was_confirmed_is_paid_out_and_only_what_was_paid_out_comes_back(state: str) -> None:
    assert domain.paid_out(lesson(state)) == (state == "confirmed")
    assert domain.came_back(lesson(state)) == (state == "paid_out")


def test_what_came_back_is_paid_again() -> None:
    one = lesson("confirmed")
    assert domain.paid_out(one)
    assert domain.came_back(one)
    assert one == lesson("confirmed")
    assert domain.paid_out(one)
    assert one == lesson("paid_out")


@pytest.mark.parametrize("state", STATES)
def test_consumed_is_what_was_confirmed(state: str) -> None:
    assert lesson(state).consumed == (state in ("confirmed", "paid_out"))
