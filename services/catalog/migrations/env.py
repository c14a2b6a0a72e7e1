"""Alembic's environment of catalog."""

from services.catalog.tables import metadata
from shared.migrations_env import run

run(metadata)
