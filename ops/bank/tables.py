"""The tables of the stand-in bank: accounts, entries, behaviours."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Double, Index, MetaData, SmallInteger, Text, UniqueConstraint, text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from shared.tables import UTC_TIME, service_metadata

metadata = service_metadata()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of the bank stand in its own metadata."""

    metadata: ClassVar[MetaData] = metadata


class AccountRow(Base, table=True):
    """The balance of one account at one bank: always the sum of its entries, and never below zero."""

    __tablename__ = "accounts"
    __table_args__ = (CheckConstraint("balance_fen >= 0", name="no_overdraft"),)

    bank: str = Field(primary_key=True, max_length=40)
    account: str = Field(primary_key=True, max_length=100)
    balance_fen: int = Field(sa_type=BigInteger)


class EntryRow(Base, table=True):
    """One thing the bank did about one number; never changed. `paid` and `returned` moved money, the others did not.

    An empty account is the world outside the bank: whoever pays in, or is paid back.
    """

    __tablename__ = "entries"
    __table_args__ = (
        UniqueConstraint("reference"),
        CheckConstraint("kind IN ('collect', 'payout', 'refund')", name="kind"),
        CheckConstraint("outcome IN ('accepted', 'paid', 'refused', 'returned')", name="outcome"),
        CheckConstraint("amount_fen > 0", name="positive"),
        CheckConstraint("from_account <> to_account OR outcome = 'refused'", name="two_sides"),
        # What was paid back of one collection is summed before the next refund. IS NOT NULL is what the planner can
        # prove from an equality; of "not empty" it could not, and would read the whole table.
        Index("entries_refund_of", "bank", "refund_of", postgresql_where=text("refund_of IS NOT NULL")),
        # A statement (对账单) is asked for by time; rows come in that order.
        Index("entries_happened_at", "happened_at", postgresql_using="brin"),
    )

    bank: str = Field(primary_key=True, max_length=40)
    number: str = Field(primary_key=True, max_length=100)
    step: int = Field(primary_key=True, sa_type=SmallInteger)
    order_id: UUID | None
    kind: str = Field(max_length=10)
    outcome: str = Field(max_length=10)
    amount_fen: int = Field(sa_type=BigInteger)
    from_account: str = Field(max_length=100)
    to_account: str = Field(max_length=100)
    refund_of: str | None = Field(max_length=100)
    reference: str = Field(max_length=100)
    reason: str = Field(sa_type=Text)
    happened_at: datetime = Field(sa_type=UTC_TIME)


class BehaviourRow(Base, table=True):
    """How the bank shall behave towards the instructions that match; written by operators and tests."""

    __tablename__ = "behaviours"
    __table_args__ = (
        CheckConstraint("percentage BETWEEN 1 AND 100", name="percentage"),
        CheckConstraint("times_left >= 0", name="times_left"),
        CheckConstraint("seconds >= 0", name="seconds"),
        CheckConstraint(
            "name IN ('slow', 'refuse', 'unknown', 'silent', 'repeat', 'pay_twice', 'wrong_amount', 'accept_first', "
            "'return_after')",
            name="name",
        ),
        # Looked at once for every batch; those used up stay as a record.
        Index("behaviours_active", "id", postgresql_where=text("times_left IS NULL OR times_left > 0")),
    )

    id: UUID = Field(primary_key=True)
    name: str = Field(max_length=20)
    kind: str = Field(max_length=10)
    order_id: UUID | None
    number_prefix: str = Field(max_length=30)
    percentage: int = Field(sa_type=SmallInteger)
    times_left: int | None
    seconds: float = Field(sa_type=Double)
    delta_fen: int = Field(sa_type=BigInteger)
    reason: str = Field(sa_type=Text)
