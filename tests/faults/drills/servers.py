"""Faults of the two servers: killed, away, full, slow, cut off at the wrong moment, without memory."""

import asyncio
import os
import shutil
from contextlib import AsyncExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Final

from ops.cli.base import Common
from ops.cli.outbox import republish
from ops.cli.site import connected
from ops.provision import ensure_topics
from ops.stack.servers import embedded_kafka, embedded_postgres
from ops.stack_layout import PART_NAMES, topics_of
from tests.faults.drills.base import Drill
from tests.proxy import Proxy

SOON_S: Final = 2.0
AWAY_S: Final = 60.0
CUTS: Final = 20
COMMITS_CUT: Final = 30
LOCKED_S: Final = 30.0
"""Longer than a service waits for a lock (20 s), and than a consumer may take for a poll in this fault."""
FULL_S: Final = 10.0
BALLAST_BYTES: Final = 1024 * 1024


async def kill_broker(drill: Drill) -> None:
    """kill -9 of Kafka, back at once"""
    await _without_kafka(drill, kill=True, away_s=0)


async def restart_broker(drill: Drill) -> None:
    """a clean stop of Kafka, back after 2 s"""
    await _without_kafka(drill, kill=False, away_s=SOON_S)


async def broker_away(drill: Drill) -> None:
    """kill -9 of Kafka, 60 s away"""
    await _without_kafka(drill, kill=True, away_s=AWAY_S)


async def _without_kafka(drill: Drill, *, kill: bool, away_s: float) -> None:
    kafka = embedded_kafka(drill.servers)
    await asyncio.to_thread(kafka.kill if kill else kafka.stop)
    drill.blows += 1
    await asyncio.sleep(away_s)
    await asyncio.to_thread(kafka.start)


async def kill_database(drill: Drill) -> None:
    """PostgreSQL ends at once, as in a power cut, and is back after 2 s"""
    await _without_postgres(drill, SOON_S)


async def database_away(drill: Drill) -> None:
    """PostgreSQL ends at once, 60 s away"""
    await _without_postgres(drill, AWAY_S)


async def _without_postgres(drill: Drill, away_s: float) -> None:
    postgres = embedded_postgres(drill.servers)
    await asyncio.to_thread(postgres.kill)
    drill.blows += 1
    await asyncio.sleep(away_s)
    await asyncio.to_thread(postgres.start)


async def end_backends(drill: Drill) -> None:
    """every half second all backends of the services are ended, twenty times"""
    for _ in range(CUTS):
        await asyncio.sleep(drill.chance.uniform(0.3, 0.7))
        drill.blows += await drill.end_sessions()


async def lose_commits(drill: Drill) -> None:
    """thirty times the server commits, and the connection is cut before anybody hears of it"""
    async with AsyncExitStack() as closing:
        proxies = {name: await closing.enter_async_context(Proxy(drill.stack.dsn(name))) for name in PART_NAMES}
        for name, proxy in proxies.items():
            await drill.stack.restart(name, {"YIKE_DATABASE": proxy.dsn})
        while (cut := sum(proxy.commits_cut for proxy in proxies.values())) < COMMITS_CUT:
            proxy = drill.chance.choice(list(proxies.values()))
            proxy.commits_to_cut = 1
            await asyncio.sleep(drill.chance.uniform(0.1, 0.5))
        for name in proxies:
            await drill.stack.restart(name)
    drill.blows += cut


async def lock_table(drill: Drill) -> None:
    """escrow's accounts are locked for 30 s, longer than it waits for a lock and longer than its max.poll.interval"""
    async with connected(drill.stack.dsn("escrow")) as connection, connection.transaction():
        await connection.execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE")
        drill.blows += 1
        await asyncio.sleep(LOCKED_S)


async def fill_postgres(drill: Drill) -> None:
    """the disk under PostgreSQL is full for 10 s"""
    await _fill(drill.servers / "postgres")
    drill.blows += 1
    postgres = embedded_postgres(drill.servers)
    if postgres.pid() is None:  # it gives up when its log cannot be written, and whoever watches it starts it again
        await asyncio.to_thread(postgres.start)


async def fill_kafka(drill: Drill) -> None:
    """the disk under Kafka is full for 10 s"""
    await _fill(drill.servers / "kafka")
    drill.blows += 1
    kafka = embedded_kafka(drill.servers)
    if kafka.pid() is None:
        await asyncio.to_thread(kafka.start)


async def _fill(folder: Path) -> None:
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for _ in range(int(FULL_S / 0.1)):
                await asyncio.to_thread(_write_until_full, file.fileno())
                await asyncio.sleep(0.1)
    finally:
        ballast.unlink(missing_ok=True)


def _write_until_full(file: int) -> None:
    for size in (BALLAST_BYTES, 4096):
        try:
            while os.write(file, bytes(size)) == size:
                pass
        except OSError:  # no space left: that is what we want
            pass


async def lose_the_log(drill: Drill) -> None:
    """Kafka comes back without anything it ever had, and `yike outbox republish` says it all again"""
    kafka = embedded_kafka(drill.servers)
    await asyncio.to_thread(kafka.kill)
    shutil.rmtree(kafka.folder / "data")
    # Before what is still unsent goes out: it is newer than what was lost.
    await asyncio.gather(*(drill.stack.halt(name) for name in PART_NAMES))
    drill.blows += 1
    await asyncio.to_thread(kafka.start)
    await ensure_topics(drill.stack.kafka, topics=topics_of(drill.stack.client_settings))
    with redirect_stdout(StringIO()):
        assert await republish(since="60d", yes=True, common=Common(home=drill.stack.folder, json=True)) == 0
    await asyncio.gather(*(drill.stack.resume(name) for name in PART_NAMES))
