"""escrow on the real servers: refunds of some lessons, lessons divided by an authority, frozen institutions."""

import asyncio
from typing import Any

import pytest

from services.escrow import freezes
from shared.actors import Actor
from shared.contracts.bank import Instruct
from shared.contracts.catalog import InstitutionFrozen, InstitutionThawed
from shared.contracts.envelope import Data
from shared.contracts.escrow import (
    ChooseSettlement,
    CollectPayment,
    DivideLesson,
    InstructionDeadline,
    PayoutReturned,
    RefundDelayed,
    Refunded,
    RefundOrder,
    Released,
    ReleaseLesson,
    Settled,
)
from shared.ids import instruction_number, new_id
from tests.escrowkit import LESSON_FEN, PRICE_FEN, Complaint, Escrow, codes, only, result

pytestmark = pytest.mark.usefixtures("books_are_right")

UNTIL = "2027-01-01T00:00:00+08:00"


def refund(ask: CollectPayment, *lessons: int, **more: Any) -> RefundOrder:
    return RefundOrder(order_id=ask.order_id, reason="parent_asked", lessons=lessons, **more)


def instructions(said: list[Data]) -> dict[tuple[str, int], int]:
    """What the bank is told: kind and amount by the kind and lesson in its number."""
    told = [one for one in said if isinstance(one, Instruct)]
    return {(one.kind, int(one.number[26:29], 36)): one.amount_fen for one in told}


async def test_some_lessons_go_back_less_what_the_institution_keeps(escrow: Escrow) -> None:
    ask = await escrow.held()
    command = refund(ask, 2, 3, deduction_fen=10)
    said = await escrow.tell(command)
    assert instructions(said) == {("refund", 0): 2 * LESSON_FEN - 10, ("payout", 0): 10}
    assert only(Released, said).lesson_no == 0
    before = await escrow.tables()
    assert await escrow.tell(command) == []
    assert codes(await escrow.tell(refund(ask, 1))) == ["refund_exists"]
    assert codes(await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=2))) == ["lesson_settled"]
    assert await escrow.tables() == before

    kept, back = sorted((one for one in said if isinstance(one, Instruct)), key=lambda one: one.kind)
    settled = only(Settled, await escrow.tell(result(kept)))
    assert (settled.lesson_no, settled.amount_fen) == (0, 10)
    refunded = only(Refunded, await escrow.tell(result(back)))
    assert (refunded.lesson_no, refunded.amount_fen) == (0, 2 * LESSON_FEN - 10)
    assert only(Instruct, await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=1))).kind == "payout"
    assert await escrow.money(ask) == {
        "state": "refunded",
        "paid_fen": PRICE_FEN,
        "held_fen": PRICE_FEN - 3 * LESSON_FEN,
        "releasing_fen": LESSON_FEN,
        "released_fen": 10,
        "refunded_fen": 2 * LESSON_FEN - 10,
    }


async def test_a_refund_that_was_refused_or_came_back_is_tried_again_and_a_person_is_told(escrow: Escrow) -> None:
    ask = await escrow.held()
    back = only(Instruct, await escrow.tell(refund(ask, 3)))
    delayed = only(RefundDelayed, await escrow.tell(result(back, outcome="refused", reason="account_closed")))
    assert (delayed.outcome, delayed.reason, delayed.amount_fen) == ("refused", "account_closed", LESSON_FEN)
    assert delayed.institution_id == ask.institution_id

    ask = await escrow.held()
    back = only(Instruct, await escrow.tell(refund(ask, 3)))
    await escrow.tell(result(back))
    said = await escrow.tell(result(back, outcome="returned", reason="account_closed", reference="ref-back"))
    assert only(RefundDelayed, said).outcome == "returned"
    assert not [one for one in said if isinstance(one, PayoutReturned)]
    assert (await escrow.money(ask))["refunding_fen"] == LESSON_FEN


@pytest.mark.parametrize("release_fen", [0, 40, LESSON_FEN])
async def test_an_authority_divides_a_lesson(escrow: Escrow, release_fen: int) -> None:
    ask = await escrow.held()
    command = DivideLesson(order_id=ask.order_id, lesson_no=2, release_fen=release_fen)
    said = await escrow.tell(command)
    parts = {("payout", 2): release_fen, ("refund", 2): LESSON_FEN - release_fen}
    assert instructions(said) == {part: fen for part, fen in parts.items() if fen}
    before = await escrow.tables()
    assert await escrow.tell(command) == []
    other = DivideLesson(order_id=ask.order_id, lesson_no=2, release_fen=release_fen ^ 1)
    assert codes(await escrow.tell(other)) == ["lesson_settled"]
    assert codes(await escrow.tell(refund(ask, 2, 3))) == ["lesson_settled"]
    released = await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=2))
    assert codes(released) == ([] if release_fen else ["lesson_settled"])
    assert await escrow.tables() == before

    for one in (one for one in said if isinstance(one, Instruct)):
        paid = await escrow.tell(result(one))
        told = only(Settled, paid) if one.kind == "payout" else only(Refunded, paid)
        assert told.lesson_no == 2
    money = await escrow.money(ask)
    assert (money["state"], money["held_fen"]) == ("held", PRICE_FEN - LESSON_FEN)
    rest = only(Instruct, await escrow.tell(refund(ask)))
    assert rest.amount_fen == PRICE_FEN - LESSON_FEN


async def test_of_an_order_without_account_nothing_is_divided(escrow: Escrow) -> None:
    assert codes(await escrow.tell(DivideLesson(order_id=new_id(), lesson_no=1, release_fen=0))) == ["order_unknown"]


