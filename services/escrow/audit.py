"""`yike ledger check`: proves the books from nothing but the transfers, in SQL that no service uses."""

from dataclasses import dataclass, field
from typing import Final

import asyncpg

_COUNTS: Final = """
SELECT (SELECT count(*) FROM accounts) AS orders,
       (SELECT count(*) FROM transfers) AS transfers,
       (SELECT coalesce(sum(amount_fen), 0)::bigint FROM transfers) AS moved_fen,
       (SELECT coalesce(sum(paid_fen), 0)::bigint FROM accounts) AS paid_fen,
       (SELECT coalesce(sum(held_fen + releasing_fen + refunding_fen), 0)::bigint FROM accounts) AS custody_fen,
       (SELECT coalesce(sum(amount_fen), 0)::bigint FROM suspense WHERE state = 'open') AS suspense_fen
"""

_SIDES: Final = """
WITH sides AS (
  SELECT order_id, debit AS balance, -amount_fen AS fen FROM transfers
  UNION ALL SELECT order_id, credit, amount_fen FROM transfers),
sums AS (
  SELECT order_id,
    -coalesce(sum(fen) FILTER (WHERE balance = 'outside'), 0)::bigint AS paid,
    coalesce(sum(fen) FILTER (WHERE balance = 'held'), 0)::bigint AS held,
    coalesce(sum(fen) FILTER (WHERE balance = 'releasing'), 0)::bigint AS releasing,
    coalesce(sum(fen) FILTER (WHERE balance = 'released'), 0)::bigint AS released,
    coalesce(sum(fen) FILTER (WHERE balance = 'refunding'), 0)::bigint AS refunding,
    coalesce(sum(fen) FILTER (WHERE balance = 'refunded'), 0)::bigint AS refunded
  FROM sides GROUP BY order_id)
"""

CHECKS: Final[dict[str, str]] = {
    "stored balances = sum of transfers": f"""{_SIDES}
      SELECT coalesce(a.order_id, s.order_id)::text AS what FROM accounts a FULL JOIN sums s USING (order_id)
      WHERE (coalesce(a.paid_fen, -1), coalesce(a.held_fen, -1), coalesce(a.releasing_fen, -1),
             coalesce(a.released_fen, -1), coalesce(a.refunding_fen, -1), coalesce(a.refunded_fen, -1))
        IS DISTINCT FROM (coalesce(s.paid, 0), coalesce(s.held, 0), coalesce(s.releasing, 0),
             coalesce(s.released, 0), coalesce(s.refunding, 0), coalesce(s.refunded, 0))""",
    "per order paid = held + releasing + released + refunding + refunded": f"""{_SIDES}
      SELECT order_id::text AS what FROM sums
      WHERE paid <> held + releasing + released + refunding + refunded
         OR least(paid, held, releasing, released, refunding, refunded) < 0""",
    "each lesson is released at most once": """
      SELECT order_id || ' lesson ' || lesson_no AS what FROM transfers WHERE kind = 'release'
      GROUP BY order_id, lesson_no
      HAVING count(*) FILTER (WHERE debit = 'held') > 1
          OR sum(CASE WHEN credit = 'released' THEN amount_fen WHEN debit = 'released' THEN -amount_fen ELSE 0 END)
             NOT IN (0, max(amount_fen))
          OR min(amount_fen) <> max(amount_fen)""",
    "no lesson is both released and refunded": """
      SELECT a.order_id::text AS what FROM accounts a
      WHERE a.released_fen + a.releasing_fen + a.refunding_fen + a.refunded_fen + a.held_fen > a.price_fen""",
    "every pending transfer is a payment on its way": """
      SELECT p.order_id || ' ' || p.kind || ' ' || p.lesson_no AS what FROM transfers p
      LEFT JOIN transfers r ON (r.order_id, r.lesson_no, r.kind, r.turn, r.phase)
                             = (p.order_id, p.lesson_no, p.kind, p.turn, 2)
      LEFT JOIN instructions i ON (i.order_id, i.lesson_no, i.kind)
                                = (p.order_id, p.lesson_no, CASE p.kind WHEN 'release' THEN 'payout' ELSE 'refund' END)
      WHERE p.phase = 1 AND (i.order_id IS NULL OR i.amount_fen <> p.amount_fen
        OR (r.order_id IS NULL) <> (i.turn = p.turn AND i.state IN ('sent', 'refused')))""",
    "every payment made is booked": """
      SELECT i.order_id || ' ' || i.kind || ' ' || i.lesson_no AS what FROM instructions i
      LEFT JOIN transfers t ON (t.order_id, t.lesson_no, t.kind, t.turn, t.phase) = (i.order_id, i.lesson_no,
        CASE i.kind WHEN 'collect' THEN 'hold' WHEN 'payout' THEN 'release' ELSE 'refund' END, i.turn, 2)
      WHERE i.state = 'paid' AND (t.order_id IS NULL OR t.amount_fen <> i.amount_fen)""",
    "no payment contradicts the books": """
      SELECT number || ' ' || reference AS what FROM bank_results WHERE verdict = 'conflict'""",
}
"""What is proved, in words, and the query that finds whatever breaks it: no row, no violation."""

MOST_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was proved: counts, fen, and every violation found (check → the first `MOST_SHOWN` places)."""

    orders: int
    transfers: int
    moved_fen: int
    paid_fen: int
    custody_fen: int
    suspense_fen: int
    checks: tuple[str, ...] = tuple(CHECKS)
    violations: dict[str, list[str]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """True when nothing is wrong."""
        return not self.violations


async def check(dsn: str) -> AuditReport:
    """Proves the books of the escrow database at `dsn`, on one snapshot, while the services run."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            counts = await connection.fetchrow(_COUNTS)
            assert counts is not None
            violations: dict[str, list[str]] = {}
            for name, query in CHECKS.items():
                rows = await connection.fetch(f"{query} LIMIT {MOST_SHOWN}")
                if rows:
                    violations[name] = [row["what"] for row in rows]
    finally:
        await connection.close()
    return AuditReport(**dict(counts), violations=violations)
