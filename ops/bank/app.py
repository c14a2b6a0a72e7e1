"""The stand-in bank's process: `python -m ops.bank.app`."""

from ops.bank.handlers import handlers
from shared.service import run


def main() -> None:
    """Runs until SIGTERM."""
    run(handlers)


if __name__ == "__main__":
    main()
