"""Refunds of paid orders, and the winding up of institutions; when an order was paid."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("purchases", sa.Column("paid_at", TIME, nullable=True))
    # Until now it was not written down; a purchase is paid within minutes of its signature.
    op.execute("UPDATE purchases SET paid_at = coalesce(signed_at, placed_at) WHERE state IN ('held', 'enrolled')")
    op.create_index("purchases_institution_id", "purchases", ["institution_id", "order_id"])
    op.drop_constraint("lessons_state_check", "lessons")
    op.create_check_constraint(
        op.f("lessons_state_check"),
        "lessons",
        "state IN ('planned', 'applied', 'confirmed', 'objected', 'paid_out', 'refunding', 'refunded')",
    )
    op.create_table(
        "refunds",
        sa.Column("refund_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("ground", sa.String(20), nullable=False),
        sa.Column("lessons", JSONB(), nullable=False),
        sa.Column("fee_fen", sa.BigInteger(), nullable=False),
        sa.Column("deduction_fen", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("act_by", TIME, nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("decision", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.String(128), nullable=False),
        sa.Column("overdue", sa.Boolean(), nullable=False),
        sa.Column("trouble", sa.String(200), nullable=False),
        sa.Column("materials_fen", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", TIME, nullable=True),
        sa.CheckConstraint(
            "state IN ('asked', 'contested', 'paying', 'paid', 'rejected', 'withdrawn')",
            name=op.f("refunds_state_check"),
        ),
        sa.CheckConstraint(
            "ground IN ('full_refund_window', 'untaught', 'institution_at_fault', 'institution_gone')",
            name=op.f("refunds_ground_check"),
        ),
        sa.CheckConstraint(
            "deduction_fen >= 0 AND deduction_fen < fee_fen", name=op.f("refunds_something_goes_back_check")
        ),
        sa.CheckConstraint("(act_by IS NULL) = (closed_at IS NOT NULL)", name=op.f("refunds_deadline_check")),
        sa.PrimaryKeyConstraint("refund_id", name=op.f("refunds_pkey")),
    )
    op.create_index(
        "refunds_one_of_an_order",
        "refunds",
        ["order_id"],
        unique=True,
        postgresql_where=sa.text("state NOT IN ('rejected', 'withdrawn')"),
    )
    op.create_index("refunds_order_id", "refunds", ["order_id"])
    op.create_index("refunds_open", "refunds", ["state", "refund_id"], postgresql_where=sa.text("closed_at IS NULL"))
    op.create_table(
        "wind_ups",
        sa.Column("institution_id", sa.Uuid(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.String(128), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME, nullable=True),
        sa.Column("orders", sa.Integer(), nullable=False),
        sa.Column("lessons", sa.Integer(), nullable=False),
        sa.Column("refund_fen", sa.BigInteger(), nullable=False),
        sa.Column("given_up", sa.Integer(), nullable=False),
        sa.Column("pending", sa.Integer(), nullable=False),
        sa.Column("done_orders", sa.Integer(), nullable=False),
        sa.Column("done_fen", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("run > 0 AND done_orders >= 0", name=op.f("wind_ups_counts_check")),
        sa.PrimaryKeyConstraint("institution_id", name=op.f("wind_ups_pkey")),
    )


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
