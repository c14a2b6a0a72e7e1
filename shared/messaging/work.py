"""The unit of work: what a handler may do. It loads, decides and collects; the road writes it all and commits once."""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeVar
from uuid import UUID

import pydantic_core
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from shared.actors import Actor, Role, require, verify_token
from shared.contracts import topics
from shared.contracts.envelope import CONTRACTS, Command, Data, Event, Message, Problem, Reply, encode
from shared.contracts.errors import ProblemBody, Refused
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging import outbox, sets
from shared.messaging.outbox import OutboxRow, TimerRow
from shared.messaging.trace import child_traceparent, new_traceparent

T = TypeVar("T")

MAX_BODY_BYTES: Final = topics.MAX_MESSAGE_BYTES


@dataclass(slots=True)
class UnitOfWork:
    """One transaction of one service. `now` is its time (see `shared/clock.py`), `region` whose policy applies."""

    service: str
    session: AsyncSession
    ring: KeyRing
    now: datetime
    region: str = "changzhou"
    writes: list[sets.Write] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    timers: list[TimerRow] = field(default_factory=list)
    replies: list[tuple[UUID, str]] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    """Message type and code of each refusal; counted once the transaction is committed."""
    loading_s: float = 0.0
    """How long all loads took."""

    # --- sets of rows -------------------------------------------------------------------------------------------
    # What is to be written is collected, as messages and timers are; whatever reads writes it first.

    async def load(
        self,
        model: type[SQLModel],
        into: type[T],
        keys: Collection[Any],
        *,
        by: Sequence[str] = (),
        lock: bool = True,
    ) -> dict[Any, T]:
        """Rows by key, locked until the commit, in one statement; see `sets.load`."""
        await self.write()
        with self._loading():
            return await sets.load(self.session, model, into, keys, by=by, lock=lock)

    async def load_all(
        self,
        model: type[SQLModel],
        into: type[T],
        keys: Collection[Any],
        *,
        by: Sequence[str] = (),
        lock: bool = True,
    ) -> list[T]:
        """Rows whose `by` columns are among `keys` (a key may have many rows); see `sets.load_all`."""
        await self.write()
        with self._loading():
            return await sets.load_all(self.session, model, into, keys, by=by, lock=lock)

    @contextmanager
    def _loading(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.loading_s += time.perf_counter() - began

    async def connection(self) -> AsyncConnection:
        """For a statement of one's own; it sees what was collected so far."""
        await self.write()
        return await self.session.connection()

    def insert(self, model: type[SQLModel], rows: Sequence[Any], *, ignore_existing: bool = False) -> None:
        """New rows, as they are now. With `ignore_existing` one whose key is there already is left as it is."""
        self.writes.append(sets.insert(model, rows, ignore_existing=ignore_existing))

    async def insert_new(self, model: type[SQLModel], row: Any) -> bool:
        """Inserts `row` at once; returns whether it was new. One whose key is there already is left as it is."""
        await self.write()
        return bool(await sets.write(self.session, sets.insert(model, [row], ignore_existing=True)))

    def update(self, model: type[SQLModel], rows: Iterable[Any], *names: str) -> None:
        """The columns `names` of `rows`, as they are now, found by primary key. Each key at most once."""
        self.writes.append(sets.update(model, rows, *names))

    async def write(self) -> None:
        """Writes the rows collected so far."""
        if self.writes:
            collected, self.writes = self.writes, []
            await sets.write(self.session, *collected)

    async def flush(self, *more: sets.Write) -> None:
        """Writes all that was collected, and `more`, in one statement wherever no row is written twice."""
        collected, self.writes = self.writes, []
        said = *outbox.messages(self.outbox), *outbox.timers(self.timers)
        await sets.write(self.session, *collected, *said, *more)

    # --- who asks -----------------------------------------------------------------------------------------------

    def actor(
        self,
        message: Message[Any],
        *roles: Role,
        subject: UUID | str | None = None,
        own: Mapping[Role, UUID | str | None] = MappingProxyType({}),
    ) -> Actor:
        """Who sent `message`, verified, in one of `roles`, and being `subject` where one is given; in a role of `own`,
        the one named there.

        Raises Refused: actor_unauthenticated, actor_forbidden.
        """
        actor = verify_token(self.ring, message.actortoken, now=self.now) if message.actortoken else None
        return require(
            actor,
            *roles,
            subject=None if subject is None else str(subject),
            own={role: str(one) for role, one in own.items()},
        )

    # --- what goes out ------------------------------------------------------------------------------------------

    def send(
        self,
        data: Command | Event,
        cause: Message[Any] | None,
        *,
        replyto: str = "",
        topic: str = "",
        max_bytes: int = MAX_BODY_BYTES,
    ) -> UUID:
        """Puts a command or event into the outbox, keyed by its contract's key; returns its message id.

        `cause` is the message being handled; its correlation and trace go on. `topic` overrides the contract's.
        """
        return self._put(
            data, topic or data.TOPIC, data.partition_key, None, cause, replyto=replyto, max_bytes=max_bytes
        )

    def reply(self, message: Message[Any], data: Reply, *, keep: bool = True) -> None:
        """Answers `message`; the answer is kept with the inbox row and replayed if the same message comes again."""
        if not message.replyto:
            return
        self._put(data, message.replyto, message.partitionkey, message.replypartition, message)
        if keep:
            self.replies.append((message.dedup_id, self.outbox[-1].body))

    def repeat_reply(self, message: Message[Any], body: str) -> None:
        """Sends the stored answer `body` again to who sent `message` again, maybe with another id (idempotencykey)."""
        traceparent = child_traceparent(message.traceparent)
        answer = pydantic_core.from_json(body) | {
            "causationid": message.id,
            "correlationid": message.correlationid,
            "traceparent": traceparent,
        }
        self.outbox.append(
            OutboxRow(
                id=UUID(answer["id"]),
                topic=message.replyto,
                key=message.partitionkey,
                partition=message.replypartition,
                type=answer["type"],
                correlationid=message.correlationid,
                replyto="",
                traceparent=traceparent,
                body=encode(answer),
            )
        )

    def refuse(self, message: Message[Any], refused: Refused, *, keep: bool = True) -> None:
        """Answers `message` with a problem."""
        type_ = message.type if message.type in CONTRACTS else "unknown"  # anybody may invent types, no label may be
        self.refusals.append((type_, refused.code))
        self.reply(message, Problem(**ProblemBody.of(refused, message.type).model_dump()), keep=keep)

    @contextmanager
    def answering(self, message: Message[Any]) -> Iterator[None]:
        """Turns a `Refused` raised inside into the answer; what was collected for the message inside is dropped."""
        sizes = len(self.outbox), len(self.timers), len(self.replies), len(self.writes)
        try:
            yield
        except Refused as refused:
            del self.outbox[sizes[0] :], self.timers[sizes[1] :], self.replies[sizes[2] :], self.writes[sizes[3] :]
            self.refuse(message, refused)

    def set_timer(self, data: Command, due_at: datetime, cause: Message[Any], *, subject: str = "") -> None:
        """Sends `data` at `due_at`. One timer per (type, subject); setting it again moves it. Subject: else the key."""
        self.timers.append(
            TimerRow(
                type=data.TYPE,
                subject=subject or data.partition_key,
                id=new_id(),
                due_at=due_at,
                data=data.model_dump_json(),
                key=data.partition_key,
                correlationid=cause.correlationid,
                causationid=cause.id,
                traceparent=cause.traceparent,
            )
        )

    def cancel_timer(self, command: type[Command], subject: object) -> None:
        """Cancels the timer of `command` for `subject`, if there is one. One that has fired finds nothing due."""
        self.timers.append(TimerRow(command.TYPE, str(subject), new_id(), None, "", "", new_id(), None, ""))

    def _put(
        self,
        data: Data,
        topic: str,
        key: str,
        partition: int | None,
        cause: Message[Any] | None,
        *,
        replyto: str = "",
        max_bytes: int = MAX_BODY_BYTES,
    ) -> UUID:
        if not data.TYPE or not topic:
            raise TypeError(f"{type(data).__name__} has no type or no topic")
        message_id = new_id()
        correlation = cause.correlationid if cause else message_id
        traceparent = child_traceparent(cause.traceparent) if cause else new_traceparent()
        body = encode(
            {
                "specversion": "1.0",
                "id": message_id,
                "source": f"/yike/{self.service}",
                "type": data.TYPE,
                "time": self.now,
                "subject": key,
                "correlationid": correlation,
                "causationid": cause.id if cause else None,
                "partitionkey": key,
                "traceparent": traceparent,
                "replyto": replyto,
                "data": data,
            }
        )
        # A character is at most four bytes: nearly every body is short enough to need no second look.
        if 4 * len(body) > max_bytes and (size := len(body.encode())) > max_bytes:
            raise ValueError(f"{data.TYPE}: body of {size} bytes is over {max_bytes}")
        self.outbox.append(
            OutboxRow(
                message_id,
                topic,
                key,
                partition,
                data.TYPE,
                correlation,
                replyto,
                traceparent,
                body,
            )
        )
        return message_id
