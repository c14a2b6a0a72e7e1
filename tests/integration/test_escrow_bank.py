"""escrow and its banks on the real servers: results twice, late, wrong, out of order, for nobody; refusals; returns."""

from datetime import timedelta
from typing import Any

import pytest

from services.escrow import audit
from services.escrow.domain import ASK_AGAIN_AFTER, RETRY_REFUSED_AFTER
from shared.contracts.bank import Instruct
from shared.contracts.envelope import Data
from shared.contracts.escrow import (
    CancelPayment,
    CollectPayment,
    Held,
    InstructionDeadline,
    PaymentDeadline,
    PaymentFailed,
    PayoutReturned,
    RefundDelayed,
    Refunded,
    Settled,
    SuspenseBooked,
)
from shared.ids import instruction_number, new_id
from tests.escrowkit import LESSON_FEN, PRICE_FEN, Escrow, only, result
from tests.harness import Harness


async def suspense(escrow: Escrow, number: str) -> list[tuple[int, str, str]]:
    """What stands in suspense for a number: amount, reason, state."""
    rows = await escrow.harness.rows("escrow", "SELECT * FROM suspense WHERE number = $1 ORDER BY receipt_id", number)
    return [(row["amount_fen"], row["reason"], row["state"]) for row in rows]


async def told(escrow: Escrow, ask: CollectPayment, number: str, times: int = 1) -> Instruct:
    """The instruction of that number, when the bank has been told so many times."""

    def found() -> list[Instruct]:
        return [one for one in escrow.harness.seen(Instruct, ask.order_id) if one.number == number]

    await escrow.harness.until(lambda: len(found()) >= times)
    assert len(found()) == times
    assert len({one.model_dump_json() for one in found()}) == 1, "the same number always says the same"
    return found()[0]


async def conflict_is_found(escrow: Escrow, number: str) -> None:
    """The audit names the contradiction; then, as a person has looked at it, it is taken out of the record."""
    report = await audit.check(escrow.harness.dsns["escrow"])
    (place,) = report.violations.pop("no payment contradicts the books")
    assert place.startswith(number)
    assert report.violations == {}
    sql = "DELETE FROM bank_results WHERE number = $1 AND verdict = 'conflict'"
    await escrow.harness.rows("escrow", sql, number)


# --- collections ------------------------------------------------------------------------------------------------------


async def test_a_payment_told_twice_is_held_once(escrow: Escrow) -> None:
    ask, collect = await escrow.asked()
    said = await escrow.at_once(result(collect), result(collect))
    assert [type(one) for one in said] == [Held]
    assert await escrow.tell(result(collect)) == []
    assert await escrow.verdicts(collect.number) == ["applied", "repeated", "repeated"]
    assert await escrow.money(ask) == {"state": "held", "paid_fen": PRICE_FEN, "held_fen": PRICE_FEN}
    assert await suspense(escrow, collect.number) == []


async def test_a_result_before_its_acceptance_counts_and_the_acceptance_is_noted(escrow: Escrow) -> None:
    ask, collect = await escrow.asked()
    assert await escrow.tell(result(collect, outcome="unknown", reference="u")) == []
    assert await escrow.money(ask) == {"state": "collecting"}
    assert only(Held, await escrow.tell(result(collect))).amount_fen == PRICE_FEN
    assert await escrow.tell(result(collect, outcome="accepted", reference="a")) == []
    assert await escrow.verdicts(collect.number) == ["noted", "applied", "noted"]
    assert await escrow.money(ask) == {"state": "held", "paid_fen": PRICE_FEN, "held_fen": PRICE_FEN}


@pytest.mark.parametrize("one_batch", [True, False])
async def test_a_second_payment_for_one_order_is_suspense_once(escrow: Escrow, one_batch: bool) -> None:
    ask, collect = await escrow.asked()
    results = [result(collect), *[result(collect, order_id=None, reference=f"second-{collect.number}")] * 3]
    said = await escrow.at_once(*results) if one_batch else [said for one in results for said in await escrow.tell(one)]
    assert [type(one) for one in said] == [Held, SuspenseBooked]
    booked = only(SuspenseBooked, said)
    assert (booked.order_id, booked.amount_fen, booked.reason) == (ask.order_id, PRICE_FEN, "double")
    assert await suspense(escrow, collect.number) == [(PRICE_FEN, "double", "open")]
    assert await escrow.money(ask) == {"state": "held", "paid_fen": PRICE_FEN, "held_fen": PRICE_FEN}


