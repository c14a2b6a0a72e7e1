"""Banks' statements, their lines, and what differs from our books."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX bank_results_happened_at ON bank_results USING brin (happened_at)")
    op.execute("""
        CREATE TABLE statements (
          statement_id uuid NOT NULL CONSTRAINT statements_pkey PRIMARY KEY,
          bank varchar(40) NOT NULL,
          day date NOT NULL,
          form varchar(10) NOT NULL,
          sha256 varchar(64) NOT NULL,
          state varchar(10) NOT NULL,
          lines integer NOT NULL,
          in_fen bigint NOT NULL,
          out_fen bigint NOT NULL,
          opening_fen bigint NOT NULL,
          closing_fen bigint NOT NULL,
          ours_fen bigint NOT NULL,
          loaded_by varchar(128) NOT NULL,
          loaded_at timestamp with time zone NOT NULL,
          CONSTRAINT statements_form_check CHECK (form IN ('csv', 'camt053', 'messages')),
          CONSTRAINT statements_state_check CHECK (state IN ('loading', 'closed', 'replaced', 'dropped')),
          CONSTRAINT statements_totals_check CHECK (lines >= 0 AND in_fen >= 0 AND out_fen >= 0))""")
    op.execute("CREATE UNIQUE INDEX statements_closed ON statements (bank, day) WHERE state = 'closed'")
    op.execute("""
        CREATE TABLE statement_lines (
          statement_id uuid NOT NULL,
          line_no integer NOT NULL,
          number varchar(100) NOT NULL,
          reference varchar(100) NOT NULL,
          fen bigint NOT NULL,
          booked_at timestamp with time zone NOT NULL,
          status varchar(10) NOT NULL,
          order_id uuid,
          lesson_no integer,
          kind varchar(10),
          CONSTRAINT statement_lines_pkey PRIMARY KEY (statement_id, line_no),
          CONSTRAINT statement_lines_moves_check CHECK (fen <> 0),
          CONSTRAINT statement_lines_status_check CHECK (status IN ('booked', 'pending', 'returned')))""")
    op.execute("""
        CREATE TABLE breaks (
          break_id uuid NOT NULL CONSTRAINT breaks_pkey PRIMARY KEY,
          bank varchar(40) NOT NULL,
          day date NOT NULL,
          type varchar(20) NOT NULL,
          number varchar(100) NOT NULL,
          reference varchar(100) NOT NULL,
          ours_fen bigint NOT NULL,
          theirs_fen bigint NOT NULL,
          note varchar(200) NOT NULL,
          state varchar(10) NOT NULL,
          reason varchar(500) NOT NULL,
          proposed_by varchar(128) NOT NULL,
          resolved_by varchar(128) NOT NULL,
          first_seen timestamp with time zone NOT NULL,
          changed_at timestamp with time zone NOT NULL,
          CONSTRAINT breaks_type_check CHECK (type IN
            ('missing_here', 'missing_there', 'amount', 'status', 'duplicate', 'late', 'balance')),
          CONSTRAINT breaks_state_check CHECK (state IN ('open', 'proposed', 'resolved', 'closed')),
          CONSTRAINT breaks_second_person_check CHECK (state <> 'resolved' OR (resolved_by <> proposed_by AND reason <> '')))""")
    op.execute("CREATE INDEX breaks_day ON breaks (bank, day)")
    op.execute("CREATE INDEX breaks_open ON breaks (first_seen, break_id) WHERE state IN ('open', 'proposed')")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
