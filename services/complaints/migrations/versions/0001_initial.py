"""Filings, their steps, the copy of orders; the road's tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _road()
    op.create_table(
        "orders",
        sa.Column("order_id", sa.Uuid, nullable=False),
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("order_id", name=op.f("orders_pkey")),
    )
    op.create_table(
        "filings",
        sa.Column("filing_id", sa.Uuid, nullable=False),
        sa.Column("number", sa.String(30), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("area", sa.String(20), nullable=False),
        sa.Column("category", sa.String(20), nullable=False),
        sa.Column("department", sa.String(100), nullable=False),
        sa.Column("hotline", sa.String(20), nullable=False),
        sa.Column("account_id", sa.Uuid),
        sa.Column("order_id", sa.Uuid),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("content_hash", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("state_reason", sa.String(500), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("act_by", sa.DateTime(timezone=True)),
        sa.Column("overdue", sa.SmallInteger, nullable=False),
        sa.Column("hops", sa.SmallInteger, nullable=False),
        sa.Column("steps", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("filing_id", name=op.f("filings_pkey")),
        sa.UniqueConstraint("number", name=op.f("filings_number_key")),
        sa.CheckConstraint("kind IN ('complaint', 'report')", name=op.f("filings_kind_check")),
        sa.CheckConstraint(
            "state IN ('submitted', 'accepted', 'rejected', 'transferred', 'in_progress', 'mediated', 'filed', "
            "'unfounded', 'terminated')",
            name=op.f("filings_state_check"),
        ),
        sa.CheckConstraint("kind <> 'complaint' OR account_id IS NOT NULL", name=op.f("filings_complainant_check")),
        sa.CheckConstraint("kind <> 'report' OR order_id IS NULL", name=op.f("filings_report_without_order_check")),
        sa.CheckConstraint(
            "(act_by IS NULL) = (state IN ('rejected', 'mediated', 'filed', 'unfounded', 'terminated'))",
            name=op.f("filings_deadline_while_open_check"),
        ),
    )
    op.create_table(
        "steps",
        sa.Column("filing_id", sa.Uuid, nullable=False),
        sa.Column("step_no", sa.Integer, nullable=False),
        sa.Column("from_state", sa.String(20), nullable=False),
        sa.Column("to_state", sa.String(20), nullable=False),
        sa.Column("overdue", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("department", sa.String(100), nullable=False),
        sa.Column("decided_by", sa.String(128), nullable=False),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("filing_id", "step_no", name=op.f("steps_pkey")),
        sa.ForeignKeyConstraint(["filing_id"], ["filings.filing_id"], name=op.f("steps_filing_id_fkey")),
    )


def _road() -> None:
    """inbox, outbox, timers and the clock, as every service has them."""
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.String(40), primary_key=True),
        sa.Column("message_id", sa.Uuid, primary_key=True),
        sa.Column("body_hash", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reply", sa.Text),
        sa.Column("parked", sa.Uuid),
    )
    op.create_index("inbox_received_at", "inbox", ["received_at"], postgresql_using="brin")
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("topic", sa.String(80), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("partition", sa.SmallInteger),
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("correlationid", sa.Uuid, nullable=False),
        sa.Column("replyto", sa.String(80), nullable=False),
        sa.Column("traceparent", sa.String(60), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
    )
    op.create_index("outbox_unsent", "outbox", ["seq"], postgresql_where=sa.text("sent_at IS NULL"))
    op.create_index("outbox_key", "outbox", ["key"])
    op.create_index("outbox_created_at", "outbox", ["created_at"], postgresql_using="brin")
    op.create_table(
        "timers",
        sa.Column("type", sa.String(100), primary_key=True),
        sa.Column("subject", sa.String(200), primary_key=True),
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("correlationid", sa.Uuid, nullable=False),
        sa.Column("causationid", sa.Uuid),
        sa.Column("traceparent", sa.String(60), nullable=False),
    )
    op.create_index("timers_due_at", "timers", ["due_at"])
    # Vacuumed by count, not by share of the table.
    for table in ("inbox", "outbox", "timers"):
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, "
            "autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000)"
        )
    op.execute(
        "CREATE FUNCTION yike_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$ "
        "SELECT now() + make_interval("
        "secs => coalesce(nullif(current_setting('yike.clock_offset_seconds', true), ''), '0')::float8) $$"
    )
