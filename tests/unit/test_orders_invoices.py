"""The rules of invoices: exactly what was released, once for each lesson, undone only by a red one."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.orders.invoices import domain
from services.orders.invoices.domain import Fee, Invoice
from services.orders.lessons.domain import Lesson
from services.orders.refunds.domain import Refund
from shared.contracts.errors import Refused

ORDER_ID = UUID(int=1)
PAID_AT = datetime(2026, 3, 2, 11, 0, tzinfo=UTC)
NUMBER, RED = "24322000000012345678", "24322000000099999999"


def lesson(lesson_no: int, state: str = "paid_out") -> Lesson:
    made = Lesson(ORDER_ID, lesson_no, PAID_AT, PAID_AT, 3_333 + (lesson_no == 3), state)
    if state == "paid_out":
        made.paid_at = PAID_AT
    return made


def refund(kept_paid_at: datetime | None = PAID_AT) -> Refund:
    """One of which the institution keeps 250 fen."""
    return Refund(
        refund_id=UUID(int=9),
        order_id=ORDER_ID,
        account_id=UUID(int=2),
        institution_id=UUID(int=3),
        state="paid",
        ground="untaught",
        lessons=[5],
        fee_fen=5_000,
        deduction_fen=250,
        materials_fen=0,
        reason="孩子转学",
        asked_at=PAID_AT,
        act_by=None,
        kept_paid_at=kept_paid_at,
    )


LESSONS = [lesson(3), lesson(1), lesson(2), lesson(4, "confirmed")]
RECEIVED = {fee.lesson_no: fee for fee in domain.fees(LESSONS, [refund()])}


def invoice(*lessons: int, amount_fen: int = 0, **changes: Any) -> Invoice:
    values: dict[str, Any] = {
        "invoice_id": UUID(int=7),
        "order_id": ORDER_ID,
        "institution_id": UUID(int=3),
        "number": NUMBER,
        "lessons": list(lessons),
        "amount_fen": amount_fen,
        "state": "issued",
        "issued_at": PAID_AT,
    }
    return Invoice(**(values | changes))


def refused(code: str, asked: Invoice, covered: tuple[int, ...] = ()) -> dict[str, int | str]:
    with pytest.raises(Refused) as caught:
        domain.check_invoice(asked, RECEIVED, covered)
    assert caught.value.code == code
    return caught.value.figures


def test_an_invoice_is_of_exactly_what_was_released_for_its_lessons() -> None:
    domain.check_invoice(invoice(1, amount_fen=3_333), RECEIVED, ())
    domain.check_invoice(invoice(1, 2, 3, amount_fen=10_000), RECEIVED, ())
    domain.check_invoice(invoice(0, 1, amount_fen=3_583), RECEIVED, ())
    for amount_fen in (9_999, 10_001):
        assert refused("invoice_amount", invoice(1, 2, 3, amount_fen=amount_fen)) == {"released_fen": 10_000}


def test_a_new_invoice_has_no_red_one() -> None:
    new = invoice(1, amount_fen=3_333)
    assert (new.red_number, new.red_reason) == ("", "")


def test_what_the_institution_has_not_received_has_no_invoice() -> None:
    figures = refused("invoice_lesson_not_released", invoice(3, 4, amount_fen=6_667))
    assert figures == {"lesson_no": 4}


def test_a_lesson_has_one_invoice() -> None:
    assert refused("invoice_exists", invoice(1, 2, amount_fen=6_666), (2,)) == {"lesson_no": 2}


def test_a_lesson_that_is_not_there_is_unknown() -> None:
    assert refused("lesson_unknown", invoice(1, 5, amount_fen=3_333)) == {"lesson_no": 5}


def test_an_invoice_told_again_must_be_the_same() -> None:
    known = invoice(1, amount_fen=3_333)
    domain.check_told_again(known, invoice(1, amount_fen=3_333, issued_at=PAID_AT + timedelta(days=1)))
    changes: list[dict[str, Any]] = [
        {"order_id": UUID(int=2)},
        {"institution_id": UUID(int=4)},
        {"number": RED},
        {"lessons": [2]},
        {"amount_fen": 3_334},
    ]
    for change in changes:
        other = invoice(1, amount_fen=3_333)
        for name, value in change.items():
            setattr(other, name, value)
        with pytest.raises(Refused) as caught:
            domain.check_told_again(known, other)
        assert caught.value.code == "invoice_exists"


def test_a_red_one_undoes_an_invoice_once_and_leaves_what_it_said() -> None:
    one = invoice(1, amount_fen=3_333)
    assert domain.red_letter(one, RED, "开票有误", PAID_AT)
    undone = invoice(1, amount_fen=3_333, state="red_lettered", red_number=RED, red_reason="开票有误", red_at=PAID_AT)
    assert one == undone
    assert not domain.red_letter(one, RED, "开票有误", PAID_AT + timedelta(days=1))
    for number, reason in ((NUMBER, "开票有误"), (RED, "另一原因")):
        with pytest.raises(Refused) as caught:
            domain.red_letter(one, number, reason, PAID_AT)
        assert caught.value.code == "invoice_state"
    assert one == undone


def test_a_red_one_has_a_number_of_its_own() -> None:
    one = invoice(1, amount_fen=3_333)
    before = deepcopy(one)
    with pytest.raises(Refused) as caught:
        domain.red_letter(one, NUMBER, "开票有误", PAID_AT)
    assert caught.value.code == "invoice_exists"
    assert one == before


def test_owed_is_what_was_released_and_has_no_invoice() -> None:
    assert [one.lesson_no for one in domain.owed(RECEIVED.values(), {2})] == [0, 1, 3]


def test_what_the_institution_has_received_is_by_order_and_lesson_and_what_it_keeps_of_a_refund_is_lesson_0() -> None:
    fees = [(0, 250, PAID_AT), (1, 3_333, PAID_AT), (2, 3_333, PAID_AT), (3, 3_334, PAID_AT), (4, 0, None)]
    assert list(RECEIVED.values()) == [Fee(ORDER_ID, *fee) for fee in fees]
    assert domain.fees([], [refund(None)]) == []


def test_overdue_is_what_has_been_owed_for_more_than_so_many_days() -> None:
    late = PAID_AT + timedelta(days=30)
    assert not domain.overdue(RECEIVED[1], 30, late)
    assert domain.overdue(RECEIVED[1], 30, late + timedelta(microseconds=1))
    assert not domain.overdue(RECEIVED[4], 30, late + timedelta(days=1))
