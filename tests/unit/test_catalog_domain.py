"""The rules of catalog: who may be listed, what may be offered, who gets a seat."""

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from services.catalog import domain
from services.catalog.domain import Course, Institution, Reservation, SeatBook, Seats
from shared.contracts.catalog import BankAccount, Disclosure, InstitutionState, Licence
from shared.contracts.errors import Refused
from shared.ids import new_id
from shared.policy import Category, policy_for
from shared.working_days import SHANGHAI, shanghai
from tests.catalog_samples import a_uscc, an_offer, disclosure, plan, registration, weekly

NOW = datetime(2026, 3, 2, 1, tzinfo=UTC)  # a Monday, 9:00 in Shanghai
AUTHORITY = "authority-1"
ALL_PARTS = {"licences", "venue", "teachers", "materials", "fee_standard", "refund_rules", "account"}


def applied(**changes: Any) -> Institution:
    return domain.register(registration(NOW, **changes), AUTHORITY, NOW)[0]


def listed(**changes: Any) -> Institution:
    institution = applied(**changes)
    domain.change_state(institution, "listed", "符合条件", AUTHORITY, NOW)
    return institution


def in_state(state: InstitutionState) -> Institution:
    institution = applied()
    for step in {"applied": "", "listed": "l", "suspended": "ls", "closed": "lsc"}[state]:
        next_state: InstitutionState = {"l": "listed", "s": "suspended", "c": "closed"}[step]  # type: ignore[assignment]
        domain.change_state(institution, next_state, "原因", AUTHORITY, NOW)
    return institution


def licence(begins: timedelta, ends: timedelta) -> Licence:
    return Licence(number="1", issued_by="教育局", valid_from=NOW + begins, valid_until=NOW + ends)


def published(institution: Institution, **changes: Any) -> Course:
    return domain.publish(an_offer(NOW, institution.institution_id, **changes), institution, NOW)


# --- institutions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("account", "code"),
    [
        (BankAccount(bank="hsbc", supervised_account="8800 0001", payout_account="6200 0001"), "bank_unknown"),
        (BankAccount(bank="abc", supervised_account="8800 0001", payout_account="六二零零"), "bank_account_invalid"),
        (BankAccount(bank="abc", supervised_account="八八零零", payout_account="6200 0001"), "bank_account_invalid"),
    ],
)
def test_an_institution_chooses_among_the_banks_that_supervise(account: BankAccount, code: str) -> None:
    with pytest.raises(Refused) as refused:
        applied(disclosure=disclosure(NOW, account=account))
    assert refused.value.code == code
    institution = listed()
    before = copy.deepcopy(institution)
    with pytest.raises(Refused) as refused:
        domain.disclose(institution, disclosure(NOW, account=account), "换银行", AUTHORITY, NOW)
    assert refused.value.code == code
    wrong = [name for name in ("supervised_account", "payout_account") if not getattr(account, name).isascii()]
    assert [one.field for one in refused.value.errors] == [f"disclosure.account.{name}" for name in wrong]
    assert institution == before
    moved = BankAccount(bank="abc", supervised_account="9900 0001", payout_account="6300 0001")
    assert domain.disclose(institution, disclosure(NOW, account=moved), "换银行", AUTHORITY, NOW)
    assert institution.account == moved.model_dump()


def test_a_new_institution_has_applied_and_its_history_begins() -> None:
    ask = registration(NOW)
    institution, change = domain.register(ask, AUTHORITY, NOW)
    assert institution.state == "applied"
    assert institution.disclosed == ask.disclosure
    assert (change.change_no, change.state, change.authority, change.changed_at) == (1, "applied", AUTHORITY, NOW)
    assert change.disclosure == institution.disclosure
    assert (institution.state_reason, institution.state_since, change.reason) == ("", NOW, "")


def test_what_is_disclosed_stands_in_rows_as_json_with_its_times_in_utc() -> None:
    licences = tuple(
        one.model_copy(update={name: getattr(one, name).astimezone(SHANGHAI) for name in ("valid_from", "valid_until")})
        for one in disclosure(NOW).licences
    )
    institution, change = domain.register(registration(NOW, disclosure=disclosure(NOW, licences=licences)), "a", NOW)
    assert json.loads(json.dumps(change.disclosure)) == institution.disclosure
    (stored,) = institution.disclosure["licences"]
    assert (stored["valid_from"], stored["valid_until"]) == ("2025-03-02T01:00:00Z", "2027-03-02T01:00:00Z")
    assert institution.account == institution.disclosure["account"]


