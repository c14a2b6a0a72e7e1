"""escrow on the real servers: the money by district and institution is the sum of its accounts, to the fen."""

from typing import Any
from uuid import UUID

import pytest

from shared.actors import Actor
from shared.contracts.bank import Instruct
from shared.contracts.catalog import InstitutionFrozen
from shared.contracts.escrow import (
    EscrowTotals,
    InstitutionMoney,
    ListEscrowTotals,
    RefundOrder,
    ReleaseLesson,
    SuspendReleases,
)
from shared.contracts.types import InstitutionKey
from shared.ids import new_id
from tests.escrowkit import LESSON_FEN, LESSONS, OPERATOR, PRICE_FEN, Escrow, result

AUTHORITY = Actor("authority-1", "authority")
LAST_FEN = PRICE_FEN - (LESSONS - 1) * LESSON_FEN


async def totals(escrow: Escrow, actor: Actor = AUTHORITY, **ask: Any) -> EscrowTotals:
    page = await escrow.harness.ask(ListEscrowTotals(**ask), actor)
    assert isinstance(page, EscrowTotals)
    return page


async def of(escrow: Escrow, institution_id: UUID) -> dict[str, int]:
    """The sums of one institution in one district, those that are not zero."""
    (found,) = (await totals(escrow, institution_id=institution_id)).institutions
    return {name: fen for name, fen in found.model_dump().items() if name not in ("district", "institution_id") and fen}


async def test_the_sums_follow_the_money_of_every_order(escrow: Escrow) -> None:
    institution_id, district = new_id(), "武进区"
    terms = {"institution_id": institution_id, "district": district}
    await escrow.at_once(escrow.collection(**terms))  # not paid yet
    assert await of(escrow, institution_id) == {"orders": 1}
    one, two, three = [await escrow.held(**terms) for _ in range(3)]
    assert await of(escrow, institution_id) == {"orders": 4, "paid_fen": 3 * PRICE_FEN, "held_fen": 3 * PRICE_FEN}

    await escrow.at_once(result(await escrow.payout(one, 1)))
    await escrow.payout(one, LESSONS)
    await escrow.at_once(result(await escrow.refund(two)))
    await escrow.refund(three)
    assert await of(escrow, institution_id) == {
        "orders": 4,
        "paid_fen": 3 * PRICE_FEN,
        "held_fen": PRICE_FEN - LESSON_FEN - LAST_FEN,
        "released_fen": LESSON_FEN,
        "releasing_fen": LAST_FEN,
        "refunded_fen": PRICE_FEN,
        "refunding_fen": PRICE_FEN,
    }
    for actor in (AUTHORITY, OPERATOR):
        (found,) = (await totals(escrow, actor, institution_id=institution_id, district=district)).institutions
        assert found.district == district
    assert await totals(escrow, institution_id=institution_id, district="天宁区") == EscrowTotals(institutions=())


async def test_what_waits_for_a_complaint_or_a_freeze_is_told_and_is_still_held(escrow: Escrow) -> None:
    institution_id = new_id()
    complained, other = [await escrow.held(institution_id=institution_id, district="天宁区") for _ in range(2)]
    await escrow.at_once(SuspendReleases(order_id=complained.order_id, complaint_id=new_id()))
    await escrow.at_once(ReleaseLesson(order_id=complained.order_id, lesson_no=1))
    held = {"orders": 2, "paid_fen": 2 * PRICE_FEN, "held_fen": 2 * PRICE_FEN}
    assert await of(escrow, institution_id) == held | {"waiting_fen": LESSON_FEN}
    frozen = InstitutionFrozen(
        institution_id=institution_id, change_no=1, until="2027-01-01T00:00:00+08:00", reason="跑路风险"
    )
    await escrow.at_once(frozen)
    await escrow.at_once(ReleaseLesson(order_id=other.order_id, lesson_no=LESSONS))
    assert await of(escrow, institution_id) == held | {"waiting_fen": LESSON_FEN + LAST_FEN}


