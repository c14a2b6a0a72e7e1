"""An institution is gone: everything unconsumed of all its orders goes back, some orders in each transaction.

The authority plans (a dry run: totals, nothing changed), then starts it. Each transaction does the next orders and
sends itself on from there, so it goes on after any crash, and what was done is not done twice: a refund that stands is
left alone, and one the guardian has asked for is granted in full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text

from services.orders.lessons import money
from services.orders.lessons.domain import Lesson, give_back
from services.orders.lessons.tables import LessonRow
from services.orders.purchases import saga
from services.orders.purchases.domain import Purchase
from services.orders.purchases.tables import PurchaseRow
from services.orders.purchases.use_cases import CHANGING as PURCHASE_CHANGES
from services.orders.refunds import domain
from services.orders.refunds.domain import Order, Quote, Refund
from services.orders.refunds.tables import RefundRow, WindUpRow
from services.orders.refunds.use_cases import CHANGING, begin, policy_of
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.orders import (
    GoOnWindingUp,
    PlanWindUp,
    QuoteLine,
    ShowWindUp,
    StartWindUp,
    WindUpView,
    WoundUp,
)
from shared.ids import derived_id
from shared.messaging.work import UnitOfWork

ORDERS_AT_ONCE: Final = 100
"""Orders in one transaction."""
RESTART_AFTER: Final = timedelta(hours=1)
GIVE_UP: Final = frozenset({"placed", "to_sign", "to_pay", "paying", "held"})
"""States of a purchase that is not in its course yet: it ends, and money that came goes back."""
REASON: Final = "institution_gone"
_RULE: Final = "机构关闭或失联，未消课时全额退费 [law] GF-2021-2604; 主管部门决定"
_CHANGING: Final = ("run", "reason", "decided_by", "started_at", "finished_at", "orders", "lessons", "refund_fen",
                    "given_up", "pending", "done_orders", "done_fen")  # fmt: skip

# What is on its way back or back is done; what else is planned, or asked back and not decided, is to be refunded.
_TOTALS: Final = text("""
SELECT count(DISTINCT order_id) FILTER (WHERE state = ANY(CAST(:untaught AS text[]))) AS orders,
       count(*) FILTER (WHERE state = ANY(CAST(:untaught AS text[]))) AS lessons,
       CAST(coalesce(sum(price_fen) FILTER (WHERE state = ANY(CAST(:untaught AS text[]))), 0) AS bigint) AS refund_fen,
       count(*) FILTER (WHERE state = ANY(CAST(:pending AS text[]))) AS pending,
       (SELECT count(*) FROM purchases
        WHERE institution_id = :institution AND state = ANY(CAST(:give_up AS text[]))) AS given_up
FROM (
  SELECT l.order_id, l.state, l.price_fen FROM purchases p JOIN lessons l ON l.order_id = p.order_id
  WHERE p.institution_id = :institution AND p.state = 'enrolled' AND (l.state <> 'refunding' OR NOT EXISTS (
    SELECT FROM refunds r WHERE r.order_id = p.order_id AND r.state IN ('paying', 'paid')))) open
