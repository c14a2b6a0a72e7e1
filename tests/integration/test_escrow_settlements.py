"""escrow on the real servers: lessons gathered and paid in one sum, daily or weekly; refused, unknown, come back."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from services.escrow import audit, settlements
from services.escrow.domain import ASK_AGAIN_AFTER, RETRY_REFUSED_AFTER, gathered_number, settlement_of
from shared.actors import Actor
from shared.banks import next_cut_off
from shared.contracts.bank import Instruct
from shared.contracts.catalog import BankAccount, InstitutionFrozen, InstitutionThawed
from shared.contracts.envelope import Data
from shared.contracts.escrow import (
    BookSettlement,
    ChooseSettlement,
    CloseSettlement,
    CollectPayment,
    PayoutReturned,
    Refunded,
    RefundOrder,
    Released,
    ReleaseLesson,
    Settled,
    SettlementClosed,
    SettlementDeadline,
    SettlementDelayed,
    SettlementPaid,
    SettlementView,
)
from shared.ids import instruction_number, new_id
from tests.escrowkit import LESSON_FEN, OPERATOR, PRICE_FEN, Complaint, Escrow, only, result
from tests.harness import Harness

pytestmark = pytest.mark.usefixtures("books_are_right")

AUTHORITY = Actor("district-1", "authority")


class Gatherer:
    """An institution that is paid daily, and its orders."""

    def __init__(self, escrow: Escrow, institution_id: UUID) -> None:
        self.escrow = escrow
        self.harness = escrow.harness
        self.institution_id = institution_id
        self.actor = Actor(str(institution_id), "institution")

    async def choose(self, mode: Any) -> SettlementView:
        ask = ChooseSettlement(institution_id=self.institution_id, mode=mode)
        view = await self.harness.ask(ask, self.actor)
        assert isinstance(view, SettlementView)
        return view

    async def held(self, **changes: Any) -> CollectPayment:
        return await self.escrow.held(institution_id=self.institution_id, **changes)

    async def release(self, ask: CollectPayment, *lessons: int) -> list[Data]:
        return await self.escrow.at_once(*(ReleaseLesson(order_id=ask.order_id, lesson_no=one) for one in lessons))

    async def at_cut_off(self, bank: str = "icbc") -> Instruct:
        """What the bank is told when its cut-off has come, as a part of what is said."""
        said = await self.escrow.at_once(CloseSettlement(institution_id=self.institution_id, bank=bank))
        return only(Instruct, said)

    async def gathered(self, count: int) -> tuple[list[CollectPayment], Instruct]:
        """So many orders with one lesson each on its way in one sum."""
        asks = [await self.held() for _ in range(count)]
        for ask in asks:
            await self.release(ask, 1)
        return asks, await self.at_cut_off()

    async def books(self, told: Instruct) -> dict[str, Any]:
        """The row of a settlement."""
        sql = "SELECT * FROM settlements WHERE settlement_id = $1"
        (row,) = await self.harness.rows("escrow", sql, told.order_id)
        return dict(row)

    async def answer(self, told: Instruct, **changes: Any) -> list[Data]:
        """The bank says something, and all lessons have followed."""
        said = await self.escrow.tell(result(told, **changes))

        async def followed() -> bool:
            row = await self.books(told)
            return bool(row["booked_step"] == 2 * row["turn"] + (row["state"] == "paid"))

        await self.harness.until(followed)
        return said

    async def told(self, number: str, times: int = 1) -> Instruct:
        """The instruction of that number, when the bank has been told so many times."""
        settlement = settlement_of(number)
        assert settlement is not None

        def found() -> list[Instruct]:
            return [one for one in self.harness.seen(Instruct, settlement[0]) if one.number == number]

        await self.harness.until(lambda: len(found()) >= times)
        assert len({one.model_dump_json() for one in found()}) == 1, "the same number always says the same"
        return found()[0]

    def heard(self, contract: type[Data], asks: list[CollectPayment]) -> list[int]:
        """How often something was said of each order."""
        return [len(self.harness.seen(contract, ask.order_id)) for ask in asks]


@pytest.fixture
async def daily(escrow: Escrow) -> Gatherer:
    gatherer = Gatherer(escrow, new_id())
    assert (await gatherer.choose("daily")).mode == "daily"
    return gatherer


# --- what an institution chooses --------------------------------------------------------------------------------------


async def test_the_institution_itself_or_an_authority_chooses_and_nobody_else(escrow: Escrow) -> None:
    institution_id = new_id()
    ask = ChooseSettlement(institution_id=institution_id, mode="daily")
    before = await escrow.tables()
    strangers = [Actor(str(new_id()), "institution"), Actor(str(institution_id), "guardian"), OPERATOR]
    for actor in strangers:
        assert await escrow.harness.refusal(ask, actor) == "actor_forbidden"
    assert await escrow.harness.refusal(ask, None) == "actor_unauthenticated"
    assert await escrow.tables() == before
    for actor, mode in ((AUTHORITY, "weekly"), (Actor(str(institution_id), "institution"), "at_once")):
        view = await escrow.harness.ask(ask.model_copy(update={"mode": mode}), actor)
        assert view == SettlementView(institution_id=institution_id, mode=mode)


async def test_what_is_gathered_goes_out_when_the_institution_is_paid_at_once_again(daily: Gatherer) -> None:
    ask = await daily.held()
    await daily.release(ask, 1)
    await daily.choose("at_once")
    closed = await daily.harness.expect(SettlementClosed, key=daily.institution_id)
    assert (closed.lessons, closed.amount_fen) == (1, LESSON_FEN)
    assert [type(one) for one in await daily.release(ask, 2)] == [Instruct, Released]


async def test_what_is_gathered_goes_out_as_the_new_mode_says_and_not_at_the_cut_off_of_the_old_one(
    daily: Gatherer, harness: Harness
) -> None:
    await daily.release(await daily.held(), 1)
    for mode in ("weekly", "daily", "weekly"):
        await daily.choose(mode)
        timers = await harness.rows("escrow", "SELECT due_at FROM timers WHERE key = $1", str(daily.institution_id))
        assert [row["due_at"] for row in timers] == [next_cut_off("icbc", mode, harness.now())]


async def test_releases_that_race_the_choice_are_never_left_until_a_cut_off(daily: Gatherer) -> None:
    asks = [await daily.held() for _ in range(4)]
    releases = [ReleaseLesson(order_id=ask.order_id, lesson_no=1) for ask in asks]
    # As by two copies of the service: the lock of the choice decides.
    await asyncio.gather(daily.escrow.at_once(*releases), daily.choose("at_once"))

    async def none_waits() -> bool:
        sql = "SELECT FROM gathered WHERE institution_id = $1 AND settlement_id IS NULL"
        return not await daily.harness.rows("escrow", sql, daily.institution_id)

    await daily.harness.until(none_waits)


# --- gathered, closed, paid -------------------------------------------------------------------------------------------


async def test_lessons_of_a_day_go_out_at_the_cut_off_in_one_sum_and_each_is_settled(
    daily: Gatherer, harness: Harness
) -> None:
    first, second = [await daily.held() for _ in range(2)]
    for ask, lessons in ((first, (1, 2)), (second, (1,))):
        said = await daily.release(ask, *lessons)
        assert [type(one) for one in said] == [Released] * len(lessons)
        assert await daily.escrow.timers(ask) == {}
    assert (await daily.escrow.money(first))["releasing_fen"] == 2 * LESSON_FEN
    assert (await daily.escrow.instructions(first))["payout", 1] == "gathered"
    due_at = next_cut_off("icbc", "daily", harness.now())
    timers = await harness.rows("escrow", "SELECT due_at FROM timers WHERE key = $1", str(daily.institution_id))
    assert [row["due_at"] for row in timers] == [due_at]

    await harness.advance(due_at - harness.now())
    closed = await harness.expect(SettlementClosed, key=daily.institution_id)
    assert (closed.lessons, closed.amount_fen, closed.payout_account) == (3, 3 * LESSON_FEN, "P-1")
    told = await daily.told(closed.number)
    assert told.number == gathered_number(closed.settlement_id, 0)
    assert (told.kind, told.amount_fen, told.supervised_account) == ("payout", 3 * LESSON_FEN, "S-1")
    listed = [(one.order_id, one.lesson_no, one.amount_fen) for one in told.lessons]
    places = [(first.order_id, 1), (first.order_id, 2), (second.order_id, 1)]
    assert listed == [(*place, LESSON_FEN) for place in sorted(places)]

    said = await daily.answer(told)
    assert only(SettlementPaid, said).amount_fen == 3 * LESSON_FEN
    assert await daily.escrow.money(first) == {
        "state": "held",
        "paid_fen": PRICE_FEN,
        "held_fen": PRICE_FEN - 2 * LESSON_FEN,
        "released_fen": 2 * LESSON_FEN,
    }
    await harness.until(lambda: daily.heard(Settled, [first, second]) == [2, 1])
    before = await daily.escrow.tables()
    await daily.escrow.at_once(CloseSettlement(institution_id=daily.institution_id, bank="icbc"))
    await daily.escrow.at_once(SettlementDeadline(settlement_id=closed.settlement_id))
    await daily.escrow.at_once(BookSettlement(settlement_id=closed.settlement_id, step=1))
    assert await daily.escrow.tables() == before
    assert daily.heard(Settled, [first, second]) == [2, 1]


async def test_lessons_follow_some_at_a_time_also_when_the_sum_comes_back_at_once(
    daily: Gatherer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlements, "LESSONS_AT_ONCE", 2)
    asks, told = await daily.gathered(5)
    said = await daily.escrow.at_once(result(told), result(told, outcome="returned", reason="closed"))
    assert [type(one) for one in said if isinstance(one, BookSettlement)] == [BookSettlement] * 2
    assert (await daily.books(told))["turn"] == 1
    await daily.harness.until(lambda: daily.heard(PayoutReturned, asks) == [1] * 5)
    assert daily.heard(Settled, asks) == [1] * 5
    for ask in asks:
        assert (await daily.escrow.money(ask))["releasing_fen"] == LESSON_FEN


async def test_the_books_are_right_at_every_moment_while_lessons_follow(
    daily: Gatherer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlements, "LESSONS_AT_ONCE", 1)
    asks, told = await daily.gathered(4)
    done = asyncio.create_task(daily.answer(told))
    while not done.done():
        report = await audit.check(daily.harness.dsns["escrow"])
        assert report.good, report.violations
    await done
    for ask in asks:
        assert (await daily.escrow.money(ask))["released_fen"] == LESSON_FEN


async def test_a_long_list_and_different_accounts_go_out_in_several_sums(
    daily: Gatherer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlements, "MOST_GATHERED", 2)
    asks = [await daily.held() for _ in range(3)]
    for ask in asks:
        await daily.release(ask, 1)
    elsewhere = BankAccount(bank="icbc", supervised_account="S-1", payout_account="P-2")
    await daily.release(await daily.held(account=elsewhere), 1)
    other_bank = await daily.held(account=BankAccount(bank="abc", supervised_account="S-9", payout_account="P-9"))
    await daily.release(other_bank, 1)
    await daily.at_cut_off()
    key = daily.institution_id
    await daily.harness.until(lambda: len(daily.harness.seen(SettlementClosed, key)) == 3)
    sums = [(one.payout_account, one.lessons) for one in daily.harness.seen(SettlementClosed, key)]
    assert sums == [("P-1", 2), ("P-1", 1), ("P-2", 1)]
    assert (await daily.at_cut_off("abc")).counter_account == "P-9"


async def test_what_an_institution_keeps_and_what_a_complaint_held_is_gathered_too_and_refunds_are_not(
    daily: Gatherer,
) -> None:
    ask = await daily.held()
    said = await daily.escrow.at_once(
        RefundOrder(order_id=ask.order_id, reason="parent_asked", lessons=(9, 10), deduction_fen=7)
    )
    refund = only(Instruct, said)
    assert refund.kind == "refund"
    complaint = Complaint(ask)
    await daily.escrow.at_once(complaint.suspend)
    await daily.release(ask, 1)
    told = await daily.at_cut_off()
    assert [(one.lesson_no, one.amount_fen) for one in told.lessons] == [(0, 7)]
    assert [type(one) for one in await daily.escrow.at_once(complaint.resume)] == [Released]
    second = await daily.at_cut_off()
    assert [one.lesson_no for one in second.lessons] == [1]
    await daily.answer(told)
    await daily.answer(second)
    assert only(Refunded, await daily.escrow.tell(result(refund))).amount_fen == refund.amount_fen
    assert (await daily.escrow.money(ask))["released_fen"] == LESSON_FEN + 7


async def test_of_a_frozen_institution_nothing_goes_out_until_it_thaws(daily: Gatherer) -> None:
    ask = await daily.held()
    await daily.release(ask, 1)
    freeze = InstitutionFrozen(
        institution_id=daily.institution_id, change_no=1, until="2027-01-01T00:00:00+08:00", reason="卷款风险"
    )
    await daily.escrow.tell(freeze)
    await daily.release(ask, 2)
    close = CloseSettlement(institution_id=daily.institution_id, bank="icbc")
    assert await daily.escrow.at_once(close) == []
    await daily.escrow.tell(InstitutionThawed(institution_id=daily.institution_id, change_no=2, reason="已整改"))

    async def both_gathered() -> bool:
        sql = "SELECT 1 FROM gathered WHERE institution_id = $1"
        return len(await daily.harness.rows("escrow", sql, daily.institution_id)) == 2

    await daily.harness.until(both_gathered)
    due_at = next_cut_off("icbc", "daily", daily.harness.now())
    await daily.harness.advance(due_at - daily.harness.now())
    closed = await daily.harness.expect(SettlementClosed, key=daily.institution_id)
    assert closed.lessons == 2


async def test_a_refused_sum_of_a_frozen_institution_is_not_tried_anew(daily: Gatherer) -> None:
    _, told = await daily.gathered(1)
    await daily.answer(told, outcome="refused", reference="no", reason="closed")
    freeze = InstitutionFrozen(
        institution_id=daily.institution_id, change_no=1, until="2027-01-01T00:00:00+08:00", reason="卷款风险"
    )
    await daily.escrow.tell(freeze)
    late = SettlementDeadline(settlement_id=told.order_id)
    assert await daily.escrow.at_once(late) == []
    await daily.escrow.tell(InstitutionThawed(institution_id=daily.institution_id, change_no=2, reason="已整改"))
    assert only(Instruct, await daily.escrow.at_once(late)).number == gathered_number(told.order_id, 1)


async def test_releases_that_race_the_cut_off_are_in_one_sum_each(daily: Gatherer) -> None:
    asks = [await daily.held() for _ in range(4)]
    close = CloseSettlement(institution_id=daily.institution_id, bank="icbc")
    releases = [ReleaseLesson(order_id=ask.order_id, lesson_no=1) for ask in asks]
    # As by two copies of the service; what came too late goes out with the next.
    await asyncio.gather(daily.escrow.at_once(*releases), daily.escrow.at_once(close), daily.escrow.at_once(close))
    await daily.escrow.at_once(close)
    sql = "SELECT sum(lessons)::int AS lessons FROM settlements WHERE institution_id = $1"
    assert [row["lessons"] for row in await daily.harness.rows("escrow", sql, daily.institution_id)] == [4]


# --- refused, unknown, come back --------------------------------------------------------------------------------------


async def test_a_refused_sum_is_tried_again_later_under_a_new_number(daily: Gatherer, harness: Harness) -> None:
    asks, told = await daily.gathered(2)
    delayed = only(SettlementDelayed, await daily.answer(told, outcome="refused", reference="no", reason="closed"))
    assert (delayed.outcome, delayed.reason, delayed.amount_fen) == ("refused", "closed", 2 * LESSON_FEN)
    for ask in asks:
        assert (await daily.escrow.money(ask))["releasing_fen"] == LESSON_FEN
    await harness.advance(RETRY_REFUSED_AFTER)
    second = await daily.told(gathered_number(told.order_id, 1))
    assert (second.amount_fen, second.lessons) == (told.amount_fen, told.lessons)
    await daily.answer(second)
    assert (await daily.escrow.money(asks[0]))["released_fen"] == LESSON_FEN

    assert await daily.answer(told, outcome="refused", reference="no") == []
    assert await daily.escrow.verdicts(told.number) == ["applied", "stale"]


async def test_a_sum_the_bank_does_not_know_of_is_asked_again_under_the_same_number(
    daily: Gatherer, harness: Harness
) -> None:
    asks, told = await daily.gathered(1)
    assert await daily.answer(told, outcome="unknown", reference="u") == []
    for times, pause in ((2, ASK_AGAIN_AFTER), (3, 2 * ASK_AGAIN_AFTER)):
        await harness.advance(pause)
        await daily.told(told.number, times)
    await daily.answer(told)
    assert (await daily.escrow.money(asks[0]))["released_fen"] == LESSON_FEN
    sql = "SELECT 1 FROM timers WHERE key = $1"
    assert await harness.rows("escrow", sql, str(told.order_id)) == []


async def test_a_sum_that_comes_back_days_later_is_a_new_entry_of_each_lesson_and_is_paid_again(
    daily: Gatherer, harness: Harness
) -> None:
    asks, told = await daily.gathered(3)
    await daily.answer(told)
    back: dict[str, Any] = {"outcome": "returned", "reference": f"back-{told.number}", "reason": "account_closed"}
    delayed = only(SettlementDelayed, await daily.answer(told, **back))
    assert (delayed.outcome, delayed.reason) == ("returned", "account_closed")
    await harness.until(lambda: daily.heard(PayoutReturned, asks) == [1, 1, 1])
    (one,) = harness.seen(PayoutReturned, asks[0].order_id)
    assert (one.reason, one.turn, one.settlement_id) == ("account_closed", 1, told.order_id)
    for ask in asks:
        assert (await daily.escrow.money(ask))["releasing_fen"] == LESSON_FEN
    assert await daily.answer(told, **back) == []
    assert await daily.answer(told) == []

    await harness.advance(RETRY_REFUSED_AFTER)
    second = await daily.told(gathered_number(told.order_id, 1))
    await daily.answer(second)
    await harness.until(lambda: daily.heard(Settled, asks) == [2, 2, 2])
    assert await daily.escrow.verdicts(told.number) == ["applied", "applied", "stale", "repeated"]
    sql = "SELECT * FROM transfers WHERE order_id = $1 AND lesson_no = 1 ORDER BY turn, phase"
    rows = await harness.rows("escrow", sql, asks[0].order_id)
    assert [(row["turn"], row["debit"], row["credit"]) for row in rows] == [
        (0, "held", "releasing"),
        (0, "releasing", "released"),
        (1, "released", "releasing"),
        (1, "releasing", "released"),
    ]


async def test_nothing_comes_back_under_the_number_of_a_lesson_that_was_paid_with_others(daily: Gatherer) -> None:
    asks, told = await daily.gathered(1)
    await daily.answer(told)
    number = instruction_number("P", asks[0].order_id, 1, 0)
    wrong = result(told, number=number, outcome="returned", reference="who knows", order_id=asks[0].order_id)
    assert await daily.escrow.tell(wrong) == []
    assert (await daily.escrow.money(asks[0]))["released_fen"] == LESSON_FEN
    report = await audit.check(daily.harness.dsns["escrow"])
    assert list(report.violations) == ["no payment contradicts the books"]
    await daily.harness.rows("escrow", "DELETE FROM bank_results WHERE number = $1", number)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_fen": LESSON_FEN - 1},
        {"bank": "abc"},
        {"outcome": "returned"},
        {"number": lambda told: gathered_number(told.order_id, 1)},
        {"number": lambda _: gathered_number(new_id(), 0)},
    ],
    ids=["another amount", "another bank", "back before it went", "another attempt", "nobody's number"],
)
async def test_what_contradicts_a_sum_is_for_a_person_and_changes_nothing(
    daily: Gatherer, changes: dict[str, Any | Callable[[Instruct], str]]
) -> None:
    asks, told = await daily.gathered(1)
    wrong = result(told, **{name: value(told) if callable(value) else value for name, value in changes.items()})
    assert await daily.escrow.tell(wrong) == []
    report = await audit.check(daily.harness.dsns["escrow"])
    assert list(report.violations) == ["no payment contradicts the books"]
    sql = "DELETE FROM bank_results WHERE number = $1 AND verdict = 'conflict'"
    await daily.harness.rows("escrow", sql, wrong.number)
    assert (await daily.escrow.money(asks[0]))["releasing_fen"] == LESSON_FEN
    await daily.answer(told)
    assert (await daily.escrow.money(asks[0]))["released_fen"] == LESSON_FEN
