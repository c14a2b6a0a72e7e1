"""The tables of complaints. What a person wrote is encrypted; the reporter stands here and is shown to nobody."""

from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, MetaData, SmallInteger, Text, UniqueConstraint
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from shared.tables import UTC_TIME, service_metadata

metadata = service_metadata()

_STATES = (
    "'submitted', 'accepted', 'rejected', 'transferred', 'in_progress', 'mediated', 'filed', 'unfounded', 'terminated'"
)


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service stand in its own metadata."""

    metadata: ClassVar[MetaData] = metadata


class OrderRow(Base, table=True):
    """Whose order it is, copied from `PurchaseEnrolled`: enough to know that a complaint comes from its family."""

    __tablename__ = "orders"

    order_id: UUID = Field(primary_key=True)
    account_id: UUID


class FilingRow(Base, table=True):
    """A complaint or report where it stands now. Its key is the gateway's, so sending it again files nothing new."""

    __tablename__ = "filings"
    __table_args__ = (
        # Whoever holds the number may look: it is random enough that nobody finds one by trying.
        UniqueConstraint("number"),
        CheckConstraint("kind IN ('complaint', 'report')", name="kind"),
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        # A complaint (投诉) has a complainant; a report (举报) may have none and never touches an order's money.
        CheckConstraint("kind <> 'complaint' OR account_id IS NOT NULL", name="complainant"),
        CheckConstraint("kind <> 'report' OR order_id IS NULL", name="report_without_order"),
        # Nothing waits without a deadline, nothing closed has one.
        CheckConstraint(
            "(act_by IS NULL) = (state IN ('rejected', 'mediated', 'filed', 'unfounded', 'terminated'))",
            name="deadline_while_open",
        ),
    )

    filing_id: UUID = Field(primary_key=True)
    number: str = Field(max_length=30)
    kind: str = Field(max_length=10)
    type: str = Field(max_length=40)
    area: str = Field(max_length=20)
    category: str = Field(max_length=20)
    department: str = Field(max_length=100)
    hotline: str = Field(max_length=20)
    account_id: UUID | None
    order_id: UUID | None
    # `use_cases.Content`, encrypted: what a person wrote often names people.
    content: str = Field(sa_type=Text)
    # Keyed hash of all that was asked and by whom: the same filing again is answered, another one is refused.
    content_hash: bytes
    state: str = Field(max_length=20)
    state_reason: str = Field(max_length=500)
    submitted_at: datetime = Field(sa_type=UTC_TIME)
    act_by: datetime | None = Field(sa_type=UTC_TIME)
    # How many deadlines have passed since the present clock began.
    overdue: int = Field(sa_type=SmallInteger)
    hops: int = Field(sa_type=SmallInteger)
    steps: int


class StepRow(Base, table=True):
    """One step of a filing, for ever: from where to where, by whom, why. Step 0 is the filing itself."""

    __tablename__ = "steps"
    __table_args__ = (ForeignKeyConstraint(["filing_id"], ["filings.filing_id"]),)

    filing_id: UUID = Field(primary_key=True)
    step_no: int = Field(primary_key=True)
    from_state: str = Field(max_length=20)
    to_state: str = Field(max_length=20)
    # A deadline passed: the state stayed as it was.
    overdue: bool
    reason: str = Field(max_length=500)
    department: str = Field(max_length=100)
    # The authority that decided; empty for the filing itself and for a deadline. Never the reporter.
    decided_by: str = Field(max_length=128)
    happened_at: datetime = Field(sa_type=UTC_TIME)
