"""The tables of catalog."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKeyConstraint, Index, MetaData, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from shared.tables import UTC_TIME, service_metadata

metadata = service_metadata()

_CATEGORIES = "category IN ('学科', '科技', '文化艺术', '体育')"


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service stand in its own metadata."""

    metadata: ClassVar[MetaData] = metadata


class InstitutionRow(Base, table=True):
    """An institution. What a sale reads stands beside the disclosure, which may be a hundred kilobytes long."""

    __tablename__ = "institutions"
    __table_args__ = (
        # A legal person is on the platform once, whatever became of it.
        UniqueConstraint("uscc"),
        # A name is free again when who had it is closed; a look-up prefers the one in use.
        Index("institutions_name_in_use", "name_key", unique=True, postgresql_where="state <> 'closed'"),
        Index("institutions_by_name", "name_key"),
        CheckConstraint("state IN ('applied', 'listed', 'suspended', 'closed')", name="state"),
        CheckConstraint(_CATEGORIES, name="category"),
        CheckConstraint(
            "state <> 'listed' OR (account IS NOT NULL AND licensed_from IS NOT NULL AND licensed_until IS NOT NULL)",
            name="listed_disclosed",
        ),
        CheckConstraint("changes > 0", name="has_history"),
    )

    institution_id: UUID = Field(primary_key=True)
    uscc: str = Field(max_length=18)
    uscc_override_reason: str = Field(sa_type=Text)
    name: str = Field(max_length=100)
    name_key: str = Field(max_length=100)
    district: str = Field(max_length=100)
    category: str = Field(max_length=20)
    disclosure: dict[str, Any] = Field(sa_type=JSONB)
    account: dict[str, Any] | None = Field(sa_type=JSONB)
    licensed_from: datetime | None = Field(sa_type=UTC_TIME)
    licensed_until: datetime | None = Field(sa_type=UTC_TIME)
    state: str = Field(max_length=20)
    state_reason: str = Field(sa_type=Text)
    state_since: datetime = Field(sa_type=UTC_TIME)
    frozen_until: datetime | None = Field(sa_type=UTC_TIME)
    changes: int


class InstitutionChangeRow(Base, table=True):
    """The history of an institution: only ever added to. `disclosure` is what is public from then on, if it changed."""

    __tablename__ = "institution_changes"
    __table_args__ = (ForeignKeyConstraint(["institution_id"], ["institutions.institution_id"]),)

    institution_id: UUID = Field(primary_key=True)
    change_no: int = Field(primary_key=True)
    state: str = Field(max_length=20)
    reason: str = Field(sa_type=Text)
    authority: str = Field(max_length=128)
    changed_at: datetime = Field(sa_type=UTC_TIME)
    disclosure: dict[str, Any] | None = Field(sa_type=JSONB)
    frozen_until: datetime | None = Field(sa_type=UTC_TIME)


class CourseRow(Base, table=True):
    """A course and its seats. District and category are its institution's, which never change, for the search."""

    __tablename__ = "courses"
    __table_args__ = (
        ForeignKeyConstraint(["institution_id"], ["institutions.institution_id"]),
        # One index for each way to search, so that a page is a range of an index whatever is asked.
        Index("courses_of_institution", "institution_id", "course_id"),
        Index("courses_of_district_and_category", "district", "category", "course_id"),
        Index("courses_of_district", "district", "course_id"),
        Index("courses_of_category", "category", "course_id"),
        # The last seat is sold once: the batch decides under the row's lock, and this holds at every commit.
        CheckConstraint("reserved >= 0 AND taken >= 0 AND reserved + taken <= seats", name="not_oversold"),
        CheckConstraint("price_fen > 0", name="priced"),
        CheckConstraint(_CATEGORIES, name="category"),
    )

    course_id: UUID = Field(primary_key=True)
    seats: int
    reserved: int
    taken: int
    institution_id: UUID
    title: str = Field(max_length=100)
    description: str = Field(sa_type=Text)
    category: str = Field(max_length=20)
    district: str = Field(max_length=100)
    online: bool
    price_fen: int = Field(sa_type=BigInteger)
    lessons: list[dict[str, Any]] = Field(sa_type=JSONB)
    starts_at: datetime = Field(sa_type=UTC_TIME)
    refund_terms: dict[str, Any] = Field(sa_type=JSONB)
    sells_from: datetime | None = Field(sa_type=UTC_TIME)
    published_at: datetime = Field(sa_type=UTC_TIME)


class ReservationRow(Base, table=True):
    """The seat of an order, kept after its end: the tombstone that stops a late command from reserving again.

    No foreign key and no index but the key: its course is read under lock in the same transaction, and nothing asks by
    course but the operator's check, which reads all.
    """

    __tablename__ = "reservations"
    __table_args__ = (
        CheckConstraint("state IN ('reserved', 'taken', 'given_back', 'expired')", name="state"),
        CheckConstraint("state = 'given_back' OR course_id IS NOT NULL", name="of_course"),
        CheckConstraint("course_id IS NULL OR (expires_at IS NOT NULL AND account IS NOT NULL)", name="offered"),
    )

    order_id: UUID = Field(primary_key=True)
    course_id: UUID | None
    state: str = Field(max_length=20)
    expires_at: datetime | None = Field(sa_type=UTC_TIME)
    account: dict[str, Any] | None = Field(sa_type=JSONB)
    reason: str = Field(max_length=40)
    changed_at: datetime = Field(sa_type=UTC_TIME)
