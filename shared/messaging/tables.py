"""The tables of the road. Each service's database has its own; `road_tables(metadata)` puts them there."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    Uuid,
)

CLOCK_SQL: Final = """
CREATE FUNCTION yike_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT now() + make_interval(
    secs => coalesce(nullif(current_setting('yike.clock_offset_seconds', true), ''), '0')::float8)
$$;
"""


def road_tables(metadata: MetaData) -> None:
    """Adds inbox, outbox, unsent and timers to the metadata of a service."""
    Table(
        "inbox",
        metadata,
        Column("consumer", String(40), primary_key=True),
        Column("message_id", Uuid, primary_key=True),
        Column("body_hash", LargeBinary, nullable=False),
        Column("received_at", DateTime(timezone=True), nullable=False),
        # The stored answer, replayed when the same request comes again; null where nobody asked for one.
        Column("reply", Text),
        # The dead letter that holds this message; only a replay of that very letter may claim it again.
        Column("parked", Uuid),
        Index("inbox_received_at", "received_at", postgresql_using="brin"),
    )
    Table(
        "outbox",
        metadata,
        # Given by the database at insert: rows of one key are written under that key's row lock, so in order.
        Column("seq", BigInteger, Identity(always=True), primary_key=True),
        Column("id", Uuid, nullable=False),
        Column("topic", String(80), nullable=False),
        Column("key", String(200), nullable=False),
        Column("partition", SmallInteger),
        Column("type", String(100), nullable=False),
        Column("correlationid", Uuid, nullable=False),
        Column("replyto", String(80), nullable=False),
        Column("traceparent", String(60), nullable=False),
        Column("body", Text, nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Index("outbox_key", "key"),
        Index("outbox_created_at", "created_at", postgresql_using="brin"),
    )
    Table(
        "unsent",
        metadata,
        # Which rows of the outbox the relay has still to publish: a mark deletes a small row, and the wide ones stay
        # as they were written.
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
    )
    Table(
        "timers",
        metadata,
        # One timer for one purpose of one subject: setting it again moves it.
        Column("type", String(100), primary_key=True),
        Column("subject", String(200), primary_key=True),
        Column("id", Uuid, nullable=False),
        Column("due_at", DateTime(timezone=True), nullable=False),
        Column("data", Text, nullable=False),
        Column("key", String(200), nullable=False),
        Column("correlationid", Uuid, nullable=False),
        Column("causationid", Uuid),
        Column("traceparent", String(60), nullable=False),
        Index("timers_due_at", "due_at"),
    )
