"""An institution is gone (卷款跑路): the authority decides, and every unconsumed lesson of every order is paid back."""

from typing import Final

from ops.scenario import Bought, Guardian, Institution, Scenario
from ops.stack_layout import Stack
from ops.stories.stage import LI, WANG, ZHANG, Story, account, add_families, buy, open_course, sign_in, teach, until
from shared.contracts.catalog import InstitutionView, SetInstitutionState
from shared.contracts.orders import PlacePurchase, PlanWindUp, PurchaseView, ShowWindUp, StartWindUp, WindUpView
from shared.ids import new_id
from shared.money import yuan

LESSONS_TAUGHT: Final = 2
REASON: Final = "机构失联，负责人无法联系"


async def play(story: Story, stack: Stack, scenario: Scenario) -> None:
    """Two families have bought, one has had two lessons, a third is about to pay; then nobody opens the door."""
    institution, course = await open_course(story, scenario)
    guardians = await sign_in(story, scenario, ZHANG, LI, WANG)
    await add_families(story, scenario, guardians, ZHANG, LI, WANG)
    zhang, li = await buy(story, scenario, institution, course, guardians[:2])
    await teach(stack, scenario, course, LESSONS_TAUGHT)
    for lesson_no in range(1, LESSONS_TAUGHT + 1):
        await scenario.apply_for(zhang, lesson_no)
        await scenario.confirm(zhang, lesson_no)
    paid = scenario.until_lesson(zhang, LESSONS_TAUGHT, "paid_out")
    await story.step("two lessons of 家长张伟 are taught, confirmed and paid out", paid)
    next_course = await scenario.publish_course(institution, "少儿篮球提高班")
    placing = PlacePurchase(
        order_id=new_id(),
        account_id=guardians[2].account_id,
        child_id=guardians[2].child_id,
        course_id=next_course.course_id,
    )
    await scenario.ask(placing, PurchaseView, guardians[2].token)
    begun = scenario.until_state(placing.order_id, guardians[2].token, "to_sign")
    await story.step("家长王强 is about to buy another course", begun)
    await story.before(zhang, li)

    await story.step("the institution is gone; the authority closes it", _close(scenario, institution))
    await _wind_up(story, scenario, institution)
    await _the_families(story, scenario, zhang, li)
    await _who_was_about_to_buy(story, scenario, placing, guardians[2])
    received_fen = await story.received_fen(institution)
    story.must("the institution has what it has taught and no more, 200.00 yuan", received_fen == 20_000)


async def _close(scenario: Scenario, institution: Institution) -> None:
    authority = scenario.token("authority", "changzhou-edu")
    for state in ("suspended", "closed"):
        asked = SetInstitutionState(institution_id=institution.institution_id, state=state, reason=REASON)
        await scenario.ask(asked, InstitutionView, authority)


async def _wind_up(story: Story, scenario: Scenario, institution: Institution) -> None:
    """A dry run, then the decision; asked again, nothing is done twice."""
    authority = scenario.token("authority", "changzhou-edu")
    planning = PlanWindUp(institution_id=institution.institution_id)
    plan = await story.step("a dry run says what there is to do", scenario.ask(planning, WindUpView, authority))
    todo = f"{plan.orders} orders, {plan.lessons} lessons, {yuan(plan.refund_fen)} yuan"
    story.note(f"{todo}; {plan.given_up} purchase that is not paid yet")
    totals = (plan.orders, plan.lessons, plan.refund_fen, plan.given_up)
    story.must("2 orders, 22 lessons, 2,200.00 yuan, and one purchase to give up", totals == (2, 22, 220_000, 1))
    refused = await scenario.refusal(planning, institution.token)
    story.must("nobody but the authority decides it", refused == "actor_forbidden")
    start = StartWindUp(institution_id=institution.institution_id, reason=REASON)
    await story.step("the authority decides: everything goes back", scenario.ask(start, WindUpView, authority))
    showing = ShowWindUp(institution_id=institution.institution_id)

    async def finished() -> bool:
        return (await scenario.ask(showing, WindUpView, authority)).finished_at is not None

    await story.step("order by order, with its progress, to the end", until(finished))
    done = await scenario.ask(showing, WindUpView, authority)
    story.must("all of it was done", (done.done_orders, done.done_fen) == (2, 220_000))


async def _the_families(story: Story, scenario: Scenario, zhang: Bought, li: Bought) -> None:
    """Each gets every lesson back that was not consumed, without deduction, the way it was paid."""
    for bought in (zhang, li):
        await scenario.until_refund(bought, "paid")
    refund = await story.step("the bank pays both families back (原路)", scenario.until_refund(li, "paid"))
    whole = (refund.ground, refund.deduction_fen) == ("institution_gone", 0)
    story.must("nothing is deducted: the institution is gone", whole)

    async def all_back() -> bool:
        of_zhang, of_li = await account(scenario, zhang), await account(scenario, li)
        back = (of_zhang.refunded_fen, of_li.refunded_fen)
        return back == (100_000, 120_000) and of_zhang.held_fen == of_li.held_fen == 0

    story.must("1,000.00 and 1,200.00 yuan are back, nothing is held", await until(all_back))


async def _who_was_about_to_buy(story: Story, scenario: Scenario, placing: PlacePurchase, guardian: Guardian) -> None:
    """A purchase that was not paid yet has ended."""
    view = await scenario.until_state(placing.order_id, guardian.token, "ended")
    story.must("the purchase that was not paid yet has ended", view.reason == "institution_gone")
