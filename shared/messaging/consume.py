"""Consume: one poll is one transaction is one offset commit.

    records → decode → inbox → handlers → outbox → commit → offsets

A batch that fails is rolled back. If the fault passes by itself (connection, deadlock, server away) the batch is tried
again, with growing pauses, for ever: nothing is skipped. Else its messages are tried one by one, each in its own
transaction, and the one that can never succeed is parked in the transaction that marks it handled.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import pydantic_core
import structlog
from pydantic import ValidationError
from structlog.contextvars import bound_contextvars

from shared.contracts import topics
from shared.contracts.envelope import Message, content_hash
from shared.contracts.errors import FieldError, Refused
from shared.database import Database, is_passing, renew_plans
from shared.ids import derived_id, new_id
from shared.keys import KeyRing
from shared.messaging import inbox, metrics
from shared.messaging.crash import crash_point
from shared.messaging.dead_letter import MAX_LETTER_BYTES, REPLAY_HEADER, dead_letter
from shared.messaging.handlers import Handlers, words
from shared.messaging.progress import Progress
from shared.messaging.work import UnitOfWork

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

log = structlog.get_logger()

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 15.0
NUL: Final = rb"\u0000"
"""Valid in JSON, but PostgreSQL's text has none: refused here, or one character could stop a service for ever."""