def test_a_sale_needs_all_licences_so_the_latest_beginning_and_the_earliest_end_count() -> None:
    licences = (licence(timedelta(-9), timedelta(5)), licence(timedelta(-3), timedelta(9)))
    institution = listed(disclosure=disclosure(NOW, licences=licences))
    assert institution.licensed_from == NOW - timedelta(days=3)
    assert institution.licensed_until == NOW + timedelta(days=5)
    domain.check_may_sell(institution, NOW - timedelta(days=3))
    with pytest.raises(Refused):
        domain.check_may_sell(institution, NOW - timedelta(days=3, microseconds=1))


def test_a_code_is_stored_as_it_is_written_on_paper() -> None:
    code = a_uscc()
    assert applied(uscc=code.lower()).uscc == code


def test_a_code_with_a_wrong_check_character_is_refused_unless_the_regulator_gives_a_reason() -> None:
    code = a_uscc()
    wrong = code[:17] + ("1" if code[17] != "1" else "2")
    with pytest.raises(Refused) as caught:
        applied(uscc=wrong)
    assert caught.value.code == "uscc_invalid"
    institution, change = domain.register(
        registration(NOW, uscc=wrong, uscc_override_reason="证照原件如此"), AUTHORITY, NOW
    )
    assert institution.uscc == wrong
    assert change.reason == institution.uscc_override_reason == "证照原件如此"


@pytest.mark.parametrize("code", ["机构代码", "！", "a b*c"])
def test_no_reason_makes_a_code_of_other_signs(code: str) -> None:
    with pytest.raises(Refused) as caught:
        applied(uscc=code, uscc_override_reason="证照原件如此")
    assert caught.value.code == "uscc_invalid"


def test_a_code_with_a_reason_has_18_signs_at_most_once_it_is_folded() -> None:
    assert applied(uscc="A" * 18, uscc_override_reason="证照原件如此").uscc == "A" * 18
    with pytest.raises(Refused) as caught:
        applied(uscc="A" * 17 + "㎏", uscc_override_reason="证照原件如此")  # one sign that folds into two
    assert caught.value.code == "uscc_invalid"


def test_a_blank_reason_overrides_nothing() -> None:
    with pytest.raises(Refused):
        applied(uscc="123", uscc_override_reason="  ")


@pytest.mark.parametrize("name", ["\u200b\u200b", "㌖" * 60, "荷" * 99 + "㎏"])
def test_a_name_that_cannot_be_looked_up_is_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        applied(name=name)
    assert caught.value.code == "request_invalid"
    assert [fault.field for fault in caught.value.errors] == ["name"]


@pytest.mark.parametrize("length", [1, 100])
def test_a_name_may_be_as_short_or_long_as_the_limits(length: int) -> None:
    assert len(applied(name="荷" * length).name_key) == length


def test_names_are_compared_without_width_case_and_spaces() -> None:
    assert domain.fold_name("常州（ABC） 培训") == domain.fold_name("常州(abc)培训")
    assert domain.fold_uscc(" 9132-0412 ａbc") == "91320412ABC"


def test_the_same_registration_again_is_known_and_another_is_refused() -> None:
    ask = registration(NOW)
    known, first = domain.register(ask, AUTHORITY, NOW)
    domain.refuse_other_registration(known, first, ask)
    others: list[dict[str, Any]] = [
        {"institution_id": new_id()},
        {"name": "另一机构"},
        {"uscc": a_uscc()},
        {"district": "天宁区"},
        {"disclosure": disclosure(NOW, venue="别处")},
    ]
    for other in others:
        with pytest.raises(Refused) as caught:
            domain.refuse_other_registration(known, first, ask.model_copy(update=other))
        assert caught.value.code == "institution_exists"


def test_listing_names_every_part_that_is_not_disclosed() -> None:
    institution = applied(disclosure=Disclosure(venue="  "))
    with pytest.raises(Refused) as caught:
        domain.change_state(institution, "listed", "符合条件", AUTHORITY, NOW)
    assert caught.value.code == "institution_undisclosed"
    assert {fault.field for fault in caught.value.errors} == {f"disclosure.{part}" for part in ALL_PARTS}
    assert {fault.code for fault in caught.value.errors} == {"institution_undisclosed"}
    assert institution.state == "applied"


