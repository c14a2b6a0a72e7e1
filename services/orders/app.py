"""The orders process: `python -m services.orders.app`."""

from services.orders.handlers import handlers
from shared.service import run


def main() -> None:
    """Runs until SIGTERM."""
    run(handlers)


if __name__ == "__main__":
    main()
