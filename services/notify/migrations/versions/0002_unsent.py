"""What the relay has still to publish is a table of its own."""

from shared.messaging.migrations import unsent_apart

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    unsent_apart()


def downgrade() -> None:
    raise NotImplementedError("migrations go forward only")
