"""The words of notify: SMS codes, contacts, notices."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from shared.contracts import topics
from shared.contracts.envelope import Command, Event, Reply, Request
from shared.contracts.types import Moment, Part
from shared.sealing import Sealed

_REQUESTS = topics.requests("notify")
_COMMANDS = topics.commands("notify")
_EVENTS = topics.events("notify")


class Phone(Part):
    """A phone number as typed or E.164; travels sealed only."""

    phone: Annotated[str, Field(min_length=1, max_length=20)]


class Code(Part):
    """An SMS code as typed; travels sealed only."""

    code: Annotated[str, Field(min_length=1, max_length=10)]


class CodeSent(Reply, type="notify.code.sent.v1"):
    """A code is on its way, whoever the phone belongs to: the answer never says whether it has an account."""

    challenge_id: UUID
    expires_at: Moment
    resend_after: Moment


class SendCode(Request, type="notify.code.send.v1", topic=_REQUESTS, key="challenge_id", reply=CodeSent):
    """Sends a 6-digit code: 5 minutes, 60 s between sends, 5 per hour and 10 per day per phone, device and IP."""

    challenge_id: UUID
    phone: Sealed[Phone]
    purpose: Literal["sign_in"] = "sign_in"
    device: Annotated[str, Field(max_length=100)] = ""
    ip: Annotated[str, Field(max_length=45)] = ""


class CodeChecked(Reply, type="notify.code.checked.v1"):
    """The code was right. `proof` is signed by notify, for orders only, valid 5 minutes.

    Its claims: `challenge_id`, and `phone`, the `jwe` text of a Sealed[Phone] to orders (E.164). It may be shown more
    than once while it lives: who must not accept it twice remembers the challenge.
    """

    challenge_id: UUID
    proof: Annotated[str, Field(repr=False)]


class CheckCode(Request, type="notify.code.check.v1", topic=_REQUESTS, key="challenge_id", reply=CodeChecked):
    """Checks a code, once; five wrong tries kill it."""

    challenge_id: UUID
    code: Sealed[Code]


class SetContact(Command, type="notify.contact.set.v1", topic=_COMMANDS, key="account_id"):
    """The phone of an account, told once, sealed to notify, which keeps its own copy."""

    account_id: UUID
    phone: Sealed[Phone]


class ContactNamed(Reply, type="notify.contact.named.v1"):
    """The institution is told by SMS from now on, at the phone it has named."""

    institution_id: UUID


class NameContact(Request, type="notify.contact.name.v1", topic=_REQUESTS, key="institution_id", reply=ContactNamed):
    """The phone at which the institution is told that a payout came back; another one takes its place. The institution
    itself. Refused: phone_invalid."""

    institution_id: UUID
    phone: Sealed[Phone]


class SmsSent(Event, type="notify.sms.sent.v1", topic=_EVENTS, key="sms_id"):
    """A provider has taken a message."""

    sms_id: UUID
    purpose: str
    provider: str