async def test_a_wrong_amount_is_suspense_and_the_right_one_still_holds(escrow: Escrow) -> None:
    ask, collect = await escrow.asked()
    wrong = result(collect, amount_fen=PRICE_FEN - 1, reference=f"wrong-{collect.number}")
    assert only(SuspenseBooked, await escrow.tell(wrong)).reason == "short"
    assert await escrow.money(ask) == {"state": "collecting"}
    assert [type(one) for one in await escrow.tell(result(collect))] == [Held]
    assert await escrow.tell(wrong) == []
    assert await suspense(escrow, collect.number) == [(PRICE_FEN - 1, "short", "open")]
    assert await escrow.money(ask) == {"state": "held", "paid_fen": PRICE_FEN, "held_fen": PRICE_FEN}


async def test_a_movement_is_in_suspense_for_its_first_reason_also_when_all_comes_at_once(escrow: Escrow) -> None:
    _, collect = await escrow.asked()
    wrong = result(collect, amount_fen=1, reference=f"wrong-{collect.number}")
    await escrow.at_once(wrong, result(collect), wrong)
    assert await escrow.verdicts(collect.number) == ["short", "applied", "double"]
    assert await suspense(escrow, collect.number) == [(1, "short", "open")]


async def test_a_refused_payment_has_failed_and_what_comes_after_is_suspense(escrow: Escrow) -> None:
    ask, collect = await escrow.asked()
    refused = result(collect, outcome="refused", reference="no")
    assert only(PaymentFailed, await escrow.tell(refused)).reason == "refused"
    assert await escrow.tell(refused) == []
    assert await escrow.timers(ask) == {}
    assert only(SuspenseBooked, await escrow.tell(result(collect))).reason == "dead"
    assert await escrow.verdicts(collect.number) == ["applied", "repeated", "dead"]
    assert await escrow.money(ask) == {"state": "failed"}


async def test_money_for_a_number_nobody_gave_is_suspense_once(escrow: Escrow) -> None:
    _, collect = await escrow.asked()
    never_given = instruction_number("C", collect.order_id, 0, 1)
    for number, order_id in ((f"X{new_id().hex[:20]}", None), (never_given, collect.order_id)):
        result_ = result(collect, number=number, order_id=order_id, reference=f"ref-{number}")
        booked = only(SuspenseBooked, await escrow.tell(result_))
        assert (booked.order_id, booked.number, booked.reason) == (order_id, number, "unknown_number")
        assert await escrow.at_once(result_, result_) == []
        assert await suspense(escrow, number) == [(PRICE_FEN, "unknown_number", "open")]
        assert await escrow.verdicts(number) == ["unknown_number"] * 3


async def test_money_that_came_to_another_bank_is_not_the_payment(escrow: Escrow) -> None:
    ask, collect = await escrow.asked()
    elsewhere = result(collect, bank="abc")
    assert only(SuspenseBooked, await escrow.tell(elsewhere)).reason == "foreign"
    assert await escrow.money(ask) == {"state": "collecting"}
    assert [type(one) for one in await escrow.tell(result(collect))] == [Held]


async def test_a_refusal_for_a_number_nobody_gave_is_only_kept(escrow: Escrow) -> None:
    number = f"X{new_id().hex[:20]}"
    _, collect = await escrow.asked()
    assert await escrow.tell(result(collect, number=number, outcome="refused", order_id=None)) == []
    assert await escrow.verdicts(number) == ["unknown_number"]
    assert await suspense(escrow, number) == []


async def test_a_payment_that_a_bank_refuses_afterwards_is_for_a_person(escrow: Escrow) -> None:
    ask, collect = await escrow.asked()
    await escrow.at_once(result(collect))
    assert await escrow.tell(result(collect, outcome="refused")) == []
    await conflict_is_found(escrow, collect.number)
    assert (await escrow.money(ask))["held_fen"] == PRICE_FEN


# --- payouts and refunds, at once -------------------------------------------------------------------------------------


async def test_a_payout_told_twice_is_settled_once(escrow: Escrow) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    said = await escrow.at_once(*[result(payout)] * 3, result(payout, outcome="accepted"))
    assert [type(one) for one in said] == [Settled]
    assert await escrow.verdicts(payout.number) == ["applied", "repeated", "repeated", "noted"]
    assert (await escrow.money(ask))["released_fen"] == LESSON_FEN
    assert await escrow.timers(ask) == {}


@pytest.mark.parametrize("changes", [{"reference": "other"}, {"outcome": "refused"}])
async def test_what_contradicts_a_payment_made_is_for_a_person(escrow: Escrow, changes: dict[str, Any]) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    await escrow.at_once(result(payout))
    before = await escrow.money(ask)
    assert await escrow.tell(result(payout, **changes)) == []
    await conflict_is_found(escrow, payout.number)
    assert await escrow.money(ask) == before


