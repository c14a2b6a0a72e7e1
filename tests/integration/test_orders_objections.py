"""Objections on the real servers: orders runs alone, the test plays guardians, institutions, authorities and escrow."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest

from shared.actors import Actor
from shared.contracts.envelope import Request
from shared.contracts.escrow import DivideLesson, PayoutReturned, Refunded, ReleaseLesson, Settled
from shared.contracts.orders import (
    AnswerObjection,
    ConfirmLesson,
    DecideObjection,
    LessonAnswer,
    ObjectionDeadline,
    ObjectionMoved,
    ObjectionView,
    ObjectLesson,
    ShowObjection,
)
from shared.ids import new_id
from shared.messaging.rpc import RequestRefused
from shared.working_days import add_working_days
from tests.counter import Counter, Family, Order, counter, family, others, running
from tests.integration.test_orders_lessons import FEES, applied, confirmed, lesson, settled, taught

__all__ = ["counter", "family", "others", "running"]

REASON, EVIDENCE, ANSWER, WHY = "老师没有来上课", "photo-7", "已安排补课", "双方各有责任"
AUTHORITY = Actor("changzhou-edu", "authority")


def objects(order: Order, lesson_no: int = 1) -> ObjectLesson:
    return ObjectLesson(order_id=order.order_id, lesson_no=lesson_no, reason=REASON, evidence=EVIDENCE)


def answers(order: Order, lesson_no: int = 1, text: str = ANSWER, *, accepts: bool = False) -> AnswerObjection:
    return AnswerObjection(order_id=order.order_id, lesson_no=lesson_no, text=text, accepts=accepts)


def decides(order: Order, decision: Any = "split", part_fen: int = 1_000, why: str = WHY) -> DecideObjection:
    return DecideObjection(order_id=order.order_id, lesson_no=1, decision=decision, release_fen=part_fen, reason=why)


def shows(order: Order, lesson_no: int = 1) -> ShowObjection:
    return ShowObjection(order_id=order.order_id, lesson_no=lesson_no)


async def view_of(counter: Counter, request: Request, actor: Actor) -> ObjectionView:
    answer = await counter.harness.ask(request, actor)
    assert isinstance(answer, ObjectionView)
    return answer


async def objected(counter: Counter, family: Family) -> Order:
    """An order whose first lesson is objected to."""
    order = await taught(counter, family)
    await applied(counter, order)
    answer = await counter.harness.ask(objects(order), family.actor)
    assert isinstance(answer, LessonAnswer)
    assert answer.state == "objected"
    return order


async def brought(counter: Counter, family: Family, state: str) -> Order:
    """An order whose first lesson's objection stands in `state`."""
    order = await objected(counter, family)
    if state in ("answered", "decided"):
        await view_of(counter, answers(order), order.institution)
    if state == "decided":
        await view_of(counter, decides(order), AUTHORITY)
    if state == "withdrawn":
        await confirmed(counter, order)
    if state == "unanswered":
        await until_due(counter, order)
    assert (await view_of(counter, shows(order), family.actor)).state == state
    return order


async def until_due(counter: Counter, order: Order, *, less: timedelta = timedelta(0)) -> None:
    """Time passes until the side whose turn it is should have acted."""
    act_by = (await view_of(counter, shows(order), AUTHORITY)).act_by
    assert act_by is not None
    await counter.advance(act_by - counter.harness.now() - less)


async def timers(counter: Counter, order: Order) -> list[tuple[str, Any]]:
    sql = "SELECT subject, due_at FROM timers WHERE key = $1 AND type = $2 ORDER BY subject"
    rows = await counter.harness.rows("orders", sql, str(order.order_id), ObjectionDeadline.TYPE)
    return [(row["subject"], row["due_at"]) for row in rows]


async def moves(counter: Counter, order: Order) -> list[tuple[str, str, bool]]:
    """State, by whom, and whether overdue, of all that was told of the order's objections."""
    sql = "SELECT body::jsonb -> 'data' AS data FROM outbox WHERE key = $1 AND type = $2 ORDER BY seq"
    rows = await counter.harness.rows("orders", sql, str(order.order_id), ObjectionMoved.TYPE)
    told = [ObjectionMoved.model_validate_json(row["data"]) for row in rows]
    return [(one.state, one.by, one.overdue) for one in told]


