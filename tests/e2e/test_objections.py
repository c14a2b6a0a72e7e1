"""The whole system in one process on the real servers: lessons objected to, until the bank has paid each side."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from ops.scenario import Bought, Scenario
from services.escrow import audit
from shared.contracts.escrow import AccountView, ShowAccount
from tests.harness import Harness

ALL = ("catalog", "orders", "escrow", "complaints", "notify", "bank")
FEE = 10_000


@pytest.fixture(scope="module")
async def scenario(harness: Harness) -> AsyncIterator[Scenario]:
    """Everybody at the gateway, all services running."""
    async with harness.service(*ALL):
        yield Scenario(harness.client, harness.folder / "keys", harness.folder / "sms.jsonl", seed=1)


async def advance(scenario: Scenario, harness: Harness, by: timedelta) -> None:
    await harness.advance(by)
    scenario.clock_offset = harness.offset


async def until_money(scenario: Scenario, harness: Harness, bought: Bought, **fen: int) -> None:
    """Waits until the order's account says so."""

    async def there() -> bool:
        asked = ShowAccount(order_id=bought.order_id)
        view = await scenario.ask(asked, AccountView, scenario.token("authority", "changzhou-edu"))
        wanted: dict[str, Any] = {f"{name}_fen": amount for name, amount in fen.items()}
        return wanted.items() <= view.model_dump().items()

    await harness.until(there)


async def test_one_lesson_is_split_one_given_back_and_one_released_after_silence(
    scenario: Scenario, harness: Harness
) -> None:
    institution = await scenario.open_institution("常州蓝天体育培训中心")
    course = await scenario.publish_course(institution, "少儿篮球基础班")
    guardian = await scenario.new_guardian()
    bought = await scenario.buy(guardian, institution, course)
    await advance(scenario, harness, timedelta(days=5))
    for lesson_no in (1, 2, 3, 4):
        await scenario.apply_for(bought, lesson_no)
        await scenario.object_to(bought, lesson_no, "老师没有来上课", "photo-7")

    await scenario.answer_objection(bought, 1, "老师迟到二十分钟")
    seen = await scenario.decide_objection(bought, 1, "split", "双方各有责任", 6_000)
    assert (seen.state, seen.release_fen, seen.return_fen) == ("decided", 6_000, 4_000)
    seen = await scenario.answer_objection(bought, 2, "老师生病，同意退还", accepts=True)
    assert (seen.decided_by, seen.return_fen) == ("institution", FEE)
    await until_money(scenario, harness, bought, released=6_000, refunded=4_000 + FEE, held=10 * FEE)
    view = await scenario.show(bought.order_id, guardian.token)
    assert [one.state for one in view.lessons[:5]] == ["divided", "divided", "objected", "objected", "planned"]
    assert (view.consumed_fen, view.refunded_fen, view.left_fen) == (6_000, 4_000 + FEE, 10 * FEE)

    act_by = (await scenario.show_objection(bought, 3)).act_by
    assert act_by is not None
    await advance(scenario, harness, act_by - scenario.now())

    async def silent() -> bool:
        states = [(await scenario.show_objection(bought, lesson_no)).state for lesson_no in (3, 4)]
        return states == ["unanswered", "unanswered"]

    await harness.until(silent)
    await scenario.decide_objection(bought, 3, "release", "签到表显示已上课")
    view = await scenario.until_lesson(bought, 3, "paid_out")
    assert view.lessons[2].confirmed_by == "authority"
    await until_money(scenario, harness, bought, released=6_000 + FEE, refunded=4_000 + FEE, held=9 * FEE)
    assert [one.state for one in view.lessons[:4]] == ["divided", "divided", "paid_out", "objected"]

    assert (await audit.check(harness.dsns["escrow"])).violations == {}
    (paid,) = await harness.rows(
        "bank",
        "SELECT balance_fen FROM accounts WHERE account = $1",
        institution.account.payout_account,
    )
    assert paid["balance_fen"] == 6_000 + FEE
    sql = "SELECT amount_fen FROM entries WHERE (kind, outcome) = ('refund', 'paid') ORDER BY amount_fen"
    assert [row["amount_fen"] for row in await harness.rows("bank", sql)] == [4_000, FEE]
    sql = "SELECT subject FROM sms WHERE purpose = 'order.refunded' ORDER BY subject"
    told = [row["subject"] for row in await harness.rows("notify", sql)]
    assert told == [f"{bought.order_id}/{lesson_no}" for lesson_no in (1, 2)], "each sum that goes back is told"
