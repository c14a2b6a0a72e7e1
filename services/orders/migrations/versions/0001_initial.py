"""The first tables of orders.

Written out whole: what a migration makes must not change when the code does.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

HOT_STORAGE = (
    "autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000, "
    "autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000"
)


def upgrade() -> None:
    create_road()
    create_families()
    create_purchases()


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")


def create_road() -> None:
    op.execute("""
        CREATE FUNCTION yike_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
          SELECT now() + make_interval(
            secs => coalesce(nullif(current_setting('yike.clock_offset_seconds', true), ''), '0')::float8)
        $$
    """)
    op.create_table(
        "inbox",
        sa.Column("consumer", sa.String(40), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reply", sa.Text()),
        sa.Column("parked", sa.Uuid()),
        sa.PrimaryKeyConstraint("consumer", "message_id", name=op.f("inbox_pkey")),
    )
    op.create_index("inbox_received_at", "inbox", ["received_at"], postgresql_using="brin")
    op.create_table(
        "outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.String(80), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("partition", sa.SmallInteger()),
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("correlationid", sa.Uuid(), nullable=False),
        sa.Column("replyto", sa.String(80), nullable=False),
        sa.Column("traceparent", sa.String(60), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("seq", name=op.f("outbox_pkey")),
    )
    op.create_index("outbox_unsent", "outbox", ["seq"], postgresql_where=sa.text("sent_at IS NULL"))
    op.create_index("outbox_key", "outbox", ["key"])
    op.create_index("outbox_created_at", "outbox", ["created_at"], postgresql_using="brin")
    op.create_table(
        "timers",
        sa.Column("type", sa.String(100), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("correlationid", sa.Uuid(), nullable=False),
        sa.Column("causationid", sa.Uuid()),
        sa.Column("traceparent", sa.String(60), nullable=False),
        sa.PrimaryKeyConstraint("type", "subject", name=op.f("timers_pkey")),
    )
    op.create_index("timers_due_at", "timers", ["due_at"])
    for table in ("inbox", "outbox", "timers"):
        op.execute(f"ALTER TABLE {table} SET ({HOT_STORAGE})")


def create_families() -> None:
    op.create_table(
        "accounts",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("phone_hash", sa.LargeBinary(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=False),
        sa.Column("signer_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name=op.f("accounts_pkey")),
        sa.UniqueConstraint("phone_hash", name=op.f("accounts_phone_hash_key")),
        sa.CheckConstraint("octet_length(phone_hash) = 32", name=op.f("accounts_phone_hash_check")),
        sa.CheckConstraint("signer_version >= 0", name=op.f("accounts_signer_version_check")),
    )
    op.create_table(
        "agreements",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(20), nullable=False),
        sa.Column("agreed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "version", name=op.f("agreements_pkey")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("agreements_account_id_fkey")),
    )
    op.create_table(
        "used_challenges",
        sa.Column("challenge_id", sa.Uuid(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("challenge_id", name=op.f("used_challenges_pkey")),
    )
    op.create_index("used_challenges_used_at", "used_challenges", ["used_at"])
    op.create_table(
        "children",
        sa.Column("child_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("document_hash", sa.LargeBinary(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("roll_check", sa.String(20), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("child_id", name=op.f("children_pkey")),
        sa.UniqueConstraint("account_id", "document_hash", name=op.f("children_account_id_document_hash_key")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("children_account_id_fkey")),
        sa.CheckConstraint("octet_length(document_hash) = 32", name=op.f("children_document_hash_check")),
        sa.CheckConstraint(
            "roll_check IN ('unchecked', 'confirmed', 'not_found')", name=op.f("children_roll_check_check")
        ),
    )
    op.create_table(
        "signers",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "version", name=op.f("signers_pkey")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.account_id"], name=op.f("signers_account_id_fkey")),
        sa.CheckConstraint("version > 0", name=op.f("signers_version_check")),
    )


def create_purchases() -> None:
    """Purchases and their lessons."""
    op.create_table(
        "purchases",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("child_id", sa.Uuid(), nullable=False),
        sa.Column("course_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("act_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("institution_id", sa.Uuid(), nullable=True),
        sa.Column("title", sa.String(length=100), nullable=False),
        sa.Column("category", sa.String(length=20), nullable=False),
        sa.Column("price_fen", sa.BigInteger(), nullable=False),
        sa.Column("lessons", sa.Integer(), nullable=False),
        sa.Column("offer", JSONB(), nullable=True),
        sa.Column("contract_sha256", sa.String(length=64), nullable=False),
        sa.Column("signer_version", sa.Integer(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("method", sa.String(length=20), nullable=False),
        sa.CheckConstraint(
            "state IN ('placed', 'to_sign', 'to_pay', 'paying', 'held', 'enrolled', 'cancelling', 'refunding', 'ended')",
            name=op.f("purchases_state_check"),
        ),
        sa.CheckConstraint("price_fen >= 0 AND lessons >= 0", name=op.f("purchases_not_negative_check")),
        sa.PrimaryKeyConstraint("order_id", name=op.f("purchases_pkey")),
    )
    op.create_index("purchases_account_id", "purchases", ["account_id"], unique=False)
    op.create_table(
        "contracts",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("drawn_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("order_id", name=op.f("contracts_pkey")),
    )
    op.create_table(
        "lessons",
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("lesson_no", sa.Integer(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("price_fen", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("confirmed_by", sa.String(length=10), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("objection", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "(state IN ('confirmed', 'paid_out')) = (confirmed_by <> '')", name=op.f("lessons_confirmed_check")
        ),
        sa.CheckConstraint("confirmed_by IN ('', 'guardian', 'silence')", name=op.f("lessons_confirmed_by_check")),
        sa.CheckConstraint(
            "state IN ('planned', 'applied', 'confirmed', 'objected', 'paid_out')", name=op.f("lessons_state_check")
        ),
        sa.PrimaryKeyConstraint("order_id", "lesson_no", name=op.f("lessons_pkey")),
    )
