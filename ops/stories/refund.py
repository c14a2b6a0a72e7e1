"""Two refunds (退费): one in full before the first lesson, one later, less the contract's penalty."""

from datetime import timedelta
from typing import Final

from ops.scenario import Bought, Scenario
from ops.stack_layout import Stack
from ops.stories.stage import LI, ZHANG, Story, account, enrol, morning_after, move_to, open_course, teach, until
from shared.contracts.orders import ApplyLesson, QuoteRefund, RefundQuote, RequestRefund
from shared.contracts.types import RefundTerms
from shared.ids import new_id
from shared.money import yuan

LESSONS_TAUGHT: Final = 2
TERMS: Final = RefundTerms(penalty_basis_points=500)


async def play(story: Story, stack: Stack, scenario: Scenario) -> None:
    """家长张伟 goes before the first lesson begins, 家长李娜 after two lessons."""
    institution, course = await open_course(story, scenario, TERMS)
    zhang, li = await enrol(story, scenario, institution, course, ZHANG, LI)
    await story.before(zhang, li)
    await _in_full(story, scenario, zhang)

    await teach(stack, scenario, course, LESSONS_TAUGHT)
    await scenario.apply_for(li, 1)
    await story.step("two lessons of 家长李娜 are taught and filed (销课申请)", scenario.apply_for(li, 2))
    await scenario.confirm(li, 1)
    await story.step("lesson 1 is confirmed and paid out", scenario.until_lesson(li, 1, "paid_out"))
    quote = await _pending(story, scenario, li)
    await scenario.confirm(li, 2)
    await story.step("so she confirms lesson 2; it is paid out", scenario.until_lesson(li, 2, "paid_out"))
    await _less_the_penalty(story, stack, scenario, li, quote)

    await morning_after(stack, scenario)
    told = await until(lambda: story.sms("order.refunded") == 2)
    story.must("each guardian is told of the refund, by day", told)
    received_fen = await story.received_fen(institution)
    story.must("the institution received two lessons and the penalty, 250.00 yuan", received_fen == 25_000)


async def _in_full(story: Story, scenario: Scenario, bought: Bought) -> None:
    """Within the days of the law, no lesson begun: everything, at once, and the institution is not asked."""
    refund = await story.step(
        "家长张伟 wants the money back before the first lesson", scenario.ask_refund(bought, "孩子转学")
    )
    story.must("in full, and nobody has to agree", (refund.ground, refund.state) == ("full_refund_window", "paying"))
    paid = await story.step("the bank pays it back the way it came (原路)", scenario.until_refund(bought, "paid"))
    story.must("1,200.00 yuan are back", paid.refund_fen == 120_000)

    async def all_back() -> bool:
        money = await account(scenario, bought)
        return (money.refunded_fen, money.held_fen, money.released_fen) == (120_000, 0, 0)

    story.must("the books say so", await until(all_back))


async def _pending(story: Story, scenario: Scenario, bought: Bought) -> RefundQuote:
    """A lesson that waits for its answer is settled first; the quote says so, and what would go back, line by line."""
    asking = scenario.ask(QuoteRefund(order_id=bought.order_id), RefundQuote, bought.guardian.token)
    quote = await story.step("家长李娜 asks what would go back now", asking)
    for line in quote.lines:
        story.note(f"{'less ' if line.what == 'deduction' else ''}{yuan(line.amount_fen)} yuan: {line.rule}")
    story.must("ten lessons less 5 %, 950.00 yuan", (len(quote.lessons), quote.refund_fen) == (10, 95_000))
    request = RequestRefund(order_id=bought.order_id, refund_id=new_id(), reason="搬家", quoted_fen=quote.refund_fen)
    refused = await scenario.refusal(request, bought.guardian.token)
    story.must("a lesson that waits for an answer comes first", (refused, quote.pending) == ("refund_pending", (2,)))
    return quote


async def _less_the_penalty(story: Story, stack: Stack, scenario: Scenario, bought: Bought, quote: RefundQuote) -> None:
    """The institution does not answer in its working days: that is agreement, and the bank pays."""
    refund = await story.step("then she asks for it; the institution must answer", scenario.ask_refund(bought, "搬家"))
    assert refund.act_by is not None
    story.must("the amount is the one quoted", (refund.state, refund.refund_fen) == ("asked", quote.refund_fen))
    filing = ApplyLesson(order_id=bought.order_id, lesson_no=3)
    await teach(stack, scenario, bought.course, LESSONS_TAUGHT + 1)
    refused = await scenario.refusal(filing, bought.institution.token)
    story.must("a lesson that is asked back cannot be filed as taught", refused == "lesson_state")
    await move_to(stack, scenario, refund.act_by + timedelta(minutes=1))
    paying = scenario.until_refund(bought, "paid")
    paid = await story.step("it is silent for its working days: agreed, and paid back", paying)
    story.must("silence is agreement, and is marked as such", paid.answer == "逾期未答复，视为同意")

    async def settled() -> bool:
        money = await account(scenario, bought)
        return (money.refunded_fen, money.released_fen, money.held_fen) == (95_000, 25_000, 0)

    story.must("950.00 yuan went back, 50.00 to the institution, nothing is held", await until(settled))
