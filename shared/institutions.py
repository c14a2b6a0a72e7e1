"""Sums by district and institution: plain sums over rows of an index, some institutions at a time.

No row counts anything for everybody: orders of strangers never contend (DESIGN 7), and on many databases the sums of
each are added up.
"""

from typing import Any, Final, Protocol
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.contracts.types import InstitutionKey

AT_ONCE: Final = 10
"""Institutions summed in one statement."""
MOST_ROWS: Final = 100_000
"""A page ends with the statement that has read so many rows: whatever is asked, its cost has an end."""


class Asks(Protocol):
    """A request for such sums."""

    @property
    def district(self) -> str:
        """Only of this district; empty: of all."""

    @property
    def institution_id(self) -> UUID | None:
        """Only of this institution."""

    @property
    def limit(self) -> int:
        """Most of them."""

    @property
    def after(self) -> InstitutionKey | None:
        """Only those behind this place."""


async def sums_by_institution(
    connection: AsyncConnection, table: str, sums: str, ask: Asks, **parameters: Any
) -> tuple[list[Row[Any]], InstitutionKey | None]:
    """The rows of a page, and the place behind which the next begins if there may be one.

    `table` has an index on (district, institution_id). `sums` is a statement over `pairs` (district, institution_id)
    with one row for each pair, in their order; its columns begin with these two and `rows`, how many rows it has read.
    """
    statement = text(f"WITH RECURSIVE {_pairs(table, ask)} {sums}")
    found: list[Row[Any]] = []
    after = ask.after or InstitutionKey(institution_id=UUID(int=0))
    read = 0
    while len(found) < ask.limit and read < MOST_ROWS:
        most = min(AT_ONCE, ask.limit - len(found))
        place = {"district": after.district, "institution": after.institution_id, "most": most}
        given = {"of_district": ask.district, "of_institution": ask.institution_id}
        rows = list(await connection.execute(statement, {**place, **_only(given), **parameters}))
        found += rows
        read += sum(row.rows for row in rows)
        if len(rows) < most:
            return found, None
        after = InstitutionKey(district=rows[-1].district, institution_id=rows[-1].institution_id)
    return found, after


def _only(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value}


def _pairs(table: str, ask: Asks) -> str:
    """The next pairs as a part of WITH RECURSIVE: each is one step down the index, however many rows the one before
    has."""
    columns = "district, institution_id"
    district = "district = :of_district AND " if ask.district else ""
    if ask.institution_id is not None:
        return f"""
pairs AS (SELECT DISTINCT {columns} FROM {table}
  WHERE {district}institution_id = :of_institution AND ({columns}) > (:district, :institution)
  ORDER BY {columns} LIMIT :most)"""

    def step(after: str) -> str:
        behind = f"{district}institution_id IS NOT NULL AND ({columns}) > ({after})"
        return f"(SELECT {columns} FROM {table} WHERE {behind} ORDER BY {columns} LIMIT 1)"

    return f"""
steps AS ({step(":district, :institution")} UNION ALL
  SELECT n.* FROM steps s CROSS JOIN LATERAL {step("s.district, s.institution_id")} n),
pairs AS (SELECT * FROM steps LIMIT :most)"""
