"""When a guardian was reminded last, when a fee was paid out, and the invoices owed from then on."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE lessons ADD COLUMN reminded_at timestamp with time zone")
    op.execute("ALTER TABLE lessons ADD COLUMN paid_at timestamp with time zone")
    # When a fee was paid out before is not known; it was answered for not long before that.
    op.execute("UPDATE lessons SET paid_at = answered_at WHERE state = 'paid_out'")
    op.execute(
        "ALTER TABLE lessons ADD CONSTRAINT lessons_paid_at_check CHECK (state <> 'paid_out' OR paid_at IS NOT NULL)"
    )
    op.execute("""
        CREATE TABLE invoices (
          invoice_id uuid NOT NULL CONSTRAINT invoices_pkey PRIMARY KEY,
          order_id uuid NOT NULL,
          institution_id uuid NOT NULL,
          number varchar(20) NOT NULL,
          lessons jsonb NOT NULL,
          amount_fen bigint NOT NULL,
          state varchar(12) NOT NULL,
          issued_at timestamp with time zone NOT NULL,
          red_number varchar(20) NOT NULL,
          red_reason text NOT NULL,
          red_at timestamp with time zone,
          CONSTRAINT invoices_state_check CHECK (state IN ('issued', 'red_lettered')),
          CONSTRAINT invoices_amount_fen_check CHECK (amount_fen > 0),
          CONSTRAINT invoices_red_check CHECK (
            (state = 'red_lettered') = (red_number <> '' AND red_reason <> '' AND red_at IS NOT NULL)))""")
    op.execute("CREATE INDEX invoices_order_id ON invoices (order_id)")
    op.execute("""
        CREATE TABLE invoice_lessons (
          order_id uuid NOT NULL,
          lesson_no integer NOT NULL,
          invoice_id uuid NOT NULL,
          CONSTRAINT invoice_lessons_pkey PRIMARY KEY (order_id, lesson_no),
          CONSTRAINT invoice_lessons_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES invoices (invoice_id))""")
    op.execute("""
        CREATE TABLE invoice_numbers (
          institution_id uuid NOT NULL,
          number varchar(20) NOT NULL,
          invoice_id uuid NOT NULL,
          CONSTRAINT invoice_numbers_pkey PRIMARY KEY (institution_id, number),
          CONSTRAINT invoice_numbers_invoice_id_fkey FOREIGN KEY (invoice_id) REFERENCES invoices (invoice_id))""")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
