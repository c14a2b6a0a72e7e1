"""The rules of an objection: the institution answers in time, the authority decides once, no wait is unseen."""

from collections.abc import Callable
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any

import pytest

from services.orders.lessons.domain import Lesson
from services.orders.objections import domain
from services.orders.objections.domain import Objection
from shared.contracts.errors import Refused
from shared.policy import ObjectionClocks, policy_for
from shared.working_days import SHANGHAI
from tests.unit.test_orders_lessons import NOW, ORDER_ID, lesson

CLOCKS = ObjectionClocks()
MONDAY = datetime(2026, 3, 2, 19, 0, tzinfo=SHANGHAI)
ANSWER_BY = datetime(2026, 3, 10, tzinfo=SHANGHAI)
"""The end of the 9th: 3, 4, 5, 6 and 9 March."""
DECIDE_BY = datetime(2026, 3, 24, tzinfo=SHANGHAI)
"""The end of the 15th working day after that Monday."""
SECOND = timedelta(seconds=1)
ANSWER, WHY = "已安排补课", "双方各有责任"

Pair = tuple[Objection, Lesson]


def objection(state: str = "raised", **changes: Any) -> Objection:
    """An objection as it came to `state`."""
    made = Objection(ORDER_ID, 1, "没有上课", "照片 7", MONDAY, ANSWER_BY, state)
    if state in ("answered", "unanswered", "decided"):
        made.decide_by = DECIDE_BY
    if state in ("answered", "decided"):
        made.answer, made.answered_at = ANSWER, MONDAY
    if state == "decided":
        made.decision, made.release_fen, made.decision_reason = "split", 4_000, WHY
        made.decided_by, made.decider, made.decided_at = "authority", "changzhou-edu", MONDAY
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def assert_refused(code: str, one: Objection, of: Lesson, decide: Callable[[Objection, Lesson], Any]) -> Refused:
    before = deepcopy((one, of))
    with pytest.raises(Refused) as caught:
        decide(one, of)
    assert caught.value.code == code
    assert (one, of) == before, "a refusal changed something"
    return caught.value


def decides(decision: Any = "split", part_fen: int = 4_000, why: str = WHY) -> Callable[[Objection, Lesson], bool]:
    return lambda one, of: domain.decide(one, of, decision, part_fen, why, "changzhou-edu", MONDAY)


def answers(text: str = ANSWER) -> Callable[[Objection, Lesson], bool]:
    return lambda one, of: domain.answer(one, text, CLOCKS, MONDAY)


def accepts(text: str = "") -> Callable[[Objection, Lesson], bool]:
    return lambda one, of: domain.accept(one, of, text, "institution-1", MONDAY)


# --- raised -------------------------------------------------------------------------------------------------------


def test_a_new_objection_gives_the_institution_five_working_days() -> None:
    of = lesson("applied")
    new = domain.raise_objection(None, of, "没有上课", "照片 7", CLOCKS, MONDAY)
    assert new == objection()
    assert (new.act_by, new.returned_fen(of.price_fen)) == (ANSWER_BY, 0)
    assert (new.state, new.answer, new.overdue, new.release_fen) == ("raised", "", 0, 0)
    assert (new.decision, new.decision_reason, new.decided_by, new.decider) == ("", "", "", "")
    assert (of.state, of.objection, of.answered_at) == ("objected", "没有上课", MONDAY)


def test_the_same_objection_again_is_no_other() -> None:
    of, known = lesson("objected"), objection()
    assert domain.raise_objection(known, of, "没有上课", "照片 7", CLOCKS, MONDAY) is None
    assert (of, known) == (lesson("objected"), objection())


@pytest.mark.parametrize(("reason", "evidence"), [("没有上课", "照片 8"), ("没有上课", ""), ("换了老师", "照片 7")])
def test_another_reason_or_other_evidence_is_refused(reason: str, evidence: str) -> None:
    assert_refused(
        "lesson_state",
        objection(),
        lesson("objected"),
        lambda one, of: domain.raise_objection(one, of, reason, evidence, CLOCKS, MONDAY),
    )


