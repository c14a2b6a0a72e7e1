"""What all stories share: steps, what must be so, the families, the clock, the ledger, and the proof in the end."""

import asyncio
import contextlib
import io
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Final, TypeVar
from uuid import UUID

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ops.bank import desk
from ops.cli.base import Common
from ops.cli.ledger import check as ledger_check
from ops.cli.ledger import show as ledger_show
from ops.cli.timeline import timeline
from ops.scenario import Bought, Guardian, Institution, Scenario, read_sms
from ops.stack_layout import Stack
from services.escrow import audit
from shared.contracts.catalog import CourseView
from shared.contracts.escrow import AccountView, ShowAccount
from shared.contracts.types import RefundTerms
from shared.documents import mask_phone
from shared.money import yuan
from shared.working_days import SHANGHAI, shanghai

T = TypeVar("T")

WAIT_S: Final = 30.0
MORNING: Final = time_of_day(9, 30)
"""When the clock is moved to a day: reminders may be sent then."""


@dataclass(frozen=True)
class Family:
    """A guardian and a child, by name."""

    guardian: str
    child: str


NAMES: Final = ("蓝天", "绿茵", "红星", "金鹰", "飞跃", "青松", "白云", "银河")
"""Of institutions: one platform knows each name once, however many stories are played on it."""

ZHANG: Final = Family("张伟", "张小明")
LI: Final = Family("李娜", "李小雨")
WANG: Final = Family("王强", "王子涵")


@dataclass
class Story:
    """What has happened so far: `told` holds one line for each thing that had to happen, and whether it did.

    `commands` are the options of the operator's own commands that show the books; None where a program listens.
    """

    console: Console
    stack: Stack
    commands: Common | None
    told: list[tuple[str, bool]] = field(default_factory=list)
    institutions: list[Institution] = field(default_factory=list)
    orders: list[UUID] = field(default_factory=list)
    phones: list[str] = field(default_factory=list)
    with_timeline: bool = False

    async def step(self, words: str, doing: Awaitable[T]) -> T:
        """Does one thing, with its name and milliseconds on the screen."""
        began = time.perf_counter()
        done = await doing
        self.console.print(f"  [green]✓[/green] {words}  [dim]{(time.perf_counter() - began) * 1000:.0f} ms[/dim]")
        return done

    def note(self, words: str) -> None:
        """A line below a step: what came of it."""
        self.console.print(f"      {escape(words)}")

    def must(self, words: str, happened: bool) -> None:
        """Something that must be so; a single one that is not makes the demo fail."""
        self.told.append((words, happened))

    @property
    def good(self) -> bool:
        """Everything was so."""
        return bool(self.told) and all(happened for _, happened in self.told)

    async def command(self, command: Callable[..., Awaitable[int]], *words: object, **options: object) -> int:
        """Calls one of the operator's own commands on this stack; what it prints is seen where a person looks."""
        if self.commands:
            return await command(*words, **options, common=self.commands)
        with contextlib.redirect_stdout(io.StringIO()):
            return await command(*words, **options, common=Common(home=self.stack.folder, json=True))

    # --- the books --------------------------------------------------------------------------------------------------

    async def before(self, *bought: Bought) -> None:
        """Shows the ledger of the orders the story is about, before it happens."""
        self.orders += [one.order_id for one in bought]
        await self._ledger("before")

    async def _ledger(self, when: str) -> None:
        if self.commands is None:
            return
        self.console.print(f"\n[bold]The ledger {when}[/bold]")
        for order_id in self.orders:
            await ledger_show(order_id, common=self.commands)
        self.console.print()

    async def received_fen(self, institution: Institution) -> int:
        """What the bank has paid out to an institution."""
        statement = await desk.statement(self.stack.dsn("bank"))
        return statement.balance_fen(institution.account.payout_account)

    async def account_of_it(self) -> None:
        """What was said, booked, paid and sent, with the operator's own commands; and the proof of it all."""
        if self.commands and self.with_timeline:
            self.console.print()
            await timeline(self.orders[0], common=self.commands)
        await self._ledger("after")
        in_custody = await self._the_bank()
        self._the_sms()
        self.console.print("\n[bold]The proof[/bold]")
        if self.commands:
            await ledger_check(common=self.commands)
        report = await audit.check(self.stack.dsn("escrow"))
        self.must("the books of escrow prove", report.good and report.orders >= len(self.orders) > 0)
        self.must(
            "the bank holds what the ledger says it holds", in_custody == report.custody_fen + report.suspense_fen
        )
        self.must("the bank's own book adds up", await desk.out_of_balance(self.stack.dsn("bank")) == [])

    async def _the_bank(self) -> int:
        """Shows what it holds and has paid out; returns what is in custody."""
        statement = await desk.statement(self.stack.dsn("bank"))
        in_custody = 0
        for institution in self.institutions:
            held = statement.balance_fen(institution.account.supervised_account)
            in_custody += held
            received = statement.balance_fen(institution.account.payout_account)
            self.console.print(f"\n[bold]The bank[/bold] {institution.account.bank}")
            self.console.print(f"  {institution.name} has received  {yuan(received):>12} yuan")
            self.console.print(f"  in the supervised account (监管账户)   {yuan(held):>12} yuan")
        return in_custody

    def _the_sms(self) -> None:
        sent = self.sent()
        lines = Table(title=f"{len(sent)} SMS", title_justify="left")
        for column in ("to", "purpose", "text"):
            lines.add_column(column)
        for sms in sent:
            lines.add_row(mask_phone(sms["phone"]), sms["purpose"], sms["text"])
        self.console.print()
        self.console.print(lines)

    def sent(self) -> list[dict[str, Any]]:
        """The SMS to its families, oldest first: their phones are of this story only."""
        return [sms for sms in read_sms(self.stack.sms_file) if sms["phone"].endswith(tuple(self.phones))]

    def sms(self, purpose: str) -> int:
        """How many of them were sent for one purpose."""
        return sum(sms["purpose"] == purpose for sms in self.sent())


