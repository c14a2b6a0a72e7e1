"""Contacts, challenges, counted sends, SMS; the road's tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _road()
    op.create_table(
        "contacts",
        sa.Column("account_id", sa.Uuid, nullable=False),
        sa.Column("phone", sa.Text),
        sa.Column("phone_hash", sa.LargeBinary),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="contacts_pkey"),
        sa.CheckConstraint("(phone IS NULL) = (phone_hash IS NULL)", name=op.f("contacts_phone_with_hash_check")),
    )
    op.create_table(
        "challenges",
        sa.Column("challenge_id", sa.Uuid, nullable=False),
        sa.Column("purpose", sa.String(40), nullable=False),
        sa.Column("phone", sa.Text),
        sa.Column("phone_hash", sa.LargeBinary, nullable=False),
        sa.Column("code_hash", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resend_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("challenge_id", name="challenges_pkey"),
        sa.CheckConstraint("state IN ('open', 'used', 'killed')", name=op.f("challenges_state_check")),
        sa.CheckConstraint("(phone IS NOT NULL) = (state = 'open')", name=op.f("challenges_phone_while_open_check")),
        sa.CheckConstraint("tries BETWEEN 0 AND 100", name=op.f("challenges_tries_check")),
    )
    op.create_index("challenges_sent_at", "challenges", ["sent_at"])
    op.create_table(
        "code_sends",
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("challenge_id", sa.Uuid, nullable=False),
        sa.PrimaryKeyConstraint("key_hash", "sent_at", "challenge_id", name="code_sends_pkey"),
    )
    op.create_index("code_sends_sent_at", "code_sends", ["sent_at"])
    _sms()


def _sms() -> None:
    op.create_table(
        "sms",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("lane", sa.String(10), nullable=False),
        sa.Column("recipient", sa.String(64), nullable=False),
        sa.Column("purpose", sa.String(40), nullable=False),
        sa.Column("subject", sa.String(100), nullable=False),
        sa.Column("phone", sa.Text),
        sa.Column("code", sa.Text),
        sa.Column("params", JSONB, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.String(100), nullable=False),
        sa.Column("provider", sa.String(20), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claim", sa.Uuid),
        sa.Column("claimed_at", sa.DateTime(timezone=True)),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("correlationid", sa.Uuid, nullable=False),
        sa.Column("causationid", sa.Uuid, nullable=False),
        sa.Column("traceparent", sa.String(60), nullable=False),
        sa.PrimaryKeyConstraint("id", name="sms_pkey"),
        sa.UniqueConstraint("recipient", "purpose", "subject", name="sms_recipient_purpose_subject_key"),
        sa.CheckConstraint("lane IN ('code', 'notice')", name=op.f("sms_lane_check")),
        sa.CheckConstraint(
            "state IN ('no_contact', 'queued', 'sending', 'sent', 'failed', 'unknown', 'dropped')",
            name=op.f("sms_state_check"),
        ),
        sa.CheckConstraint(
            "(phone IS NOT NULL) = (state IN ('queued', 'sending'))", name=op.f("sms_phone_while_waiting_check")
        ),
        sa.CheckConstraint(
            "(code IS NOT NULL) = (lane = 'code' AND state IN ('queued', 'sending'))",
            name=op.f("sms_code_while_waiting_check"),
        ),
        sa.CheckConstraint(
            "(claim IS NOT NULL) = (state = 'sending') AND (claimed_at IS NOT NULL) = (state = 'sending')",
            name=op.f("sms_claim_while_sending_check"),
        ),
    )
    op.create_index("sms_queued", "sms", ["lane", "not_before"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("sms_sending", "sms", ["claimed_at"], postgresql_where=sa.text("state = 'sending'"))
    op.create_index("sms_no_contact", "sms", ["expires_at"], postgresql_where=sa.text("state = 'no_contact'"))
    # Each row is changed two or three times soon after it was written, then never again.
    op.execute(
        "ALTER TABLE sms SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.0, "
        "autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0.0, "
        "autovacuum_vacuum_insert_threshold = 200000)"
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
