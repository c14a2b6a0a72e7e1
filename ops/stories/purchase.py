"""Two families, from the SMS code to the pay-out of a lesson: one objects to a lesson, and complains."""

from typing import Final

from ops.scenario import Bought, Scenario
from ops.stack_layout import Stack
from ops.stories.stage import LI, ZHANG, Story, account, add_families, buy, open_course, sign_in, teach, until
from shared.contracts.catalog import CoursePage, LookUpInstitution, SearchCourses
from shared.contracts.orders import ApplyLesson, PlacePurchase
from shared.ids import new_id

LESSONS_TAUGHT: Final = 3


async def play(story: Story, stack: Stack, scenario: Scenario) -> None:
    """Buys, teaches three lessons, has one paid out, one objected to, one held by a complaint."""
    institution, course = await open_course(story, scenario)
    unknown = await scenario.refusal(LookUpInstitution(query="快乐成长托管中心"))
    story.must("an unknown institution is “not registered: do not pay”", unknown == "institution_not_registered")
    guardians = await sign_in(story, scenario, ZHANG, LI)
    too_soon = PlacePurchase(order_id=new_id(), account_id=guardians[0].account_id, course_id=new_id())
    missing = await scenario.refusal(too_soon, guardians[0].token)
    story.must("without child and signer no purchase, but a list of what is missing", missing == "profile_incomplete")
    await add_families(story, scenario, guardians, ZHANG, LI)
    found = await story.step(
        "they search 篮球 in 天宁区", scenario.ask(SearchCourses(district="天宁区", words="篮球"), CoursePage)
    )
    story.must("the course is found", [one.course_id for one in found.courses] == [course.course_id])
    bought, other = await buy(story, scenario, institution, course, guardians)
    story.orders.append(bought.order_id)
    story.with_timeline = True
    early = await scenario.refusal(ApplyLesson(order_id=bought.order_id, lesson_no=1), institution.token)
    story.must("a lesson cannot be consumed before it is taught (不可提前销课)", early == "lesson_not_over")
    taught = teach(stack, scenario, course, LESSONS_TAUGHT)
    await story.step("three lessons are taught (the one clock is moved)", taught)
    await _the_lessons(story, scenario, bought, other)
    await _the_complaint(story, scenario, bought)

    def noticed() -> bool:
        return len({sms["purpose"] for sms in story.sent()}) >= 4

    story.must("codes and notices were sent by SMS", await until(noticed))
    received_fen = await story.received_fen(institution)
    story.must("the institution received two lessons' fees, 200.00 yuan", received_fen == 20_000)


async def _the_lessons(story: Story, scenario: Scenario, bought: Bought, other: Bought) -> None:
    for lesson_no in range(1, LESSONS_TAUGHT + 1):
        await scenario.apply_for(bought, lesson_no)
    await story.step("the institution files the three lessons (销课申请)", scenario.apply_for(other, 1))
    await story.step("lesson 1 is confirmed (核销)", scenario.confirm(bought, 1))
    await story.step("lesson 2 is objected to", scenario.object_to(bought, 2, "老师迟到四十分钟，未补课"))
    view = await story.step("the bank pays lesson 1 out (拨付)", scenario.until_lesson(bought, 1, "paid_out"))
    states = [lesson.state for lesson in view.lessons[:LESSONS_TAUGHT]]
    story.must("one lesson is paid out, one objected to, one waits", states == ["paid_out", "objected", "applied"])
    story.must("11 lessons and 1,100.00 yuan are left", (view.left_lessons, view.left_fen) == (11, 110_000))
    await scenario.confirm(other, 1)
    await scenario.until_lesson(other, 1, "paid_out")


async def _the_complaint(story: Story, scenario: Scenario, bought: Bought) -> None:
    complaining = scenario.complain(bought.order_id, bought.guardian, bought.institution)
    filed = await story.step("家长张伟 complains: no invoice", complaining)
    story.note(f"{filed.number} → {filed.department} {filed.hotline}")
    routed = (filed.department, filed.hotline) == ("天宁区文化体育和旅游局", "69661826")
    story.must("it is routed by the table of the notice to 天宁区文化体育和旅游局, 69661826", routed)
    await scenario.confirm(bought, 3)

    async def held() -> bool:
        view = await account(scenario, bought)
        return view.suspended and [one.state for one in view.lessons] == ["released", "waiting"]

    story.must("while it is open the order's next release waits", await until(held))