@pytest.mark.parametrize("part", sorted(ALL_PARTS))
def test_listing_needs_each_part(part: str) -> None:
    bare = Disclosure()
    institution = applied(disclosure=disclosure(NOW, **{part: getattr(bare, part)}))
    with pytest.raises(Refused) as caught:
        domain.change_state(institution, "listed", "符合条件", AUTHORITY, NOW)
    assert [fault.field for fault in caught.value.errors] == [f"disclosure.{part}"]


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        (timedelta(days=-9), timedelta(0)),
        (timedelta(seconds=1), timedelta(days=9)),
        (timedelta(days=1), timedelta(days=-1)),
    ],
)
def test_listing_needs_licences_in_force(begins: timedelta, ends: timedelta) -> None:
    good = licence(timedelta(0), timedelta(seconds=1))
    institution = applied(disclosure=disclosure(NOW, licences=(good, licence(begins, ends))))
    with pytest.raises(Refused) as caught:
        domain.change_state(institution, "listed", "符合条件", AUTHORITY, NOW)
    assert [fault.field for fault in caught.value.errors] == ["disclosure.licences.1"]


def test_the_states_follow_the_table_and_no_other_way() -> None:
    allowed = {
        ("applied", "listed"),
        ("applied", "closed"),
        ("listed", "suspended"),
        ("suspended", "listed"),
        ("suspended", "closed"),
    }
    states: tuple[InstitutionState, ...] = ("applied", "listed", "suspended", "closed")
    for state in states:
        for wanted in states[1:]:
            institution = in_state(state)
            if (state, wanted) in allowed:
                later = NOW + timedelta(days=1)
                change = domain.change_state(institution, wanted, "另一原因", "authority-2", later)
                assert change is not None
                assert (institution.state, institution.state_reason) == (wanted, "另一原因")
                assert institution.state_since == later
                assert (change.state, change.reason, change.authority, change.changed_at) == (
                    wanted,
                    "另一原因",
                    "authority-2",
                    later,
                )
                assert change.change_no == institution.changes
            else:
                with pytest.raises(Refused) as caught:
                    domain.change_state(institution, wanted, "另一原因", AUTHORITY, NOW)
                assert caught.value.code == "institution_state"
                assert institution.state == state


def test_the_same_state_for_the_same_reason_is_no_change() -> None:
    institution = in_state("suspended")
    before = institution.changes
    assert domain.change_state(institution, "suspended", "原因", AUTHORITY, NOW) is None
    assert institution.changes == before


def test_a_suspended_institution_is_listed_again_only_with_a_full_disclosure() -> None:
    institution = in_state("suspended")
    domain.disclose(institution, Disclosure(), "撤下", AUTHORITY, NOW)
    with pytest.raises(Refused) as caught:
        domain.change_state(institution, "listed", "整改完成", AUTHORITY, NOW)
    assert caught.value.code == "institution_undisclosed"


def test_a_missing_part_can_be_disclosed_and_then_the_institution_is_listed() -> None:
    institution = applied(disclosure=disclosure(NOW, account=None))
    change = domain.disclose(institution, disclosure(NOW), "补充监管账户", AUTHORITY, NOW)
    assert change is not None
    assert change.disclosure == institution.disclosure
    assert institution.account == institution.disclosure["account"] is not None
    domain.change_state(institution, "listed", "符合条件", AUTHORITY, NOW)
    domain.check_may_sell(institution, NOW)


def test_a_listed_institution_discloses_all_or_nothing_changes() -> None:
    institution = listed()
    before = institution.disclosure
    with pytest.raises(Refused) as caught:
        domain.disclose(institution, disclosure(NOW, venue=""), "搬迁", AUTHORITY, NOW)
    assert [fault.field for fault in caught.value.errors] == ["disclosure.venue"]
    assert institution.disclosure == before


def test_the_same_disclosure_again_is_no_change_and_a_closed_institution_discloses_nothing_more() -> None:
    institution = in_state("closed")
    assert domain.disclose(institution, institution.disclosed, "重复", AUTHORITY, NOW) is None
    with pytest.raises(Refused) as caught:
        domain.disclose(institution, disclosure(NOW, venue="新址"), "搬迁", AUTHORITY, NOW)
    assert caught.value.code == "institution_state"


def test_only_listed_institutions_sell() -> None:
    domain.check_may_sell(in_state("listed"), NOW)
    for state in ("applied", "suspended", "closed"):
        with pytest.raises(Refused) as caught:
            domain.check_may_sell(in_state(state), NOW)
        assert caught.value.code == "institution_not_listed"


