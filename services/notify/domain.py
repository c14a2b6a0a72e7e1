"""The rules of notify: when a code may be sent and what a typed one is worth; the life of an SMS. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from shared.contracts.errors import Refused
from shared.policy import CodeRules
from shared.working_days import next_waking_time

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)

FIRST_PAUSE_S: Final = 5
LONGEST_PAUSE_S: Final = 600
"""Between two tries after a provider said "too many": 5 s, doubled each time, at most ten minutes [ours]."""


# --- codes ----------------------------------------------------------------------------------------------------------


class ChallengeState(StrEnum):
    """`open` until it is used or killed; that it has expired is seen from its time."""

    OPEN = "open"
    USED = "used"
    KILLED = "killed"


@dataclass(slots=True)
class Challenge:
    """One code sent to one phone. The code itself is nowhere, only its keyed hash; the phone goes when it is over."""

    challenge_id: UUID
    purpose: str
    phone: str | None
    phone_hash: bytes
    code_hash: bytes
    state: ChallengeState
    tries: int
    sent_at: datetime
    resend_after: datetime
    expires_at: datetime


def check_limits(rules: CodeRules, now: datetime, recent: Iterable[Sequence[datetime]]) -> None:
    """Refuses a code that comes too soon or is one too many; `recent`: for the phone, the device, the IP, the times
    of their sends of the last day (in any order).

    Raises Refused code_too_soon, code_quota, each with `retry_after_s`: when a code may be asked for again. Which of
    the three was full is not told.
    """
    gap = timedelta(seconds=rules.resend_seconds)
    too_soon_until, full_until = now, now
    for times in recent:
        newest_first = sorted(times, reverse=True)
        if newest_first:
            too_soon_until = max(too_soon_until, newest_first[0] + gap)
        for window, most in ((HOUR, rules.max_per_hour), (DAY, rules.max_per_day)):
            if len(newest_first) >= most:
                # There is room again when the `most`-th newest has left the window.
                full_until = max(full_until, newest_first[most - 1] + window)
    if full_until > now:
        raise Refused("code_quota", retry_after_s=_seconds(max(full_until, too_soon_until) - now))
    if too_soon_until > now:
        raise Refused("code_too_soon", retry_after_s=_seconds(too_soon_until - now))


def open_challenge(
    challenge_id: UUID,
    purpose: str,
    phone: str,
    hashes: tuple[bytes, bytes],
    rules: CodeRules,
    now: datetime,
) -> Challenge:
    """A new challenge for `phone` (encrypted), with the keyed `hashes` of phone and code."""
    return Challenge(
        challenge_id=challenge_id,
        purpose=purpose,
        phone=phone,
        phone_hash=hashes[0],
        code_hash=hashes[1],
        state=ChallengeState.OPEN,
        tries=0,
        sent_at=now,
        resend_after=now + timedelta(seconds=rules.resend_seconds),
        expires_at=now + timedelta(seconds=rules.lifetime_seconds),
    )


def try_code(challenge: Challenge, right: bool, rules: CodeRules, now: datetime) -> str | None:
    """Takes one try; the encrypted phone when the code was `right`, in time, and not used before, else None.

    No refusal is raised, because a wrong try is counted: the fifth kills the challenge. Used, killed and expired ones
    do not change any more, and look the same to who asks.
    """
    if challenge.state is not ChallengeState.OPEN or now >= challenge.expires_at:
        return None
    if right:
        phone = challenge.phone
        challenge.state, challenge.phone = ChallengeState.USED, None
        return phone
    challenge.tries += 1
    if challenge.tries >= rules.max_tries:
        challenge.state, challenge.phone = ChallengeState.KILLED, None
    return None


def _seconds(rest: timedelta) -> int:
    return max(1, math.ceil(rest.total_seconds()))


# --- SMS ------------------------------------------------------------------------------------------------------------


class Lane(StrEnum):
    """Codes at any hour and never behind notices; notices (提醒) in waking hours only."""

    CODE = "code"
    NOTICE = "notice"


class SmsState(StrEnum):
    """no_contact → queued → sending → sent | failed | unknown, or dropped: late or overtaken, on purpose not sent."""

    NO_CONTACT = "no_contact"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed"
    UNKNOWN = "unknown"
    DROPPED = "dropped"


@dataclass(slots=True)
class Sms:
    """One SMS, at most one for each (recipient, purpose, subject).

    `phone` and `code` are encrypted and there only as long as the SMS may still be sent. `claimed_at` is the
    database's real time, without the offset of demo and test: it guards two senders, not a rule.
    """

    id: UUID
    lane: Lane
    recipient: str
    purpose: str
    subject: str
    phone: str | None
    code: str | None
    params: dict[str, str]
    state: SmsState
    reason: str
    provider: str
    tries: int
    created_at: datetime
    not_before: datetime
    expires_at: datetime
    claim: UUID | None
    claimed_at: datetime | None
    finished_at: datetime | None
    correlationid: UUID
    causationid: UUID
    traceparent: str


SMS_CHANGES: Final = (
    *("phone", "code", "state", "reason", "provider", "tries"),
    *("not_before", "claim", "claimed_at", "finished_at"),
)
"""Columns that the life of an SMS changes."""


@dataclass(frozen=True, slots=True)
class Cause:
    """The message that led to an SMS: its correlation and trace go on in `SmsSent`."""

    correlationid: UUID
    causationid: UUID
    traceparent: str


def code_sms(sms_id: UUID, challenge: Challenge, recipient: str, code: str, minutes: int, cause: Cause) -> Sms:
    """The SMS with the (encrypted) code of `challenge`: at once, at any hour, and not after the code has expired."""
    return Sms(
        id=sms_id,
        lane=Lane.CODE,
        recipient=recipient,
        purpose=f"code.{challenge.purpose}",
        subject=str(challenge.challenge_id),
        phone=challenge.phone,
        code=code,
        params={"minutes": str(minutes)},
        state=SmsState.QUEUED,
        reason="",
        provider="",
        tries=0,
        created_at=challenge.sent_at,
        not_before=challenge.sent_at,
        expires_at=challenge.expires_at,
        claim=None,
        claimed_at=None,
        finished_at=None,
        correlationid=cause.correlationid,
        causationid=cause.causationid,
        traceparent=cause.traceparent,
    )


@dataclass(frozen=True, slots=True)
class Notice:
    """What an event has to tell an account or an institution: `params` fill the wording of `purpose`; useless from
    `expires_at` on."""

    recipient_id: UUID
    purpose: str
    subject: str
    params: dict[str, str]
    expires_at: datetime
    cause: Cause


def notice_sms(sms_id: UUID, notice: Notice, phone: str | None, now: datetime) -> Sms:
    """The SMS of `notice`: in the next waking hour, to `phone` (encrypted); None waits until it is told.

    One that would only come when it is of no use any more is dropped at once, and kept as a record of that.
    """
    not_before = next_waking_time(now)
    sms = Sms(
        id=sms_id,
        lane=Lane.NOTICE,
        recipient=str(notice.recipient_id),
        purpose=notice.purpose,
        subject=notice.subject,
        phone=phone,
        code=None,
        params=notice.params,
        state=SmsState.NO_CONTACT if phone is None else SmsState.QUEUED,
        reason="",
        provider="",
        tries=0,
        created_at=now,
        not_before=not_before,
        expires_at=notice.expires_at,
        claim=None,
        claimed_at=None,
        finished_at=None,
        correlationid=notice.cause.correlationid,
        causationid=notice.cause.causationid,
        traceparent=notice.cause.traceparent,
    )
    if not_before >= notice.expires_at:
        end(sms, SmsState.DROPPED, "late", now)
    return sms


def claim(sms: Sms, claim_id: UUID, claimed_at: datetime, now: datetime) -> bool:
    """Takes a due SMS for sending; False when it has become useless and is dropped instead."""
    if now >= sms.expires_at:
        end(sms, SmsState.DROPPED, "late", now)
        return False
    sms.state, sms.claim, sms.claimed_at = SmsState.SENDING, claim_id, claimed_at
    return True


def requeue(sms: Sms, now: datetime, pause_s: float = 0) -> None:
    """Back into the queue, known not to have been sent; a notice waits for waking hours."""
    moment = now + timedelta(seconds=pause_s)
    sms.not_before = moment if sms.lane is Lane.CODE else next_waking_time(moment)
    sms.state, sms.claim, sms.claimed_at = SmsState.QUEUED, None, None


def postpone(sms: Sms, now: datetime, reason: str, retry_after_s: float | None) -> None:
    """Back into the queue because the provider has had too many: later each time, until the SMS is of no use."""
    sms.tries += 1
    pause_s = min(FIRST_PAUSE_S * 2 ** min(sms.tries - 1, 10), LONGEST_PAUSE_S)
    sms.reason = reason
    requeue(sms, now, max(pause_s, retry_after_s or 0))


def end(sms: Sms, state: SmsState, reason: str, now: datetime, provider: str = "") -> None:
    """The end: sent, failed, unknown or dropped. Phone and code go; what stays says what was told, to whom, when."""
    sms.state, sms.reason, sms.provider, sms.finished_at = state, reason, provider, now
    sms.phone, sms.code, sms.claim, sms.claimed_at = None, None, None, None