@pytest.mark.parametrize("state", ["planned", "confirmed", "paid_out", "divided"])
def test_a_lesson_that_does_not_wait_is_not_objected_to(state: str) -> None:
    with pytest.raises(Refused, match="lesson_state"):
        domain.raise_objection(None, lesson(state), "没有上课", "", CLOCKS, MONDAY)


# --- answered -----------------------------------------------------------------------------------------------------


def test_an_answer_makes_it_the_authoritys_turn_for_fifteen_working_days() -> None:
    one, of = objection(), lesson("objected")
    assert answers()(one, of)
    assert one == objection("answered")
    assert (one.act_by, of) == (DECIDE_BY, lesson("objected"))


@pytest.mark.parametrize("state", ["answered", "decided"])
def test_the_same_answer_again_changes_nothing(state: str) -> None:
    one = objection(state)
    assert not answers()(one, lesson())
    assert one == objection(state)


@pytest.mark.parametrize("state", ["answered", "unanswered", "decided", "withdrawn"])
def test_another_answer_and_one_that_comes_too_late_are_refused(state: str) -> None:
    refused = assert_refused("objection_state", objection(state), lesson("objected"), answers("老师生病"))
    assert refused.figures == {"state": state}


def test_an_answer_that_says_nothing_is_refused() -> None:
    refused = assert_refused("request_invalid", objection(), lesson("objected"), answers(""))
    assert [error.field for error in refused.errors] == ["text"]


# --- accepted -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["raised", "answered", "unanswered"])
def test_an_institution_may_give_the_fee_back_as_long_as_nothing_is_decided(state: str) -> None:
    one, of = objection(state), lesson("objected")
    assert accepts("老师生病，同意退还")(one, of)
    assert (one.state, one.decision, one.release_fen, one.decided_by) == ("decided", "return", 0, "institution")
    assert (one.decision_reason, one.decider, one.decided_at) == ("老师生病，同意退还", "institution-1", MONDAY)
    assert (one.act_by, one.returned_fen(of.price_fen), of.state) == (None, of.price_fen, "divided")
    assert (of.returned_fen, of.answered_at) == (of.price_fen, MONDAY)
    assert one.answer == objection(state).answer, "what it said before stays"
    before = deepcopy((one, of))
    assert not accepts("老师生病，同意退还")(one, of), "the same again changes nothing"
    assert (one, of) == before
    assert_refused("objection_state", one, of, accepts("另一理由"))


@pytest.mark.parametrize("state", ["decided", "withdrawn"])
def test_what_is_over_cannot_be_accepted(state: str) -> None:
    assert_refused("objection_state", objection(state), lesson("divided"), accepts())


# --- decided ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", domain.WITH_AUTHORITY)
@pytest.mark.parametrize(
    ("decision", "part_fen", "released_fen"),
    [("release", 0, 10_000), ("return", 0, 0), ("split", 1, 1), ("split", 9_999, 9_999)],
)
def test_an_authority_decides_what_was_answered_or_not(
    state: str, decision: str, part_fen: int, released_fen: int
) -> None:
    one, of = objection(state), lesson("objected")
    assert decides(decision, part_fen)(one, of)
    assert (one.state, one.decision, one.release_fen, one.decided_by) == (
        "decided",
        decision,
        released_fen,
        "authority",
    )
    assert (one.decision_reason, one.decider, one.decided_at, one.act_by) == (WHY, "changzhou-edu", MONDAY, None)
    assert one.returned_fen(of.price_fen) == 10_000 - released_fen
    confirmed = ("confirmed", "authority")
    assert (of.state, of.confirmed_by) == (confirmed if decision == "release" else ("divided", ""))
    assert (of.returned_fen, of.answered_at) == (10_000 - released_fen, MONDAY)
    before = deepcopy((one, of))
    assert not decides(decision, part_fen)(one, of), "the same again changes nothing"
    assert (one, of) == before


