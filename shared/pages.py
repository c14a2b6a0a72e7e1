"""Pages of what is listed: bounded by bytes, not by rows alone."""

from collections.abc import Iterable
from typing import Final, TypeVar

from pydantic import BaseModel

T = TypeVar("T", bound=BaseModel)

PAGE_BYTES: Final = 200_000
"""Most bytes of what is on one page; the road takes bodies of 256 KiB."""


def first_that_fit(listed: Iterable[T]) -> list[T]:
    """The first of `listed` that go on one page together; one always does."""
    shown: list[T] = []
    size = 0
    for one in listed:
        size += len(one.model_dump_json().encode())
        if shown and size > PAGE_BYTES:
            break
        shown.append(one)
    return shown