@pytest.mark.parametrize("changes", [{"amount_fen": LESSON_FEN - 1}, {"bank": "abc"}, {"outcome": "returned"}])
async def test_a_payment_in_another_amount_by_another_bank_or_back_before_it_went_is_for_a_person(
    escrow: Escrow, changes: dict[str, Any]
) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    assert await escrow.tell(result(payout, **changes)) == []
    await conflict_is_found(escrow, payout.number)
    assert await escrow.instructions(ask) == {("collect", 0): "paid", ("payout", 1): "sent"}
    assert [type(one) for one in await escrow.tell(result(payout))] == [Settled]


async def test_money_that_went_for_a_number_nobody_gave_is_for_a_person_and_no_suspense(escrow: Escrow) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    for number in (instruction_number("P", ask.order_id, 7, 0), f"X{new_id().hex[:20]}"):
        assert await escrow.tell(result(payout, number=number)) == []
        assert await suspense(escrow, number) == []
        await conflict_is_found(escrow, number)


# --- in the course of time --------------------------------------------------------------------------------------------


async def test_money_after_the_deadline_is_suspense(escrow: Escrow, harness: Harness) -> None:
    ask, collect = await escrow.asked()
    assert (await escrow.timers(ask))[PaymentDeadline.TYPE] == ask.pay_by
    await harness.advance(timedelta(minutes=16))
    assert (await harness.expect(PaymentFailed, key=ask.order_id)).reason == "expired"
    booked = only(SuspenseBooked, await escrow.tell(result(collect)))
    assert (booked.order_id, booked.reason, booked.amount_fen) == (ask.order_id, "late", PRICE_FEN)
    assert await escrow.money(ask) == {"state": "failed"}
    await harness.expect_recorded()
    assert len(harness.seen(PaymentFailed, ask.order_id)) == 1


async def test_timers_that_come_late_find_nothing_to_do(escrow: Escrow) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    await escrow.at_once(result(payout))
    before = await escrow.tables()
    late: list[Data] = [
        PaymentDeadline(order_id=ask.order_id),
        PaymentDeadline(order_id=new_id()),
        InstructionDeadline(order_id=ask.order_id, number=payout.number),
        InstructionDeadline(order_id=ask.order_id, number=instruction_number("P", ask.order_id, 9, 0)),
        InstructionDeadline(order_id=ask.order_id, number="nonsense"),
    ]
    assert await escrow.at_once(*late) == []
    assert await escrow.tables() == before
    assert await escrow.timers(ask) == {}


async def test_a_bank_that_does_not_know_is_asked_again_under_the_same_number(escrow: Escrow, harness: Harness) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    assert await escrow.tell(result(payout, outcome="unknown", reference="u")) == []
    for times, pause in ((2, ASK_AGAIN_AFTER), (3, 2 * ASK_AGAIN_AFTER)):
        await harness.advance(pause)
        assert (await told(escrow, ask, payout.number, times)).amount_fen == LESSON_FEN
    assert [type(one) for one in await escrow.tell(result(payout))] == [Settled]
    assert await escrow.timers(ask) == {}
    assert (await escrow.money(ask))["released_fen"] == LESSON_FEN


async def test_a_collection_nobody_has_answered_is_asked_again(escrow: Escrow, harness: Harness) -> None:
    ask, collect = await escrow.asked()
    await harness.advance(ASK_AGAIN_AFTER)
    await told(escrow, ask, collect.number, 2)
    assert [type(one) for one in await escrow.tell(result(collect))] == [Held]
    assert await escrow.timers(ask) == {}


@pytest.mark.parametrize(
    ("outcome", "said"), [("paid", [SuspenseBooked]), ("refused", [])], ids=["it has paid", "it has not"]
)
async def test_of_a_payment_that_was_given_up_the_bank_is_asked_what_it_did_once_it_cannot_collect_any_more(
    escrow: Escrow, harness: Harness, outcome: str, said: list[type[Data]]
) -> None:
    ask, collect = await escrow.asked()
    await escrow.tell(CancelPayment(order_id=ask.order_id, reason="cancelled"))
    await harness.advance(ASK_AGAIN_AFTER)  # until its window is over it would only remind the bank to collect
    put_off = {InstructionDeadline.TYPE: ask.pay_by + ASK_AGAIN_AFTER}

    async def is_put_off() -> bool:
        return await escrow.timers(ask) == put_off

    await harness.until(is_put_off)
    assert len(harness.seen(Instruct, ask.order_id)) == 1
    await harness.advance(ask.pay_by + ASK_AGAIN_AFTER - harness.now())
    await told(escrow, ask, collect.number, 2)
    assert await escrow.tell(result(collect, outcome="unknown", reference="u")) == []
    assert [type(one) for one in await escrow.tell(result(collect, outcome=outcome))] == said
    assert await escrow.instructions(ask) == {("collect", 0): "dropped"}
    assert await escrow.timers(ask) == {}
    assert await escrow.money(ask) == {"state": "failed"}


