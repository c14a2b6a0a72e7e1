"""Money: prices of lessons, yuan as printed and typed, and what is no amount."""

import pytest
from pydantic import BaseModel, ValidationError

from shared.money import MAX_FEN, Fen, PositiveFen, lesson_price_fen, parse_yuan, yuan


class Charge(BaseModel):
    total: Fen
    part: PositiveFen


def test_the_last_lesson_takes_the_remainder() -> None:
    prices = [lesson_price_fen(100_000, 3, n) for n in (1, 2, 3)]
    assert prices == [33_333, 33_333, 33_334]


def test_an_even_total_gives_equal_lessons() -> None:
    assert {lesson_price_fen(500_000, 50, n) for n in range(1, 51)} == {10_000}


def test_a_single_lesson_costs_the_total() -> None:
    assert lesson_price_fen(12_345, 1, 1) == 12_345


def test_fewer_fen_than_lessons_leave_all_to_the_last() -> None:
    assert [lesson_price_fen(2, 3, n) for n in (1, 2, 3)] == [0, 0, 2]


@pytest.mark.parametrize(("total", "lessons", "number"), [(100, 3, 0), (100, 3, 4), (100, 0, 1), (-1, 3, 1)])
def test_a_lesson_outside_the_course_has_no_price(total: int, lessons: int, number: int) -> None:
    with pytest.raises(ValueError, match="no lesson"):
        lesson_price_fen(total, lessons, number)


@pytest.mark.parametrize(
    ("fen", "text"),
    [(0, "0.00"), (5, "0.05"), (123_450, "1,234.50"), (500_000, "5,000.00"), (-105, "-1.05")],
)
def test_yuan_is_printed_with_separators_and_two_decimals(fen: int, text: str) -> None:
    assert yuan(fen) == text


@pytest.mark.parametrize(
    ("text", "fen"),
    [("0", 0), ("0.1", 10), ("0.29", 29), ("1234.5", 123_450), ("1,234.50", 123_450), ("5000", 500_000)],
)
def test_typed_yuan_becomes_exact_fen(text: str, fen: int) -> None:
    assert parse_yuan(text) == fen


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.", ".5", "1.234", "-1", "+1", "1e3", "¥5", "1,23.00", "12,34", "00.10", " 1", "1 ", "١", "1\n",
     "NaN", "9" * 40, "1,2345"],
)  # fmt: skip
def test_what_is_no_plain_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="yuan"):
        parse_yuan(text)


def test_an_amount_beyond_the_limit_is_refused() -> None:
    assert parse_yuan("10,000,000,000.00") == MAX_FEN
    with pytest.raises(ValueError, match="more than"):
        parse_yuan("10,000,000,000.01")


@pytest.mark.parametrize("amount", [True, 1.0, "100", -1, MAX_FEN + 1, None])
def test_a_message_accepts_whole_fen_only(amount: object) -> None:
    with pytest.raises(ValidationError):
        Charge.model_validate({"total": amount, "part": 1})
    with pytest.raises(ValidationError):
        Charge.model_validate({"total": 1, "part": amount})


def test_a_payment_of_nothing_is_not_positive() -> None:
    with pytest.raises(ValidationError):
        Charge.model_validate_json('{"total": 0, "part": 0}')
    assert Charge.model_validate_json('{"total": 0, "part": 1}').part == 1
