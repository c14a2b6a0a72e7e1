"""W3C trace context: a `traceparent` goes in with each message and out with everything it caused."""

import re
import secrets
from typing import Final

_TRACEPARENT: Final = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


def new_traceparent() -> str:
    """The first span of a new, sampled trace."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def child_traceparent(parent: str) -> str:
    """A new span in the trace of `parent`; a new trace where `parent` is empty or malformed (anybody may send it)."""
    match = _TRACEPARENT.match(parent)
    if match is None or match[1] == "0" * 32:
        return new_traceparent()
    return f"00-{match[1]}-{secrets.token_hex(8)}-{match[3]}"
