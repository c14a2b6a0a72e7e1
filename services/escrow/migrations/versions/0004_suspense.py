"""Money in suspense is matched, or sent back; it has a deadline. What needs a person is found by index."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE suspense
          DROP CONSTRAINT suspense_state_check,
          ADD CONSTRAINT suspense_state_check CHECK (state IN ('open', 'returning', 'matched', 'returned')),
          ADD COLUMN account varchar(100) NOT NULL DEFAULT '',
          ADD COLUMN due_at timestamp with time zone,
          ADD COLUMN matched_order_id uuid,
          ADD COLUMN decided_by varchar(200) NOT NULL DEFAULT '',
          ADD COLUMN decision text NOT NULL DEFAULT '',
          ADD COLUMN decided_at timestamp with time zone,
          ADD CONSTRAINT suspense_matched_check CHECK ((state = 'matched') = (matched_order_id IS NOT NULL))""")
    # What was booked before is to be looked at now.
    op.execute("UPDATE suspense SET due_at = yike_now()")
    op.execute("""
        INSERT INTO timers (type, subject, id, due_at, data, key, correlationid, causationid, traceparent)
        SELECT 'escrow.suspense.deadline.v1', receipt_id, gen_random_uuid(), due_at,
               json_build_object('receipt_id', receipt_id), receipt_id, gen_random_uuid(), NULL, ''
        FROM suspense WHERE state = 'open'""")
    op.execute("""
        ALTER TABLE suspense
          ALTER COLUMN account DROP DEFAULT,
          ALTER COLUMN due_at SET NOT NULL,
          ALTER COLUMN decided_by DROP DEFAULT,
          ALTER COLUMN decision DROP DEFAULT""")
    op.execute("DROP INDEX suspense_open")
    op.execute("CREATE INDEX suspense_open ON suspense (booked_at, receipt_id) WHERE state IN ('open', 'returning')")
    op.execute("CREATE INDEX suspense_booked_at ON suspense (booked_at, receipt_id)")
    op.execute("""
        ALTER TABLE instructions
          DROP CONSTRAINT instructions_kind_check,
          ADD CONSTRAINT instructions_kind_check CHECK (kind IN ('collect', 'payout', 'refund', 'return'))""")
    op.execute("""
        CREATE INDEX instructions_trouble ON instructions (order_id, lesson_no, kind)
        WHERE kind <> 'collect' AND (state = 'refused' OR (state = 'sent' AND attempt > 0))""")
    op.execute("""
        CREATE INDEX bank_results_trouble ON bank_results (left(number, 29))
        WHERE verdict = 'applied' AND outcome IN ('refused', 'returned')""")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
