"""The ledger alone: releases already on the topic, posted as fast as escrow can; all others are away meanwhile."""

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import asyncpg
from aiokafka import AIOKafkaProducer

from ops.stack_layout import PART_NAMES, Stack
from shared.clock import get_offset, machine_now
from shared.contracts.bank import Result
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import Data, encode
from shared.contracts.escrow import CollectPayment, ReleaseLesson
from shared.ids import instruction_number, new_id
from shared.messaging.broker import make_producer
from shared.messaging.trace import new_traceparent

COLD_ORDERS = 10_000
LESSON_FEN = 100


@dataclass
class Ledger:
    """Transfers per second from the topic: over many orders, and all on one."""

    cold_per_s: float
    hot_per_s: float


async def ledger_rates(stack: Stack, transfers: int) -> Ledger:
    """Measures both; opens the orders first."""
    producer = make_producer(stack.client_settings, "bench-ledger")
    await producer.start()
    others = [name for name in PART_NAMES if name != "escrow"]
    try:
        cold_orders = min(COLD_ORDERS, transfers)
        per_order = transfers // cold_orders
        cold = [new_id() for _ in range(cold_orders)]
        hot = new_id()
        for name in others:
            await stack.halt(name)
        await _open(stack, producer, dict.fromkeys(cold, per_order) | {hot: transfers})
        cold_releases = [(order, number) for number in range(1, per_order + 1) for order in cold]
        cold_per_s = await _release(stack, producer, cold_releases)
        hot_per_s = await _release(stack, producer, [(hot, number) for number in range(1, transfers + 1)])
        for name in others:
            await stack.resume(name)
    finally:
        await producer.stop()
    return Ledger(cold_per_s, hot_per_s)


async def _open(stack: Stack, producer: AIOKafkaProducer, orders: dict[UUID, int]) -> None:
    """Each order's fee is collected and held; we play the bank's answers."""
    offset = await get_offset(stack.admin_dsn)
    now = machine_now() + offset
    account = BankAccount(bank="icbc", supervised_account="BENCH", payout_account="BENCH-P")
    who = new_id()
    for order_id, lessons in orders.items():
        collect = CollectPayment(
            order_id=order_id,
            account_id=who,
            institution_id=who,
            account=account,
            amount_fen=lessons * LESSON_FEN,
            lessons=lessons,
            method="alipay",
            pay_by=now + timedelta(days=1),
        )
        await _send(stack, producer, collect)
    await producer.flush()
    await _until(stack, "SELECT count(*) FROM accounts WHERE account_id = $1", len(orders), who)
    for order_id, lessons in orders.items():
        number = instruction_number("C", order_id, 0, 0)
        paid = Result(
            order_id=order_id,
            number=number,
            kind="collect",
            outcome="paid",
            amount_fen=lessons * LESSON_FEN,
            bank="icbc",
            reference=f"B-{number}",
            happened_at=now,
        )
        await _send(stack, producer, paid)
    await producer.flush()
    await _until(stack, "SELECT count(*) FROM accounts WHERE account_id = $1 AND state = 'held'", len(orders), who)


async def _release(stack: Stack, producer: AIOKafkaProducer, releases: list[tuple[UUID, int]]) -> float:
    """All on the topic while escrow is away; then escrow comes, and the seconds between its first and last commit."""
    await stack.halt("escrow")
    before = await _scalar(stack, "SELECT count(*) FROM transfers")
    for order_id, lesson_no in releases:
        await _send(stack, producer, ReleaseLesson(order_id=order_id, lesson_no=lesson_no))
    await producer.flush()
    await stack.resume("escrow")
    await _until(stack, "SELECT count(*) - $1 FROM transfers", len(releases), before)
    first, last = await _row(
        stack,
        "SELECT min(made_at), max(made_at) FROM (SELECT made_at FROM transfers ORDER BY made_at DESC LIMIT $1) t",
        len(releases),
    )
    return float(len(releases) / max((last - first).total_seconds(), 0.001))


async def _send(stack: Stack, producer: AIOKafkaProducer, data: Data) -> None:
    message_id = new_id()
    body = encode(
        {
            "specversion": "1.0",
            "id": message_id,
            "source": "/bench",
            "type": data.TYPE,
            "time": machine_now(),
            "subject": data.partition_key,
            "correlationid": message_id,
            "partitionkey": data.partition_key,
            "traceparent": new_traceparent(),
            "data": data,
        }
    )
    topic = stack.client_settings.namespace + data.TOPIC
    await producer.send(topic, body.encode(), key=data.partition_key.encode())


async def _row(stack: Stack, query: str, *arguments: object) -> asyncpg.Record:
    connection = await asyncpg.connect(stack.dsn("escrow"))
    try:
        row = await connection.fetchrow(query, *arguments)
    finally:
        await connection.close()
    assert row is not None
    return row


async def _scalar(stack: Stack, query: str, *arguments: object) -> int:
    return int((await _row(stack, query, *arguments))[0])


async def _until(stack: Stack, query: str, wanted: int, *arguments: object) -> None:
    deadline = time.monotonic() + 300
    while await _scalar(stack, query, *arguments) < wanted:
        if time.monotonic() > deadline:
            raise TimeoutError(query)
        await asyncio.sleep(0.1)