def test_nothing_is_sold_from_the_moment_one_of_the_licences_has_run_out() -> None:
    licences = (licence(timedelta(0), timedelta(days=9)), licence(timedelta(0), timedelta(days=5)))
    institution = listed(disclosure=disclosure(NOW, licences=licences))
    domain.check_may_sell(institution, NOW + timedelta(days=5, microseconds=-1))
    with pytest.raises(Refused) as caught:
        domain.check_may_sell(institution, NOW + timedelta(days=5))
    assert caught.value.code == "institution_not_listed"


def test_what_is_disclosed_anew_is_a_row_of_the_history() -> None:
    institution = listed()
    later = NOW + timedelta(days=1)
    change = domain.disclose(institution, disclosure(NOW, venue="新址"), "迁址", "authority-2", later)
    assert change is not None
    assert (change.change_no, change.state, change.reason, change.authority) == (3, "listed", "迁址", "authority-2")
    assert (change.changed_at, change.disclosure) == (later, institution.disclosure)
    assert institution.disclosed.venue == "新址"


# --- courses ------------------------------------------------------------------------------------------------------


def refused_offer(institution: Institution, **changes: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        published(institution, **changes)
    return caught.value


def test_a_course_takes_category_and_district_from_its_institution() -> None:
    institution = listed()
    course = published(institution)
    assert (course.category, course.district) == (institution.category, institution.district)
    assert (course.seats, course.reserved, course.taken, course.free) == (2, 0, 0, 2)
    assert course.starts_at == course.plan[0].starts_at


def test_times_typed_in_another_zone_are_stored_in_utc() -> None:
    here = [at.model_copy(update={"starts_at": at.starts_at.astimezone(SHANGHAI)}) for at in weekly(NOW, 2)]
    course = published(listed(), lessons=tuple(here))
    assert course.lessons[0]["starts_at"].endswith("Z")
    assert course.plan == weekly(NOW, 2)
    there = [at.model_copy(update={"ends_at": at.ends_at.astimezone(SHANGHAI)}) for at in weekly(NOW, 2)]
    assert all(one["ends_at"].endswith("Z") for one in published(listed(), lessons=tuple(there)).lessons)


@pytest.mark.parametrize("state", ["applied", "suspended", "closed"])
def test_an_institution_that_is_not_listed_publishes_nothing(state: InstitutionState) -> None:
    assert refused_offer(in_state(state)).code == "institution_not_listed"


def test_every_broken_limit_is_named_in_one_refusal_by_the_fields_of_the_contract() -> None:
    # Every other day, so that it is 122 days: too long, too many, too late in the evening, too dear, and with a gift.
    first = datetime.combine(shanghai(NOW).date() + timedelta(days=3), time(20), SHANGHAI)
    lessons = plan([first + timedelta(days=2 * n) for n in range(61)])
    refused = refused_offer(
        listed(),
        lessons=lessons,
        price_fen=500_001,
        description="买 10 课时送 2 课时",
        sells_from=NOW - timedelta(days=60),
    )
    assert {fault.code for fault in refused.errors} == {
        "course_limit_lessons",
        "course_limit_price",
        "course_limit_span",
        "course_time_of_day",
        "course_lead_time",
        "course_promotion_forbidden",
    }
    fields = {fault.field for fault in refused.errors}
    assert {"lessons", "price_fen", "sells_from", "description", "lessons.0.ends_at"} <= fields
    assert not any("session" in name or "promotion" in name for name in fields)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (
            {"lessons": plan([weekly(NOW, 1)[0].starts_at + timedelta(days=n) for n in range(61)])},
            "course_limit_lessons",
        ),
        ({"price_fen": 500_001}, "course_limit_price"),
        ({"lessons": weekly(NOW, 15)}, "course_limit_span"),
        ({"lessons": weekly(NOW, 8, start=time(20))}, "course_time_of_day"),
        ({"online": True, "lessons": weekly(NOW, 8, minutes=31)}, "course_time_of_day"),
        ({"sells_from": NOW - timedelta(days=40)}, "course_lead_time"),
        ({"title": "充值卡优惠课"}, "course_promotion_forbidden"),
        ({"description": "一次性付款享八折优惠"}, "course_promotion_forbidden"),
    ],
)
def test_each_limit_is_checked_at_publishing(changes: dict[str, Any], code: str) -> None:
    refused = refused_offer(listed(), **changes)
    assert refused.code == code
    assert all(fault.field.partition(".")[0] in changes for fault in refused.errors)
    assert {fault.code for fault in refused.errors} == {code}


