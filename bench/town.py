"""The town that bench and profile load: institutions with courses, families, and what each of them will buy."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from rich.console import Console

from bench.load import Order, new_order
from ops.scenario import Scenario
from ops.stack_layout import Stack
from shared.messaging.rpc import GatewayClient

T = TypeVar("T")

LESSONS: Final = 12
PRICE_FEN: Final = 96_000
PER_CHILD: Final = 5
"""Open orders of one child at one institution: 60 lessons and 4 800 yuan, as much as one charge may be."""
WINDOW: Final = 1000
PURCHASE_WINDOW: Final = 400


@dataclass
class Sizes:
    """How much of each load; the last two are of `make bench-long`."""

    guardians: int = 200
    courses: int = 20
    purchases: int = 3000
    lessons: int = 12_000
    transfers: int = 30_000
    relay_rows: int = 100_000
    with_copies: int = 6000
    idle: int = 100
    one_per_commit: int = 2000
    tpcb_seconds: int = 10
    full: int = 10_000_000
    silent: int = 500_000


async def prepare(console: Console, stack: Stack, sizes: Sizes) -> list[Order]:
    """Institutions, courses and families, all made over Kafka."""
    async with GatewayClient(stack.client_settings, "bench") as client:
        scenario = Scenario(client, stack.keys, stack.sms_file, seed=1)
        institutions = [await scenario.open_institution(f"蓝天培训中心{n}") for n in range(max(1, sizes.courses // 4))]
        offers = []
        for n in range(sizes.courses):
            institution = institutions[n % len(institutions)]
            seats = 2 * sizes.purchases // sizes.courses + 10
            course = await scenario.publish_course(
                institution, f"篮球{n}班", lessons=LESSONS, price_fen=PRICE_FEN, seats=seats
            )
            offers.append((institution, course))
        began = time.perf_counter()
        guardians = []
        for start in range(0, sizes.guardians, 50):
            some = range(start, min(start + 50, sizes.guardians))
            guardians += await asyncio.gather(*(scenario.new_guardian(f"138{n:08d}") for n in some))
        console.print(f"  {len(guardians)} families signed in  [dim]{time.perf_counter() - began:.1f} s[/dim]")
        # As many children as are needed to buy so much within the limits.
        children = list(guardians)
        while len(children) * len(institutions) * PER_CHILD < sizes.purchases:
            children += await asyncio.gather(*(scenario.with_another_child(guardian) for guardian in guardians))
    # From round to round a child goes to the next institution.
    return [
        new_order(children[n % len(children)], *offers[(n % len(children) + n // len(children)) % len(offers)])
        for n in range(sizes.purchases)
    ]


def lesson_by_lesson(orders: Sequence[T]) -> Iterator[tuple[T, int]]:
    """The first lesson of each order, then the second of each, and so on without end."""
    return ((order, number) for number in itertools.count(1) for order in orders)
