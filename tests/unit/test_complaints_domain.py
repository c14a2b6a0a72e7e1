"""Complaints and reports: who may file, which step follows which, and the clocks in working days."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from services.complaints import domain
from services.complaints.domain import Filing, Order, check_filing, filing_number, move, pass_deadline, start
from shared.contracts.complaints import FileComplaint, FilingKind, FilingState
from shared.contracts.errors import Refused
from shared.ids import new_id
from shared.policy import ComplaintClocks
from shared.working_days import add_working_days

NOW = datetime(2026, 3, 2, 2, 0, tzinfo=UTC)  # a Monday morning in Shanghai
CLOCKS = ComplaintClocks()
ALL_STATES: tuple[FilingState, ...] = get_args(FilingState)
PATHS: dict[FilingState, list[FilingState]] = {
    "submitted": [],
    "accepted": ["accepted"],
    "rejected": ["rejected"],
    "transferred": ["transferred"],
    "in_progress": ["accepted", "in_progress"],
    "filed": ["accepted", "in_progress", "filed"],
    "unfounded": ["accepted", "in_progress", "unfounded"],
    "terminated": ["accepted", "in_progress", "terminated"],
    "mediated": ["accepted", "in_progress", "mediated"],
}


def asked(**changes: Any) -> FileComplaint:
    values: dict[str, Any] = {
        "filing_id": new_id(),
        "kind": "complaint",
        "type": "refund_refused",
        "area": "武进区",
        "category": "体育",
        "text": "不退费",
    }
    return FileComplaint(**(values | changes))


def a_filing(kind: FilingKind = "complaint", state: FilingState = "submitted") -> Filing:
    filing = Filing(
        filing_id=new_id(),
        number="TS20260302-000000-000000",
        kind=kind,
        type="refund_refused",
        area="武进区",
        category="体育",
        department="武进区文体广电和旅游局",
        hotline="86311153",
        account_id=new_id(),
        order_id=None,
        content="",
        content_hash=b"",
        state="submitted",
        state_reason="",
        submitted_at=NOW,
        act_by=None,
    )
    start(filing, CLOCKS, NOW)
    for step in PATHS[state]:
        step_on(filing, step)
    return filing


def step_on(filing: Filing, state: FilingState, now: datetime = NOW, reason: str = "依法办理") -> domain.Step:
    to = ("武进区市场监督管理局", "") if state == "transferred" else None
    return move(filing, state, reason, to=to, decided_by="wujin", clocks=CLOCKS, now=now)


# --- who may file ---------------------------------------------------------------------------------------------------


def test_a_complaint_without_a_guardian_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        check_filing(asked(), None, None)
    assert caught.value.code == "complaint_needs_guardian"


def test_a_report_may_be_anonymous() -> None:
    check_filing(asked(kind="report"), None, None)


def test_a_report_has_no_order_and_so_no_effect_on_money() -> None:
    with pytest.raises(Refused) as caught:
        check_filing(asked(kind="report", order_id=new_id()), new_id(), None)
    assert caught.value.code == "request_invalid"
    assert [error.field for error in caught.value.errors] == ["order_id"]


def test_a_complaint_on_an_unknown_order_may_be_tried_again_later() -> None:
    with pytest.raises(Refused) as caught:
        check_filing(asked(order_id=new_id()), new_id(), None)
    assert caught.value.code == "order_unknown"


def test_a_complaint_on_the_order_of_another_family_is_forbidden() -> None:
    order = Order(new_id(), new_id())
    check_filing(asked(order_id=order.order_id), order.account_id, order)
    with pytest.raises(Refused) as caught:
        check_filing(asked(order_id=order.order_id), new_id(), order)
    assert caught.value.code == "actor_forbidden"


def test_which_ends_are_ends_and_which_columns_a_step_may_change() -> None:
    assert {"rejected", "mediated", "filed", "unfounded", "terminated"} == domain.CLOSED
    filed, worked = a_filing(), a_filing()
    worked.filing_id, worked.account_id = filed.filing_id, filed.account_id
    due = worked.act_by
    assert due is not None
    pass_deadline(worked, "submitted", CLOCKS, due)
    step_on(worked, "transferred", due)
    changed = {name for name in Filing.__slots__ if getattr(filed, name) != getattr(worked, name)}
    assert changed | {"overdue"} == set(domain.CHANGING)


# --- numbers --------------------------------------------------------------------------------------------------------


def test_a_number_says_what_it_is_and_when_and_then_sixty_bits_that_nobody_guesses() -> None:
    day = domain.submitted_on(datetime(2026, 11, 22, 16, 30, tzinfo=UTC))  # already the 23rd in Shanghai
    assert filing_number("complaint", bytes(32), day) == "TS20261123-000000-000000"
    assert filing_number("report", b"\xff" * 32, day) == "JB20261123-ZZZZZZ-ZZZZZZ"
    assert filing_number("report", bytes(8) + b"\xff" * 24, day) == filing_number("report", bytes(32), day)
    seen = {filing_number("report", (n << 4).to_bytes(8), day) for n in range(5000)}
    assert len(seen) == 5000
    for bit in range(60):
        assert filing_number("report", (1 << bit).to_bytes(8), day) != filing_number("report", bytes(8), day)


@pytest.mark.parametrize(
    "typed",
    ["TS20261123-7K3QF0-2X9AB1", " ts20261123 7k3qfo 2x9abl ", "TS202611237K3QFO2X9ABI"],
)
def test_a_number_is_understood_as_people_type_it(typed: str) -> None:
    assert domain.as_number(typed) == "TS20261123-7K3QF0-2X9AB1"


@pytest.mark.parametrize("typed", ["", "-", "TS", "\x00", "投诉", "T" * 30])
def test_what_is_no_number_is_read_without_a_fault(typed: str) -> None:
    assert "\x00" not in domain.as_number(typed)


# --- steps ----------------------------------------------------------------------------------------------------------

LEGAL = {
    ("submitted", "accepted"),
    ("submitted", "rejected"),
    ("submitted", "transferred"),
    ("transferred", "accepted"),
    ("transferred", "rejected"),
    ("transferred", "transferred"),
    ("transferred", "in_progress"),
    ("accepted", "in_progress"),
    ("in_progress", "mediated"),
    ("in_progress", "filed"),
    ("in_progress", "unfounded"),
    ("in_progress", "terminated"),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(ALL_STATES, ALL_STATES)))
def test_every_step_is_legal_or_refused_and_a_refused_one_changes_nothing(
    before: FilingState, after: FilingState
) -> None:
    filing, untouched = a_filing(state=before), a_filing(state=before)
    untouched.filing_id, untouched.account_id = filing.filing_id, filing.account_id
    assert filing == untouched
    if (before, after) in LEGAL:
        step = step_on(filing, after)
        assert (step.from_state, step.to_state, filing.state) == (before, after, after)
        assert (filing.act_by is None) == (after in domain.CLOSED)
        return
    with pytest.raises(Refused) as caught:
        step_on(filing, after)
    assert caught.value.code == "complaint_state"
    assert filing == untouched


def test_a_report_is_not_mediated() -> None:
    filing = a_filing("report", "in_progress")
    with pytest.raises(Refused) as caught:
        step_on(filing, "mediated")
    assert caught.value.code == "complaint_state"
    step_on(filing, "filed")


def test_a_filing_is_handed_on_three_times_at_most() -> None:
    filing = a_filing()
    for _ in range(domain.MOST_HOPS):
        step_on(filing, "transferred")
    with pytest.raises(Refused) as caught:
        step_on(filing, "transferred")
    assert (caught.value.code, caught.value.figures["hops"]) == ("complaint_state", 3)
    step_on(filing, "accepted")


@pytest.mark.parametrize(("state", "to"), [("transferred", None), ("accepted", ("教育局", ""))])
def test_a_transfer_says_where_to_and_no_other_step_does(state: FilingState, to: tuple[str, str] | None) -> None:
    filing = a_filing()
    with pytest.raises(Refused) as caught:
        move(filing, state, "移送", to=to, decided_by="wujin", clocks=CLOCKS, now=NOW)
    assert caught.value.code == "request_invalid"
    assert [error.field for error in caught.value.errors] == ["transferred_to"]
    assert (filing.state, filing.steps) == ("submitted", 1)


def test_a_transfer_changes_who_handles_it_and_begins_the_clock_anew() -> None:
    filing = a_filing()
    step_on(filing, "transferred", NOW + timedelta(days=3))
    assert (filing.department, filing.hotline, filing.hops) == ("武进区市场监督管理局", "", 1)
    assert filing.overdue == 0
    assert filing.act_by == datetime(2026, 3, 16, 16, tzinfo=UTC)  # 7 working days after Thursday the 5th


def test_what_was_late_before_a_transfer_is_not_held_against_who_is_handed_it() -> None:
    filing = a_filing()
    assert filing.act_by is not None
    pass_deadline(filing, "submitted", CLOCKS, filing.act_by)
    assert filing.overdue == 1
    step_on(filing, "transferred")
    assert filing.overdue == 0


def test_the_first_line_of_the_history_is_the_filing_itself() -> None:
    filing = a_filing()
    filing.steps = 0
    assert start(filing, CLOCKS, NOW) == domain.Step(
        filing.filing_id, 0, "", "submitted", False, "", "武进区文体广电和旅游局", "", NOW
    )


def test_every_step_is_a_line_of_the_history() -> None:
    filing = a_filing()
    first = step_on(filing, "accepted", reason="属实")
    assert (first.step_no, first.reason, first.decided_by, first.overdue) == (1, "属实", "wujin", False)
    assert (first.filing_id, first.happened_at, first.department) == (filing.filing_id, NOW, filing.department)
    assert step_on(filing, "in_progress").step_no == 2
    assert filing.steps == 3


def test_the_same_step_asked_again_is_known_and_another_reason_is_not_the_same_step() -> None:
    filing = a_filing()
    step_on(filing, "transferred", reason="管辖")
    assert domain.is_same_step(filing, "transferred", "管辖", "武进区市场监督管理局")
    assert not domain.is_same_step(filing, "transferred", "管辖", "教育局")
    assert not domain.is_same_step(filing, "transferred", "其他", "武进区市场监督管理局")
    assert not domain.is_same_step(filing, "accepted", "管辖", "")


# --- clocks ---------------------------------------------------------------------------------------------------------


def test_seven_working_days_to_accept_are_over_at_midnight_in_shanghai() -> None:
    filing = a_filing()
    assert filing.act_by == datetime(2026, 3, 11, 16, tzinfo=UTC)


def test_forty_five_working_days_to_mediate_count_from_the_acceptance_not_from_going_to_work() -> None:
    filing = a_filing()
    step_on(filing, "accepted", NOW + timedelta(days=1))
    deadline = filing.act_by
    assert deadline is not None
    assert 60 <= (deadline - NOW).days <= 70
    step_on(filing, "in_progress", NOW + timedelta(days=20))
    assert filing.act_by == deadline


def test_a_report_is_checked_in_fifteen_working_days_and_fifteen_more() -> None:
    filing = a_filing("report", "accepted")
    assert filing.act_by is not None
    first = filing.act_by
    assert first == datetime(2026, 3, 23, 16, tzinfo=UTC)
    assert pass_deadline(filing, "accepted", CLOCKS, first) is not None
    assert filing.act_by == add_working_days(first, 15)


def test_the_second_period_of_a_check_is_the_extension() -> None:
    clocks = ComplaintClocks(check_working_days=3, check_extension_working_days=5)
    filing = a_filing("report", "accepted")
    assert domain.clock_working_days(clocks, filing) == 3
    filing.overdue = 1
    assert domain.clock_working_days(clocks, filing) == 5


def test_a_deadline_that_passes_is_noted_once_and_a_new_one_set() -> None:
    filing = a_filing()
    due = filing.act_by
    assert due is not None
    assert pass_deadline(filing, "submitted", CLOCKS, due - timedelta(seconds=1)) is None
    step = pass_deadline(filing, "submitted", CLOCKS, due)
    assert step is not None
    assert (step.overdue, step.from_state, step.to_state, step.decided_by) == (True, "submitted", "submitted", "")
    assert (step.reason, step.happened_at) == ("", due)
    assert filing.act_by == add_working_days(due, 7)
    assert filing.overdue == 1
    assert pass_deadline(filing, "submitted", CLOCKS, due) is None


@pytest.mark.parametrize("state", ["accepted", "rejected"])
def test_a_timer_of_a_state_that_is_over_finds_nothing_to_do(state: FilingState) -> None:
    filing = a_filing(state=state)
    assert pass_deadline(filing, "submitted", CLOCKS, NOW + timedelta(days=300)) is None
