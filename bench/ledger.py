"""The ledger alone: releases already on the topic, posted as fast as escrow can; all others are away meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import psutil
from aiokafka import AIOKafkaProducer

from bench.cores import Cores
from ops.cli.site import Connection, connected
from ops.copies import a_copy
from ops.stack_layout import PART_NAMES, Stack
from shared.clock import get_offset, machine_now
from shared.contracts.bank import Result
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import Data, encode
from shared.contracts.escrow import CollectPayment, ReleaseLesson
from shared.ids import instruction_number, new_id
from shared.messaging.broker import make_producer
from shared.messaging.trace import new_traceparent

LESSON_FEN: Final = 100
SAYINGS: Final = 2
"""What a release says: an instruction, and that it was released."""
MOST_WAITED_S: Final = 600.0
_SAID: Final = "SELECT (SELECT max(seq) FROM outbox)"
ONE_PER_COMMIT: Final = {"YIKE_POLL_RECORDS": "1", "YIKE_POLL_EVERY_MS": "0"}

Releases = Sequence[tuple[UUID, int]]
"""Order and lesson number."""


@dataclass(frozen=True)
class Rate:
    """Transfers per second; microseconds of CPU that each cost, by kind of process; how many cores were busy."""

    per_s: float
    cpu_us: dict[str, float]
    cores: float


class Ledger:
    """Escrow, its database, and a producer that plays all others."""

    def __init__(self, stack: Stack, producer: AIOKafkaProducer, connection: Connection) -> None:
        self.stack = stack
        self.connection = connection
        self._producer = producer

    async def open(self, orders: Mapping[UUID, int]) -> None:
        """Each order, with so many lessons, has its fee collected and held; we play the bank's answers."""
        now = await self._now()
        account = BankAccount(bank="icbc", supervised_account="BENCH", payout_account="BENCH-P")
        who = new_id()
        for order_id, lessons in orders.items():
            await self._send(
                CollectPayment(
                    order_id=order_id,
                    account_id=who,
                    institution_id=who,
                    account=account,
                    amount_fen=lessons * LESSON_FEN,
                    lessons=lessons,
                    method="alipay",
                    pay_by=now + timedelta(days=1),
                )
            )
        await self._until("SELECT count(*) FROM accounts WHERE account_id = $1", len(orders), who)
        for order_id, lessons in orders.items():
            await self._bank_paid("collect", order_id, 0, lessons * LESSON_FEN, now)
        await self._until("SELECT count(*) FROM accounts WHERE account_id = $1 AND state = 'held'", len(orders), who)

    async def settle(self, order_id: UUID, lessons: int) -> None:
        """The first lessons of an order, released and paid out."""
        await self.rate([(order_id, number) for number in range(1, lessons + 1)])
        now = await self._now()
        for number in range(1, lessons + 1):
            await self._bank_paid("payout", order_id, number, LESSON_FEN, now)
        query = "SELECT count(*) FROM instructions WHERE order_id = $1 AND kind = 'payout' AND state = 'paid'"
        await self._until(query, lessons, order_id)

    async def rate(self, releases: Releases, copies: Sequence[psutil.Process] = ()) -> Rate:
        """How fast: all releases come on the topic while escrow and its `copies` stand still, then they
        go on; the seconds are those between the first commit and the last."""
        pid = self.stack.state("escrow").pid
        assert pid is not None
        processes = [psutil.Process(pid), *copies]
        before = await self.connection.fetchval("SELECT count(*) FROM transfers")
        said = await self.connection.fetchval(_SAID)
        for process in processes:
            process.suspend()
        for order_id, lesson_no in releases:
            await self._send(ReleaseLesson(order_id=order_id, lesson_no=lesson_no))
        await self._producer.flush()
        cores = Cores.begin()
        for process in processes:
            process.resume()
        # To count all transfers again and again would cost more than what is measured.
        await self._until(f"{_SAID} - $1", SAYINGS * len(releases), said)
        await self._until("SELECT (NOT EXISTS (SELECT FROM unsent))::int", 1)
        used, busy = cores.seconds(), cores.busy()
        await self._until("SELECT count(*) - $1 FROM transfers", len(releases), before)
        took = await self.connection.fetchval(
            "SELECT max(made_at) - min(made_at) FROM (SELECT made_at FROM transfers ORDER BY made_at DESC LIMIT $1) t",
            len(releases),
        )
        return Rate(
            len(releases) / max(took.total_seconds(), 0.001),
            {name: seconds / len(releases) * 1e6 for name, seconds in used.items()},
            busy,
        )

    async def rate_one_per_commit(self, releases: Releases) -> Rate:
        """The same, each message in a transaction of its own."""
        await self.stack.restart("escrow", ONE_PER_COMMIT)
        try:
            return await self.rate(releases)
        finally:
            await self.stack.restart("escrow")

    async def rate_of_two(self, releases: Releases) -> Rate:
        """The same with two copies of escrow, each on half of the partitions."""
        async with a_copy(self.stack, "escrow") as copy:
            return await self.rate(releases, [copy])

    async def _bank_paid(
        self, kind: Literal["collect", "payout"], order_id: UUID, lesson_no: int, amount_fen: int, now: datetime
    ) -> None:
        number = instruction_number(kind[0].upper(), order_id, lesson_no, 0)
        paid = Result(
            order_id=order_id,
            number=number,
            kind=kind,
            outcome="paid",
            amount_fen=amount_fen,
            bank="icbc",
            reference=f"B-{number}",
            happened_at=now,
        )
        await self._send(paid)

    async def _now(self) -> datetime:
        return machine_now() + await get_offset(self.stack.admin_dsn)

    async def _send(self, data: Data) -> None:
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
        topic = self.stack.client_settings.namespace + data.TOPIC
        await self._producer.send(topic, body.encode(), key=data.partition_key.encode())

    async def _until(self, query: str, wanted: int, *arguments: object) -> None:
        await self._producer.flush()
        deadline = time.monotonic() + MOST_WAITED_S
        while await self.connection.fetchval(query, *arguments) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(query)
            await asyncio.sleep(0.1)


@asynccontextmanager
async def ledger_alone(stack: Stack) -> AsyncIterator[Ledger]:
    """All processes but escrow are away for as long as the block lasts."""
    others = [name for name in PART_NAMES if name != "escrow"]
    producer = make_producer(stack.client_settings, "bench-ledger")
    await producer.start()
    try:
        async with connected(stack.dsn("escrow")) as connection:
            for name in others:
                await stack.halt(name)
            yield Ledger(stack, producer, connection)
            for name in others:
                await stack.resume(name)
    finally:
        await producer.stop()
