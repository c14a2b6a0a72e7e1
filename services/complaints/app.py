"""The complaints process: `python -m services.complaints.app`."""

from services.complaints.handlers import handlers
from shared.service import run


def main() -> None:
    """Runs until SIGTERM."""
    run(handlers)


if __name__ == "__main__":
    main()
