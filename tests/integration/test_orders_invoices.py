"""Invoices on the real servers: owed once a fee is paid out, issued, undone with a red one; who is late with them."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from shared.actors import Actor
from shared.contracts.envelope import Request
from shared.contracts.orders import (
    InvoiceChanged,
    InvoicesView,
    InvoiceView,
    IssueInvoice,
    LessonKey,
    ListOverdueInvoices,
    OverdueInvoices,
    RedLetterInvoice,
    ShowInvoices,
)
from shared.ids import new_id
from shared.messaging.rpc import RequestRefused
from tests.counter import Counter, Family, Order, counter, family, others, running
from tests.integration import test_orders_refunds as refunds
from tests.integration.test_orders_lessons import FEES, applied, confirmed, lesson, returned, settled, taught

__all__ = ["counter", "family", "others", "running"]

AUTHORITY = Actor("changzhou-edu", "authority")
REASON = "开票有误"


async def paid_out(counter: Counter, family: Family, *lessons: int) -> Order:
    """An order of which these lessons were taught, confirmed and paid out, and lesson 3 was confirmed."""
    order = await taught(counter, family)
    for number in sorted({*lessons, 3}):
        await applied(counter, order, number)
        await confirmed(counter, order, number)
        if number in lessons:
            await counter.answers(order, settled(order, number))
    return order


def number() -> str:
    """An invoice number that nobody has used."""
    return f"{new_id().int % 10**20:020}"


def issuing(order: Order, *lessons: int, **changes: Any) -> IssueInvoice:
    data = IssueInvoice(
        invoice_id=new_id(),
        order_id=order.order_id,
        number=number(),
        lessons=lessons,
        amount_fen=sum(FEES[number - 1] for number in lessons),
    )
    return data.model_copy(update=changes)


def undoing(asked: IssueInvoice, **changes: Any) -> RedLetterInvoice:
    data = RedLetterInvoice(invoice_id=asked.invoice_id, order_id=asked.order_id, red_number=number(), reason=REASON)
    return data.model_copy(update=changes)


async def issued(counter: Counter, order: Order, *lessons: int) -> IssueInvoice:
    asked = issuing(order, *lessons)
    answer = await counter.harness.ask(asked, order.institution)
    assert isinstance(answer, InvoiceView)
    return asked


async def shown(counter: Counter, order: Order, actor: Actor | None = None) -> InvoicesView:
    view = await counter.harness.ask(ShowInvoices(order_id=order.order_id), actor or order.family.actor)
    assert isinstance(view, InvoicesView)
    return view


async def overdue(counter: Counter, order: Order, actor: Actor | None = None, **more: Any) -> OverdueInvoices:
    asked = ListOverdueInvoices(institution_id=order.institution_id, **more)
    page = await counter.harness.ask(asked, actor or order.institution)
    assert isinstance(page, OverdueInvoices)
    return page


async def test_an_invoice_is_owed_for_what_was_paid_out_until_it_is_issued(counter: Counter, family: Family) -> None:
    order = await paid_out(counter, family, 1, 2)
    view = await shown(counter, order)
    assert [(one.lesson_no, one.amount_fen, one.overdue) for one in view.owed] == [
        (1, FEES[0], False),
        (2, FEES[1], False),
    ]
    assert (view.owed_fen, view.invoices) == (FEES[0] + FEES[1], ())

    asked = issuing(order, 2, 1)
    answer = await counter.harness.ask(asked, order.institution)
    one = answer.invoice
    assert (one.number, one.lessons, one.amount_fen, one.state) == (asked.number, (1, 2), FEES[0] + FEES[1], "issued")
    told = await counter.harness.expect(InvoiceChanged, order.order_id)
    assert told == InvoiceChanged(
        order_id=order.order_id, account_id=family.account_id, institution_id=order.institution_id, invoice=one
    )
    view = await shown(counter, order)
    assert (view.owed, view.owed_fen, view.invoices) == ((), 0, (one,))

    await counter.answers(order, settled(order, 3))
    view = await shown(counter, order)
    assert [one.lesson_no for one in view.owed] == [3]


async def test_a_red_one_makes_its_lessons_owed_again(counter: Counter, family: Family) -> None:
    order = await paid_out(counter, family, 1, 2)
    first = await issued(counter, order, 1, 2)
    undo = undoing(first)
    answer = await counter.harness.ask(undo, order.institution)
    told = answer.invoice
    assert (told.state, told.red_number, told.red_reason, told.lessons) == (
        "red_lettered",
        undo.red_number,
        REASON,
        (1, 2),
    )
    await counter.harness.expect_recorded()
    assert [one.invoice.state for one in counter.harness.seen(InvoiceChanged, order.order_id)][-1] == "red_lettered"
    view = await shown(counter, order)
    assert [one.lesson_no for one in view.owed] == [1, 2]
    again = await issued(counter, order, 1, 2)
    view = await shown(counter, order)
    assert [(one.invoice_id, one.state) for one in view.invoices] == [
        (again.invoice_id, "issued"),
        (first.invoice_id, "red_lettered"),
    ]
    assert view.owed_fen == 0


async def test_the_same_again_gets_the_same_answer_and_changes_nothing(counter: Counter, family: Family) -> None:
    order = await paid_out(counter, family, 1)
    issue = issuing(order, 1)
    for asked in (issue, undoing(issue)):
        first = await counter.harness.ask(asked, order.institution)
        before = await counter.trace(order)
        assert await counter.harness.ask(asked, order.institution) == first
        assert await counter.trace(order) == before


async def test_what_is_no_invoice_of_what_was_released_is_refused(counter: Counter, family: Family) -> None:
    order = await paid_out(counter, family, 1, 2)
    there = await issued(counter, order, 1)
    wrong: list[tuple[str, Request]] = [
        ("invoice_lesson_not_released", issuing(order, 2, 3)),
        ("invoice_exists", issuing(order, 1, 2)),
        ("invoice_exists", issuing(order, 2, number=there.number)),
        ("invoice_exists", issuing(order, 2, invoice_id=there.invoice_id)),
        ("invoice_amount", issuing(order, 2, amount_fen=FEES[1] + 1)),
        ("invoice_amount", issuing(order, 2, amount_fen=FEES[1] - 1)),
        ("lesson_unknown", issuing(order, 2, lessons=(2, 4))),
        ("order_unknown", issuing(order, 2, order_id=new_id())),
        ("request_invalid", issuing(order, 2, number="123456789")),
        ("request_invalid", issuing(order, 2, number="2432200000001234567X")),
        ("request_invalid", issuing(order, 2, lessons=())),
        ("invoice_unknown", undoing(there, invoice_id=new_id())),
        ("order_unknown", undoing(there, order_id=new_id())),
        ("invoice_exists", undoing(there, red_number=there.number)),
        ("request_invalid", undoing(there, reason=" ")),
    ]
    for code, asked in wrong:
        await counter.refused_without_a_trace(code, asked, order.institution, order)


async def test_a_red_one_is_told_once_and_its_number_is_used_for_ever(counter: Counter, family: Family) -> None:
    order = await paid_out(counter, family, 1, 2)
    first, second = await issued(counter, order, 1), await issued(counter, order, 2)
    undo = undoing(first)
    await counter.harness.ask(undo, order.institution)
    wrong: list[tuple[str, Request]] = [
        ("invoice_state", undoing(first)),
        ("invoice_state", undoing(first, red_number=undo.red_number, reason="另一原因")),
        ("invoice_exists", undoing(second, red_number=undo.red_number)),
        ("invoice_exists", undoing(second, red_number=first.number)),
        ("invoice_exists", issuing(order, 1, number=undo.red_number)),
        ("invoice_exists", issuing(order, 1, number=first.number)),
    ]
    for code, asked in wrong:
        await counter.refused_without_a_trace(code, asked, order.institution, order)


async def test_an_invoice_is_of_its_own_order(counter: Counter, family: Family) -> None:
    order, other = await paid_out(counter, family, 1), await paid_out(counter, family, 1)
    asked = await issued(counter, order, 1)
    undo = undoing(asked, order_id=other.order_id)
    await counter.refused_without_a_trace("invoice_unknown", undo, other.institution, order)
    taken = issuing(other, 1, invoice_id=asked.invoice_id)
    await counter.refused_without_a_trace("invoice_exists", taken, other.institution, order)
    await counter.harness.ask(issuing(other, 1, number=asked.number), other.institution)  # another institution's books


async def test_of_two_orders_told_of_at_once_one_has_the_number(counter: Counter, family: Family) -> None:
    orders = [await paid_out(counter, family, 1) for _ in range(4)]
    same = orders[0].institution_id
    sql = "UPDATE purchases SET institution_id = $1 WHERE order_id = ANY($2)"
    await counter.harness.rows("orders", sql, same, [order.order_id for order in orders])
    one = number()
    asked = [counter.harness.ask(issuing(order, 1, number=one), orders[0].institution) for order in orders]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer.code for answer in answers if isinstance(answer, RequestRefused)]
    assert (refused, len(answers)) == (["invoice_exists"] * 3, 4)


@pytest.mark.parametrize("what", ["issue", "undo"])
async def test_only_the_institution_speaks_of_its_invoices(
    counter: Counter, family: Family, others: Family, what: str
) -> None:
    order = await paid_out(counter, family, 1, 2)
    asked = issuing(order, 2) if what == "issue" else undoing(await issued(counter, order, 1))
    await counter.refused_without_a_trace("actor_unauthenticated", asked, None, order)
    for actor in (family.actor, others.actor, Actor(str(new_id()), "institution"), AUTHORITY):
        await counter.refused_without_a_trace("actor_forbidden", asked, actor, order)
    unknown = asked.model_copy(update={"order_id": new_id()})
    await counter.refused_without_a_trace("actor_forbidden", unknown, family.actor, order)


async def test_who_may_look(counter: Counter, family: Family, others: Family) -> None:
    order = await paid_out(counter, family, 1)
    for actor in (family.actor, order.institution, AUTHORITY):
        assert (await shown(counter, order, actor)).owed_fen == FEES[0]
    show = ShowInvoices(order_id=order.order_id)
    for stranger in (others.actor, Actor(str(new_id()), "institution")):
        await counter.refused_without_a_trace("order_unknown", show, stranger, order)
    await counter.refused_without_a_trace("order_unknown", ShowInvoices(order_id=new_id()), AUTHORITY, order)
    await counter.refused_without_a_trace("actor_unauthenticated", show, None, order)
    late = ListOverdueInvoices(institution_id=order.institution_id)
    assert (await overdue(counter, order, AUTHORITY)).owed == ()
    for wrong in (family.actor, Actor(str(new_id()), "institution")):
        await counter.refused_without_a_trace("actor_forbidden", late, wrong, order)
    await counter.refused_without_a_trace("actor_unauthenticated", late, None, order)
    much = late.model_copy(update={"limit": 101})
    await counter.refused_without_a_trace("request_invalid", much, order.institution, order)


async def test_a_payout_that_came_back_leaves_the_invoice_and_makes_none_owed(counter: Counter, family: Family) -> None:
    order = await paid_out(counter, family, 1, 2)
    asked = await issued(counter, order, 1)
    for number_ in (1, 2):
        await counter.answers(order, returned(order, number_))
    view = await shown(counter, order)
    assert [(one.invoice_id, one.state) for one in view.invoices] == [(asked.invoice_id, "issued")]
    assert view.owed == ()
    await counter.refused_without_a_trace("invoice_lesson_not_released", issuing(order, 2), order.institution, order)
    await counter.refused_without_a_trace("invoice_exists", issuing(order, 1), order.institution, order)
    for number_ in (1, 2):
        await counter.answers(order, settled(order, number_))
    assert [one.lesson_no for one in (await shown(counter, order)).owed] == [2]
    assert (await lesson(counter, order)).confirmed_by == "guardian"


async def test_an_invoice_is_owed_for_what_the_institution_keeps_of_a_refund(counter: Counter, family: Family) -> None:
    order = await refunds.one_consumed(counter, family)
    refund = await refunds.asked(counter, order)
    await counter.refused_without_a_trace("lesson_unknown", issuing(order, 0), order.institution, order)
    await refunds.ask(counter, refunds.answering(order, refund, agrees=True), order.institution)
    await counter.answers(order, settled(order, 0))
    kept = FEES[1] + FEES[2] - refund.refund_fen
    owed = (await shown(counter, order)).owed
    assert [(one.lesson_no, one.amount_fen) for one in owed] == [(0, kept)]
    await counter.answers(order, settled(order, 1))
    assert [one.lesson_no for one in (await shown(counter, order)).owed] == [0, 1]

    await counter.advance(owed[0].paid_at + timedelta(days=30, minutes=1) - counter.harness.now())
    page = await overdue(counter, order, limit=1)
    assert [(one.lesson_no, one.amount_fen) for one in page.owed] == [(0, kept)]
    page = await overdue(counter, order, after=page.next_after)
    assert [(one.lesson_no, page.next_after) for one in page.owed] == [(1, None)]

    wrong = issuing(order, 0, 1, amount_fen=FEES[0] + kept + 1)
    await counter.refused_without_a_trace("invoice_amount", wrong, order.institution, order)
    one = issuing(order, 0, 1, amount_fen=FEES[0] + kept)
    assert (await counter.harness.ask(one, order.institution)).invoice.lessons == (0, 1)
    assert ((await shown(counter, order)).owed, (await overdue(counter, order)).owed) == ((), ())
    await counter.harness.ask(undoing(one), order.institution)
    assert [one.lesson_no for one in (await shown(counter, order)).owed] == [0, 1]

    await counter.answers(order, returned(order, 0))
    assert [one.lesson_no for one in (await shown(counter, order)).owed] == [1]
    await counter.answers(order, settled(order, 0))
    assert [one.lesson_no for one in (await shown(counter, order)).owed] == [0, 1]


async def test_what_is_owed_for_more_than_thirty_days_is_listed_page_by_page(counter: Counter, family: Family) -> None:
    orders = [await paid_out(counter, family, 1, 2) for _ in range(3)]
    one = orders[0]
    sql = "UPDATE purchases SET institution_id = $1 WHERE order_id = ANY($2)"
    await counter.harness.rows("orders", sql, one.institution_id, [order.order_id for order in orders])
    stranger = await paid_out(counter, family, 1)
    assert (await overdue(counter, one)).owed == ()
    [last] = await counter.harness.rows("orders", "SELECT max(paid_at) AS at FROM lessons")
    await counter.advance(last["at"] + timedelta(days=30) - counter.harness.now() - timedelta(minutes=5))
    assert (await overdue(counter, one)).owed == ()
    await counter.advance(timedelta(minutes=6))

    due = sorted((order.order_id, number) for order in orders for number in (1, 2))
    listed: list[tuple[Any, int]] = []
    after: LessonKey | None = None
    for size in (2, 2, 2):
        page = await overdue(counter, one, AUTHORITY, limit=2, after=after)
        assert (len(page.owed), page.institution_id) == (size, one.institution_id)
        assert all(found.overdue and found.amount_fen == FEES[0] and found.title for found in page.owed)
        listed += [(found.order_id, found.lesson_no) for found in page.owed]
        after = page.next_after
    assert (listed, after) == (due, None)
    assert [found.order_id for found in (await overdue(counter, stranger)).owed] == [stranger.order_id]

    given = [issuing(order, 1, 2) for order in orders[:2]]
    for asked in given:
        await counter.harness.ask(asked, one.institution)
    page = await overdue(counter, one)
    assert [(found.order_id, found.lesson_no) for found in page.owed] == [(orders[2].order_id, n) for n in (1, 2)]
    assert [found.overdue for found in (await shown(counter, orders[2])).owed] == [True, True]
    await counter.harness.ask(undoing(given[0]), one.institution)
    assert len((await overdue(counter, one)).owed) == 4
