"""Pages are bounded by bytes, and never empty."""

import pytest

from shared import pages
from shared.contracts.types import Part


class Entry(Part):
    """What is listed here."""

    no: int
    words: str


BYTES = len(Entry(no=1, words="课" * 10).model_dump_json().encode())


def entries(count: int) -> list[Entry]:
    return [Entry(no=number, words="课" * 10) for number in range(count)]


def test_a_page_takes_what_fits_to_the_byte_and_not_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES", 3 * BYTES)
    assert pages.first_that_fit(entries(5)) == entries(3)
    monkeypatch.setattr(pages, "PAGE_BYTES", 3 * BYTES - 1)
    assert pages.first_that_fit(entries(5)) == entries(2)


def test_what_is_larger_than_a_page_is_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES", 1)
    assert pages.first_that_fit(entries(2)) == entries(1)


def test_of_nothing_nothing_is_shown() -> None:
    assert pages.first_that_fit([]) == []
