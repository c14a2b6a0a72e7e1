"""Refunds of some lessons, lessons divided by an authority, frozen institutions."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A lesson that waited for a complaint when its order was refunded went back with it, and was never released.
    op.execute("DELETE FROM instructions WHERE kind = 'payout' AND state = 'dropped'")
    # What was given back until now is what was never released of an order that was refunded.
    op.execute("ALTER TABLE accounts ADD COLUMN given_back jsonb NOT NULL DEFAULT '[]'")
    op.execute("""
        UPDATE accounts a SET given_back = (
          SELECT coalesce(jsonb_agg(n ORDER BY n), '[]') FROM generate_series(1, a.lessons) n
          WHERE NOT EXISTS (SELECT FROM transfers t WHERE (t.order_id, t.lesson_no, t.kind) = (a.order_id, n, 'release')))
        WHERE state IN ('refunding', 'refunded')""")
    op.execute("ALTER TABLE accounts ALTER COLUMN given_back DROP DEFAULT")
    op.execute("""
        CREATE TABLE freezes (
          institution_id uuid NOT NULL CONSTRAINT freezes_pkey PRIMARY KEY,
          state varchar(10) NOT NULL,
          change_no integer NOT NULL,
          changed_at timestamp with time zone NOT NULL,
          CONSTRAINT freezes_state_check CHECK (state IN ('frozen', 'thawing', 'thawed')))""")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
