"""The short set of `make faults`: what strikes no server, for the session shares its servers with all tests."""

import secrets
from pathlib import Path

import pytest

from ops.stack.servers import Servers
from tests.faults.strike import strike

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize("fault", ["end-backends", "send-again", "ask-at-once", "rebalance"])
async def test_nothing_is_wrong_after_a_fault_under_load(fault: str, servers: Servers, tmp_path: Path) -> None:
    outcome = await strike(fault, secrets.randbits(32), servers, tmp_path)
    print(outcome)
    assert {check: places for check, places in outcome.violations.items() if places} == {}
    assert outcome.blows > 0
    assert outcome.restarts == 0  # none of these ends a process
