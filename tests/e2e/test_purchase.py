"""The whole system in one process on the real servers: a purchase from the catalog to the pay-out."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from ops.scenario import Scenario, read_sms
from services.escrow import audit
from shared.contracts.orders import ApplyLesson
from tests.harness import Harness

ALL = ("catalog", "orders", "escrow", "complaints", "notify", "bank")


@pytest.fixture(scope="module")
async def scenario(harness: Harness) -> AsyncIterator[Scenario]:
    """Everybody at the gateway, all services running."""
    async with harness.service(*ALL):
        scenario = Scenario(harness.client, harness.folder / "keys", harness.folder / "sms.jsonl", seed=1)
        scenario.clock_offset = harness.offset
        yield scenario
        assert (await audit.check(harness.dsns["escrow"])).violations == {}


async def test_a_lesson_is_bought_taught_confirmed_and_paid_out(scenario: Scenario, harness: Harness) -> None:
    institution = await scenario.open_institution("常州蓝天体育培训中心")
    course = await scenario.publish_course(institution, "少儿篮球基础班")
    guardian = await scenario.new_guardian()
    bought = await scenario.buy(guardian, institution, course)

    early = ApplyLesson(order_id=bought.order_id, lesson_no=1)
    assert await scenario.refusal(early, institution.token) == "lesson_not_over"

    await harness.advance(timedelta(days=4))
    scenario.clock_offset = harness.offset
    for lesson_no in (1, 2, 3):
        assert (await scenario.apply_for(bought, lesson_no)).state == "applied"
    await scenario.confirm(bought, 1)
    await scenario.object_to(bought, 2, "老师没有来上课")
    view = await scenario.until_lesson(bought, 1, "paid_out")

    assert [lesson.state for lesson in view.lessons[:4]] == ["paid_out", "objected", "applied", "planned"]
    assert (view.consumed_lessons, view.consumed_fen, view.left_fen) == (1, 10_000, 110_000)
    assert read_sms(harness.folder / "sms.jsonl")
