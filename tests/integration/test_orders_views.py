"""What families, institutions and authorities see of many purchases; orders runs alone on the real servers."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.orders.views import queries
from shared import pages
from shared.actors import Actor
from shared.contracts.envelope import Request
from shared.contracts.orders import (
    Deadline,
    InstitutionLessons,
    InstitutionTotals,
    LessonKey,
    ListInstitutionLessons,
    ListOrdersTotals,
    ListPurchases,
    OrdersTotals,
    PurchasePage,
    PurchaseSummary,
)
from shared.contracts.types import InstitutionKey
from shared.ids import new_id
from shared.working_days import until_words
from tests.counter import PRICE_FEN, Counter, Family, counter, others, running
from tests.harness import Harness
from tests.integration.test_orders_lessons import FEES, applied, confirmed, objected, settled, taught
from tests.integration.test_orders_refunds import answering, asked, deciding, one_consumed, refunded
from tests.integration.test_orders_refunds import ask as ask_refund

__all__ = ["counter", "others", "running"]

AUTHORITY = Actor("authority-1", "authority")
OPERATOR = Actor("operator-1", "operator")


@pytest.fixture
async def family(counter: Counter) -> Family:
    """A family that has bought nothing."""
    return await counter.family()


async def purchases(counter: Counter, account_id: UUID, actor: Actor, **more: Any) -> PurchasePage:
    page = await counter.harness.ask(ListPurchases(account_id=account_id, **more), actor)
    assert isinstance(page, PurchasePage)
    return page


async def only(counter: Counter, family: Family) -> PurchaseSummary:
    (summary,) = (await purchases(counter, family.account_id, family.actor)).purchases
    return summary


async def lessons(counter: Counter, institution_id: UUID, state: Any, **more: Any) -> InstitutionLessons:
    request = ListInstitutionLessons(institution_id=institution_id, state=state, **more)
    page = await counter.harness.ask(request, Actor(str(institution_id), "institution"))
    assert isinstance(page, InstitutionLessons)
    return page


async def totals(counter: Counter, **more: Any) -> OrdersTotals:
    page = await counter.harness.ask(ListOrdersTotals(**more), AUTHORITY)
    assert isinstance(page, OrdersTotals)
    return page


def numbers(page: InstitutionLessons) -> list[tuple[UUID, int]]:
    return [(one.order_id, one.lesson_no) for one in page.lessons]


# --- families -----------------------------------------------------------------------------------------------------


async def test_a_family_sees_lessons_consumed_money_left_and_every_coming_deadline(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family)
    due = (await applied(counter, order, 1)).answer_by
    await applied(counter, order, 3)
    await applied(counter, order, 2)
    await confirmed(counter, order, 2)
    assert due is not None

    seen = await only(counter, family)
    assert (seen.order_id, seen.state, seen.institution_id) == (order.order_id, "enrolled", order.institution_id)
    assert (seen.title, seen.institution_name, seen.price_fen) == (
        "硬笔书法春季班",
        "常州市小荷书法培训中心",
        PRICE_FEN,
    )
    assert (seen.consumed_lessons, seen.consumed_fen) == (1, FEES[1])
    assert (seen.left_lessons, seen.left_fen) == (2, FEES[0] + FEES[2])
    assert (seen.refunded_lessons, seen.refunded_fen) == (0, 0)
    assert seen.deadlines == tuple(
        Deadline(
            kind="lesson",
            due_at=due,
            words=f"如不答复，第{number}课次将于{until_words(due)}视为确认",
            lesson_no=number,
        )
        for number in (1, 3)
    )
    shown = await counter.show(order)
    assert shown.deadlines == seen.deadlines, "the one and the list say the same"
    assert (shown.consumed_fen, shown.left_fen, shown.refunded_fen) == (FEES[1], FEES[0] + FEES[2], 0)

    await objected(counter, order, 1)
    coming = [(one.kind, one.lesson_no) for one in (await only(counter, family)).deadlines]
    assert coming == [("objection.raised", 1), ("lesson", 3)], "an objection stops that clock, and starts another"
    await counter.advance(due - counter.harness.now())
    seen = await only(counter, family)
    assert [one.kind for one in seen.deadlines] == ["objection.unanswered"]
    assert (seen.consumed_lessons, seen.left_fen) == (2, FEES[0])


@pytest.mark.parametrize("state", ["to_sign", "to_pay", "paying"])
async def test_a_purchase_that_waits_for_its_family_says_until_when(
    counter: Counter, family: Family, state: str
) -> None:
    order = await counter.bring(family, state)
    (coming,) = (await only(counter, family)).deadlines
    act_by = (await counter.show(order)).act_by
    assert act_by is not None
    due_at = act_by - timedelta(minutes=2) if state == "paying" else act_by
    what = "如不签署合同" if state == "to_sign" else "如不付款"
    kind = "sign" if state == "to_sign" else "pay"
    words = f"{what}，本订单将于{until_words(due_at)}取消"
    assert coming == Deadline(kind=kind, due_at=due_at, words=words)
    assert (await counter.show(order)).deadlines == (coming,)


async def test_the_newest_come_first_page_by_page_and_each_once(counter: Counter, family: Family) -> None:
    bought = [
        (await counter.bring(family, state)).order_id for state in ("placed", "to_sign", "ended", "held", "to_pay")
    ]
    whole = await purchases(counter, family.account_id, family.actor)
    assert [one.order_id for one in whole.purchases] == bought[::-1]
    assert whole.next_after is None

    after: UUID | None = None
    seen: list[PurchaseSummary] = []
    for _ in range(3):
        page = await purchases(counter, family.account_id, family.actor, limit=2, after=after)
        seen += page.purchases
        after = page.next_after
    assert tuple(seen) == whole.purchases
    assert after is None
    exact = await purchases(counter, family.account_id, family.actor, limit=5)
    assert (len(exact.purchases), exact.next_after) == (5, None), "a full page is not said to have another behind it"


async def test_behind_an_order_of_somebody_else_there_is_nothing(
    counter: Counter, family: Family, others: Family
) -> None:
    await counter.bring(family, "placed")
    of_others = await counter.bring(others, "placed")
    for after in (of_others.order_id, new_id()):
        page = await purchases(counter, family.account_id, family.actor, after=after)
        assert page == PurchasePage(purchases=())


async def test_a_page_ends_before_its_bytes_do(
    counter: Counter, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    bought = [(await counter.bring(family, "placed")).order_id for _ in range(3)]
    monkeypatch.setattr(pages, "PAGE_BYTES", 10)
    page = await purchases(counter, family.account_id, family.actor)
    assert [one.order_id for one in page.purchases] == bought[2:]
    assert page.next_after == bought[2]
    page = await purchases(counter, family.account_id, family.actor, after=bought[1])
    assert ([one.order_id for one in page.purchases], page.next_after) == (bought[:1], None)


async def test_authorities_and_operators_see_every_family_s_purchases(counter: Counter, family: Family) -> None:
    await counter.bring(family, "to_sign")
    own = await purchases(counter, family.account_id, family.actor)
    assert len(own.purchases) == 1
    for actor in (AUTHORITY, OPERATOR):
        assert await purchases(counter, family.account_id, actor) == own
    assert await purchases(counter, new_id(), AUTHORITY) == PurchasePage(purchases=())


async def test_a_refund_is_told_with_the_time_of_whoever_must_act_and_counts_once_the_bank_has_paid(
    counter: Counter, family: Family
) -> None:
    order = await one_consumed(counter, family)
    refund = await asked(counter, order)
    left = FEES[1] + FEES[2]

    async def tells(kind: str, due_at: datetime | None, words: str) -> None:
        assert due_at is not None
        seen = await only(counter, family)
        assert (seen.consumed_fen, seen.left_fen, seen.refunded_fen) == (FEES[0], left, 0)
        assert seen.deadlines == (Deadline(kind=kind, due_at=due_at, words=words.format(until_words(due_at))),)
        assert (await counter.show(order)).deadlines == seen.deadlines

    await tells("refund.asked", refund.act_by, "机构如不答复，退费申请将于{}视为同意")
    refund = await ask_refund(counter, answering(order, refund, False, words="已备课"), order.institution)
    await tells("refund.contested", refund.act_by, "机构不同意退费，主管部门应于{}前作出决定")
    (found,) = (await totals(counter, institution_id=order.institution_id)).institutions
    assert (found.overdue, found.refunded_fen) == (0, 0)
    assert refund.act_by is not None
    await counter.advance(refund.act_by - counter.harness.now())
    (found,) = (await totals(counter, institution_id=order.institution_id)).institutions
    assert found.overdue == 1, "the authority is late"

    refund = await ask_refund(counter, deciding(order, refund, True), AUTHORITY)
    await tells("refund.paying", refund.act_by, "退费应于{}前由监管银行原路退回")
    await counter.answers(order, refunded(order, refund.refund_fen))
    seen = await only(counter, family)
    assert (seen.consumed_fen, seen.left_fen, seen.refunded_fen) == (FEES[0], 0, left)
    assert (seen.consumed_lessons, seen.left_lessons, seen.refunded_lessons) == (1, 0, 2)
    assert seen.deadlines == ()
    (found,) = (await totals(counter, institution_id=order.institution_id)).institutions
    assert (found.overdue, found.refunded_lessons, found.refunded_fen, found.left_fen) == (0, 2, left, 0)


# --- institutions -------------------------------------------------------------------------------------------------


async def test_an_institution_sees_what_waits_is_objected_to_payable_and_paid(counter: Counter, family: Family) -> None:
    institution_id = new_id()
    one = await taught(counter, family, 3, institution_id=institution_id)
    two = await taught(counter, family, 3, institution_id=institution_id, price_fen=20_001)
    await taught(counter, family, 3)  # of another institution
    for order in (one, two):
        for number in (1, 2, 3):
            await applied(counter, order, number)
    due = (await applied(counter, one, 1)).answer_by
    await objected(counter, one, 2)
    await confirmed(counter, two, 3)
    await confirmed(counter, two, 1)
    await counter.answers(two, settled(two, 1))
    first, second = sorted((one, two), key=lambda order: order.order_id)
    assert (first, second) == (one, two), "ids are made in the order of time"

    waiting = await lessons(counter, institution_id, "waiting")
    assert numbers(waiting) == [(one.order_id, 1), (one.order_id, 3), (two.order_id, 2)]
    shown = waiting.lessons[0]
    assert (shown.title, shown.price_fen, shown.answer_by) == ("硬笔书法春季班", FEES[0], due)
    rows = await counter.harness.rows("orders", "SELECT * FROM lessons WHERE order_id = $1", one.order_id)
    by_number = {row["lesson_no"]: row for row in rows}
    assert shown.since == by_number[1]["applied_at"]
    objections = await lessons(counter, institution_id, "objected")
    assert numbers(objections) == [(one.order_id, 2)]
    assert objections.lessons[0].since == by_number[2]["answered_at"]
    assert numbers(await lessons(counter, institution_id, "payable")) == [(two.order_id, 3)]
    assert numbers(await lessons(counter, institution_id, "paid")) == [(two.order_id, 1)]

    expected = {
        "waiting": (3, FEES[0] + FEES[2] + 6_667),
        "objected": (1, FEES[1]),
        "payable": (1, 6_667),
        "paid": (1, 6_667),
    }
    for state in expected:
        page = await lessons(counter, institution_id, state)
        assert {one.state: (one.lessons, one.fen) for one in page.totals} == expected, "the totals are of all states"
    request = ListInstitutionLessons(institution_id=institution_id, state="waiting")
    for actor in (AUTHORITY, OPERATOR):
        assert await counter.harness.ask(request, actor) == waiting


async def test_lessons_come_page_by_page_each_once_whatever_a_page_may_look_at(
    counter: Counter, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    institution_id = new_id()
    orders = [await taught(counter, family, 3, institution_id=institution_id) for _ in range(3)]
    for order in (orders[0], orders[2]):
        for number in (1, 2, 3):
            await applied(counter, order, number)
    whole = await lessons(counter, institution_id, "waiting")
    assert numbers(whole) == [(order.order_id, number) for order in (orders[0], orders[2]) for number in (1, 2, 3)]
    assert whole.next_after is None

    for limits in ({}, {"SCANNED_ORDERS": 1}, {"SCANNED_LESSONS": 1}, {"SCANNED_ORDERS": 2}):
        with monkeypatch.context() as patch:
            for name, value in limits.items():
                patch.setattr(queries, name, value)
            after: LessonKey | None = None
            seen: list[tuple[UUID, int]] = []
            for _ in range(10):
                page = await lessons(counter, institution_id, "waiting", limit=2, after=after)
                assert bool(page.totals) == (after is None), "totals come once"
                seen += numbers(page)
                after = page.next_after
                if after is None:
                    break
            assert after is None
            assert seen == numbers(whole), limits


async def test_an_institution_without_orders_has_nothing_waiting(counter: Counter) -> None:
    page = await lessons(counter, new_id(), "waiting")
    assert page.lessons == ()
    assert page.next_after is None
    assert [(one.state, one.lessons, one.fen) for one in page.totals] == [
        ("waiting", 0, 0),
        ("objected", 0, 0),
        ("payable", 0, 0),
        ("paid", 0, 0),
    ]


# --- authorities --------------------------------------------------------------------------------------------------


async def test_an_authority_sees_lessons_by_district_and_institution(counter: Counter, family: Family) -> None:
    here, there, moved = new_id(), new_id(), new_id()
    district, other = f"甲区{here.hex[-6:]}", f"乙区{here.hex[-6:]}"
    one = await taught(counter, family, 3, institution_id=here, district=district)
    two = await taught(counter, family, 3, institution_id=here, district=district)
    await taught(counter, family, 3, institution_id=there, district=district)
    for place in (other, district):
        await taught(counter, family, 3, institution_id=moved, district=place)
    await counter.bring(family, "to_pay", institution_id=there, district=district)
    for order in (one, two):
        for number in (1, 2, 3):
            await applied(counter, order, number)
    await confirmed(counter, one, 1)
    await counter.answers(one, settled(one, 1))
    await confirmed(counter, one, 3)
    await objected(counter, two, 2)

    page = await totals(counter, district=district)
    assert page.next_after is None
    assert page.institutions == (
        InstitutionTotals(
            district=district,
            institution_id=here,
            waiting=3,
            overdue=0,
            objections=1,
            consumed_lessons=2,
            consumed_fen=FEES[0] + FEES[2],
            left_lessons=4,
            left_fen=2 * PRICE_FEN - FEES[0] - FEES[2],
            refunded_lessons=0,
            refunded_fen=0,
        ),
        nothing(district, there, 3, PRICE_FEN),
        nothing(district, moved, 3, PRICE_FEN),
    )
    assert (await totals(counter, institution_id=moved)).institutions == (
        nothing(other, moved, 3, PRICE_FEN),
        nothing(district, moved, 3, PRICE_FEN),
    ), "each district of an institution by itself, in the order of code points"
    (only,) = (await totals(counter, institution_id=moved, district=other)).institutions
    assert (only.district, only.left_fen) == (other, PRICE_FEN)
    assert (await totals(counter, institution_id=new_id())) == OrdersTotals(institutions=())
    assert (await totals(counter, district="没有的区")) == OrdersTotals(institutions=())


def nothing(district: str, institution_id: UUID, left: int, fen: int) -> InstitutionTotals:
    """Nothing has happened to its lessons yet."""
    return InstitutionTotals(
        district=district,
        institution_id=institution_id,
        waiting=0,
        overdue=0,
        objections=0,
        consumed_lessons=0,
        consumed_fen=0,
        left_lessons=left,
        left_fen=fen,
        refunded_lessons=0,
        refunded_fen=0,
    )


async def test_a_lesson_is_overdue_when_its_time_is_over_and_nothing_has_happened(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family)
    await applied(counter, order, 1)
    await applied(counter, order, 2)
    # As if nobody had looked at the timers.
    sql = "UPDATE lessons SET answer_by = yike_now() WHERE order_id = $1 AND lesson_no = 1"
    await counter.harness.rows("orders", sql, order.order_id)
    (found,) = (await totals(counter, institution_id=order.institution_id)).institutions
    assert (found.waiting, found.overdue) == (2, 1)


@pytest.fixture(scope="module")
async def many(running: Harness) -> int:
    """Institutions in some districts: how many there are at least."""
    counter = Counter(running)
    family, count = await counter.family(), 12
    for number in range(count):
        await counter.bring(family, "to_sign", district=("天宁区", "武进区", "")[number % 3])
    return count


@pytest.mark.parametrize("limit", [1, 2, 3, 11, 100])
async def test_every_institution_comes_once_in_one_order_whatever_the_page(
    counter: Counter, many: int, limit: int
) -> None:
    seen: list[tuple[str, UUID]] = []
    after: InstitutionKey | None = None
    while True:
        page = await totals(counter, limit=limit, after=after)
        assert len(page.institutions) <= limit
        seen += [(one.district, one.institution_id) for one in page.institutions]
        after = page.next_after
        if after is None:
            break
    sql = "SELECT DISTINCT district, institution_id FROM purchases WHERE institution_id IS NOT NULL"
    rows = await counter.harness.rows("orders", sql)
    assert seen == sorted((row["district"], row["institution_id"]) for row in rows)
    assert len(seen) >= many


# --- who may look -------------------------------------------------------------------------------------------------


async def test_nobody_sees_what_is_of_others_and_nothing_changes(
    counter: Counter, family: Family, others: Family
) -> None:
    order = await taught(counter, family)
    await applied(counter, order)
    of_family = ListPurchases(account_id=family.account_id)
    of_institution = ListInstitutionLessons(institution_id=order.institution_id, state="waiting")
    of_all = ListOrdersTotals()
    stranger = Actor(str(new_id()), "institution")
    bank = Actor("icbc", "bank")
    forbidden: list[tuple[Request, Actor]] = [
        (of_family, others.actor),
        (of_family, order.institution),
        (of_family, bank),
        (of_institution, stranger),
        (of_institution, family.actor),
        (of_institution, bank),
        (of_all, family.actor),
        (of_all, order.institution),
        (of_all, bank),
    ]
    for request, actor in forbidden:
        await counter.refused_without_a_trace("actor_forbidden", request, actor, order)
    for request in (of_family, of_institution, of_all):
        await counter.refused_without_a_trace("actor_unauthenticated", request, None, order)
    # Whose it is not, is told the same as if it did not exist.
    nobody = ListPurchases(account_id=new_id())
    await counter.refused_without_a_trace("actor_forbidden", nobody, others.actor, order)
    nowhere = ListInstitutionLessons(institution_id=new_id(), state="waiting")
    await counter.refused_without_a_trace("actor_forbidden", nowhere, stranger, order)


@pytest.mark.parametrize("limit", [0, 101])
async def test_a_page_of_no_or_too_many_rows_is_refused(counter: Counter, family: Family, limit: int) -> None:
    order = await counter.bring(family, "placed")
    asks: list[tuple[Request, Actor]] = [
        (ListPurchases(account_id=family.account_id), family.actor),
        (ListInstitutionLessons(institution_id=order.institution_id, state="paid"), order.institution),
        (ListOrdersTotals(), AUTHORITY),
    ]
    for request, actor in asks:
        wrong = request.model_copy(update={"limit": limit})
        await counter.refused_without_a_trace("request_invalid", wrong, actor, order)
    unknown = ListInstitutionLessons(institution_id=order.institution_id, state="paid").model_copy(
        update={"state": "planned"}
    )
    await counter.refused_without_a_trace("request_invalid", unknown, order.institution, order)


async def test_looking_changes_nothing(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    await applied(counter, order)
    before = await counter.trace(order)
    await purchases(counter, family.account_id, family.actor)
    await lessons(counter, order.institution_id, "waiting")
    await totals(counter)
    assert await counter.trace(order) == before
