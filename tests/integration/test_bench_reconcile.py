"""The comparison of a day's million lines, with a few: what it fills in fits the tables of today, and has no breaks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench import reconcile
from ops.provision import create_databases, drop_databases, upgrade
from ops.stack.servers import Servers


@pytest.fixture
async def dsn(servers: Servers) -> AsyncIterator[str]:
    dsns = await create_databases(servers.postgres_admin_dsn, ["escrow"], suffix="_bench")
    await upgrade("escrow", dsns["escrow"])
    yield dsns["escrow"]
    await drop_databases(servers.postgres_admin_dsn, ["escrow"], suffix="_bench")


async def test_its_day_fits_in_both_forms(dsn: str, tmp_path: Path) -> None:
    await reconcile.fill(dsn, 3)
    found = [await reconcile.one(dsn, path) for path in reconcile.write(tmp_path, 3)]
    assert [(one["form"], one["lines"], one["breaks"]) for one in found] == [("csv", 30, {}), ("camt053", 30, {})]
