"""How the processes of a stack share the cores of a small machine: each finishes its batch before the next one runs.

Every message passes a dozen processes. Sliced finely among them, each batch takes as long as all that run beside it;
run to its end, only as long as those before it. See docs/adr/0006.
"""

import ctypes
import os
import struct
import sys
from contextlib import suppress
from typing import Final

SLICE_MS: Final = 50
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def finish_batches() -> None:
    """Asks Linux not to take the core from this thread for a process that wakes up, and for a long time slice.

    Threads and processes started from it inherit both. A kernel that refuses either (the slice is of 6.12) is as it
    was; elsewhere nothing happens.
    """
    if _libc is None:
        return
    number = _SCHED_SETATTR.get(os.uname().machine)
    # struct sched_attr: size, policy, flags, nice, priority, runtime (the slice), deadline, period
    attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_BATCH, 0, 0, 0, SLICE_MS * 1_000_000, 0, 0)
    if number is None or _libc.syscall(number, 0, attributes, 0) != 0:
        with suppress(OSError):  # a sandbox may allow neither; the stack runs all the same, only less evenly
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
