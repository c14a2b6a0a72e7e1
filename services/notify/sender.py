"""The sender: takes queued SMS to the provider, at most once each, beside the consumer of the same process.

A set of due rows is claimed and committed as `sending` before the provider is called, and marked after. Who dies in
between leaves rows that are `sending` for too long; the provider is asked what became of them, and only what it did
not take is sent again. What it cannot tell is `unknown`, for an operator. Two lanes, so that no code waits behind
notices.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final, Literal
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import Row, TextClause, text
from sqlmodel.ext.asyncio.session import AsyncSession

from services.notify import domain
from services.notify.domain import SMS_CHANGES, Lane, Sms, SmsState
from services.notify.providers import AccountDeadError, Outgoing, Provider, RejectedError, ThrottledError
from services.notify.providers.console import ConsoleProvider
from services.notify.providers.file import FileProvider
from services.notify.reminders import wording
from services.notify.tables import SmsRow
from shared import clock
from shared.contracts.envelope import Message
from shared.contracts.notify import SmsSent
from shared.database import Database, is_passing
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging.work import UnitOfWork
from shared.sealing import AtRestError, decrypt_at_rest
from shared.service import Service
from shared.settings import Settings
from shared.working_days import next_waking_time

log = structlog.get_logger()

SET_ROWS: Final = 200
CALLS_AT_ONCE: Final = 10
POLL_S: Final[Mapping[Lane, float]] = {Lane.CODE: 0.2, Lane.NOTICE: 1.0}
RECOVER_POLL_S: Final = 5.0
HOUSEKEEPING_S: Final = 600.0
FAULT_PAUSE_S: Final = 1.0

LEASE_S: Final = 60
"""A row that is `sending` for longer was left by somebody who died."""
CALL_TIMEOUT_S: Final = 10.0
LAST_CALL_S: Final = 40.0
"""After its claim a row's call begins within this or not at all: with the time-out it ends well before the lease does,
so that nobody asks what became of a call that is still to come."""

KEEP_CODES_DAYS: Final = 2
KEEP_SMS_DAYS: Final = 400
"""Limits of codes look back a day. An SMS row keeps its notice from coming twice: it outlives all replays [ours]."""
PURGE_ROWS: Final = 20_000

ENDED: Final = Counter("yike_sms_ended", "SMS that came to an end, by how", ("purpose", "state"))
STOPPED: Final = Gauge("yike_sms_sender_stopped", "1 where the provider's account is dead and nothing is sent")

_DUE: Final = text("""
SELECT id, yike_now() AS now, now() AS real_now FROM sms
WHERE state = 'queued' AND lane = :lane AND not_before <= yike_now()
ORDER BY not_before LIMIT :rows FOR UPDATE SKIP LOCKED
""")
# The lease is counted on the database's real clock: a demo that jumps a week must not call living senders dead.
_STALE: Final = text("""
SELECT id, yike_now() AS now, now() AS real_now FROM sms
WHERE state = 'sending' AND claimed_at < now() - make_interval(secs => :lease)
ORDER BY claimed_at LIMIT :rows FOR UPDATE SKIP LOCKED
""")
_HOUSEKEEPING: Final[tuple[TextClause, ...]] = (
    text("""UPDATE sms SET state = 'dropped', reason = 'late', finished_at = yike_now() WHERE id IN (
              SELECT id FROM sms WHERE state = 'no_contact' AND expires_at <= yike_now()
              ORDER BY expires_at LIMIT :rows FOR UPDATE SKIP LOCKED)"""),
    text("""DELETE FROM challenges WHERE challenge_id = ANY(ARRAY(SELECT challenge_id FROM challenges
              WHERE sent_at < yike_now() - make_interval(days => :codes_days) ORDER BY sent_at LIMIT :rows))"""),
    text("""DELETE FROM code_sends WHERE ctid = ANY(ARRAY(SELECT ctid FROM code_sends
              WHERE sent_at < yike_now() - make_interval(days => :codes_days) ORDER BY sent_at LIMIT :rows))"""),
    # Ids are made by machines' clocks, so they are compared with the real time.
    text("""DELETE FROM sms WHERE id = ANY(ARRAY(SELECT id FROM sms
              WHERE id < (SELECT uuidv7(- make_interval(days => :sms_days)))
              AND state NOT IN ('sending', 'unknown') ORDER BY id LIMIT :rows))"""),
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """Rows that are `sending` under one claim. `since` is this process's monotonic clock, taken before the claim.

    `rows` counts those too that turned out to be late or unreadable and are over.
    """

    id: UUID
    since: float
    rows: int
    sms: tuple[Outgoing, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one call. `not_taken`: certainly not, and it may be tried again; `unclear`: to be asked later."""

    kind: Literal["sent", "throttled", "rejected", "not_taken", "unclear", "unknowable"]
    code: str = ""
    retry_after_s: float | None = None


