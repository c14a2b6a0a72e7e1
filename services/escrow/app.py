"""The escrow process: `python -m services.escrow.app`."""

from typing import Final

from services.escrow.handlers import handlers
from services.escrow.watch import watch
from shared.service import Background, run

BACKGROUND: Final[tuple[Background, ...]] = (watch,)


def main() -> None:
    """Runs until SIGTERM."""
    run(handlers, BACKGROUND)


if __name__ == "__main__":
    main()
