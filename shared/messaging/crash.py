"""Crash points: `YIKE_CRASH_AT=label:n` ends this process, as a power cut would, the n-th time it passes `label`.

The labels in the order of the road: decode, begin, inbox, handler, outbox, commit, offset_commit, send, mark.
Each stands right after the step it names, `commit` too (the database has it, Kafka does not know yet).
"""

import os
from typing import Final

LABELS: Final = ("decode", "begin", "inbox", "handler", "outbox", "commit", "offset_commit", "send", "mark")
EXIT_STATUS: Final = 137

_label, _, _count = os.environ.get("YIKE_CRASH_AT", "").partition(":")
_left = int(_count or 1)


def crash_point(label: str) -> None:
    """Ends the process if this is the passing of `label` that `YIKE_CRASH_AT` names; else nothing."""
    global _left
    if label != _label:
        return
    _left -= 1
    if _left == 0:
        os._exit(EXIT_STATUS)