Outcomes = dict[UUID, Outcome]


class Sender:
    """Sends for one copy of the service; several copies share the queue."""

    def __init__(
        self, service: str, database: Database, ring: KeyRing, provider: Provider, wake_relay: Callable[[], None]
    ) -> None:
        self.service = service
        self.database = database
        self.ring = ring
        self.provider = provider
        self.dead = ""
        self._died = asyncio.Event()
        self._closing = False
        self._wake_relay = wake_relay

    async def run(self) -> None:
        """Sends until cancelled, or until the provider's account is dead; then an operator starts the process again."""
        STOPPED.set(0)
        async with asyncio.TaskGroup() as group:
            for lane in Lane:
                group.create_task(self._repeat(partial(self.send_due, lane), POLL_S[lane]))
            group.create_task(self._repeat(self.recover, RECOVER_POLL_S))
            group.create_task(self._repeat(self.keep_house, HOUSEKEEPING_S))

    async def _repeat(self, step: Callable[[], Awaitable[int]], poll_s: float) -> None:
        """Does `step` again and again, at once while its sets are full. Passing faults are waited out."""
        while not self.dead:
            try:
                done = await self._to_the_end(step)
            except Exception as error:
                if not is_passing(error):
                    raise
                log.warning("SMS sender waits", error=str(error)[:300])
                await self._pause(FAULT_PAUSE_S)
            else:
                if done < SET_ROWS:
                    await self._pause(poll_s)

    async def _to_the_end(self, step: Callable[[], Awaitable[int]]) -> int:
        """Does `step` whole, also when we are told to stop meanwhile: calls in hand are marked, no new one is made."""
        task = asyncio.ensure_future(step())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._closing = True
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _pause(self, seconds: float) -> None:
        """Sleeps, but not past the sender's own end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._died.wait(), seconds)

    # --- one set ------------------------------------------------------------------------------------------------------

    async def send_due(self, lane: Lane) -> int:
        """Claims a set, calls the provider, marks what came of it. Returns how many rows were taken up."""
        claimed = await self.claim(lane)
        if claimed is None:
            return 0
        await self._mark_surely(claimed.id, await self.deliver(claimed))
        return claimed.rows

    async def claim(self, lane: Lane) -> Claimed | None:
        """Marks a set of due rows `sending` and commits that. None when nothing is due, or notices have to wait."""
        since = time.monotonic()
        claim_id = new_id()
        async with self.database.session() as session, session.begin():
            if lane is Lane.NOTICE:
                # What is late because the sender stood still must not ring at night either.
                now = await clock.now(session)
                if next_waking_time(now) > now:
                    return None
            due = await self._rows(session, _DUE, lane=lane.value)
            if not due:
                return None
            now, real_now = due[0].now, due[0].real_now
            work = UnitOfWork(self.service, session, self.ring, now)
            rows = await work.load(SmsRow, Sms, [row.id for row in due])
            taken: list[Outgoing] = []
            for sms in rows.values():
                if not domain.claim(sms, claim_id, real_now, now):
                    continue
                try:
                    taken.append(_outgoing(self.ring, sms, work))
                except (AtRestError, KeyError) as error:
                    log.error("SMS cannot be written", sms=str(sms.id), purpose=sms.purpose, error=repr(error))
                    domain.end(sms, SmsState.FAILED, "unwritable", now)
            work.update(SmsRow, rows.values(), *SMS_CHANGES)
            await work.write()
        for sms in rows.values():
            _count(sms)
        return Claimed(claim_id, since, len(rows), tuple(taken))

    async def deliver(self, claimed: Claimed) -> Outcomes:
        """Calls the provider for each SMS of a claim, some at a time."""
        free = asyncio.Semaphore(CALLS_AT_ONCE)

        async def one(sms: Outgoing) -> tuple[UUID, Outcome]:
            async with free:
                return sms.sms_id, await self._call(sms, claimed)

        return dict(await asyncio.gather(*(one(sms) for sms in claimed.sms)))

    async def _call(self, sms: Outgoing, claimed: Claimed) -> Outcome:
        if self.dead or self._closing or time.monotonic() - claimed.since > LAST_CALL_S:
            return Outcome("not_taken")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self.provider.send(sms)
        except ThrottledError as throttled:
            return Outcome("throttled", throttled.code, throttled.retry_after_s)
        except RejectedError as rejected:
            return Outcome("rejected", rejected.code)
        except AccountDeadError as dead:
            self._stop(dead.code)
            return Outcome("not_taken", dead.code)
        except Exception as error:
            # A time-out, a broken connection, a bug of the provider's: it may have been taken. Not the error's text,
            # which may quote the phone.
            log.warning("SMS outcome unclear", sms=str(sms.sms_id), error=type(error).__name__)
            return Outcome("unclear")
        return Outcome("sent")

    async def mark(self, claim_id: UUID, outcomes: Outcomes) -> None:
        """Writes what became of the rows of a claim and says `SmsSent`; what another has claimed since is his."""
        async with self.database.session() as session, session.begin():
            work = UnitOfWork(self.service, session, self.ring, await clock.now(session))
            rows = await work.load(SmsRow, Sms, outcomes)
            ours = [sms for sms in rows.values() if sms.claim == claim_id]
            for sms in ours:
                self._settle(work, sms, outcomes[sms.id])
            work.update(SmsRow, ours, *SMS_CHANGES)
            await work.flush()
        for sms in ours:
            _count(sms)
        if work.outbox:
            self._wake_relay()

    def _settle(self, work: UnitOfWork, sms: Sms, outcome: Outcome) -> None:
        """The row of one SMS after `outcome`."""
        match outcome.kind:
            case "sent":
                domain.end(sms, SmsState.SENT, "", work.now, self.provider.name)
                event = SmsSent(sms_id=sms.id, purpose=sms.purpose, provider=self.provider.name)
                work.send(event, _cause(sms, event, work.now))
            case "throttled":
                domain.postpone(sms, work.now, outcome.code[:100], outcome.retry_after_s)
            case "rejected":
                log.error("SMS rejected", sms=str(sms.id), purpose=sms.purpose, code=outcome.code)
                domain.end(sms, SmsState.FAILED, outcome.code[:100], work.now, self.provider.name)
            case "not_taken":
                domain.requeue(sms, work.now)
            case "unknowable":
                log.error("SMS unknown: the provider cannot tell", sms=str(sms.id), purpose=sms.purpose)
                domain.end(sms, SmsState.UNKNOWN, "provider cannot tell", work.now, self.provider.name)
            case "unclear":
                pass  # stays `sending`; `recover` asks when the lease is over

    async def _mark_surely(self, claim_id: UUID, outcomes: Outcomes) -> None:
        """Marks, however long the database is away: what is known now may be unknowable later."""
        while True:
            try:
                await self.mark(claim_id, outcomes)
            except Exception as error:
                if not is_passing(error) or self._closing:
                    raise
                log.warning("SMS sent but not marked yet", error=str(error)[:300])
                await asyncio.sleep(FAULT_PAUSE_S)
            else:
                return

    def _stop(self, code: str) -> None:
        if not self.dead:
            self.dead = code or "dead"
            self._died.set()
            STOPPED.set(1)
            log.critical("SMS account is dead, the sender stops", provider=self.provider.name, code=code)

    # --- after a crash ------------------------------------------------------------------------------------------------

    async def recover(self) -> int:
        """Takes over rows that were left `sending` and asks the provider about them. Returns how many."""
        claim_id = new_id()
        async with self.database.session() as session, session.begin():
            stale = await self._rows(session, _STALE, lease=LEASE_S)
            if not stale:
                return 0
            work = UnitOfWork(self.service, session, self.ring, stale[0].now)
            rows = await work.load(SmsRow, Sms, [row.id for row in stale])
            for sms in rows.values():
                sms.claim, sms.claimed_at = claim_id, stale[0].real_now
            work.update(SmsRow, rows.values(), "claim", "claimed_at")
            await work.write()
        log.warning("SMS were left in sending", count=len(rows))
        await self._mark_surely(claim_id, {sms_id: await self._look_up(sms_id) for sms_id in rows})
        return len(rows)

    async def _look_up(self, sms_id: UUID) -> Outcome:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                was_sent = await self.provider.was_sent(sms_id)
        except Exception as error:  # asked again after another lease
            log.warning("SMS not looked up", sms=str(sms_id), error=type(error).__name__)
            return Outcome("unclear")
        if was_sent is None:
            return Outcome("unknowable")
        return Outcome("sent" if was_sent else "not_taken")

    # --- house --------------------------------------------------------------------------------------------------------

    async def keep_house(self) -> int:
        """Drops notices whose contact never came in time, and purges what is old, a bounded number at a time."""
        parameters = {"rows": PURGE_ROWS, "codes_days": KEEP_CODES_DAYS, "sms_days": KEEP_SMS_DAYS}
        for statement in _HOUSEKEEPING:
            async with self.database.session() as session, session.begin():
                await (await session.connection()).execute(statement, parameters)
        return 0

    async def _rows(self, session: AsyncSession, statement: TextClause, **parameters: Any) -> list[Row[Any]]:
        result = await (await session.connection()).execute(statement, {"rows": SET_ROWS, **parameters})
        return list(result.all())


def make_provider(settings: Settings) -> Provider:
    """The provider that the settings name."""
    if settings.sms_provider == "console":
        return ConsoleProvider()
    return FileProvider(settings.sms_file)


async def send_sms(service: Service) -> None:
    """The background loop of the notify process."""
    provider = make_provider(service.settings)
    await Sender(service.name, service.database, service.ring, provider, service.relay.wake).run()


def _outgoing(ring: KeyRing, sms: Sms, work: UnitOfWork) -> Outgoing:
    """Raises AtRestError, KeyError when the row cannot be read or has no wording."""
    params = dict(sms.params)
    if sms.code is not None:
        params["code"] = decrypt_at_rest(ring, sms.code)
    phone = decrypt_at_rest(ring, sms.phone or "")
    return Outgoing(sms.id, phone, sms.purpose, params, wording(sms.purpose, params), work.now)


def _cause(sms: Sms, event: SmsSent, now: datetime) -> Message[SmsSent]:
    """The message that led to `sms`, as far as its correlation and trace go on from it; the rest stands for nothing."""
    return Message[SmsSent](
        id=sms.causationid,
        source="/yike/notify",
        type=event.TYPE,
        time=now,
        correlationid=sms.correlationid,
        traceparent=sms.traceparent,
        data=event,
    )


def _count(sms: Sms) -> None:
    if sms.finished_at is not None:
        ENDED.labels(sms.purpose, sms.state.value).inc()
