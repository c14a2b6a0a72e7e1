"""escrow on the real servers: money comes, is held, released, settled and refunded; complaints wait; who may look."""

import asyncio
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from services.escrow import audit
from services.escrow.domain import ASK_AGAIN_AFTER
from shared.actors import Actor
from shared.contracts.bank import Instruct
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import Data
from shared.contracts.escrow import (
    CancelPayment,
    Held,
    InstructionDeadline,
    LessonMoney,
    PaymentDeadline,
    PaymentFailed,
    Refunded,
    RefundOrder,
    Released,
    ReleaseLesson,
    ResumeReleases,
    Settled,
    ShowAccount,
    SuspendReleases,
    SuspenseBooked,
)
from shared.ids import new_id
from tests.escrowkit import LESSON_FEN, LESSONS, OPERATOR, PRICE_FEN, Complaint, Escrow, codes, only, result
from tests.harness import Harness

# --- a lesson is paid for, taught, paid out ---------------------------------------------------------------------------


async def test_a_paid_fee_is_held_and_a_confirmed_lesson_is_paid_out(escrow: Escrow, harness: Harness) -> None:
    ask = escrow.collection()
    await harness.publish(ask)
    instruct = await harness.expect(Instruct, key=ask.order_id, kind="collect")
    assert (instruct.amount_fen, instruct.method, instruct.valid_until) == (PRICE_FEN, "alipay", ask.pay_by)
    await harness.publish(result(instruct))
    held = await harness.expect(Held, key=ask.order_id)
    assert (held.account_id, held.amount_fen) == (ask.account_id, PRICE_FEN)

    await harness.publish(ReleaseLesson(order_id=ask.order_id, lesson_no=1))
    payout = await harness.expect(Instruct, key=ask.order_id, kind="payout")
    assert (payout.amount_fen, payout.counter_account, payout.supervised_account) == (LESSON_FEN, "P-1", "S-1")
    released = await harness.expect(Released, key=ask.order_id)
    assert (released.lesson_no, released.amount_fen, released.number) == (1, LESSON_FEN, payout.number)
    view = await escrow.view(ask)
    assert (view.state, view.paid_fen, view.held_fen) == ("held", PRICE_FEN, PRICE_FEN - LESSON_FEN)
    assert view.lessons == (LessonMoney(lesson_no=1, amount_fen=LESSON_FEN, state="releasing"),)

    await harness.publish(result(payout))
    settled = await harness.expect(Settled, key=ask.order_id)
    assert (settled.institution_id, settled.lesson_no, settled.amount_fen) == (ask.institution_id, 1, LESSON_FEN)
    view = await escrow.view(ask)
    assert (view.held_fen, view.releasing_fen, view.released_fen) == (PRICE_FEN - LESSON_FEN, 0, LESSON_FEN)
    assert view.lessons == (LessonMoney(lesson_no=1, amount_fen=LESSON_FEN, state="released"),)
    assert await escrow.timers(ask) == {}


async def test_the_last_lesson_takes_the_remainder(escrow: Escrow) -> None:
    ask = await escrow.held()
    for lesson_no in range(1, LESSONS + 1):
        payout = only(Instruct, await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=lesson_no)))
        assert payout.amount_fen == LESSON_FEN + (1 if lesson_no == LESSONS else 0)
        await escrow.tell(result(payout))
    assert await escrow.money(ask) == {"state": "held", "paid_fen": PRICE_FEN, "released_fen": PRICE_FEN}


async def test_the_same_release_under_a_new_message_id_changes_nothing_and_says_nothing(escrow: Escrow) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    for settled in (False, True):
        if settled:
            await escrow.at_once(result(payout))
        before = await escrow.tables()
        assert await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=1)) == []
        assert await escrow.tables() == before


async def test_the_same_release_twice_in_one_batch_is_one_release(escrow: Escrow) -> None:
    ask = await escrow.held()
    release = ReleaseLesson(order_id=ask.order_id, lesson_no=2)
    assert [type(one) for one in await escrow.at_once(release, release, release)] == [Instruct, Released]
    assert (await escrow.money(ask))["releasing_fen"] == LESSON_FEN


