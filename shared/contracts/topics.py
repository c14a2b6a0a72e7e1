"""All topics of Yike, with partitions, retention and key rule. Code, compose, docs and `yike topics ensure` read this.

Few, by owner and kind:

- `<service>.requests.v1`   what gateways ask (each request carries its actor's token)
- `<service>.commands.v1`   what services and their own timers ask; no gateway may write here
- `<service>.replies.v1`    answers to the commands a service has sent
- `<service>.events.v1`     what has happened
- `gateway.<name>.replies.v1`  answers to a gateway, one partition per copy of the gateway
- `bank.instructions.v1`, `bank.results.v1`
- `<consumer>.dlq.v1`       what could not be handled, until an operator replays it
"""

from dataclasses import dataclass
from typing import Final

from shared.settings import PARTICIPANTS, PARTITIONS, SERVICES

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Largest body the road takes; the broker's own limit (1 MiB) stands above it, so a park always fits."""

_DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `retention_ms` in milliseconds; `key` says what the partition key of its records is."""

    name: str
    owner: str
    kind: str
    key: str
    partitions: int = PARTITIONS
    retention_ms: int = 7 * _DAY_MS

    def config(self) -> dict[str, str]:
        """Topic settings for the broker, all written out."""
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(1024 * 1024),
            "min.insync.replicas": "1",
            "compression.type": "producer",
        }


def requests(service: str) -> str:
    """Name of the topic on which gateways ask `service`."""
    return f"{service}.requests.v1"


def commands(service: str) -> str:
    """Name of the topic on which other services and timers ask `service`."""
    return f"{service}.commands.v1"


def replies(service: str) -> str:
    """Name of the topic on which `service` hears the answers to its commands."""
    return f"{service}.replies.v1"


def events(service: str) -> str:
    """Name of the topic on which `service` tells what has happened."""
    return f"{service}.events.v1"


def dead_letters(consumer: str) -> str:
    """Name of the topic on which `consumer` parks what it cannot handle."""
    return f"{consumer}.dlq.v1"


def gateway_replies(gateway: str) -> str:
    """Name of the topic on which gateway `gateway` hears its answers."""
    return f"gateway.{gateway}.replies.v1"


BANK_INSTRUCTIONS: Final = "bank.instructions.v1"
BANK_RESULTS: Final = "bank.results.v1"
GATEWAYS: Final = ("web", "mobile", "ops", "demo", "bench", "test")

REPLY_TOPIC_PATTERN: Final = r"^(gateway\.[a-z][a-z0-9-]{0,30}|[a-z]{2,20})\.replies\.v1$"
"""A `replyto` that does not match is never written to: a request cannot make a service publish where it likes."""


def _all() -> tuple[Topic, ...]:
    found: list[Topic] = []
    for service in SERVICES:
        found += [
            Topic(requests(service), service, "requests", "the id of the aggregate asked about"),
            Topic(commands(service), service, "commands", "the id of the aggregate asked about"),
            Topic(replies(service), service, "replies", "the key of the command answered"),
            Topic(
                events(service),
                service,
                "events",
                "the id of the aggregate it happened to",
                retention_ms=30 * _DAY_MS,
            ),
        ]
    found += [
        Topic(BANK_INSTRUCTIONS, "escrow", "instructions", "the order id", retention_ms=30 * _DAY_MS),
        Topic(BANK_RESULTS, "bank", "results", "the order id", retention_ms=30 * _DAY_MS),
    ]
    found += [
        Topic(dead_letters(name), name, "dead letters", "the key of the parked record", 1, 90 * _DAY_MS)
        for name in PARTICIPANTS
    ]
    found += [
        Topic(gateway_replies(name), name, "gateway replies", "the key of the request", retention_ms=_DAY_MS)
        for name in GATEWAYS
    ]
    return tuple(found)


ALL_TOPICS: Final[tuple[Topic, ...]] = _all()
TOPICS_BY_NAME: Final = {topic.name: topic for topic in ALL_TOPICS}
