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
       (SELECT coalesce(sum(amount_fen), 0)::bigint FROM suspense WHERE state IN ('open', 'returning')) AS suspense_fen
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


def _price(lesson: str) -> str:
    """The price of a lesson of account `a`, in SQL: the last one takes the remainder."""
    return f"(a.price_fen / a.lessons + CASE WHEN {lesson} = a.lessons THEN a.price_fen % a.lessons ELSE 0 END)"


# `wrong_amount` was the word for short and over.
_BELONGS_NOWHERE: Final = """outcome = 'paid' AND verdict IN
          ('unknown_number', 'short', 'over', 'wrong_amount', 'late', 'dead', 'double', 'foreign')"""

CHECKS: Final[dict[str, str]] = {
    "every transfer is a movement the rules know": """
      SELECT order_id || ' ' || kind || ' ' || lesson_no AS what FROM transfers
      WHERE (kind, lesson_no > 0, phase, debit, credit) NOT IN (VALUES
          ('hold', false, 2, 'outside', 'held'),
          ('release', lesson_no > 0, 1, CASE WHEN turn = 0 THEN 'held' ELSE 'released' END, 'releasing'),
          ('release', lesson_no > 0, 2, 'releasing', 'released'),
          ('refund', lesson_no > 0, 1, CASE WHEN turn = 0 THEN 'held' ELSE 'refunded' END, 'refunding'),
          ('refund', lesson_no > 0, 2, 'refunding', 'refunded'))
        OR turn < 0 OR (kind = 'hold' AND turn > 0)""",
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
      HAVING count(*) FILTER (WHERE debit = 'held') <> 1
          OR sum(CASE WHEN credit = 'released' THEN amount_fen WHEN debit = 'released' THEN -amount_fen ELSE 0 END)
             NOT IN (0, max(amount_fen))
          OR min(amount_fen) <> max(amount_fen)""",
    # Released, refunded, or divided between the two by an authority: to the fen.
    "each lesson that was decided is decided at its price": f"""
      SELECT t.order_id || ' lesson ' || t.lesson_no AS what FROM transfers t JOIN accounts a USING (order_id)
      WHERE t.lesson_no > 0 AND (t.phase, t.turn) = (1, 0)
      GROUP BY t.order_id, t.lesson_no, a.price_fen, a.lessons
      HAVING t.lesson_no > a.lessons OR sum(t.amount_fen) <> {_price("t.lesson_no")}
        AND {_price("t.lesson_no")} <> sum(t.amount_fen) + coalesce((SELECT sum(i.amount_fen) FROM instructions i
          WHERE (i.order_id, i.lesson_no, i.state) = (t.order_id, t.lesson_no, 'waiting')), 0)""",
    # What went back, and what the institution keeps of it, is the price of the lessons given back; of none of them
    # anything was released.
    "no lesson is both released and refunded": f"""
      SELECT a.order_id::text AS what FROM accounts a CROSS JOIN LATERAL (
        SELECT coalesce(sum({_price("g.n::int")}), 0) AS fen,
               bool_or(EXISTS (SELECT FROM instructions i
                 WHERE (i.order_id, i.lesson_no, i.kind) = (a.order_id, g.n::int, 'payout'))) AS released
        FROM jsonb_array_elements_text(a.given_back) g (n)) given
      WHERE (a.given_back <> '[]' OR a.state IN ('refunding', 'refunded')) AND (given.released OR given.fen <> (
        SELECT coalesce(sum(i.amount_fen), 0) FROM instructions i WHERE i.order_id = a.order_id AND (
          (i.kind, i.lesson_no) IN (('refund', 0), ('payout', 0))
          OR (i.kind = 'refund' AND a.given_back @> to_jsonb(i.lesson_no)))))""",
    "what an institution keeps of a refund has a refund": """
      SELECT order_id::text AS what FROM instructions p WHERE (kind, lesson_no) = ('payout', 0) AND NOT EXISTS (
        SELECT FROM instructions r WHERE (r.order_id, r.lesson_no, r.kind) = (p.order_id, 0, 'refund'))""",
    "every pending transfer is a payment on its way": """
      SELECT p.order_id || ' ' || p.kind || ' ' || p.lesson_no AS what FROM transfers p
      LEFT JOIN transfers r ON (r.order_id, r.lesson_no, r.kind, r.turn, r.phase)
                             = (p.order_id, p.lesson_no, p.kind, p.turn, 2)
      LEFT JOIN instructions i ON (i.order_id, i.lesson_no, i.kind)
                                = (p.order_id, p.lesson_no, CASE p.kind WHEN 'release' THEN 'payout' ELSE 'refund' END)
      WHERE p.phase = 1 AND (i.order_id IS NULL OR i.amount_fen <> p.amount_fen
        OR (r.order_id IS NULL) <> (i.turn = p.turn AND i.state IN ('sent', 'refused')))""",
    "every payment on its way is a transfer": """
      SELECT i.order_id || ' ' || i.kind || ' ' || i.lesson_no AS what FROM instructions i
      LEFT JOIN transfers t ON (t.order_id, t.lesson_no, t.kind, t.turn, t.phase)
        = (i.order_id, i.lesson_no, CASE i.kind WHEN 'payout' THEN 'release' ELSE 'refund' END, i.turn, 1)
      WHERE i.kind IN ('payout', 'refund') AND (t.order_id IS NULL) <> (i.state IN ('waiting', 'dropped'))""",
    "every payment made is booked, and nothing else": """
      SELECT i.order_id || ' ' || i.kind || ' ' || i.lesson_no AS what FROM instructions i
      LEFT JOIN transfers t ON (t.order_id, t.lesson_no, t.kind, t.turn, t.phase) = (i.order_id, i.lesson_no,
        CASE i.kind WHEN 'collect' THEN 'hold' WHEN 'payout' THEN 'release' ELSE 'refund' END, i.turn, 2)
      WHERE i.kind <> 'return' AND ((t.order_id IS NULL) = (i.state = 'paid') OR t.amount_fen <> i.amount_fen)""",
    "the state of an order agrees with its money": """
      SELECT order_id::text AS what FROM accounts a WHERE NOT CASE state
        WHEN 'held' THEN paid_fen = price_fen
        WHEN 'refunding' THEN refunding_fen > 0
        WHEN 'refunded' THEN refunded_fen > 0
        ELSE paid_fen = 0 END OR state <> coalesce((SELECT CASE i.state WHEN 'paid' THEN 'refunded' ELSE 'refunding' END
          FROM instructions i WHERE (i.order_id, i.lesson_no, i.kind) = (a.order_id, 0, 'refund')),
        CASE WHEN state IN ('refunding', 'refunded') THEN 'no refund' ELSE state END)""",
    "releases wait for open complaints and frozen institutions only": """
      SELECT a.order_id::text AS what FROM accounts a
      LEFT JOIN (SELECT order_id, count(*) FILTER (WHERE NOT ended) AS open FROM suspensions GROUP BY order_id) s
        USING (order_id)
      LEFT JOIN (SELECT order_id, count(*) AS waiting FROM instructions WHERE state = 'waiting' GROUP BY order_id) w
        USING (order_id)
      WHERE a.suspensions <> coalesce(s.open, 0) OR (w.waiting > 0 AND a.suspensions = 0 AND NOT EXISTS (
        SELECT FROM freezes f WHERE f.institution_id = a.institution_id AND f.state <> 'thawed'))""",
    # What is held of orders and what is in suspense is what came in, booked or in suspense, less what went out.
    "custody per bank = what its results say": f"""
      SELECT bank AS what FROM (
        SELECT bank, held_fen + releasing_fen + refunding_fen AS fen FROM accounts
        UNION ALL SELECT bank, amount_fen FROM suspense WHERE state IN ('open', 'returning')
        UNION ALL SELECT bank, CASE WHEN outcome = 'returned' OR number LIKE 'C%' THEN -amount_fen ELSE amount_fen END
        FROM bank_results WHERE verdict = 'applied' AND outcome IN ('paid', 'returned')
        UNION ALL SELECT bank, -amount_fen FROM (
          SELECT DISTINCT bank, reference, amount_fen FROM bank_results WHERE {_BELONGS_NOWHERE}) r) f
      GROUP BY bank HAVING sum(fen) <> 0""",
    "every payment held came from its bank, or was matched": """
      SELECT coalesce(a.order_id::text, m.bank || ' ' || m.reference) AS what FROM accounts a FULL JOIN (
        SELECT bank, reference, amount_fen, CAST(NULL AS uuid) AS order_id FROM bank_results
        WHERE verdict = 'applied' AND outcome = 'paid' AND number LIKE 'C%'
        UNION ALL SELECT bank, reference, amount_fen, matched_order_id FROM suspense WHERE state = 'matched') m
      ON (m.bank, m.reference, m.amount_fen) = (a.bank, a.paid_reference, a.price_fen)
      WHERE (coalesce(a.paid_fen, 0) > 0) <> (m.bank IS NOT NULL) OR m.order_id <> a.order_id""",
    "what goes back of suspense is an instruction, and nothing else": """
      SELECT coalesce(s.receipt_id, i.order_id)::text AS what FROM suspense s
      FULL JOIN (SELECT * FROM instructions WHERE kind = 'return') i ON i.order_id = s.receipt_id
      WHERE i.amount_fen <> s.amount_fen OR i.lesson_no <> 0 OR coalesce(i.state, 'dropped') <> ALL (
        CASE WHEN s.state = 'returning' THEN ARRAY['sent', 'refused'] WHEN s.state = 'returned' THEN ARRAY['paid']
             WHEN s.state IN ('open', 'matched') THEN ARRAY['dropped'] ELSE ARRAY[]::text[] END)""",
    "money that belongs nowhere is suspense": f"""
      SELECT coalesce(r.bank, s.bank) || ' ' || coalesce(r.reference, s.reference) AS what FROM (
        SELECT DISTINCT bank, reference, amount_fen FROM bank_results WHERE {_BELONGS_NOWHERE}) r
      FULL JOIN suspense s USING (bank, reference, amount_fen) WHERE r.bank IS NULL OR s.bank IS NULL""",
    "each movement at a bank is booked once": """
      SELECT bank || ' ' || reference AS what FROM (
        SELECT bank, reference FROM bank_results WHERE verdict = 'applied' AND outcome = 'paid'
        UNION ALL SELECT bank, reference FROM suspense) m
      GROUP BY bank, reference HAVING count(*) > 1""",
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
            return await prove(connection)
    finally:
        await connection.close()


async def prove(connection: "asyncpg.Connection[asyncpg.Record]") -> AuditReport:
    """Proves the books as `connection` sees them in its transaction."""
    counts = await connection.fetchrow(_COUNTS)
    assert counts is not None
    violations: dict[str, list[str]] = {}
    for name, query in CHECKS.items():
        rows = await connection.fetch(f"{query} LIMIT {MOST_SHOWN}")
        if rows:
            violations[name] = [row["what"] for row in rows]
    return AuditReport(**dict(counts), violations=violations)