@pytest.mark.parametrize(
    ("lesson_no", "price_fen", "hold", "code"),
    [
        (1, PRICE_FEN, False, "order_state"),
        (11, PRICE_FEN, True, "lesson_unknown"),
        (11, PRICE_FEN, False, "lesson_unknown"),
        (9, 5, True, "amount_invalid"),
    ],
)
async def test_a_release_that_cannot_be_is_refused_and_changes_nothing(
    escrow: Escrow, lesson_no: int, price_fen: int, hold: bool, code: str
) -> None:
    ask = await escrow.held(amount_fen=price_fen) if hold else escrow.collection(amount_fen=price_fen)
    if not hold:
        await escrow.at_once(ask)
    before = await escrow.tables()
    assert codes(await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=lesson_no))) == [code]
    assert await escrow.tables() == before


@pytest.mark.parametrize("contract", [ReleaseLesson, SuspendReleases, ResumeReleases])
async def test_what_is_asked_of_an_unknown_order_is_refused_and_changes_nothing(
    escrow: Escrow, contract: type[Data]
) -> None:
    before = await escrow.tables()
    ask = contract.model_validate({"order_id": new_id(), "lesson_no": 1, "complaint_id": new_id()})
    assert codes(await escrow.tell(ask)) == ["order_unknown"]
    assert await escrow.tables() == before


async def test_the_same_collection_again_changes_nothing_and_says_nothing(escrow: Escrow) -> None:
    ask = escrow.collection()
    assert [type(one) for one in await escrow.at_once(ask, ask)] == [Instruct]
    before = await escrow.tables()
    assert await escrow.tell(ask) == []
    assert await escrow.tables() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_fen": PRICE_FEN + 1},
        {"lessons": LESSONS + 1},
        {"account_id": UUID(int=1)},
        {"institution_id": UUID(int=1)},
        {"account": BankAccount(bank="abc", supervised_account="S-1", payout_account="P-1")},
        {"account": BankAccount(bank="icbc", supervised_account="S-2", payout_account="P-1")},
        {"account": BankAccount(bank="icbc", supervised_account="S-1", payout_account="P-2")},
    ],
)
async def test_a_collection_on_other_terms_is_refused_and_changes_nothing(
    escrow: Escrow, changes: dict[str, Any]
) -> None:
    ask = escrow.collection()
    await escrow.at_once(ask)
    before = await escrow.tables()
    other = ask.model_copy(update=changes)
    assert codes(await escrow.tell(other)) == ["hold_exists"]
    assert codes(await escrow.at_once(other, ask, other)) == ["hold_exists"] * 2
    assert await escrow.tables() == before


async def test_one_refusal_in_a_batch_does_not_touch_its_neighbours(escrow: Escrow) -> None:
    one, other = await escrow.held(), await escrow.held()
    orders = [(one, 1), (one, 11), (other, 1), (one, 2)]
    said = await escrow.at_once(*(ReleaseLesson(order_id=ask.order_id, lesson_no=n) for ask, n in orders))
    assert codes(said) == ["lesson_unknown"]
    released = [(one.order_id, one.lesson_no) for one in said if isinstance(one, Released)]
    assert released == [(one.order_id, 1), (other.order_id, 1), (one.order_id, 2)]
    assert (await escrow.money(one))["releasing_fen"] == 2 * LESSON_FEN


