"""W3C trace context: a `traceparent` goes in with each message and out with everything it caused."""

import random
import re
from typing import Final

_RANDOM: Final = random.Random()
"""Need not be secret, only different; asking the system for each span cost 6 % of a batch."""
_TRACEPARENT: Final = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


def new_traceparent() -> str:
    """The first span of a new, sampled trace."""
    return f"00-{_RANDOM.getrandbits(128):032x}-{_RANDOM.getrandbits(64):016x}-01"


def child_traceparent(parent: str) -> str:
    """A new span in the trace of `parent`; a new trace where `parent` is empty or malformed (anybody may send it)."""
    match = _TRACEPARENT.match(parent)
    if match is None or match[1] == "0" * 32:
        return new_traceparent()
    return f"00-{match[1]}-{_RANDOM.getrandbits(64):016x}-{match[3]}"
