"""What takes long: ten million transfers in the tables, and a midnight at which half a million lessons fall due."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final
from uuid import UUID

from rich.console import Console

from bench.ledger import Ledger, Rate
from bench.load import LoadGateway, applications, purchases
from bench.town import LESSONS, PURCHASE_WINDOW, WINDOW, Sizes, lesson_by_lesson, prepare
from ops.cli.site import Connection, connected
from ops.stack_layout import Stack
from shared.ids import new_id

SILENCE: Final = timedelta(days=23)
"""Longer than any region's working days, whatever holidays are between."""
MOST_WAITED_S: Final = 3600.0
LOOK_TIMEOUT_S: Final = 60.0

# What an order left behind is copied for each of many: with ids of their own, and references that stay unique.
_OTHERS: Final = {
    "order_id": "n.order_id",
    "id": "uuidv7()",
    "message_id": "uuidv7()",
    **{name: f"t.{name} || '-' || n.place" for name in ("number", "reference", "paid_reference")},
}
_COPIED: Final = ("accounts", "transfers", "instructions", "bank_results")


async def fill(ledger: Ledger, transfers: int, said: Callable[[str], None]) -> list[UUID]:
    """Copies a settled order until `transfers` are in the table; the orders, each with its last lesson not released.

    The inbox grows by a row for each transfer. The outbox does not: what it keeps is read by nobody.
    """
    template = new_id()
    await ledger.open({template: LESSONS})
    await ledger.settle(template, LESSONS - 1)
    connection = ledger.connection
    each = await connection.fetchval("SELECT count(*) FROM transfers WHERE order_id = $1", template)
    orders = -(-transfers // each)
    await connection.execute(
        "CREATE TEMPORARY TABLE new_orders AS SELECT uuidv7() AS order_id, place FROM generate_series(1, $1) AS place",
        orders,
    )
    for table in _COPIED:
        said(f"{orders} times what one order has in {table}")
        await _copy(connection, table, f"(SELECT * FROM {table} WHERE order_id = $1) t", template)
    said(f"{orders * each} rows into inbox")
    await _copy(connection, "inbox", f"(SELECT * FROM inbox WHERE $1::uuid IS NOT NULL LIMIT {each}) t", template)
    said("vacuum")
    for table in (*_COPIED, "inbox"):
        await connection.execute(f"VACUUM (ANALYZE) {table}", timeout=MOST_WAITED_S)
    return [row["order_id"] for row in await connection.fetch("SELECT order_id FROM new_orders ORDER BY random()")]


async def _copy(connection: Connection, table: str, template: str, order_id: UUID) -> None:
    names = await connection.fetch(
        "SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped",
        table,
    )
    columns = [row["name"] for row in names]
    values = ", ".join(_OTHERS.get(column, f"t.{column}") for column in columns)
    # Order by order, as they came in real life, so that an index grows at its end.
    await connection.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM new_orders n CROSS JOIN {template} "
        "ORDER BY n.order_id",
        order_id,
        timeout=MOST_WAITED_S,
    )


async def rate_when_full(ledger: Ledger, transfers: int, releases: int, said: Callable[[str], None]) -> Rate:
    """How fast, on orders among `transfers` of others."""
    orders = await fill(ledger, transfers, said)
    said("releases")
    return await ledger.rate([(order, LESSONS) for order in orders[:releases]])


@dataclass
class Midnight:
    """Seconds from midnight until all are confirmed, until the bank has been told of all, until all are paid."""

    lessons: int
    confirmed_s: float
    instructed_s: float
    settled_s: float


async def midnight(console: Console, stack: Stack, lessons: int) -> Midnight:
    """So many lessons, bought and filed over Kafka, whose families say nothing, fall due in one moment."""
    orders = await prepare(console, stack, Sizes(purchases=-(-lessons // LESSONS)))
    async with LoadGateway(stack.client_settings) as gateway:
        with console.status(f"{len(orders)} purchases …"):
            await purchases(gateway, orders, PURCHASE_WINDOW)
        await stack.advance(timedelta(days=LESSONS + 2))
        planned = list(islice(lesson_by_lesson(orders), lessons))
        with console.status(f"{lessons} lessons are filed …"):
            filed = await applications(gateway, planned, WINDOW)
        console.print(f"  {lessons} lessons filed, {filed.per_s:.0f}/s")
    return await _silence(console, stack, lessons)


async def _silence(console: Console, stack: Stack, lessons: int) -> Midnight:
    began = time.monotonic()
    await stack.advance(SILENCE)
    waited = []
    for words, name, query in (
        ("confirmed", "orders", "SELECT count(*) FROM lessons WHERE confirmed_by = 'silence'"),
        ("instructed", "escrow", "SELECT count(*) FROM instructions WHERE kind = 'payout'"),
        ("settled", "orders", "SELECT count(*) FROM lessons WHERE state = 'paid_out'"),
    ):
        with console.status(f"midnight: {lessons} lessons to be {words} …") as status:
            async with connected(stack.dsn(name)) as connection:
                while (done := await connection.fetchval(query, timeout=LOOK_TIMEOUT_S)) < lessons:
                    status.update(f"midnight: {done} of {lessons} lessons {words} …")
                    if time.monotonic() - began > MOST_WAITED_S:
                        raise TimeoutError(f"{done} of {lessons} lessons {words} after {MOST_WAITED_S:g} s")
                    await asyncio.sleep(1.0)
        waited.append(time.monotonic() - began)
        console.print(f"    {words} after {waited[-1]:.0f} s")
    return Midnight(lessons, *waited)
