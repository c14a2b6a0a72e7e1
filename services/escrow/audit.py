"""`yike ledger check`: proves the books from nothing but the transfers, in SQL that no service uses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import asyncpg

_COUNTS: Final = """
SELECT (SELECT count(*) FROM accounts) AS orders,
       (SELECT count(*) FROM transfers) AS transfers,
       (SELECT coalesce(sum(amount_fen), 0)::bigint FROM transfers) AS moved_fen,
       (SELECT coalesce(sum(paid_fen), 0)::bigint FROM accounts) AS paid_fen,
       (SELECT coalesce(sum(held_fen + releasing_fen + refunding_fen), 0)::bigint FROM accounts) AS custody_fen,
       (SELECT coalesce(sum(amount_fen), 0)::bigint FROM suspense WHERE state IN ('open', 'returning')) AS suspense_fen
"""


def _balance(name: str, into: str = "credit", out_of: str = "debit") -> str:
    """What the transfers come to for one balance of an order."""
    return f"coalesce(sum(CASE '{name}' WHEN {into} THEN amount_fen WHEN {out_of} THEN -amount_fen END), 0)::bigint"


_SIDES: Final = f"""
WITH sums AS (
  SELECT order_id,
    {_balance("outside", "debit", "credit")} AS paid,
    {_balance("held")} AS held,
    {_balance("releasing")} AS releasing,
    {_balance("released")} AS released,
    {_balance("refunding")} AS refunding,
    {_balance("refunded")} AS refunded
  FROM transfers GROUP BY order_id)
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
      WHERE turn < 0 OR NOT CASE kind
        WHEN 'hold' THEN (lesson_no, turn, phase, debit, credit) = (0, 0, 2, 'outside', 'held')
        WHEN 'release' THEN CASE phase
          WHEN 1 THEN debit = CASE turn WHEN 0 THEN 'held' ELSE 'released' END AND credit = 'releasing'
          ELSE debit = 'releasing' AND credit = 'released' END
        WHEN 'refund' THEN CASE phase
          WHEN 1 THEN debit = CASE turn WHEN 0 THEN 'held' ELSE 'refunded' END AND credit = 'refunding'
          ELSE debit = 'refunding' AND credit = 'refunded' END
        ELSE false END""",
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
        OR (r.order_id IS NULL) <> (i.turn = p.turn AND i.state IN ('sent', 'gathered', 'refused')))""",
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
          SELECT DISTINCT bank, reference, amount_fen FROM bank_results WHERE {_BELONGS_NOWHERE}) r
        UNION ALL SELECT s.bank, coalesce(sum(i.amount_fen) FILTER (WHERE i.state = 'paid'), 0)
          - CASE s.state WHEN 'paid' THEN s.amount_fen ELSE 0 END -- what lessons have yet to follow
        FROM settlements s JOIN gathered g USING (settlement_id)
        JOIN instructions i ON (i.order_id, i.lesson_no, i.kind) = (g.order_id, g.lesson_no, 'payout')
        WHERE s.booked_step <> 2 * s.turn + (s.state = 'paid')::int GROUP BY s.settlement_id) f
      GROUP BY bank HAVING sum(fen) <> 0""",
    # A settlement is paid, comes back, is paid again …: a lesson is at its step, or on its way there.
    "each gathered lesson is a payout of its order and follows its settlement": """
      SELECT g.order_id || ' ' || g.lesson_no AS what FROM gathered g
      LEFT JOIN instructions i ON (i.order_id, i.lesson_no, i.kind) = (g.order_id, g.lesson_no, 'payout')
      LEFT JOIN accounts a ON a.order_id = g.order_id LEFT JOIN settlements s USING (settlement_id)
      WHERE (i.amount_fen, a.institution_id, a.bank, a.supervised_account)
          IS DISTINCT FROM (g.amount_fen, g.institution_id, g.bank, g.supervised_account)
        OR i.state NOT IN ('gathered', 'paid')
        OR CASE WHEN g.settlement_id IS NULL THEN (i.state, i.turn) <> ('gathered', 0)
           ELSE (s.institution_id, s.bank, s.supervised_account)
               IS DISTINCT FROM (g.institution_id, g.bank, g.supervised_account)
             OR 2 * i.turn + (i.state = 'paid')::int NOT BETWEEN s.booked_step AND 2 * s.turn + (s.state = 'paid')::int
             OR (i.turn = s.turn AND i.state = 'paid' AND i.reference <> s.reference) END
      UNION ALL SELECT i.order_id || ' ' || i.lesson_no FROM instructions i
      WHERE i.state = 'gathered' AND NOT EXISTS (
        SELECT FROM gathered g WHERE (g.order_id, g.lesson_no) = (i.order_id, i.lesson_no) AND i.kind = 'payout')""",
    "a settlement is the sum of its lessons": """
      SELECT s.settlement_id::text AS what FROM settlements s
      LEFT JOIN (SELECT settlement_id, sum(amount_fen) AS fen, count(*) AS lessons FROM gathered GROUP BY 1) g
        USING (settlement_id) WHERE (s.amount_fen, s.lessons) IS DISTINCT FROM (g.fen, g.lessons)""",
    "a settlement is paid if its bank says so": """
      SELECT coalesce(s.number, r.stem) AS what FROM settlements s FULL JOIN (
        SELECT left(number, 29) AS stem, sum(CASE outcome WHEN 'paid' THEN amount_fen ELSE -amount_fen END) AS fen
        FROM bank_results WHERE verdict = 'applied' AND outcome IN ('paid', 'returned') AND number LIKE 'G%'
        GROUP BY 1) r ON r.stem = left(s.number, 29)
      WHERE coalesce(r.fen, 0) IS DISTINCT FROM CASE s.state WHEN 'paid' THEN s.amount_fen ELSE 0 END""",
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
    # Eight bytes of each are grouped; only what collides is looked at closely.
    "each movement at a bank is booked once": """
      WITH m AS NOT MATERIALIZED (
        SELECT bank, reference FROM bank_results WHERE verdict = 'applied' AND outcome = 'paid'
        UNION ALL SELECT bank, reference FROM suspense)
      SELECT bank || ' ' || reference AS what FROM m
      WHERE hashtextextended(bank || ' ' || reference, 0) IN (
        SELECT hashtextextended(bank || ' ' || reference, 0) FROM m GROUP BY 1 HAVING count(*) > 1)
      GROUP BY bank, reference HAVING count(*) > 1""",
    "no payment contradicts the books": """
      SELECT number || ' ' || reference AS what FROM bank_results WHERE verdict = 'conflict'""",
}
"""What is proved, in words, and the query that finds whatever breaks it: no row, no violation."""

MOST_SHOWN: Final = 20
READERS: Final = 2
"""Connections that prove side by side: a query keeps one core busy, and may take half a gigabyte."""
_ROOM: Final = "SET LOCAL work_mem = '256MB'; SET LOCAL jit = off"
"""Millions of rows are sorted and hashed, each query once."""


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


Proved: TypeAlias = Callable[[int], None]
"""Hears how many of `CHECKS` are done."""
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def check(dsn: str, proved: Proved = lambda _: None) -> AuditReport:
    """Proves the books of the escrow database at `dsn` while the services run, on one snapshot that all `READERS`
    share."""
    async with AsyncExitStack() as closing:
        first = await closing.enter_async_context(_reading(dsn))
        snapshot = await first.fetchval("SELECT pg_export_snapshot()")
        others = [await closing.enter_async_context(_reading(dsn, snapshot)) for _ in range(READERS - 1)]
        return await prove(first, *others, proved=proved)


@asynccontextmanager
async def _reading(dsn: str, snapshot: str = "") -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            if snapshot:
                await connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
            await connection.execute(_ROOM)
            yield connection
    finally:
        await connection.close()


async def prove(*connections: Connection, proved: Proved = lambda _: None) -> AuditReport:
    """Proves the books as the `connections` see them in their transactions, all of them the same."""
    counts = await connections[0].fetchrow(_COUNTS)
    assert counts is not None
    found: dict[str, list[str]] = {}
    left = iter(CHECKS.items())

    async def prove_what_is_left(connection: Connection) -> None:
        for name, query in left:
            found[name] = [row["what"] for row in await connection.fetch(f"{query} LIMIT {MOST_SHOWN}")]
            proved(len(found))

    proving = [asyncio.create_task(prove_what_is_left(connection)) for connection in connections]
    try:
        await asyncio.gather(*proving)  # a connection that breaks is its own error, not a group's
    finally:
        for one in proving:
            one.cancel()
        await asyncio.wait(proving)
    return AuditReport(**dict(counts), violations={name: found[name] for name in CHECKS if found[name]})
