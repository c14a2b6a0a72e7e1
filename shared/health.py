"""Health and metrics over HTTP: what an orchestrator and an operator ask a process."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from faststream.asgi import AsgiResponse, get
from prometheus_client import make_asgi_app
from sqlalchemy import text

from shared.database import Database
from shared.messaging import metrics
from shared.messaging.outbox import OLDEST

OUTBOX_AGE_LIMIT_S = 60.0
LOOK_TIMEOUT_S = 2.0
"""A database that does not answer at all must not use up the pool with those who ask for it."""
_LOOK = text(OLDEST)


def routes(service: str, database: Database, consuming: Callable[[], tuple[bool, int]]) -> list[tuple[str, Any]]:
    """ASGI routes: /health/live, /health/ready, /metrics. `consuming` says (subscriber runs, partitions held).

    Ready means: the subscriber runs and holds partitions, the database answers, the oldest unsent outbox row is younger
    than a minute. A ping of the broker says nothing about consumers, so none is made.
    """

    @get(include_in_schema=False)
    async def live(scope: Any) -> AsgiResponse:
        return AsgiResponse(b'{"status":"live"}', 200, headers={"content-type": "application/json"})

    @get(include_in_schema=False)
    async def ready(scope: Any) -> AsgiResponse:
        running, partitions = consuming()
        answer: dict[str, object] = {"subscriber": running, "partitions": partitions}
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S), database.engine.connect() as connection:
                age = float((await connection.execute(_LOOK)).scalar_one())
        except Exception as error:  # whatever the database says, the answer is "not ready, because"
            answer["database"] = f"{type(error).__name__}: {error}"[:200]
            age = -1.0
        else:
            answer["database"] = "ok"
            metrics.OUTBOX_AGE.labels(service).set(age)
        answer["outbox_oldest_unsent_s"] = round(age, 3)
        good = running and partitions > 0 and 0 <= age < OUTBOX_AGE_LIMIT_S
        answer["status"] = "ready" if good else "not ready"
        body = json.dumps(answer).encode()
        return AsgiResponse(body, 200 if good else 503, headers={"content-type": "application/json"})

    return [("/health/live", live), ("/health/ready", ready), ("/metrics", make_asgi_app())]
