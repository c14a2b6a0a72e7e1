"""The background supervisor: `python -m ops.stack.supervise <folder>`, from `yike up` to `yike down`."""

import asyncio
import sys
from pathlib import Path

from ops.stack.errors import StackError
from ops.stack.processes import read_specs, supervise


def main() -> int:
    """Run what `<folder>/stack.json` lists until told to stop; why a start failed goes to the log."""
    folder = Path(sys.argv[1])
    try:
        asyncio.run(supervise(folder, read_specs(folder)))
    except StackError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
