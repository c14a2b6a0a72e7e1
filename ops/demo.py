"""`yike demo`: two real families on a stack of their own, from the SMS code to the pay-out, then an account of it all.

Everything goes over Kafka as a gateway would send it; nothing is played by calling a service. The exit status is 0 only
if each thing in the story has happened and the books of Yike, and of the bank, prove.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.table import Table

from ops.bank import desk
from ops.cli.base import DONE, FOUND, Common
from ops.cli.ledger import check as ledger_check
from ops.cli.ledger import show as ledger_show
from ops.cli.timeline import timeline
from ops.scenario import Bought, Guardian, Institution, Scenario, read_sms
from ops.stack.progress import Progress
from ops.stack.servers import discard
from ops.stack_layout import Stack
from services.escrow import audit
from shared.contracts.catalog import CoursePage, CourseView, LookUpInstitution, SearchCourses
from shared.contracts.escrow import AccountView, ShowAccount
from shared.contracts.orders import ApplyLesson, PlacePurchase
from shared.documents import mask_phone
from shared.ids import new_id
from shared.messaging.rpc import GatewayClient
from shared.money import yuan
from shared.working_days import SHANGHAI, shanghai

T = TypeVar("T")

LESSONS_TAUGHT: Final = 3
WAIT_S: Final = 30.0


@dataclass
class Story:
    """What has happened so far: `told` holds one line for each thing that had to happen, and whether it did."""

    console: Console
    told: list[tuple[str, bool]] = field(default_factory=list)

    async def step(self, words: str, doing: Awaitable[T]) -> T:
        """Does one thing, with its name and milliseconds on the screen."""
        began = time.perf_counter()
        done = await doing
        self.console.print(f"  [green]✓[/green] {words}  [dim]{(time.perf_counter() - began) * 1000:.0f} ms[/dim]")
        return done

    def must(self, words: str, happened: bool) -> None:
        """Something that must be so; a single one that is not makes the demo fail."""
        self.told.append((words, happened))

    @property
    def good(self) -> bool:
        """Everything was so."""
        return bool(self.told) and all(happened for _, happened in self.told)


async def run(common: Common, console: Console) -> int:
    """Plays the story in `<home>/demo`, a stack of its own, and stops it again. Returns the exit status."""
    folder = common.folder / "demo"
    await asyncio.to_thread(discard, folder)
    began = time.perf_counter()
    with common.progress() as progress:
        stack = await _start(folder, progress)
    async with stack:
        started = time.perf_counter()
        console.print(f"[bold]The stack is up[/bold] after {started - began:.1f} s. Two families at the gateway:\n")
        story = Story(console)
        bought = await _play(story, stack)
        await _account_of(story, stack, bought, None if common.json else Common(home=folder))
        console.print(f"\n[dim]{time.perf_counter() - began:.1f} s in all; stopping the stack …[/dim]")
    common.show({"good": story.good, "checks": dict(story.told)}, lambda out: _verdict(out, story))
    return DONE if story.good else FOUND


async def _start(folder: Path, progress: Progress) -> Stack:
    return await Stack.start(folder, progress=progress)


# --- the story ----------------------------------------------------------------------------------------------------


async def _play(story: Story, stack: Stack) -> Bought:
    async with GatewayClient(stack.client_settings, "demo") as client:
        scenario = Scenario(client, stack.keys, stack.sms_file)
        institution, course = await _the_institution(story, scenario)
        zhang, li = await _the_families(story, scenario)
        found = await story.step(
            "they search 篮球 in 天宁区", scenario.ask(SearchCourses(district="天宁区", words="篮球"), CoursePage)
        )
        story.must("the course is found", [one.course_id for one in found.courses] == [course.course_id])
        bought, other = await story.step(
            "both families buy: seat, contract, signature, payment, escrow",
            _both(scenario.buy(zhang, institution, course), scenario.buy(li, institution, course)),
        )
        early = await scenario.refusal(ApplyLesson(order_id=bought.order_id, lesson_no=1), institution.token)
        story.must("a lesson cannot be consumed before it is taught (不可提前销课)", early == "lesson_not_over")
        await story.step("three lessons are taught (the one clock is moved)", _teach(stack, scenario, course))
        await _the_lessons(story, scenario, bought, other)
        await _the_complaint(story, scenario, bought)
    return bought


async def _the_institution(story: Story, scenario: Scenario) -> tuple[Institution, CourseView]:
    institution = await story.step(
        "常州蓝天体育培训中心 discloses everything and is put on the white list",
        scenario.open_institution("常州蓝天体育培训中心"),
    )
    course = await story.step(
        "it publishes 少儿篮球基础班: 12 lessons, 1,200.00 yuan, 20 seats",
        scenario.publish_course(institution, "少儿篮球基础班"),
    )
    unknown = await scenario.refusal(LookUpInstitution(query="快乐成长托管中心"))
    story.must("an unknown institution is “not registered: do not pay”", unknown == "institution_not_registered")
    return institution, course


async def _the_families(story: Story, scenario: Scenario) -> tuple[Guardian, Guardian]:
    zhang, li = await story.step(
        "家长张伟 and 家长李娜 sign in with the code from their SMS", _both(scenario.sign_in(), scenario.sign_in())
    )
    too_soon = PlacePurchase(order_id=new_id(), account_id=zhang.account_id, course_id=new_id())
    missing = await scenario.refusal(too_soon, zhang.token)
    story.must("without child and signer no purchase, but a list of what is missing", missing == "profile_incomplete")
    await story.step(
        "they add a child and who signs, identity numbers sealed",
        _both(scenario.add_family(zhang, "张小明", "张伟"), scenario.add_family(li, "李小雨", "李娜")),
    )
    return zhang, li


async def _teach(stack: Stack, scenario: Scenario, course: CourseView) -> None:
    """Moves the clock of everything to the morning after the third lesson, when reminders may be sent again."""
    last = shanghai(course.lessons[LESSONS_TAUGHT - 1].ends_at).date()
    morning = datetime.combine(last + timedelta(days=1), time_of_day(9, 30), SHANGHAI)
    scenario.clock_offset = await stack.advance(morning - scenario.now())


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
    story.console.print(f"      {filed.number} → {filed.department} {filed.hotline}")
    routed = (filed.department, filed.hotline) == ("天宁区文化体育和旅游局", "69661826")
    story.must("it is routed by the table of the notice to 天宁区文化体育和旅游局, 69661826", routed)
    await scenario.confirm(bought, 3)

    async def held() -> bool:
        view = await scenario.ask(
            ShowAccount(order_id=bought.order_id), AccountView, scenario.token("operator", "demo")
        )
        return view.suspended and [one.state for one in view.lessons] == ["released", "waiting"]

    story.must("while it is open the order's next release waits", await _until(held))


# --- the account of it --------------------------------------------------------------------------------------------


async def _account_of(story: Story, stack: Stack, bought: Bought, common: Common | None) -> None:
    """Shows what was said, booked, paid and sent, with the operator's own commands; `common` None: proves only."""
    console = story.console
    if common:
        console.print()
        await timeline(bought.order_id, common=common)
        console.print()
        await ledger_show(bought.order_id, common=common)
    statement = await desk.statement(stack.dsn("bank"))
    paid_out = statement.balance_fen(bought.institution.account.payout_account)
    in_custody = statement.balance_fen(bought.institution.account.supervised_account)
    console.print(f"\n[bold]The bank[/bold] {bought.institution.account.bank}")
    console.print(f"  {bought.institution.name} has received  {yuan(paid_out):>12} yuan")
    console.print(f"  in the supervised account (监管账户)   {yuan(in_custody):>12} yuan")

    def noticed() -> bool:
        return len({sms["purpose"] for sms in read_sms(stack.sms_file)}) >= 4

    story.must("codes and notices were sent by SMS", await _until(noticed))
    _show_sms(console, read_sms(stack.sms_file))
    console.print("\n[bold]The proof[/bold]")
    if common:
        await ledger_check(common=common)
    report = await audit.check(stack.dsn("escrow"))
    story.must("the books of escrow prove", report.good and report.orders == 2)
    story.must("the institution received two lessons' fees, 200.00 yuan", paid_out == 20_000)
    story.must("the bank holds what the ledger says it holds", in_custody == report.custody_fen + report.suspense_fen)
    story.must("the bank's own book adds up", await desk.out_of_balance(stack.dsn("bank")) == [])


def _show_sms(console: Console, sent: list[dict[str, Any]]) -> None:
    lines = Table(title=f"{len(sent)} SMS", title_justify="left")
    for column in ("to", "purpose", "text"):
        lines.add_column(column)
    for sms in sent:
        lines.add_row(mask_phone(sms["phone"]), sms["purpose"], sms["text"])
    console.print()
    console.print(lines)


def _verdict(console: Console, story: Story) -> None:
    for words, happened in story.told:
        console.print(f"  [green]✓[/green] {words}" if happened else f"  [red]✗ {words}[/red]")
    if story.good:
        console.print("[bold green]demo: everything happened, and the books balance.[/bold green]")
    else:
        console.print("[bold red]demo: something did not happen as it must.[/bold red]")


async def _both(first: Awaitable[T], second: Awaitable[T]) -> tuple[T, T]:
    one, two = await asyncio.gather(first, second)
    return one, two


async def _until(condition: Callable[[], Any]) -> bool:
    """Waits until `condition` (plain or async) holds; False after `WAIT_S`."""
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return True
        await asyncio.sleep(0.05)
    return False
