"""Identifiers: what is derived is the same for ever, and what does not fit a number is no number."""

from uuid import UUID

import pytest

from shared.ids import base36, derived_id, instruction_number, new_id


def test_new_ids_are_in_the_order_of_their_making() -> None:
    ids = [new_id() for _ in range(100)]
    assert ids == sorted(set(ids))
    assert {id_.version for id_ in ids} == {7}


def test_a_derived_id_is_known_for_ever_and_tells_its_parts_apart() -> None:
    # Rows of years ago have such keys: the value is part of the law, not of the implementation.
    assert derived_id("bank", "icbc", "C1", 0) == UUID("224a50d6-51bd-59b4-a071-a528fbddfe1d")
    assert derived_id("ab", "c") != derived_id("a", "bc")
    assert derived_id("a", 1) == derived_id("a", "1")


@pytest.mark.parametrize(
    ("number", "width", "text"),
    [(0, 1, "0"), (35, 1, "Z"), (36, 2, "10"), (36**3 - 1, 3, "ZZZ"), (1, 4, "0001"), (36**2, 4, "0100")],
)
def test_a_number_in_base_36_has_its_width(number: int, width: int, text: str) -> None:
    assert base36(number, width) == text


@pytest.mark.parametrize(("number", "width"), [(-1, 3), (36, 1), (36**3, 3), (36**3 + 1, 3)])
def test_what_does_not_fit_is_a_mistake(number: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"does not fit {width}"):
        base36(number, width)


@pytest.mark.parametrize("kind", ["", "CC"])
def test_the_kind_of_an_instruction_is_one_letter(kind: str) -> None:
    with pytest.raises(ValueError, match="one letter"):
        instruction_number(kind, UUID(int=1), 0, 0)


def test_an_instruction_number_is_letter_order_lesson_attempt() -> None:
    assert instruction_number("P", UUID(int=37), 38, 35) == "P" + "11".rjust(25, "0") + "012" + "Z"
