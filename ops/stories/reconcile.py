"""A bank's statement of a day (对账单) against results and ledger: what the bank did and did not tell is found."""

from datetime import timedelta
from typing import Final

from ops.bank import desk
from ops.cli.bank import statement as write_statement
from ops.cli.base import DONE, FOUND
from ops.cli.breaks import list_ as list_breaks
from ops.cli.reconcile import reconcile
from ops.scenario import Bought, Scenario
from ops.stack_layout import Stack
from ops.stories.stage import LI, ZHANG, Story, enrol, lesson_money, move_to, open_course, teach, until
from shared.contracts.escrow import Break, BreakPage, BreakView, ListBreaks, ProposeBreak, ResolveBreak
from shared.working_days import shanghai

LESSONS_TAUGHT: Final = 2
REASON: Final = "银行已出账而未回报，已电话核实"
ASKED_AGAIN: Final = timedelta(minutes=6)
"""A number without an answer is asked again after five."""


async def play(story: Story, stack: Stack, scenario: Scenario) -> None:
    """One day is reconciled three times: while all is told, while a pay-out is not, and when it is told at last."""
    institution, course = await open_course(story, scenario)
    zhang, li = await enrol(story, scenario, institution, course, ZHANG, LI)
    await teach(stack, scenario, course, LESSONS_TAUGHT)
    for lesson_no in range(1, LESSONS_TAUGHT + 1):
        await scenario.apply_for(zhang, lesson_no)
    await scenario.confirm(zhang, 1)
    await story.step("one lesson is confirmed and paid out", scenario.until_lesson(zhang, 1, "paid_out"))
    await story.before(zhang, li)

    status = await _compare(story, scenario, zhang, "the bank's statement is compared with results and ledger")
    story.must("they agree: no breaks", status == DONE)
    await _untold(story, stack, scenario, zhang)
    status = await _compare(story, scenario, zhang, "the same day again")
    story.must("the command says so: a break", status == FOUND)
    await _two_people(story, scenario, await _the_break(story, scenario, zhang))

    await move_to(stack, scenario, scenario.now() + ASKED_AGAIN)
    told = scenario.until_lesson(zhang, 2, "paid_out")
    await story.step("the bank is asked again under the same number, and tells", told)
    status = await _compare(story, scenario, zhang, "and the day once more")
    story.must("now they agree", status == DONE)
    received_fen = await story.received_fen(institution)
    story.must("the institution received each fee once, 200.00 yuan", received_fen == 20_000)


async def _compare(story: Story, scenario: Scenario, bought: Bought, words: str) -> int:
    """The bank writes its statement of today into a file; the operator compares it. Returns the exit status."""
    day, bank = shanghai(scenario.now()).date().isoformat(), bought.institution.account.bank
    file = story.stack.folder / f"{bank}-{day}.csv"
    await story.command(write_statement, day, out=file, bank=bank)
    return await story.step(words, story.command(reconcile, day, file=file, bank=bank))


async def _untold(story: Story, stack: Stack, scenario: Scenario, bought: Bought) -> None:
    """The bank pays a lesson out and does not say so."""
    await desk.set_behaviour(stack.dsn("bank"), "silent", kind="payout", order_id=bought.order_id)
    await story.step("lesson 2 is confirmed; the bank pays it, and is silent", scenario.confirm(bought, 2))

    async def paid_and_not_told() -> bool:
        on_its_way = (await lesson_money(scenario, bought)).get(2) == "releasing"
        return on_its_way and await story.received_fen(bought.institution) == 20_000

    story.must("the money is there, and our books do not know it yet", await until(paid_and_not_told))


async def _the_break(story: Story, scenario: Scenario, bought: Bought) -> Break:
    """What stands on the statement and nobody has told us of."""
    asking = ListBreaks(bank=bought.institution.account.bank)
    page = await scenario.ask(asking, BreakPage, scenario.token("operator", "li"))
    found = [(one.type, one.theirs_fen, one.ours_fen) for one in page.breaks]
    story.must("it is named: booked there, only sent here, 100.00 yuan out", found == [("status", -10_000, 0)])
    return page.breaks[0]


async def _two_people(story: Story, scenario: Scenario, found: Break) -> None:
    """One says why, another agrees (双人复核)."""
    li, wang = scenario.token("operator", "li"), scenario.token("operator", "wang")
    proposing = scenario.ask(ProposeBreak(break_id=found.break_id, reason=REASON), BreakView, li)
    await story.step("operator li says why it may be laid to rest", proposing)
    agreeing = ResolveBreak(break_id=found.break_id)
    refused = await scenario.refusal(agreeing, li)
    story.must("li alone cannot resolve it", refused == "break_second_person")
    resolved = await story.step("operator wang agrees", scenario.ask(agreeing, BreakView, wang))
    by = (resolved.found.state, resolved.found.proposed_by, resolved.found.resolved_by)
    story.must("it is resolved, with its reason and both names", by == ("resolved", "li", "wang"))
    story.must("no break waits any more", await story.command(list_breaks) == DONE)
