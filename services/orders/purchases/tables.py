"""The tables of purchases and their contracts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from services.orders.base import Base
from shared.tables import UTC_TIME


class PurchaseRow(Base, table=True):
    """One purchase. Its id is made by the gateway, so a purchase sent twice is one row."""

    __tablename__ = "purchases"
    __table_args__ = (
        CheckConstraint(
            "state IN ('placed', 'to_sign', 'to_pay', 'paying', 'held', 'enrolled', 'cancelling', 'refunding', "
            "'ended')",
            name="state",
        ),
        CheckConstraint("price_fen >= 0 AND lessons >= 0", name="not_negative"),
        Index("purchases_account_id", "account_id"),
        Index("purchases_institution_id", "institution_id", "order_id"),
    )

    order_id: UUID = Field(primary_key=True)
    account_id: UUID
    child_id: UUID
    course_id: UUID
    state: str = Field(max_length=12)
    reason: str = Field(max_length=40)
    act_by: datetime | None = Field(sa_type=UTC_TIME)
    placed_at: datetime = Field(sa_type=UTC_TIME)
    institution_id: UUID | None
    title: str = Field(max_length=100)
    category: str = Field(max_length=20)
    price_fen: int = Field(sa_type=BigInteger)
    lessons: int
    # What catalog offered when the seat was kept, frozen: the contract, the lessons and the payment are made of it.
    offer: dict[str, Any] | None = Field(sa_type=JSONB)
    contract_sha256: str = Field(max_length=64)
    signer_version: int
    signed_at: datetime | None = Field(sa_type=UTC_TIME)
    # When the money was held: refund windows count from then.
    paid_at: datetime | None = Field(sa_type=UTC_TIME)
    method: str = Field(max_length=20)


class ContractRow(Base, table=True):
    """The contract as drawn, encrypted: it is the one text that prints identity numbers. Never changed."""

    __tablename__ = "contracts"

    order_id: UUID = Field(primary_key=True)
    text: str = Field(sa_type=Text)
    drawn_at: datetime = Field(sa_type=UTC_TIME)
