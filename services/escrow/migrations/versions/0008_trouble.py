"""Gathered payouts that were refused or came back are counted by an index."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE INDEX settlements_trouble ON settlements (settlement_id)
        WHERE state = 'refused' OR (state = 'sent' AND attempt > 0)""")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
