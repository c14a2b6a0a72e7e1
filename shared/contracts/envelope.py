"""The envelope of every message: CloudEvents 1.0 in structured mode. The body is the truth, headers are copies.

A contract is a frozen pydantic model that says its type, topic and key in its class line:

    class PlaceHold(Command, type="escrow.hold.place.v1", topic=topics.commands("escrow"), key="order_id"): ...

`Message[PlaceHold]` is that data in its envelope. Readers ignore unknown fields; writers only add.
"""

import hashlib
import json
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar
from uuid import UUID

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.errors import ProblemBody
from shared.ids import derived_id

CONTENT_TYPE: Final = "application/cloudevents+json"


class Data(BaseModel):
    """The `data` of a message. Class arguments: `type`, `topic`, `key` (the field that is the partition key)."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_bytes="base64", val_json_bytes="base64")

    TYPE: ClassVar[str] = ""
    TOPIC: ClassVar[str] = ""
    KEY: ClassVar[str] = ""
    REPLY: ClassVar[type["Reply"] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__()  # the class arguments are read below, once pydantic has made the fields

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        type: str = "",
        topic: str = "",
        key: str = "",
        reply: "type[Reply] | None" = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not type:
            return
        if type in CONTRACTS:
            raise TypeError(f"two contracts of type {type}")
        if key and key not in cls.model_fields:
            raise TypeError(f"{type}: key {key!r} is not a field")
        cls.TYPE, cls.TOPIC, cls.KEY, cls.REPLY = type, topic, key, reply
        CONTRACTS[type] = cls

    @property
    def partition_key(self) -> str:
        """The value of the key field as text; equal keys keep their order."""
        return str(getattr(self, self.KEY)) if self.KEY else ""


class Request(Data):
    """Asked by a gateway for an actor; answered with `REPLY` or a `Problem`."""


class Command(Data):
    """Asked by a service (or one of its timers); answered with `REPLY` if it has one, else only by a `Problem`."""


class Event(Data):
    """Something that has happened."""


class Reply(Data):
    """The answer to a request or command; goes to its `replyto`."""


CONTRACTS: Final[dict[str, type[Data]]] = {}
"""Every contract by its type; filled as the modules of `shared.contracts` are imported."""


class Problem(Reply, ProblemBody, type="problem.v1"):
    """A refusal (RFC 9457): code, Chinese title, detail, retryable, faults by field, deciding figures."""


D_co = TypeVar("D_co", bound=Data, covariant=True)


class Message(BaseModel, Generic[D_co]):
    """`data` in its envelope. Times are aware UTC; `replypartition` lets each copy of a gateway read only its own."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    specversion: Literal["1.0"] = "1.0"
    id: UUID
    source: str = Field(max_length=100)
    type: str = Field(max_length=100)
    time: datetime
    subject: str = Field(default="", max_length=200)
    correlationid: UUID
    causationid: UUID | None = None
    partitionkey: str = Field(default="", max_length=200)
    traceparent: str = Field(default="", max_length=60)
    replyto: str = Field(default="", max_length=80)
    replypartition: int | None = Field(default=None, ge=0, le=10_000)
    expirytime: datetime | None = None
    idempotencykey: str = Field(default="", max_length=200)
    actortoken: str = Field(default="", max_length=4000, repr=False)
    data: D_co

    @property
    def dedup_id(self) -> UUID:
        """What the inbox knows this message by: its id, or what `idempotencykey` stands for if the sender gave one."""
        if self.idempotencykey:
            return derived_id("idempotency", self.source, self.type, self.idempotencykey)
        return self.id

    @cached_property
    def label(self) -> str:
        """Type and id, for logs."""
        return f"{self.type} {self.id}"


_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def content_hash(type_: str, data: object) -> bytes:
    """16 bytes that two messages share if and only if they ask the same: over type and data, whatever the field order.

    Envelope attributes stay out, so a gateway may retry with a fresh token, time or trace.
    """
    canonical = _canonical(data)
    return hashlib.blake2b(f"{type_}\n{canonical}".encode(errors="surrogatepass"), digest_size=16).digest()


def encode(envelope: dict[str, Any]) -> str:
    """The JSON body of an envelope whose `data` is a contract; empty attributes are left out."""
    kept = {name: value for name, value in envelope.items() if value is not None and value != ""}
    return pydantic_core.to_json(kept, bytes_mode="base64").decode()
