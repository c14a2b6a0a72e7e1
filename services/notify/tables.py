"""The tables of notify. Phones and codes are encrypted; what is looked up stands there as a keyed hash."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from shared.tables import UTC_TIME, service_metadata

metadata = service_metadata()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service stand in its own metadata."""

    metadata: ClassVar[MetaData] = metadata


class ContactRow(Base, table=True):
    """The phone of an account, told by orders and never by a gateway; or of an institution, named by itself.

    A row without a phone is a recipient of which an event was heard before its contact was set; the row is what the
    two wait for each other on (`use_cases.phones_of`).
    """

    __tablename__ = "contacts"
    __table_args__ = (CheckConstraint("(phone IS NULL) = (phone_hash IS NULL)", name="phone_with_hash"),)

    recipient_id: UUID = Field(primary_key=True)
    phone: str | None = Field(sa_type=Text)
    # Tells whether a phone told again is another one: the same phone never encrypts to the same text.
    phone_hash: bytes | None
    changed_at: datetime = Field(sa_type=UTC_TIME)


class ChallengeRow(Base, table=True):
    """A code that was asked for. No code stands here, and no phone once the challenge is used or killed."""

    __tablename__ = "challenges"
    __table_args__ = (
        CheckConstraint("state IN ('open', 'used', 'killed')", name="state"),
        CheckConstraint("(phone IS NOT NULL) = (state = 'open')", name="phone_while_open"),
        CheckConstraint("tries BETWEEN 0 AND 100", name="tries"),
        Index("challenges_sent_at", "sent_at"),  # for the purge
    )

    challenge_id: UUID = Field(primary_key=True)
    purpose: str = Field(max_length=40)
    phone: str | None = Field(sa_type=Text)
    phone_hash: bytes
    code_hash: bytes
    state: str = Field(max_length=10)
    tries: int
    sent_at: datetime = Field(sa_type=UTC_TIME)
    resend_after: datetime = Field(sa_type=UTC_TIME)
    expires_at: datetime = Field(sa_type=UTC_TIME)


class CodeSendRow(Base, table=True):
    """One send counted for one phone, device or IP (`key_hash`, keyed): up to three rows for a code."""

    __tablename__ = "code_sends"
    __table_args__ = (Index("code_sends_sent_at", "sent_at"),)  # for the purge

    # The time stands between, so that the sends of the last day of one key are one range of this index.
    key_hash: bytes = Field(primary_key=True)
    sent_at: datetime = Field(primary_key=True, sa_type=UTC_TIME)
    challenge_id: UUID = Field(primary_key=True)


class SmsRow(Base, table=True):
    """One SMS from its wish to its end. Its unique key is the promise that nobody is told the same thing twice."""

    __tablename__ = "sms"
    __table_args__ = (
        # `recipient`: the id of an account or an institution, or for a code the keyed hash of the phone.
        UniqueConstraint("recipient", "purpose", "subject"),
        CheckConstraint("lane IN ('code', 'notice')", name="lane"),
        CheckConstraint(
            "state IN ('no_contact', 'queued', 'sending', 'sent', 'failed', 'unknown', 'dropped')", name="state"
        ),
        # Phone and code are there exactly as long as they may be needed.
        CheckConstraint("(phone IS NOT NULL) = (state IN ('queued', 'sending'))", name="phone_while_waiting"),
        CheckConstraint(
            "(code IS NOT NULL) = (lane = 'code' AND state IN ('queued', 'sending'))", name="code_while_waiting"
        ),
        CheckConstraint(
            "(claim IS NOT NULL) = (state = 'sending') AND (claimed_at IS NOT NULL) = (state = 'sending')",
            name="claim_while_sending",
        ),
        # Each lane takes what is due in order; a million notices for the morning cost the codes of the night nothing.
        Index("sms_queued", "lane", "not_before", postgresql_where="state = 'queued'"),
        Index("sms_sending", "claimed_at", postgresql_where="state = 'sending'"),
        Index("sms_no_contact", "expires_at", postgresql_where="state = 'no_contact'"),
    )

    # UUIDv7, so in the order of time: the purge needs no other index.
    id: UUID = Field(primary_key=True)
    lane: str = Field(max_length=10)
    recipient: str = Field(max_length=64)
    purpose: str = Field(max_length=40)
    subject: str = Field(max_length=100)
    phone: str | None = Field(sa_type=Text)
    code: str | None = Field(sa_type=Text)
    params: dict[str, Any] = Field(sa_type=JSONB)
    state: str = Field(max_length=10)
    reason: str = Field(max_length=100)
    provider: str = Field(max_length=20)
    tries: int
    created_at: datetime = Field(sa_type=UTC_TIME)
    not_before: datetime = Field(sa_type=UTC_TIME)
    expires_at: datetime = Field(sa_type=UTC_TIME)
    claim: UUID | None
    claimed_at: datetime | None = Field(sa_type=UTC_TIME)
    finished_at: datetime | None = Field(sa_type=UTC_TIME)
    correlationid: UUID
    causationid: UUID
    traceparent: str = Field(max_length=60)
