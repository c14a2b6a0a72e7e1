"""escrow on the real servers: money that belongs nowhere is booked, matched, sent back, and never unseen for long."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from services.escrow import audit
from services.escrow.domain import ASK_AGAIN_AFTER, RETRY_REFUSED_AFTER
from shared.actors import Actor
from shared.contracts.bank import Instruct, Result
from shared.contracts.envelope import Data, Reply, Request
from shared.contracts.escrow import (
    CancelPayment,
    CollectPayment,
    Held,
    ListSuspense,
    ListTrouble,
    MatchSuspense,
    PaymentDeadline,
    Refunded,
    RefundOrder,
    ReturnDeadline,
    ReturnSuspense,
    SuspenseBooked,
    SuspenseDeadline,
    SuspenseMatched,
    SuspenseOverdue,
    SuspensePage,
    SuspenseReopened,
    SuspenseReturned,
    SuspenseView,
    TroublePage,
    TroubleView,
)
from shared.ids import instruction_number, new_id
from shared.working_days import add_working_days
from tests.escrowkit import LESSON_FEN, OPERATOR, PRICE_FEN, Escrow, only, result
from tests.harness import Harness

pytestmark = pytest.mark.usefixtures("books_are_right")

WHY = "家长出示转账凭证"


async def ended(escrow: Escrow, how: str) -> tuple[CollectPayment, Instruct]:
    """A purchase that waits for money no more: `expired`, `cancelled`, or refused by the bank."""
    ask, collect = await escrow.asked()
    words: dict[str, Data] = {
        "expired": PaymentDeadline(order_id=ask.order_id),
        "cancelled": CancelPayment(order_id=ask.order_id, reason="cancelled"),
        "refused": result(collect, outcome="refused", reference=f"no-{collect.number}"),
    }
    await escrow.at_once(words[how])
    return ask, collect


def unasked(amount_fen: int = PRICE_FEN, **changes: Any) -> Result:
    """Money for a number that nobody gave."""
    values: dict[str, Any] = {
        "number": f"X{new_id().hex[:20]}",
        "kind": "collect",
        "outcome": "paid",
        "amount_fen": amount_fen,
        "bank": "icbc",
        "reference": f"ref-{new_id()}",
        "account": "S-1",
        "happened_at": "2026-11-23T12:00:00+08:00",
    }
    return Result.model_validate(values | changes)


async def booked(escrow: Escrow, told: Result | None = None) -> SuspenseBooked:
    """Money in suspense."""
    return only(SuspenseBooked, await escrow.at_once(told or unasked()))


async def decide(escrow: Escrow, request: Request) -> tuple[SuspenseView, list[Data]]:
    """An operator asks; the answer, and what else escrow has said because of it."""
    message_id = new_id()
    view = await escrow.harness.ask(request, OPERATOR, message_id=message_id)
    assert isinstance(view, SuspenseView)
    return view, [one for one in await escrow.said([message_id]) if not isinstance(one, Reply)]


async def row(escrow: Escrow, receipt_id: UUID) -> Any:
    """A receipt as stored."""
    (found,) = await escrow.harness.rows("escrow", "SELECT * FROM suspense WHERE receipt_id = $1", receipt_id)
    return found


async def timers(escrow: Escrow, receipt_id: UUID) -> dict[str, datetime]:
    """The timers of a receipt."""
    found = await escrow.harness.rows("escrow", "SELECT * FROM timers WHERE key = $1", str(receipt_id))
    return {one["type"]: one["due_at"] for one in found}


async def told(escrow: Escrow, number: str, times: int = 1) -> Instruct:
    """What the bank was told under a number, when it has been told so many times."""

    def found() -> list[Instruct]:
        return [one for one in escrow.harness.seen(Instruct) if one.number == number]

    await escrow.harness.until(lambda: len(found()) >= times)
    assert len({one.model_dump_json() for one in found()}) == 1, "the same number always says the same"
    return found()[0]


# --- booked, each for its reason --------------------------------------------------------------------------------------


async def late(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await ended(escrow, "expired")
    return ask, result(collect)


async def given_up(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await ended(escrow, "cancelled")
    return ask, result(collect)


async def refused_before(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await ended(escrow, "refused")
    return ask, result(collect)


async def double(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await escrow.asked()
    await escrow.at_once(result(collect))
    return ask, result(collect, reference=f"second-{collect.number}")


async def after_its_refund(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await escrow.asked()
    await escrow.at_once(result(collect))
    await escrow.at_once(result(await escrow.refund(ask)))
    return ask, result(collect, reference=f"second-{collect.number}")


async def short(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await escrow.asked()
    return ask, result(collect, amount_fen=PRICE_FEN - 1)


async def over(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await escrow.asked()
    return ask, result(collect, amount_fen=PRICE_FEN + 1)


async def nobodys(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    return None, unasked()


async def an_attempt_nobody_made(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await escrow.asked()
    return ask, result(collect, number=instruction_number("C", ask.order_id, 0, 1))


async def an_order_nobody_has(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    return None, unasked(number=instruction_number("C", new_id(), 0, 0))


async def another_bank(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await escrow.asked()
    return ask, result(collect, bank="abc")


async def another_institutions_account(escrow: Escrow) -> tuple[CollectPayment | None, Result]:
    ask, collect = await escrow.asked()
    return ask, result(collect, account="S-2")


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (late, "late"),
        (given_up, "dead"),
        (refused_before, "dead"),
        (double, "double"),
        (after_its_refund, "double"),
        (short, "short"),
        (over, "over"),
        (nobodys, "unknown_number"),
        (an_attempt_nobody_made, "unknown_number"),
        (an_order_nobody_has, "unknown_number"),
        (another_bank, "foreign"),
        (another_institutions_account, "foreign"),
    ],
)
async def test_money_that_belongs_nowhere_is_booked_at_once_with_its_reason_and_a_deadline(
    escrow: Escrow, case: Any, reason: str
) -> None:
    ask, came = await case(escrow)
    before = await escrow.money(ask) if ask else {}
    event = only(SuspenseBooked, await escrow.at_once(came, came))
    assert (event.reason, event.amount_fen, event.number) == (reason, came.amount_fen, came.number)
    assert event.order_id == (ask.order_id if ask else None)
    found = await row(escrow, event.receipt_id)
    assert (found["reason"], found["state"], found["bank"], found["account"], found["reference"]) == (
        *(reason, "open", came.bank),
        *(came.account, came.reference),
    )
    assert found["due_at"] == event.due_at == add_working_days(found["booked_at"], 3)
    assert await timers(escrow, event.receipt_id) == {SuspenseDeadline.TYPE: event.due_at}
    assert (await escrow.money(ask) if ask else {}) == before
    assert await escrow.at_once(came) == []


async def test_a_bank_that_has_collected_into_another_account_is_not_asked_again(escrow: Escrow) -> None:
    ask, came = await another_institutions_account(escrow)
    assert ask is not None
    await escrow.at_once(came)
    assert await escrow.instructions(ask) == {("collect", 0): "dropped"}
    assert await escrow.timers(ask) == {PaymentDeadline.TYPE: ask.pay_by}


async def test_money_in_the_right_account_is_the_payment(escrow: Escrow) -> None:
    _, collect = await escrow.asked()
    assert only(Held, await escrow.at_once(result(collect, account="S-1"))).order_id == collect.order_id


# --- matched ----------------------------------------------------------------------------------------------------------


async def test_matched_money_is_the_payment_of_an_order_that_waits_for_it(escrow: Escrow) -> None:
    ask, collect = await escrow.asked()
    receipt_id = (await booked(escrow)).receipt_id
    view, said = await decide(escrow, MatchSuspense(receipt_id=receipt_id, order_id=ask.order_id, reason=WHY))
    assert (view.state, view.matched_order_id) == ("matched", ask.order_id)
    assert (view.decided_by, view.decision, view.overdue) == (OPERATOR.subject, WHY, False)
    assert [one.TYPE for one in said] == [Held.TYPE, SuspenseMatched.TYPE]
    assert only(Held, said).account_id == ask.account_id
    assert await escrow.money(ask) == {"state": "held", "paid_fen": PRICE_FEN, "held_fen": PRICE_FEN}
    assert await escrow.instructions(ask) == {("collect", 0): "paid"}
    assert await escrow.timers(ask) == await timers(escrow, receipt_id) == {}
    # What the bank was asked to collect is one payment too many now, and the order goes its way.
    assert (await booked(escrow, result(collect))).reason == "double"
    await escrow.at_once(result(await escrow.payout(ask)))
    assert (await escrow.money(ask))["released_fen"] == LESSON_FEN


@pytest.mark.parametrize("how", ["expired", "cancelled", "refused"])
async def test_money_that_came_too_late_can_be_matched_and_goes_back_the_way_it_came(escrow: Escrow, how: str) -> None:
    ask, collect = await ended(escrow, how)
    late_money = result(collect)
    receipt_id = (await booked(escrow, late_money)).receipt_id
    _, said = await decide(escrow, MatchSuspense(receipt_id=receipt_id, order_id=ask.order_id, reason=WHY))
    assert only(Held, said).amount_fen == PRICE_FEN
    assert await escrow.at_once(late_money) == []
    assert (await escrow.verdicts(collect.number))[-1] == "repeated"
    # What orders says when money comes for a purchase that has ended.
    back = only(Instruct, await escrow.at_once(RefundOrder(order_id=ask.order_id, reason="expired")))
    assert (back.refund_reference, back.refund_of) == (late_money.reference, collect.number)
    assert only(Refunded, await escrow.at_once(result(back))).amount_fen == PRICE_FEN


async def test_a_match_said_again_changes_nothing_and_another_is_refused(escrow: Escrow) -> None:
    (ask, _), (other, _) = await escrow.asked(), await escrow.asked()
    receipt_id = (await booked(escrow)).receipt_id
    first, _ = await decide(escrow, MatchSuspense(receipt_id=receipt_id, order_id=ask.order_id, reason=WHY))
    before = await escrow.tables()
    again, said = await decide(escrow, MatchSuspense(receipt_id=receipt_id, order_id=ask.order_id, reason="另一说"))
    assert (again.decision, said) == (first.decision, [])
    for request in (
        MatchSuspense(receipt_id=receipt_id, order_id=other.order_id, reason=WHY),
        ReturnSuspense(receipt_id=receipt_id, reason=WHY),
    ):
        assert await escrow.harness.refusal(request, OPERATOR) == "suspense_state"
    assert await escrow.tables() == before


@pytest.mark.parametrize(
    ("code", "money", "order"),
    [
        ("amount_invalid", {"amount_fen": PRICE_FEN - 1}, {}),
        ("amount_invalid", {"amount_fen": PRICE_FEN + 1}, {}),
        ("suspense_elsewhere", {"bank": "abc"}, {}),
        ("suspense_elsewhere", {"account": "S-2"}, {}),
        ("order_state", {}, {"held": True}),
        ("order_unknown", {}, {"order_id": UUID(int=1)}),
        ("suspense_unknown", {}, {"receipt_id": UUID(int=1)}),
    ],
)
async def test_a_match_that_cannot_be_is_refused_and_changes_nothing(
    escrow: Escrow, code: str, money: dict[str, Any], order: dict[str, Any]
) -> None:
    ask = await escrow.held() if order.pop("held", False) else (await escrow.asked())[0]
    receipt_id = (await booked(escrow, unasked(**money))).receipt_id
    request = MatchSuspense(**({"receipt_id": receipt_id, "order_id": ask.order_id, "reason": WHY} | order))
    before = await escrow.tables()
    assert await escrow.harness.refusal(request, OPERATOR) == code
    assert await escrow.tables() == before


@pytest.mark.parametrize("actor", [None, *(Actor("x", role) for role in ("guardian", "institution", "authority"))])
async def test_only_operators_decide_about_suspense_or_see_it(escrow: Escrow, actor: Actor | None) -> None:
    ask, _ = await escrow.asked()
    receipt_id = (await booked(escrow)).receipt_id
    before = await escrow.tables()
    code = "actor_forbidden" if actor else "actor_unauthenticated"
    for request in (
        MatchSuspense(receipt_id=receipt_id, order_id=ask.order_id, reason=WHY),
        ReturnSuspense(receipt_id=receipt_id, reason=WHY),
        ListSuspense(),
    ):
        assert await escrow.harness.refusal(request, actor) == code
    assert await escrow.tables() == before


async def test_a_decision_without_a_reason_is_none(escrow: Escrow) -> None:
    receipt_id = (await booked(escrow)).receipt_id
    before = await escrow.tables()
    nameless = ReturnSuspense.model_construct(receipt_id=receipt_id, reason=" ")
    assert await escrow.harness.refusal(nameless, OPERATOR) == "request_invalid"
    assert await escrow.tables() == before


# --- sent back --------------------------------------------------------------------------------------------------------


async def test_money_goes_back_to_where_it_came_from_and_leaves_custody(escrow: Escrow) -> None:
    money = unasked(700)
    receipt_id = (await booked(escrow, money)).receipt_id
    custody = (await audit.check(escrow.harness.dsns["escrow"])).suspense_fen
    view, said = await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason=WHY))
    back = only(Instruct, said)
    assert (view.state, view.return_number, view.decided_by) == ("returning", back.number, OPERATOR.subject)
    assert (back.kind, back.amount_fen, back.bank, back.supervised_account) == ("refund", 700, "icbc", "S-1")
    assert (back.refund_reference, back.refund_of) == (money.reference, "")
    assert back.number == instruction_number("S", receipt_id, 0, 0)
    assert (await audit.check(escrow.harness.dsns["escrow"])).suspense_fen == custody

    again, said = await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason="又一次"))
    assert (again.return_number, again.decision, said) == (back.number, WHY, [])
    ask, _ = await escrow.asked(amount_fen=700)
    request = MatchSuspense(receipt_id=receipt_id, order_id=ask.order_id, reason=WHY)
    assert await escrow.harness.refusal(request, OPERATOR) == "suspense_state"

    assert only(SuspenseReturned, await escrow.at_once(result(back))).receipt_id == receipt_id
    assert (await row(escrow, receipt_id))["state"] == "returned"
    assert await timers(escrow, receipt_id) == {}
    assert (await audit.check(escrow.harness.dsns["escrow"])).suspense_fen == custody - 700
    assert await escrow.at_once(result(back), money) == []
    before = await escrow.tables()
    refused = ReturnSuspense(receipt_id=receipt_id, reason=WHY)
    assert await escrow.harness.refusal(refused, OPERATOR) == "suspense_state"
    assert await escrow.tables() == before
    assert await escrow.harness.refusal(ReturnSuspense(receipt_id=new_id(), reason=WHY), OPERATOR) == "suspense_unknown"


async def test_a_return_is_asked_again_when_unknown_and_tried_anew_when_refused(
    escrow: Escrow, harness: Harness
) -> None:
    receipt_id = (await booked(escrow)).receipt_id
    _, said = await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason=WHY))
    back = only(Instruct, said)
    assert await escrow.at_once(result(back, outcome="unknown", reference="u")) == []
    await harness.advance(ASK_AGAIN_AFTER)
    await told(escrow, back.number, times=2)

    assert await escrow.at_once(result(back, outcome="refused", reference="no", reason="busy")) == []
    due_at = (await timers(escrow, receipt_id))[ReturnDeadline.TYPE]
    await harness.advance(RETRY_REFUSED_AFTER)
    assert due_at <= harness.now()
    second = await told(escrow, instruction_number("S", receipt_id, 0, 1))
    assert (second.refund_reference, second.amount_fen) == (back.refund_reference, back.amount_fen)
    assert [type(one) for one in await escrow.at_once(result(second))] == [SuspenseReturned]
    assert await escrow.at_once(ReturnDeadline(receipt_id=receipt_id), ReturnDeadline(receipt_id=new_id())) == []
    assert await timers(escrow, receipt_id) == {}
    assert await escrow.verdicts(back.number) == ["noted", "applied"]


async def test_returned_money_that_comes_back_is_open_again_and_goes_under_a_new_number(escrow: Escrow) -> None:
    receipt_id = (await booked(escrow)).receipt_id
    first = only(Instruct, (await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason=WHY)))[1])
    await escrow.at_once(result(first))
    came_again = result(first, outcome="returned", reference=f"back-{first.number}", reason="account_closed")
    event = only(SuspenseReopened, await escrow.at_once(came_again))
    assert (event.reason, event.receipt_id) == ("account_closed", receipt_id)
    assert (await row(escrow, receipt_id))["state"] == "open"
    assert await timers(escrow, receipt_id) == {SuspenseDeadline.TYPE: event.due_at}
    assert await escrow.at_once(came_again, result(first)) == []

    view, said = await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason="新账户"))
    second = only(Instruct, said)
    assert (view.state, view.decision) == ("returning", "新账户")
    assert second.number == instruction_number("S", receipt_id, 0, 1)
    assert await escrow.at_once(came_again, result(first)) == []
    assert [type(one) for one in await escrow.at_once(result(second))] == [SuspenseReturned]
    sql = "SELECT * FROM instructions WHERE order_id = $1"
    (stored,) = await escrow.harness.rows("escrow", sql, receipt_id)
    assert (stored["state"], stored["turn"], stored["attempt"], stored["kind"]) == ("paid", 1, 1, "return")


async def test_returned_money_that_comes_back_can_be_matched(escrow: Escrow) -> None:
    ask, _ = await escrow.asked()
    receipt_id = (await booked(escrow)).receipt_id
    back = only(Instruct, (await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason=WHY)))[1])
    await escrow.at_once(result(back))
    await escrow.at_once(result(back, outcome="returned", reference=f"back-{back.number}"))
    _, said = await decide(escrow, MatchSuspense(receipt_id=receipt_id, order_id=ask.order_id, reason=WHY))
    assert [one.TYPE for one in said] == [Held.TYPE, SuspenseMatched.TYPE]
    assert (await escrow.money(ask))["held_fen"] == PRICE_FEN


@pytest.mark.parametrize("changes", [{"bank": "abc"}, {"amount_fen": 1}, {"number": "of nobody"}])
async def test_a_return_that_nobody_asked_for_is_for_a_person(escrow: Escrow, changes: dict[str, Any]) -> None:
    receipt_id = (await booked(escrow)).receipt_id
    back = only(Instruct, (await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason=WHY)))[1])
    if "number" in changes:
        changes = {"number": instruction_number("S", new_id(), 0, 0)}
    assert await escrow.at_once(result(back, **changes)) == []
    assert (await row(escrow, receipt_id))["state"] == "returning"
    report = await audit.check(escrow.harness.dsns["escrow"])
    assert list(report.violations) == ["no payment contradicts the books"]
    await escrow.harness.rows("escrow", "DELETE FROM bank_results WHERE verdict = 'conflict'")


# --- never older than its deadline unseen -----------------------------------------------------------------------------


async def test_money_past_its_deadline_is_told_of_each_working_day_until_it_is_decided(
    escrow: Escrow, harness: Harness
) -> None:
    event = await booked(escrow)
    assert event.due_at is not None
    await harness.advance(event.due_at - harness.now() + timedelta(seconds=1))

    async def overdue(times: int) -> SuspenseOverdue:
        await harness.until(lambda: len(harness.seen(SuspenseOverdue, event.receipt_id)) >= times)
        assert len(harness.seen(SuspenseOverdue, event.receipt_id)) == times
        return harness.seen(SuspenseOverdue, event.receipt_id)[-1]

    told_of = await overdue(1)
    assert (told_of.state, told_of.due_at, told_of.reason) == ("open", event.due_at, "unknown_number")
    page = await harness.ask(ListSuspense(all_states=True, limit=100), OPERATOR)
    assert {one.receipt_id: one.overdue for one in page.receipts}[event.receipt_id]

    async def next_is_set() -> datetime | None:
        return (await timers(escrow, event.receipt_id)).get(SuspenseDeadline.TYPE)

    again_at = await harness.until(next_is_set)
    assert again_at == add_working_days(harness.now(), 1)
    back = only(Instruct, (await decide(escrow, ReturnSuspense(receipt_id=event.receipt_id, reason=WHY)))[1])
    await harness.advance(again_at - harness.now() + timedelta(seconds=1))
    assert (await overdue(2)).state == "returning"
    await escrow.at_once(result(back))
    assert await timers(escrow, event.receipt_id) == {}
    late_timers = [SuspenseDeadline(receipt_id=one) for one in (event.receipt_id, new_id())]
    assert await escrow.at_once(*late_timers) == []


async def test_a_deadline_that_was_moved_meanwhile_is_no_deadline(escrow: Escrow) -> None:
    event = await booked(escrow)
    assert await escrow.at_once(SuspenseDeadline(receipt_id=event.receipt_id)) == []
    assert await timers(escrow, event.receipt_id) == {SuspenseDeadline.TYPE: event.due_at}


async def test_the_list_is_paged_oldest_first(escrow: Escrow) -> None:
    for number in range(3):
        receipt_id = (await booked(escrow)).receipt_id
        if number == 1:
            await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason=WHY))
    for all_states in (False, True):
        listed: list[SuspenseView] = []
        after: UUID | None = None
        while True:
            ask = ListSuspense(all_states=all_states, limit=2, after=after)
            page = await escrow.harness.ask(ask, OPERATOR)
            assert isinstance(page, SuspensePage)
            listed += page.receipts
            after = page.next_after
            if after is None:
                break
            assert len(page.receipts) == 2
        where = "true" if all_states else "state = 'open'"
        sql = f"SELECT receipt_id, state, due_at FROM suspense WHERE {where} ORDER BY booked_at, receipt_id"
        rows = await escrow.harness.rows("escrow", sql)
        assert [(one.receipt_id, one.state, one.due_at) for one in listed] == [tuple(one) for one in rows]
        assert all(one.return_number for one in listed if one.state in ("returning", "returned"))
        assert all(one.age_seconds >= 0 for one in listed)


# --- payments that need a person --------------------------------------------------------------------------------------


async def in_trouble(escrow: Escrow, actor: Actor = OPERATOR) -> dict[tuple[str, str], TroubleView]:
    """All payments in trouble, two a page: by kind and by order or receipt."""
    found: list[TroubleView] = []
    after: str | None = None
    while True:
        page = await escrow.harness.ask(ListTrouble(limit=2, after=after), actor)
        assert isinstance(page, TroublePage)
        found += page.payments
        after = page.next_after
        if after is None:
            break
    keys = [(one.kind, str(one.order_id or one.receipt_id)) for one in found]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, found, strict=True))


async def test_what_banks_refused_or_gave_back_is_listed_until_it_is_paid(escrow: Escrow, harness: Harness) -> None:
    refused, returned, refunded = [await escrow.held() for _ in range(3)]
    payout = await escrow.payout(refused, 2)
    await escrow.at_once(result(payout, outcome="refused", reference="no", reason="account_closed"))
    came_back = await escrow.payout(returned)
    await escrow.at_once(result(came_back))
    await escrow.at_once(result(came_back, outcome="returned", reference="back", reason="name_differs"))
    refund = await escrow.refund(refunded)
    await escrow.at_once(result(refund, outcome="refused", reference="no", reason="card_expired"))
    receipt_id = (await booked(escrow)).receipt_id
    back = only(Instruct, (await decide(escrow, ReturnSuspense(receipt_id=receipt_id, reason=WHY)))[1])
    await escrow.at_once(result(back, outcome="refused", reference="no", reason="payer_unknown"))
    well = await escrow.payout(await escrow.held())
    await escrow.at_once(result(well))

    (stored,) = await harness.rows("escrow", "SELECT * FROM bank_results WHERE number = $1", payout.number)
    for actor in (OPERATOR, Actor("changzhou-edu", "authority")):
        found = await in_trouble(escrow, actor)
        assert ("payout", str(well.order_id)) not in found
        one = found["payout", str(refused.order_id)]
        assert (one.lesson_no, one.number, one.amount_fen, one.state) == (2, payout.number, LESSON_FEN, "refused")
        assert (one.attempts, one.returned, one.outcome, one.why) == (1, 0, "refused", "account_closed")
        assert (one.institution_id, one.bank, one.receipt_id) == (refused.institution_id, "icbc", None)
        assert one.since == stored["received_at"]
        assert one.next_try_at == stored["received_at"] + RETRY_REFUSED_AFTER
        one = found["payout", str(returned.order_id)]
        assert (one.returned, one.outcome, one.why) == (1, "returned", "name_differs")
        one = found["refund", str(refunded.order_id)]
        assert (one.amount_fen, one.why, one.lesson_no) == (PRICE_FEN, "card_expired", 0)
        one = found["return", str(receipt_id)]
        assert (one.order_id, one.why, one.bank) == (None, "payer_unknown", "icbc")

    # Tried anew it is still in trouble; paid, it is not.
    await harness.advance(RETRY_REFUSED_AFTER)
    second = await told(escrow, instruction_number("P", refused.order_id, 2, 1))
    one = (await in_trouble(escrow))["payout", str(refused.order_id)]
    assert (one.state, one.attempts, one.number, one.why) == ("sent", 2, second.number, "account_closed")
    assert one.since == stored["received_at"]
    await escrow.at_once(result(second))
    assert ("payout", str(refused.order_id)) not in await in_trouble(escrow)


async def test_the_list_of_trouble_is_for_operators_and_authorities(escrow: Escrow) -> None:
    for role in ("guardian", "institution", "bank"):
        assert await escrow.harness.refusal(ListTrouble(), Actor("x", role)) == "actor_forbidden"
    assert await escrow.harness.refusal(ListTrouble(after="nonsense"), OPERATOR) == "request_invalid"
