"""The watchdog: a process that is alive but stuck ends, so that its supervisor starts it anew.

A consumer can hold partitions and never poll again after a rebalance (aiokafka issue 1154); an event loop can block.
Neither is seen from inside the loop, so a thread looks.
"""

import os
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger()
EXIT_STATUS: Final = 70


class Progress:
    """Moments at which the process was seen to move; monotonic seconds."""

    def __init__(self) -> None:
        self.stopped = False
        self.moved = time.monotonic()
        self.loop_beat = self.moved

    def touch(self) -> None:
        """Work moved: a batch was committed, or tried and will be tried again."""
        self.moved = time.monotonic()

    def beat(self) -> None:
        """The event loop runs."""
        self.loop_beat = time.monotonic()


def start_watchdog(progress: Progress, lag: Callable[[], int], stuck_after_s: float) -> None:
    """Starts the thread that ends this process when the loop has not run, or lag > 0 and nothing moved, for so long.

    `lag` says how many records wait for this process; it is called from the thread and only reads numbers.
    """

    def watch() -> None:
        idle_since = time.monotonic()
        while not progress.stopped:
            time.sleep(min(1.0, stuck_after_s / 4))
            now = time.monotonic()
            try:
                waiting = lag()
            except Exception:  # the loop changes under our eyes, in a rebalance; the next look will do
                waiting = 0
            if waiting == 0:
                idle_since = now
            blocked = now - progress.loop_beat > stuck_after_s
            stuck = now - max(progress.moved, idle_since) > stuck_after_s
            if (blocked or stuck) and not progress.stopped:
                log.critical("watchdog ends this process", blocked_loop=blocked, lag=waiting)
                os._exit(EXIT_STATUS)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