def test_at_its_limits_a_course_is_published() -> None:
    lessons = weekly(NOW, 13, start=time(19, 30))
    published(listed(), lessons=lessons, price_fen=500_000, sells_from=NOW - timedelta(days=20))


def test_title_and_description_are_not_read_as_one_sentence() -> None:
    published(listed(), title="少年宫买", description="3 次作业送 1 次点评")  # only together they sell "买3次送1次"


def test_subject_training_is_not_offered_on_rest_days() -> None:
    saturday = datetime.combine(shanghai(NOW).date() + timedelta(days=5), time(10), SHANGHAI)
    refused = refused_offer(listed(category=Category.SUBJECT), lessons=plan([saturday]))
    assert refused.code == "course_time_of_day"


def test_lessons_are_numbered_from_one_in_the_order_of_their_times() -> None:
    good = weekly(NOW, 3)
    from_two = tuple(lesson.model_copy(update={"lesson_no": lesson.lesson_no + 1}) for lesson in good)
    twice = (good[0], good[1], good[2].model_copy(update={"lesson_no": 2}))
    backwards = tuple(lesson.model_copy(update={"lesson_no": n}) for n, lesson in enumerate(reversed(good), 1))
    for lessons, fields in (
        (from_two, {"lessons.0.lesson_no", "lessons.1.lesson_no", "lessons.2.lesson_no"}),
        (twice, {"lessons.2.lesson_no"}),
        (backwards, {"lessons.1.starts_at", "lessons.2.starts_at"}),
    ):
        refused = refused_offer(listed(), lessons=lessons)
        assert refused.code == "request_invalid"
        assert {fault.field for fault in refused.errors} == fields


def test_wrong_numbers_are_named_beside_the_broken_limits() -> None:
    lessons = tuple(lesson.model_copy(update={"lesson_no": 9}) for lesson in weekly(NOW, 2))
    refused = refused_offer(listed(), lessons=lessons, price_fen=600_000)
    assert refused.code == "course_limit_price"
    assert {fault.code for fault in refused.errors} == {"course_limit_price", "request_invalid"}
    assert refused.figures == {
        "lessons": 2,
        "price_fen": 600_000,
        "faults": 3,
        "max_lessons": 60,
        "max_charge_fen": 500_000,
        "max_span_months": 3,
    }
    assert refused.detail.startswith("一次收费 6,000.00 元")


def test_of_many_wrong_numbers_twenty_are_named() -> None:
    lessons = tuple(lesson.model_copy(update={"lesson_no": 99}) for lesson in plan([NOW] * 25))
    faults = refused_offer(listed(), lessons=lessons).errors
    assert sum(fault.field.endswith(".lesson_no") for fault in faults) == 20


def test_lessons_at_the_same_time_are_in_order_and_refused_for_that_alone() -> None:
    at = weekly(NOW, 1)[0].starts_at
    refused = refused_offer(listed(), lessons=plan([at, at]))
    assert [fault.code for fault in refused.errors] == ["course_time_of_day"]


def test_a_course_that_has_begun_is_not_published() -> None:
    refused = refused_offer(listed(), lessons=plan([NOW, NOW + timedelta(days=1)]))
    assert refused.code == "course_started"
    assert [fault.field for fault in refused.errors] == ["lessons.0.starts_at"]


@pytest.mark.parametrize(("year", "far"), [(1999, True), (2000, False), (2199, False), (2200, True)])
def test_a_course_is_planned_for_this_century_or_the_next(year: int, far: bool) -> None:
    good = weekly(NOW, 1)[0]
    moments = {"starts_at": good.starts_at.replace(year=year), "ends_at": good.ends_at.replace(year=year)}
    lessons = (good.model_copy(update=moments),)
    refused = refused_offer(listed(), lessons=lessons, sells_from=moments["starts_at"], price_fen=600_000)
    if far:
        assert [fault.field for fault in refused.errors] == ["sells_from", "lessons.0.starts_at", "lessons.0.ends_at"]
        assert {fault.code for fault in refused.errors} == {"request_invalid"} == {refused.code}
    else:
        assert refused.code != "request_invalid"


def test_of_many_far_times_twenty_are_named() -> None:
    lessons = tuple(
        lesson.model_copy(update={"starts_at": datetime(9999, 1, 1, tzinfo=UTC)}) for lesson in plan([NOW] * 25)
    )
    assert len(refused_offer(listed(), lessons=lessons).errors) == 20


