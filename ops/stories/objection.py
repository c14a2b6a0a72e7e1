"""A guardian objects to two lessons: the authority divides one fee, and gives the other back after silence."""

from datetime import timedelta
from typing import Final

from ops.scenario import Bought, Scenario
from ops.stack_layout import Stack
from ops.stories.stage import ZHANG, Story, account, enrol, morning_after, move_to, open_course, teach, until
from shared.contracts.orders import DecideObjection
from shared.money import yuan

LESSONS_TAUGHT: Final = 3
PART_FEN: Final = 6_000


async def play(story: Story, stack: Stack, scenario: Scenario) -> None:
    """Three lessons are filed: the first is disputed and split, the second unanswered and returned, the third paid."""
    institution, course = await open_course(story, scenario)
    (bought,) = await enrol(story, scenario, institution, course, ZHANG)
    await teach(stack, scenario, course, LESSONS_TAUGHT)
    for lesson_no in range(1, LESSONS_TAUGHT):
        await scenario.apply_for(bought, lesson_no)
    await story.step("three lessons are taught and filed (销课申请)", scenario.apply_for(bought, LESSONS_TAUGHT))
    await story.before(bought)

    await story.step("lesson 1 is objected to (异议)", scenario.object_to(bought, 1, "老师迟到四十分钟", "照片 7"))
    await story.step("lesson 2 as well", scenario.object_to(bought, 2, "没有上课", "照片 8"))
    await scenario.confirm(bought, 3)
    paid = scenario.until_lesson(bought, 3, "paid_out")
    view = await story.step("lesson 3 is confirmed, and paid out: an objection holds its own lesson only", paid)
    states = [lesson.state for lesson in view.lessons[:LESSONS_TAUGHT]]
    story.must("the two lessons wait, the third is paid", states == ["objected", "objected", "paid_out"])
    await _the_first(story, scenario, bought)
    await _the_second(story, stack, scenario, bought)

    async def settled() -> bool:
        money = await account(scenario, bought)
        parts = (money.released_fen, money.refunded_fen, money.held_fen)
        return parts == (PART_FEN + 10_000, 4_000 + 10_000, 90_000)

    story.must("the books say: 160.00 to the institution, 140.00 back, 900.00 held", await until(settled))
    await morning_after(stack, scenario)
    told = await until(lambda: story.sms("order.refunded") == 2)
    story.must("the guardian is told of each sum that went back, by day", told)
    received_fen = await story.received_fen(institution)
    story.must("the institution received 100.00 and its part of 60.00 yuan", received_fen == 10_000 + PART_FEN)
    view = await scenario.show(bought.order_id, bought.guardian.token)
    counted = (view.consumed_fen, view.refunded_fen, view.left_fen)
    story.must("consumed, returned and left are the price", counted == (16_000, 14_000, 90_000))


async def _the_first(story: Story, scenario: Scenario, bought: Bought) -> None:
    """The institution answers, then the authority divides the fee; nobody else may, and nobody before."""
    early = DecideObjection(
        order_id=bought.order_id, lesson_no=1, decision="split", release_fen=PART_FEN, reason="双方各有责任"
    )
    authority = scenario.token("authority", "changzhou-edu")
    refused = await scenario.refusal(early, authority)
    story.must("nothing is decided while the institution may still answer", refused == "objection_state")
    answering = scenario.answer_objection(bought, 1, "老师因堵车迟到二十分钟")
    answered = await story.step("the institution answers", answering)
    story.must("then it is the authority's turn", (answered.state, answered.act_by is not None) == ("answered", True))
    refused = await scenario.refusal(early, bought.institution.token)
    story.must("the institution does not decide its own case", refused == "actor_forbidden")
    deciding = scenario.decide_objection(bought, 1, "split", "双方各有责任", PART_FEN)
    decided = await story.step("the authority divides the fee (裁决)", deciding)
    story.note(f"{yuan(decided.release_fen)} yuan to the institution, {yuan(decided.return_fen)} back to the guardian")
    story.must("the two parts are the lesson's price, to the fen", decided.release_fen + decided.return_fen == 10_000)


async def _the_second(story: Story, stack: Stack, scenario: Scenario, bought: Bought) -> None:
    """The institution lets its time go by; the authority gives the fee back."""
    asked = await scenario.show_objection(bought, 2)
    assert asked.act_by is not None
    await move_to(stack, scenario, asked.act_by + timedelta(minutes=1))

    async def unanswered() -> bool:
        return (await scenario.show_objection(bought, 2)).state == "unanswered"

    silent = await story.step("about lesson 2 the institution says nothing until its time is over", until(unanswered))
    story.must("a silent institution is heard no more: the authority decides", silent)
    lesson = (await scenario.show(bought.order_id, bought.guardian.token)).lessons[1]
    story.must("no silence has confirmed what was objected to", (lesson.state, lesson.confirmed_by) == ("objected", ""))
    deciding = scenario.decide_objection(bought, 2, "return", "机构未在期限内答复")
    await story.step("the authority gives the fee back to the guardian (退还)", deciding)