async def told_escrow(counter: Counter, order: Order) -> list[tuple[str, int | None]]:
    """What escrow was told of lessons of the order: the command, and the part of the institution."""
    sql = "SELECT type, body::jsonb -> 'data' ->> 'release_fen' AS part FROM outbox WHERE key = $1 ORDER BY seq"
    rows = await counter.harness.rows("orders", sql, str(order.order_id))
    commands = (ReleaseLesson.TYPE, DivideLesson.TYPE)
    return [(row["type"], row["part"] and int(row["part"])) for row in rows if row["type"] in commands]


RELEASED = (ReleaseLesson.TYPE, None)


def divided(part_fen: int) -> tuple[str, int]:
    return DivideLesson.TYPE, part_fen


# --- the whole way ------------------------------------------------------------------------------------------------


async def test_an_objection_is_answered_in_time_and_split_and_only_that_lesson_is_held(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family)
    await applied(counter, order, 1)
    await applied(counter, order, 2)
    await counter.harness.ask(objects(order), family.actor)
    due = add_working_days(counter.harness.now(), 5)
    told = await counter.harness.expect(ObjectionMoved, order.order_id)
    assert told == ObjectionMoved(
        order_id=order.order_id,
        account_id=family.account_id,
        institution_id=order.institution_id,
        lesson_no=1,
        state="raised",
        by="guardian",
        act_by=due,
    )
    assert await timers(counter, order) == [(f"{order.order_id}:1", due)]
    await confirmed(counter, order, 2)
    assert await told_escrow(counter, order) == [RELEASED], "the other lesson goes its way"

    seen = await view_of(counter, answers(order), order.institution)
    due = add_working_days(counter.harness.now(), 15)
    assert (seen.state, seen.answer, seen.act_by) == ("answered", ANSWER, due)
    assert (seen.reason, seen.evidence) == (REASON, EVIDENCE)
    assert await timers(counter, order) == [(f"{order.order_id}:1", due)]
    assert await told_escrow(counter, order) == [RELEASED]

    seen = await view_of(counter, decides(order), AUTHORITY)
    assert (seen.state, seen.decision, seen.decided_by, seen.decision_reason) == ("decided", "split", "authority", WHY)
    assert (seen.release_fen, seen.return_fen, seen.act_by) == (1_000, FEES[0] - 1_000, None)
    assert await told_escrow(counter, order) == [RELEASED, divided(1_000)]
    assert await timers(counter, order) == []
    assert await moves(counter, order) == [
        ("raised", "guardian", False),
        ("answered", "institution", False),
        ("decided", "authority", False),
    ]
    for actor in (family.actor, order.institution, AUTHORITY):
        assert await view_of(counter, shows(order), actor) == seen

    shown = await counter.show(order)
    assert (shown.lessons[0].state, shown.lessons[0].confirmed_by) == ("divided", "")
    assert shown.lessons[0].returned_fen == shown.refunded_fen == FEES[0] - 1_000
    assert (shown.consumed_lessons, shown.consumed_fen) == (1, FEES[1] + 1_000)
    assert (shown.left_lessons, shown.left_fen) == (1, FEES[2])


@pytest.mark.parametrize("state", ["answered", "unanswered"])
@pytest.mark.parametrize("decision", ["release", "return"])
async def test_an_authority_confirms_a_lesson_or_gives_all_of_its_fee_back(
    counter: Counter, family: Family, state: str, decision: str
) -> None:
    order = await brought(counter, family, state)
    await view_of(counter, decides(order, decision, 0), AUTHORITY)
    released = decision == "release"
    assert await told_escrow(counter, order) == [RELEASED if released else divided(0)]
    seen, shown = await lesson(counter, order), await counter.show(order)
    assert (seen.state, seen.confirmed_by) == (("confirmed", "authority") if released else ("divided", ""))
    assert (shown.consumed_fen, shown.refunded_fen) == ((FEES[0], 0) if released else (0, FEES[0]))
    assert shown.left_fen == FEES[1] + FEES[2]
    assert await timers(counter, order) == []
    if released:
        await counter.answers(order, settled(order))
        assert (await lesson(counter, order)).state == "paid_out"