@pytest.mark.parametrize("year", [1, 9999])
def test_times_that_no_calendar_can_judge_are_refused(year: int) -> None:
    far = datetime(year, 12 if year > 1 else 1, 31 if year > 1 else 1, tzinfo=UTC)
    lessons = (weekly(NOW, 1)[0].model_copy(update={"starts_at": far}),)
    assert refused_offer(listed(), lessons=lessons).code == "request_invalid"
    assert refused_offer(listed(), sells_from=far).code == "request_invalid"


def test_a_licence_may_be_valid_for_ever_but_not_longer() -> None:
    for_ever = datetime(9999, 12, 31, 23, 59, tzinfo=SHANGHAI)
    unlimited = licence(timedelta(0), timedelta(1)).model_copy(update={"valid_until": for_ever})
    assert listed(disclosure=disclosure(NOW, licences=(unlimited,))).licensed_until == for_ever
    longer = unlimited.model_copy(update={"valid_until": for_ever.replace(tzinfo=timezone(-timedelta(hours=8)))})
    with pytest.raises(Refused) as caught:
        applied(disclosure=disclosure(NOW, licences=(longer,)))
    assert caught.value.code == "request_invalid"


def test_the_same_offer_again_is_known_and_another_is_refused() -> None:
    institution = listed()
    ask = an_offer(NOW, institution.institution_id)
    known = domain.publish(ask, institution, NOW)
    domain.refuse_other_course(known, ask)
    others: list[dict[str, Any]] = [
        {"institution_id": new_id()},
        {"price_fen": 1},
        {"lessons": weekly(NOW, 2)},
        {"seats": 3},
        {"title": "另一课程"},
        {"sells_from": NOW},
    ]
    for other in others:
        with pytest.raises(Refused) as caught:
            domain.refuse_other_course(known, ask.model_copy(update=other))
        assert caught.value.code == "course_exists"


# --- sales --------------------------------------------------------------------------------------------------------


def refused_sale(course: Course, institution: Institution, now: datetime) -> str:
    with pytest.raises(Refused) as caught:
        domain.check_sale(course, institution, now)
    return caught.value.code


def test_a_course_is_sold_until_its_first_lesson_begins() -> None:
    institution = listed()
    course = published(institution)
    domain.check_sale(course, institution, course.starts_at - timedelta(microseconds=1))
    assert refused_sale(course, institution, course.starts_at) == "course_started"


def test_a_course_is_not_sold_before_its_day_nor_more_than_a_month_before_its_first_lesson() -> None:
    institution = listed()
    course = published(institution, sells_from=NOW + timedelta(days=1))
    assert refused_sale(course, institution, NOW) == "course_not_on_sale"
    domain.check_sale(course, institution, NOW + timedelta(days=1))
    far = published(institution, lessons=plan([weekly(NOW, 1)[0].starts_at + timedelta(days=60)]))
    assert refused_sale(far, institution, NOW) == "course_lead_time"
    domain.check_sale(far, institution, NOW + timedelta(days=33))


def test_limits_are_checked_again_when_a_course_is_bought() -> None:
    institution = listed()
    course = published(institution)
    course.price_fen = 500_001  # as if the limit had been lowered since
    assert refused_sale(course, institution, NOW) == "course_limit_price"


MONDAY = datetime.combine(shanghai(NOW).date() + timedelta(days=7), time(10), SHANGHAI)