async def test_a_refused_payout_is_tried_again_later_under_a_new_number(escrow: Escrow, harness: Harness) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    assert await escrow.tell(result(payout, outcome="refused", reference="no", reason="closed")) == []
    (row,) = await harness.rows(
        "escrow", "SELECT * FROM instructions WHERE order_id = $1 AND lesson_no = 1", ask.order_id
    )
    assert await escrow.timers(ask) == {InstructionDeadline.TYPE: row["changed_at"] + RETRY_REFUSED_AFTER}
    assert (await escrow.money(ask))["releasing_fen"] == LESSON_FEN

    await harness.advance(RETRY_REFUSED_AFTER)
    new_number = instruction_number("P", ask.order_id, 1, 1)
    second = await told(escrow, ask, new_number)
    assert (second.amount_fen, second.counter_account) == (LESSON_FEN, "P-1")
    assert [type(one) for one in await escrow.tell(result(second))] == [Settled]
    assert await escrow.verdicts(payout.number) == ["applied"]

    assert await escrow.tell(result(payout)) == []
    await conflict_is_found(escrow, payout.number)
    assert (await escrow.money(ask))["released_fen"] == LESSON_FEN


async def test_a_payout_that_comes_back_days_later_is_a_new_entry_and_is_paid_again(
    escrow: Escrow, harness: Harness
) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    await escrow.tell(result(payout))
    await harness.advance(timedelta(days=3))
    back = result(payout, outcome="returned", reference=f"back-{payout.number}", reason="account_closed")
    returned = only(PayoutReturned, await escrow.tell(back))
    assert (returned.lesson_no, returned.amount_fen, returned.reason) == (1, LESSON_FEN, "account_closed")
    assert (returned.turn, returned.settlement_id) == (1, None)
    assert (await escrow.money(ask))["releasing_fen"] == LESSON_FEN
    assert await escrow.at_once(back, result(payout)) == []

    await harness.advance(RETRY_REFUSED_AFTER)
    second = await told(escrow, ask, instruction_number("P", ask.order_id, 1, 1))
    assert await escrow.tell(result(payout)) == []
    assert [type(one) for one in await escrow.tell(result(second))] == [Settled]
    assert await escrow.at_once(back, result(payout), result(second)) == []
    assert await escrow.verdicts(payout.number) == [
        "applied",
        "applied",
        "stale",
        *["repeated"] * 2,
        "stale",
        "repeated",
    ]
    assert (await escrow.money(ask))["released_fen"] == LESSON_FEN

    sql = "SELECT * FROM transfers WHERE order_id = $1 AND lesson_no = 1 ORDER BY turn, phase"
    entries = [(row["turn"], row["debit"], row["credit"]) for row in await harness.rows("escrow", sql, ask.order_id)]
    assert entries == [
        (0, "held", "releasing"),
        (0, "releasing", "released"),
        (1, "released", "releasing"),
        (1, "releasing", "released"),
    ]


async def test_a_refund_that_comes_back_is_sent_again_until_it_arrives(escrow: Escrow, harness: Harness) -> None:
    ask = await escrow.held()
    back = await escrow.refund(ask)
    assert [type(one) for one in await escrow.tell(result(back))] == [Refunded]
    came_back = await escrow.tell(result(back, outcome="returned", reference=f"back-{back.number}"))
    assert [type(one) for one in came_back] == [RefundDelayed]
    assert await escrow.money(ask) == {"state": "refunding", "paid_fen": PRICE_FEN, "refunding_fen": PRICE_FEN}

    await harness.advance(RETRY_REFUSED_AFTER)
    second = await told(escrow, ask, instruction_number("R", ask.order_id, 0, 1))
    assert (second.kind, second.refund_of) == ("refund", back.refund_of)
    assert only(Refunded, await escrow.tell(result(second))).amount_fen == PRICE_FEN
    assert await escrow.money(ask) == {"state": "refunded", "paid_fen": PRICE_FEN, "refunded_fen": PRICE_FEN}


async def test_a_payment_given_up_while_the_bank_is_paying_ends_as_suspense_or_refund_never_lost(
    escrow: Escrow,
) -> None:
    for paid_first in (True, False):
        ask, collect = await escrow.asked()
        cancel = CancelPayment(order_id=ask.order_id, reason="cancelled")
        race: list[Data] = [result(collect), cancel] if paid_first else [cancel, result(collect)]
        said = await escrow.at_once(*race)
        assert [type(one) for one in said] == ([Held, Instruct] if paid_first else [PaymentFailed, SuspenseBooked])
