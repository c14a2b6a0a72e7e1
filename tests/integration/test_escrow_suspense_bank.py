"""Money in suspense with the stand-in bank: over Kafka, for real, and the books of both agree."""

from datetime import timedelta
from typing import Any

from ops.bank import desk
from services.escrow import audit
from services.escrow.domain import RETRY_REFUSED_AFTER
from shared.contracts.catalog import BankAccount
from shared.contracts.escrow import (
    Held,
    MatchSuspense,
    Refunded,
    RefundOrder,
    ReturnSuspense,
    SuspenseBooked,
    SuspenseReopened,
    SuspenseReturned,
)
from shared.ids import instruction_number, new_id
from tests.escrowkit import running
from tests.harness import Harness
from tests.integration.test_escrow_suspense import WHY, decide, in_trouble


async def test_the_bank_sends_back_what_is_returned_and_the_books_of_both_agree(
    harness: Harness,
) -> None:
    """Over Kafka: one deposit is matched and refunded, one is the second payment of an order and is returned, one is
    nobody's, and one is returned after the bank has refused that, and comes back."""
    account = f"S-{new_id()}"
    dsn = harness.dsns["bank"]
    async with running(harness) as escrow, harness.service("bank"):

        async def deposit(amount_fen: int, **more: Any) -> SuspenseBooked:
            came = await desk.unsolicited(dsn, bank="icbc", supervised_account=account, amount_fen=amount_fen, **more)
            assert came.account == account
            return await harness.expect(SuspenseBooked, number=came.number, amount_fen=amount_fen)

        ask = escrow.collection(
            account=BankAccount(bank="icbc", supervised_account=account, payout_account=f"P-{account}"),
            amount_fen=5000,
            lessons=2,
        )
        await harness.publish(ask)
        await harness.expect(Held, key=ask.order_id)
        number = instruction_number("C", ask.order_id, 0, 0)
        twice = await deposit(5000, number=number, order_id=ask.order_id)
        assert twice.reason == "double"

        dead = escrow.collection(account=ask.account, amount_fen=7000)
        await desk.set_behaviour(dsn, "refuse", order_id=dead.order_id)
        await harness.publish(dead)
        wanted = await deposit(7000)

        async def failed() -> bool:
            rows = await harness.rows("escrow", "SELECT state FROM accounts WHERE order_id = $1", dead.order_id)
            return [one["state"] for one in rows] == ["failed"]

        await harness.until(failed)
        await decide(escrow, MatchSuspense(receipt_id=wanted.receipt_id, order_id=dead.order_id, reason=WHY))
        await harness.publish(RefundOrder(order_id=dead.order_id, reason="refused"))
        assert (await harness.expect(Refunded, key=dead.order_id)).amount_fen == 7000

        nobodys_money = await deposit(300)
        stubborn = await deposit(400)
        assert stubborn.reason == "unknown_number"
        await desk.set_behaviour(dsn, "refuse", order_id=stubborn.receipt_id, reason="busy")
        for one in (twice, nobodys_money, stubborn):
            await decide(escrow, ReturnSuspense(receipt_id=one.receipt_id, reason=WHY))
        for one in (twice, nobodys_money):
            await harness.expect(SuspenseReturned, key=one.receipt_id)

        async def refused() -> bool:
            return ("return", str(stubborn.receipt_id)) in await in_trouble(escrow)

        await harness.until(refused)
        await desk.set_behaviour(dsn, "return_after", order_id=stubborn.receipt_id, seconds=60)
        await harness.advance(RETRY_REFUSED_AFTER)
        await harness.expect(SuspenseReturned, key=stubborn.receipt_id)
        assert (await audit.check(harness.dsns["escrow"])).good
        assert (await desk.statement(dsn)).balance_fen(account) == 5000
        await harness.advance(timedelta(seconds=61))
        await harness.expect(SuspenseReopened, key=stubborn.receipt_id)
        assert (await desk.statement(dsn)).balance_fen(account) == 5400
        assert await desk.out_of_balance(dsn) == []

        sql = """SELECT coalesce(sum(held_fen + releasing_fen + refunding_fen), 0)::int AS fen FROM accounts
                 WHERE supervised_account = $1"""
        (held,) = await harness.rows("escrow", sql, account)
        sql = "SELECT state, sum(amount_fen)::int AS fen FROM suspense WHERE account = $1 GROUP BY state"
        by_state = {one["state"]: one["fen"] for one in await harness.rows("escrow", sql, account)}
        assert held["fen"] == 5000
        assert by_state == {"open": 400, "matched": 7000, "returned": 5300}
