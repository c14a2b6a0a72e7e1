"""The escrow process: `python -m services.escrow.app`."""

from services.escrow.handlers import handlers
from shared.service import run


def main() -> None:
    """Runs until SIGTERM."""
    run(handlers)


if __name__ == "__main__":
    main()