async def test_five_hundred_releases_of_fifty_orders_in_one_batch_give_right_books(escrow: Escrow) -> None:
    asks = [escrow.collection() for _ in range(50)]
    collects = [one for one in await escrow.at_once(*asks) if isinstance(one, Instruct)]
    assert Counter(type(one) for one in await escrow.at_once(*map(result, collects))) == {Held: 50}

    releases = [ReleaseLesson(order_id=ask.order_id, lesson_no=n) for n in range(1, LESSONS + 1) for ask in asks]
    said = await escrow.at_once(*releases)
    assert Counter(type(one) for one in said) == {Instruct: 500, Released: 500}
    payouts = [one for one in said if isinstance(one, Instruct)]
    assert len({one.number for one in payouts}) == 500
    for ask in asks:
        assert await escrow.money(ask) == {"state": "held", "paid_fen": PRICE_FEN, "releasing_fen": PRICE_FEN}

    assert Counter(type(one) for one in await escrow.at_once(*map(result, payouts))) == {Settled: 500}
    for ask in asks:
        assert await escrow.money(ask) == {"state": "held", "paid_fen": PRICE_FEN, "released_fen": PRICE_FEN}
    assert (await audit.check(escrow.harness.dsns["escrow"])).violations == {}


# --- money goes back --------------------------------------------------------------------------------------------------


async def test_a_purchase_given_up_before_it_is_paid_has_failed(escrow: Escrow) -> None:
    ask = escrow.collection()
    instruct = only(Instruct, await escrow.at_once(ask))
    assert await escrow.timers(ask) == {
        PaymentDeadline.TYPE: ask.pay_by,
        InstructionDeadline.TYPE: await escrow.opened_at(ask) + ASK_AGAIN_AFTER,
    }
    cancel = CancelPayment(order_id=ask.order_id, reason="cancelled")
    assert only(PaymentFailed, await escrow.tell(cancel)).reason == "cancelled"
    assert await escrow.money(ask) == {"state": "failed"}
    assert list(await escrow.timers(ask)) == [InstructionDeadline.TYPE]  # what did the bank do?

    before = await escrow.tables()
    again = CancelPayment(order_id=ask.order_id, reason="another_word")
    assert only(PaymentFailed, await escrow.tell(again)).reason == "cancelled"
    assert await escrow.tables() == before
    assert only(SuspenseBooked, await escrow.tell(result(instruct))).reason == "dead"
    assert await escrow.instructions(ask) == {("collect", 0): "dropped"}
    assert await escrow.timers(ask) == {}


async def test_the_cancellation_of_an_order_nobody_paid_for_is_answered_and_writes_nothing(escrow: Escrow) -> None:
    before = await escrow.tables()
    said = await escrow.tell(CancelPayment(order_id=new_id(), reason="cancelled"))
    assert only(PaymentFailed, said).reason == "cancelled"
    assert await escrow.tables() == before


@pytest.mark.parametrize("contract", [CancelPayment, RefundOrder])
async def test_a_purchase_given_up_after_it_is_paid_goes_back_the_way_it_came(
    escrow: Escrow, contract: type[CancelPayment | RefundOrder]
) -> None:
    ask = escrow.collection()
    collect = only(Instruct, await escrow.at_once(ask))
    await escrow.at_once(result(collect))
    payout = await escrow.payout(ask)
    command = contract(order_id=ask.order_id, reason="cancelled")
    back = only(Instruct, await escrow.tell(command))
    rest = PRICE_FEN - LESSON_FEN
    assert (back.kind, back.amount_fen, back.refund_of, back.counter_account) == ("refund", rest, collect.number, "")

    before = await escrow.tables()
    assert await escrow.tell(command) == []
    assert await escrow.tables() == before
    refunded = only(Refunded, await escrow.tell(result(back)))
    assert (refunded.account_id, refunded.amount_fen) == (ask.account_id, rest)
    await escrow.tell(result(payout))
    assert await escrow.money(ask) == {
        "state": "refunded",
        "paid_fen": PRICE_FEN,
        "released_fen": LESSON_FEN,
        "refunded_fen": rest,
    }

    before = await escrow.tables()
    assert await escrow.tell(command) == [refunded]
    assert await escrow.tables() == before


async def test_when_everything_is_released_nothing_goes_back_and_that_is_told(escrow: Escrow) -> None:
    ask = await escrow.held(lessons=1)
    payout = await escrow.payout(ask)
    before = await escrow.tables()
    refund = RefundOrder(order_id=ask.order_id, reason="parent_asked")
    assert only(Refunded, await escrow.tell(refund)).amount_fen == 0
    assert await escrow.tables() == before
    assert only(Settled, await escrow.tell(result(payout))).amount_fen == PRICE_FEN


