"""Instruction numbers: what holds for every purpose and for every text a bank may send."""

import re

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from services.escrow.domain import KIND_OF_LETTER, LETTER, MOST_ATTEMPTS, Purpose, purpose_of
from shared.contracts.types import InstructionNumber
from shared.ids import instruction_number

purposes = st.builds(
    Purpose, st.sampled_from(list(LETTER)), st.uuids(), st.integers(0, 40_000), st.integers(0, MOST_ATTEMPTS)
)
base36 = st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=29, max_size=29)
like_ours = st.builds("".join, st.tuples(st.sampled_from(sorted(KIND_OF_LETTER)), base36))


def number_of(purpose: Purpose) -> str:
    return instruction_number(LETTER[purpose.kind], purpose.order_id, purpose.lesson_no, purpose.attempt)


@given(purposes)
def test_a_number_says_its_purpose_and_a_bank_can_write_it(purpose: Purpose) -> None:
    number = number_of(purpose)
    assert purpose_of(number) == purpose
    assert re.fullmatch(r"[0-9A-Z]{30}", number)
    assert TypeAdapter(InstructionNumber).validate_python(number) == number


@given(purposes, purposes)
def test_two_purposes_never_share_a_number(one: Purpose, other: Purpose) -> None:
    assert (number_of(one) == number_of(other)) == (one == other)


@given(st.one_of(st.text(max_size=40), like_ours, st.text("0123456789CPRZ", min_size=30, max_size=30)))
def test_any_text_is_exactly_the_number_of_its_purpose_or_has_none(text: str) -> None:
    purpose = purpose_of(text)
    assert purpose is None or number_of(purpose) == text


@given(purposes, st.integers(0, 29), st.characters())
def test_one_wrong_character_is_never_the_same_purpose(purpose: Purpose, place: int, character: str) -> None:
    number = number_of(purpose)
    changed = number[:place] + character + number[place + 1 :]
    assert changed == number or purpose_of(changed) != purpose
