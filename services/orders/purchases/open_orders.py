"""What is open at an institution for a child, summed under a lock: two purchases that race are decided one by one."""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from sqlalchemy import text

from services.orders.purchases.limits import UNCONSUMED, Charge
from shared.messaging.work import UnitOfWork

Place = tuple[bytes, UUID]
"""A person (keyed hash of the child's document, the same in every family) at an institution."""

# One row per place is made or locked, in the order of keys, until the commit: whoever sums the same place waits here,
# and its next statement sees what was committed. The update never happens; it is how a row that is there is locked.
_LOCK: Final = text("""
INSERT INTO limit_locks (child_hash, institution_id)
SELECT child_hash, institution_id
  FROM unnest(CAST(:children AS bytea[]), CAST(:institutions AS uuid[])) AS u (child_hash, institution_id) ORDER BY 1, 2
ON CONFLICT (child_hash, institution_id) DO UPDATE SET institution_id = excluded.institution_id WHERE false
""")

# Open is what passed the limits and has not ended. Before there are lessons, the plan of the offer counts.
# OFFSET 0 keeps the look-up of each place a look-up, also in a plan made while there were no purchases, and kept.
_OPEN: Final = text("""
SELECT u.child_hash, u.institution_id, coalesce(l.fen, p.price_fen), coalesce(l.lessons, p.lessons),
       coalesce(l.first, CAST(p.offer -> 'lessons' -> 0 ->> 'starts_at' AS timestamptz)),
       coalesce(l.last, CAST(p.offer -> 'lessons' -> -1 ->> 'ends_at' AS timestamptz))
  FROM unnest(CAST(:children AS bytea[]), CAST(:institutions AS uuid[])) AS u (child_hash, institution_id)
 CROSS JOIN LATERAL (
   SELECT order_id, state, price_fen, lessons, offer FROM purchases
    WHERE child_hash = u.child_hash AND institution_id = u.institution_id AND state <> 'ended' OFFSET 0) p
  LEFT JOIN LATERAL (
   SELECT CAST(sum(price_fen) AS bigint) AS fen, count(*) AS lessons, min(starts_at) AS first, max(ends_at) AS last
     FROM lessons
    WHERE p.state = 'enrolled' AND order_id = p.order_id AND state = ANY(CAST(:unconsumed AS text[]))
   HAVING count(*) > 0) l ON true
 WHERE p.state <> 'enrolled' OR l.lessons > 0
""")


async def open_charges(work: UnitOfWork, places: Collection[Place]) -> dict[Place, list[Charge]]:
    """What each of `places` has open, locked until the commit: two statements for any number of them.

    A batch that comes here twice may meet another one crosswise; the database ends one of them, and it is tried again.
    """
    found: dict[Place, list[Charge]] = {place: [] for place in places}
    if not found:
        return found
    parameters = {"children": [child for child, _ in found], "institutions": [one for _, one in found]}
    connection = await work.connection()
    await connection.execute(_LOCK, parameters)
    for child, institution, *charge in await connection.execute(_OPEN, parameters | {"unconsumed": list(UNCONSUMED)}):
        found[child, institution].append(Charge(*charge))
    return found
