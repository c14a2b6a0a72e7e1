"""The limits over all open orders of one child at one institution, and refusals in words."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE purchases ADD COLUMN child_hash bytea")
    op.execute("ALTER TABLE purchases ADD COLUMN detail varchar(2000) NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE purchases ALTER COLUMN detail DROP DEFAULT")
    # Families hold the keyed hash of each child's document already, so purchases that stand get theirs here.
    op.execute("""
        UPDATE purchases p SET child_hash = c.document_hash FROM children c
        WHERE c.child_id = p.child_id AND p.institution_id IS NOT NULL""")
    op.execute("ALTER TABLE purchases ADD CONSTRAINT purchases_child_hash_check CHECK (octet_length(child_hash) = 32)")
    op.execute("""
        CREATE INDEX purchases_child_hash ON purchases (child_hash, institution_id) WHERE child_hash IS NOT NULL""")
    op.execute("""
        CREATE TABLE limit_locks (
          child_hash bytea NOT NULL,
          institution_id uuid NOT NULL,
          CONSTRAINT limit_locks_pkey PRIMARY KEY (child_hash, institution_id))""")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
