"""The invariants of a long run, in sums: millions of messages are not looked at one by one.

In: a stack that is quiet. Out: as `invariants.violations`; what needs every message (I7, I9, I11, most of I6) is left
out.
"""

from typing import Final

from ops.stack_layout import Stack
from services.escrow import audit
from tests.faults.world import UNSENT, databases_of, kafka_of

_UNBALANCED: Final = """
SELECT count(*) FROM accounts
WHERE paid_fen <> held_fen + releasing_fen + released_fen + refunding_fen + refunded_fen
"""
_RELEASED_TWICE: Final = """
SELECT count(*) FROM (SELECT FROM transfers WHERE kind = 'release' AND phase = 2
                      GROUP BY order_id, lesson_no HAVING count(*) > 1) AS twice
"""
# What was gathered is one payment for many lessons; what was in suspense goes back as a refund does.
_BOOKED: Final = """
SELECT kind, count(*), sum(amount_fen) FROM (
  SELECT CASE i.kind WHEN 'return' THEN 'refund' ELSE i.kind END AS kind, i.amount_fen FROM instructions i
  WHERE i.state = 'paid' AND NOT (i.kind = 'payout' AND EXISTS (
    SELECT FROM gathered g WHERE (g.order_id, g.lesson_no) = (i.order_id, i.lesson_no)))
  UNION ALL SELECT 'payout', amount_fen FROM settlements WHERE state = 'paid') AS paid GROUP BY 1 ORDER BY 1
"""
_PAYOUTS: Final = "SELECT count(*) FROM instructions WHERE state = 'paid' AND kind = 'payout'"
_LATE_MONEY: Final = "SELECT count(*), coalesce(sum(amount_fen), 0) FROM suspense WHERE state <> 'matched'"
_DONE: Final = "SELECT kind, count(*), sum(amount_fen) FROM entries WHERE outcome = 'paid' GROUP BY 1 ORDER BY 1"
_PAID_OUT: Final = """
SELECT (SELECT count(*) FROM lessons WHERE state = 'paid_out')
     + (SELECT count(*) FROM objections WHERE decision = 'split')
     + (SELECT count(*) FROM refunds WHERE state = 'paid' AND deduction_fen > 0)
"""
_STUCK: Final = """
SELECT count(*) FROM purchases WHERE state NOT IN ('enrolled', 'ended')
"""
_LATE_TIMERS: Final = "SELECT count(*) FROM timers WHERE due_at < yike_now() - interval '3 seconds'"


async def sums(stack: Stack) -> dict[str, dict[str, list[str]]]:
    """The places where a sum is wrong, by invariant and check."""
    async with databases_of(stack) as databases, kafka_of(stack) as kafka:
        escrow, bank, orders = databases["escrow"], databases["bank"], databases["orders"]
        report = await audit.check(stack.dsn("escrow"))
        booked = {row[0]: (row[1], row[2]) for row in await escrow.fetch(_BOOKED)}
        late = await escrow.fetchrow(_LATE_MONEY)
        assert late is not None
        collected = booked.get("collect", (0, 0))
        booked["collect"] = (collected[0] + late[0], collected[1] + late[1])
        done = {row[0]: (row[1], row[2]) for row in await bank.fetch(_DONE)}
        paid_out, payouts = await orders.fetchval(_PAID_OUT), await escrow.fetchval(_PAYOUTS)
        ends = await kafka.ends()
        letters = sum(end for partition, end in ends.items() if partition.topic.endswith(".dlq.v1"))
        late_timers = {name: await one.fetchval(_LATE_TIMERS) for name, one in databases.items()}
        unsent = {name: await one.fetchval(UNSENT) for name, one in databases.items()}
        return {
            "I1": {"the books prove": [f"{name}: {places}" for name, places in report.violations.items()]},
            "I2": {"each lesson is released at most once": _none(await escrow.fetchval(_RELEASED_TWICE))},
            "I3": {"every order is balanced": _none(await escrow.fetchval(_UNBALANCED))},
            "I4": {
                "the bank did what escrow has booked": [] if booked == done else [f"booked {booked}, done {done}"],
            },
            "I5": {
                "nothing is stuck": _none(await orders.fetchval(_STUCK)),
                "no timer is late": [f"{name}: {count}" for name, count in late_timers.items() if count],
                "what was paid is known": []
                if paid_out == payouts
                else [f"{paid_out} lessons are paid out, {payouts} payouts are paid"],
            },
            "I6": {"nothing waits in an outbox": [f"{name}: {count}" for name, count in unsent.items() if count]},
            "I8": {"nobody lags": await kafka.lag(ends), "there are no dead letters": _none(letters)},
        }


def _none(count: int) -> list[str]:
    return [f"{count} places"] if count else []
