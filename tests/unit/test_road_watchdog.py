"""The watchdog: ends a process that stands still, and only such a one."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from shared.messaging import progress as progress_module
from shared.messaging.progress import EXIT_STATUS, Progress, start_watchdog

STUCK_AFTER_S = 0.2
LOOK_S = 2.0


@pytest.fixture
def progress() -> Progress:
    """What is watched."""
    return Progress()


@pytest.fixture
def ended(progress: Progress, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """With which statuses the process would have ended."""
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        progress.stopped = True  # the thread ends in the place of the process

    monkeypatch.setattr(os, "_exit", end)
    yield statuses
    progress.stopped = True
    while any(thread.name == "watchdog" and thread.is_alive() for thread in threading.enumerate()):
        time.sleep(0.01)


def run_for(seconds: float, ended: list[int], step: Callable[[], None]) -> None:
    """Takes a step again and again until the process would have ended or the time is over."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not ended:
        step()
        time.sleep(0.01)


def test_the_watch_is_known_by_its_name_and_keeps_no_process_alive(ended: list[int], progress: Progress) -> None:
    start_watchdog(progress, lambda: 0, STUCK_AFTER_S)
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "watchdog"] == [True]
    assert EXIT_STATUS == 70, "what a supervisor is told"


@pytest.mark.parametrize(("stuck_after_s", "pause_s"), [(2.0, 0.5), (120.0, 1.0)])
def test_it_looks_four_times_in_that_while_and_at_least_each_second(
    progress: Progress, monkeypatch: pytest.MonkeyPatch, stuck_after_s: float, pause_s: float
) -> None:
    pauses: list[float] = []
    looked = threading.Event()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        progress.stopped = True
        looked.set()

    monkeypatch.setattr(progress_module, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    start_watchdog(progress, lambda: 0, stuck_after_s)
    assert looked.wait(LOOK_S)
    assert pauses == [pause_s]


def test_a_loop_that_does_not_run_is_the_end(ended: list[int], progress: Progress) -> None:
    start_watchdog(progress, lambda: 0, STUCK_AFTER_S)
    run_for(LOOK_S, ended, progress.touch)
    assert ended == [EXIT_STATUS]


def test_records_that_wait_while_nothing_moves_are_the_end(ended: list[int], progress: Progress) -> None:
    start_watchdog(progress, lambda: 1, STUCK_AFTER_S)
    run_for(LOOK_S, ended, progress.beat)
    assert ended == [EXIT_STATUS]


@pytest.mark.parametrize(
    ("lag", "step"),
    [
        (0, Progress.beat),  # nothing to do
        (9, lambda progress: (progress.beat(), progress.touch())),  # much to do, and it is being done
    ],
)
def test_one_that_moves_or_has_nothing_to_do_goes_on(
    ended: list[int], progress: Progress, lag: int, step: Callable[[Progress], object]
) -> None:
    start_watchdog(progress, lambda: lag, STUCK_AFTER_S)
    run_for(5 * STUCK_AFTER_S, ended, lambda: (step(progress), None)[1])
    assert ended == []


def test_what_cannot_be_seen_is_nothing_to_do(ended: list[int], progress: Progress) -> None:
    def lag() -> int:
        raise AttributeError("assignment is gone")

    start_watchdog(progress, lag, STUCK_AFTER_S)
    run_for(5 * STUCK_AFTER_S, ended, progress.beat)
    assert ended == []


def test_a_look_that_fails_in_a_rebalance_does_not_end_the_watch(ended: list[int], progress: Progress) -> None:
    looks = 0

    def lag() -> int:
        nonlocal looks
        looks += 1
        if looks < 3:
            raise AttributeError("assignment is gone")
        return 1

    start_watchdog(progress, lag, STUCK_AFTER_S)
    run_for(LOOK_S, ended, progress.beat)
    assert ended == [EXIT_STATUS]
