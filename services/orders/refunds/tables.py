"""The tables of refunds and of winding up."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from services.orders.base import Base
from shared.tables import UTC_TIME


class RefundRow(Base, table=True):
    """One refund of an order. Its id is made by the gateway, so a request sent twice is one row."""

    __tablename__ = "refunds"
    __table_args__ = (
        CheckConstraint(
            "state IN ('asked', 'contested', 'paying', 'paid', 'rejected', 'withdrawn')",
            name="state",
        ),
        CheckConstraint(
            "ground IN ('full_refund_window', 'untaught', 'institution_at_fault', 'institution_gone')", name="ground"
        ),
        CheckConstraint("deduction_fen >= 0 AND deduction_fen < fee_fen", name="something_goes_back"),
        CheckConstraint("kept_paid_at IS NULL OR (deduction_fen > 0 AND state IN ('paying', 'paid'))", name="kept"),
        # Nothing waits for ever.
        CheckConstraint("(act_by IS NULL) = (closed_at IS NOT NULL)", name="deadline"),
        # An order has one refund that is open or paid, whatever gateways send.
        Index(
            "refunds_one_of_an_order",
            "order_id",
            unique=True,
            postgresql_where="state NOT IN ('rejected', 'withdrawn')",
        ),
        Index("refunds_order_id", "order_id"),
        Index("refunds_open", "state", "refund_id", postgresql_where="closed_at IS NULL"),
    )

    refund_id: UUID = Field(primary_key=True)
    order_id: UUID
    account_id: UUID
    institution_id: UUID
    state: str = Field(max_length=10)
    ground: str = Field(max_length=20)
    lessons: list[int] = Field(sa_type=JSONB)
    fee_fen: int = Field(sa_type=BigInteger)
    deduction_fen: int = Field(sa_type=BigInteger)
    reason: str = Field(sa_type=Text)
    asked_at: datetime = Field(sa_type=UTC_TIME)
    act_by: datetime | None = Field(sa_type=UTC_TIME)
    answer: str = Field(sa_type=Text)
    decision: str = Field(sa_type=Text)
    decided_by: str = Field(max_length=128)
    overdue: bool
    trouble: str = Field(max_length=200)
    materials_fen: int = Field(sa_type=BigInteger)
    closed_at: datetime | None = Field(sa_type=UTC_TIME)
    kept_paid_at: datetime | None = Field(sa_type=UTC_TIME)


class WindUpRow(Base, table=True):
    """The bulk refund of an institution that is gone: how far it is. `run` counts how often it was begun."""

    __tablename__ = "wind_ups"
    __table_args__ = (CheckConstraint("run > 0 AND done_orders >= 0", name="counts"),)

    institution_id: UUID = Field(primary_key=True)
    run: int
    reason: str = Field(sa_type=Text)
    decided_by: str = Field(max_length=128)
    started_at: datetime = Field(sa_type=UTC_TIME)
    finished_at: datetime | None = Field(sa_type=UTC_TIME)
    orders: int
    lessons: int
    refund_fen: int = Field(sa_type=BigInteger)
    given_up: int
    pending: int
    done_orders: int
    done_fen: int = Field(sa_type=BigInteger)
