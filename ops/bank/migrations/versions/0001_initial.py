"""Accounts, entries and behaviours of the stand-in bank; the road's tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _road()
    op.create_table(
        "accounts",
        sa.Column("bank", sa.String(40), nullable=False),
        sa.Column("account", sa.String(100), nullable=False),
        sa.Column("balance_fen", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("bank", "account", name=op.f("accounts_pkey")),
        sa.CheckConstraint("balance_fen >= 0", name=op.f("accounts_no_overdraft_check")),
    )
    op.create_table(
        "entries",
        sa.Column("bank", sa.String(40), nullable=False),
        sa.Column("number", sa.String(100), nullable=False),
        sa.Column("step", sa.SmallInteger, nullable=False),
        sa.Column("order_id", sa.Uuid),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("amount_fen", sa.BigInteger, nullable=False),
        sa.Column("from_account", sa.String(100), nullable=False),
        sa.Column("to_account", sa.String(100), nullable=False),
        sa.Column("refund_of", sa.String(100)),
        sa.Column("reference", sa.String(100), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("bank", "number", "step", name=op.f("entries_pkey")),
        sa.UniqueConstraint("reference", name=op.f("entries_reference_key")),
        sa.CheckConstraint("kind IN ('collect', 'payout', 'refund')", name=op.f("entries_kind_check")),
        sa.CheckConstraint(
            "outcome IN ('accepted', 'paid', 'refused', 'returned')", name=op.f("entries_outcome_check")
        ),
        sa.CheckConstraint("amount_fen > 0", name=op.f("entries_positive_check")),
        sa.CheckConstraint("from_account <> to_account OR outcome = 'refused'", name=op.f("entries_two_sides_check")),
    )
    op.create_index(
        "entries_refund_of", "entries", ["bank", "refund_of"], postgresql_where=sa.text("refund_of IS NOT NULL")
    )
    op.create_index("entries_happened_at", "entries", ["happened_at"], postgresql_using="brin")
    op.create_table(
        "behaviours",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.String(20), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("order_id", sa.Uuid),
        sa.Column("number_prefix", sa.String(30), nullable=False),
        sa.Column("percentage", sa.SmallInteger, nullable=False),
        sa.Column("times_left", sa.Integer),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("delta_fen", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("behaviours_pkey")),
        sa.CheckConstraint("percentage BETWEEN 1 AND 100", name=op.f("behaviours_percentage_check")),
        sa.CheckConstraint("times_left >= 0", name=op.f("behaviours_times_left_check")),
        sa.CheckConstraint("seconds >= 0", name=op.f("behaviours_seconds_check")),
        sa.CheckConstraint(
            "name IN ('slow', 'refuse', 'unknown', 'silent', 'repeat', 'pay_twice', 'wrong_amount', 'accept_first', "
            "'return_after')",
            name=op.f("behaviours_name_check"),
        ),
    )
    op.create_index(
        "behaviours_active",
        "behaviours",
        ["id"],
        postgresql_where=sa.text("times_left IS NULL OR times_left > 0"),
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