# --- frozen institutions ----------------------------------------------------------------------------------------------


def frozen(ask: CollectPayment, change_no: int) -> InstitutionFrozen:
    return InstitutionFrozen(institution_id=ask.institution_id, change_no=change_no, until=UNTIL, reason="卷款风险")


def thawed(ask: CollectPayment, change_no: int) -> InstitutionThawed:
    return InstitutionThawed(institution_id=ask.institution_id, change_no=change_no, reason="已整改")


async def test_while_an_institution_is_frozen_releases_wait_refunds_go_on_and_then_all_goes_out_once(
    escrow: Escrow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freezes, "ORDERS_AT_ONCE", 2)
    first = await escrow.held()
    asks = [first, *[await escrow.held(institution_id=first.institution_id) for _ in range(4)]]
    await escrow.tell(frozen(first, 3))
    for ask in asks:
        assert await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=1)) == []
    said = await escrow.tell(refund(first, 2, deduction_fen=10))
    assert instructions(said) == {("refund", 0): LESSON_FEN - 10}
    stranger = await escrow.held()
    assert (await escrow.payout(stranger)).kind == "payout"

    # A complaint on one of them goes on holding it, and another's end does not let it go while it is frozen.
    held_back, closed = Complaint(asks[1]), Complaint(asks[2])
    await escrow.at_once(held_back.suspend, closed.suspend)
    assert await escrow.tell(closed.resume) == []

    async def released() -> list[tuple[str, int]]:
        sql = "SELECT key, body::jsonb->'data'->>'lesson_no' AS lesson FROM outbox WHERE type = $1"
        rows = await escrow.harness.rows("escrow", sql, Released.TYPE)
        keys = {str(ask.order_id) for ask in asks}
        return sorted((row["key"], int(row["lesson"])) for row in rows if row["key"] in keys)

    assert await released() == []
    await escrow.tell(thawed(first, 4))
    out = [(str(ask.order_id), 1) for ask in asks if ask is not asks[1]] + [(str(first.order_id), 0)]

    async def all_out() -> bool:
        return await released() == sorted(out)

    await escrow.harness.until(all_out)
    assert only(Released, await escrow.tell(held_back.resume)).lesson_no == 1
    assert (await escrow.payout(first, 3)).kind == "payout"


async def test_who_is_frozen_holds_nobody_elses_payouts_in_the_same_batch(escrow: Escrow) -> None:
    """A frozen institution, one that is paid by the day, one whose order a complaint holds, and one like any other."""
    cold, daily, quarrelled, other = [await escrow.held() for _ in range(4)]
    choice = ChooseSettlement(institution_id=daily.institution_id, mode="daily")
    await escrow.harness.ask(choice, Actor(str(daily.institution_id), "institution"))
    await escrow.at_once(frozen(cold, 3), Complaint(quarrelled).suspend)
    asks = cold, daily, quarrelled, other
    said = await escrow.at_once(*(ReleaseLesson(order_id=ask.order_id, lesson_no=1) for ask in asks))
    assert [(one.order_id, one.kind) for one in said if isinstance(one, Instruct)] == [(other.order_id, "payout")]
    states = [(await escrow.instructions(ask))["payout", 1] for ask in asks]
    assert states == ["waiting", "gathered", "waiting", "sent"]


async def test_a_refused_payout_of_a_frozen_institution_is_not_tried_anew_until_it_thaws(escrow: Escrow) -> None:
    ask = await escrow.held()
    payout = await escrow.payout(ask)
    await escrow.tell(result(payout, outcome="refused", reference="no"))
    await escrow.tell(frozen(ask, 2))
    late = InstructionDeadline(order_id=ask.order_id, number=payout.number)
    assert await escrow.at_once(late) == []
    assert await escrow.timers(ask) != {}
    await escrow.tell(thawed(ask, 3))
    assert only(Instruct, await escrow.at_once(late)).number == instruction_number("P", ask.order_id, 1, 1)


async def test_what_was_told_before_does_not_freeze_again(escrow: Escrow) -> None:
    ask = await escrow.held()
    await escrow.tell(frozen(ask, 3))
    await escrow.tell(thawed(ask, 4))
    await escrow.tell(frozen(ask, 3))
    assert (await escrow.payout(ask)).kind == "payout"
    await escrow.tell(frozen(ask, 5))
    await escrow.tell(thawed(ask, 4))
    assert await escrow.tell(ReleaseLesson(order_id=ask.order_id, lesson_no=2)) == []


async def test_releases_that_race_a_thaw_are_never_left_behind(escrow: Escrow) -> None:
    first = await escrow.held()
    asks = [first, *[await escrow.held(institution_id=first.institution_id) for _ in range(5)]]
    await escrow.tell(frozen(first, 2))
    releases = [ReleaseLesson(order_id=ask.order_id, lesson_no=1) for ask in asks]
    # Two transactions at once, as by two copies of the service: the lock of the freeze decides.
    await asyncio.gather(escrow.at_once(*releases), escrow.at_once(thawed(first, 3)))

    async def none_waits() -> bool:
        sql = "SELECT FROM instructions WHERE order_id = ANY($1) AND state = 'waiting'"
        return not await escrow.harness.rows("escrow", sql, [ask.order_id for ask in asks])

    await escrow.harness.until(none_waits)
    for ask in asks:
        assert (await escrow.instructions(ask))["payout", 1] == "sent"