class Poison(Exception):
    """A record that can never be handled: `reason` is the stable word an operator filters by."""

    def __init__(self, reason: str, detail: str, answer: Refused | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.answer = answer


@dataclass(slots=True)
class Item:
    """One record on its way: its message, or why there is none. `message` may be bare where only the data is wrong."""

    record: "ConsumerRecord[Any, Any]"
    claim: inbox.Claim
    message: Message[Any] | None
    poison: Poison | None = None


class Consumer:
    """The consuming half of one service."""

    def __init__(
        self,
        handlers: Handlers,
        database: Database,
        ring: KeyRing,
        progress: Progress,
        wake_relay: Callable[[], None],
        namespace: str = "",
        region: str = "changzhou",
    ) -> None:
        self.handlers = handlers
        self.namespace = namespace
        self.region = region
        self.service = handlers.service
        self.database = database
        self.ring = ring
        self.progress = progress
        self._wake_relay = wake_relay

    # --- decode ---------------------------------------------------------------------------------------------------

    def decode(self, record: "ConsumerRecord[Any, Any]") -> Item | None:
        """The record as an item; None for a message on a topic of others that this service does not listen to."""
        try:
            return self._decode(record)
        except Exception as error:  # a validator with a bug must not stop the partition
            return _unreadable(record, "bad_envelope", repr(error))

    def _decode(self, record: "ConsumerRecord[Any, Any]") -> Item | None:
        body: bytes = record.value or b""
        if len(body) > topics.MAX_MESSAGE_BYTES:
            detail = f"body of {len(body)} bytes is over the limit of {topics.MAX_MESSAGE_BYTES}"
            return _unreadable(record, "too_large", detail)
        try:
            envelope = pydantic_core.from_json(body, allow_inf_nan=False)
            if not isinstance(envelope, dict):
                raise ValueError("the body is not a JSON object")
        except ValueError as error:
            return _unreadable(record, "bad_json", str(error))

        type_ = envelope.get("type")
        entry = self.handlers.entries.get(type_) if isinstance(type_, str) else None
        if entry is None and self._is_of_others(record.topic):
            return None
        if NUL in body:
            without = pydantic_core.from_json(body.replace(NUL, rb"\ufffd"))
            fault = FieldError(field="", message="U+0000 is no text", code="nul_character")
            return self._invalid(record, without, [fault])
        data = envelope.get("data")
        try:
            message: Message[Any] = (
                entry.envelope.model_validate(envelope) if entry else Message[Any].model_validate(envelope)
            )
        except ValidationError as error:
            faults = [
                FieldError(field=".".join(map(str, fault["loc"]))[:200], message=fault["msg"][:300], code=fault["type"])
                for fault in error.errors(include_url=False, include_input=False)
            ]
            return self._invalid(record, envelope, faults)
        claim = inbox.Claim(message.dedup_id, content_hash(message.type, data), _replay_of(record))
        poison: Poison | None = None
        if entry is None:
            poison = Poison("type_unknown", f"no handler for type {type_!r}", Refused("type_unknown", str(type_)[:100]))
        elif record.topic != (belongs := self.namespace + (entry.contract.TOPIC or topics.replies(self.service))):
            # Who may write to a topic is who may ask what is asked there: no gateway sends a command.
            poison = Poison("type_unknown", f"{type_} belongs on {belongs}", Refused("type_unknown", str(type_)[:100]))
        elif message.expirytime is not None and message.expirytime.tzinfo is None:
            detail = "expirytime has no time zone"
            poison = Poison("bad_envelope", detail, Refused("request_invalid", detail))
        elif message.replyto and not _may_reply(message):
            poison = Poison("replyto_forbidden", f"no reply may go to {message.replyto!r}")
        return Item(record, claim, message, poison)

    def _invalid(
        self,
        record: "ConsumerRecord[Any, Any]",
        envelope: dict[str, Any],
        faults: Sequence[FieldError],
    ) -> Item:
        """An envelope or data that does not validate: a request that says where to answer is refused, else parked."""
        detail = "; ".join(f"{fault.field}: {fault.message}" for fault in faults)
        try:
            bare: Message[Any] = Message[Any].model_validate(envelope | {"data": {}})
        except ValidationError:
            return _unreadable(record, "bad_envelope", detail)
        claim = inbox.Claim(bare.dedup_id, content_hash(bare.type, envelope.get("data")), _replay_of(record))
        refused = Refused("request_invalid", errors=faults[:50])
        return Item(record, claim, bare, Poison("bad_data", detail, refused))

    def _is_of_others(self, topic: str) -> bool:
        known = topics.TOPICS_BY_NAME.get(topic.removeprefix(self.namespace))
        return known is not None and (known.kind in ("events", "replies") or known.owner != self.service)

    # --- one poll -------------------------------------------------------------------------------------------------

    async def handle(self, records: Sequence["ConsumerRecord[Any, Any]"]) -> None:
        """Handles one poll to the end: when it returns, all of it is committed in the database."""
        self.progress.touch()
        metrics.BATCH_SIZE.labels(self.service).observe(len(records))
        started = time.perf_counter()
        items = [item for record in records if (item := self.decode(record)) is not None]
        self._stage("decode", started)
        crash_point("decode")
        if not items:
            return
        if not await self._until_it_passes(items, alone=len(items) == 1):
            for item in items:
                await self._until_it_passes([item], alone=True)
        self._wake_relay()

    async def _until_it_passes(self, items: Sequence[Item], *, alone: bool) -> bool:
        """Tries one transaction until no passing fault stops it. False: it failed for good and was not alone.

        A message alone that fails for good is parked.
        """
        pause = FIRST_PAUSE_S
        failure: Exception | None = None
        while True:
            try:
                await self._transact(items, failure)
            except Exception as error:  # every error is dealt with: retried, tried alone, or parked with its class
                self.progress.touch()
                if is_passing(error):
                    log.warning("batch retried", service=self.service, messages=len(items), error=str(error)[:300])
                    metrics.RETRIED.labels(self.service).inc()
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    pause = min(pause * 2, LONGEST_PAUSE_S)
                elif not alone:
                    log.warning("batch tried one by one", service=self.service, error=repr(error)[:300])
                    return False
                elif failure is None:
                    failure = error
                    log.exception("message parked", service=self.service, record=_place(items[0].record))
                else:
                    # Even parking failed for good: a fault of the road itself. Stop rather than skip.
                    raise
            else:
                self.progress.touch()
                return True

    async def _transact(self, items: Sequence[Item], failure: Exception | None) -> None:
        """One transaction: claim, handle, write, commit. With `failure`, its only item is parked instead of handled."""
        clock = time.perf_counter()
        async with self.database.session() as session, session.begin():
            crash_point("begin")
            await renew_plans(await session.connection())
            first: dict[UUID, Item] = {}
            for item in items:
                # Of a message and the replays of its dead letters only the replay of the last one can claim it anew.
                if item.claim.id not in first or item.claim.letter > first[item.claim.id].claim.letter:
                    first[item.claim.id] = item
            repeats = [item for item in items if first[item.claim.id] is not item]
            claimed = await inbox.claim(session, self.service, [item.claim for item in first.values()])
            clock = self._stage("inbox", clock)
            crash_point("inbox")

            work = UnitOfWork(self.service, session, self.ring, claimed.now, self.region)
            fresh = [item for item in first.values() if item.claim.id in claimed.new]
            letters = {item.claim.id: self._park(work, item, failure) for item in fresh if item.poison or failure}
            handled = [item.message for item in fresh if item.message and item.claim.id not in letters]
            await self._hand_over(work, handled)
            metrics.STAGE_SECONDS.labels(self.service, "load").observe(work.loading_s)
            clock = self._stage("decide", clock + work.loading_s)
            crash_point("handler")

            for item in (i for i in first.values() if i.claim.id not in claimed.new):
                self._answer_again(work, item, claimed.known[item.claim.id])
            given = dict(work.replies)
            for item in repeats:
                here = inbox.Known(first[item.claim.id].claim.hash, given.get(item.claim.id))
                self._answer_again(work, item, claimed.known.get(item.claim.id, here))
            parked = {id_: letter for id_, letter in letters.items() if letter is not None}
            await work.flush(inbox.notes(self.service, work.replies, parked))
            clock = self._stage("save", clock)
            crash_point("outbox")
        self._stage("commit", clock)
        crash_point("commit")
        for type_, count in Counter(message.type for message in handled).items():
            metrics.HANDLED.labels(self.service, type_).inc(count)
        for type_, code in work.refusals:
            metrics.REFUSED.labels(self.service, type_, code).inc()

    async def _hand_over(self, work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        live: list[Message[Any]] = []
        for message in messages:
            if message.expirytime is not None and message.expirytime <= work.now:
                work.refuse(message, Refused("request_expired"))
            else:
                live.append(message)
        groups = self.handlers.groups(live)
        await self.handlers.lock_for(work, groups)
        for handle, group in groups:
            name = getattr(handle, "__name__", "handler")
            started = time.perf_counter()
            # A line about a batch names no message of it; `each` binds one after the other.
            with bound_contextvars(handler=name, messages=len(group), **(words(group[0]) if len(group) == 1 else {})):
                await handle(work, group)
            metrics.HANDLER_SECONDS.labels(self.service, name).observe(time.perf_counter() - started)

    def _park(self, work: UnitOfWork, item: Item, failure: Exception | None) -> UUID | None:
        """Answers a request that is invalid or puts the record on the dead-letter topic; returns the letter's id."""
        poison = item.poison
        answer = poison.answer if poison else Refused("internal_error")
        can_answer = item.message is not None and item.message.replyto and _may_reply(item.message)
        if item.message is not None and can_answer and answer is not None:
            work.refuse(item.message, answer)
            if answer.code == "request_invalid":
                return None  # told to who sent it; not an operator's business
        reason = poison.reason if poison else "handler_failed"
        letter_id = new_id()
        error = failure or poison or Poison(reason, "")
        letter = dead_letter(item.record, self.service, letter_id, reason, error, work.now)
        work.send(letter, item.message, topic=topics.dead_letters(self.service), max_bytes=MAX_LETTER_BYTES)
        work.outbox[-1].key = letter.key[:200]
        metrics.PARKED.labels(self.service, reason).inc()
        about = words(item.message) if item.message else {}
        place = _place(item.record)
        log.error("parked", service=self.service, reason=reason, letter=str(letter_id), record=place, **about)
        return letter_id

    def _answer_again(self, work: UnitOfWork, item: Item, known: inbox.Known) -> None:
        """A message that came before: the stored answer again, or a refusal if its id now asks something else."""
        metrics.REPEATED.labels(self.service).inc()
        if item.message is not None and item.claim.hash != known.hash:
            log.warning(
                "same id, other content", service=self.service, record=_place(item.record), **words(item.message)
            )
        if item.message is None or not item.message.replyto or not _may_reply(item.message):
            return
        if item.claim.hash != known.hash:
            work.refuse(item.message, Refused("idempotency_conflict"), keep=False)
        elif known.reply is not None:
            work.repeat_reply(item.message, known.reply)

    def _stage(self, stage: str, since: float) -> float:
        now = time.perf_counter()
        metrics.STAGE_SECONDS.labels(self.service, stage).observe(now - since)
        return now


def _unreadable(record: "ConsumerRecord[Any, Any]", reason: str, detail: str) -> Item:
    """A record without a message: the inbox knows it by its place."""
    # With its time: a broker that lost its log counts offsets from the beginning again.
    place = ("record", record.topic, record.partition, record.offset, record.timestamp)
    return Item(record, inbox.Claim(derived_id(*place), b""), None, Poison(reason, detail))


def _may_reply(message: Message[Any]) -> bool:
    """A reply goes only to a topic made for replies, and only to a partition it has."""
    topic = topics.TOPICS_BY_NAME.get(message.replyto)
    if topic is None or topic.kind not in ("replies", "gateway replies"):
        return False
    return message.replypartition is None or message.replypartition < topic.partitions


def _replay_of(record: "ConsumerRecord[Any, Any]") -> UUID | None:
    for name, value in record.headers:
        if name == REPLAY_HEADER:
            try:
                return UUID((value or b"").decode())
            except ValueError:
                return None
    return None


def _place(record: "ConsumerRecord[Any, Any]") -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"
