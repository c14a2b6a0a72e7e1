"""Banks as data: who supervises, what an account looks like, when a day's and a week's payouts are closed."""

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.banks import BANKS, check_account, next_cut_off
from shared.contracts.errors import Refused
from shared.working_days import SHANGHAI, is_working_day, shanghai


def at(text: str) -> datetime:
    """A Shanghai time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI).astimezone(UTC)


@pytest.mark.parametrize(
    ("bank", "mode", "now", "due"),
    [
        ("icbc", "daily", "2026-03-04 16:29", "2026-03-04 16:30"),
        ("icbc", "daily", "2026-03-04 16:30", "2026-03-05 16:30"),
        ("icbc", "daily", "2026-03-06 17:00", "2026-03-09 16:30"),  # Friday evening → Monday
        ("abc", "daily", "2026-03-04 16:15", "2026-03-05 16:00"),  # each bank has its own cut-off
        ("hsbc", "daily", "2026-03-04 12:00", "2026-03-04 16:30"),  # not on the list any more
        ("icbc", "weekly", "2026-03-04 12:00", "2026-03-06 16:30"),  # Wednesday → Friday
        ("icbc", "weekly", "2026-03-06 16:30", "2026-03-13 16:30"),
        ("icbc", "weekly", "2026-10-01 12:00", "2026-10-08 16:30"),  # Friday in the National Day week moves
        ("icbc", "weekly", "2026-10-04 12:00", "2026-10-08 16:30"),  # and is still to come on the Sunday after
    ],
)
def test_the_cut_off_is_on_the_next_working_day_or_friday(
    bank: str, mode: Literal["daily", "weekly"], now: str, due: str
) -> None:
    assert next_cut_off(bank, mode, at(now)) == at(due)


@given(
    st.integers(0, 3 * 365 * 24 * 60).map(lambda minutes: at("2025-01-01 00:00") + timedelta(minutes=minutes)),
    st.sampled_from(sorted(BANKS)),
    st.sampled_from(["daily", "weekly"]),
)
def test_a_cut_off_is_ahead_on_a_working_day_and_never_far(
    now: datetime, bank: str, mode: Literal["daily", "weekly"]
) -> None:
    due = next_cut_off(bank, mode, now)
    assert now < due <= now + timedelta(days=7 + 14)
    assert is_working_day(shanghai(due).date())
    assert shanghai(due).time() == BANKS[bank].cut_off


def test_only_banks_with_a_contract_supervise_and_accounts_have_their_form() -> None:
    check_account("icbc", supervised_account="1105 0001", payout_account="6222-0001")
    with pytest.raises(Refused) as refused:
        check_account("hsbc", payout_account="6222-0001")
    assert refused.value.code == "bank_unknown"
    with pytest.raises(Refused) as refused:
        check_account("icbc", supervised_account="x" * 35, payout_account="号")
    assert refused.value.code == "bank_account_invalid"
    assert [one.field for one in refused.value.errors] == ["supervised_account", "payout_account"]


def test_each_bank_has_a_contract_of_its_own() -> None:
    assert len({bank.contract_no for bank in BANKS.values()}) == len(BANKS)
    assert {bank.statement_form for bank in BANKS.values()} == {"csv", "camt053"}
    assert all(code == bank.code for code, bank in BANKS.items())
