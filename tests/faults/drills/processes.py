"""Faults of the processes: killed, stopped, made members of a group that changes all the time, replaced."""

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from typing import Final

from aiokafka import AIOKafkaConsumer

from ops.cli.site import connected
from ops.copies import a_copy
from ops.stack_layout import PART_NAMES
from shared.contracts import topics
from shared.messaging.crash import LABELS
from tests.faults import puppet
from tests.faults.drills.base import Drill
from tests.faults.load import LoadError
from tests.faults.stacks import LOOK_S, SESSION_TIMEOUT_S, kill_at_random
from tests.faults.world import kafka_of

KILLS: Final = 100
MEMBER_S: Final = 2.0
STOPPED_S: Final = 1.5 * SESSION_TIMEOUT_S
STOPS: Final = 3
MOST_PASSINGS: Final = 5
RELAY_KILLS: Final = 5
FEW: Final = 12
"""Orders that are taught at a time, where copies shall meet on them."""
HELD_S: Final = 0.1
COPIES: Final = 2
"""Beside the first: Kafka deals partitions out in turn, topic after topic, and of two in all the same one would get
what is said of an order in every other topic."""
HANDLES: Final = ("catalog", "orders", "escrow")
"""The services that a purchase or a lesson passes most often."""

_IN_TRANSACTION: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'yike' AND backend_xid IS NOT NULL
  AND clock_timestamp() - state_change > interval '30 milliseconds'
"""
"""Who has written, and has said nothing for a while."""
_HOLD: Final = "SELECT FROM accounts WHERE releasing_fen > 0 ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED"
_SAID_BY_TOMORROW: Final = "SELECT EXISTS (SELECT FROM outbox WHERE body LIKE $1)"


async def kill_services(drill: Drill) -> None:
    """kill -9 of a random process, a hundred times"""
    await kill_at_random(drill.stack, drill.chance, KILLS)
    drill.blows += KILLS
    await drill.all_ready()


async def crash_points(drill: Drill) -> None:
    """every process dies right after each step of the road"""
    for label in LABELS:
        await drill.all_ready()
        passings = {name: drill.chance.randint(1, MOST_PASSINGS) for name in PART_NAMES}
        await puppet.arm(drill.stack, drill.stack.folder, label, passings)
        await asyncio.gather(*(drill.stack.until_crashed(name) for name in PART_NAMES))
        drill.blows += len(PART_NAMES)
    await drill.all_ready()


async def rebalance(drill: Drill) -> None:
    """every 2 s a member joins a group or leaves it, and handles nothing"""
    async with kafka_of(drill.stack) as kafka:
        for name in HANDLES:
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
    """SIGSTOP in the middle of a transaction for longer than the session, then SIGCONT; a second copy takes over
    meanwhile"""
    for name in ("escrow", "orders"):
        async with a_copy(drill.stack, name) as copy:
            for stop in range(STOPS):
                process = drill.pid(name) if stop % 2 == 0 else copy.pid
                await _stop_in_transaction(drill, name, process)
                await asyncio.sleep(STOPPED_S)
                os.kill(process, signal.SIGCONT)
                drill.blows += 1
                await asyncio.sleep(MEMBER_S)


async def _stop_in_transaction(drill: Drill, name: str, pid: int) -> None:
    """Stops the process at a moment when the service has written and not committed."""
    async with connected(drill.stack.dsn(name)) as connection:
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(2 * LOOK_S)
            if await connection.fetchval(_IN_TRANSACTION):
                return
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(drill.chance.uniform(0, LOOK_S))


async def kill_relays(drill: Drill) -> None:
    """relays die between send and mark; then two relays of each service, of which the one that leads is killed"""
    for _ in range(RELAY_KILLS):
        await drill.all_ready()
        await puppet.arm(drill.stack, drill.stack.folder, "send", dict.fromkeys(HANDLES, 1))
        await asyncio.gather(*(drill.stack.until_crashed(name) for name in HANDLES))
        drill.blows += len(HANDLES)
    async with AsyncExitStack() as closing:
        for name in ("orders", "escrow"):
            await closing.enter_async_context(a_copy(drill.stack, name))
        for name in ("orders", "escrow") * 2:
            await drill.all_ready()
            drill.stack.kill(name)
            await drill.stack.until_crashed(name)
            drill.blows += 1


async def two_copies(drill: Drill) -> None:
    """two copies beside orders, escrow and catalog work on the same few orders as these, from different topics, and
    again and again somebody holds one of their accounts for a moment: a lock out of order would deadlock"""
    _teach_few_at_once(drill)
    async with AsyncExitStack() as closing:
        for name in HANDLES * COPIES:
            await closing.enter_async_context(a_copy(drill.stack, name))
            drill.blows += 1
        await _meet(drill)
        escrow = await closing.enter_async_context(connected(drill.stack.dsn("escrow")))
        end = time.monotonic() + 10 * MEMBER_S
        while time.monotonic() < end:
            async with escrow.transaction():
                await escrow.execute(_HOLD)
                await asyncio.sleep(HELD_S)
            await asyncio.sleep(LOOK_S)  # who waited goes on, and the next ones come with all that has piled up


async def _meet(drill: Drill) -> None:
    """Waits until escrow's copies have shared the topics among them. Raises LoadError if one of them hears both of the
    same orders' releases and of their payments, for then no two ever meet on an account."""
    namespace = drill.stack.site.namespace
    async with kafka_of(drill.stack) as kafka:
        state, members = await kafka.members("escrow")
        while state != "Stable" or len(members) <= COPIES:
            await asyncio.sleep(LOOK_S)
            state, members = await kafka.members("escrow")
    for given in members.values():
        heard = {(one.topic.removeprefix(namespace), one.partition) for one in given}
        both = [p for topic, p in heard if topic == topics.BANK_RESULTS and (topics.commands("escrow"), p) in heard]
        if both:
            raise LoadError(f"one copy of escrow hears releases and results of partition {both[0]}: {members}")


def _teach_few_at_once(drill: Drill) -> None:
    """The lessons that are left, all those of some orders before those of the next."""
    group = {order.order_id: number // FEW for number, order in enumerate(drill.load.taught)}
    drill.load.lessons = iter(sorted(drill.load.lessons, key=lambda lesson: group[lesson[0].order_id]))


async def roll(drill: Drill) -> None:
    """one process after the other is replaced by the next version, whose contracts all have a field more, and back
    again"""
    for plays in (puppet.TOMORROW, ""):
        for name in PART_NAMES:
            await drill.stack.restart(name, {"YIKE_PUPPET_PLAYS": plays})
            drill.blows += 1
            await asyncio.sleep(MEMBER_S / 2)
    async with connected(drill.stack.dsn("orders")) as connection:
        assert await connection.fetchval(_SAID_BY_TOMORROW, f"%{puppet.NEW_FIELD}%")
