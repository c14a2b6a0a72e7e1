"""Random histories of the whole system, played on its real parts, against a model of what must become of them.

    SEED=7 EXAMPLES=200 STEPS=80 .venv/bin/python -m pytest tests/property/test_simulation.py

A failure names the seed that plays the same histories again, a few of them. It is shown as the shortest history that
fails likewise, which takes minutes; SHRINK=no shows the first one. With -s it is told what the histories came to.
"""

import math
import os
import random
import time
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import get_state_machine_test

from ops.stack.servers import Servers
from shared.settings import PARTICIPANTS
from tests.simulation.history_banks import TWO_SUMS
from tests.simulation.history_closures import ClosingHistory, Doom
from tests.simulation.people import move_in
from tests.simulation.simulation import CONSUMER_LABELS, RELAY_LABELS, STARTS, Simulation

EXAMPLES: Final = int(os.environ.get("EXAMPLES") or 60)
AT_ONCE: Final = 10
"""Histories of one seed."""
BUDGET_S: Final = 20.0
"""After that no more histories are begun, unless EXAMPLES asks for them."""
STEPS: Final = int(os.environ.get("STEPS") or 40)
SHRINK: Final = os.environ.get("SHRINK") != "no"


@pytest.fixture(scope="module")
def simulation(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulation]:
    with Simulation.running(servers, tmp_path_factory.mktemp("simulation")) as simulation:
        ClosingHistory.simulation = simulation
        ClosingHistory.people = simulation.run(move_in(simulation))
        yield simulation


def test_a_history_played_by_hand_reaches_the_payout_through_every_crash(simulation: Simulation) -> None:
    simulation.counts.clear()
    history = ClosingHistory()
    history.buys(guardian=0, course=1)
    for _ in range(7):  # signed, paid, the first lesson filed and confirmed, the second too, the third filed
        for who, name in enumerate(PARTICIPANTS):
            for label in CONSUMER_LABELS:
                history.dies_handling(who, [0, 1], label)
            for label in RELAY_LABELS:
                history.dies_publishing(who, 2, label)
            history.comes_again(name, 0, 3)
        history.asks_again(0, "the same")
        history.asks(0, "give up", 1, 1)  # by somebody else
        history.it_goes_on(0, 0)
        simulation.run(simulation.settle())
        for which in range(12):
            history.is_said_again(2 * which)  # the newest command, and then the one before what was just said again
        simulation.run(simulation.settle())
        history.tables_and_answers_are_as_the_models_say()
    history.teardown()
    counts = simulation.counts
    assert counts["purchases enrolled"] == 1
    assert (counts["lessons paid_out guardian"], counts["lessons paid_out silence"]) == (2, 1)
    for label in (*CONSUMER_LABELS, *RELAY_LABELS):
        assert sum(times for what, times in counts.items() if what.endswith(f"died at {label}")) > 0, label
    for what in ("records that came again", "asked again: the same", "refused: actor_forbidden", "timers fired"):
        assert counts[what] > 0, what


def test_a_history_played_by_hand_moves_to_other_banks_and_gives_invoices(simulation: Simulation) -> None:
    simulation.counts.clear()
    history = ClosingHistory()
    then = ["moves", "refund", "another goes on", "another goes on", "cut-off", "moves back"]
    history.moves_with_money_in_flight(order=0, where=0, mode="daily", wrong=None, first=TWO_SUMS, then=then, rounds=1)
    said = ["issue", "red", "issue", "issue of another"]
    history.gives_invoices(order=0, earns="a part", what=said, another=False, rounds=2)
    history.when_all_is_over(late=[(0, "red"), (0, "list by pages")])
    history.teardown()
    counts = simulation.counts
    assert counts["cut-offs with more than one sum"] == 2
    for what in ("refund", "gathered"):
        assert counts[f"told: {what}, at a bank that was left"] > 0, what
    for what in ("issued", "issued after a red one", "red-lettered", "shown as overdue"):
        assert counts[f"invoices {what}"] > 0, what
    assert counts["refused: invoice_exists"] > 0


@pytest.mark.parametrize(
    ("paid", "unpaid", "then", "seen"),
    [
        (
            ["filed", "contested"],
            ["paying", "to_pay"],
            [("the same start", 0), ("dies", 0), ("show", 0), ("start", 0), ("an hour", 0), ("works", 0), ("works", 0)],
            ["a lesson applied", "enrolled, refund contested", "enrolled, refund none", "paying", "to_pay"],
        ),
        (
            ["granted in part", "objected", "rejected"],
            [],
            [("works", 0), ("buys", 0), ("works", 0), ("works", 0), ("start", 0), ("works", 0), ("start", 0)],
            ["a lesson objected", "enrolled, refund paid", "enrolled, refund rejected", "to_sign"],
        ),
        (
            ["quarrelled over"],
            ["held"],
            [("start", 0), ("works", 0), ("works", 0), ("start", 0)],
            ["a lesson confirmed", "enrolled, refund none", "held"],
        ),
    ],
)
def test_a_history_played_by_hand_in_which_the_institution_is_gone(
    simulation: Simulation, paid: list[str], unpaid: list[str], then: list[tuple[str, int]], seen: list[str]
) -> None:
    simulation.counts.clear()
    history = ClosingHistory()
    history.is_gone(Doom(False, True, paid, unpaid, first="plan", then=then, lesson=1, rounds=0, label="commit"))
    simulation.run(simulation.settle())
    history.tables_and_answers_are_as_the_models_say()
    history.teardown()
    missing = [what for what in seen if not simulation.counts[f"wound up: {what}"]]
    assert not missing, simulation.counts
    assert simulation.counts["wound up again"] > 0


# A failure is made smaller before it is shown, and that takes minutes.
@pytest.mark.timeout(1200)
@pytest.mark.slow
def test_whatever_happens_the_tables_and_the_models_agree(simulation: Simulation) -> None:
    simulation.counts.clear()
    first = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    began = time.monotonic()
    try:
        for number in range(first, first + math.ceil(EXAMPLES / AT_ONCE)):
            if time.monotonic() - began > BUDGET_S and "EXAMPLES" not in os.environ:
                break
            play(number)
    finally:
        simulation.counts["seconds"] = round(time.monotonic() - began)
        print(f"from SEED={first}")
        for what, times in sorted(simulation.counts.items()):
            print(f"{times:6} {what}")


def play(number: int) -> None:
    """One set of histories, which this number repeats; the day on which they begin is the number's as well."""
    ClosingHistory.simulation.start = STARTS[number % len(STARTS)]
    ClosingHistory.simulation.counts[f"sets from {ClosingHistory.simulation.start:%m-%d} on"] += 1
    playing = settings(
        max_examples=AT_ONCE,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,  # a run is its seed and nothing that an earlier one has left
        print_blob=True,
        phases=(Phase.generate, Phase.shrink) if SHRINK else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    try:
        seed(number)(get_state_machine_test(ClosingHistory, settings=playing))()
    except BaseException as failure:
        failure.add_note(f"the same histories again: SEED={number} EXAMPLES={AT_ONCE} STEPS={STEPS}")
        raise
