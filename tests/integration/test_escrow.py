"""escrow on the real servers: money comes, is held, released, settled, refunded, and what does not fit is suspense."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from services.escrow import audit
from shared.actors import Actor
from shared.contracts.bank import Instruct, Result
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import Problem
from shared.contracts.escrow import (
    AccountView,
    CancelPayment,
    CollectPayment,
    Held,
    InstructionDeadline,
    PaymentFailed,
    PayoutReturned,
    Refunded,
    RefundOrder,
    ReleaseLesson,
    ResumeReleases,
    Settled,
    ShowAccount,
    SuspendReleases,
    SuspenseBooked,
)
from shared.ids import new_id
from tests.harness import Harness

PRICE_FEN = 100_001
LESSONS = 10
OPERATOR = Actor("op-1", "operator")


def collection(harness: Harness, **changes: Any) -> CollectPayment:
    """A purchase to be paid within a quarter of an hour."""
    values: dict[str, Any] = {
        "order_id": new_id(),
        "account_id": new_id(),
        "institution_id": new_id(),
        "account": BankAccount(bank="icbc", supervised_account="S-1", payout_account="P-1"),
        "amount_fen": PRICE_FEN,
        "lessons": LESSONS,
        "method": "alipay",
        "pay_by": harness.now() + timedelta(minutes=15),
    }
    return CollectPayment(**(values | changes))


def result(instruct: Instruct, harness: Harness, **changes: Any) -> Result:
    """What a bank says of an instruction."""
    values: dict[str, Any] = {
        "order_id": instruct.order_id,
        "number": instruct.number,
        "kind": instruct.kind,
        "outcome": "paid",
        "amount_fen": instruct.amount_fen,
        "bank": instruct.bank,
        "reference": f"ref-{instruct.number}",
        "happened_at": harness.now(),
    }
    return Result(**(values | changes))


async def held_order(harness: Harness, **changes: Any) -> CollectPayment:
    """An order whose fee is in the supervised account."""
    ask = collection(harness, **changes)
    await harness.publish(ask)
    instruct = await harness.expect(Instruct, key=ask.order_id, kind="collect")
    await harness.publish(result(instruct, harness))
    await harness.expect(Held, key=ask.order_id)
    return ask


async def account(harness: Harness, order_id: UUID) -> AccountView:
    """The order's account as an operator sees it."""
    view = await harness.ask(ShowAccount(order_id=order_id), OPERATOR)
    assert isinstance(view, AccountView)
    return view


@pytest.fixture(scope="module")
async def escrow(harness: Harness) -> Any:
    """The service, running."""
    async with harness.service("escrow"):
        yield harness
        report = await audit.check(harness.dsns["escrow"])
        assert report.violations == {}


async def test_a_paid_fee_is_held_and_a_confirmed_lesson_is_paid_out(escrow: Harness) -> None:
    ask = await held_order(escrow)
    await escrow.publish(ReleaseLesson(order_id=ask.order_id, lesson_no=1))
    payout = await escrow.expect(Instruct, key=ask.order_id, kind="payout")
    assert payout.amount_fen == PRICE_FEN // LESSONS
    assert payout.counter_account == "P-1"
    view = await account(escrow, ask.order_id)
    assert (view.held_fen, view.releasing_fen) == (PRICE_FEN - payout.amount_fen, payout.amount_fen)

    await escrow.publish(result(payout, escrow))
    settled = await escrow.expect(Settled, key=ask.order_id)
    assert settled.amount_fen == payout.amount_fen
    view = await account(escrow, ask.order_id)
    assert (view.releasing_fen, view.released_fen) == (0, payout.amount_fen)


async def test_the_last_lesson_takes_the_remainder(escrow: Harness) -> None:
    ask = await held_order(escrow)
    for lesson_no in range(1, LESSONS + 1):
        await escrow.publish(ReleaseLesson(order_id=ask.order_id, lesson_no=lesson_no))
    numbers = [await escrow.expect(Instruct, key=ask.order_id, kind="payout", amount_fen=PRICE_FEN // LESSONS + 1)]
    assert len(numbers) == 1
    view = await account(escrow, ask.order_id)
    assert (view.held_fen, view.releasing_fen) == (0, PRICE_FEN)
