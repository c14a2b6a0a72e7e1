"""The tables of families. What a person typed stands in them encrypted; what is looked up by, as a keyed hash."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field

from services.orders.base import Base
from shared.tables import UTC_TIME


class AccountRow(Base, table=True):
    """One phone, one account: two first sign-ins at once meet at the unique hash. The row is the lock of the family."""

    __tablename__ = "accounts"
    __table_args__ = (
        UniqueConstraint("phone_hash"),
        CheckConstraint("octet_length(phone_hash) = 32", name="phone_hash"),
        CheckConstraint("signer_version >= 0", name="signer_version"),
    )

    account_id: UUID = Field(primary_key=True)
    phone_hash: bytes = Field(sa_type=LargeBinary)
    phone: str = Field(sa_type=Text)
    signer_version: int
    created_at: datetime = Field(sa_type=UTC_TIME)


class AgreementRow(Base, table=True):
    """Which versions of the user agreement an account ticked. Kept for ever: it is the proof of consent."""

    __tablename__ = "agreements"

    account_id: UUID = Field(primary_key=True, foreign_key="accounts.account_id")
    version: str = Field(primary_key=True, max_length=20)
    agreed_at: datetime = Field(sa_type=UTC_TIME)


class UsedChallengeRow(Base, table=True):
    """Proofs already taken. A row outlives its proof (five minutes) by a day, then sign-ins sweep it away."""

    __tablename__ = "used_challenges"
    __table_args__ = (Index("used_challenges_used_at", "used_at"),)

    challenge_id: UUID = Field(primary_key=True)
    used_at: datetime = Field(sa_type=UTC_TIME)


class ChildRow(Base, table=True):
    """A child. Its id is unique over all families, so that an order's child means one child."""

    __tablename__ = "children"
    __table_args__ = (
        # Also the index of "the children of this account".
        UniqueConstraint("account_id", "document_hash"),
        CheckConstraint("octet_length(document_hash) = 32", name="document_hash"),
        CheckConstraint("roll_check IN ('unchecked', 'confirmed', 'not_found')", name="roll_check"),
    )

    child_id: UUID = Field(primary_key=True)
    account_id: UUID = Field(foreign_key="accounts.account_id")
    document_hash: bytes = Field(sa_type=LargeBinary)
    details: str = Field(sa_type=Text)
    roll_check: str = Field(max_length=20)
    added_at: datetime = Field(sa_type=UTC_TIME)


class SignerRow(Base, table=True):
    """Every version of every signer, never changed: a contract refers to the version that signed it."""

    __tablename__ = "signers"
    __table_args__ = (CheckConstraint("version > 0", name="version"),)

    account_id: UUID = Field(primary_key=True, foreign_key="accounts.account_id")
    version: int = Field(primary_key=True)
    details: str = Field(sa_type=Text)
    valid_from: datetime = Field(sa_type=UTC_TIME)
