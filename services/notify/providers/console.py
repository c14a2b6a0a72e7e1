"""The provider for a developer's eyes: text on standard output. It keeps nothing, so it cannot tell what was sent."""

import sys
from typing import Final
from uuid import UUID

from services.notify.providers import Outgoing
from shared.documents import mask_phone


class ConsoleProvider:
    """Prints. The phone is masked; a code is not, for it is what the developer waits for."""

    name: Final = "console"

    async def send(self, sms: Outgoing) -> None:
        """One line."""
        sys.stdout.write(f"SMS {mask_phone(sms.phone)} {sms.text}\n")
        sys.stdout.flush()

    async def was_sent(self, sms_id: UUID) -> bool | None:
        """Nobody knows."""
        return None
