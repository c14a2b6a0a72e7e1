"""What gateways may ask about many purchases at once. Pages are bounded by rows looked at and by bytes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import pydantic_core
from sqlalchemy import text

from services.orders.lessons.domain import CONSUMED
from services.orders.objections.domain import Objection
from services.orders.objections.tables import ObjectionRow
from services.orders.refunds.domain import Refund
from services.orders.refunds.tables import RefundRow
from services.orders.views import deadlines
from services.orders.views.sums import GIVEN_BACK, Sums, sums_of
from shared.contracts.envelope import Message
from shared.contracts.orders import (
    Deadline,
    InstitutionLesson,
    InstitutionLessons,
    InstitutionTotals,
    LessonKey,
    LessonTotal,
    ListInstitutionLessons,
    ListOrdersTotals,
    ListPurchases,
    OrdersTotals,
    PurchasePage,
    PurchaseSummary,
)
from shared.institutions import sums_by_institution
from shared.messaging.work import UnitOfWork
from shared.pages import first_that_fit

SCANNED_ORDERS: Final = 1_000
SCANNED_LESSONS: Final = 20_000
"""Most orders, and lessons of them but for the last order, that one page of an institution's lessons looks at."""
LAST_LESSON: Final = 40_000
"""The greatest number of a lesson: the place behind all of an order."""

# --- families -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waits:
    """What of a purchase waits for somebody: its own step, and lessons (number, until when)."""

    order_id: UUID
    state: str
    act_by: datetime | None
    lessons: Sequence[tuple[int, datetime]]


async def deadlines_of(work: UnitOfWork, waits: Iterable[Waits]) -> dict[UUID, tuple[Deadline, ...]]:
    """Every coming deadline of each purchase, the nearest first."""
    found = {
        one.order_id: [*deadlines.of_purchase(one.state, one.act_by), *deadlines.of_lessons(one.lessons)]
        for one in waits
    }
    # Each aggregate that waits for somebody adds its own.
    for refund in await work.load_all(RefundRow, Refund, list(found), by=("order_id",), lock=False):
        found[refund.order_id] += deadlines.of_refund(refund.state, refund.act_by)
    for objection in await work.load_all(ObjectionRow, Objection, list(found), by=("order_id",), lock=False):
        found[objection.order_id] += deadlines.of_objection(objection.state, objection.lesson_no, objection.act_by)
    return {order_id: deadlines.nearest(some) for order_id, some in found.items()}


_PURCHASES: Final = text("""
SELECT order_id, state, reason, placed_at, course_id, institution_id, title, price_fen, act_by,
  coalesce(offer ->> 'institution_name', '') AS institution_name
FROM purchases
WHERE account_id = :account AND (CAST(:after AS uuid) IS NULL OR (placed_at, order_id) <
  (SELECT p.placed_at, p.order_id FROM purchases p WHERE p.order_id = :after AND p.account_id = :account))
ORDER BY placed_at DESC, order_id DESC LIMIT :wanted
""")
# Of each order and state how many lessons, their fen, and which wait for their guardian until when.
_LESSONS: Final = text("""
SELECT order_id, state, count(*) AS lessons, CAST(sum(price_fen) AS bigint) AS fen,
  CAST(sum(returned_fen) AS bigint) AS returned_fen,
  array_agg(lesson_no) FILTER (WHERE state = 'applied') AS waiting,
  array_agg(answer_by) FILTER (WHERE state = 'applied') AS until
FROM lessons WHERE order_id = ANY(CAST(:orders AS uuid[])) GROUP BY order_id, state
""")


async def list_purchases(work: UnitOfWork, message: Message[ListPurchases]) -> None:
    """A family's purchases, the newest first; for the family, authorities and operators."""
    ask = message.data
    work.actor(message, "guardian", "authority", "operator", own={"guardian": ask.account_id})
    connection = await work.connection()
    given = {"account": ask.account_id, "after": ask.after, "wanted": ask.limit + 1}
    purchases = list(await connection.execute(_PURCHASES, given))
    shown_at_most = purchases[: ask.limit]
    order_ids = [one.order_id for one in shown_at_most]
    counted: dict[UUID, list[tuple[str, int, int, int]]] = {order_id: [] for order_id in order_ids}
    waiting: dict[UUID, list[tuple[int, datetime]]] = {}
    for row in await connection.execute(_LESSONS, {"orders": order_ids}):
        counted[row.order_id].append((row.state, row.lessons, row.fen, row.returned_fen))
        if row.waiting:
            waiting[row.order_id] = list(zip(row.waiting, row.until, strict=True))
    coming = await deadlines_of(
        work, [Waits(one.order_id, one.state, one.act_by, waiting.get(one.order_id, ())) for one in shown_at_most]
    )
    shown = first_that_fit(_summary(one, sums_of(counted[one.order_id]), coming[one.order_id]) for one in shown_at_most)
    more = len(shown) < len(purchases)
    work.reply(message, PurchasePage(purchases=tuple(shown), next_after=shown[-1].order_id if more else None))


