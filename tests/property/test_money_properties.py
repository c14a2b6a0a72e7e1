"""Money: what holds for every total and every number of lessons."""

from hypothesis import given
from hypothesis import strategies as st

from shared.money import MAX_FEN, lesson_price_fen, parse_yuan, yuan

totals = st.integers(0, MAX_FEN)


@given(totals, st.integers(1, 300))
def test_the_prices_of_all_lessons_add_up_to_the_total(total: int, lessons: int) -> None:
    prices = [lesson_price_fen(total, lessons, n) for n in range(1, lessons + 1)]
    assert sum(prices) == total
    assert len(set(prices[:-1])) <= 1
    assert 0 <= prices[-1] - prices[0] < lessons or lessons == 1


@given(totals)
def test_what_is_printed_reads_back_to_the_same_fen(total: int) -> None:
    assert parse_yuan(yuan(total)) == total
    assert parse_yuan(yuan(total).replace(",", "")) == total


@given(st.text(max_size=30))
def test_any_text_is_an_amount_or_a_value_error(text: str) -> None:
    try:
        fen = parse_yuan(text)
    except ValueError:
        return
    assert 0 <= fen <= MAX_FEN
    assert parse_yuan(yuan(fen)) == fen
