"""Deadlines in words, and what of a purchase is consumed, left and given back."""

from datetime import UTC, datetime, timedelta

import pytest

from services.orders.lessons.domain import CONSUMED
from services.orders.views import deadlines
from services.orders.views.sums import GIVEN_BACK, Sums, sums_of
from shared.contracts.orders import Deadline
from shared.working_days import add_working_days

NOON = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)  # 12:00 in Shanghai
MIDNIGHT = datetime(2026, 12, 2, 16, 0, tzinfo=UTC)  # 00:00 of 3 December in Shanghai


def words(found: list[Deadline]) -> list[str]:
    return [one.words for one in found]


def test_a_lesson_that_waits_says_when_silence_confirms_it() -> None:
    (found,) = deadlines.of_lessons([(3, MIDNIGHT)])
    assert found.words == "如不答复，第3课次将于12月2日24时视为确认"
    assert (found.kind, found.due_at, found.lesson_no) == ("lesson", MIDNIGHT, 3)


def test_each_lesson_that_waits_has_its_own_deadline() -> None:
    seven_days_on = add_working_days(NOON, 7)
    assert words(deadlines.of_lessons([(1, seven_days_on), (12, MIDNIGHT + timedelta(days=1))])) == [
        "如不答复，第1课次将于12月2日24时视为确认",
        "如不答复，第12课次将于12月3日24时视为确认",
    ]


def test_a_contract_says_by_when_it_must_be_signed_and_a_purchase_by_when_it_must_be_paid() -> None:
    assert words(deadlines.of_purchase("to_sign", NOON)) == ["如不签署合同，本订单将于11月23日12:00取消"]
    assert words(deadlines.of_purchase("to_pay", NOON)) == ["如不付款，本订单将于11月23日12:00取消"]


def test_while_the_bank_collects_the_deadline_is_the_bank_s_not_the_longer_one_of_the_saga() -> None:
    (found,) = deadlines.of_purchase("paying", NOON)
    assert found.words == "如不付款，本订单将于11月23日11:58取消"
    assert found.due_at == NOON - timedelta(minutes=2)


@pytest.mark.parametrize("state", ["placed", "held", "cancelling", "refunding", "enrolled", "ended"])
def test_where_no_family_is_waited_for_it_has_no_deadline(state: str) -> None:
    assert deadlines.of_purchase(state, NOON) == []


@pytest.mark.parametrize("state", ["to_sign", "to_pay", "paying"])
def test_a_step_without_a_time_has_no_deadline(state: str) -> None:
    assert deadlines.of_purchase(state, None) == []


def test_what_others_must_do_is_told_too() -> None:
    assert words(deadlines.of_refund("asked", MIDNIGHT)) == ["机构如不答复，退费申请将于12月2日24时视为同意"]
    assert words(deadlines.of_refund("contested", MIDNIGHT)) == ["机构不同意退费，主管部门应于12月2日24时前作出决定"]
    assert words(deadlines.of_refund("paying", NOON)) == ["退费应于11月23日12:00前由监管银行原路退回"]
    assert deadlines.of_refund("paid", None) == []
    (raised,) = deadlines.of_objection("raised", 4, MIDNIGHT)
    assert raised.words == "机构如不答复，第4课次的异议将于12月2日24时转主管部门处理"
    assert (raised.kind, raised.lesson_no) == ("objection.raised", 4)
    assert words(deadlines.of_objection("answered", 4, NOON)) == ["第4课次的异议应于11月23日12:00前由主管部门作出决定"]
    (unanswered,) = deadlines.of_objection("unanswered", 5, NOON)
    assert unanswered.words == "机构逾期未答复，第5课次的异议应于11月23日12:00前由主管部门作出决定"
    assert deadlines.of_objection("decided", 4, None) == []
    with pytest.raises(KeyError):
        deadlines.deadline("nothing", MIDNIGHT)


def test_the_nearest_hundred_come_nearest_first() -> None:
    many = deadlines.of_lessons((number, MIDNIGHT - timedelta(hours=number)) for number in range(1, 201))
    found = deadlines.nearest(many)
    assert [one.lesson_no for one in found] == list(range(200, 100, -1))
    same_time = deadlines.of_lessons((number, MIDNIGHT) for number in (3, 1, 2))
    assert [one.lesson_no for one in deadlines.nearest(same_time)] == [1, 2, 3]


def test_consumed_left_and_given_back_are_all_there_is() -> None:
    states = ["planned", "applied", "objected", "confirmed", "paid_out", *GIVEN_BACK]
    sums = sums_of((state, 1, 10**number, 0) for number, state in enumerate(states))
    assert (sums.consumed_lessons, sums.consumed_fen) == (2, 11_000)
    assert (sums.left_lessons, sums.left_fen) == (3, 111)
    assert sums.consumed_fen + sums.left_fen + sums.refunded_fen == sum(10**number for number in range(len(states)))
    assert not CONSUMED & GIVEN_BACK
    assert sums_of([]) == Sums()


def test_of_a_divided_lesson_each_side_has_its_part() -> None:
    sums = sums_of([("divided", 2, 1_000, 300), ("paid_out", 1, 500, 0)])
    assert (sums.consumed_lessons, sums.consumed_fen) == (1, 1_200)
    assert (sums.refunded_lessons, sums.refunded_fen, sums.left_fen) == (2, 300, 0)