@pytest.mark.parametrize(
    ("category", "online", "price_fen", "lessons", "code", "words"),
    [
        # [law] 财务管理暂行办法 2023, 教育部等六部门 2021, 国办发〔2018〕80号
        ("体育", False, 500_001, weekly(NOW, 8), "course_limit_price", "5,000.01 元，上限 5,000.00 元"),
        (
            "体育",
            False,
            80_000,
            plan([MONDAY + timedelta(days=n) for n in range(61)]),
            "course_limit_lessons",
            "61 课时，上限 60 课时",
        ),
        ("体育", False, 80_000, weekly(NOW, 15), "course_limit_span", "跨度上限 3 个月"),
        # [local] 江苏省教育厅等十一部门 2022
        (
            "体育",
            False,
            80_000,
            plan([MONDAY + timedelta(days=60)]),
            "course_lead_time",
            "最早可于 2026-04-08 开始收费",
        ),
        # [law] 国办发〔2018〕80号, “双减”意见 2021
        ("体育", False, 80_000, plan([MONDAY.replace(hour=20)]), "course_time_of_day", "不得晚于 20:30"),
        ("体育", True, 80_000, plan([MONDAY.replace(hour=20, minute=31)], 30), "course_time_of_day", "不得晚于 21:00"),
        ("体育", True, 80_000, plan([MONDAY], 31), "course_time_of_day", "每课时不得超过 30 分钟"),
        (
            "学科",
            False,
            80_000,
            plan([MONDAY + timedelta(days=5)]),
            "course_time_of_day",
            "2026-03-14 为休息日或节假日",
        ),
        (
            "学科",
            False,
            80_000,
            plan([datetime(2026, 4, 6, 10, tzinfo=SHANGHAI)]),
            "course_time_of_day",
            "2026-04-06 为",
        ),
    ],
)
def test_at_the_purchase_each_limit_of_an_offer_is_refused_with_the_rule_and_its_figures(
    category: str, online: bool, price_fen: int, lessons: Any, code: str, words: str
) -> None:
    """As if it had been published under older rules."""
    institution = listed(category=category)
    course = published(institution, lessons=plan([MONDAY], 30))
    course.online, course.price_fen = online, price_fen
    course.lessons = [lesson.model_dump(mode="json") for lesson in lessons]
    course.starts_at = lessons[0].starts_at
    with pytest.raises(Refused) as caught:
        domain.check_sale(course, institution, NOW)
    assert caught.value.code == code
    assert words in caught.value.detail


def test_at_the_purchase_subject_training_in_school_vacations_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """[law] “双减”意见 2021: 不得占用寒暑假. No region's vacations are known yet: as if these were."""
    institution = listed(category="学科")
    course = published(institution, lessons=plan([MONDAY]))
    domain.check_sale(course, institution, NOW)
    known = replace(policy_for("changzhou", "学科", MONDAY.date()), school_vacations=((MONDAY.date(),) * 2,))
    monkeypatch.setattr(domain, "policy_of", lambda *_: known)
    with pytest.raises(Refused, match="2026-03-09 在寒暑假期间") as caught:
        domain.check_sale(course, institution, NOW)
    assert caught.value.code == "course_time_of_day"


def test_a_suspended_institution_sells_no_seat_of_what_it_had_published() -> None:
    institution = listed()
    course = published(institution)
    domain.change_state(institution, "suspended", "检查", AUTHORITY, NOW)
    assert refused_sale(course, institution, NOW) == "institution_not_listed"


def test_a_seat_is_kept_for_fifteen_minutes() -> None:
    policy = policy_for("武进区", Category.CULTURE_AND_ART, NOW.date())
    assert domain.reserved_until(policy, NOW) == NOW + timedelta(minutes=15)


# --- seats --------------------------------------------------------------------------------------------------------

COURSE, ONE, TWO = UUID(int=9), UUID(int=1), UUID(int=2)
ACCOUNT = {"bank": "jiangnan"}
LATER = NOW + timedelta(minutes=15)


def book_of(*reservations: Reservation, seats: int = 1, now: datetime = NOW) -> SeatBook:
    states = [one.state for one in reservations]
    counted = Seats(COURSE, seats, states.count("reserved"), states.count("taken"))
    return SeatBook({one.order_id: one for one in reservations}, {COURSE: counted}, now)


def reservation(state: Any, order_id: UUID = ONE) -> Reservation:
    return Reservation(order_id, COURSE, state, LATER, ACCOUNT, "", NOW)