@pytest.mark.parametrize(
    "other", [decides("release", 0), decides("return", 0), decides("split", 4_001), decides(why="另一理由"), accepts()]
)
def test_another_decision_after_one_was_made_is_refused(other: Callable[[Objection, Lesson], bool]) -> None:
    refused = assert_refused("objection_state", objection("decided"), lesson("divided"), other)
    assert refused.figures == {"state": "decided"}


@pytest.mark.parametrize(
    ("decision", "part_fen"),
    [("split", 0), ("split", 10_000), ("split", 10_001), ("release", 1), ("release", 10_000), ("return", 1)],
)
def test_a_split_leaves_something_to_each_and_nothing_else_names_a_part(decision: str, part_fen: int) -> None:
    refused = assert_refused("amount_invalid", objection("answered"), lesson("objected"), decides(decision, part_fen))
    assert refused.figures == {"price_fen": 10_000}


@pytest.mark.parametrize("state", ["raised", "withdrawn"])
def test_nothing_is_decided_before_the_institution_had_its_time_or_after_the_guardian_confirmed(state: str) -> None:
    assert_refused("objection_state", objection(state), lesson("objected"), decides())


@pytest.mark.parametrize("decision", ["release", "return"])
@pytest.mark.parametrize("state", ["confirmed", "paid_out", "divided"])
def test_a_lesson_that_was_settled_otherwise_is_not_decided_on(decision: str, state: str) -> None:
    assert_refused("lesson_state", objection("answered"), lesson(state), decides(decision, 0))


# --- deadlines ----------------------------------------------------------------------------------------------------


def test_a_silent_institution_is_heard_no_more_and_it_is_the_authoritys_turn() -> None:
    one = objection()
    assert not domain.pass_deadline(one, CLOCKS, ANSWER_BY - SECOND)
    assert one == objection()
    assert domain.pass_deadline(one, CLOCKS, ANSWER_BY)
    assert (one.state, one.overdue, one.answered_at) == ("unanswered", 0, None)
    assert one.act_by == datetime(2026, 4, 1, tzinfo=SHANGHAI), "15 working days from the day after: 11 to 31 March"


@pytest.mark.parametrize("state", domain.WITH_AUTHORITY)
def test_a_late_authority_is_reminded_every_five_working_days_and_no_money_moves(state: str) -> None:
    one = objection(state)
    assert not domain.pass_deadline(one, CLOCKS, DECIDE_BY - SECOND)
    assert domain.pass_deadline(one, CLOCKS, DECIDE_BY)
    again = datetime(2026, 4, 1, tzinfo=SHANGHAI)
    assert one == objection(state, overdue=1, decide_by=again)
    assert not domain.pass_deadline(one, CLOCKS, DECIDE_BY), "the same timer again finds nothing due"
    assert domain.pass_deadline(one, CLOCKS, again)
    assert (one.state, one.overdue) == (state, 2)


@pytest.mark.parametrize("state", ["decided", "withdrawn"])
def test_what_is_over_has_no_deadline(state: str) -> None:
    one = objection(state)
    assert one.act_by is None
    assert not domain.pass_deadline(one, CLOCKS, DECIDE_BY + timedelta(days=99))


def test_the_clocks_are_of_the_region_and_ours() -> None:
    policy = policy_for("changzhou", "体育", NOW.date())
    assert policy.objections == ObjectionClocks(5, 15, 5)
    assert [source for source in policy.sources if "异议" in source and source.startswith("[ours]")]


# --- withdrawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["raised", "answered", "unanswered", "decided", "withdrawn"])
def test_only_an_open_objection_is_withdrawn(state: str) -> None:
    one, was_open = objection(state), state in ("raised", "answered", "unanswered")
    before = deepcopy(one)
    assert domain.withdraw(one) == was_open
    before.state = "withdrawn" if was_open else state
    assert one == before
