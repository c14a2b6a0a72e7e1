"""An authority freezes an institution (冻结): no sales, no pay-outs; refunds go on. Thawed, all goes out once."""

from datetime import timedelta
from typing import Final

from ops.scenario import Bought, Scenario
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
from shared.contracts.orders import PlacePurchase, PurchaseView
from shared.ids import new_id

LESSONS_TAUGHT: Final = 2
FROZEN_FOR: Final = timedelta(days=30)


async def play(story: Story, stack: Stack, scenario: Scenario) -> None:
    """Three families have bought when the authority freezes the institution; one leaves; later it is thawed."""
    institution, course = await open_course(story, scenario)
    guardians = await sign_in(story, scenario, ZHANG, LI, WANG)
    await add_families(story, scenario, guardians, ZHANG, LI, WANG)
    zhang, li = await buy(story, scenario, institution, course, guardians[:2])
    await teach(stack, scenario, course, LESSONS_TAUGHT)
    await story.step("two lessons are taught and filed (销课申请)", _file(scenario, zhang, li))
    await scenario.confirm(zhang, 1)
    paid = scenario.until_lesson(zhang, 1, "paid_out")
    await story.step("家长张伟 confirms lesson 1; the bank pays it out (拨付)", paid)
    next_course = await scenario.publish_course(institution, "少儿篮球提高班")
    buying = scenario.buy(guardians[2], institution, next_course)
    wang = await story.step("家长王强 buys another course, which begins tomorrow", buying)
    await story.before(zhang, li, wang)

    authority = scenario.token("authority", "changzhou-edu")
    end = scenario.now() + FROZEN_FOR
    freezing = FreezeInstitution(institution_id=institution.institution_id, until=end, reason="涉嫌卷款，冻结调查")
    frozen = await story.step(
        "the authority freezes the institution for 30 days (冻结)", scenario.ask(freezing, InstitutionView, authority)
    )
    story.must("it is shown as frozen, with the end of it", frozen.frozen_until == end)
    await _while_frozen(story, scenario, next_course, zhang, li)
    await _get_out(story, scenario, wang)

    thawing = ThawInstitution(institution_id=institution.institution_id, reason="核查完毕，未发现风险")
    await story.step("the authority thaws it (解冻)", scenario.ask(thawing, InstitutionView, authority))
    await story.step("lesson 2 of 家长张伟 is paid out now", scenario.until_lesson(zhang, 2, "paid_out"))
    await story.step("lesson 1 of 家长李娜 as well", scenario.until_lesson(li, 1, "paid_out"))
    received_fen = await story.received_fen(institution)
    story.must("each of the three lessons was paid out once, 300.00 yuan", received_fen == 30_000)


async def _while_frozen(story: Story, scenario: Scenario, course: CourseView, zhang: Bought, li: Bought) -> None:
    """Nothing is sold, nothing is paid out; that guardians confirm is written down and waits."""
    placing = PlacePurchase(
        order_id=new_id(),
        account_id=li.guardian.account_id,
        child_id=li.guardian.child_id,
        course_id=course.course_id,
    )
    await scenario.ask(placing, PurchaseView, li.guardian.token)
    ending = scenario.until_state(placing.order_id, li.guardian.token, "ended")
    ended = await story.step("家长李娜 wants to buy that course as well, and cannot", ending)
    story.must("while it is frozen nothing is sold (institution_frozen)", ended.reason == "institution_frozen")
    await scenario.confirm(zhang, 2)
    confirming = scenario.confirm(li, 1)
    await story.step("家长张伟 confirms lesson 2, 家长李娜 lesson 1 (核销)", confirming)

    async def both_wait() -> bool:
        of_zhang, of_li = await lesson_money(scenario, zhang), await lesson_money(scenario, li)
        return (of_zhang, of_li) == ({1: "released", 2: "waiting"}, {1: "waiting"})

    story.must("what is confirmed waits: no pay-out while it is frozen", await until(both_wait))
    received_fen = await story.received_fen(li.institution)
    story.must("the institution has no more than before the freeze, 100.00 yuan", received_fen == 10_000)


async def _get_out(story: Story, scenario: Scenario, bought: Bought) -> None:
    """Who wants the money back gets it: a freeze holds what goes to the institution, not what goes back."""
    asking = scenario.ask_refund(bought, "机构被冻结")
    await story.step("家长王强 reads of it, and asks for the money back (退费)", asking)
    refund = await story.step("the bank pays it back, frozen or not", scenario.until_refund(bought, "paid"))
    story.must("a refund goes on while the institution is frozen: 1,200.00 yuan", refund.refund_fen == 120_000)


async def _file(scenario: Scenario, zhang: Bought, li: Bought) -> None:
    """The institution files what it has taught: both lessons of one order, the first of the other."""
    for bought, lesson_no in ((zhang, 1), (zhang, 2), (li, 1)):
        await scenario.apply_for(bought, lesson_no)
