"""The road of a simulation: topics in memory, and the six processes as `shared/service.py` puts them together.

Each key is a partition of its own, so every order that Kafka may give is one of ours. The processes are real: consumer,
relay, timers and a database of their own. They do nothing by themselves.
"""

import asyncio
import importlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

from aiokafka import ConsumerRecord

from shared.database import Database
from shared.keys import KeyRing
from shared.messaging.consume import Consumer
from shared.messaging.progress import Progress
from shared.messaging.relay import Relay
from shared.settings import Settings
from shared.timers import Timers

Place = tuple[str, str]
"""Topic and key."""


class Crash(BaseException):
    """The process is dead. No `Exception`: nothing in it may catch its own death."""


# --- the topics ---------------------------------------------------------------------------------------------------


class Topics:
    """What Kafka would hold: records by topic and key in order, and how far each service has committed."""

    def __init__(self) -> None:
        self.records: list[ConsumerRecord[bytes, bytes]] = []
        self.queues: dict[Place, list[ConsumerRecord[bytes, bytes]]] = {}
        self.committed: Counter[tuple[str, Place]] = Counter()

    def put(self, topic: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Appends a record."""
        size = len(key), len(value)
        record = ConsumerRecord(topic, 0, len(self.records), 0, 0, key, value, None, *size, headers)
        self.records.append(record)
        self.queues.setdefault((topic, key.decode()), []).append(record)

    def waiting(self, service: str, names: Sequence[str]) -> list[Place]:
        """Where there is something for `service`, oldest first."""
        places = [p for p in self.queues if p[0] in names and self.committed[service, p] < len(self.queues[p])]
        return sorted(places, key=lambda place: self.queues[place][self.committed[service, place]].offset)

    def take(
        self, service: str, names: Sequence[str], picks: Sequence[int]
    ) -> list[tuple[Place, ConsumerRecord[bytes, bytes]]]:
        """The next record of a place for each of `picks`, which count around those that still have one."""
        places = self.waiting(service, names)
        taken: list[tuple[Place, ConsumerRecord[bytes, bytes]]] = []
        past: Counter[Place] = Counter()
        for pick in picks:
            if not places:
                break
            place = places[pick % len(places)]
            position = self.committed[service, place] + past[place]
            taken.append((place, self.queues[place][position]))
            past[place] += 1
            if position + 1 == len(self.queues[place]):
                places.remove(place)
        return taken


class _Batch:
    """A batch of records as the relay packs it."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes, Sequence[tuple[str, bytes]]]] = []

    def append(self, *, key: bytes, value: bytes, timestamp: int, headers: Sequence[tuple[str, bytes]]) -> bool:
        self.records.append((key, value, headers))
        return True

    def close(self) -> None:
        """Nothing is compressed here."""


class Producer:
    """What the relay knows of aiokafka's producer, onto `Topics`; every topic has one partition, told apart by key."""

    def __init__(self, there: Topics) -> None:
        self.topics = there
        self.client = SimpleNamespace(cluster=self)

    def partitions_for_topic(self, topic: str) -> set[int]:
        """All topics are known."""
        return {0}

    def create_batch(self) -> _Batch:
        """A batch without end."""
        return _Batch()

    async def send_batch(self, batch: _Batch, topic: str, *, partition: int) -> "asyncio.Future[None]":
        """Acknowledged at once."""
        for key, value, headers in batch.records:
            self.topics.put(topic, key, value, headers)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done


# --- the processes ------------------------------------------------------------------------------------------------


class Process:
    """One service: its own database, consumer, relay and timers, as `shared/service.py` puts them together."""

    def __init__(self, settings: Settings, name: str) -> None:
        package = "ops.bank" if name == "bank" else f"services.{name}"
        self.name = name
        self.settings = settings
        self.handlers = importlib.import_module(f"{package}.handlers").handlers
        self.topics: list[str] = self.handlers.topics()
        self.ring = KeyRing.load(settings.keys, name)
        self.database = Database(settings.database, pool_size=2)
        self.has_said = True
        self.start()

    def start(self) -> None:
        """The process as it begins: nothing is left of what an earlier one had in memory."""
        self.consumer = self.copy()
        relay = self.relay()
        self.timers = Timers(self.settings, self.name, self.database, relay)

    def copy(self) -> Consumer:
        """One more copy of this service, on the same database."""
        region = self.settings.region
        return Consumer(self.handlers, self.database, self.ring, Progress(), self._wake, region=region)

    def relay(self, rows: int = 0) -> Relay:
        """A relay that leads and takes at most `rows` in a round."""
        changes = {"relay_rows": rows} if rows else {}
        relay = Relay(self.settings.model_copy(update=changes), self.name, self.database)
        relay.leading = True
        return relay

    def _wake(self) -> None:
        self.has_said = True


@contextmanager
def dying_at(module: ModuleType, label: str) -> Iterator[None]:
    """Passing the crash point `label` of `module` is death."""

    def crash_point(passed: str) -> None:
        if passed == label:
            raise Crash(label)

    with patch.object(module, "crash_point", crash_point):
        yield
