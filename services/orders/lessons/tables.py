"""The table of lessons."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Text
from sqlmodel import Field

from services.orders.base import Base
from shared.tables import UTC_TIME


class LessonRow(Base, table=True):
    """One lesson of a purchase, planned when the child is enrolled."""

    __tablename__ = "lessons"
    __table_args__ = (
        CheckConstraint(
            "state IN ('planned', 'applied', 'confirmed', 'objected', 'paid_out', 'divided', 'refunding', 'refunded')",
            name="state",
        ),
        CheckConstraint("confirmed_by IN ('', 'guardian', 'silence', 'authority')", name="confirmed_by"),
        # Who confirmed stays for ever, and nothing is paid that nobody confirmed.
        CheckConstraint("(state IN ('confirmed', 'paid_out')) = (confirmed_by <> '')", name="confirmed"),
        CheckConstraint("returned_fen BETWEEN 0 AND price_fen", name="returned"),
        CheckConstraint("(returned_fen > 0) = (state = 'divided')", name="divided"),
        # An invoice is owed from then on.
        CheckConstraint("state <> 'paid_out' OR paid_at IS NOT NULL", name="paid_at"),
    )

    order_id: UUID = Field(primary_key=True)
    lesson_no: int = Field(primary_key=True)
    starts_at: datetime = Field(sa_type=UTC_TIME)
    ends_at: datetime = Field(sa_type=UTC_TIME)
    price_fen: int = Field(sa_type=BigInteger)
    state: str = Field(max_length=10)
    confirmed_by: str = Field(max_length=10)
    applied_at: datetime | None = Field(sa_type=UTC_TIME)
    answer_by: datetime | None = Field(sa_type=UTC_TIME)
    answered_at: datetime | None = Field(sa_type=UTC_TIME)
    objection: str = Field(sa_type=Text)
    returned_fen: int = Field(sa_type=BigInteger)
    reminded_at: datetime | None = Field(sa_type=UTC_TIME)
    paid_at: datetime | None = Field(sa_type=UTC_TIME)
