"""Five ways to build the road wrongly. Each is made in every process of a stack on purpose (`make faults BREAK=name`),
and a proof that does not see it proves nothing.

Each takes one guarantee out of the running code and leaves all others in.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import text

from shared.messaging import inbox, outbox, sets
from shared.messaging.consume import Consumer
from shared.messaging.relay import Relay

LATER_S: Final = 0.05
"""So much later comes what should have come first."""


def no_inbox() -> None:
    """Whatever comes is handled, known or not."""
    claim = inbox.claim

    async def all_are_new(session: Any, consumer: str, claims: Sequence[inbox.Claim]) -> inbox.Claimed:
        claimed = await claim(session, consumer, claims)
        return inbox.Claimed(claimed.now, frozenset(one.id for one in claims), {})

    inbox.claim = all_are_new


def offset_before_commit() -> None:
    """A poll's offsets are committed while its transaction is still under way."""
    handle = Consumer.handle
    after_another = asyncio.Lock()
    under_way: set[asyncio.Task[None]] = set()

    async def later(self: Consumer, records: Any) -> None:
        await asyncio.sleep(LATER_S)
        async with after_another:
            await handle(self, records)

    async def at_once(self: Consumer, records: Any) -> None:
        task = asyncio.create_task(later(self, records))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    Consumer.handle = at_once  # type: ignore[method-assign]


def mark_before_send() -> None:
    """A row is marked as sent, and is sent then."""
    publish = Relay._publish
    sending: dict[Any, asyncio.Task[None]] = {}

    async def later(self: Relay, producer: Any, place: Any, rows: Any, before: asyncio.Task[None] | None) -> None:
        await asyncio.sleep(LATER_S)
        if before is not None:
            await asyncio.wait({before})
        await publish(self, producer, place, rows, [])

    async def at_once(self: Relay, producer: Any, place: Any, rows: Any, acknowledged: list[int]) -> bool:
        if place[1] not in (producer.client.cluster.partitions_for_topic(place[0]) or ()):
            return await publish(self, producer, place, rows, acknowledged)
        acknowledged += [row["seq"] for row in rows]
        sending[place] = asyncio.create_task(later(self, producer, place, rows, sending.get(place)))
        return True

    Relay._publish = at_once  # type: ignore[method-assign]


def no_lock_order() -> None:
    """Each batch locks its rows in an order of its own."""
    loading = sets._loading

    def shuffled(*arguments: Any) -> Any:
        found = loading(*arguments)
        sql = str(found.statement).replace(" ORDER BY ", " ORDER BY random(), ")
        return dataclasses.replace(found, statement=text(sql))

    sets._loading = shuffled  # type: ignore[assignment]


def double_timers() -> None:
    """A timer that is due fires twice."""
    messages = outbox.messages

    def twice(rows: Sequence[outbox.OutboxRow]) -> Any:
        return messages([row for row in rows for _ in range(1 + ("/timers" in row.body and row.replyto == ""))])

    outbox.messages = twice


MISTAKES: Final[dict[str, Callable[[], None]]] = {
    "no-inbox": no_inbox,
    "offset-before-commit": offset_before_commit,
    "mark-before-send": mark_before_send,
    "no-lock-order": no_lock_order,
    "double-timers": double_timers,
}
"""By the name that BREAK takes."""

SEEN_UNDER: Final = {
    "no-inbox": "send-again",
    "offset-before-commit": "kill-relays",
    "mark-before-send": "kill-relays",
    "no-lock-order": "two-copies",
    "double-timers": "reorder",
}
"""The fault under which each mistake must show."""
