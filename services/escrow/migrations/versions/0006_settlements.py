"""Gathered payouts: how institutions are paid, what was gathered, settlements; other payout accounts."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE instructions ADD COLUMN counter_account varchar(100)")
    op.execute("ALTER TABLE instructions DROP CONSTRAINT instructions_state_check")
    op.execute("""
        ALTER TABLE instructions ADD CONSTRAINT instructions_state_check
          CHECK (state IN ('waiting', 'gathered', 'sent', 'refused', 'paid', 'dropped'))""")
    op.execute("""
        CREATE TABLE gathered (
          order_id uuid NOT NULL,
          lesson_no integer NOT NULL,
          institution_id uuid NOT NULL,
          bank varchar(40) NOT NULL,
          supervised_account varchar(100) NOT NULL,
          payout_account varchar(100) NOT NULL,
          amount_fen bigint NOT NULL,
          gathered_at timestamp with time zone NOT NULL,
          settlement_id uuid,
          CONSTRAINT gathered_pkey PRIMARY KEY (order_id, lesson_no),
          CONSTRAINT gathered_positive_check CHECK (amount_fen > 0))""")
    op.execute("""
        CREATE INDEX gathered_open
          ON gathered (institution_id, bank, supervised_account, payout_account, order_id, lesson_no)
          WHERE settlement_id IS NULL""")
    op.execute("CREATE INDEX gathered_settlement ON gathered (settlement_id, order_id, lesson_no)")
    op.execute("""
        CREATE TABLE settlements (
          settlement_id uuid NOT NULL CONSTRAINT settlements_pkey PRIMARY KEY,
          institution_id uuid NOT NULL,
          bank varchar(40) NOT NULL,
          supervised_account varchar(100) NOT NULL,
          payout_account varchar(100) NOT NULL,
          amount_fen bigint NOT NULL,
          lessons integer NOT NULL,
          closed_at timestamp with time zone NOT NULL,
          changed_at timestamp with time zone NOT NULL,
          number varchar(30) NOT NULL CONSTRAINT settlements_number_key UNIQUE,
          attempt integer NOT NULL,
          turn integer NOT NULL,
          state varchar(10) NOT NULL,
          reference varchar(100) NOT NULL,
          reason text NOT NULL,
          asks integer NOT NULL,
          returned jsonb NOT NULL,
          booked_step integer NOT NULL,
          CONSTRAINT settlements_state_check CHECK (state IN ('sent', 'refused', 'paid')),
          CONSTRAINT settlements_positive_check CHECK (amount_fen > 0 AND lessons > 0))""")
    op.execute("CREATE INDEX settlements_institution ON settlements (institution_id, closed_at)")
    op.execute("""
        CREATE TABLE settlement_modes (
          institution_id uuid NOT NULL CONSTRAINT settlement_modes_pkey PRIMARY KEY,
          mode varchar(10) NOT NULL,
          changed_by varchar(100) NOT NULL,
          changed_at timestamp with time zone NOT NULL,
          CONSTRAINT settlement_modes_mode_check CHECK (mode IN ('at_once', 'daily', 'weekly')))""")
    op.execute("""
        CREATE TABLE payout_accounts (
          institution_id uuid NOT NULL,
          bank varchar(40) NOT NULL,
          payout_account varchar(100) NOT NULL,
          changed_by varchar(100) NOT NULL,
          changed_at timestamp with time zone NOT NULL,
          CONSTRAINT payout_accounts_pkey PRIMARY KEY (institution_id, bank))""")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