""")
_ORDERS: Final = text("""
SELECT order_id FROM purchases
WHERE institution_id = :institution AND (CAST(:after AS uuid) IS NULL OR order_id > :after)
ORDER BY order_id LIMIT :most
""")


@dataclass(slots=True)
class WindUp:
    """How far it is: totals when it was started, what is done since. `run` counts the starts."""

    institution_id: UUID
    run: int
    reason: str
    decided_by: str
    started_at: datetime
    finished_at: datetime | None
    orders: int
    lessons: int
    refund_fen: int
    given_up: int
    pending: int
    done_orders: int = 0
    done_fen: int = 0


async def plan(work: UnitOfWork, message: Message[PlanWindUp]) -> None:
    """The totals of a start now; nothing is changed."""
    work.actor(message, "authority")
    institution_id = message.data.institution_id
    work.reply(message, WindUpView(institution_id=institution_id, **await _totals(work, institution_id)))


async def start(work: UnitOfWork, message: Message[StartWindUp]) -> None:
    """Begins. While it runs, asked again it only tells how far it is; once finished, or when it has not come to its end
    for an hour (its message was parked), it looks at every order again. A purchase of which nothing but its placing was
    known when it ran is found by a later start."""
    actor = work.actor(message, "authority")
    ask = message.data
    known = (await work.load(WindUpRow, WindUp, [ask.institution_id])).get(ask.institution_id)
    if known is not None and known.finished_at is None and work.now < known.started_at + RESTART_AFTER:
        work.reply(message, _view(known))
        return
    totals = await _totals(work, ask.institution_id)
    run = known.run + 1 if known else 1
    begun = WindUp(ask.institution_id, run, ask.reason, actor.subject, work.now, None, **totals)
    if known is None:
        work.insert(WindUpRow, [begun])
    else:
        work.update(WindUpRow, [begun], *_CHANGING)
    work.send(GoOnWindingUp(institution_id=ask.institution_id, run=run), message)
    work.reply(message, _view(begun))


async def show(work: UnitOfWork, message: Message[ShowWindUp]) -> None:
    """How far it is."""
    work.actor(message, "authority", "operator")
    institution_id = message.data.institution_id
    known = (await work.load(WindUpRow, WindUp, [institution_id], lock=False)).get(institution_id)
    if known is None:
        raise Refused("windup_unknown")
    work.reply(message, _view(known))


async def go_on(work: UnitOfWork, message: Message[GoOnWindingUp]) -> None:
    """The next orders: purchases that are not paid yet are given up, the others refunded."""
    ask = message.data
    known = (await work.load(WindUpRow, WindUp, [ask.institution_id])).get(ask.institution_id)
    if known is None or known.run != ask.run or known.finished_at is not None:
        return
    parameters = {"institution": ask.institution_id, "after": ask.after, "most": ORDERS_AT_ONCE}
    order_ids = list((await (await work.connection()).execute(_ORDERS, parameters)).scalars())
    purchases = await work.load(PurchaseRow, Purchase, order_ids)
    given_up = [purchase for purchase in purchases.values() if purchase.state in GIVE_UP]
    for purchase in given_up:
        saga.refused(work, purchase, REASON, message)
    work.update(PurchaseRow, given_up, *PURCHASE_CHANGES)
    enrolled = [order_id for order_id in order_ids if purchases[order_id].state == "enrolled"]
    refunds, returned = await _refund(work, message, enrolled, known.reason)
    known.done_orders += len({refund.order_id for refund in refunds} | {lesson.order_id for lesson in returned})
    known.done_fen += sum(refund.refund_fen for refund in refunds) + sum(lesson.price_fen for lesson in returned)
    if len(order_ids) == ORDERS_AT_ONCE:
        work.send(GoOnWindingUp(institution_id=ask.institution_id, run=ask.run, after=order_ids[-1]), message)
    else:
        known.finished_at = work.now
        done = WoundUp(institution_id=ask.institution_id, orders=known.done_orders, refund_fen=known.done_fen)
        work.send(done, message)
    work.update(WindUpRow, [known], *_CHANGING)


async def _refund(
    work: UnitOfWork, cause: Message[Any], order_ids: Sequence[UUID], reason: str
) -> tuple[list[Refund], list[Lesson]]:
    """Refunds of these orders that were not decided before, with the bank now; and lessons that go back alone, because
    the one refund of their order was granted for others only."""
    orders = await work.load(PurchaseRow, Order, order_ids, lock=False)
    lessons = await work.load_all(LessonRow, Lesson, order_ids, by=("order_id",))
    known = await work.load_all(RefundRow, Refund, order_ids, by=("order_id",))
    new: list[Refund] = []
    granted: list[Refund] = []
    marked: list[Lesson] = []
    alone: list[Lesson] = []
    for order_id in order_ids:
        order = orders[order_id]
        policy = policy_of(work, order)
        last = domain.latest([one for one in known if one.order_id == order_id])
        of_order = [lesson for lesson in lessons if lesson.order_id == order_id]
        if last is not None and last.state in ("paying", "paid"):
            for lesson in (one for one in of_order if give_back(one, work.now)):
                money.divide(work, lesson, 0, cause)
                alone.append(lesson)
            continue
        untaught = [lesson.lesson_no for lesson in of_order if lesson.state in domain.UNTAUGHT]
        fee = sum(lesson.price_fen for lesson in of_order if lesson.lesson_no in untaught)
        if fee == 0:
            continue
        if last is not None and last.state in domain.OPEN:
            domain.wind_up(last, untaught, fee, policy, work.now)
            granted.append(last)
        else:
            line = QuoteLine(what="fee", amount_fen=fee, lessons=tuple(untaught), rule=_RULE)
            refund_id = derived_id("wind_up", order_id, len([one for one in known if one.order_id == order_id]))
            last = domain.ask(
                order, Quote("institution_gone", untaught, [], [line], 0), refund_id, reason, policy, work.now
            )
            domain.approve(last, policy, work.now)
            new.append(last)
        marked += domain.mark(of_order, untaught, "refunding")
    for refund in (*granted, *new):
        begin(work, refund, cause)
    work.update(LessonRow, [*marked, *alone], "state", "returned_fen", "answered_at")
    work.update(RefundRow, granted, *CHANGING)
    work.insert(RefundRow, new)
    return [*granted, *new], alone


async def _totals(work: UnitOfWork, institution_id: UUID) -> dict[str, int]:
    states = {"untaught": domain.UNTAUGHT, "pending": domain.PENDING, "give_up": GIVE_UP}
    parameters = {"institution": institution_id} | {name: sorted(some) for name, some in states.items()}
    found = (await (await work.connection()).execute(_TOTALS, parameters)).mappings().one()
    return {name: int(fen) for name, fen in found.items()}


def _view(one: WindUp) -> WindUpView:
    return WindUpView(
        institution_id=one.institution_id,
        orders=one.orders,
        lessons=one.lessons,
        refund_fen=one.refund_fen,
        given_up=one.given_up,
        pending=one.pending,
        started_at=one.started_at,
        done_orders=one.done_orders,
        done_fen=one.done_fen,
        finished_at=one.finished_at,
    )