def _summary(purchase: Any, sums: Sums, coming: tuple[Deadline, ...]) -> PurchaseSummary:
    return PurchaseSummary(
        order_id=purchase.order_id,
        state=purchase.state,
        reason=purchase.reason,
        placed_at=purchase.placed_at,
        course_id=purchase.course_id,
        institution_id=purchase.institution_id,
        institution_name=purchase.institution_name,
        title=purchase.title,
        price_fen=purchase.price_fen,
        consumed_lessons=sums.consumed_lessons,
        consumed_fen=sums.consumed_fen,
        left_lessons=sums.left_lessons,
        left_fen=sums.left_fen,
        refunded_lessons=sums.refunded_lessons,
        refunded_fen=sums.refunded_fen,
        deadlines=coming,
    )


# --- institutions -------------------------------------------------------------------------------------------------

STATES: Final[Mapping[str, str]] = {
    "waiting": "applied",
    "objected": "objected",
    "payable": "confirmed",
    "paid": "paid_out",
}
"""How an institution calls the states of a lesson."""

_OURS: Final = """
CASE WHEN x.state <> 'divided' THEN x.state WHEN x.paid_at IS NULL THEN 'confirmed' ELSE 'paid_out' END"""
"""Of a divided lesson the institution has its part, to be paid or paid."""

# Lessons do not know their institution, so that confirming one changes no index: its orders are looked at by an index
# of theirs, a bounded number in one page, and the lessons of each by their primary key (OFFSET 0 keeps the planner from
# reading those of everybody instead). The totals are of the same statement, so of the same moment. Of 100 800 lessons
# of 8 400 orders they cost 0.13 s of one core, however many others had, and a page without them 0.014 s.
_TOTALS: Final = f"""
(SELECT CAST(json_agg(t) AS text) FROM (
  SELECT l.state, count(*) AS lessons, sum(l.fen) AS fen
  FROM purchases p CROSS JOIN LATERAL (
    SELECT {_OURS} AS state, x.price_fen - x.returned_fen AS fen FROM lessons x
    WHERE x.order_id = p.order_id AND (x.state <> 'divided' OR x.returned_fen < x.price_fen) OFFSET 0) l
  WHERE p.institution_id = :institution GROUP BY l.state) t)"""
_PAGE: Final = f"""
WITH looked_at AS MATERIALIZED (
  SELECT order_id, title, sum(lessons) OVER (ORDER BY order_id) - lessons AS before FROM (
    SELECT order_id, title, lessons FROM purchases
    WHERE institution_id = :institution AND (order_id, CAST(:last_lesson AS int)) > (:after_order, :after_lesson)
    ORDER BY order_id LIMIT :orders) p),
scanned AS MATERIALIZED (SELECT order_id, title FROM looked_at WHERE before < :lessons),
found AS (
  SELECT l.order_id, l.lesson_no, s.title, l.price_fen - l.returned_fen AS price_fen,
    coalesce(l.answered_at, l.applied_at) AS since, l.answer_by
  FROM scanned s CROSS JOIN LATERAL (
    SELECT x.*, {_OURS} AS ours FROM lessons x
    WHERE x.order_id = s.order_id AND (x.state <> 'divided' OR x.returned_fen < x.price_fen) OFFSET 0) l
  WHERE l.ours = :state AND (l.order_id, l.lesson_no) > (:after_order, :after_lesson)
  ORDER BY l.order_id, l.lesson_no LIMIT :wanted)
SELECT (SELECT CAST(json_agg(f ORDER BY f.order_id, f.lesson_no) AS text) FROM found f),
  (SELECT order_id FROM scanned ORDER BY order_id DESC LIMIT 1),
  (SELECT count(*) FROM looked_at) = :orders OR (SELECT count(*) FROM scanned) < (SELECT count(*) FROM looked_at),
"""
_FIRST_PAGE: Final = text(_PAGE + _TOTALS)
_NEXT_PAGE: Final = text(_PAGE + "CAST(NULL AS text)")