# --- what happens in every story --------------------------------------------------------------------------------------


async def open_course(
    story: Story, scenario: Scenario, terms: RefundTerms | None = None
) -> tuple[Institution, CourseView]:
    """An institution on the white list, with a course on offer."""
    name = f"常州{NAMES[len(story.institutions)]}体育培训中心"
    institution = await story.step(
        f"{name} discloses everything and is put on the white list", scenario.open_institution(name)
    )
    story.institutions.append(institution)
    course = await story.step(
        "it publishes 少儿篮球基础班: 12 lessons, 1,200.00 yuan, 20 seats",
        scenario.publish_course(institution, "少儿篮球基础班", refund_terms=terms),
    )
    return institution, course


async def sign_in(story: Story, scenario: Scenario, *families: Family) -> list[Guardian]:
    """The guardians sign in for the first time."""
    *first, last = [f"家长{family.guardian}" for family in families]
    names = f"{', '.join(first)} and {last}" if first else last
    signing_in = asyncio.gather(*(scenario.sign_in() for _ in families))
    sign = "signs in" if len(families) == 1 else "sign in"
    guardians = await story.step(f"{names} {sign} with the code from their SMS", signing_in)
    story.phones += [guardian.phone for guardian in guardians]
    return guardians


async def add_families(story: Story, scenario: Scenario, guardians: list[Guardian], *families: Family) -> None:
    """Each guardian adds a child and who signs."""
    adding = [
        scenario.add_family(guardian, family.child, family.guardian)
        for guardian, family in zip(guardians, families, strict=True)
    ]
    await story.step("they add a child and who signs, identity numbers sealed", asyncio.gather(*adding))


async def enrol(
    story: Story, scenario: Scenario, institution: Institution, course: CourseView, *families: Family
) -> list[Bought]:
    """The families sign in, say who they are, and buy."""
    guardians = await sign_in(story, scenario, *families)
    await add_families(story, scenario, guardians, *families)
    return await buy(story, scenario, institution, course, guardians)


async def buy(
    story: Story, scenario: Scenario, institution: Institution, course: CourseView, guardians: list[Guardian]
) -> list[Bought]:
    """The guardians buy, side by side."""
    buying = asyncio.gather(*(scenario.buy(guardian, institution, course) for guardian in guardians))
    who = {1: "the family buys", 2: "both families buy"}.get(len(guardians), "all families buy")
    return await story.step(f"{who}: seat, contract, signature, payment, escrow", buying)


async def move_to(stack: Stack, scenario: Scenario, moment: datetime) -> None:
    """Moves the one clock of everything forward to `moment`."""
    scenario.clock_offset = await stack.advance(moment - scenario.now())


async def teach(stack: Stack, scenario: Scenario, course: CourseView, lessons: int) -> None:
    """Moves the clock to the morning after so many lessons."""
    last = shanghai(course.lessons[lessons - 1].ends_at).date()
    await move_to(stack, scenario, datetime.combine(last + timedelta(days=1), MORNING, SHANGHAI))


async def morning_after(stack: Stack, scenario: Scenario) -> None:
    """Moves the clock to the next morning, when what must not wake anybody is sent."""
    tomorrow = shanghai(scenario.now()).date() + timedelta(days=1)
    await move_to(stack, scenario, datetime.combine(tomorrow, MORNING, SHANGHAI))


async def account(scenario: Scenario, bought: Bought) -> AccountView:
    """The order's account in the ledger, as an operator sees it."""
    return await scenario.ask(ShowAccount(order_id=bought.order_id), AccountView, scenario.token("operator", "demo"))


async def lesson_money(scenario: Scenario, bought: Bought) -> dict[int, str]:
    """How the fee of each lesson that left its order's balance stands: waiting, releasing or released."""
    return {one.lesson_no: one.state for one in (await account(scenario, bought)).lessons}


async def until(condition: Callable[[], Any]) -> bool:
    """Waits until `condition` (plain or async) holds; False after `WAIT_S`."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return True
        await asyncio.sleep(0.05)
    return False
