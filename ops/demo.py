"""`yike demo`: a story on a stack of its own, played by real families and institutions, then an account of it all.

Everything goes over Kafka as a gateway would send it; nothing is played by calling a service. The exit status is 0 only
if each thing in the story has happened and the books of Yike, and of the bank, prove. `ops/stories/` has the stories.
"""

import asyncio
import time

from rich.console import Console

from ops import stories
from ops.cli.base import DONE, FOUND, Common
from ops.scenario import Scenario
from ops.stack.servers import discard
from ops.stack_layout import Stack
from ops.stories.stage import Story
from shared.clock import get_offset
from shared.messaging.rpc import GatewayClient


async def run(common: Common, console: Console, name: str) -> int:
    """Plays the story `name` in `<home>/demo`, a stack of its own, and stops it again. Returns the exit status."""
    play = stories.load(name)
    folder = common.folder / "demo"
    await asyncio.to_thread(discard, folder)
    began = time.perf_counter()
    with common.progress() as progress:
        stack = await Stack.start(folder, progress=progress)
    async with stack:
        started = time.perf_counter()
        console.print(f"[bold]The stack is up[/bold] after {started - began:.1f} s. {stories.STORIES[name]}:\n")
        story = Story(console, stack, None if common.json else Common(home=folder))
        async with GatewayClient(stack.client_settings, "demo") as client:
            scenario = Scenario(client, stack.keys, stack.sms_file)
            scenario.clock_offset = await get_offset(stack.admin_dsn)
            await play(story, stack, scenario)
        await story.account_of_it()
        console.print(f"\n[dim]{time.perf_counter() - began:.1f} s in all; stopping the stack …[/dim]")
    told = {"story": name, "good": story.good, "checks": dict(story.told)}
    common.show(told, lambda out: _verdict(out, story))
    return DONE if story.good else FOUND


def _verdict(console: Console, story: Story) -> None:
    for words, happened in story.told:
        console.print(f"  [green]✓[/green] {words}" if happened else f"  [red]✗ {words}[/red]")
    if story.good:
        console.print("[bold green]demo: everything happened, and the books balance.[/bold green]")
    else:
        console.print("[bold red]demo: something did not happen as it must.[/bold red]")
