"""The stand-in bank's migrations."""

from ops.bank.tables import metadata
from shared.migrations_env import run

run(metadata)
