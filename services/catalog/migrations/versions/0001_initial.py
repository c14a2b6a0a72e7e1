"""The first tables of catalog: the road's (inbox, outbox, timers, the clock) and its own."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

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

# Every batch changes two numbers of a popular course, and every reservation ends: room for the new version of a row on
# the same page.
STORAGE = """
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000);
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000);
ALTER TABLE timers SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000);
ALTER TABLE courses SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000);
ALTER TABLE reservations SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000);
"""


def upgrade() -> None:
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
        "institutions",
        sa.Column("institution_id", sa.Uuid(), nullable=False),
        sa.Column("uscc", sa.String(length=18), nullable=False),
        sa.Column("uscc_override_reason", sa.Text(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("name_key", sa.String(length=100), nullable=False),
        sa.Column("district", sa.String(length=100), nullable=False),
        sa.Column("category", sa.String(length=20), nullable=False),
        sa.Column("disclosure", JSONB(), nullable=False),
        sa.Column("account", JSONB(), nullable=True),
        sa.Column("licensed_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("licensed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "category IN ('学科', '科技', '文化艺术', '体育')", name=op.f("institutions_category_check")
        ),
        sa.CheckConstraint(
            "state <> 'listed' OR (account IS NOT NULL AND licensed_from IS NOT NULL AND licensed_until IS NOT NULL)",
            name=op.f("institutions_listed_disclosed_check"),
        ),
        sa.CheckConstraint(
            "state IN ('applied', 'listed', 'suspended', 'closed')", name=op.f("institutions_state_check")
        ),
        sa.CheckConstraint("changes > 0", name=op.f("institutions_has_history_check")),
        sa.PrimaryKeyConstraint("institution_id", name=op.f("institutions_pkey")),
        sa.UniqueConstraint("uscc", name=op.f("institutions_uscc_key")),
    )
    op.create_index("institutions_by_name", "institutions", ["name_key"], unique=False)
    op.create_index(
        "institutions_name_in_use", "institutions", ["name_key"], unique=True, postgresql_where="state <> 'closed'"
    )
    op.create_table(
        "institution_changes",
        sa.Column("institution_id", sa.Uuid(), nullable=False),
        sa.Column("change_no", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("authority", sa.String(length=128), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disclosure", JSONB(), nullable=True),
        sa.ForeignKeyConstraint(
            ["institution_id"], ["institutions.institution_id"], name=op.f("institution_changes_institution_id_fkey")
        ),
        sa.PrimaryKeyConstraint("institution_id", "change_no", name=op.f("institution_changes_pkey")),
    )
    op.create_table(
        "courses",
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("seats", sa.Integer(), nullable=False),
        sa.Column("reserved", sa.Integer(), nullable=False),
        sa.Column("taken", sa.Integer(), nullable=False),
        sa.Column("institution_id", sa.Uuid(), nullable=False),
        sa.Column("title", sa.String(length=100), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("category", sa.String(length=20), nullable=False),
        sa.Column("district", sa.String(length=100), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("price_fen", sa.BigInteger(), nullable=False),
        sa.Column("lessons", JSONB(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("refund_terms", JSONB(), nullable=False),
        sa.Column("sells_from", sa.DateTime(timezone=True), nullable=True),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("category IN ('学科', '科技', '文化艺术', '体育')", name=op.f("courses_category_check")),
        sa.CheckConstraint("price_fen > 0", name=op.f("courses_priced_check")),
        sa.CheckConstraint(
            "reserved >= 0 AND taken >= 0 AND reserved + taken <= seats", name=op.f("courses_not_oversold_check")
        ),
        sa.ForeignKeyConstraint(
            ["institution_id"], ["institutions.institution_id"], name=op.f("courses_institution_id_fkey")
        ),
        sa.PrimaryKeyConstraint("course_id", name=op.f("courses_pkey")),
    )
    op.create_index("courses_of_category", "courses", ["category", "course_id"], unique=False)
    op.create_index("courses_of_district", "courses", ["district", "course_id"], unique=False)
    op.create_index("courses_of_district_and_category", "courses", ["district", "category", "course_id"], unique=False)
    op.create_index("courses_of_institution", "courses", ["institution_id", "course_id"], unique=False)
    op.create_table(
        "reservations",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("course_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("account", JSONB(), nullable=True),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state = 'given_back' OR course_id IS NOT NULL", name=op.f("reservations_of_course_check")),
        sa.CheckConstraint(
            "state IN ('reserved', 'taken', 'given_back', 'expired')", name=op.f("reservations_state_check")
        ),
        sa.CheckConstraint(
            "course_id IS NULL OR (expires_at IS NOT NULL AND account IS NOT NULL)",
            name=op.f("reservations_offered_check"),
        ),
        sa.PrimaryKeyConstraint("order_id", name=op.f("reservations_pkey")),
    )

    for part in (CLOCK, *STORAGE.strip().splitlines()):
        op.execute(part)