@pytest.mark.parametrize("state", ["raised", "answered", "unanswered"])
async def test_an_institution_that_agrees_gives_the_fee_back_without_the_authority(
    counter: Counter, family: Family, state: str
) -> None:
    order = await brought(counter, family, state)
    accepting = answers(order, text="同意退还", accepts=True)
    seen = await view_of(counter, accepting, order.institution)
    assert (seen.state, seen.decision, seen.decided_by, seen.return_fen) == (
        "decided",
        "return",
        "institution",
        FEES[0],
    )
    assert await told_escrow(counter, order) == [divided(0)]
    assert await timers(counter, order) == []
    assert (await moves(counter, order))[-1] == ("decided", "institution", False)
    await counter.refused_without_a_trace("objection_state", decides(order), AUTHORITY, order)


@pytest.mark.parametrize("state", ["raised", "answered", "unanswered"])
async def test_a_guardian_who_confirms_after_all_withdraws_the_objection(
    counter: Counter, family: Family, state: str
) -> None:
    order = await brought(counter, family, state)
    assert (await confirmed(counter, order)).state == "confirmed"
    assert (await view_of(counter, shows(order), family.actor)).state == "withdrawn"
    assert await told_escrow(counter, order) == [RELEASED]
    assert await timers(counter, order) == []
    assert (await moves(counter, order))[-1] == ("withdrawn", "guardian", False)
    before = await counter.trace(order)
    await counter.answers(order, ObjectionDeadline(order_id=order.order_id, lesson_no=1))
    assert await counter.trace(order) == before


# --- deadlines ----------------------------------------------------------------------------------------------------


async def test_a_silent_institution_passes_its_turn_to_the_authority_and_a_late_authority_is_told_again_and_again(
    counter: Counter, family: Family
) -> None:
    order = await objected(counter, family)
    before = await counter.trace(order)
    await until_due(counter, order, less=timedelta(seconds=20))
    await counter.answers(order, ObjectionDeadline(order_id=order.order_id, lesson_no=1))
    assert await counter.trace(order) == before, "not before its time, whoever says so"

    await counter.advance(timedelta(seconds=20))
    decide_by = add_working_days(counter.harness.now(), 15)
    seen = await view_of(counter, shows(order), AUTHORITY)
    assert (seen.state, seen.act_by) == ("unanswered", decide_by)
    assert await timers(counter, order) == [(f"{order.order_id}:1", decide_by)]
    await counter.refused_without_a_trace("objection_state", answers(order), order.institution, order)

    for overdue in (1, 2):
        await until_due(counter, order)
        seen = await view_of(counter, shows(order), AUTHORITY)
        assert (seen.state, seen.overdue) == ("unanswered", overdue)
        assert seen.act_by == add_working_days(counter.harness.now(), 5)
        assert await timers(counter, order) == [(f"{order.order_id}:1", seen.act_by)]
    assert (await lesson(counter, order)).state == "objected"
    assert await told_escrow(counter, order) == [], "no money moves because somebody is late"
    assert await moves(counter, order) == [
        ("raised", "guardian", False),
        ("unanswered", "deadline", False),
        ("unanswered", "deadline", True),
        ("unanswered", "deadline", True),
    ]
    assert (await view_of(counter, decides(order, "return", 0), AUTHORITY)).state == "decided"


# --- refusals -----------------------------------------------------------------------------------------------------


