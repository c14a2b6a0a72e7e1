"""Offers: whatever is sent in, the answer is nothing or one refusal that names what is broken."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.errors import Refused
from shared.policy import Category, add_months, check_offer, policy_for, promotion_fault

moments = st.datetimes(datetime(2026, 9, 1), datetime(2027, 6, 30), timezones=st.just(UTC))  # noqa: DTZ001
sessions = st.tuples(moments, st.integers(-30, 200)).map(lambda s: (s[0], s[0] + timedelta(minutes=s[1])))
plans = st.lists(sessions, max_size=70)
Plan = Sequence[tuple[datetime, datetime]]


def faults(plan: Plan, category: str, online: bool, price_fen: int, text: str = "") -> set[str]:
    policy = policy_for("changzhou", category, date(2026, 11, 23))
    try:
        check_offer(
            policy,
            category=category,
            online=online,
            price_fen=price_fen,
            sessions=plan,
            sells_from=None,
            promotion_text=text,
        )
    except Refused as caught:
        found = caught
    else:
        return set()
    assert found.code == found.errors[0].code
    return {error.code for error in found.errors}


@given(plans, st.sampled_from(Category), st.booleans(), st.integers(0, 1_000_000))
def test_lessons_and_price_are_refused_exactly_above_their_limits(
    plan: Plan, category: str, online: bool, price_fen: int
) -> None:
    found = faults(plan, category, online, price_fen)
    assert ("course_limit_lessons" in found) == (not 1 <= len(plan) <= 60)
    assert ("course_limit_price" in found) == (price_fen > 500_000)


@given(plans, st.randoms(use_true_random=False))
def test_the_order_of_lessons_does_not_matter(plan: list[tuple[datetime, datetime]], random: object) -> None:
    shuffled = list(plan)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert faults(plan, "体育", False, 1) == faults(shuffled, "体育", False, 1)


@given(plans, sessions)
def test_one_more_lesson_never_mends_a_limit(
    plan: list[tuple[datetime, datetime]], extra: tuple[datetime, datetime]
) -> None:
    before = faults(plan, "体育", False, 1) if plan else set()
    assert before <= faults([*plan, extra], "体育", False, 1)


@given(st.text(max_size=2000))
def test_any_promotion_text_is_judged(text: str) -> None:
    assert promotion_fault(text) is None or isinstance(promotion_fault(text), str)


@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)), st.integers(0, 24))
def test_months_back_and_forth_never_pass_the_day(day: date, months: int) -> None:
    later = add_months(day, months)
    assert (later.year * 12 + later.month) - (day.year * 12 + day.month) == months
    assert later.day <= day.day
    assert add_months(later, -months) <= day
