"""The first tables of escrow: the road's (inbox, outbox, timers, the clock) and its own."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Written out: a migration must not change when code changes.
CLOCK = """
CREATE FUNCTION yike_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT now() + make_interval(
    secs => coalesce(nullif(current_setting('yike.clock_offset_seconds', true), ''), '0')::float8)
$$;
"""

STORAGE = """
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000);
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000);
ALTER TABLE timers SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000);
ALTER TABLE accounts SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000);
ALTER TABLE instructions SET (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000);
"""


def upgrade() -> None:

    op.create_table(
        "accounts",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("institution_id", sa.Uuid(), nullable=False),
        sa.Column("bank", sa.String(length=40), nullable=False),
        sa.Column("supervised_account", sa.String(length=100), nullable=False),
        sa.Column("payout_account", sa.String(length=100), nullable=False),
        sa.Column("price_fen", sa.BigInteger(), nullable=False),
        sa.Column("lessons", sa.Integer(), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("pay_by", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("paid_reference", sa.String(length=100), nullable=False),
        sa.Column("suspensions", sa.Integer(), nullable=False),
        sa.Column("paid_fen", sa.BigInteger(), nullable=False),
        sa.Column("held_fen", sa.BigInteger(), nullable=False),
        sa.Column("releasing_fen", sa.BigInteger(), nullable=False),
        sa.Column("released_fen", sa.BigInteger(), nullable=False),
        sa.Column("refunding_fen", sa.BigInteger(), nullable=False),
        sa.Column("refunded_fen", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "state IN ('collecting', 'held', 'failed', 'refunding', 'refunded')", name=op.f("accounts_state_check")
        ),
        sa.CheckConstraint(
            "held_fen >= 0 AND releasing_fen >= 0 AND released_fen >= 0 AND refunding_fen >= 0 AND refunded_fen >= 0",
            name=op.f("accounts_no_overdraft_check"),
        ),
        sa.CheckConstraint(
            "paid_fen = held_fen + releasing_fen + released_fen + refunding_fen + refunded_fen",
            name=op.f("accounts_balanced_check"),
        ),
        sa.CheckConstraint("paid_fen IN (0, price_fen)", name=op.f("accounts_paid_whole_check")),
        sa.CheckConstraint("price_fen > 0 AND lessons > 0", name=op.f("accounts_priced_check")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("accounts_pkey")),
    )
    op.create_table(
        "bank_results",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("number", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("bank", sa.String(length=40), nullable=False),
        sa.Column("reference", sa.String(length=100), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("happened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("bank_results_pkey")),
    )
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.String(length=40), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("parked", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("consumer", "message_id", name=op.f("inbox_pkey")),
    )
    op.create_index("inbox_received_at", "inbox", ["received_at"], unique=False, postgresql_using="brin")
    op.create_table(
        "instructions",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("lesson_no", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.String(length=100), nullable=False),
        sa.Column("asks", sa.Integer(), nullable=False),
        sa.Column("returned", postgresql.JSONB(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('collect', 'payout', 'refund')", name=op.f("instructions_kind_check")),
        sa.CheckConstraint(
            "state IN ('waiting', 'sent', 'refused', 'paid', 'dropped')", name=op.f("instructions_state_check")
        ),
        sa.CheckConstraint("amount_fen > 0", name=op.f("instructions_positive_check")),
        sa.PrimaryKeyConstraint("order_id", "lesson_no", "kind", name=op.f("instructions_pkey")),
    )
    op.create_index(
        "instructions_waiting", "instructions", ["order_id"], unique=False, postgresql_where="state = 'waiting'"
    )
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.String(length=80), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("partition", sa.SmallInteger(), nullable=True),
        sa.Column("type", sa.String(length=100), nullable=False),
        sa.Column("correlationid", sa.Uuid(), nullable=False),
        sa.Column("replyto", sa.String(length=80), nullable=False),
        sa.Column("traceparent", sa.String(length=60), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("outbox_pkey")),
    )
    op.create_index("outbox_created_at", "outbox", ["created_at"], unique=False, postgresql_using="brin")
    op.create_index("outbox_key", "outbox", ["key"], unique=False)
    op.create_index("outbox_unsent", "outbox", ["seq"], unique=False, postgresql_where="sent_at IS NULL")
    op.create_table(
        "suspense",
        sa.Column("receipt_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=True),
        sa.Column("number", sa.String(length=100), nullable=False),
        sa.Column("bank", sa.String(length=40), nullable=False),
        sa.Column("reference", sa.String(length=100), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("booked_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('open', 'matched', 'returned')", name=op.f("suspense_state_check")),
        sa.CheckConstraint("amount_fen > 0", name=op.f("suspense_positive_check")),
        sa.PrimaryKeyConstraint("receipt_id", name=op.f("suspense_pkey")),
    )
    op.create_index("suspense_open", "suspense", ["booked_at"], unique=False, postgresql_where="state = 'open'")
    op.create_table(
        "suspensions",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("complaint_id", sa.Uuid(), nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("order_id", "complaint_id", name=op.f("suspensions_pkey")),
    )
    op.create_table(
        "timers",
        sa.Column("type", sa.String(length=100), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("correlationid", sa.Uuid(), nullable=False),
        sa.Column("causationid", sa.Uuid(), nullable=True),
        sa.Column("traceparent", sa.String(length=60), nullable=False),
        sa.PrimaryKeyConstraint("type", "subject", name=op.f("timers_pkey")),
    )
    op.create_index("timers_due_at", "timers", ["due_at"], unique=False)
    op.create_table(
        "transfers",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("lesson_no", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("turn", sa.Integer(), nullable=False),
        sa.Column("phase", sa.Integer(), nullable=False),
        sa.Column("debit", sa.String(length=10), nullable=False),
        sa.Column("credit", sa.String(length=10), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_fen > 0", name=op.f("transfers_positive_check")),
        sa.CheckConstraint("debit <> credit", name=op.f("transfers_two_sides_check")),
        sa.CheckConstraint("phase IN (1, 2)", name=op.f("transfers_phase_check")),
        sa.PrimaryKeyConstraint("order_id", "lesson_no", "kind", "turn", "phase", name=op.f("transfers_pkey")),
    )
    op.execute(CLOCK)
    for statement in filter(None, map(str.strip, STORAGE.split(";"))):
        op.execute(statement)
