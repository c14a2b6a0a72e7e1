"""The limits of one charge over all open orders of a child, pure: each at its figure and one above, told in words."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, get_args

import pytest

from services.orders.purchases import limits
from services.orders.purchases.limits import UNCONSUMED, Charge
from shared.contracts.errors import Refused
from shared.contracts.orders import LessonState
from shared.policy import Category, Policy, policy_for, school_age_by
from tests.unit.test_orders_contract import seat_reserved

MARCH = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
POLICY = policy_for("changzhou", "体育", date(2026, 3, 1))
SUBJECT = policy_for("changzhou", "学科", date(2026, 3, 1))


def charge(fen: int = 10_000, lessons: int = 2, first: datetime = MARCH, last: datetime = MARCH) -> Charge:
    return Charge(fen, lessons, first, max(first, last))


def refusal(new: Charge, *others: Charge, policy: Policy = POLICY) -> Refused | None:
    try:
        limits.check_sum(policy, new, others)
    except Refused as refused:
        return refused
    return None


def test_an_offer_is_charged_from_its_first_lesson_to_the_end_of_its_last() -> None:
    offer = seat_reserved(price_fen=30_000, count=4)
    assert limits.charge_of(offer) == Charge(30_000, 4, offer.lessons[0].starts_at, offer.lessons[3].ends_at)
    backwards = offer.model_copy(update={"lessons": offer.lessons[::-1]})
    assert limits.charge_of(backwards) == limits.charge_of(offer)


def test_at_the_limits_of_one_charge_all_open_orders_together_pass() -> None:
    """[law] 财务管理暂行办法 2023: 3 个月, 60 课时, 5000 元."""
    june = datetime(2026, 6, 1, 15, 59, tzinfo=UTC)  # a minute before midnight of 1 June in Shanghai
    assert refusal(charge(200_000, 30, june), charge(299_999, 29), charge(1, 1)) is None
    assert refusal(charge(500_000, 60, MARCH, june)) is None


@pytest.mark.parametrize(
    ("new", "code", "words"),
    [
        (charge(200_001), "course_limit_price", "共 5,000.01 元（本次 2,000.01 元），上限 5,000.00 元"),
        (charge(1, 31), "course_limit_lessons", "共 61 课时（本次 31 课时），上限 60 课时"),
        (
            charge(1, 1, datetime(2026, 6, 1, 16, tzinfo=UTC)),
            "course_limit_span",
            "自 2026-03-01 至 2026-06-02，跨度上限 3 个月（至 2026-06-01）",
        ),
        (
            charge(1, 1, datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)),
            "course_limit_span",
            "自 2026-02-01 至 2026-05-02，跨度上限 3 个月（至 2026-05-01）",
        ),
    ],
)
def test_one_above_a_limit_is_refused_with_the_rule_and_the_figures(new: Charge, code: str, words: str) -> None:
    """[law] 财务管理暂行办法 2023; the sum, so that a sale split into several contracts is caught [ours]."""
    others = charge(300_000, 30, MARCH, datetime(2026, 5, 1, 16, tzinfo=UTC))
    refused = refusal(new, others)
    assert refused is not None
    assert refused.code == code
    assert refused.detail == f"同一孩子在同一机构未消课的 1 个订单与本次购买合并按一次收费计算：{words}"
    assert [(fault.code, fault.message) for fault in refused.errors] == [(code, words)]
    assert refused.errors[0].field == ("price_fen" if code == "course_limit_price" else "lessons")
    assert refused.figures == {
        "open_orders": 1,
        "lessons": 30 + new.lessons,
        "price_fen": 300_000 + new.fen,
        "new_fen": new.fen,
    }


def test_all_that_is_broken_is_named_in_one_refusal() -> None:
    refused = refusal(charge(500_001, 61, MARCH, MARCH + timedelta(days=200)))
    assert refused is not None
    assert [fault.code for fault in refused.errors] == [
        "course_limit_lessons",
        "course_limit_price",
        "course_limit_span",
    ]
    assert refused.code == "course_limit_lessons"
    assert refused.detail.startswith("一次收费共 61 课时")
    assert all(fault.message in refused.detail for fault in refused.errors)


@pytest.mark.parametrize("field", ["max_lessons", "max_charge_fen", "max_span_months"])
def test_where_no_text_sets_a_limit_there_is_none(field: str) -> None:
    without: dict[str, Any] = {field: None}
    refused = refusal(charge(500_001, 61, MARCH, MARCH + timedelta(days=200)), policy=replace(POLICY, **without))
    assert refused is not None
    assert len(refused.errors) == 2


def test_what_is_consumed_or_back_counts_no_more_and_everything_else_does() -> None:
    """What is asked back may become planned again, so it counts until it is back [ours]."""
    assert set(UNCONSUMED) <= set(get_args(LessonState))
    assert set(get_args(LessonState)) - set(UNCONSUMED) <= {"confirmed", "paid_out", "refunded", "divided"}


# --- age --------------------------------------------------------------------------------------------------------------


def test_age_matters_for_subject_training_only_and_since_the_rule() -> None:
    """[law] “双减”意见 2021-07-24."""
    assert limits.has_age_limit(SUBJECT, "学科")
    assert not any(limits.has_age_limit(SUBJECT, kind) for kind in Category if kind is not Category.SUBJECT)
    assert not limits.has_age_limit(policy_for("changzhou", "学科", date(2021, 7, 23)), "学科")


def test_a_child_is_of_school_age_on_the_day_of_the_first_lesson_or_refused() -> None:
    """[law] “双减”意见 2021; school age: 义务教育法 11; the day of the first lesson: ours."""
    born = date(2020, 8, 31)  # six on the last day that counts for the school year 2026
    last_of_august, first_of_september = (
        datetime(2026, 8, 31, 15, 59, tzinfo=UTC),
        datetime(2026, 8, 31, 16, tzinfo=UTC),
    )
    limits.check_age(born, charge(first=first_of_september))
    with pytest.raises(Refused) as caught:
        limits.check_age(born, charge(first=last_of_august))
    assert caught.value.code == "child_preschool"
    assert caught.value.detail == "学科类培训不得面向学龄前儿童：首次上课 2026-08-31，孩子应于 2025-08-31 前年满 6 周岁"
    assert caught.value.figures == {"first_lesson": "2026-08-31", "six_by": "2025-08-31"}


def test_who_is_of_school_age_was_six_by_the_end_of_august() -> None:
    assert school_age_by(date(2026, 8, 31)) == date(2025, 8, 31)
    assert school_age_by(date(2026, 9, 1)) == date(2026, 8, 31)
