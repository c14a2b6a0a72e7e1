"""An authority freezes an institution: no sale, no pay-out, families get out. Thawed, what was due goes out once."""

from datetime import timedelta
from typing import Final
from uuid import UUID

from ops.scenario import Bought, Guardian, Scenario
from ops.stack_layout import Stack
from ops.stories.stage import (
    LI,
    WANG,
    ZHANG,
    Story,
    add_families,
    buy,
    lesson_money,
    open_course,
    sign_in,
    teach,
    until,
)
from shared.contracts.catalog import CourseView, FreezeInstitution, InstitutionView, ThawInstitution
from shared.contracts.orders import CancelPurchase, PlacePurchase, PurchaseView
from shared.ids import new_id

LESSONS_TAUGHT: Final = 2
FROZEN_FOR: Final = timedelta(days=30)


async def play(story: Story, stack: Stack, scenario: Scenario) -> None:
    """Two families have bought, a third is about to, when the authority freezes the institution; later it thaws it."""
    institution, course = await open_course(story, scenario)
    guardians = await sign_in(story, scenario, ZHANG, LI, WANG)
    await add_families(story, scenario, guardians, ZHANG, LI, WANG)
    zhang, li = await buy(story, scenario, institution, course, guardians[:2])
    wang = guardians[2]
    await teach(stack, scenario, course, LESSONS_TAUGHT)
    await story.step("two lessons are taught and filed (销课申请)", _file(scenario, zhang, li))
    await scenario.confirm(zhang, 1)
    paid = scenario.until_lesson(zhang, 1, "paid_out")
    await story.step("家长张伟 confirms lesson 1; the bank pays it out (拨付)", paid)
    next_course = await scenario.publish_course(institution, "少儿篮球提高班")
    begun = await story.step("家长王强 begins to buy another course", _place(scenario, wang, next_course, "to_sign"))
    await story.before(zhang, li)

    authority = scenario.token("authority", "changzhou-edu")
    end = scenario.now() + FROZEN_FOR
    freezing = FreezeInstitution(institution_id=institution.institution_id, until=end, reason="涉嫌卷款，冻结调查")
    frozen = await story.step(
        "the authority freezes the institution for 30 days (冻结)", scenario.ask(freezing, InstitutionView, authority)
    )
    story.must("it is shown as frozen, with the end of it", frozen.frozen_until == end)
    await _while_frozen(story, scenario, next_course, zhang, li)
    await _get_out(story, scenario, wang, begun)

    thawing = ThawInstitution(institution_id=institution.institution_id, reason="核查完毕，未发现风险")
    await story.step("the authority thaws it (解冻)", scenario.ask(thawing, InstitutionView, authority))
    await story.step("lesson 2 of 家长张伟 is paid out now", scenario.until_lesson(zhang, 2, "paid_out"))
    await story.step("lesson 1 of 家长李娜 as well", scenario.until_lesson(li, 1, "paid_out"))
    bought = await story.step("家长王强 buys after all", scenario.buy(wang, institution, next_course))
    story.orders.append(bought.order_id)
    received_fen = await story.received_fen(institution)
    story.must("each of the three lessons was paid out once, 300.00 yuan", received_fen == 30_000)


async def _while_frozen(story: Story, scenario: Scenario, course: CourseView, zhang: Bought, li: Bought) -> None:
    """Nothing is sold, nothing is paid out; that guardians confirm is written down and waits."""
    placing = _place(scenario, li.guardian, course, "ended")
    order_id = await story.step("家长李娜 wants to buy another course as well, and cannot", placing)
    view = await scenario.show(order_id, li.guardian.token)
    story.must("while it is frozen nothing is sold (institution_frozen)", view.reason == "institution_frozen")
    await scenario.confirm(zhang, 2)
    confirming = scenario.confirm(li, 1)
    await story.step("家长张伟 confirms lesson 2, 家长李娜 lesson 1 (核销)", confirming)

    async def both_wait() -> bool:
        of_zhang, of_li = await lesson_money(scenario, zhang), await lesson_money(scenario, li)
        return (of_zhang, of_li) == ({1: "released", 2: "waiting"}, {1: "waiting"})

    story.must("what is confirmed waits: no pay-out while it is frozen", await until(both_wait))
    received_fen = await story.received_fen(li.institution)
    story.must("the institution has no more than before the freeze, 100.00 yuan", received_fen == 10_000)


async def _get_out(story: Story, scenario: Scenario, guardian: Guardian, order_id: UUID) -> None:
    """Who has not paid yet is free to go."""
    giving_up = scenario.ask(CancelPurchase(order_id=order_id), PurchaseView, guardian.token)
    await story.step("家长王强 reads of it, and gives the purchase up", giving_up)
    view = await scenario.until_state(order_id, guardian.token, "ended")
    story.must("a family gets out of a frozen institution", view.reason == "cancelled")


async def _file(scenario: Scenario, zhang: Bought, li: Bought) -> None:
    """The institution files what it has taught: both lessons of one order, the first of the other."""
    for bought, lesson_no in ((zhang, 1), (zhang, 2), (li, 1)):
        await scenario.apply_for(bought, lesson_no)


async def _place(scenario: Scenario, guardian: Guardian, course: CourseView, state: str) -> UUID:
    """A guardian begins to buy; comes to `state`."""
    placing = PlacePurchase(
        order_id=new_id(), account_id=guardian.account_id, child_id=guardian.child_id, course_id=course.course_id
    )
    await scenario.ask(placing, PurchaseView, guardian.token)
    await scenario.until_state(placing.order_id, guardian.token, state)
    return placing.order_id
