"""A service as a process: health, metrics, logs, and the ways in which it ends."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ops.stack.servers import Servers
from shared.contracts.envelope import Message
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging import outbox, sets
from shared.messaging.progress import EXIT_STATUS
from shared.messaging.work import UnitOfWork
from shared.service import Service
from tests.roadkit import (
    COMMANDS,
    GATEWAY_REPLIES,
    REQUESTS,
    SERVICE,
    Ask,
    Noted,
    Process,
    Put,
    Road,
    as_bytes,
    body,
    make_handlers,
    make_road,
    road,
)

__all__ = ["road"]

METRICS = (
    "yike_messages_handled_total",
    "yike_messages_repeated_total",
    "yike_messages_refused_total",
    "yike_messages_parked_total",
    "yike_batch_messages_bucket",
    "yike_stage_seconds_bucket",
    "yike_handler_seconds_bucket",
    "yike_relay_rows_total",
    "yike_outbox_oldest_unsent_seconds",
    "yike_relay_leader",
    "yike_consumer_lag_records",
    "yike_calendar_days_left",
)


async def until_ready(process: Process) -> dict[str, Any]:
    """Waits until a process says it is ready; what it says."""
    async with asyncio.timeout(60):
        while (answer := await process.get("/health/ready"))[0] != 200:
            assert process.child.returncode is None, process.output.read_text()[-3000:]
            await asyncio.sleep(0.05)
    found: dict[str, Any] = json.loads(answer[1])
    return found


async def look(service: Service) -> tuple[int, dict[str, Any]]:
    """Asks a service in this process whether it is ready, through its ASGI application."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope: Any = {"type": "http", "method": "GET", "path": "/health/ready", "headers": [], "query_string": b""}
    await service.app(scope, receive, send)
    return sent[0]["status"], json.loads(b"".join(one.get("body", b"") for one in sent[1:]))


@asynccontextmanager
async def starting(road: Road) -> AsyncIterator[Service]:
    """Runs a copy of the service in this process and does not wait for its partitions."""
    service = Service(make_handlers(), road.settings(SERVICE))
    enough = asyncio.Event()

    async def live() -> None:
        async with service.app.start_lifespan_context():
            await enough.wait()

    living = asyncio.create_task(live())
    try:
        yield service
    finally:
        enough.set()
        await living


def status(service: Service, wanted: int, database: str = "") -> Callable[[], Awaitable[dict[str, Any]]]:
    """A condition: the service answers with this status and this about its database."""

    async def answer() -> dict[str, Any]:
        found, said = await look(service)
        return said if found == wanted and database in said["database"] else {}

    return answer


@pytest.fixture(scope="class")
async def process(road: Road) -> AsyncIterator[Process]:
    """The service as a process, ready."""
    async with road.process() as started:
        await until_ready(started)
        yield started


class TestProcess:
    async def test_it_tells_its_health_its_metrics_and_the_story_of_each_message(
        self, road: Road, process: Process
    ) -> None:
        account, trace = new_id(), "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        ask = body(Ask(account_id=account, number=1), traceparent=trace, replyto=GATEWAY_REPLIES, replypartition=0)
        refused = ask | body(Ask(account_id=account, number=-1)) | {"replyto": GATEWAY_REPLIES}
        bug = body(Put(account_id=account, number=2, act="bug"), traceparent=trace)
        said = await until_ready(process)
        assert said == {
            "subscriber": True,
            "partitions": len(make_handlers().topics()) * 3,
            "database": "ok",
            "outbox_oldest_unsent_s": said["outbox_oldest_unsent_s"],
            "status": "ready",
        }
        assert await process.get("/health/live") == (200, '{"status":"live"}')
        await asyncio.gather(
            *(road.publish_record(REQUESTS, as_bytes(one), key=str(account).encode()) for one in (ask, ask, refused))
        )
        await road.publish_record(COMMANDS, as_bytes(bug), key=str(account).encode())
        await road.expect_answer(refused["id"])
        await road.expect_envelope(lambda e: e.get("causationid") == bug["id"])
        await road.expect_quiet()
        _, metrics = await process.get("/metrics")
        assert [name for name in METRICS if name not in metrics] == []
        assert f'yike_messages_handled_total{{service="escrow",type="{Ask.TYPE}"}}' in metrics
        assert 'yike_messages_repeated_total{service="escrow"} 1.0' in metrics
        assert f'code="amount_invalid",service="escrow",type="{Ask.TYPE}"}} 1.0' in metrics
        assert 'yike_messages_parked_total{reason="handler_failed",service="escrow"} 1.0' in metrics
        # `at work` is logged by the handler: every line of it says which message it is about.
        by_message = {line["message"]: line for line in process.logged("at work") if "message" in line}
        assert set(by_message) >= {ask["id"], refused["id"], bug["id"]}
        line = by_message[ask["id"]]
        assert (line["service"], line["handler"], line["correlation"]) == (SERVICE, "on_ask", ask["correlationid"])
        assert line["trace"] == trace
        (parked,) = process.logged("parked")
        assert (parked["message"], parked["trace"], parked["reason"]) == (bug["id"], trace, "handler_failed")
        (failure,) = process.logged("message parked")
        assert "KeyError" in failure["exception"]

    async def test_a_stop_finishes_the_batch_in_hand_and_nothing_is_repeated_after_the_next_start(
        self, road: Road, process: Process
    ) -> None:
        account, flag = new_id(), road.folder / f"{new_id()}.flag"
        await road.put(account, 1, act=f"touch:{flag},slow:1.0")
        await road.until(flag.exists)
        assert await road.numbers(account) == []
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() in (0, -signal.SIGTERM)  # uvicorn says which signal it was
        assert await road.numbers(account) == [1]
        assert await road.lag() == 0
        async with road.serve():
            await road.put(account, 2)
            await road.expect_numbers(account, 1, 2)
            await road.expect_quiet()
        assert [noted.number for noted in road.seen(Noted, key=account)] == [1, 2]


