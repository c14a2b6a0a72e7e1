"""A guardian does not answer: N working days later the lesson counts as confirmed, marked so for ever [law].

Filed on the eve of National Day, so that holidays lie in between, and a Saturday worked in exchange (调休) that counts.
"""

from datetime import date, datetime, timedelta
from typing import Final

from ops.scenario import Scenario
from ops.stack_layout import Stack
from ops.stories.stage import MORNING, ZHANG, Story, enrol, morning_after, move_to, open_course, teach, until
from shared.clock import get_offset, set_offset
from shared.policy import policy_for
from shared.working_days import SHANGHAI, horizon, is_rest_day, shanghai

LESSONS_TAUGHT: Final = 2
LAST_MINUTE: Final = timedelta(minutes=1)


async def play(story: Story, stack: Stack, scenario: Scenario) -> None:
    """Two lessons are filed: the guardian confirms the first, and never says a word about the second."""
    await _three_days_before_national_day(story, stack, scenario)
    institution, course = await open_course(story, scenario)
    (bought,) = await enrol(story, scenario, institution, course, ZHANG)
    await teach(stack, scenario, course, LESSONS_TAUGHT)
    await story.before(bought)
    filed = shanghai(scenario.now()).date()
    await story.step(
        f"two lessons were taught; filed on {filed:%A %-d %B %Y} (销课申请)", scenario.apply_for(bought, 1)
    )
    answer = await scenario.apply_for(bought, 2)
    assert answer.answer_by is not None
    last = shanghai(answer.answer_by - LAST_MINUTE).date()
    _the_days(story, filed, last)
    await story.step("the guardian confirms lesson 1 (核销)", scenario.confirm(bought, 1))
    await story.step("the bank pays it out (拨付)", scenario.until_lesson(bought, 1, "paid_out"))
    story.must("the guardian was asked by SMS", await until(lambda: story.sms("lesson.waiting")))

    await move_to(stack, scenario, answer.answer_by - LAST_MINUTE)
    view = await story.step(
        f"nobody answers about lesson 2 … {last:%A %-d %B}, 23:59",
        scenario.show(bought.order_id, bought.guardian.token),
    )
    story.must("a minute before its time is over it still waits", view.lessons[1].state == "applied")
    await move_to(stack, scenario, answer.answer_by + LAST_MINUTE)
    view = await story.step(
        "midnight passes: confirmed by silence, and paid out", scenario.until_lesson(bought, 2, "paid_out")
    )
    said_by = [lesson.confirmed_by for lesson in view.lessons[:LESSONS_TAUGHT]]
    story.must("silence stays distinguishable from the guardian's word", said_by == ["guardian", "silence"])
    story.must("10 lessons and 1,000.00 yuan are left", (view.left_lessons, view.left_fen) == (10, 100_000))
    await morning_after(stack, scenario)
    told = await until(lambda: story.sms("lesson.settled") == LESSONS_TAUGHT)
    story.must("the guardian was told of both pay-outs in the morning, not at midnight", told)
    received_fen = await story.received_fen(institution)
    story.must("the institution received two lessons' fees, 200.00 yuan", received_fen == 20_000)


def _the_days(story: Story, filed: date, last: date) -> None:
    """What counts between the day of filing, which does not, and the last day, which does."""
    between = [filed + timedelta(days=number) for number in range(1, (last - filed).days + 1)]
    rest = [day for day in between if is_rest_day(day)]
    worked = [day for day in between if day.weekday() >= 5 and day not in rest]
    days = policy_for("changzhou", "体育", filed).confirm_silence_working_days
    story.note(f"to be answered by the end of {last:%A %-d %B}: {days} working days, {len(rest)} days of rest between")
    if worked:
        story.note(f"worked in exchange (调休), so it counts: {', '.join(f'{day:%A %-d %B}' for day in worked)}")
    story.must(f"{days} working days were given, days of rest not counted", len(between) - len(rest) == days)


async def _three_days_before_national_day(story: Story, stack: Stack, scenario: Scenario) -> None:
    """Sets the clock of a stack in which nothing has happened yet, back as well: a year's holidays are known late.

    A PostgreSQL that is other people's too keeps its time: then weekends are all that does not count.
    """
    if not stack.site.embedded:
        return
    eve = date(horizon().year, 9, 30)
    begins = datetime.combine(eve - timedelta(days=LESSONS_TAUGHT + 1), MORNING, SHANGHAI)
    offset = scenario.clock_offset + (begins - scenario.now())
    await story.step(
        f"the clock is set to {begins:%A %-d %B %Y}, before National Day", set_offset(stack.admin_dsn, offset)
    )
    scenario.clock_offset = await get_offset(stack.admin_dsn)
