"""The rules of refunds: what goes back, who has a say, and what silence means."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import pytest

from services.orders.lessons.domain import Lesson
from services.orders.refunds import domain
from services.orders.refunds.domain import Order, Quote, Refund
from shared.contracts.errors import Refused
from shared.contracts.orders import RefundState
from shared.policy import Policy
from shared.working_days import add_working_days

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)  # a Monday at noon in Shanghai
DAY = timedelta(days=1)
POLICY = Policy()
BY = "changzhou-edu"


def order(paid_days_ago: float = 1, *, days: int = 7, points: int = 0, materials_fen: int = 0) -> Order:
    terms = {"full_refund_days": days, "penalty_basis_points": points, "materials_fen": materials_fen}
    paid_at = NOW - DAY * paid_days_ago
    return Order(UUID(int=1), UUID(int=2), UUID(int=3), "体育", "enrolled", paid_at, paid_at, {"refund_terms": terms})


def lessons(*states: str, begins_in_days: float = 1) -> list[Lesson]:
    """Lessons of 33.33 yuan, the last one of 33.34; the planned ones begin later."""
    made = []
    for number, state in enumerate(states, 1):
        starts_at = NOW + DAY * begins_in_days if state == "planned" else NOW - DAY
        price_fen = 3_334 if number == len(states) else 3_333
        made.append(Lesson(UUID(int=1), number, starts_at, starts_at + timedelta(hours=1), price_fen, state))
    return made


def quote(one: Order, *states: str, at_fault: bool = False, begins_in_days: float = 1) -> Quote:
    return domain.quote(one, lessons(*states, begins_in_days=begins_in_days), POLICY, at_fault, NOW)


def refund(points: int = 0, materials_fen: int = 0, at_fault: bool = False) -> Refund:
    one = order(30, points=points, materials_fen=materials_fen)
    offered = quote(one, "paid_out", "planned", "planned", at_fault=at_fault)
    return domain.ask(one, offered, UUID(int=9), "搬家", POLICY, NOW)


def refused(code: str, function: object, *arguments: object) -> Refused:
    assert callable(function)
    with pytest.raises(Refused) as raised:
        function(*arguments)
    assert raised.value.code == code
    return raised.value


# --- what goes back ---------------------------------------------------------------------------------------------------


def test_within_seven_days_and_before_the_first_lesson_everything_goes_back() -> None:
    offered = quote(order(6.9, points=1_000), "planned", "planned", "planned")
    assert (offered.ground, offered.refund_fen, offered.deduction_fen) == ("full_refund_window", 10_000, 0)
    assert not offered.needs_answer
    assert "第14条" in offered.lines[0].rule


@pytest.mark.parametrize(
    ("one", "states", "begins_in_days"),
    [
        (order(7, points=1_000), ("planned", "planned", "planned"), 1),
        (order(1, points=1_000), ("applied", "planned", "planned"), 1),
        (order(1, points=1_000), ("paid_out", "planned", "planned"), 1),
        (order(1, points=1_000), ("planned", "planned", "planned"), 0),
    ],
    ids=["seven days are over", "a lesson was filed", "a lesson was consumed", "a lesson has begun by its plan"],
)
def test_else_the_contract_counts(one: Order, states: tuple[str, ...], begins_in_days: float) -> None:
    offered = quote(one, *states, begins_in_days=begins_in_days)
    untaught = states.count("planned")
    fee = 10_000 if untaught == 3 else 6_667
    assert (offered.ground, offered.fee_fen, offered.deduction_fen) == ("untaught", fee, fee // 10)
    assert offered.needs_answer
    assert [line.what for line in offered.lines] == ["fee", "deduction"]


def test_a_contract_may_give_a_longer_window() -> None:
    assert quote(order(29, days=30, points=500), "planned", "planned").ground == "full_refund_window"
    assert quote(order(30, days=30, points=500), "planned", "planned").ground == "untaught"


def test_a_penalty_is_rounded_down_and_none_is_taken_where_the_institution_is_at_fault() -> None:
    one = order(30, points=333)
    assert quote(one, "paid_out", "planned", "planned").deduction_fen == 222  # of 6 667 fen: 222.01
    at_fault = quote(one, "paid_out", "planned", "planned", at_fault=True)
    assert (at_fault.ground, at_fault.refund_fen) == ("institution_at_fault", 6_667)
    assert at_fault.needs_answer
    assert at_fault.materials_fen == 0


def test_what_goes_back_is_never_below_zero() -> None:
    offered = quote(order(30, points=10_000), "paid_out", "planned")
    assert (offered.deduction_fen, offered.refund_fen) == (3_334, 0)
    refused("refund_nothing", domain.require_refundable, None, offered)


def test_lessons_that_wait_for_their_answer_are_settled_first_or_excluded_by_name() -> None:
    offered = quote(order(30), "applied", "objected", "planned")
    assert (offered.lessons, offered.pending) == ([3], [1, 2])
    assert refused("refund_pending", domain.require_settled, offered, (1,), 3_334).figures == {"lesson_no": 2}
    domain.require_settled(offered, (1, 2), 3_334)


def test_another_amount_than_was_quoted_is_refused() -> None:
    offered = quote(order(30), "planned")
    figures = refused("refund_changed", domain.require_settled, offered, (), 3_333).figures
    assert figures == {"quoted_fen": 3_333, "refund_fen": 3_334}


@pytest.mark.parametrize(
    ("state", "refuses"), [("asked", True), ("paid", True), ("rejected", False), ("withdrawn", False)]
)
def test_an_order_has_one_refund_that_is_open_or_paid(state: str, refuses: bool) -> None:
    known, offered = refund(), quote(order(), "planned")
    known.state = state  # type: ignore[assignment]
    if refuses:
        assert refused("refund_exists", domain.require_refundable, known, offered).figures == {"state": state}
    else:
        domain.require_refundable(known, offered)


# --- who has a say ----------------------------------------------------------------------------------------------------


def test_the_institution_answers_within_five_working_days() -> None:
    one = refund()
    assert (one.state, one.act_by) == ("asked", add_working_days(NOW, 5))


def test_silence_is_agreement() -> None:
    one = refund(points=1_000)
    assert one.act_by is not None
    assert not domain.late(one, POLICY, one.act_by - timedelta(seconds=1))
    assert domain.late(one, POLICY, one.act_by)
    assert (one.state, one.overdue, one.deduction_fen) == ("paying", False, 666)


def test_an_institution_that_agrees_may_keep_used_materials_up_to_what_the_contract_says() -> None:
    one = refund(points=1_000, materials_fen=500)
    assert refused("amount_invalid", domain.answer, one, True, 501, "", POLICY, NOW).figures == {"materials_fen": 500}
    assert domain.answer(one, True, 500, "教材已领用", POLICY, NOW)
    assert (one.state, one.deduction_fen, one.refund_fen) == ("paying", 1_166, 5_501)
    assert one.act_by == NOW + DAY * 15
    assert not domain.answer(one, True, 500, "教材已领用", POLICY, NOW)
    refused("refund_state", domain.answer, one, True, 400, "教材已领用", POLICY, NOW)
    refused("refund_state", domain.answer, one, False, 0, "不同意", POLICY, NOW)


def test_where_the_institution_is_at_fault_it_keeps_no_materials() -> None:
    refused("amount_invalid", domain.answer, refund(materials_fen=500, at_fault=True), True, 1, "", POLICY, NOW)


def contested() -> Refund:
    one = refund(points=1_000)
    assert domain.answer(one, False, 0, "第2课已上", POLICY, NOW)
    assert (one.state, one.act_by) == ("contested", add_working_days(NOW, 15))
    return one


PRICES = {1: 3_333, 2: 3_333, 3: 3_334}


def test_an_authority_grants_some_of_it_or_rejects_it() -> None:
    one = contested()
    assert domain.decide(one, PRICES, True, [3, 3], 34, "第2课确已上", BY, POLICY, NOW)
    assert (one.state, one.lessons, one.fee_fen, one.refund_fen) == ("paying", [3], 3_334, 3_300)
    assert not domain.decide(one, PRICES, True, [3], 34, "第2课确已上", BY, POLICY, NOW)
    refused("refund_state", domain.decide, one, PRICES, True, [3], 35, "第2课确已上", BY, POLICY, NOW)
    refused("refund_state", domain.decide, one, PRICES, False, [], 0, "第2课确已上", BY, POLICY, NOW)
    refused("refund_state", domain.decide, one, PRICES, False, [], 0, "另议", BY, POLICY, NOW)

    one = contested()
    assert domain.decide(one, PRICES, False, [], 0, "课程照常", BY, POLICY, NOW)
    assert (one.state, one.act_by, one.closed_at) == ("rejected", None, NOW)
    assert not domain.decide(one, PRICES, False, [], 0, "课程照常", BY, POLICY, NOW)
    refused("refund_state", domain.decide, one, PRICES, True, [], 0, "课程照常", BY, POLICY, NOW)


def test_all_of_it_granted_once_more_is_no_other_decision() -> None:
    one = contested()
    everything = list(one.lessons)
    assert domain.decide(one, PRICES, True, [], 0, "属实", BY, POLICY, NOW)
    assert one.lessons == everything
    for named in ([], everything):
        assert not domain.decide(one, PRICES, True, named, 0, "属实", BY, POLICY, NOW)
    refused("refund_state", domain.decide, one, PRICES, True, everything[:1], 0, "属实", BY, POLICY, NOW)


def test_an_authority_cannot_grant_what_was_not_asked_or_nothing() -> None:
    refused("lesson_unknown", domain.decide, contested(), PRICES, True, [1], 0, "", BY, POLICY, NOW)
    refused("amount_invalid", domain.decide, contested(), PRICES, True, [], 6_667, "", BY, POLICY, NOW)
    refused("refund_state", domain.decide, refund(), PRICES, True, [], 0, "", BY, POLICY, NOW)


def test_an_authority_or_a_bank_that_is_late_is_named_and_moves_nothing() -> None:
    for one in (contested(), refund()):
        if one.state == "asked":
            domain.approve(one, POLICY, NOW)
        state, due = one.state, one.act_by
        assert due is not None
        assert domain.late(one, POLICY, due)
        assert (one.state, one.overdue, one.act_by) == (state, True, add_working_days(due, 5))
        assert not domain.late(one, POLICY, due)


def test_a_guardian_may_take_it_back_until_it_is_decided() -> None:
    for one in (refund(), contested()):
        assert domain.withdraw(one, NOW)
        assert (one.state, one.act_by, one.closed_at) == ("withdrawn", None, NOW)
        assert not domain.withdraw(one, NOW)
    one = refund()
    domain.approve(one, POLICY, NOW)
    refused("refund_state", domain.withdraw, one, NOW)


# --- the bank, and an institution that is gone ------------------------------------------------------------------------


def test_what_the_bank_refuses_or_gives_back_is_for_a_person_and_goes_on() -> None:
    one = refund()
    assert not domain.delayed(one, "refused", "account_closed", POLICY, NOW)
    domain.approve(one, POLICY, NOW)
    assert domain.delayed(one, "refused", "account_closed", POLICY, NOW)
    assert (one.state, one.trouble) == ("paying", "refused: account_closed")
    assert domain.delayed(one, "refused", "x" * 300, POLICY, NOW)
    assert one.trouble == f"refused: {'x' * 300}"[:200]
    domain.close(one, "paid", NOW)
    assert one.trouble == ""
    assert domain.delayed(one, "returned", "account_closed", POLICY, NOW + DAY)
    assert (one.state, one.closed_at, one.act_by) == ("paying", None, NOW + DAY * 16)


def test_what_was_asked_of_an_institution_that_is_gone_is_granted_in_full() -> None:
    one = refund(points=1_000)
    assert domain.wind_up(one, [2, 3], 6_667, POLICY, NOW)
    assert (one.state, one.ground, one.refund_fen) == ("paying", "institution_gone", 6_667)
    assert (one.lessons, one.deduction_fen) == ([2, 3], 0)
    assert not domain.wind_up(one, [2], 3_333, POLICY, NOW)
    assert one.lessons == [2, 3]


def test_a_refund_that_escrow_does_not_take_is_for_a_person_while_it_is_to_be_paid() -> None:
    one = refund(points=1_000)
    assert not domain.not_taken(one, "lesson_settled")
    domain.approve(one, POLICY, NOW)
    assert domain.not_taken(one, "lesson_settled")
    assert (one.state, one.trouble) == ("paying", "refused: lesson_settled")


# --- which one counts, and what is moved ------------------------------------------------------------------------------


def test_the_states_that_others_ask_for_are_those_of_refunds_and_of_lessons() -> None:
    states = set(get_args(RefundState))
    assert {"asked", "contested", "paying"} == domain.OPEN
    assert states - domain.OPEN - {"paid"} == domain.LET_GO
    assert {"planned", "refunding"} == domain.UNTAUGHT
    assert {"applied", "objected"} == domain.PENDING


def test_a_new_refund_has_been_answered_decided_and_closed_by_nobody() -> None:
    new = refund()
    assert (new.answer, new.decision, new.decided_by, new.trouble) == ("", "", "", "")
    assert (new.overdue, new.materials_fen, new.closed_at) == (False, 0, None)


def test_the_refund_that_counts_is_the_one_that_did_not_come_to_nothing_and_else_the_last() -> None:
    first, second, paid = refund(), refund(), refund()
    first.state = second.state = "withdrawn"
    first.asked_at, second.asked_at, paid.asked_at = NOW - DAY, NOW, NOW - 2 * DAY
    paid.state = "paid"
    assert domain.latest([first, second]) is second
    assert domain.latest([first, paid, second]) is paid
    assert domain.latest([]) is None


def test_only_lessons_of_the_refund_are_moved_and_only_those_that_stand_elsewhere() -> None:
    some = lessons("planned", "refunding", "planned")
    assert domain.mark(some, [1, 2], "refunding") == [some[0]]
    assert [one.state for one in some] == ["refunding", "refunding", "planned"]


def test_of_an_order_that_is_not_enrolled_nothing_is_asked_back() -> None:
    one = replace(order(30), state="ended")
    assert refused("order_state", domain.require_enrolled, one).figures == {"state": "ended"}


def test_one_lesson_that_has_begun_is_enough_for_the_contract_to_count() -> None:
    some = lessons("planned", "planned")
    some[0].starts_at = NOW - DAY
    assert domain.quote(order(1, points=1_000), some, POLICY, False, NOW).ground == "untaught"


def test_what_an_institution_says_is_kept_in_its_words() -> None:
    agreed, objected = refund(), refund()
    domain.answer(agreed, True, 0, "好", POLICY, NOW)
    domain.answer(objected, False, 0, "不", POLICY, NOW)
    assert (agreed.answer, objected.answer) == ("同意：好", "不同意：不")
    assert (objected.state, objected.overdue) == ("contested", False)


def test_used_materials_never_take_all_that_is_left() -> None:
    one = refund(materials_fen=10_000)
    refused("amount_invalid", domain.answer, one, True, one.refund_fen, "材料已用", POLICY, NOW)


def test_what_silence_and_a_winding_up_decide() -> None:
    silent, contested = refund(), refund()
    assert silent.act_by is not None
    assert domain.late(silent, POLICY, silent.act_by)
    assert silent.answer == "逾期未答复，视为同意"
    domain.answer(contested, False, 0, "不", POLICY, NOW)
    assert domain.wind_up(contested, [2, 3], 6_667, POLICY, NOW)
    assert (contested.state, contested.ground) == ("paying", "institution_gone")


def test_a_refund_that_is_over_is_late_no_more() -> None:
    one = refund()
    one.overdue = True
    domain.withdraw(one, NOW)
    assert (one.state, one.act_by, one.overdue, one.closed_at) == ("withdrawn", None, False, NOW)


def test_what_an_institution_keeps_is_received_once_and_again_when_it_came_back() -> None:
    one, later = refund(points=500), NOW + timedelta(days=1)
    assert one.kept_paid_at is None
    assert not domain.kept(one, None)
    assert domain.kept(one, NOW)
    assert not domain.kept(one, later)
    assert one.kept_paid_at == NOW
    assert domain.kept(one, None)
    assert one.kept_paid_at is None
    assert domain.kept(one, later)
    assert one.kept_paid_at == later
