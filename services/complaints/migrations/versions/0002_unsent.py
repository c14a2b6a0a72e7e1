"""What the relay has still to publish is a table of its own. Copies of the service of before must not run meanwhile."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("unsent", sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False))
    op.execute("INSERT INTO unsent SELECT seq FROM outbox WHERE sent_at IS NULL")
    op.drop_index("outbox_unsent", "outbox")
    op.drop_column("outbox", "sent_at")
    op.execute(
        "ALTER TABLE unsent SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,"
        " autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000)"
    )


def downgrade() -> None:
    raise NotImplementedError("migrations: forward only")
