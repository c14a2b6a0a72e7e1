"""When the institution has received what it keeps of a refund: an invoice is owed for it from then on."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE refunds ADD COLUMN kept_paid_at timestamptz,
        ADD CONSTRAINT refunds_kept_check CHECK (
          kept_paid_at IS NULL OR (deduction_fen > 0 AND state IN ('paying', 'paid')))""")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
