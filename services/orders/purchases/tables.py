"""The tables of purchases and their contracts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, String, Text, text
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
        CheckConstraint("octet_length(child_hash) = 32", name="child_hash"),
        Index("purchases_family", "account_id", "placed_at", "order_id"),
        # These are set once, when the contract is drawn: nothing that happens to a purchase later changes an index.
        Index("purchases_institution_id", "institution_id", "order_id"),
        Index("purchases_district", "district", "institution_id", postgresql_where="institution_id IS NOT NULL"),
        # What one person has bought at one institution, whichever account bought it: for the limits.
        Index("purchases_child_hash", "child_hash", "institution_id", postgresql_where=text("child_hash IS NOT NULL")),
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
    # The child's keyed document hash, as `children` has it. Of a purchase that passed the limits only.
    child_hash: bytes | None = Field(sa_type=LargeBinary)
    detail: str = Field(sa_type=String(2000))
    # Of the contract. Sorted by code points, as other services and gateways sort.
    district: str = Field(sa_type=String(100, collation="C"))


class LimitLockRow(Base, table=True):
    """One person at one institution: a row to lock while its open orders are summed. Made when first needed."""

    __tablename__ = "limit_locks"

    child_hash: bytes = Field(sa_type=LargeBinary, primary_key=True)
    institution_id: UUID = Field(primary_key=True)


class ContractRow(Base, table=True):
    """The contract as drawn, encrypted: it is the one text that prints identity numbers. Never changed."""

    __tablename__ = "contracts"

    order_id: UUID = Field(primary_key=True)
    text: str = Field(sa_type=Text)
    drawn_at: datetime = Field(sa_type=UTC_TIME)
