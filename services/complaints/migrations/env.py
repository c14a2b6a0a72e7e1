"""The migrations of complaints."""

from services.complaints.tables import metadata
from shared.migrations_env import run

run(metadata)