@pytest.mark.parametrize("one_batch", [True, False])
@pytest.mark.parametrize("refund_first", [True, False])
async def test_a_refund_and_a_release_of_one_lesson_never_both_win(
    escrow: Escrow, one_batch: bool, refund_first: bool
) -> None:
    ask = await escrow.held(lessons=1)
    race: list[Data] = [
        ReleaseLesson(order_id=ask.order_id, lesson_no=1),
        RefundOrder(order_id=ask.order_id, reason="parent_asked"),
    ]
    if refund_first:
        race.reverse()
    said = await escrow.at_once(*race) if one_batch else [said for one in race for said in await escrow.tell(one)]
    won = only(Instruct, said)
    assert (won.kind, won.amount_fen) == ("refund" if refund_first else "payout", PRICE_FEN)
    assert codes(said) == (["lesson_settled"] if refund_first else [])
    await escrow.tell(result(won))
    final = {"state": "refunded", "refunded_fen": PRICE_FEN} if refund_first else {"state": "held"}
    assert await escrow.money(ask) == {"paid_fen": PRICE_FEN} | final | (
        {} if refund_first else {"released_fen": PRICE_FEN}
    )


async def test_many_refunds_and_releases_at_the_same_time_never_both_win(escrow: Escrow) -> None:
    asks = [await escrow.held(lessons=2, amount_fen=3) for _ in range(6)]
    releases = [ReleaseLesson(order_id=ask.order_id, lesson_no=2) for ask in asks]
    refunds = [RefundOrder(order_id=ask.order_id, reason="parent_asked") for ask in asks]
    # Two transactions at once, as by two copies of the service in a rebalance: the locks of the accounts decide.
    await asyncio.gather(escrow.at_once(*releases), escrow.at_once(*reversed(refunds)))
    for ask in asks:
        money = await escrow.money(ask)
        won = {"refunding_fen": 3} if "releasing_fen" not in money else {"releasing_fen": 2, "refunding_fen": 1}
        assert money == {"state": "refunding", "paid_fen": 3} | won


async def test_a_poll_locks_its_accounts_in_one_order_whatever_the_order_of_its_messages(escrow: Escrow) -> None:
    dsn = escrow.harness.dsns["escrow"]
    first, second = sorted([await escrow.held(), await escrow.held()], key=lambda ask: ask.order_id)
    sql = "SELECT FROM accounts WHERE order_id = $1 FOR UPDATE NOWAIT"
    async with asyncpg.create_pool(dsn, min_size=2) as pool, pool.acquire() as one, pool.acquire() as other:
        transaction = one.transaction()
        await transaction.start()
        await one.execute(sql, first.order_id)
        poll = asyncio.create_task(escrow.at_once(Complaint(second).suspend, Complaint(first).suspend))
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await escrow.harness.until(lambda: other.fetch(waiting))
        await other.execute(sql, second.order_id)  # who asks for the second one first holds it by now
        await transaction.rollback()
    await poll
    assert [(await escrow.view(ask)).suspended for ask in (first, second)] == [True, True]


# --- complaints -------------------------------------------------------------------------------------------------------


async def test_while_a_complaint_is_open_releases_wait_and_then_each_goes_out_once(escrow: Escrow) -> None:
    ask = await escrow.held()
    complaint = Complaint(ask)
    await escrow.payout(ask, 1)
    assert await escrow.tell(complaint.suspend) == []
    for lesson_no in (2, 3, 2):
        assert await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=lesson_no)) == []
    view = await escrow.view(ask)
    assert (view.suspended, view.held_fen, view.releasing_fen) == (True, PRICE_FEN - LESSON_FEN, LESSON_FEN)
    assert [(one.lesson_no, one.state) for one in view.lessons] == [(1, "releasing"), (2, "waiting"), (3, "waiting")]

    said = await escrow.tell(complaint.resume)
    assert [one.lesson_no for one in said if isinstance(one, Released)] == [2, 3]
    assert [one.amount_fen for one in said if isinstance(one, Instruct)] == [LESSON_FEN] * 2
    view = await escrow.view(ask)
    assert (view.suspended, view.releasing_fen) == (False, 3 * LESSON_FEN)

    before = await escrow.tables()
    for repeated in (complaint.resume, ReleaseLesson(order_id=ask.order_id, lesson_no=2), complaint.suspend):
        assert await escrow.tell(repeated) == []
    assert await escrow.tables() == before
    assert only(Released, await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=4))).lesson_no == 4


