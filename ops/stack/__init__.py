"""The embedded stack: real PostgreSQL and Kafka from packages, and the system's processes.

Owns the folder of one stack (`.yike/` beside the code unless YIKE_HOME says otherwise): data, logs, who runs.
`servers` starts and stops the two servers, `processes` keeps the system's own processes running.
"""

import os
from pathlib import Path


def stack_folder() -> Path:
    """The folder of this user's stack: YIKE_HOME, or `.yike` in the root of the source tree."""
    chosen = os.environ.get("YIKE_HOME")
    return (Path(chosen) if chosen else Path(__file__).resolve().parents[2] / ".yike").absolute()
