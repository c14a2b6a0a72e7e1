"""A service as a process: health, metrics, logs, and the ways in which it ends."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from shared.contracts.envelope import Message
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging.outbox import write_outbox
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
)


async def until_ready(process: Process) -> dict[str, Any]:
    """Waits until a process says it is ready; what it says."""
    async with asyncio.timeout(30):
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


def status(service: Service, wanted: int) -> Callable[[], Awaitable[dict[str, Any]]]:
    """A condition: the service answers with this status."""

    async def answer() -> dict[str, Any]:
        found, said = await look(service)
        return said if found == wanted else {}

    return answer


class TestProcess:
    async def test_it_tells_its_health_its_metrics_and_the_story_of_each_message(self, road: Road) -> None:
        account, trace = new_id(), "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        ask = body(Ask(account_id=account, number=1), traceparent=trace, replyto=GATEWAY_REPLIES, replypartition=0)
        refused = ask | body(Ask(account_id=account, number=-1)) | {"replyto": GATEWAY_REPLIES}
        bug = body(Put(account_id=account, number=2, act="bug"), traceparent=trace)
        async with road.process() as process:
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
                *(
                    road.publish_record(REQUESTS, as_bytes(one), key=str(account).encode())
                    for one in (ask, ask, refused)
                )
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
        assert (line["service"], line["type"], line["correlation"]) == (SERVICE, Ask.TYPE, ask["correlationid"])
        assert line["trace"] == trace
        (parked,) = process.logged("parked")
        assert (parked["message"], parked["trace"], parked["reason"]) == (bug["id"], trace, "handler_failed")
        (failure,) = process.logged("message parked")
        assert "KeyError" in failure["exception"]

    async def test_a_stop_finishes_the_batch_in_hand_and_nothing_is_repeated_after_the_next_start(
        self, road: Road
    ) -> None:
        account, flag = new_id(), road.folder / f"{new_id()}.flag"
        async with road.process() as process:
            await until_ready(process)
            await road.put(account, 1, act=f"touch:{flag},slow:1.0")
            await road.until(flag.exists)
            assert await road.numbers(account) == []
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0
        assert await road.numbers(account) == [1]
        assert await road.lag() == 0
        async with road.serve():
            await road.put(account, 2)
            await road.expect_numbers(account, 1, 2)
            await road.expect_quiet()
        assert [noted.number for noted in road.seen(Noted, key=account)] == [1, 2]

    async def test_one_whose_event_loop_stands_still_is_ended_by_its_watchdog(self, road: Road) -> None:
        flag = road.folder / f"{new_id()}.flag"
        async with road.process(stuck_after_s=2.0) as process:
            await until_ready(process)
            await road.put(new_id(), 1, act=f"touch:{flag},block:{flag}.2")
            assert await process.ended() == EXIT_STATUS
        (line,) = process.logged("watchdog ends this process")
        assert line["blocked_loop"]
        async with road.serve():
            await road.expect_quiet()

    async def test_one_that_handles_nothing_while_records_wait_is_ended_by_its_watchdog(self, road: Road) -> None:
        flag, account = road.folder / f"{new_id()}.flag", new_id()
        async with road.process(stuck_after_s=2.0) as process:
            await until_ready(process)
            await road.put(account, 1, act=f"touch:{flag},slow:600")
            await road.until(flag.exists)
            await road.put(account, 2, 3)
            assert await process.ended() == EXIT_STATUS
        (line,) = process.logged("watchdog ends this process")
        assert not line["blocked_loop"]
        assert line["lag"] >= 1
        async with road.serve():
            await road.expect_numbers(account, 1, 2, 3)

    async def test_a_slow_batch_is_not_taken_for_a_stuck_process_while_nothing_waits(self, road: Road) -> None:
        account = new_id()
        async with road.process(stuck_after_s=0.8) as process:
            await until_ready(process)
            await road.put(account, 1, act="slow:2.5")
            await road.expect_numbers(account, 1)
            assert process.child.returncode is None

    async def test_one_whose_background_loop_fails_ends_with_an_error_and_says_why(self, road: Road) -> None:
        async with road.process() as process:
            await until_ready(process)
            process.fail.touch()
            assert await process.ended() not in (0, -signal.SIGKILL)
        (line,) = process.logged("a background loop failed, this process ends")
        assert "the background loop of the test fails" in line["exception"]


class TestReadiness:
    async def test_it_is_not_ready_without_a_partition(self, road: Road) -> None:
        service = Service(make_handlers(), road.settings(SERVICE, namespace="nowhere."))
        lives = asyncio.Event()

        async def live() -> None:
            async with service.app.start_lifespan_context():
                await lives.wait()

        living = asyncio.create_task(live())
        try:
            said = await road.until(status(service, 503))
            await road.until(lambda: service.consuming()[0])
            said = (await look(service))[1]
            assert (said["status"], said["subscriber"], said["partitions"]) == ("not ready", True, 0)
        finally:
            lives.set()
            await living

    async def test_it_is_not_ready_while_the_database_is_away_and_goes_on_when_it_is_back(self, road: Road) -> None:
        account = new_id()
        role = f"yike_{SERVICE}_{road.name}"
        async with road.serve() as service:
            assert (await look(service))[0] == 200
            await road.admin(f"ALTER ROLE {role} CONNECTION LIMIT 0")
            try:
                await road.admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
                said = await road.until(status(service, 503))
                assert "too many connections" in said["database"]
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
                await write_outbox(session, [row])
            said = await road.until(status(service, 503))
            assert said["outbox_oldest_unsent_s"] > 60
            await road.rows(SERVICE, "DELETE FROM outbox WHERE id = $1", row.id)
            await road.until(status(service, 200))

    async def test_a_database_that_does_not_answer_uses_up_no_connections(self, road: Road) -> None:
        account = new_id()
        held = asyncio.Event()
        async with road.serve() as service:
            await road.rows(SERVICE, "ALTER TABLE outbox RENAME TO outbox_away")
            await road.rows(SERVICE, "CREATE VIEW outbox AS SELECT * FROM outbox_away WHERE pg_sleep(30) IS NOT NULL")
            held.set()
            try:
                async with asyncio.timeout(10):
                    answers = await asyncio.gather(*(look(service) for _ in range(12)))
                assert {code for code, _ in answers} == {503}
            finally:
                await road.rows(SERVICE, "DROP VIEW outbox")
                await road.rows(SERVICE, "ALTER TABLE outbox_away RENAME TO outbox")
            await road.put(account, 1)
            await road.expect_numbers(account, 1)


def _row(road: Road) -> Any:
    """An outbox row of two minutes ago for a topic that is not there."""
    cause = Message[Put].model_validate(body(Put(account_id=new_id(), number=1)))
    ring = KeyRing.load(road.folder / "keys", SERVICE)
    work = UnitOfWork(SERVICE, road.database.session(), ring, road.now() - timedelta(minutes=2))
    work.send(Noted(account_id=new_id(), number=1), cause, topic="escrow.roadtest-nowhere.v1")
    return replace(work.outbox[0])
