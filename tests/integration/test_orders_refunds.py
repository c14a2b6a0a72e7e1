"""Refunds on the real servers: orders runs alone, the test plays guardians, institutions, authorities and escrow."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from shared.actors import Actor
from shared.contracts.catalog import GiveBackSeat
from shared.contracts.envelope import Request
from shared.contracts.escrow import DivideLesson, RefundDelayed, Refunded, RefundOrder
from shared.contracts.orders import (
    AnswerRefund,
    ApplyLesson,
    DecideRefund,
    ListRefunds,
    PlanWindUp,
    QuoteRefund,
    RefundDeadline,
    RefundMoved,
    RefundPage,
    RefundQuote,
    RefundView,
    RequestRefund,
    ShowRefund,
    ShowWindUp,
    StartWindUp,
    WindUpView,
    WithdrawRefund,
    WoundUp,
)
from shared.ids import new_id
from shared.working_days import add_working_days
from tests.counter import Counter, Family, Order, counter, family, others, running
from tests.integration.test_orders_lessons import FEES, applied, confirmed, deadlines, objected, taught

__all__ = ["counter", "family", "others", "running"]

AUTHORITY = Actor("changzhou-edu", "authority")


def less_penalty(fee_fen: int) -> int:
    """What is left of a fee: these contracts let the institution keep 5 %."""
    return fee_fen - fee_fen * 500 // 10_000


TWO_FEN = less_penalty(FEES[1] + FEES[2])


def asking(order: Order, quoted_fen: int, **more: Any) -> RequestRefund:
    return RequestRefund(order_id=order.order_id, refund_id=new_id(), reason="孩子转学", quoted_fen=quoted_fen, **more)


async def quoted(counter: Counter, order: Order, **more: Any) -> RefundQuote:
    answer = await counter.harness.ask(QuoteRefund(order_id=order.order_id, **more), order.family.actor)
    assert isinstance(answer, RefundQuote)
    return answer


async def ask(counter: Counter, request: Request, actor: Actor) -> RefundView:
    answer = await counter.harness.ask(request, actor)
    assert isinstance(answer, RefundView)
    return answer


async def asked(counter: Counter, order: Order, quoted_fen: int = TWO_FEN, **more: Any) -> RefundView:
    return await ask(counter, asking(order, quoted_fen, **more), order.family.actor)


async def one_consumed(counter: Counter, family: Family) -> Order:
    """An order of three lessons, the first of which is confirmed, so that its institution has a say."""
    order = await taught(counter, family)
    await applied(counter, order)
    await confirmed(counter, order)
    return order


async def states(counter: Counter, order: Order) -> list[str]:
    return [lesson.state for lesson in (await counter.show(order)).lessons]


async def commands(counter: Counter, order: Order) -> list[RefundOrder]:
    await counter.harness.expect_recorded()
    return counter.harness.seen(RefundOrder, order.order_id)


def answering(order: Order, refund: RefundView, agrees: bool, **more: Any) -> AnswerRefund:
    return AnswerRefund(order_id=order.order_id, refund_id=refund.refund_id, agrees=agrees, **more)


def deciding(order: Order, refund: RefundView, granted: bool, **more: Any) -> DecideRefund:
    return DecideRefund(order_id=order.order_id, refund_id=refund.refund_id, granted=granted, reason="经核查", **more)


def refunded(order: Order, amount_fen: int) -> Refunded:
    return Refunded(order_id=order.order_id, account_id=order.family.account_id, amount_fen=amount_fen)


# --- the whole way ----------------------------------------------------------------------------------------------------


async def test_before_the_first_lesson_everything_goes_back_at_once(counter: Counter, family: Family) -> None:
    order = await taught(counter, family, 0, to_come=3)
    quote = await quoted(counter, order)
    assert (quote.ground, quote.refund_fen, quote.needs_answer) == ("full_refund_window", sum(FEES), False)
    request = asking(order, quote.refund_fen)
    refund = await ask(counter, request, family.actor)
    assert (refund.state, refund.lessons, refund.refund_fen) == ("paying", (1, 2, 3), sum(FEES))
    assert refund.act_by == refund.asked_at + timedelta(days=15)
    command = await counter.harness.expect(RefundOrder, order.order_id)
    assert (command.lessons, command.deduction_fen) == ((1, 2, 3), 0)
    await counter.harness.expect(GiveBackSeat, order.order_id)
    assert await states(counter, order) == ["refunding"] * 3

    again = await ask(counter, request, family.actor)
    assert again == refund
    assert len(await commands(counter, order)) == 1
    await counter.answers(order, refunded(order, refund.refund_fen))
    shown = await ask(counter, ShowRefund(order_id=order.order_id), family.actor)
    assert (shown.state, shown.act_by) == ("paid", None)
    assert await states(counter, order) == ["refunded"] * 3
    seen = await counter.show(order)
    assert (seen.state, seen.left_lessons, seen.left_fen) == ("enrolled", 0, 0)


async def test_an_institution_that_is_silent_for_five_working_days_agrees(counter: Counter, family: Family) -> None:
    order = await one_consumed(counter, family)
    refund = await asked(counter, order)
    assert (refund.state, refund.lessons) == ("asked", (2, 3))
    assert refund.act_by == add_working_days(counter.harness.now(), 5)
    assert await commands(counter, order) == []
    assert refund.act_by is not None
    await counter.advance(refund.act_by - counter.harness.now() - timedelta(minutes=1))
    assert (await ask(counter, ShowRefund(order_id=order.order_id), order.institution)).state == "asked"
    await counter.advance(timedelta(minutes=2))
    shown = await ask(counter, ShowRefund(order_id=order.order_id), family.actor)
    assert (shown.state, shown.answer) == ("paying", "逾期未答复，视为同意")
    assert [one.lessons for one in await commands(counter, order)] == [(2, 3)]
    # Nor is the bank waited for in silence.
    assert shown.act_by is not None
    await counter.advance(shown.act_by - counter.harness.now() + timedelta(minutes=1))
    late = await ask(counter, ShowRefund(order_id=order.order_id), family.actor)
    assert (late.state, late.overdue) == ("paying", True)
    moved = await counter.harness.expect(RefundMoved, order.order_id, state="paying", overdue=True)
    assert moved.refund_fen == TWO_FEN
    assert len(await commands(counter, order)) == 2, "escrow is asked again"
    await counter.answers(order, refunded(order, TWO_FEN))
    assert (await ask(counter, ShowRefund(order_id=order.order_id), family.actor)).overdue is False


async def test_an_institution_objects_and_the_authority_grants_a_part(counter: Counter, family: Family) -> None:
    order = await one_consumed(counter, family)
    refund = await asked(counter, order)
    objected = answering(order, refund, agrees=False, words="第2课已上")
    contested = await ask(counter, objected, order.institution)
    assert (contested.state, contested.answer) == ("contested", "不同意：第2课已上")
    listed = await counter.harness.ask(ListRefunds(which="contested", limit=100), AUTHORITY)
    assert isinstance(listed, RefundPage)
    assert refund.refund_id in [one.refund_id for one in listed.refunds]
    decision = deciding(order, refund, granted=True, lessons=(3,), deduction_fen=34)
    decided = await ask(counter, decision, AUTHORITY)
    assert (decided.state, decided.lessons, decided.refund_fen) == ("paying", (3,), FEES[2] - 34)
    assert await ask(counter, decision, AUTHORITY) == decided
    assert [(one.lessons, one.deduction_fen) for one in await commands(counter, order)] == [((3,), 34)]
    assert await states(counter, order) == ["confirmed", "planned", "refunding"]
    await applied(counter, order, 2)


async def test_a_refund_that_is_rejected_or_withdrawn_leaves_its_lessons_to_be_taught(
    counter: Counter, family: Family
) -> None:
    order = await one_consumed(counter, family)
    refund = await asked(counter, order)
    await ask(counter, answering(order, refund, agrees=False), order.institution)
    rejected = await ask(counter, deciding(order, refund, granted=False), AUTHORITY)
    assert (rejected.state, await states(counter, order)) == ("rejected", ["confirmed", "planned", "planned"])
    again = await asked(counter, order)
    taken_back = WithdrawRefund(order_id=order.order_id, refund_id=again.refund_id)
    assert (await ask(counter, taken_back, family.actor)).state == "withdrawn"
    assert (await ask(counter, taken_back, family.actor)).state == "withdrawn"
    await applied(counter, order, 2)
    assert await commands(counter, order) == []
    rows = await counter.harness.rows("orders", "SELECT 1 FROM timers WHERE type = $1 AND key = $2", *timer(order))
    assert rows == []


def timer(order: Order) -> tuple[str, str]:
    return RefundDeadline.TYPE, str(order.order_id)


async def test_lessons_that_wait_are_excluded_by_name_and_go_on(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    await applied(counter, order, 1)
    await applied(counter, order, 2)
    await objected(counter, order, 2)
    await counter.refused_without_a_trace(
        "refund_pending", asking(order, less_penalty(FEES[2]), excluded=(1,)), family.actor, order
    )
    refund = await asked(counter, order, less_penalty(FEES[2]), excluded=(1, 2))
    assert refund.lessons == (3,)
    await confirmed(counter, order, 1)
    assert await states(counter, order) == ["confirmed", "objected", "refunding"]
    assert await deadlines(counter, order) == []


async def test_a_refund_the_bank_delays_is_on_a_persons_list_until_it_is_paid(counter: Counter, family: Family) -> None:
    order = await taught(counter, family, 0, to_come=3)
    refund = await asked(counter, order, sum(FEES))
    delay = RefundDelayed(
        order_id=order.order_id,
        institution_id=order.institution_id,
        lesson_no=0,
        amount_fen=refund.refund_fen,
        outcome="refused",
        reason="account_closed",
    )
    await counter.answers(order, delay)

    async def troubled() -> list[tuple[UUID, str]]:
        page = await counter.harness.ask(ListRefunds(which="trouble", limit=100), Actor("ops-1", "operator"))
        assert isinstance(page, RefundPage)
        return [(one.order_id, one.trouble) for one in page.refunds if one.order_id == order.order_id]

    assert await troubled() == [(order.order_id, "refused: account_closed")]
    await counter.answers(order, refunded(order, refund.refund_fen))
    assert await troubled() == []
    await counter.answers(order, delay.model_copy(update={"outcome": "returned"}))
    assert await troubled() == [(order.order_id, "returned: account_closed")]
    assert await states(counter, order) == ["refunding"] * 3
    await counter.answers(order, refunded(order, refund.refund_fen))
    assert await states(counter, order) == ["refunded"] * 3


async def test_what_escrow_refuses_is_for_a_person(counter: Counter, family: Family) -> None:
    order = await taught(counter, family, 0, to_come=3)
    await asked(counter, order, sum(FEES))
    await counter.answers(order, counter.refused("lesson_settled", RefundOrder))
    shown = await ask(counter, ShowRefund(order_id=order.order_id), family.actor)
    assert (shown.state, shown.trouble) == ("paying", "refused: lesson_settled")
    assert await counter.state(order) == "enrolled"


# --- a refund and a lesson --------------------------------------------------------------------------------------------


async def test_what_is_asked_back_is_not_filed_and_what_is_filed_is_not_asked_back(
    counter: Counter, family: Family
) -> None:
    order = await one_consumed(counter, family)
    await asked(counter, order)
    filing = ApplyLesson(order_id=order.order_id, lesson_no=2)
    await counter.refused_without_a_trace("lesson_state", filing, order.institution, order)


# --- bad requests -----------------------------------------------------------------------------------------------------


async def test_bad_requests_are_refused_and_change_nothing(counter: Counter, family: Family, others: Family) -> None:
    order = await one_consumed(counter, family)
    strangers: dict[str, tuple[Request, Actor | None]] = {
        "actor_forbidden": (asking(order, TWO_FEN), others.actor),
        "actor_unauthenticated": (asking(order, TWO_FEN), None),
        "refund_changed": (asking(order, TWO_FEN - 1), family.actor),
        "refund_unknown": (ShowRefund(order_id=order.order_id), family.actor),
        "order_unknown": (QuoteRefund(order_id=new_id()), family.actor),
    }
    for code, (request, actor) in strangers.items():
        await counter.refused_without_a_trace(code, request, actor, order)
    refund = await asked(counter, order)
    for code, request, actor in (
        ("refund_exists", asking(order, TWO_FEN), family.actor),
        ("refund_exists", QuoteRefund(order_id=order.order_id), family.actor),
        ("refund_unknown", ShowRefund(order_id=order.order_id), others.actor),
        ("actor_forbidden", answering(order, refund, agrees=True), Actor(str(new_id()), "institution")),
        ("amount_invalid", answering(order, refund, agrees=True, used_materials_fen=1), order.institution),
        ("refund_state", deciding(order, refund, granted=True), AUTHORITY),
        ("actor_forbidden", deciding(order, refund, granted=True), family.actor),
        (
            "refund_unknown",
            WithdrawRefund(order_id=order.order_id, refund_id=new_id()),
            family.actor,
        ),
        ("actor_forbidden", ListRefunds(which="asked"), order.institution),
        ("actor_forbidden", StartWindUp(institution_id=order.institution_id, reason="失联"), order.institution),
        ("windup_unknown", ShowWindUp(institution_id=order.institution_id), AUTHORITY),
    ):
        await counter.refused_without_a_trace(code, request, actor, order)


async def test_nothing_is_refunded_of_a_purchase_that_is_not_in_its_course(counter: Counter, family: Family) -> None:
    order = await counter.bring(family, "to_pay")
    await counter.refused_without_a_trace("order_state", asking(order, 1), family.actor, order)
    order = await one_consumed(counter, family)
    for lesson_no in (2, 3):
        await applied(counter, order, lesson_no)
        await confirmed(counter, order, lesson_no)
    await counter.refused_without_a_trace("refund_nothing", asking(order, 0), family.actor, order)


@pytest.mark.parametrize("state", ["placed", "to_sign", "paying"])
async def test_what_is_not_paid_has_nothing_to_give_back(counter: Counter, family: Family, state: str) -> None:
    order = await counter.bring(family, state)
    quote = QuoteRefund(order_id=order.order_id)
    for asked_for in (asking(order, 0), asking(order, 1), quote):
        await counter.refused_without_a_trace("order_state", asked_for, family.actor, order)


# --- an institution that is gone --------------------------------------------------------------------------------------


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.orders.refunds.winding_up.ORDERS_AT_ONCE", 2)


async def wind_up(counter: Counter, institution_id: UUID, request: type[PlanWindUp] | type[ShowWindUp]) -> WindUpView:
    answer = await counter.harness.ask(request(institution_id=institution_id), AUTHORITY)
    assert isinstance(answer, WindUpView)
    return answer


@pytest.mark.usefixtures("small_steps")
async def test_of_an_institution_that_is_gone_everything_unconsumed_goes_back(counter: Counter, family: Family) -> None:
    institution_id = new_id()
    orders = []
    for prepare in (one_consumed, one_consumed, one_consumed, unpaid, one_consumed):
        order = await prepare(counter, family)
        sql = "UPDATE purchases SET institution_id = $1 WHERE order_id = $2"
        await counter.harness.rows("orders", sql, institution_id, order.order_id)
        order.institution_id = institution_id
        orders.append(order)
    contested = await asked(counter, orders[1])
    await ask(counter, answering(orders[1], contested, agrees=False), orders[1].institution)
    await applied(counter, orders[2], 2)

    plan = await wind_up(counter, institution_id, PlanWindUp)
    assert (plan.orders, plan.lessons, plan.refund_fen) == (4, 7, 4 * FEES[2] + 3 * FEES[1])
    assert (plan.given_up, plan.pending, plan.started_at) == (1, 1, None)
    start = StartWindUp(institution_id=institution_id, reason="机构失联")
    begun = await counter.harness.ask(start, AUTHORITY)
    assert isinstance(begun, WindUpView)
    await counter.harness.expect(WoundUp, institution_id)
    done = await wind_up(counter, institution_id, ShowWindUp)
    assert (done.done_orders, done.done_fen) == (plan.orders, plan.refund_fen)
    assert done.finished_at is not None
    for order, wanted in zip(orders, ([2, 3], [2, 3], [3], None, [2, 3]), strict=True):
        told = [list(one.lessons) for one in await commands(counter, order)]
        assert told == ([wanted] if wanted else [])
    assert await counter.state(orders[3]) == "ended"
    assert await states(counter, orders[2]) == ["confirmed", "applied", "refunding"]

    # Once more: it looks at everything and finds nothing to do.
    said = [await counter.said(order) for order in orders]
    await counter.harness.ask(start, AUTHORITY)
    await counter.harness.until(lambda: len(counter.harness.seen(WoundUp, institution_id)) == 2)
    assert (await wind_up(counter, institution_id, ShowWindUp)).done_orders == 0
    assert [await counter.said(order) for order in orders] == said


async def test_what_an_authority_left_out_of_a_refund_goes_back_when_the_institution_is_gone(
    counter: Counter, family: Family
) -> None:
    order = await one_consumed(counter, family)
    refund = await asked(counter, order)
    await ask(counter, answering(order, refund, agrees=False), order.institution)
    await ask(counter, deciding(order, refund, granted=True, lessons=(3,)), AUTHORITY)
    await counter.answers(order, refunded(order, FEES[2]))
    assert await states(counter, order) == ["confirmed", "planned", "refunded"]
    await counter.refused_without_a_trace("refund_exists", asking(order, FEES[1]), family.actor, order)

    plan = await wind_up(counter, order.institution_id, PlanWindUp)
    assert (plan.orders, plan.lessons, plan.refund_fen) == (1, 1, FEES[1])
    await counter.harness.ask(StartWindUp(institution_id=order.institution_id, reason="机构失联"), AUTHORITY)
    told = await counter.harness.expect(WoundUp, order.institution_id)
    assert (told.orders, told.refund_fen) == (1, FEES[1])
    command = await counter.harness.expect(DivideLesson, order.order_id)
    assert (command.lesson_no, command.release_fen) == (2, 0)
    shown = await counter.show(order)
    assert (shown.consumed_fen, shown.refunded_fen, shown.left_fen) == (FEES[0], FEES[1] + FEES[2], 0)


async def test_an_id_of_another_order_and_another_answer_or_decision_are_refused(
    counter: Counter, family: Family
) -> None:
    order, other = await one_consumed(counter, family), await one_consumed(counter, family)
    refund = await asked(counter, order)
    again = asking(other, TWO_FEN).model_copy(update={"refund_id": refund.refund_id})
    await counter.refused_without_a_trace("refund_exists", again, family.actor, other)
    await ask(counter, answering(order, refund, agrees=False), order.institution)
    await ask(counter, deciding(order, refund, granted=False), AUTHORITY)
    for request in (deciding(order, refund, granted=True), deciding(order, refund, granted=True, lessons=(2,))):
        await counter.refused_without_a_trace("refund_state", request, AUTHORITY, order)


async def unpaid(counter: Counter, family: Family) -> Order:
    return await counter.bring(family, "to_pay")
