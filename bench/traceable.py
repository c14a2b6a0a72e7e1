"""A process that its siblings may look into: `python -m bench.traceable` runs the module of YIKE_TRACEABLE_RUNS.

Linux lets a process be traced by its ancestors only, unless it says that anybody of its user may.
"""

import ctypes
import os
import runpy
import sys
from typing import Final

MODULE: Final = "bench.traceable"
_PR_SET_PTRACER: Final = 0x59616D61
_ANYBODY: Final = ctypes.c_ulong(-1)

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANYBODY, 0, 0, 0)
    runpy.run_module(os.environ["YIKE_TRACEABLE_RUNS"], run_name="__main__")
