"""The short set of `make faults`: what strikes no server, for the session shares its servers with all tests."""

import secrets
from pathlib import Path
from typing import Final

import pytest

from ops.stack.servers import Servers
from tests.faults.drills import FAULTS
from tests.faults.strike import strike

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHORT: Final = [name for name, fault in FAULTS.items() if fault.short]


@pytest.mark.parametrize("name", SHORT)
async def test_nothing_is_wrong_after_a_fault_under_load(name: str, servers: Servers, tmp_path: Path) -> None:
    outcome = await strike(name, FAULTS[name], secrets.randbits(32), servers, tmp_path, again=False)
    print(outcome)
    wrong = {check: places for checks in outcome.violations.values() for check, places in checks.items() if places}
    assert wrong == {}
    assert outcome.blows > 0
    assert outcome.restarts == 0  # none of these ends a process
