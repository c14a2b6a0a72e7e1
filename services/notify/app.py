"""The notify process: `python -m services.notify.app`."""

from typing import Final

from services.notify.handlers import handlers
from services.notify.sender import send_sms
from shared.service import Background, run

BACKGROUND: Final[tuple[Background, ...]] = (send_sms,)


def main() -> None:
    """Runs until SIGTERM."""
    run(handlers, BACKGROUND)


if __name__ == "__main__":
    main()
