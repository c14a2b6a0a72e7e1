"""escrow and the stand-in bank over Kafka: several banks, moving to another with money in flight, one sum for many."""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from ops.bank import desk
from ops.scenario import read_sms
from services.escrow import audit
from services.escrow.domain import RETRY_REFUSED_AFTER, gathered_number
from shared.actors import Actor
from shared.banks import next_cut_off
from shared.contracts.bank import Instruct
from shared.contracts.catalog import BankAccount
from shared.contracts.escrow import (
    ChangePayoutAccount,
    ChooseSettlement,
    CollectPayment,
    Held,
    PayoutReturned,
    Refunded,
    RefundOrder,
    ReleaseLesson,
    Settled,
    SettlementClosed,
    SettlementDelayed,
    SettlementPaid,
    SettlementView,
)
from shared.contracts.notify import NameContact, Phone
from shared.ids import new_id
from shared.money import yuan
from shared.sealing import seal
from shared.working_days import next_waking_time
from tests.escrowkit import LESSON_FEN, LESSONS, OPERATOR, PRICE_FEN
from tests.harness import Harness


class Institution:
    """An institution with orders, at whatever banks."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.institution_id = new_id()
        self.actor = Actor(str(self.institution_id), "institution")
        tail = self.institution_id.hex[-8:]
        self.old = BankAccount(bank="icbc", supervised_account=f"SA-{tail}", payout_account=f"PA-{tail}")
        self.new = BankAccount(bank="abc", supervised_account=f"SB-{tail}", payout_account=f"PB-{tail}")

    async def sold(self, account: BankAccount) -> UUID:
        """An order whose fee has been collected."""
        ask = CollectPayment(
            order_id=new_id(),
            account_id=new_id(),
            institution_id=self.institution_id,
            account=account,
            amount_fen=PRICE_FEN,
            lessons=LESSONS,
            method="alipay",
            pay_by=self.harness.now() + timedelta(minutes=15),
        )
        await self.harness.publish(ask)
        await self.harness.expect(Held, key=ask.order_id)
        return ask.order_id

    async def released(self, order_id: UUID, *lessons: int) -> None:
        for lesson_no in lessons:
            await self.harness.publish(ReleaseLesson(order_id=order_id, lesson_no=lesson_no))

    async def paid_to(self, bank: str, payout_account: str) -> SettlementView:
        ask = ChangePayoutAccount(institution_id=self.institution_id, bank=bank, payout_account=payout_account)
        view = await self.harness.ask(ask, self.actor)
        assert isinstance(view, SettlementView)
        return view

    async def balance(self, account: str) -> int:
        return (await desk.statement(self.harness.dsns["bank"])).balance_fen(account)

    async def custody(self) -> dict[str, int]:
        """What the ledger holds for the institution at each bank."""
        sql = """SELECT bank, sum(held_fen + releasing_fen + refunding_fen)::bigint AS fen FROM accounts
                 WHERE institution_id = $1 GROUP BY bank"""
        return {row["bank"]: row["fen"] for row in await self.harness.rows("escrow", sql, self.institution_id)}


@pytest.fixture(scope="module")
async def running(harness: Harness) -> AsyncIterator[Harness]:
    async with harness.service("bank", "escrow"):
        yield harness


@pytest.fixture
async def institution(running: Harness) -> AsyncIterator[Institution]:
    yield Institution(running)
    report = await audit.check(running.dsns["escrow"])
    assert report.good, report.violations
    assert await desk.out_of_balance(running.dsns["bank"]) == []


async def test_an_institution_moves_to_another_bank_with_money_in_flight(institution: Institution) -> None:
    harness, old, new = institution.harness, institution.old, institution.new
    before = await institution.sold(old)
    await institution.released(before, 1)
    await harness.expect(Settled, key=before, lesson_no=1)
    since = await institution.sold(new)
    assert await institution.custody() == {"icbc": PRICE_FEN - LESSON_FEN, "abc": PRICE_FEN}

    # The old payout account is closed: what is on its way is refused, tried again, and goes to the other one.
    dsn = harness.dsns["bank"]
    await desk.set_behaviour(dsn, "refuse", kind="payout", order_id=before, reason="account_closed")
    await institution.released(before, 2)
    await harness.until(lambda: len(harness.seen(Instruct, before)) == 3)
    view = await institution.paid_to("icbc", "PA-other")
    assert [(one.bank, one.payout_account) for one in view.payout_accounts] == [("icbc", "PA-other")]
    await institution.released(before, 3)
    await harness.expect(Settled, key=before, lesson_no=3)
    await harness.advance(RETRY_REFUSED_AFTER)
    await harness.expect(Settled, key=before, lesson_no=2)
    assert await institution.balance(old.payout_account) == LESSON_FEN
    assert await institution.balance("PA-other") == 2 * LESSON_FEN

    # Orders at the new bank are paid there; refunds go back at the bank that collected.
    await institution.released(since, 1)
    await harness.expect(Settled, key=since, lesson_no=1)
    assert await institution.balance(new.payout_account) == LESSON_FEN
    await harness.publish(RefundOrder(order_id=before, reason="parent_asked"))
    refunded = await harness.expect(Refunded, key=before)
    assert refunded.amount_fen == PRICE_FEN - 3 * LESSON_FEN
    (told,) = [one for one in harness.seen(Instruct, before) if one.kind == "refund"]
    assert (told.bank, told.supervised_account) == ("icbc", old.supervised_account)
    assert await institution.custody() == {"icbc": 0, "abc": PRICE_FEN - LESSON_FEN}
    assert await institution.balance(old.supervised_account) == 0
    assert await institution.balance(new.supervised_account) == PRICE_FEN - LESSON_FEN


async def test_a_number_that_the_bank_was_told_keeps_its_account(institution: Institution) -> None:
    harness = institution.harness
    order_id = await institution.sold(institution.old)
    await desk.set_behaviour(harness.dsns["bank"], "silent", kind="payout", order_id=order_id)
    await institution.released(order_id, 1)
    await harness.until(lambda: len(harness.seen(Instruct, order_id)) == 2)
    await institution.paid_to("icbc", "PA-later")
    await harness.advance(timedelta(minutes=6))
    await harness.expect(Settled, key=order_id)
    told = [one for one in harness.seen(Instruct, order_id) if one.kind == "payout"]
    assert [one.counter_account for one in told] == [institution.old.payout_account] * 2
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("bank", "payout_account", "actor", "code"),
    [
        ("hsbc", "P-1", None, "bank_unknown"),
        ("icbc", "六二二二", None, "bank_account_invalid"),
        ("icbc", "P-1", Actor(str(new_id()), "institution"), "actor_forbidden"),
        ("icbc", "P-1", OPERATOR, "actor_forbidden"),
    ],
)
async def test_a_payout_account_is_refused_without_a_trace(
    institution: Institution, bank: str, payout_account: str, actor: Actor | None, code: str
) -> None:
    harness = institution.harness
    before = await harness.content("escrow")
    ask = ChangePayoutAccount(institution_id=institution.institution_id, bank=bank, payout_account=payout_account)
    assert await harness.refusal(ask, actor or institution.actor) == code
    assert await harness.content("escrow") == before


async def test_the_bank_pays_a_days_lessons_in_one_sum_and_each_is_settled_returned_and_settled_again(
    institution: Institution,
) -> None:
    harness = institution.harness
    await harness.ask(ChooseSettlement(institution_id=institution.institution_id, mode="daily"), institution.actor)
    orders = [await institution.sold(institution.old) for _ in range(2)]
    elsewhere = await institution.sold(institution.new)
    dsn = harness.dsns["bank"]
    await desk.set_behaviour(dsn, "return_after", kind="payout", number_prefix="G", seconds=3600, times=2)
    for order_id in (*orders, elsewhere):
        await institution.released(order_id, 1, 2)

    async def all_gathered() -> bool:
        sql = "SELECT 1 FROM gathered WHERE institution_id = $1"
        return len(await harness.rows("escrow", sql, institution.institution_id)) == 6

    await harness.until(all_gathered)
    assert all(one.kind == "collect" for order_id in orders for one in harness.seen(Instruct, order_id))
    late = max(next_cut_off(bank, "daily", harness.now()) for bank in ("icbc", "abc"))
    await harness.advance(late - harness.now())
    key = institution.institution_id
    await harness.until(lambda: len(harness.seen(SettlementPaid, key)) == 2)
    sums = {one.bank: one for one in harness.seen(SettlementClosed, key)}
    assert {bank: (one.lessons, one.amount_fen) for bank, one in sums.items()} == {
        "icbc": (4, 4 * LESSON_FEN),
        "abc": (2, 2 * LESSON_FEN),
    }
    await harness.until(lambda: all(len(harness.seen(Settled, one)) == 2 for one in (*orders, elsewhere)))
    assert await institution.balance(institution.old.payout_account) == 4 * LESSON_FEN
    entries = (await desk.statement(dsn, bank="icbc")).entries
    assert [(one.outcome, one.amount_fen) for one in entries if one.number == sums["icbc"].number] == [
        ("paid", 4 * LESSON_FEN)
    ]

    await harness.advance(timedelta(hours=1))
    await harness.until(lambda: len(harness.seen(SettlementDelayed, key)) == 2)
    await harness.until(lambda: all(len(harness.seen(PayoutReturned, one)) == 2 for one in orders))
    await institution.paid_to("icbc", "PA-open")
    await harness.advance(RETRY_REFUSED_AFTER)
    await harness.until(lambda: all(len(harness.seen(Settled, one)) == 4 for one in (*orders, elsewhere)))
    assert await institution.balance(institution.old.payout_account) == 0
    assert await institution.balance("PA-open") == 4 * LESSON_FEN
    again = gathered_number(sums["icbc"].settlement_id, 1)
    assert [one.number for one in (await desk.statement(dsn, bank="icbc")).entries if one.number == again] == [again]


async def test_what_the_bank_gives_back_is_told_to_the_institution(institution: Institution) -> None:
    harness, dsn, key = institution.harness, institution.harness.dsns["bank"], institution.institution_id
    alone, *together = [await institution.sold(institution.old) for _ in range(3)]
    await desk.set_behaviour(dsn, "return_after", kind="payout", order_id=alone, seconds=60)
    await desk.set_behaviour(dsn, "return_after", kind="payout", number_prefix="G", seconds=60)
    async with harness.service("notify"):
        phone = seal(harness.ring("orders"), "notify", Phone(phone="13812345678"))
        await harness.ask(NameContact(institution_id=key, phone=phone), institution.actor)
        await institution.released(alone, 1)
        await harness.expect(Settled, key=alone)
        await harness.advance(timedelta(minutes=1))
        await harness.expect(PayoutReturned, key=alone, turn=1)

        await harness.ask(ChooseSettlement(institution_id=key, mode="daily"), institution.actor)
        for order_id in together:
            await institution.released(order_id, 1)
        sql = "SELECT 1 FROM gathered WHERE institution_id = $1 HAVING count(*) = 2"
        await harness.until(lambda: harness.rows("escrow", sql, key))
        await harness.advance(next_cut_off("icbc", "daily", harness.now()) - harness.now())
        await harness.expect(SettlementPaid, key=key)
        await harness.advance(timedelta(minutes=1))
        back = await harness.expect(SettlementDelayed, key=key)
        for order_id in together:
            await harness.expect(PayoutReturned, key=order_id, settlement_id=back.settlement_id)

        async def all_heard() -> bool:
            """notify has heard of the sum and of each lesson."""
            types = (PayoutReturned.TYPE, SettlementDelayed.TYPE)
            said = {one["id"] for one in harness.recorded if one["type"] in types}
            return said <= {
                str(row["message_id"]) for row in await harness.rows("notify", "SELECT message_id FROM inbox")
            }

        await harness.until(all_heard)
        await harness.advance(next_waking_time(harness.now()) - harness.now())
        all_sent = "SELECT 1 FROM sms WHERE recipient = $1 HAVING bool_and(state = 'sent')"
        await harness.until(lambda: harness.rows("notify", all_sent, str(key)))
    sent = sorted((one["phone"], one["purpose"], one["text"]) for one in read_sms(harness.folder / "sms.jsonl"))
    assert [one[:2] for one in sent] == [
        ("+8613812345678", "payout.returned"),
        ("+8613812345678", "settlement.returned"),
    ]
    assert f"第1课次的费用{yuan(LESSON_FEN)}元" in sent[0][2]
    assert f"汇总结算款{yuan(2 * LESSON_FEN)}元（编号{back.number}）" in sent[1][2]
