"""The faults of `make faults`: what each does to a stack under load. The numbers are those of the proof issue."""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from ops.scenario import Guardian
from ops.stack.servers import embedded_kafka, embedded_postgres
from ops.stack_layout import PART_NAMES, Stack
from shared.contracts.catalog import CourseView
from shared.contracts.orders import PlacePurchase
from shared.ids import new_id
from shared.messaging.broker import make_reader
from shared.messaging.rpc import GatewayClient
from tests.faults.invariants import kafka_of
from tests.faults.stacks import LOOK_S, kill_at_random

KILLS: Final = 20
CUTS: Final = 20
AWAY_S: Final = 10.0
LOCKED_S: Final = 25.0
"""Longer than a service waits for a lock (20 s)."""
SESSION_TIMEOUT_S: Final = 6.0
STOPPED_S: Final = 1.5 * SESSION_TIMEOUT_S
MEMBER_S: Final = 2.0
AT_ONCE: Final = 50


@dataclass
class Drill:
    """What a fault may use: the stack and its servers' folder, chance, who may buy what. It counts its blows."""

    stack: Stack
    servers: Path
    chance: random.Random
    guardian: Guardian
    course: CourseView
    blows: int = 0
    placed: list[PlacePurchase] = field(default_factory=list)
    """Purchases the fault itself has asked for: they wait for a signature until they expire."""


Fault = Callable[[Drill], Awaitable[None]]


async def kill_services(drill: Drill) -> None:
    """1: kill -9 of a random process, again and again."""
    await kill_at_random(drill.stack, drill.chance, KILLS)
    drill.blows += KILLS
    while not all(drill.stack.state(name).ready for name in PART_NAMES):
        await asyncio.sleep(LOOK_S)


async def kill_broker(drill: Drill) -> None:
    """3: kill -9 of Kafka, which comes back at once."""
    kafka = embedded_kafka(drill.servers)
    await asyncio.to_thread(kafka.kill)
    drill.blows += 1
    await asyncio.to_thread(kafka.start)


async def restart_broker(drill: Drill) -> None:
    """3: a clean stop of Kafka, which stays away for a while."""
    kafka = embedded_kafka(drill.servers)
    await asyncio.to_thread(kafka.stop)
    drill.blows += 1
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(kafka.start)


async def kill_database(drill: Drill) -> None:
    """4: PostgreSQL stops as in a power cut, and stays away for a while."""
    postgres = embedded_postgres(drill.servers)
    await asyncio.to_thread(postgres.kill)
    drill.blows += 1
    await asyncio.sleep(AWAY_S)
    await asyncio.to_thread(postgres.start)


async def end_backends(drill: Drill) -> None:
    """4: every half second all backends of the services are ended."""
    connection = await asyncpg.connect(drill.stack.admin_dsn)
    try:
        for _ in range(CUTS):
            await asyncio.sleep(drill.chance.uniform(0.3, 0.7))
            drill.blows += await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'yike'"
            )
    finally:
        await connection.close()


async def send_again(drill: Drill) -> None:
    """6: a tenth of everything on the topics is published a second time."""
    reader = make_reader(drill.stack.client_settings)
    producer = AIOKafkaProducer(bootstrap_servers=drill.stack.kafka)
    await reader.start()
    await producer.start()
    try:
        async with kafka_of(drill.stack) as kafka:
            ends = {partition: end for partition, end in (await kafka.ends()).items() if end}
        reader.assign(list(ends))
        while any([await reader.position(partition) < end for partition, end in ends.items()]):
            for records in (await reader.getmany(timeout_ms=200)).values():
                for record in (one for one in records if drill.chance.random() < 0.1):
                    await producer.send(
                        record.topic,
                        record.value,
                        key=record.key,
                        partition=record.partition,
                        headers=list(record.headers),
                    )
                    drill.blows += 1
        await producer.flush()
    finally:
        await producer.stop()
        await reader.stop()


async def ask_at_once(drill: Drill) -> None:
    """7: one purchase is asked for fifty times at once under one message id, another one under fifty ids."""
    async with GatewayClient(drill.stack.client_settings, "test", partition=2) as client:
        for same_id in (True, False):
            place = PlacePurchase(
                order_id=new_id(),
                account_id=drill.guardian.account_id,
                child_id=drill.guardian.child_id,
                course_id=drill.course.course_id,
            )
            drill.placed.append(place)
            ids = [new_id()] * AT_ONCE if same_id else [new_id() for _ in range(AT_ONCE)]
            asking = (client.ask(place, token=drill.guardian.token, message_id=id_, timeout_s=30.0) for id_ in ids)
            await asyncio.gather(*asking)
            drill.blows += AT_ONCE


async def rebalance(drill: Drill) -> None:
    """9: every two seconds somebody joins a group or leaves it, and handles nothing."""
    async with kafka_of(drill.stack) as kafka:
        for name in ("orders", "escrow", "catalog"):
            _, members = await kafka.members(name)
            heard = {partition.topic for some in members.values() for partition in some}
            member = AIOKafkaConsumer(
                *heard,
                bootstrap_servers=drill.stack.kafka,
                group_id=kafka.group(name),
                session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            await member.start()
            await asyncio.sleep(MEMBER_S)
            await member.stop()
            await asyncio.sleep(MEMBER_S)
            drill.blows += 2


async def stop_and_go(drill: Drill) -> None:
    """10: a process is stopped in the middle of its work for longer than its session, and goes on."""
    for name in ("escrow", "orders"):
        pid = drill.stack.state(name).pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(STOPPED_S)
        os.kill(pid, signal.SIGCONT)
        drill.blows += 1
        await asyncio.sleep(MEMBER_S)


async def lock_table(drill: Drill) -> None:
    """12: somebody holds the lock of escrow's accounts for longer than escrow waits for one."""
    connection = await asyncpg.connect(drill.stack.dsn("escrow"))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
            drill.blows += 1
            await asyncio.sleep(LOCKED_S)
    finally:
        await connection.close()


FAULTS: Final[dict[str, Fault]] = {
    "kill-services": kill_services,
    "kill-broker": kill_broker,
    "restart-broker": restart_broker,
    "kill-database": kill_database,
    "end-backends": end_backends,
    "send-again": send_again,
    "ask-at-once": ask_at_once,
    "rebalance": rebalance,
    "stop-and-go": stop_and_go,
    "lock-table": lock_table,
}