async def test_a_complaint_counts_once_and_releases_wait_for_the_last_one(escrow: Escrow) -> None:
    ask = await escrow.held()
    first, second = Complaint(ask), Complaint(ask)
    await escrow.at_once(first.suspend, second.suspend, first.suspend)
    await escrow.at_once(ReleaseLesson(order_id=ask.order_id, lesson_no=1))
    assert await escrow.tell(first.resume) == []
    assert await escrow.tell(first.resume) == []
    assert (await escrow.view(ask)).suspended
    assert only(Released, await escrow.tell(second.resume)).lesson_no == 1
    assert not (await escrow.view(ask)).suspended


async def test_a_complaint_that_was_closed_before_it_is_heard_of_holds_nothing(escrow: Escrow) -> None:
    ask = await escrow.held()
    complaint = Complaint(ask)
    assert await escrow.tell(complaint.resume) == []
    before = await escrow.tables()
    assert await escrow.tell(complaint.suspend) == []
    assert await escrow.tables() == before
    assert only(Released, await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=1))).lesson_no == 1


async def test_a_confirmed_lesson_that_waits_for_a_complaint_is_not_refunded_with_the_rest(escrow: Escrow) -> None:
    ask = await escrow.held()
    complaint = Complaint(ask)
    await escrow.at_once(complaint.suspend)
    await escrow.at_once(ReleaseLesson(order_id=ask.order_id, lesson_no=1))
    back = await escrow.refund(ask)
    assert back.amount_fen == PRICE_FEN - LESSON_FEN
    assert await escrow.instructions(ask) == {("collect", 0): "paid", ("payout", 1): "waiting", ("refund", 0): "sent"}
    assert only(Refunded, await escrow.tell(result(back))).amount_fen == PRICE_FEN - LESSON_FEN
    assert only(Released, await escrow.tell(complaint.resume)).lesson_no == 1
    assert codes(await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=2))) == ["lesson_settled"]


# --- who may look -----------------------------------------------------------------------------------------------------


async def test_an_account_is_shown_to_those_it_concerns(escrow: Escrow, harness: Harness) -> None:
    ask = await escrow.held()
    for actor in (
        Actor(str(ask.account_id), "guardian"),
        Actor(str(ask.institution_id), "institution"),
        Actor("authority-1", "authority"),
        OPERATOR,
    ):
        view = await harness.ask(ShowAccount(order_id=ask.order_id), actor)
        assert (view.order_id, view.held_fen, view.suspended) == (ask.order_id, PRICE_FEN, False)


async def test_an_account_is_shown_to_nobody_else_and_asking_changes_nothing(escrow: Escrow, harness: Harness) -> None:
    ask = await escrow.held()
    before = await escrow.tables()
    show = ShowAccount(order_id=ask.order_id)
    for actor, code in (
        (None, "actor_unauthenticated"),
        (Actor(str(new_id()), "guardian"), "order_unknown"),
        (Actor(str(ask.institution_id), "guardian"), "order_unknown"),
        (Actor(str(new_id()), "institution"), "order_unknown"),
        (Actor(str(ask.account_id), "institution"), "order_unknown"),
        (Actor("icbc", "bank"), "actor_forbidden"),
    ):
        assert await harness.refusal(show, actor) == code
    assert await harness.refusal(ShowAccount(order_id=new_id()), OPERATOR) == "order_unknown"
    assert (
        await harness.refusal(ShowAccount(order_id=new_id()), Actor(str(ask.account_id), "guardian")) == "order_unknown"
    )
    assert await escrow.tables() == before
