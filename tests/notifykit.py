"""notify on the real servers as its tests see it: a sender they drive by hand, and the events it tells of."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal
from uuid import UUID

import asyncpg
import pytest

from ops.provision import upgrade
from services.escrow.domain import gathered_number
from services.notify.domain import Lane
from services.notify.handlers import (
    handlers,
)
from services.notify.providers.file import FileProvider
from services.notify.sender import LEASE_S, Sender
from shared.actors import Actor
from shared.contracts.envelope import Data, Message, Problem
from shared.contracts.escrow import PayoutReturned, Settled, SettlementDelayed
from shared.contracts.notify import (
    CheckCode,
    Code,
    CodeSent,
    ContactNamed,
    NameContact,
    Phone,
    SendCode,
    SetContact,
)
from shared.contracts.orders import ContractDrawn, LessonApplied, LessonConfirmed, LessonObjected, LessonWaiting
from shared.database import Database
from shared.ids import new_id
from shared.messaging.rpc import RequestRefused
from shared.sealing import Sealed, seal
from shared.service import Service
from shared.working_days import next_waking_time, shanghai
from tests.harness import Harness

CHANCE = Random(new_id().int)
LESSON_TITLE = "国画启蒙"


@pytest.fixture(scope="module")
async def service(harness: Harness) -> AsyncIterator[Service]:
    """The service without its sender: each test sends when it wants to. The clock goes back to where it was."""
    offset = harness.offset
    await upgrade("notify", harness.dsns["notify"])
    async with harness.run(Service(handlers, harness.settings("notify"), ())) as running:
        yield running
    await harness.advance(offset - harness.offset)


@dataclass
class Desk:
    """A sender whose parts a test calls one by one, and what has left the house."""

    harness: Harness
    sender: Sender
    path: Path

    def lines(self, phone: str = "", purpose: str = "") -> list[dict[str, Any]]:
        found = [json.loads(line) for line in self.path.read_text().splitlines() if line] if self.path.exists() else []
        return [line for line in found if phone in line["phone"] and line["purpose"].startswith(purpose)]

    async def send(self) -> None:
        for lane in Lane:
            while await self.sender.send_due(lane):
                pass

    async def code_of(self, phone: str) -> str:
        """The code of the last SMS to `phone`."""
        await self.send()
        return str(re.findall(r"\d{6}", self.lines(phone, "code")[-1]["text"])[0])

    async def row(self, sms_id: UUID) -> asyncpg.Record:
        return (await self.harness.rows("notify", "SELECT * FROM sms WHERE id = $1", sms_id))[0]

    async def recover(self) -> int:
        """Takes over every claim, as old as one whose owner has died; how many."""
        await self.harness.rows(
            "notify",
            "UPDATE sms SET claimed_at = claimed_at - make_interval(secs => $1) WHERE state = 'sending'",
            LEASE_S + 1.0,
        )
        return await self.sender.recover()


@pytest.fixture
async def desk(harness: Harness, service: Service, tmp_path: Path) -> Desk:
    made = Desk(
        harness,
        Sender("notify", service.database, service.ring, FileProvider(tmp_path / "sms.jsonl"), service.relay.wake),
        tmp_path / "sms.jsonl",
    )
    # What other tests left is none of this one's business.
    await harness.rows(
        "notify",
        "UPDATE sms SET state = 'dropped', phone = NULL, code = NULL, claim = NULL, claimed_at = NULL "
        "WHERE state IN ('queued', 'sending')",
    )
    return made


@pytest.fixture
async def database(harness: Harness) -> AsyncIterator[Database]:
    made = Database(harness.dsns["notify"])
    yield made
    await made.close()


def new_phone() -> str:
    return f"137{CHANCE.randrange(10**8):08}"


def sealed(harness: Harness, phone: str) -> Sealed[Phone]:
    return seal(harness.ring("orders"), "notify", Phone(phone=phone))


def wish(harness: Harness, phone: str, *, sealed_to: str = "notify", **changes: Any) -> SendCode:
    inside = seal(harness.ring("orders"), sealed_to, Phone(phone=phone))
    return SendCode(**({"challenge_id": new_id(), "phone": inside} | changes))


def typed(harness: Harness, challenge_id: UUID, code: str) -> CheckCode:
    return CheckCode(challenge_id=challenge_id, code=seal(harness.ring("orders"), "notify", Code(code=code)))


def other(code: str) -> str:
    return f"{(int(code) + 1) % 10**6:06}"


async def sent_code(harness: Harness, desk: Desk) -> tuple[UUID, str, str]:
    """A challenge with its phone and its code."""
    phone = new_phone()
    answer: CodeSent = await harness.ask(wish(harness, phone))
    return answer.challenge_id, phone, await desk.code_of(phone)


async def problem(harness: Harness, request: Any) -> Problem:
    with pytest.raises(RequestRefused) as caught:
        await harness.ask(request)
    return caught.value.problem


async def wake(harness: Harness) -> None:
    """Moves the clock into the hours in which notices are sent, with hours to come."""
    now = harness.now()
    if next_waking_time(now) != now or next_waking_time(now + timedelta(hours=1)) != now + timedelta(hours=1):
        await harness.advance(next_waking_time(now + timedelta(hours=1)) - now + timedelta(minutes=1))


async def sleep(harness: Harness) -> None:
    """Moves the clock to 22:00 Shanghai."""
    local = shanghai(harness.now())
    evening = local.replace(hour=22, minute=0)
    await harness.advance((evening if evening > local else evening + timedelta(days=1)) - local)


async def told(harness: Harness, account_id: UUID) -> str:
    """An account with a contact; its phone."""
    phone = new_phone()
    await harness.publish(SetContact(account_id=account_id, phone=sealed(harness, phone)))
    await harness.until(
        lambda: harness.rows("notify", "SELECT 1 FROM contacts WHERE recipient_id = $1 AND phone <> ''", account_id)
    )
    return phone


async def named(harness: Harness, institution_id: UUID, phone: str = "") -> str:
    """An institution names a phone: that phone."""
    phone = phone or new_phone()
    request = NameContact(institution_id=institution_id, phone=sealed(harness, phone))
    answer = await harness.ask(request, Actor(str(institution_id), "institution"))
    assert answer == ContactNamed(institution_id=institution_id)
    return phone


async def notices(harness: Harness, account_id: UUID, count: int = 1) -> list[asyncpg.Record]:
    """The SMS rows of an account, once there are `count`."""

    async def look() -> list[asyncpg.Record]:
        rows = await harness.rows(
            "notify", "SELECT * FROM sms WHERE recipient = $1 ORDER BY created_at, id", str(account_id)
        )
        return rows if len(rows) >= count else []

    found: list[asyncpg.Record] = await harness.until(look)
    return found


def drawn(harness: Harness, account_id: UUID, **changes: Any) -> ContractDrawn:
    values: dict[str, Any] = {
        "order_id": new_id(),
        "account_id": account_id,
        "institution_id": new_id(),
        "title": LESSON_TITLE,
        "contract_sha256": "a" * 64,
        "sign_by": harness.now() + timedelta(minutes=15),
    }
    return ContractDrawn(**(values | changes))


def applied(harness: Harness, account_id: UUID, **changes: Any) -> LessonApplied:
    values: dict[str, Any] = {
        "order_id": new_id(),
        "account_id": account_id,
        "institution_id": new_id(),
        "lesson_no": 1,
        "title": LESSON_TITLE,
        "answer_by": harness.now() + timedelta(days=9),
    }
    return LessonApplied(**(values | changes))


def waiting(lesson: LessonApplied, reminder: Literal["third_day", "last_day"]) -> LessonWaiting:
    return LessonWaiting(**lesson.model_dump(), reminder=reminder)


def confirmed(lesson: LessonApplied, by: Literal["guardian", "silence", "authority"]) -> LessonConfirmed:
    return LessonConfirmed(**lesson.model_dump(exclude={"answer_by"}), by=by)


def objection(lesson: LessonApplied) -> LessonObjected:
    return LessonObjected(**lesson.model_dump(exclude={"answer_by", "title"}), reason="未上课")


def settled(lesson: LessonApplied) -> Settled:
    return Settled(
        order_id=lesson.order_id,
        account_id=lesson.account_id,
        institution_id=lesson.institution_id,
        lesson_no=lesson.lesson_no,
        amount_fen=10_000,
    )


def returned(institution_id: UUID, **changes: Any) -> PayoutReturned:
    values: dict[str, Any] = {"order_id": new_id(), "lesson_no": 1, "amount_fen": 10_000, "reason": "closed", "turn": 1}
    return PayoutReturned(institution_id=institution_id, **(values | changes))


def delayed(institution_id: UUID) -> SettlementDelayed:
    settlement_id = new_id()
    return SettlementDelayed(
        settlement_id=settlement_id,
        institution_id=institution_id,
        number=gathered_number(settlement_id, 0),
        amount_fen=20_000,
        outcome="returned",
        reason="closed",
    )


def enveloped(harness: Harness, data: Data) -> Message[Any]:
    message_id = new_id()
    return Message[Any](
        id=message_id,
        source="/yike/test",
        type=data.TYPE,
        time=harness.now(),
        correlationid=message_id,
        partitionkey=data.partition_key,
        replyto="gateway.test.replies.v1",
        data=data,
    )
