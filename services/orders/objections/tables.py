"""The table of objections."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, Text
from sqlmodel import Field

from services.orders.base import Base
from shared.tables import UTC_TIME


class ObjectionRow(Base, table=True):
    """One objection to a lesson. A lesson has one at most: after it the lesson is confirmed or divided.

    The row is only changed under the lock of its lesson.
    """

    __tablename__ = "objections"
    __table_args__ = (
        CheckConstraint("state IN ('raised', 'answered', 'unanswered', 'decided', 'withdrawn')", name="state"),
        CheckConstraint("decision IN ('', 'release', 'return', 'split')", name="decision"),
        # Only a decision moves money, and whose it was stays for ever.
        CheckConstraint(
            "(state = 'decided') = (decision <> '') AND (state = 'decided') = (decided_by <> '') "
            "AND (state = 'decided') = (decided_at IS NOT NULL)",
            name="decided",
        ),
        CheckConstraint("release_fen >= 0 AND (release_fen = 0 OR decision IN ('release', 'split'))", name="released"),
        # Whoever's turn it is has a deadline.
        CheckConstraint("state NOT IN ('answered', 'unanswered') OR decide_by IS NOT NULL", name="deadline"),
        Index("objections_open", "order_id", postgresql_where="state IN ('raised', 'answered', 'unanswered')"),
    )

    order_id: UUID = Field(primary_key=True)
    lesson_no: int = Field(primary_key=True)
    reason: str = Field(sa_type=Text)
    evidence: str = Field(max_length=200)
    objected_at: datetime = Field(sa_type=UTC_TIME)
    answer_by: datetime = Field(sa_type=UTC_TIME)
    state: str = Field(max_length=10)
    answer: str = Field(sa_type=Text)
    answered_at: datetime | None = Field(sa_type=UTC_TIME)
    decide_by: datetime | None = Field(sa_type=UTC_TIME)
    overdue: int
    decision: str = Field(max_length=10)
    release_fen: int = Field(sa_type=BigInteger)
    decision_reason: str = Field(sa_type=Text)
    decided_by: str = Field(max_length=12)
    decider: str = Field(max_length=128)
    decided_at: datetime | None = Field(sa_type=UTC_TIME)
