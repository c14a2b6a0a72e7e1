"""Alembic's entry for escrow."""

from services.escrow.tables import metadata
from shared.migrations_env import run

run(metadata)
