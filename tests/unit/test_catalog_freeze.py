"""The rules of freezing an institution (冻结): an authority's act, with a reason and an end."""

from datetime import UTC, datetime, timedelta

import pytest

from services.catalog import domain
from services.catalog.domain import FREEZE_AT_MOST, Institution
from shared.contracts.errors import Refused
from tests.catalog_samples import an_offer, registration

NOW = datetime(2026, 3, 2, 1, tzinfo=UTC)  # a Monday, 9:00 in Shanghai
AUTHORITY = "authority-1"
A_WEEK = timedelta(days=7)
A_SECOND = timedelta(seconds=1)


def listed() -> Institution:
    institution, _ = domain.register(registration(NOW), AUTHORITY, NOW)
    domain.change_state(institution, "listed", "符合条件", AUTHORITY, NOW)
    return institution


def code(institution: Institution, now: datetime) -> str:
    with pytest.raises(Refused) as refused:
        domain.check_may_sell(institution, now)
    return refused.value.code


def test_a_frozen_institution_sells_nothing_until_the_end_of_its_freeze() -> None:
    institution = listed()
    course = domain.publish(an_offer(NOW, institution.institution_id), institution, NOW)
    domain.freeze(institution, NOW + A_WEEK, "涉嫌卷款", AUTHORITY, NOW)
    assert code(institution, NOW) == code(institution, NOW + A_WEEK - A_SECOND) == "institution_frozen"
    with pytest.raises(Refused) as refused:
        domain.check_sale(course, institution, NOW)
    assert refused.value.code == "institution_frozen"
    domain.check_may_sell(institution, NOW + A_WEEK)


def test_a_freeze_and_its_end_are_rows_of_the_history_with_reason_and_authority() -> None:
    institution = listed()
    frozen = domain.freeze(institution, NOW + A_WEEK, "涉嫌卷款", AUTHORITY, NOW)
    assert frozen is not None
    assert (frozen.frozen_until, frozen.reason, frozen.authority) == (NOW + A_WEEK, "涉嫌卷款", AUTHORITY)
    thawed = domain.thaw(institution, "已整改", AUTHORITY, NOW + A_SECOND)
    assert thawed is not None
    assert (thawed.frozen_until, thawed.reason, thawed.change_no) == (None, "已整改", frozen.change_no + 1)
    assert (frozen.changed_at, frozen.disclosure) == (NOW, None)
    assert (thawed.changed_at, thawed.disclosure, thawed.authority) == (NOW + A_SECOND, None, AUTHORITY)
    domain.check_may_sell(institution, NOW + A_SECOND)


def test_a_freeze_lasts_half_a_year_at_most() -> None:
    assert timedelta(days=183) == FREEZE_AT_MOST


def test_the_same_freeze_again_and_a_thaw_of_what_is_not_frozen_change_nothing() -> None:
    institution = listed()
    assert domain.thaw(institution, "误报", AUTHORITY, NOW) is None
    domain.freeze(institution, NOW + A_WEEK, "涉嫌卷款", AUTHORITY, NOW)
    assert domain.freeze(institution, NOW + A_WEEK, "涉嫌卷款", AUTHORITY, NOW + A_SECOND) is None
    assert domain.freeze(institution, NOW + 2 * A_WEEK, "延长", AUTHORITY, NOW + A_SECOND) is not None
    assert institution.frozen_until == NOW + 2 * A_WEEK


@pytest.mark.parametrize("ahead", [timedelta(0), -A_SECOND, FREEZE_AT_MOST + A_SECOND])
def test_a_freeze_ends_at_most_half_a_year_ahead(ahead: timedelta) -> None:
    institution = listed()
    with pytest.raises(Refused) as refused:
        domain.freeze(institution, NOW + ahead, "涉嫌卷款", AUTHORITY, NOW)
    assert (refused.value.code, institution.frozen_until) == ("freeze_until", None)
    domain.freeze(institution, NOW + FREEZE_AT_MOST, "涉嫌卷款", AUTHORITY, NOW)
    assert institution.frozen_until == NOW + FREEZE_AT_MOST


def test_a_closed_institution_is_not_frozen_and_a_suspended_one_is() -> None:
    institution = listed()
    domain.change_state(institution, "suspended", "检查", AUTHORITY, NOW)
    assert domain.freeze(institution, NOW + A_WEEK, "涉嫌卷款", AUTHORITY, NOW) is not None
    domain.change_state(institution, "closed", "注销", AUTHORITY, NOW)
    with pytest.raises(Refused) as refused:
        domain.freeze(institution, NOW + 2 * A_WEEK, "延长", AUTHORITY, NOW)
    assert refused.value.code == "institution_state"
