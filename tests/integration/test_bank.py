"""The stand-in bank on the real servers: what escrow hears from it, and what its book says afterwards."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from ops.bank.book import Entry
from ops.bank.desk import Statement, clear_behaviours, out_of_balance, set_behaviour, statement, unsolicited
from shared.contracts.bank import ActLater, Instruct, Result
from shared.ids import instruction_number, new_id
from tests.harness import Harness


class Case:
    """One order with accounts of its own."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.order_id = new_id()
        self.supervised = f"supervised-{self.order_id}"
        self.institution = f"institution-{self.order_id}"

    @property
    def dsn(self) -> str:
        return self.harness.dsns["bank"]

    def number(self, kind: str, lesson_no: int = 0) -> str:
        return instruction_number(kind, self.order_id, lesson_no, 0)

    async def behave(self, name: Any, **options: Any) -> None:
        await set_behaviour(self.dsn, name, order_id=self.order_id, **options)

    async def instruct(self, kind: str, number: str, amount_fen: int = 1000, **changes: Any) -> UUID:
        values: dict[str, Any] = {
            "order_id": self.order_id,
            "number": number,
            "kind": kind,
            "bank": "icbc",
            "supervised_account": self.supervised,
            "amount_fen": amount_fen,
        }
        values |= {
            "collect": {"method": "alipay"},
            "payout": {"counter_account": self.institution},
            "refund": {"refund_of": self.number("C")},
        }[kind]
        return await self.harness.publish(Instruct(**(values | changes)))

    async def collect(self, amount_fen: int = 1000) -> Result:
        await self.instruct("collect", self.number("C"), amount_fen)
        return await self.result(self.number("C"))

    async def result(self, number: str, **fields: Any) -> Result:
        return await self.harness.expect(Result, self.order_id, number=number, **fields)

    def told(self, number: str) -> list[Result]:
        return [one for one in self.harness.seen(Result, self.order_id) if one.number == number]

    async def handled(self, message_id: UUID) -> None:
        """Waits until the bank has handled a message, and all its answers so far are out."""
        sql = "SELECT 1 FROM inbox WHERE message_id = $1 AND NOT EXISTS (SELECT 1 FROM unsent)"
        await self.harness.until(lambda: self.harness.rows("bank", sql, message_id))

    async def book(self) -> Statement:
        assert await out_of_balance(self.dsn) == []
        return await statement(self.dsn)

    async def balances(self) -> tuple[int, int]:
        book = await self.book()
        return book.balance_fen(self.supervised), book.balance_fen(self.institution)


