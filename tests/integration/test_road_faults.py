"""The road on servers of its own that are cut off, killed and started again."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from ops.stack.kafka import EmbeddedKafka
from ops.stack.postgres import EmbeddedPostgres
from ops.stack.servers import Servers
from shared.contracts.envelope import Message
from shared.ids import new_id
from shared.messaging.rpc import OutcomeUnknown
from shared.messaging.work import UnitOfWork
from tests.proxy import Proxy
from tests.roadkit import GATEWAY_REPLIES, SERVICE, Ask, Balance, Noted, Put, Road, letters_of, make_road

LONG_S = 60.0


@pytest.fixture(scope="module")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL of this module, through TCP."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), tcp=True)
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.destroy)


@pytest.fixture(scope="module")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedKafka]:
    """A Kafka of this module."""
    server = EmbeddedKafka(tmp_path_factory.mktemp("kafka"))
    await asyncio.to_thread(server.start)
    yield server
    await asyncio.to_thread(server.kill)


@pytest.fixture
async def road(servers: Servers, postgres: EmbeddedPostgres, tmp_path: Path) -> AsyncIterator[Road]:
    """A road with that PostgreSQL."""
    async with make_road(Servers(servers.kafka, postgres.tcp_dsn()), tmp_path) as made:
        yield made


def retried() -> float:
    """How often a batch was tried again so far, in this process."""
    return REGISTRY.get_sample_value("yike_batches_retried_total", {"service": SERVICE}) or 0.0


class TestPostgres:
    async def test_a_commit_whose_acknowledgement_was_lost_is_not_done_twice(
        self, road: Road, postgres: EmbeddedPostgres
    ) -> None:
        account, before, calls = new_id(), retried(), 0
        async with Proxy(road.dsns[SERVICE]) as proxy:

            async def cut(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
                nonlocal calls
                calls += len(messages)
                proxy.commits_to_cut = 1

            async with road.serve(cut, database=proxy.dsn):
                ids = []
                for number in range(1, 6):
                    message = Put(account_id=account, number=number)
                    ids.append(await road.publish(message, replyto=GATEWAY_REPLIES))
                    await road.expect_numbers(account, *range(1, number + 1))
                proxy.commits_to_cut = 0
                await road.expect_quiet()
                assert proxy.commits_cut >= 5
        assert retried() - before >= 1
        assert calls == 5
        await road.expect_numbers(account, 1, 2, 3, 4, 5)
        assert [noted.number for noted in road.seen(Noted, key=account)] == [1, 2, 3, 4, 5]
        assert [balance.total for balance in road.seen(Balance, key=account)] == [1, 3, 6, 10, 15]
        assert letters_of(road, account) == []

    async def test_with_the_database_cut_off_everything_waits_and_goes_on_when_it_is_back(
        self, road: Road, postgres: EmbeddedPostgres
    ) -> None:
        account = new_id()
        async with Proxy(road.dsns[SERVICE]) as proxy, road.serve(database=proxy.dsn):
            await road.put(account, 1)
            await road.expect_numbers(account, 1)
            proxy.open = False
            proxy.cut()
            before = retried()
            await road.put(account, 2, 3)
            await road.until(lambda: retried() >= before + 2)
            proxy.open = True
            await road.expect_numbers(account, 1, 2, 3)
            await road.expect_quiet()
        assert letters_of(road, account) == []
        assert [noted.number for noted in road.seen(Noted, key=account)] == [1, 2, 3]

    async def test_a_power_cut_of_the_database_loses_and_repeats_nothing(
        self, road: Road, postgres: EmbeddedPostgres
    ) -> None:
        accounts = [new_id() for _ in range(3)]
        async with road.serve():
            for number in range(1, 31):
                if number in (10, 20):
                    await asyncio.to_thread(postgres.kill)
                    restarting = asyncio.create_task(asyncio.to_thread(postgres.start))
                    for account in accounts:
                        await road.put(account, number)
                    await restarting
                    await road.forget_connections()
                else:
                    for account in accounts:
                        await road.put(account, number)
            for account in accounts:
                await road.expect_numbers(account, *range(1, 31))
            await road.expect_quiet()
        for account in accounts:
            assert letters_of(road, account) == []
            assert [noted.number for noted in road.seen(Noted, key=account)] == list(range(1, 31))


@pytest.mark.timeout(300)  # a Kafka is started twice
class TestKafka:
    async def test_a_broker_that_hangs_is_killed_or_is_away_costs_nothing_but_time(
        self, servers: Servers, kafka: EmbeddedKafka, tmp_path: Path
    ) -> None:
        account = new_id()
        async with make_road(Servers(kafka.bootstrap, servers.postgres_admin_dsn), tmp_path) as road:
            async with road.serve():
                await road.put(account, 1)
                await road.expect_numbers(account, 1)

                pid = kafka.pid()
                assert pid is not None
                os.kill(pid, signal.SIGSTOP)
                try:
                    await expect_unknown(road, Ask(account_id=account, number=2))
                finally:
                    os.kill(pid, signal.SIGCONT)
                await road.expect_numbers(account, 1, 2)  # it was only late

                await asyncio.to_thread(kafka.kill)
                await expect_unknown(road, Ask(account_id=account, number=3))
                await asyncio.to_thread(kafka.start)
                # Same gateway, same service, same relay: all go on by themselves.
                await road.client.ask(Ask(account_id=account, number=4), timeout_s=LONG_S)
                await road.put(account, 5)
                await road.until(lambda: 5 in [one.number for one in road.seen(Noted, key=account)], LONG_S)
                assert sorted(await road.numbers(account)) in ([1, 2, 4, 5], [1, 2, 3, 4, 5])

                await asyncio.to_thread(kafka.kill)
                begun = asyncio.get_running_loop().time()
            # The service has stopped although there was nobody to say goodbye to.
            assert asyncio.get_running_loop().time() - begun < LONG_S / 2


async def expect_unknown(road: Road, request: Ask) -> None:
    """Asks a broker that does not answer: the time-out holds all the same."""
    async with asyncio.timeout(5):
        with pytest.raises(OutcomeUnknown):
            await road.client.ask(request, timeout_s=0.5)
