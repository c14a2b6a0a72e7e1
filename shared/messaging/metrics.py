"""Prometheus metrics of the road. Labels are service, message type and code; never an id."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

HANDLED: Final = Counter("yike_messages_handled", "messages handled and committed", ("service", "type"))
REPEATED: Final = Counter("yike_messages_repeated", "messages that had been handled before", ("service",))
REFUSED: Final = Counter("yike_messages_refused", "requests answered with a problem", ("service", "type", "code"))
PARKED: Final = Counter("yike_messages_parked", "messages put on the dead-letter topic", ("service", "reason"))
RETRIED: Final = Counter("yike_batches_retried", "batches tried again after a passing fault", ("service",))
BATCH_SIZE: Final = Histogram(
    "yike_batch_messages",
    "records of one poll",
    ("service",),
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000),
)
STAGE_SECONDS: Final = Histogram(
    "yike_stage_seconds",
    "seconds of one batch in one stage of the road",
    ("service", "stage"),
    buckets=_SECONDS,
)
HANDLER_SECONDS: Final = Histogram(
    "yike_handler_seconds", "seconds of one handler call", ("service", "handler"), buckets=_SECONDS
)
RELAYED: Final = Counter("yike_relay_rows", "outbox rows published and marked", ("service",))
OUTBOX_AGE: Final = Gauge("yike_outbox_oldest_unsent_seconds", "age of the oldest unsent outbox row", ("service",))
LEADER: Final = Gauge("yike_relay_leader", "1 where this copy publishes the outbox", ("service",))
TIMERS_FIRED: Final = Counter("yike_timers_fired", "timers that fell due and were sent", ("service",))
LAG: Final = Gauge("yike_consumer_lag_records", "records not yet polled, all partitions held", ("service",))
CALENDAR_DAYS: Final = Gauge("yike_calendar_days_left", "days whose holidays are known; alarm below 60")
