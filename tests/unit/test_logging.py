"""A log that cannot be written costs its lines and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
PROGRAM = """
import logging, structlog
from shared.logging import LINES_LOST, set_up_logging
set_up_logging("test")
log = structlog.get_logger()
try:
    raise ValueError("the first error")
except ValueError:
    log.exception("what happened")
log.warning("and on it goes")
logging.getLogger("aiokafka").error("theirs too")
print(int(LINES_LOST._value.get() > 0))
"""


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_a_line_that_cannot_be_written_is_counted_and_stops_nothing() -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
            check=False,
        )
    assert done.stdout == "1\n"
