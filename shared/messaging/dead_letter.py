"""Dead letters: what can never be handled is parked where an operator sees it and can replay it."""

import base64
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from shared.contracts.envelope import Event

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

REPLAY_HEADER: Final = "yike-replay"
"""Set by `yike dlq replay` to the id of the dead letter; lets the consumer claim the parked message once more."""

KEPT_BODY_BYTES: Final = 512 * 1024
"""More of a body than this is cut off; the letter still tells where the whole record stands."""
KEPT_KEY_BYTES: Final = 1024
KEPT_HEADER_BYTES: Final = 32 * 1024
"""Of all headers together; what comes after is cut off."""
MAX_LETTER_BYTES: Final = 1000 * 1024
"""A body in base64, key and headers with every byte escaped fit; the broker takes records of 1 MiB."""


class DeadLetter(Event, type="dead_letter.v1"):
    """One parked record: why, and all that is needed to send it again. Goes to `<consumer>.dlq.v1`."""

    letter_id: UUID
    consumer: str
    reason: str
    exception: str
    detail: str
    topic: str
    partition: int
    offset: int
    key: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    body_bytes: int
    parked_at: datetime


def dead_letter(
    record: "ConsumerRecord[Any, Any]",
    consumer: str,
    letter_id: UUID,
    reason: str,
    error: BaseException,
    now: datetime,
) -> DeadLetter:
    """The letter for `record`. Headers that are not UTF-8 are written with escapes; a long body is cut."""
    body: bytes = record.value or b""
    return DeadLetter(
        letter_id=letter_id,
        consumer=consumer,
        reason=reason,
        exception=type(error).__name__,
        detail=str(error)[:2000],
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=(record.key or b"")[:KEPT_KEY_BYTES].decode(errors="backslashreplace").replace("\0", r"\x00"),
        headers=tuple(_kept_headers(record)),
        body=body[:KEPT_BODY_BYTES],
        body_bytes=len(body),
        parked_at=now,
    )


def _kept_headers(record: "ConsumerRecord[Any, Any]") -> Iterator[tuple[str, str]]:
    left = KEPT_HEADER_BYTES
    for name, value in record.headers:
        left -= len(name.encode()) + 8  # a header costs something even when it is empty
        if left < 0:
            return
        kept = (value or b"")[:left]
        left -= len(kept)
        yield name, kept.decode(errors="backslashreplace")


def original_body(letter: dict[str, Any]) -> bytes:
    """The body kept in the `data` of a dead letter read from its topic."""
    return base64.urlsafe_b64decode(letter["body"])