class TestTheEndOfAProcess:
    @pytest.fixture
    async def road(self, servers: Servers, tmp_path: Path) -> AsyncIterator[Road]:
        """A road of its own: the group waits for a member that is dead until its session has timed out."""
        async with make_road(servers, tmp_path) as made:
            yield made

    async def test_one_whose_event_loop_stands_still_is_ended_by_its_watchdog(self, road: Road) -> None:
        async with road.process(stuck_after_s=2.0) as process:
            await until_ready(process)
            await road.put(new_id(), 1, act="block")
            assert await process.ended() == EXIT_STATUS
        (line,) = process.logged("watchdog ends this process")
        assert line["blocked_loop"]

    async def test_one_that_handles_nothing_while_records_wait_is_ended_and_the_next_one_takes_its_place(
        self, road: Road
    ) -> None:
        flag, account = road.folder / "flag", new_id()
        async with road.process(stuck_after_s=2.0, session_timeout_ms=6000) as process:
            await until_ready(process)
            await road.put(account, 1, act=f"touch:{flag},slow:600")
            await road.until(flag.exists)
            await road.put(account, 2, 3)
            assert await process.ended() == EXIT_STATUS
        (line,) = process.logged("watchdog ends this process")
        assert not line["blocked_loop"]
        assert line["lag"] >= 1
        assert await road.numbers(account) == []
        async with starting(road) as service:
            # The group waits for the one that has ended without a word: nothing is assigned yet.
            said = await road.until(status(service, 503))
            assert (said["status"], said["partitions"], said["database"]) == ("not ready", 0, "ok")
            await road.until(status(service, 200))
            await road.expect_numbers(account, 1, 2, 3)

    async def test_one_whose_background_loop_fails_ends_with_an_error_and_says_why(self, road: Road) -> None:
        async with road.process() as process:
            await until_ready(process)
            process.fail.touch()
            assert await process.ended() == 1
        (line,) = process.logged("a background loop failed, this process ends")
        assert "the background loop of the test fails" in line["exception"]


class TestReadiness:
    async def test_it_is_not_ready_while_the_database_is_away_and_goes_on_when_it_is_back(self, road: Road) -> None:
        account = new_id()
        role = f"yike_{SERVICE}_{road.name}"
        async with road.serve() as service:
            assert (await look(service))[0] == 200
            await road.admin(f"ALTER ROLE {role} CONNECTION LIMIT 0")
            try:
                await road.admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
                await road.until(status(service, 503, "too many connections"))
                await road.put(account, 1, 2, 3)
            finally:
                await road.admin(f"ALTER ROLE {role} CONNECTION LIMIT -1")
            await road.forget_connections()
            await road.expect_numbers(account, 1, 2, 3)
            await road.until(status(service, 200))
            await road.until(lambda: [noted.number for noted in road.seen(Noted, key=account)] == [1, 2, 3])

    async def test_it_is_not_ready_while_an_old_row_is_unsent(self, road: Road) -> None:
        async with road.serve() as service:
            row = _row(road)
            async with road.database.session() as session, session.begin():
                await sets.write(session, *outbox.messages([row]))
            await road.rows(
                SERVICE, "UPDATE outbox SET created_at = created_at - interval '2 minutes' WHERE id = $1", row.id
            )
            said = await road.until(status(service, 503))
            assert said["outbox_oldest_unsent_s"] > 60
            await road.rows(SERVICE, "DELETE FROM outbox WHERE id = $1", row.id)
            await road.until(status(service, 200))

    async def test_a_database_that_does_not_answer_uses_up_no_connections(self, road: Road) -> None:
        async with road.serve() as service:
            async with road.database.engine.begin() as connection:
                await connection.execute(text("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE"))
                async with asyncio.timeout(10):
                    answers = await asyncio.gather(*(look(service) for _ in range(12)))
                assert {code for code, _ in answers} == {503}
            account = new_id()
            await road.put(account, 1)
            await road.expect_numbers(account, 1)
            assert (await look(service))[0] == 200


def _row(road: Road) -> Any:
    """An outbox row of two minutes ago for a topic that is not there."""
    cause = Message[Put].model_validate(body(Put(account_id=new_id(), number=1)))
    ring = KeyRing.load(road.folder / "keys", SERVICE)
    work = UnitOfWork(SERVICE, road.database.session(), ring, road.now() - timedelta(minutes=2))
    work.send(Noted(account_id=new_id(), number=1), cause, topic="escrow.roadtest-nowhere.v1")
    return replace(work.outbox[0])
