"""Steps of the road's own tables, for the migrations of every service. Each is written once and never changed."""

import sqlalchemy as sa
from alembic import op


def unsent_apart() -> None:
    """What the relay has still to publish becomes a table of its own (docs/adr/0009).

    No copy of the service of before may run meanwhile or after: nobody would publish what it says.
    """
    op.create_table("unsent", sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False))
    op.execute("INSERT INTO unsent SELECT seq FROM outbox WHERE sent_at IS NULL")
    op.drop_index("outbox_unsent", "outbox")
    op.drop_column("outbox", "sent_at")
    op.execute(
        "ALTER TABLE unsent SET (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 20000,"
        " autovacuum_vacuum_insert_scale_factor = 0.0, autovacuum_vacuum_insert_threshold = 200000)"
    )
