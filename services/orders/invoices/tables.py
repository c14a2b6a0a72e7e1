"""The tables of invoices."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from services.orders.base import Base
from shared.tables import UTC_TIME


class InvoiceRow(Base, table=True):
    """One invoice, and what became of it. Its lessons stand here for ever, those it covers now in `invoice_lessons`."""

    __tablename__ = "invoices"
    __table_args__ = (
        CheckConstraint("state IN ('issued', 'red_lettered')", name="state"),
        CheckConstraint("amount_fen > 0", name="amount_fen"),
        CheckConstraint(
            "(state = 'red_lettered') = (red_number <> '' AND red_reason <> '' AND red_at IS NOT NULL)", name="red"
        ),
        Index("invoices_order_id", "order_id"),
    )

    invoice_id: UUID = Field(primary_key=True)
    order_id: UUID
    institution_id: UUID
    number: str = Field(max_length=20)
    lessons: list[Any] = Field(sa_type=JSONB)
    amount_fen: int = Field(sa_type=BigInteger)
    state: str = Field(max_length=12)
    issued_at: datetime = Field(sa_type=UTC_TIME)
    red_number: str = Field(max_length=20)
    red_reason: str = Field(sa_type=Text)
    red_at: datetime | None = Field(sa_type=UTC_TIME)


class InvoiceLessonRow(Base, table=True):
    """The issued invoice of a lesson, or of what is kept of the refund (0): at most one. A red one takes it away."""

    __tablename__ = "invoice_lessons"

    order_id: UUID = Field(primary_key=True)
    lesson_no: int = Field(primary_key=True)
    invoice_id: UUID = Field(foreign_key="invoices.invoice_id")


class InvoiceNumberRow(Base, table=True):
    """A number that an institution has used, for an invoice or a red one: each once, and never free again."""

    __tablename__ = "invoice_numbers"

    institution_id: UUID = Field(primary_key=True)
    number: str = Field(primary_key=True, max_length=20)
    invoice_id: UUID = Field(foreign_key="invoices.invoice_id")
