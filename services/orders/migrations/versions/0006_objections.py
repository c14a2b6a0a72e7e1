"""Objections are answered and decided; lessons may be confirmed by an authority, or divided."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE objections (
          order_id uuid NOT NULL,
          lesson_no integer NOT NULL,
          reason text NOT NULL,
          evidence varchar(200) NOT NULL,
          objected_at timestamp with time zone NOT NULL,
          answer_by timestamp with time zone NOT NULL,
          state varchar(10) NOT NULL,
          answer text NOT NULL,
          answered_at timestamp with time zone,
          decide_by timestamp with time zone,
          overdue integer NOT NULL,
          decision varchar(10) NOT NULL,
          release_fen bigint NOT NULL,
          decision_reason text NOT NULL,
          decided_by varchar(12) NOT NULL,
          decider varchar(128) NOT NULL,
          decided_at timestamp with time zone,
          CONSTRAINT objections_pkey PRIMARY KEY (order_id, lesson_no),
          CONSTRAINT objections_state_check
            CHECK (state IN ('raised', 'answered', 'unanswered', 'decided', 'withdrawn')),
          CONSTRAINT objections_decision_check CHECK (decision IN ('', 'release', 'return', 'split')),
          CONSTRAINT objections_decided_check
            CHECK ((state = 'decided') = (decision <> '') AND (state = 'decided') = (decided_by <> '')
                   AND (state = 'decided') = (decided_at IS NOT NULL)),
          CONSTRAINT objections_released_check
            CHECK (release_fen >= 0 AND (release_fen = 0 OR decision IN ('release', 'split'))),
          CONSTRAINT objections_deadline_check
            CHECK (state NOT IN ('answered', 'unanswered') OR decide_by IS NOT NULL))""")
    op.execute("""
        CREATE INDEX objections_open ON objections (order_id) WHERE state IN ('raised', 'answered', 'unanswered')""")
    op.execute("ALTER TABLE lessons ADD COLUMN returned_fen bigint NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE lessons ALTER COLUMN returned_fen DROP DEFAULT")
    for name, rule in {
        "returned": "returned_fen BETWEEN 0 AND price_fen",
        "divided": "(returned_fen > 0) = (state = 'divided')",
    }.items():
        op.execute(f"ALTER TABLE lessons ADD CONSTRAINT lessons_{name}_check CHECK ({rule})")
    states = "'planned', 'applied', 'confirmed', 'objected', 'paid_out', 'divided', 'refunding', 'refunded'"
    allow("state", f"state IN ({states})")
    allow("confirmed_by", "confirmed_by IN ('', 'guardian', 'silence', 'authority')")
    # What was objected to until now waited for nobody: each institution gets a week from today to answer.
    op.execute("""
        INSERT INTO objections
        SELECT order_id, lesson_no, objection, '', coalesce(answered_at, yike_now()), yike_now() + interval '7 days',
               'raised', '', NULL, NULL, 0, '', 0, '', '', '', NULL
        FROM lessons WHERE state = 'objected'""")
    op.execute("""
        INSERT INTO timers (type, subject, id, due_at, data, key, correlationid, traceparent)
        SELECT 'orders.objection.deadline.v1', order_id || ':' || lesson_no, gen_random_uuid(), answer_by,
               json_build_object('order_id', order_id, 'lesson_no', lesson_no)::text, order_id::text,
               gen_random_uuid(), ''
        FROM objections""")


def allow(name: str, rule: str) -> None:
    """A wider rule for a column of lessons."""
    op.execute(f"ALTER TABLE lessons DROP CONSTRAINT lessons_{name}_check")
    op.execute(f"ALTER TABLE lessons ADD CONSTRAINT lessons_{name}_check CHECK ({rule})")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
