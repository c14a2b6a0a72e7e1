"""The composition root that all services share: settings → database → consumer → relay → FastStream application."""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Sequence

import structlog
import uvicorn
from faststream.asgi import AsgiFastStream, AsyncAPIRoute

from shared import health
from shared.clock import machine_now
from shared.database import Database
from shared.keys import KeyRing
from shared.logging import set_up_logging
from shared.messaging import metrics
from shared.messaging.broker import make_broker, subscribe
from shared.messaging.consume import Consumer
from shared.messaging.handlers import Handlers
from shared.messaging.progress import Progress, start_watchdog
from shared.messaging.relay import Relay
from shared.settings import Settings
from shared.timers import Timers
from shared.working_days import horizon, shanghai

log = structlog.get_logger()

Background = Callable[["Service"], Awaitable[None]]
"""A loop that runs beside the consumer until it is cancelled."""


class Service:
    """One service process: its consumer, relay, timers and health, in one event loop."""

    def __init__(self, handlers: Handlers, settings: Settings, background: Sequence[Background] = ()) -> None:
        self.name = handlers.service
        self.settings = settings
        self.database = Database(settings.database, pool_size=6)
        self.ring = KeyRing.load(settings.keys, self.name)
        self.progress = Progress()
        self.relay = Relay(settings, self.name, self.database)
        self.timers = Timers(settings, self.name, self.database, self.relay)
        self.consumer = Consumer(
            handlers,
            self.database,
            self.ring,
            self.progress,
            self.relay.wake,
            namespace=settings.namespace,
            region=settings.region,
        )
        self.broker = make_broker(settings, self.name)
        self.subscriber = subscribe(self.broker, settings, self.name, handlers.topics(), self.consumer.handle)
        self.on_failure: Callable[[], None] = lambda: None
        self._background = background
        self._tasks: list[asyncio.Task[None]] = []
        self.app = AsgiFastStream(
            self.broker,
            asgi_routes=health.routes(self.name, self.database, self.consuming),
            # No "try it out": one call of it stops all live subscribers.
            asyncapi_path=AsyncAPIRoute("/docs/asyncapi", try_it_out_path=None),
            on_startup=[self._start],
            after_shutdown=[self._stop],
            logger=None,
        )

    def consuming(self) -> tuple[bool, int]:
        """Whether the subscriber runs, and how many partitions it holds."""
        consumer = self.subscriber.consumer
        return bool(self.subscriber.running), len(consumer.assignment()) if consumer else 0

    def lag(self) -> int:
        """Records not yet polled in the partitions held, as far as the consumer knows."""
        consumer = self.subscriber.consumer
        if consumer is None:
            return 0
        total = 0
        for partition in consumer.assignment():
            state = consumer._subscription.subscription.assignment.state_value(partition)
            if state is not None and state.highwater is not None and state.has_valid_position:
                total += max(0, state.highwater - state.position)
        return total

    async def _start(self) -> None:
        loops: list[Awaitable[None]] = [self.relay.run(), self.timers.run(), self._beat()]
        loops += [background(self) for background in self._background]
        for loop in loops:
            task = asyncio.ensure_future(loop)
            task.add_done_callback(self._background_ended)
            self._tasks.append(task)
        start_watchdog(self.progress, self.lag, self.settings.stuck_after_s)

    def _background_ended(self, task: "asyncio.Task[None]") -> None:
        """A loop ends only when it is cancelled; one that failed takes the process with it, to be started anew."""
        if not task.cancelled() and task.exception() is not None:
            log.critical("a background loop failed, this process ends", exc_info=task.exception())
            self.on_failure()

    async def _beat(self) -> None:
        while True:
            self.progress.beat()
            metrics.LAG.labels(self.name).set(self.lag())
            metrics.CALENDAR_DAYS.set((horizon() - shanghai(machine_now()).date()).days)
            await asyncio.sleep(1.0)

    async def _stop(self) -> None:
        self.progress.stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.database.close()


def run(handlers: Handlers, background: Sequence[Background] = ()) -> None:
    """Runs one service process until SIGTERM or SIGINT; finishes the batch in hand before it ends."""
    settings = Settings()
    set_up_logging(handlers.service, format_=settings.log_format, level=settings.log_level)
    service = Service(handlers, settings, background)
    server = uvicorn.Server(
        uvicorn.Config(
            service.app,
            host=settings.host,
            port=settings.port,
            lifespan="on",
            loop="auto",  # uvloop where it exists
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,  # for HTTP only; the batch in hand has the broker's graceful time-out
        )
    )
    # A batch makes thousands of objects and drops them by reference count; what lives for ever is not looked at again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    failed = False

    def end() -> None:
        nonlocal failed
        failed = server.should_exit = True

    service.on_failure = end
    server.run()
    sys.exit(1 if failed or not server.started else 0)
