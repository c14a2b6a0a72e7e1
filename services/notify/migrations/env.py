"""Alembic for notify."""

from services.notify.tables import metadata
from shared.migrations_env import run

run(metadata)