async def list_institution_lessons(work: UnitOfWork, message: Message[ListInstitutionLessons]) -> None:
    """An institution's lessons in one state; for it, authorities and operators."""
    ask = message.data
    work.actor(message, "institution", "authority", "operator", own={"institution": ask.institution_id})
    given = {
        "institution": ask.institution_id,
        "state": STATES[ask.state],
        "after_order": ask.after.order_id if ask.after else UUID(int=0),
        "after_lesson": ask.after.lesson_no if ask.after else 0,
        "last_lesson": LAST_LESSON,
        "wanted": ask.limit + 1,
        "orders": SCANNED_ORDERS,
        "lessons": SCANNED_LESSONS,
    }
    statement = _NEXT_PAGE if ask.after else _FIRST_PAGE
    found, last_order, more, totals = (await (await work.connection()).execute(statement, given)).one()
    lessons = [InstitutionLesson.model_validate(row) for row in _rows(found)]
    next_after: LessonKey | None = None
    if len(lessons) > ask.limit:
        last = lessons[ask.limit - 1]
        next_after = LessonKey(order_id=last.order_id, lesson_no=last.lesson_no)
    elif more:
        next_after = LessonKey(order_id=last_order, lesson_no=LAST_LESSON)
    by_state = {row["state"]: row for row in _rows(totals)}
    nothing = {"lessons": 0, "fen": 0}
    work.reply(
        message,
        InstitutionLessons(
            lessons=tuple(lessons[: ask.limit]),
            totals=()
            if ask.after
            else tuple(
                LessonTotal.model_validate(by_state.get(state, nothing) | {"state": name})
                for name, state in STATES.items()
            ),
            next_after=next_after,
        ),
    )


def _rows(json: str | None) -> list[dict[str, Any]]:
    """Rows that a statement has put together as JSON; of none it says NULL."""
    rows: list[dict[str, Any]] = pydantic_core.from_json(json or "[]")
    return rows


# --- authorities --------------------------------------------------------------------------------------------------

# What waits for another answer is counted by a join of its own, over the few that are open.
_BY_INSTITUTION: Final = """
SELECT i.district, i.institution_id, s.*, coalesce(r.overdue, 0) + coalesce(o.overdue, 0) AS overdue_answers
FROM pairs i CROSS JOIN LATERAL (
  SELECT count(*) AS rows,
    count(*) FILTER (WHERE l.state = 'applied') AS waiting,
    count(*) FILTER (WHERE l.state = 'applied' AND l.answer_by <= :now) AS overdue,
    count(*) FILTER (WHERE l.state = 'objected') AS objections,
    count(*) FILTER (WHERE l.state = ANY(:consumed)) AS consumed_lessons,
    count(*) FILTER (WHERE l.state = ANY(:given_back) OR l.returned_fen > 0) AS refunded_lessons,
    CAST(coalesce(sum(l.price_fen), 0) AS bigint) AS fen,
    CAST(coalesce(sum(l.price_fen - l.returned_fen)
      FILTER (WHERE l.state = ANY(:consumed) OR l.returned_fen > 0), 0) AS bigint) AS consumed_fen,
    CAST(coalesce(sum(CASE WHEN l.state = ANY(:given_back) THEN l.price_fen ELSE l.returned_fen END), 0) AS bigint)
      AS refunded_fen
  FROM purchases p CROSS JOIN LATERAL (
    SELECT x.state, x.price_fen, x.returned_fen, x.answer_by FROM lessons x WHERE x.order_id = p.order_id OFFSET 0) l
  WHERE p.district = i.district AND p.institution_id = i.institution_id) s
LEFT JOIN (
  SELECT p.district, p.institution_id, count(*) AS overdue
  FROM refunds f JOIN purchases p ON p.order_id = f.order_id
  WHERE f.closed_at IS NULL AND (f.overdue OR f.act_by <= :now)
    AND (p.district, p.institution_id) IN (SELECT district, institution_id FROM pairs)
  GROUP BY p.district, p.institution_id) r ON r.district = i.district AND r.institution_id = i.institution_id
LEFT JOIN (
  SELECT p.district, p.institution_id, count(*) AS overdue
  FROM objections o JOIN purchases p ON p.order_id = o.order_id
  WHERE o.state IN ('raised', 'answered', 'unanswered')
    AND (o.overdue > 0 OR coalesce(o.decide_by, o.answer_by) <= :now)
    AND (p.district, p.institution_id) IN (SELECT district, institution_id FROM pairs)
  GROUP BY p.district, p.institution_id) o ON o.district = i.district AND o.institution_id = i.institution_id
ORDER BY i.district, i.institution_id
"""


async def list_totals(work: UnitOfWork, message: Message[ListOrdersTotals]) -> None:
    """Lessons by district and institution; for authorities and operators."""
    work.actor(message, "authority", "operator")
    rows, next_after = await sums_by_institution(
        await work.connection(),
        "purchases",
        _BY_INSTITUTION,
        message.data,
        now=work.now,
        consumed=sorted(CONSUMED),
        given_back=sorted(GIVEN_BACK),
    )
    institutions = tuple(
        InstitutionTotals(
            district=row.district,
            institution_id=row.institution_id,
            waiting=row.waiting,
            overdue=row.overdue + row.overdue_answers,
            objections=row.objections,
            consumed_lessons=row.consumed_lessons,
            consumed_fen=row.consumed_fen,
            left_lessons=row.rows - row.consumed_lessons - row.refunded_lessons,
            left_fen=row.fen - row.consumed_fen - row.refunded_fen,
            refunded_lessons=row.refunded_lessons,
            refunded_fen=row.refunded_fen,
        )
        for row in rows
    )
    work.reply(message, OrdersTotals(institutions=institutions, next_after=next_after))