async def test_only_who_may_speaks_about_an_objection(counter: Counter, family: Family, others: Family) -> None:
    order = await brought(counter, family, "answered")
    stranger = Actor(str(new_id()), "institution")
    wrong: dict[Request, list[Actor]] = {
        objects(order): [others.actor, order.institution, AUTHORITY],
        answers(order): [others.actor, family.actor, stranger, AUTHORITY],
        answers(order, accepts=True): [family.actor, stranger, AUTHORITY],
        decides(order): [family.actor, order.institution, Actor("changzhou-edu", "operator")],
        shows(order): [Actor("changzhou-edu", "operator"), Actor("icbc", "bank")],
    }
    for request, actors in wrong.items():
        await counter.refused_without_a_trace("actor_unauthenticated", request, None, order)
        for actor in actors:
            await counter.refused_without_a_trace("actor_forbidden", request, actor, order)
    for actor in (others.actor, stranger):
        await counter.refused_without_a_trace("order_unknown", shows(order), actor, order)


async def test_what_is_not_there_is_unknown(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    await applied(counter, order)
    actors = (order.institution, AUTHORITY, family.actor)
    for request, actor in zip((answers(order), decides(order), shows(order)), actors, strict=True):
        await counter.refused_without_a_trace("objection_unknown", request, actor, order)
        nine = request.model_copy(update={"lesson_no": 9})
        await counter.refused_without_a_trace("lesson_unknown", nine, actor, order)
        nobody = request.model_copy(update={"order_id": new_id()})
        await counter.refused_without_a_trace("order_unknown", nobody, actor, order)
        zero = request.model_copy(update={"lesson_no": 0})
        await counter.refused_without_a_trace("request_invalid", zero, actor, order)
    before = await counter.trace(order)
    await counter.answers(order, ObjectionDeadline(order_id=order.order_id, lesson_no=1))
    assert await counter.trace(order) == before


async def test_bad_input_is_refused(counter: Counter, family: Family) -> None:
    order = await brought(counter, family, "answered")
    invalid: list[tuple[Request, Actor]] = [
        (objects(order).model_copy(update={"evidence": "x" * 201}), family.actor),
        (answers(order, text=" "), order.institution),
        (answers(order).model_copy(update={"text": "x" * 501}), order.institution),
        (decides(order).model_copy(update={"reason": " "}), AUTHORITY),
        (decides(order).model_copy(update={"decision": "keep"}), AUTHORITY),
        (decides(order).model_copy(update={"release_fen": -1}), AUTHORITY),
    ]
    for request, actor in invalid:
        await counter.refused_without_a_trace("request_invalid", request, actor, order)
    for decision, part_fen in (("split", 0), ("split", FEES[0]), ("release", 1), ("return", 1)):
        await counter.refused_without_a_trace("amount_invalid", decides(order, decision, part_fen), AUTHORITY, order)


@pytest.mark.parametrize(
    ("what", "state"),
    [
        ("answer", "answered"),
        ("answer", "unanswered"),
        ("answer", "decided"),
        ("answer", "withdrawn"),
        ("accept", "decided"),
        ("accept", "withdrawn"),
        ("decide", "raised"),
        ("decide", "decided"),
        ("decide", "withdrawn"),
    ],
)
async def test_an_objection_in_another_state_is_refused(
    counter: Counter, family: Family, what: str, state: str
) -> None:
    order = await brought(counter, family, state)
    asks: dict[str, tuple[Request, Actor]] = {
        "answer": (answers(order, text="老师生病"), order.institution),
        "accept": (answers(order, accepts=True), order.institution),
        "decide": (decides(order, "return", 0), AUTHORITY),
    }
    await counter.refused_without_a_trace("objection_state", *asks[what], order)


async def test_a_lesson_that_was_divided_is_settled_for_good(counter: Counter, family: Family) -> None:
    order = await brought(counter, family, "decided")
    confirm = ConfirmLesson(order_id=order.order_id, lesson_no=1)
    for request in (confirm, objects(order)):
        await counter.refused_without_a_trace("lesson_state", request, family.actor, order)
    about: dict[str, Any] = {"order_id": order.order_id, "amount_fen": 1_000}
    before = await counter.trace(order)
    part = settled(order).model_copy(update={"amount_fen": 1_000})
    back = Refunded(account_id=family.account_id, lesson_no=1, **about)
    returned = PayoutReturned(institution_id=order.institution_id, lesson_no=1, reason="account closed", **about)
    for told in (part, back, returned):
        await counter.answers(order, told)
    assert await counter.trace(order) == before
    await counter.answers(order, part)
    (row,) = await counter.harness.rows(
        "orders", "SELECT state, paid_at FROM lessons WHERE order_id = $1 AND lesson_no = 1", order.order_id
    )
    assert row["state"] == "divided"
    assert row["paid_at"] is not None, "an invoice is owed for the institution's part"


async def test_what_an_institution_keeps_of_a_refund_is_of_no_lesson(counter: Counter, family: Family) -> None:
    order = await taught(counter, family)
    about: dict[str, Any] = {"order_id": order.order_id, "institution_id": order.institution_id, "lesson_no": 0}
    before = await counter.trace(order)
    await counter.answers(order, Settled(account_id=family.account_id, amount_fen=10, **about))
    await counter.answers(order, PayoutReturned(amount_fen=10, reason="account closed", **about))
    assert await counter.trace(order) == before
    assert await counter.harness.rows("orders", "SELECT 1 FROM inbox WHERE parked IS NOT NULL") == []


# --- at the same moment -------------------------------------------------------------------------------------------


async def test_who_confirms_accepts_or_decides_first_settles_it_and_the_fee_goes_one_way(
    counter: Counter, family: Family
) -> None:
    order = await taught(counter, family, 8)
    numbers = range(1, 9)
    for number in numbers:
        await applied(counter, order, number)
        await counter.harness.ask(objects(order, number), family.actor)
        await view_of(counter, answers(order, number), order.institution)

    async def any_of(request: Request, actor: Actor) -> None:
        try:
            await counter.harness.ask(request, actor)
        except RequestRefused as refused:
            if refused.code not in ("lesson_state", "objection_state"):
                raise

    asks: list[tuple[Request, Actor]] = []
    for number in numbers:
        lesson_no = {"lesson_no": number}
        asks.append((ConfirmLesson(order_id=order.order_id, **lesson_no), family.actor))
        asks.append((answers(order, number, accepts=True), order.institution))
        asks.append((decides(order).model_copy(update=lesson_no), AUTHORITY))
    random.Random(order.order_id.int).shuffle(asks)
    await asyncio.gather(*(any_of(*one) for one in asks))

    sql = """SELECT type, (body::jsonb -> 'data' ->> 'lesson_no')::int AS lesson_no FROM outbox
             WHERE key = $1 AND type = ANY($2) ORDER BY 2"""
    commands = [ReleaseLesson.TYPE, DivideLesson.TYPE]
    said = await counter.harness.rows("orders", sql, str(order.order_id), commands)
    assert [row["lesson_no"] for row in said] == list(numbers), "one command for each"
    shown = await counter.show(order)
    for row, one in zip(said, shown.lessons, strict=True):
        assert one.state == ("confirmed" if row["type"] == ReleaseLesson.TYPE else "divided")
        seen = await view_of(counter, shows(order, one.lesson_no), family.actor)
        assert (seen.state, one.confirmed_by) == (
            ("withdrawn", "guardian") if one.state == "confirmed" else ("decided", "")
        )
        assert seen.return_fen == one.returned_fen
    assert shown.consumed_fen + shown.refunded_fen == 10_000
    assert await timers(counter, order) == []


# --- asked again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "state"), [("object", "raised"), ("answer", "raised"), ("accept", "answered"), ("decide", "answered")]
)
async def test_the_same_again_gets_the_same_answer_and_changes_nothing(
    counter: Counter, family: Family, what: str, state: str
) -> None:
    order = await brought(counter, family, state)
    request, actor = {
        "object": (objects(order), family.actor),
        "answer": (answers(order), order.institution),
        "accept": (answers(order, accepts=True), order.institution),
        "decide": (decides(order), AUTHORITY),
    }[what]
    message_id = new_id()
    first = await counter.harness.ask(request, actor, message_id=message_id)
    before = await counter.trace(order)
    assert await counter.harness.ask(request, actor, message_id=message_id) == first
    assert await counter.harness.ask(request, actor) == first, "with a new message id too"
    assert await counter.trace(order) == before
