"""A dead letter: everything that is needed to send a record again, as far as a record has room for it."""

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord

from shared.contracts.envelope import encode
from shared.messaging.dead_letter import (
    KEPT_BODY_BYTES,
    KEPT_HEADER_BYTES,
    KEPT_KEY_BYTES,
    MAX_LETTER_BYTES,
    DeadLetter,
    dead_letter,
    original_body,
)

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
A_HEADER = 8
"""What a header costs beside its name and value."""


def letter_of(
    value: bytes | None = b"{}", key: bytes | None = b"k", headers: list[tuple[str, bytes | None]] | None = None
) -> DeadLetter:
    """The letter of a record at 7 of partition 2."""
    values: dict[str, Any] = {"topic": "catalog.commands.v1", "partition": 2, "offset": 7, "timestamp": 0}
    more: dict[str, Any] = {"timestamp_type": 0, "checksum": None, "serialized_key_size": 0, "serialized_value_size": 0}
    record = ConsumerRecord(**values, **more, key=key, value=value, headers=tuple(headers or ()))
    return dead_letter(record, "catalog", UUID(int=1), "bad_json", ValueError("x" * 3000), NOW)


def test_a_letter_tells_what_where_why_and_when() -> None:
    letter = letter_of(b"no json", b"the key", [("note", b"text")])
    assert letter.model_dump() == {
        "letter_id": UUID(int=1),
        "consumer": "catalog",
        "reason": "bad_json",
        "exception": "ValueError",
        "detail": "x" * 2000,
        "topic": "catalog.commands.v1",
        "partition": 2,
        "offset": 7,
        "key": "the key",
        "headers": (("note", "text"),),
        "body": b"no json",
        "body_bytes": 7,
        "parked_at": NOW,
    }


def test_what_is_not_there_is_empty() -> None:
    letter = letter_of(None, None, [("note", None)])
    assert (letter.key, letter.body, letter.body_bytes, letter.headers) == ("", b"", 0, (("note", ""),))


def test_a_long_body_and_a_long_key_are_cut_and_the_length_is_told() -> None:
    letter = letter_of(b"b" * (KEPT_BODY_BYTES + 1), b"k" * (KEPT_KEY_BYTES + 1))
    assert (len(letter.body), letter.body_bytes) == (KEPT_BODY_BYTES, KEPT_BODY_BYTES + 1)
    assert letter.key == "k" * KEPT_KEY_BYTES
    assert (KEPT_BODY_BYTES, KEPT_KEY_BYTES, KEPT_HEADER_BYTES) == (512 * 1024, 1024, 32 * 1024)


def test_bytes_that_are_no_text_are_written_with_escapes() -> None:
    letter = letter_of(key=b"a\0\xff", headers=[("note", b"\xff")])
    assert (letter.key, letter.headers) == (r"a\x00\xff", (("note", r"\xff"),))


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ([KEPT_HEADER_BYTES - 1 - A_HEADER], [KEPT_HEADER_BYTES - 1 - A_HEADER]),
        ([KEPT_HEADER_BYTES], [KEPT_HEADER_BYTES - 1 - A_HEADER]),
        ([KEPT_HEADER_BYTES, 1], [KEPT_HEADER_BYTES - 1 - A_HEADER]),
        ([KEPT_HEADER_BYTES - 2 * (1 + A_HEADER), 0], [KEPT_HEADER_BYTES - 2 * (1 + A_HEADER), 0]),
        ([KEPT_HEADER_BYTES - 2 * (1 + A_HEADER) + 1, 0], [KEPT_HEADER_BYTES - 2 * (1 + A_HEADER) + 1]),
        ([100, KEPT_HEADER_BYTES, 5], [100, KEPT_HEADER_BYTES - 100 - 2 * (1 + A_HEADER)]),
    ],
)
def test_headers_are_kept_until_their_room_is_used_up(sizes: list[int], kept: list[int]) -> None:
    letter = letter_of(headers=[("h", b"v" * size) for size in sizes])
    assert [len(value) for _, value in letter.headers] == kept


def test_the_longest_letter_fits_a_record() -> None:
    letter = letter_of(b"\0" * 2**20, b"\1" * 2**20, [("h", b"\1" * 2**20)])
    assert len(encode({"data": letter})) < MAX_LETTER_BYTES == 1000 * 1024 < 2**20


def test_the_body_comes_back_out_of_the_letter_as_it_went_in() -> None:
    value = bytes(range(256))
    assert original_body(letter_of(value).model_dump(mode="json")) == value
    assert original_body({"body": base64.urlsafe_b64encode(value).decode()}) == value
