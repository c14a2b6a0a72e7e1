"""Accounts know the district of their contract: sums by district and institution are read by an index."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Accounts opened before have no district: only orders was ever told it.
    op.execute("""ALTER TABLE accounts ADD COLUMN district varchar(100) COLLATE "C" NOT NULL DEFAULT ''""")
    op.execute("ALTER TABLE accounts ALTER COLUMN district DROP DEFAULT")
    op.execute("CREATE INDEX accounts_district ON accounts (district, institution_id)")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
