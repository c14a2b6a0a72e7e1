"""Check digits catch what people do wrong; normalising twice changes nothing; nothing but Refused comes out."""

import re
from datetime import date

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shared.contracts.errors import Refused
from shared.documents import (
    Document,
    DocumentType,
    Sex,
    card_check_digit,
    check_document,
    check_uscc,
    mask,
    normalise_phone,
    uscc_check_character,
)

CARD = DocumentType.RESIDENT_IDENTITY_CARD
USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
births = st.dates(date(1900, 1, 1), date(2099, 12, 31))


@st.composite
def cards(draw: st.DrawFn) -> tuple[str, date, Sex]:
    """A valid resident identity number with the birth date and sex in it."""
    born, order = draw(births), draw(st.integers(0, 999))
    body = f"{draw(st.sampled_from(['110105', '320402', '440524', '650102']))}{born:%Y%m%d}{order:03d}"
    return body + card_check_digit(body), born, Sex.MALE if order % 2 else Sex.FEMALE


@st.composite
def usccs(draw: st.DrawFn) -> str:
    """A valid unified social credit code."""
    letters = st.sampled_from(USCC_ALPHABET)
    body = "9" + draw(letters) + draw(st.from_regex(r"[0-9]{6}", fullmatch=True))
    body += "".join(draw(st.lists(letters, min_size=9, max_size=9)))
    return body + uscc_check_character(body)


def is_refused(type: DocumentType, number: str) -> bool:
    try:
        check_document(type, number)
    except Refused:
        return True
    return False


@given(cards())
def test_every_valid_number_agrees_with_its_own_birth_date_and_sex(card: tuple[str, date, Sex]) -> None:
    number, born, sex = card
    assert check_document(CARD, number, birth_date=born, sex=sex) == Document(CARD, number)


@given(cards(), births)
def test_no_number_agrees_with_another_birth_date(card: tuple[str, date, Sex], other: date) -> None:
    number, born, _ = card
    assume(other != born)
    with pytest.raises(Refused):
        check_document(CARD, number, birth_date=other)


@given(cards(), st.integers(0, 17), st.sampled_from("0123456789X"))
def test_one_wrong_digit_in_an_identity_number_is_always_caught(
    card: tuple[str, date, Sex], place: int, digit: str
) -> None:
    number = card[0]
    assume(number[place] != digit)
    assert is_refused(CARD, number[:place] + digit + number[place + 1 :])


@given(cards(), st.integers(0, 16))
def test_two_neighbouring_digits_swapped_are_always_caught(card: tuple[str, date, Sex], place: int) -> None:
    number = card[0]
    assume(number[place] != number[place + 1])
    swapped = number[:place] + number[place + 1] + number[place] + number[place + 2 :]
    assert is_refused(CARD, swapped)


@given(usccs(), st.integers(0, 17), st.sampled_from(USCC_ALPHABET))
def test_one_wrong_character_in_a_credit_code_is_always_caught(code: str, place: int, character: str) -> None:
    assert check_uscc(code) == code
    assume(code[place] != character)
    with pytest.raises(Refused):
        check_uscc(code[:place] + character + code[place + 1 :])


@given(st.sampled_from(DocumentType), st.text(max_size=80))
def test_any_text_is_a_document_or_refused_and_normalising_is_final(type: DocumentType, text: str) -> None:
    try:
        document = check_document(type, text)
    except Refused:
        return
    assert check_document(type, document.number) == document
    assert document.number.isascii()


@given(st.text(max_size=80))
def test_any_text_is_a_phone_in_e164_or_refused(text: str) -> None:
    try:
        phone = normalise_phone(text)
    except Refused:
        return
    assert re.fullmatch(r"\+861[3-9][0-9]{9}", phone)


@given(st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True), st.sampled_from(["", "+86", "0086", "86", "+86 "]))
def test_every_spelling_of_a_phone_becomes_the_same(phone: str, prefix: str) -> None:
    assert normalise_phone(prefix + phone) == normalise_phone(phone) == "+86" + phone
    assert normalise_phone(normalise_phone(phone)) == "+86" + phone


@given(cards(), st.text(max_size=40))
def test_a_mask_keeps_the_length_and_never_the_birth_date(card: tuple[str, date, Sex], text: str) -> None:
    number, born, _ = card
    assert f"{born:%Y%m%d}" not in mask(number)
    assert len(mask(text)) == len(text)
    assert len(text) < 2 or "*" in mask(text)
