"""Who takes an SMS to a phone. Development has `file` and `console`; Alibaba Cloud and Tencent Cloud fit the same form.

A provider is called at most once for an SMS unless it said itself that it did not take it.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An SMS as a provider gets it. A provider with templates takes `purpose` and `params`, else `text`.

    `sms_id` is to be given to the provider as its own reference (Alibaba: OutId, Tencent: SessionContext).
    """

    sms_id: UUID
    phone: str = field(repr=False)
    purpose: str
    params: dict[str, str] = field(repr=False)
    text: str = field(repr=False)
    at: datetime


class ProviderRefusedError(Exception):
    """The provider did not take the SMS, for certain. `code` is its word for why; it is logged, so no phone in it."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class RejectedError(ProviderRefusedError):
    """It will never take this one: number not in service, template unknown, content refused."""


class ThrottledError(ProviderRefusedError):
    """Too many for now (flow control, daily quota): later again, after `retry_after_s` if it says so."""

    def __init__(self, code: str, retry_after_s: float | None = None) -> None:
        super().__init__(code)
        self.retry_after_s = retry_after_s


class AccountDeadError(ProviderRefusedError):
    """It takes nothing from us any more: arrears, account or signature blocked, key revoked."""


class Provider(Protocol):
    """What the sender asks of a provider. Any exception but those above means: nobody knows whether it was taken."""

    @property
    def name(self) -> str:
        """A word for logs, rows and events."""
        ...

    async def send(self, sms: Outgoing) -> None:
        """Returns when the provider has taken `sms`.

        Raises RejectedError, ThrottledError, AccountDeadError when it has not.
        """
        ...

    async def was_sent(self, sms_id: UUID) -> bool | None:
        """Whether the SMS was taken at an earlier call; None: it cannot be told."""
        ...
