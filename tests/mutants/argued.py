"""Why some mutants are let live: a reason, and for each place its file and what its line in the report looks like."""

from typing import Final

ARGUED: Final[dict[str, tuple[tuple[str, str], ...]]] = {}
