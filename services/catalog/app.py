"""The catalog process: `python -m services.catalog.app`."""

from services.catalog.handlers import handlers
from shared.service import run


def main() -> None:
    """Runs until SIGTERM."""
    run(handlers)


if __name__ == "__main__":
    main()