async def test_an_institution_in_two_districts_is_told_of_each(escrow: Escrow) -> None:
    institution_id = new_id()
    old = await escrow.held(institution_id=institution_id)  # from before orders told the district
    new = await escrow.held(institution_id=institution_id, district="钟楼区")
    await escrow.at_once(RefundOrder(order_id=new.order_id, reason="parent_asked"))
    found = (await totals(escrow, institution_id=institution_id)).institutions
    nothing = {
        "institution_id": institution_id,
        "orders": 1,
        "paid_fen": PRICE_FEN,
        "held_fen": 0,
        "releasing_fen": 0,
        "released_fen": 0,
        "refunding_fen": 0,
        "refunded_fen": 0,
        "waiting_fen": 0,
    }
    assert found == (
        InstitutionMoney(**nothing | {"district": "", "held_fen": PRICE_FEN}),
        InstitutionMoney(**nothing | {"district": "钟楼区", "refunding_fen": PRICE_FEN}),
    )
    (row,) = await escrow.harness.rows("escrow", "SELECT district FROM accounts WHERE order_id = $1", old.order_id)
    assert row["district"] == ""


@pytest.fixture(scope="module")
async def many(escrow: Escrow) -> int:
    """Institutions in many districts: how many there are at least."""
    districts = ["天宁区", "", "武进区", "é", "Z", "a"]
    asks = [escrow.collection(institution_id=new_id(), district=district) for district in districts * 5]
    told = await escrow.at_once(*asks)
    assert len([one for one in told if isinstance(one, Instruct)]) == len(asks)
    return len(asks)


@pytest.mark.parametrize("limit", [1, 2, 7, 11, 100])
async def test_every_institution_comes_once_in_one_order_whatever_the_page(
    escrow: Escrow, many: int, limit: int
) -> None:
    seen: list[tuple[str, UUID]] = []
    after: InstitutionKey | None = None
    while True:
        page = await totals(escrow, limit=limit, after=after)
        assert len(page.institutions) <= limit
        seen += [(one.district, one.institution_id) for one in page.institutions]
        after = page.next_after
        if after is None:
            break
    rows = await escrow.harness.rows("escrow", "SELECT DISTINCT district, institution_id FROM accounts")
    assert seen == sorted((row["district"], row["institution_id"]) for row in rows), "by code points, as Python sorts"
    assert len(seen) >= many


async def test_a_page_of_large_institutions_is_short_and_says_where_to_go_on(
    escrow: Escrow, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await escrow.at_once(escrow.collection(district="经开区"))
    whole = await totals(escrow, district="经开区")
    assert (len(whole.institutions), whole.next_after) == (3, None)
    monkeypatch.setattr("shared.institutions.AT_ONCE", 1)
    monkeypatch.setattr("shared.institutions.MOST_ROWS", 1)
    seen: list[InstitutionMoney] = []
    after: InstitutionKey | None = None
    for _ in range(3):
        page = await totals(escrow, district="经开区", after=after)
        assert len(page.institutions) == 1
        seen += page.institutions
        after = page.next_after
    assert tuple(seen) == whole.institutions
    assert (await totals(escrow, district="经开区", after=after)) == EscrowTotals(institutions=())


async def test_only_authorities_and_operators_see_the_sums_and_nothing_changes(escrow: Escrow) -> None:
    ask = await escrow.held(district="天宁区")
    before = await escrow.tables()
    owners = [Actor(str(ask.account_id), "guardian"), Actor(str(ask.institution_id), "institution")]
    for actor in (*owners, Actor("icbc", "bank")):
        request = ListEscrowTotals(institution_id=ask.institution_id)
        assert await escrow.harness.refusal(request, actor) == "actor_forbidden"
    assert await escrow.harness.refusal(ListEscrowTotals()) == "actor_unauthenticated"
    for limit in (0, 101):
        wrong = ListEscrowTotals().model_copy(update={"limit": limit})
        assert await escrow.harness.refusal(wrong, AUTHORITY) == "request_invalid"
    assert await escrow.tables() == before
