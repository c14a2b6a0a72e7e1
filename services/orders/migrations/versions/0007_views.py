"""Purchases know their district; families, institutions and authorities find theirs by an index."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The order of the index is that of code points, as every program sorts, whatever the server's language.
    op.execute("""ALTER TABLE purchases ADD COLUMN district varchar(100) COLLATE "C" NOT NULL DEFAULT ''""")
    op.execute("UPDATE purchases SET district = offer ->> 'district' WHERE offer ? 'district'")
    op.execute("ALTER TABLE purchases ALTER COLUMN district DROP DEFAULT")
    op.execute("CREATE INDEX purchases_family ON purchases (account_id, placed_at, order_id)")
    op.execute("DROP INDEX purchases_account_id")
    op.execute("""
        CREATE INDEX purchases_district ON purchases (district, institution_id) WHERE institution_id IS NOT NULL""")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
