"""Policy by region, category and date, and offers of courses checked against it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import pytest

from shared.contracts.errors import Refused
from shared.policy import (
    MAX_ERRORS,
    MAX_SESSIONS,
    Category,
    CodeRules,
    ComplaintClocks,
    Policy,
    add_months,
    check_offer,
    is_preschool,
    policy_for,
    promotion_fault,
)
from shared.working_days import SHANGHAI, horizon, is_rest_day, spring_festival

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
        assert (policy.lead_time_months, policy.invoice_days, policy.suspense_working_days) == (1, 30, 3)
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


@pytest.mark.parametrize(
    ("region", "category", "day", "values"),
    [
        ("china", "体育", date(2018, 8, 22), {"max_span_months": 3, "offline_ends_by": time(20, 30)}),
        (
            "china",
            "学科",
            date(2021, 7, 24),
            {
                "online_ends_by": time(21),
                "online_max_minutes": 30,
                "online_gap_minutes": 10,
                "subject_on_rest_days": False,
                "subject_before_school_age": False,
            },
        ),
        ("china", "学科", date(2021, 10, 21), {"max_lessons": 60, "lead_time_months": 1}),
        ("china", "体育", date(2022, 12, 29), {"max_charge_fen": 500_000}),
        ("china", "学科", date(2023, 3, 24), {"max_charge_fen": 500_000}),
        ("china", "体育", date(2023, 4, 19), {"promotions_allowed": False}),
        ("changzhou", "体育", date(2023, 4, 19), {"promotions_allowed": False}),
    ],
)
def test_each_figure_is_in_force_from_its_day_on(
    region: str, category: str, day: date, values: dict[str, object]
) -> None:
    before, after = policy_for(region, category, day - timedelta(days=1)), policy_for(region, category, day)
    for name, value in values.items():
        assert getattr(after, name) == value
        assert getattr(before, name) == getattr(Policy(), name) != value


@pytest.mark.parametrize(
    ("region", "day", "mark"),
    [
        ("china", date(2018, 8, 22), "国办发〔2018〕80号"),
        ("china", date(2021, 7, 24), "“双减”意见 (2021)"),
        ("china", date(2021, 7, 24), "各地寒暑假起止不一"),
        ("china", date(2021, 10, 21), "预收费监管工作的通知"),
        ("china", date(2021, 10, 21), "各地实施细则"),
        ("china", date(2022, 12, 29), "非学科类校外培训的意见"),
        ("china", date(2023, 3, 24), "财务管理暂行办法"),
        ("china", date(2023, 4, 19), "其他地区的促销限制"),
        ("jiangsu", date(2022, 4, 19), "江苏省教育厅等十一部门"),
        ("china", date(2023, 4, 19), "发票管理办法"),
        ("changzhou", date(2023, 4, 19), "告知书"),
    ],
)
def test_each_text_is_cited_from_its_day_on(region: str, day: date, mark: str) -> None:
    def cites(on: date) -> bool:
        return any(mark in source for source in policy_for(region, "体育", on).sources)

    assert cites(day)
    assert not cites(day - timedelta(days=1))


def test_sources_are_told_oldest_first_and_of_one_day_the_narrowest_last() -> None:
    marks = (
        *("80号", "双减”意见", "起止不一", "监管工作", "各地", "江苏省", "十三部门", "财务管理", "其他地区"),
        *("挂账", "发票", "课次异议", "告知书"),
    )
    assert [next(mark for mark in marks if mark in source) for source in ART.sources] == list(marks)


def test_what_no_rule_says_is_as_a_new_policy_has_it() -> None:
    new = Policy()
    assert (new.confirm_silence_working_days, new.confirm_silence_cap_working_days) == (7, 15)
    assert new.confirm_reminder_working_day == 3
    assert (new.refund_window_days, new.refund_silence_working_days, new.refund_return_days) == (7, 5, 15)
    assert (new.seat_reservation_seconds, new.payment_window_seconds) == (900, 900)
    assert new.counter_payment_window_seconds == 86_400
    assert (new.invoice_days, new.refund_decision_working_days) == (30, 15)
    assert (new.suspense_working_days, new.break_overdue_working_days) == (3, 3)
    assert (new.summer_vacation, new.winter_vacation_days, new.school_vacations) == (None, 0, ())
    assert (new.subject_on_rest_days, new.subject_before_school_age, new.promotions_allowed) == (True, True, True)
    assert new.codes == CodeRules(6, 300, 5, 60, 5, 10)
    assert new.complaints == ComplaintClocks(7, 45, 15, 15, 5)


def test_every_figure_cites_its_source() -> None:
    assert any("国办发〔2018〕80号" in source for source in ART.sources)
    assert any(source.startswith("[seed]") for source in ART.sources)


def test_districts_follow_the_city_and_an_unknown_region_the_nation() -> None:
    towns = ("溧阳市", "金坛区", "武进区", "新北区", "天宁区", "钟楼区", "经开区")
    codes = ("320400", "320481", "320413", "320412", "320411", "320402", "320404")
    for region in ("常州市", *towns, *codes, "Changzhou"):
        assert policy_for(region, "文化艺术", TODAY) == ART
    province = policy_for("jiangsu", "文化艺术", TODAY)
    for region in ("江苏省", "320000"):
        assert policy_for(region, "文化艺术", TODAY) == province != ART
    elsewhere = policy_for("atlantis", "文化艺术", TODAY)
    assert elsewhere.max_lessons == 60
    assert not any("常州" in s and s.startswith("[seed]") for s in elsewhere.sources)


def test_a_category_is_read_with_its_suffix_and_an_unknown_one_is_a_mistake() -> None:
    assert policy_for("changzhou", "学科类", TODAY) == SUBJECT
    assert Category("文化艺术类") is Category.CULTURE_AND_ART
    with pytest.raises(ValueError, match="音乐"):
        policy_for("changzhou", "音乐", TODAY)


def test_silence_may_not_be_configured_above_its_cap() -> None:
    for days in (0, 16):
        with pytest.raises(ValueError, match="cap"):
            Policy(confirm_silence_working_days=days)
    for days in (1, 15):
        assert Policy(confirm_silence_working_days=days).confirm_silence_working_days == days


def test_an_offer_within_all_limits_passes() -> None:
    opening = datetime(2026, 11, 7, tzinfo=SHANGHAI)
    assert refusal(weekly(date(2026, 12, 7), 12), price_fen=500_000, sells_from=opening) is None


def test_sixty_lessons_pass_and_sixty_one_do_not() -> None:
    days = [date(2026, 12, 1) + timedelta(days=n) for n in range(61)]
    assert refusal([session(d) for d in days[:60]]) is None
    found = refusal([session(d) for d in days])
    assert found is not None
    assert [(fault.field, fault.code) for fault in found.errors] == [("sessions", "course_limit_lessons")]
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


def test_span_and_lead_time_count_from_the_day_on_which_the_first_lesson_begins() -> None:
    over_midnight = session(date(2026, 11, 30), time(23, 30), 60)
    assert set(codes(refusal([over_midnight, session(date(2027, 3, 1))]))) == {
        "course_time_of_day",
        "course_limit_span",
    }
    a_month_before = datetime(2026, 10, 30, tzinfo=SHANGHAI)
    assert codes(refusal([over_midnight], sells_from=a_month_before)) == ["course_time_of_day"]


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
    late = refusal([session(day, time(20, 31), 30)], online=True)
    assert late is not None
    assert [(fault.field, fault.code) for fault in late.errors] == [("sessions.0.ends_at", "course_time_of_day")]
    assert late.detail == "线上培训结束时间不得晚于 21:00"
    too_late = refusal([session(day, time(19, 31), 60)])
    assert too_late is not None
    assert too_late.detail == "线下培训结束时间不得晚于 20:30"


def test_an_online_lesson_lasts_half_an_hour_with_ten_minutes_between() -> None:
    day = date(2026, 12, 7)
    long = refusal([session(day, time(18), 31)], online=True)
    assert long is not None
    assert [(fault.field, fault.code) for fault in long.errors] == [("sessions.0.ends_at", "course_time_of_day")]
    good = [session(day, time(18), 30), session(day, time(18, 40), 30)]
    assert refusal(good, online=True) is None
    tight = [session(day, time(18), 30), session(day, time(18, 39), 30)]
    found = refusal(tight, online=True)
    assert found is not None
    assert [(fault.field, fault.code) for fault in found.errors] == [("sessions.1.starts_at", "course_time_of_day")]
    assert refusal(tight, online=False) is None
    at_once = [session(day, time(18), 30), session(day, time(18, 30), 30)]
    assert refusal(at_once, online=False) is None
    assert refusal(at_once, online=True, policy=replace(ART, online_gap_minutes=None)) is None


def test_two_lessons_at_the_same_time_are_refused() -> None:
    day = date(2026, 12, 7)
    found = refusal([session(day, time(18), 60), session(day, time(18, 10), 30)])
    assert found is not None
    assert [(fault.field, fault.code) for fault in found.errors] == [("sessions.1.starts_at", "course_time_of_day")]


def test_a_lesson_that_ends_before_it_starts_is_refused() -> None:
    starts, ends = session(date(2026, 12, 7))
    for session_ends in (starts, starts - timedelta(seconds=1)):
        found = refusal([(starts, session_ends)])
        assert found is not None
        assert [(fault.field, fault.code) for fault in found.errors] == [("sessions.0.ends_at", "course_time_of_day")]
    assert codes(refusal([(ends, starts)])) == ["course_time_of_day"]


def test_subject_training_is_refused_on_rest_days_and_other_training_is_not() -> None:
    saturday, holiday = session(date(2026, 12, 5), time(9)), session(date(2026, 10, 1), time(9))
    for free in (saturday, holiday):
        found = refusal([free], policy=SUBJECT, category="学科")
        assert found is not None
        assert [(fault.field, fault.code) for fault in found.errors] == [("sessions.0.starts_at", "course_time_of_day")]
        assert refusal([free]) is None


@pytest.mark.parametrize("day", [date(2026, 12, 4), date(2026, 12, 6)])
def test_subject_training_over_midnight_is_judged_on_both_days(day: date) -> None:
    # From Friday into Saturday, and from Sunday into Monday.
    found = refusal([session(day, time(23, 30), 60)], policy=SUBJECT, category="学科")
    assert found is not None
    assert any("休息日" in fault.message for fault in found.errors)


def test_subject_training_is_allowed_on_a_saturday_worked_in_exchange() -> None:
    assert refusal([session(date(2026, 10, 10), time(9))], policy=SUBJECT, category="学科") is None


@pytest.mark.parametrize(
    ("day", "is_vacation"),
    [
        (date(2027, 7, 19), False),
        (date(2027, 7, 20), True),
        (date(2027, 8, 13), True),
        (date(2027, 8, 16), False),
        (date(2028, 8, 15), True),
        (date(2028, 8, 16), False),
        # The holidays of the Spring Festival of 2026 were 15 to 23 February.
        (date(2026, 2, 11), False),
        (date(2026, 2, 12), True),
        (date(2026, 2, 26), True),
        (date(2026, 2, 27), False),
    ],
)
@pytest.mark.parametrize("region", ["changzhou", "nowhere"])
def test_subject_training_is_refused_on_days_that_are_vacation_everywhere(
    day: date, is_vacation: bool, region: str
) -> None:
    policy = policy_for(region, "学科", day)
    found = refusal([session(day, time(9))], policy=policy, category="学科")
    assert codes(found) == (["course_time_of_day"] if is_vacation else [])
    assert found is None or "寒暑假" in found.errors[0].message
    assert refusal([session(day, time(9))]) is None, "other training goes on"


@pytest.mark.parametrize(("day", "is_vacation"), [(date(2026, 7, 17), False), (date(2027, 7, 19), True)])
def test_subject_training_over_midnight_into_a_vacation_is_judged_on_both_days(day: date, is_vacation: bool) -> None:
    found = refusal([session(day, time(23, 30), 60)], policy=policy_for("changzhou", "学科", day), category="学科")
    assert found is not None
    assert any("寒暑假" in fault.message for fault in found.errors) == is_vacation


def test_a_year_without_known_holidays_has_no_known_winter_vacation() -> None:
    day = horizon().replace(year=horizon().year + 1, month=2, day=8)
    assert spring_festival(day.year) is None
    while is_rest_day(day):
        day += timedelta(days=1)
    assert refusal([session(day, time(9))], policy=policy_for("changzhou", "学科", day), category="学科") is None


def test_subject_training_is_refused_in_school_vacations_once_they_are_known() -> None:
    vacation = replace(SUBJECT, school_vacations=((date(2027, 1, 25), date(2027, 2, 24)),))
    day = [session(date(2027, 1, 25), time(9))]
    for first_or_last in (day, [session(date(2027, 2, 24), time(9))]):
        found = refusal(first_or_last, policy=vacation, category="学科")
        assert found is not None
        assert [(fault.field, fault.code) for fault in found.errors] == [("sessions.0.starts_at", "course_time_of_day")]
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
    nothing = refusal([])
    assert nothing is not None
    assert [(fault.field, fault.code) for fault in nothing.errors] == [("sessions", "course_limit_lessons")]
    assert codes(refusal([session(date(2026, 12, 7))] * 100_000)) == ["course_limit_lessons"]


def test_where_no_rule_limits_the_lessons_a_thousand_are_looked_at_and_more_are_too_many() -> None:
    assert MAX_SESSIONS == 1000
    before = policy_for("changzhou", "文化艺术", date(2017, 1, 1))
    day = datetime(2017, 1, 1, tzinfo=UTC)
    plan = [(day + timedelta(hours=n), day + timedelta(hours=n, minutes=30)) for n in range(1001)]
    assert refusal(plan[:1000], policy=before) is None
    backwards = [*plan[:999], (plan[999][1], plan[999][0])]
    assert codes(refusal(backwards, policy=before)) == ["course_time_of_day"]
    found = refusal(plan, policy=before)
    assert found is not None
    assert [(fault.field, fault.code) for fault in found.errors] == [("sessions", "course_limit_lessons")]
    assert found.detail == "最多 1000 课时"


def test_of_many_faults_a_hundred_are_named_and_of_every_kind_one() -> None:
    late = [session(date(2027, 1, 4) + timedelta(days=n), time(20), 60) for n in range(90)]
    early = [session(date(2027, 1, 4) + timedelta(days=n), time(9), 0) for n in range(90)]
    found = refusal([*late, *early], sells_from=datetime(2026, 11, 23, tzinfo=UTC), promotion_text="买10送2")
    assert found is not None
    assert len(found.errors) == MAX_ERRORS == 100
    assert codes(found)[:4] == [
        "course_limit_lessons",
        "course_time_of_day",
        "course_lead_time",
        "course_promotion_forbidden",
    ]
    assert set(codes(found)[4:]) == {"course_time_of_day"}


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
    assert not is_preschool(date(2019, 8, 31), date(2026, 8, 31))
    assert is_preschool(date(2020, 9, 1), date(2027, 8, 31))