def refused_seat(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.code


def test_the_last_seat_is_reserved_once() -> None:
    book = book_of()
    assert book.reserve(ONE, COURSE, ACCOUNT, LATER) is book.made[ONE]
    assert book.made[ONE] == reservation("reserved")
    assert refused_seat(book.reserve, TWO, COURSE, ACCOUNT, LATER) == "course_full"
    assert (book.courses[COURSE].reserved, list(book.made)) == (1, [ONE])


def test_a_repeated_reservation_is_the_one_that_stands_even_when_the_seat_is_sold() -> None:
    for state in ("reserved", "taken"):
        known = reservation(state)
        assert book_of(known).standing(ONE, COURSE) is known
    assert book_of().standing(ONE, COURSE) is None


def test_an_order_reserves_one_course_only() -> None:
    assert refused_seat(book_of(reservation("reserved")).standing, ONE, UUID(int=8)) == "order_exists"


@pytest.mark.parametrize("state", ["expired", "given_back"])
def test_an_order_that_has_ended_reserves_nothing_more(state: str) -> None:
    assert refused_seat(book_of(reservation(state)).standing, ONE, COURSE) == "seat_expired"


def test_a_reservation_that_comes_after_its_order_was_given_back_is_refused() -> None:
    book = book_of()
    assert book.give_back(ONE, "cancelled")
    assert book.made[ONE] == Reservation(ONE, None, "given_back", None, None, "cancelled", NOW)
    assert refused_seat(book.standing, ONE, COURSE) == "seat_expired"
    assert refused_seat(book.take, ONE) == "seat_expired"
    assert refused_seat(book.extend, ONE, LATER) == "seat_expired"
    assert not book.give_back(ONE, "cancelled")


def test_what_becomes_of_a_seat_is_noted_with_its_time_and_reason() -> None:
    after = NOW + timedelta(minutes=1)
    book = book_of(reservation("reserved"), now=after)
    assert book.take(ONE)
    assert book.changed[ONE] == Reservation(ONE, COURSE, "taken", LATER, ACCOUNT, "", after)
    assert book.give_back(ONE, "refunded")
    assert book.changed[ONE] == Reservation(ONE, COURSE, "given_back", LATER, ACCOUNT, "refunded", after)
    book = book_of(reservation("reserved"), now=after)
    assert book.extend(ONE, LATER + timedelta(hours=1))
    assert book.changed[ONE] == Reservation(ONE, COURSE, "reserved", LATER + timedelta(hours=1), ACCOUNT, "", after)


def test_a_seat_is_sold_once_however_often_it_is_asked_for() -> None:
    book = book_of(reservation("reserved"))
    assert (book.take(ONE), book.take(ONE)) == (True, False)
    assert (book.courses[COURSE].reserved, book.courses[COURSE].taken) == (0, 1)


def test_money_that_comes_late_still_gets_a_seat_while_one_is_free() -> None:
    book = book_of(reservation("expired"))
    assert book.take(ONE)
    assert book.courses[COURSE].taken == 1
    full = book_of(reservation("expired"), reservation("taken", TWO))
    assert refused_seat(full.take, ONE) == "seat_expired"


def test_a_seat_that_nobody_reserved_can_be_neither_sold_nor_extended() -> None:
    book = book_of()
    assert refused_seat(book.take, ONE) == "seat_unknown"
    assert refused_seat(book.extend, ONE, LATER) == "seat_unknown"
    assert not book.made
    assert not book.changed


@pytest.mark.parametrize("state", ["reserved", "taken"])
def test_a_seat_given_back_is_free_for_the_next(state: str) -> None:
    book = book_of(reservation(state))
    assert book.give_back(ONE, "refunded")
    assert book.courses[COURSE].free == 1
    assert (book.reservations[ONE].state, book.reservations[ONE].reason) == ("given_back", "refunded")


def test_giving_back_what_has_run_out_frees_nothing_twice() -> None:
    book = book_of(reservation("expired"), reservation("taken", TWO))
    assert book.give_back(ONE, "cancelled")
    assert (book.courses[COURSE].taken, book.courses[COURSE].free) == (1, 0)


def test_a_reservation_runs_out_at_its_time_and_not_before() -> None:
    early = book_of(reservation("reserved"), now=LATER - timedelta(microseconds=1))
    kept = early.expire(ONE)
    assert kept is not None
    assert (kept.state, early.courses[COURSE].reserved) == ("reserved", 1)
    book = book_of(reservation("reserved"), now=LATER)
    ended = book.expire(ONE)
    assert ended is not None
    assert (ended.state, book.courses[COURSE].free) == ("expired", 1)
    assert book.expire(ONE) is None


def test_an_extended_reservation_outlives_its_first_timer() -> None:
    book = book_of(reservation("reserved"))
    until = LATER + timedelta(days=1)
    assert book.extend(ONE, until)
    book.now = LATER
    kept = book.expire(ONE)
    assert kept is not None
    assert (kept.state, kept.expires_at) == ("reserved", until)


@pytest.mark.parametrize("state", ["taken", "given_back", "expired"])
def test_a_late_timer_finds_nothing_to_do(state: str) -> None:
    book = book_of(reservation(state), now=LATER)
    assert book.expire(ONE) is None
    assert not book.changed


def test_a_sold_seat_needs_no_extension_and_one_that_ran_out_gets_none() -> None:
    assert book_of(reservation("taken")).extend(ONE, LATER) is False
    assert refused_seat(book_of(reservation("expired")).extend, ONE, LATER) == "seat_expired"
