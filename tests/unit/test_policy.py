"""Policy by region, category and date, and offers of courses checked against it."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta

import pytest

from shared.contracts.errors import Refused
from shared.policy import (
    MAX_ERRORS,
    Category,
    Policy,
    add_months,
    check_offer,
    is_preschool,
    policy_for,
    promotion_fault,
)
from shared.working_days import SHANGHAI

TODAY = date(2026, 11, 23)
ART = policy_for("changzhou", "文化艺术", TODAY)
SUBJECT = policy_for("changzhou", "学科", TODAY)
Session = tuple[datetime, datetime]


def session(day: date, start: time = time(18, 30), minutes: int = 90) -> Session:
    """One lesson on a Shanghai day, as UTC instants."""
    starts = datetime.combine(day, start, SHANGHAI).astimezone(UTC)
    return starts, starts + timedelta(minutes=minutes)


def weekly(first: date, lessons: int, start: time = time(18, 30), minutes: int = 90) -> list[Session]:
    return [session(first + timedelta(days=7 * n), start, minutes) for n in range(lessons)]


def refusal(
    sessions: Sequence[Session],
    *,
    policy: Policy = ART,
    category: str = "文化艺术",
    online: bool = False,
    price_fen: int = 100_000,
    sells_from: datetime | None = None,
    promotion_text: str = "",
) -> Refused | None:
    try:
        check_offer(
            policy,
            category=category,
            online=online,
            price_fen=price_fen,
            sessions=sessions,
            sells_from=sells_from,
            promotion_text=promotion_text,
        )
    except Refused as caught:
        return caught
    return None


def codes(found: Refused | None) -> list[str]:
    return [] if found is None else [error.code for error in found.errors]


def test_the_limits_of_today_are_those_of_the_law() -> None:
    for policy in (ART, SUBJECT):
        assert (policy.max_span_months, policy.max_lessons, policy.max_charge_fen) == (3, 60, 500_000)
        assert (policy.offline_ends_by, policy.online_ends_by) == (time(20, 30), time(21))
        assert (policy.online_max_minutes, policy.online_gap_minutes) == (30, 10)
        assert (policy.confirm_silence_working_days, policy.confirm_silence_cap_working_days) == (7, 15)
        assert policy.lead_time_months == 1
        assert not policy.promotions_allowed


def test_the_amount_was_limited_for_non_subject_training_first() -> None:
    day = date(2023, 1, 15)
    assert policy_for("changzhou", "体育", day).max_charge_fen == 500_000
    assert policy_for("changzhou", "学科", day).max_charge_fen is None
    assert policy_for("changzhou", "学科", date(2023, 6, 1)).max_charge_fen == 500_000


def test_a_rule_begins_on_its_day_and_not_before() -> None:
    assert policy_for("changzhou", "学科", date(2021, 10, 20)).max_lessons is None
    assert policy_for("changzhou", "学科", date(2021, 10, 21)).max_lessons == 60
    assert policy_for("changzhou", "学科", date(2017, 1, 1)).sources == ()


def test_every_figure_cites_its_source() -> None:
    assert any("国办发〔2018〕80号" in source for source in ART.sources)
    assert any(source.startswith("[seed]") for source in ART.sources)


def test_districts_follow_the_city_and_an_unknown_region_the_nation() -> None:
    for region in ("常州市", "天宁区", "320402", "经开区", "Changzhou"):
        assert policy_for(region, "文化艺术", TODAY) == ART
    elsewhere = policy_for("atlantis", "文化艺术", TODAY)
    assert elsewhere.max_lessons == 60
    assert not any("常州" in s and s.startswith("[seed]") for s in elsewhere.sources)


def test_a_category_is_read_with_its_suffix_and_an_unknown_one_is_a_mistake() -> None:
    assert policy_for("changzhou", "学科类", TODAY) == SUBJECT
    assert Category("文化艺术类") is Category.CULTURE_AND_ART
    with pytest.raises(ValueError, match="音乐"):
        policy_for("changzhou", "音乐", TODAY)


def test_silence_may_not_be_configured_above_its_cap() -> None:
    with pytest.raises(ValueError, match="cap"):
        Policy(confirm_silence_working_days=16)


def test_an_offer_within_all_limits_passes() -> None:
    opening = datetime(2026, 11, 7, tzinfo=SHANGHAI)
    assert refusal(weekly(date(2026, 12, 7), 12), price_fen=500_000, sells_from=opening) is None


def test_sixty_lessons_pass_and_sixty_one_do_not() -> None:
    days = [date(2026, 12, 1) + timedelta(days=n) for n in range(61)]
    assert refusal([session(d) for d in days[:60]]) is None
    found = refusal([session(d) for d in days])
    assert found is not None
    assert codes(found) == ["course_limit_lessons"]
    assert found.figures == {
        "lessons": 61, "price_fen": 100_000, "faults": 1,
        "max_lessons": 60, "max_charge_fen": 500_000, "max_span_months": 3,
    }  # fmt: skip


def test_five_thousand_yuan_pass_and_one_fen_more_does_not() -> None:
    plan = weekly(date(2026, 12, 7), 4)
    assert refusal(plan, price_fen=500_000) is None
    found = refusal(plan, price_fen=500_001)
    assert codes(found) == ["course_limit_price"]
    assert found is not None
    assert "5,000.01" in found.detail


def test_three_months_end_on_the_same_day_of_the_third_month() -> None:
    first = date(2026, 12, 7)
    assert refusal([session(first), session(date(2027, 3, 7))]) is None
    assert codes(refusal([session(first), session(date(2027, 3, 8))])) == ["course_limit_span"]


def test_three_months_from_the_thirtieth_of_november_end_with_february() -> None:
    first = date(2026, 11, 30)
    assert refusal([session(first), session(date(2027, 2, 28))]) is None
    assert codes(refusal([session(first), session(date(2027, 3, 1))])) == ["course_limit_span"]


def test_the_order_of_the_sessions_does_not_hide_the_span() -> None:
    assert codes(refusal([session(date(2027, 4, 7)), session(date(2026, 12, 7))])) == ["course_limit_span"]


def test_an_offline_lesson_may_end_at_half_past_eight_and_not_a_second_later() -> None:
    day = date(2026, 12, 7)
    assert refusal([session(day, time(19), 90)]) is None
    starts, ends = session(day, time(19), 90)
    found = refusal([(starts, ends + timedelta(seconds=1))])
    assert codes(found) == ["course_time_of_day"]
    assert found is not None
    assert found.errors[0].field == "sessions.0.ends_at"


def test_a_lesson_over_midnight_is_too_late_however_early_its_clock_reads() -> None:
    assert codes(refusal([session(date(2026, 12, 7), time(23), 120)])) == ["course_time_of_day"]


def test_an_online_lesson_may_end_at_nine() -> None:
    day = date(2026, 12, 7)
    assert refusal([session(day, time(20, 30), 30)], online=True) is None
    assert codes(refusal([session(day, time(20, 31), 30)], online=True)) == ["course_time_of_day"]


def test_an_online_lesson_lasts_half_an_hour_with_ten_minutes_between() -> None:
    day = date(2026, 12, 7)
    assert codes(refusal([session(day, time(18), 31)], online=True)) == ["course_time_of_day"]
    good = [session(day, time(18), 30), session(day, time(18, 40), 30)]
    assert refusal(good, online=True) is None
    tight = [session(day, time(18), 30), session(day, time(18, 39), 30)]
    assert codes(refusal(tight, online=True)) == ["course_time_of_day"]
    assert refusal(tight, online=False) is None


def test_two_lessons_at_the_same_time_are_refused() -> None:
    day = date(2026, 12, 7)
    assert codes(refusal([session(day, time(18), 60), session(day, time(18, 30), 30)])) == ["course_time_of_day"]


def test_a_lesson_that_ends_before_it_starts_is_refused() -> None:
    starts, ends = session(date(2026, 12, 7))
    assert codes(refusal([(ends, starts)])) == ["course_time_of_day"]


def test_subject_training_is_refused_on_rest_days_and_other_training_is_not() -> None:
    saturday, holiday = session(date(2026, 12, 5), time(9)), session(date(2026, 10, 1), time(9))
    for free in (saturday, holiday):
        assert codes(refusal([free], policy=SUBJECT, category="学科")) == ["course_time_of_day"]
        assert refusal([free]) is None


def test_subject_training_is_allowed_on_a_saturday_worked_in_exchange() -> None:
    assert refusal([session(date(2026, 10, 10), time(9))], policy=SUBJECT, category="学科") is None


def test_subject_training_is_refused_in_school_vacations_once_they_are_known() -> None:
    from dataclasses import replace

    vacation = replace(SUBJECT, school_vacations=((date(2027, 1, 25), date(2027, 2, 21)),))
    day = [session(date(2027, 1, 25), time(9))]
    assert codes(refusal(day, policy=vacation, category="学科")) == ["course_time_of_day"]
    assert refusal(day, policy=SUBJECT, category="学科") is None


def test_selling_may_start_one_month_before_the_first_lesson() -> None:
    plan = weekly(date(2027, 1, 7), 4)
    assert refusal(plan, sells_from=datetime(2026, 12, 7, tzinfo=SHANGHAI)) is None
    early = datetime(2026, 12, 6, 15, 59, tzinfo=UTC)  # 23:59 of the sixth in Shanghai
    assert codes(refusal(plan, sells_from=early)) == ["course_lead_time"]
    assert refusal(plan, sells_from=early + timedelta(minutes=1)) is None


@pytest.mark.parametrize(
    "text",
    ["买10送2", "买 一 送 一", "购60课时赠10课时", "报两期送一期", "预付费享优惠", "预存5000元打8折", "充值1000送200",
     "储值卡", "次卡特惠", "满3000减500", "支持培训贷", "分期免息", "现金交费立减", "一次性缴费享九折", "买多少送多少",
     "买１０送２"],
)  # fmt: skip
def test_promotions_of_the_notice_are_recognised(text: str) -> None:
    assert promotion_fault(text) is not None
    assert codes(refusal(weekly(date(2026, 12, 7), 4), promotion_text=text)) == ["course_promotion_forbidden"]


@pytest.mark.parametrize(
    "text",
    ["", "小班授课，每班不超过 10 人", "本机构不办次卡、不收现金", "严禁培训贷", "免费试听一节", "接送方便，满座即止",
     "课时 90 分钟，教材另购"],
)  # fmt: skip
def test_plain_descriptions_are_no_promotions(text: str) -> None:
    assert promotion_fault(text) is None


def test_everything_that_is_broken_is_named_at_once() -> None:
    plan = [session(date(2027, 1, 4) + timedelta(days=2 * n), time(20), 60) for n in range(61)]
    found = refusal(
        plan,
        policy=SUBJECT,
        category="学科",
        price_fen=600_000,
        sells_from=datetime(2026, 11, 23, tzinfo=UTC),
        promotion_text="买10送2",
    )
    assert found is not None
    assert set(codes(found)) == {
        "course_limit_lessons",
        "course_limit_price",
        "course_limit_span",
        "course_time_of_day",
        "course_lead_time",
        "course_promotion_forbidden",
    }
    assert found.code == "course_limit_lessons"
    assert len(found.errors) <= MAX_ERRORS
    assert int(found.figures["faults"]) >= len(found.errors)


def test_a_plan_without_lessons_or_with_far_too_many_is_refused_quickly() -> None:
    assert codes(refusal([])) == ["course_limit_lessons"]
    assert codes(refusal([session(date(2026, 12, 7))] * 100_000)) == ["course_limit_lessons"]


def test_naive_times_and_negative_prices_are_mistakes() -> None:
    naive = datetime(2026, 12, 7, 18)  # noqa: DTZ001
    with pytest.raises(ValueError, match="time zone"):
        refusal([(naive, naive + timedelta(hours=1))])
    with pytest.raises(ValueError, match="negative"):
        refusal(weekly(date(2026, 12, 7), 1), price_fen=-1)


def test_months_are_added_by_the_calendar() -> None:
    assert add_months(date(2026, 11, 30), 3) == date(2027, 2, 28)
    assert add_months(date(2027, 3, 31), -1) == date(2027, 2, 28)
    assert add_months(date(2026, 12, 7), 1) == date(2027, 1, 7)


def test_a_child_of_six_by_the_end_of_august_goes_to_school_in_september() -> None:
    assert is_preschool(date(2020, 8, 31), date(2026, 8, 31))
    assert not is_preschool(date(2020, 8, 31), date(2026, 9, 1))
    assert is_preschool(date(2020, 9, 1), date(2027, 8, 31))
