"""What a service is told at its start: environment variables, all with the prefix `YIKE_`."""

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SERVICES: Final = ("catalog", "orders", "escrow", "complaints", "notify")
PARTITIONS: Final = 12
PARTICIPANTS: Final = (*SERVICES, "bank")
"""Everybody who consumes on the road; `bank` is the stand-in that plays the banks."""


class ClientSettings(BaseSettings):
    """How to reach Kafka: all that a gateway needs."""

    model_config = SettingsConfigDict(env_prefix="YIKE_", frozen=True)

    kafka: str = Field(description="bootstrap servers, host:port[,host:port]")
    partitions: int = Field(
        default=PARTITIONS,
        ge=1,
        le=1000,
        description="partitions of each topic of a service: how many of its copies can share the work; fixed when the "
        "topics are made",
    )
    namespace: str = Field(default="", max_length=40, description="before every topic and group name: isolates tests")
    kafka_username: str = Field(default="", description="SASL/SCRAM-SHA-512 user; empty: no SASL")
    kafka_password: str = Field(default="", repr=False)
    kafka_tls: bool = Field(default=False, description="TLS to the brokers")


class Settings(ClientSettings):
    """Settings of one service process. Times in seconds unless the name says otherwise."""

    database: str = Field(description="DSN of this service's own database, postgresql://role@host/database")
    keys: Path = Field(description="folder with this service's private keys and public.json")
    port: int = Field(default=8000, ge=0, le=65535, description="HTTP port of health, metrics and AsyncAPI")
    host: str = Field(default="127.0.0.1", description="HTTP address to listen on")
    instance: str = Field(
        default="",
        max_length=60,
        description="name of this copy among its likes, if it keeps one over restarts: Kafka then gives "
        "a process that comes back its partitions at once, where a nameless one waits for the session time-out",
    )
    region: str = Field(default="changzhou", description="region whose policy applies")

    sms_provider: str = Field(default="file", pattern="^(file|console)$")
    sms_file: Path = Field(default=Path("sms.jsonl"), description="where the file provider writes")

    log_format: str = Field(default="auto", pattern="^(auto|json|console)$")
    log_level: str = Field(default="INFO")

    poll_records: int = Field(default=2000, ge=1, le=5000, description="most records of one poll = one transaction")
    poll_every_ms: int = Field(
        default=20,
        ge=0,
        le=5000,
        description="shortest time between two polls of a service under load, in milliseconds",
    )
    relay_rows: int = Field(default=4000, ge=1, le=20000, description="most outbox rows of one relay round")
    timer_rows: int = Field(default=500, ge=1, le=5000, description="most timers fired in one transaction")
    keep_sent_days: int = Field(default=30, ge=1, description="days that sent outbox and inbox rows are kept")
    stuck_after_s: float = Field(default=120.0, gt=0, description="the watchdog ends a process stuck for so long")
    session_timeout_ms: int = Field(default=30_000, ge=6_000, description="Kafka group session time-out")
    max_poll_interval_ms: int = Field(
        default=300_000, ge=6_000, description="a copy that handles one poll for so long gives its partitions to others"
    )
