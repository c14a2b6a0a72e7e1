"""Contacts are of institutions too. A copy of before cannot keep one: not for a rolling restart."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("contacts", "account_id", new_column_name="recipient_id")
    op.execute("ALTER TABLE contacts RENAME CONSTRAINT contacts_account_id_not_null TO contacts_recipient_id_not_null")


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
