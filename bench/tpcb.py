"""pgbench's TPC-B on the stack's own PostgreSQL: what a ledger written as one transaction per transfer gets from it."""

import asyncio
import re
from typing import Final

from ops.cli.site import connected
from ops.provision import in_database
from ops.stack.postgres import binaries
from ops.stack_layout import Stack

DATABASE: Final = "pgbench"
SCALE: Final = 10
CLIENTS: Final = 16
THREADS: Final = 2


class PgbenchError(Exception):
    """pgbench failed; its words."""


async def tpcb_rate(stack: Stack, seconds: int) -> float:
    """Its transactions per second with prepared statements; nothing else should run meanwhile."""
    async with connected(stack.admin_dsn) as connection:
        await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        await connection.execute(f"CREATE DATABASE {DATABASE}")
    dsn = in_database(stack.admin_dsn, DATABASE)
    await _pgbench("--initialize", "--quiet", f"--scale={SCALE}", dsn)
    load = f"--client={CLIENTS} --jobs={THREADS} --time={seconds} --protocol=prepared --builtin=tpcb-like"
    said = await _pgbench(*load.split(), dsn)
    async with connected(stack.admin_dsn) as connection:
        await connection.execute(f"DROP DATABASE {DATABASE}")
    found = re.search(r"tps = ([0-9.]+)", said)
    if found is None:
        raise PgbenchError(said)
    return float(found[1])


async def _pgbench(*arguments: str) -> str:
    child = await asyncio.create_subprocess_exec(
        str(binaries(None) / "pgbench"),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, errors = await child.communicate()
    if child.returncode:
        raise PgbenchError(errors.decode(errors="replace").strip())
    return said.decode()