async def test_collect_pay_out_and_refund_are_answered_at_once_and_stand_in_the_book(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        collected = await case.collect(3000)
        assert (collected.outcome, collected.amount_fen, collected.kind, collected.bank) == (
            "paid",
            3000,
            "collect",
            "icbc",
        )
        await case.instruct("payout", case.number("P", 1), 1000)
        await case.result(case.number("P", 1), outcome="paid")
        await case.instruct("refund", case.number("R"), 2000)
        await case.result(case.number("R"), outcome="paid")
        assert await case.balances() == (0, 1000)
        mine = [entry for entry in (await case.book()).entries if entry.order_id == case.order_id]
        assert [(e.kind, e.from_account, e.to_account, e.amount_fen) for e in mine] == [
            ("collect", "", case.supervised, 3000),
            ("payout", case.supervised, case.institution, 1000),
            ("refund", case.supervised, "", 2000),
        ]


async def test_refusals_say_why_and_move_nothing(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.collect(1000)
        wanted: list[tuple[str, str, dict[str, Any], str]] = [
            ("payout", case.number("P", 1), {"amount_fen": 1001}, "insufficient_balance"),
            ("payout", case.number("P", 2), {"counter_account": ""}, "counter_account_invalid"),
            ("refund", case.number("R", 1), {"refund_of": "NOBODY"}, "refund_of_unknown"),
            ("refund", case.number("R", 2), {"amount_fen": 1001}, "refund_exceeds_collection"),
            ("collect", case.number("C", 1), {"valid_until": harness.now()}, "expired"),
        ]
        for kind, number, changes, reason in wanted:
            await case.instruct(kind, number, **changes)
            result = await case.result(number)
            assert (result.outcome, result.reason) == ("refused", reason)
        assert await case.balances() == (1000, 0)


async def test_the_same_number_again_is_answered_again_and_moves_nothing(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        first = await case.collect()
        await case.handled(await case.instruct("collect", case.number("C")))
        await harness.until(lambda: len(case.told(case.number("C"))) == 2)
        assert case.told(case.number("C")) == [first, first]
        assert await case.balances() == (1000, 0)


async def test_a_burst_on_one_account_comes_out_to_the_fen(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.collect(100_000)
        numbers = [case.number("P", n) for n in range(1, 201)]
        await asyncio.gather(*(case.instruct("payout", number, 100 + n) for n, number in enumerate(numbers)))
        await asyncio.gather(*(case.instruct("payout", number, 100 + n) for n, number in enumerate(numbers)))
        for number in numbers:
            await case.result(number, outcome="paid")
        await harness.until(lambda: all(len(case.told(number)) == 2 for number in numbers))
        paid = sum(100 + n for n in range(200))
        assert await case.balances() == (100_000 - paid, paid)


async def test_slow_answers_when_its_time_has_come(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.behave("slow", seconds=3600)
        await case.handled(await case.instruct("collect", case.number("C")))
        assert case.told(case.number("C")) == []
        assert await case.balances() == (1000, 0)
        await harness.advance(timedelta(hours=1))
        assert (await case.result(case.number("C"))).outcome == "paid"


async def test_unknown_though_the_money_moved_and_paid_when_asked_again(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.behave("unknown", times=2)
        for _ in range(3):
            await case.handled(await case.instruct("collect", case.number("C")))
        await case.result(case.number("C"), outcome="paid")
        assert [one.outcome for one in case.told(case.number("C"))] == ["unknown", "unknown", "paid"]
        assert await case.balances() == (1000, 0)


async def test_silence_ends_when_it_is_asked_again(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.behave("silent")
        await case.handled(await case.instruct("collect", case.number("C")))
        assert case.told(case.number("C")) == []
        await case.instruct("collect", case.number("C"))
        assert (await case.result(case.number("C"))).outcome == "paid"
        assert await case.balances() == (1000, 0)


async def test_refuse_repeat_pay_twice_and_wrong_amount(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.behave("refuse", reason="card_blocked")
        await case.instruct("collect", case.number("C", 1))
        assert (await case.result(case.number("C", 1))).reason == "card_blocked"
        await case.behave("repeat")
        await case.instruct("collect", case.number("C", 2))
        await harness.until(lambda: len(case.told(case.number("C", 2))) == 2)
        one, two = case.told(case.number("C", 2))
        assert one == two
        await case.behave("pay_twice")
        await case.instruct("collect", case.number("C", 3))
        await harness.until(lambda: len(case.told(case.number("C", 3))) == 2)
        assert len({told.reference for told in case.told(case.number("C", 3))}) == 2
        await case.behave("wrong_amount", delta_fen=-1)
        await case.instruct("collect", case.number("C", 4))
        assert (await case.result(case.number("C", 4))).amount_fen == 999
        assert await case.balances() == (3999, 0)


async def test_accepted_first_is_paid_later(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.behave("accept_first", seconds=60)
        assert (await case.collect()).outcome == "accepted"
        assert await case.balances() == (0, 0)
        await harness.advance(timedelta(minutes=1))
        await case.result(case.number("C"), outcome="paid")
        assert await case.balances() == (1000, 0)
        again = ActLater(order_id=case.order_id, bank="icbc", number=case.number("C"), act="pay")
        await case.handled(await harness.publish(again))
        assert await case.balances() == (1000, 0)


async def test_a_payout_comes_back(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.collect()
        await case.behave("return_after", seconds=86_400, kind="payout")
        await case.instruct("payout", case.number("P", 1))
        paid = await case.result(case.number("P", 1))
        assert (paid.outcome, await case.balances()) == ("paid", (0, 1000))
        await harness.advance(timedelta(days=1))
        returned = await case.result(case.number("P", 1), outcome="returned")
        assert returned.reference != paid.reference
        assert returned.reason
        assert await case.balances() == (1000, 0)


async def test_money_that_nobody_asked_for_is_told_and_can_be_sent_back(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        sent = await unsolicited(case.dsn, bank="icbc", supervised_account=case.supervised, amount_fen=777)
        told = await harness.expect(Result, sent.number)
        assert (told, told.order_id, told.outcome) == (sent, None, "paid")
        assert await case.balances() == (777, 0)
        await case.instruct("refund", case.number("R"), 777, refund_of=sent.number)
        assert (await case.result(case.number("R"))).outcome == "paid"
        first = await case.collect()
        late = await unsolicited(
            case.dsn,
            bank="icbc",
            supervised_account=case.supervised,
            amount_fen=1000,
            number=first.number,
            order_id=case.order_id,
        )
        assert (await case.result(first.number, reference=late.reference)).outcome == "paid"
        assert await case.balances() == (2000, 0)


async def test_a_cleared_behaviour_is_met_no_more(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        await case.behave("silent", times=None)
        await case.handled(await case.instruct("collect", case.number("C")))
        await case.handled(await case.instruct("collect", case.number("C")))
        assert case.told(case.number("C")) == []
        await clear_behaviours(case.dsn, case.order_id)
        await case.instruct("collect", case.number("C"))
        assert (await case.result(case.number("C"))).outcome == "paid"


async def test_a_statement_comes_in_pages_and_by_time(harness: Harness) -> None:
    case = Case(harness)
    async with harness.service("bank"):
        begun = harness.now() - timedelta(seconds=5)
        await case.collect(5000)
        for lesson in range(1, 6):
            await case.instruct("payout", case.number("P", lesson), 10)
            await case.result(case.number("P", lesson))
        whole = await statement(case.dsn, since=begun, bank="icbc")
        assert whole.next_after is None
        paged: list[Entry] = []
        after = None
        while True:
            page = await statement(case.dsn, since=begun, after=after, limit=2)
            paged += page.entries
            after = page.next_after
            if after is None:
                break
        assert paged == list(whole.entries)
        assert len([entry for entry in paged if entry.order_id == case.order_id]) == 6
        assert (await statement(case.dsn, until=begun, bank="nobody")).entries == ()
