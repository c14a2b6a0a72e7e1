"""Institutions can be frozen until a time."""

from alembic import op
from sqlalchemy import Column, DateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("institutions", "institution_changes"):
        op.add_column(table, Column("frozen_until", DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
