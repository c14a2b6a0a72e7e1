"""notify on the real servers: codes within limits, contacts, notices once, a sender that dies at the wrong moment."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import event

from ops.provision import upgrade
from services.escrow.domain import gathered_number
from services.notify import codes, sender, use_cases
from services.notify.app import BACKGROUND
from services.notify.domain import Lane
from services.notify.handlers import (
    handlers,
    on_lesson_applied,
    on_lesson_confirmed,
    on_lesson_waiting,
    on_settled,
)
from services.notify.providers import AccountDeadError, Outgoing, RejectedError, ThrottledError
from services.notify.providers.file import FileProvider
from services.notify.sender import LEASE_S, STOPPED, Sender, send_sms
from shared.actors import Actor, verify_proof
from shared.contracts.complaints import FilingMoved
from shared.contracts.envelope import Data, Message, Problem
from shared.contracts.errors import CODES
from shared.contracts.escrow import PayoutReturned, Refunded, Settled, SettlementDelayed
from shared.contracts.notify import (
    CheckCode,
    Code,
    CodeChecked,
    CodeSent,
    ContactNamed,
    NameContact,
    Phone,
    SendCode,
    SetContact,
    SmsSent,
)
from shared.contracts.orders import ContractDrawn, LessonApplied, LessonConfirmed, LessonObjected, LessonWaiting
from shared.database import Database
from shared.ids import new_id
from shared.messaging.rpc import RequestRefused
from shared.messaging.work import UnitOfWork
from shared.sealing import Sealed, seal, unseal
from shared.service import Service
from shared.working_days import next_waking_time, shanghai
from tests.harness import Harness, is_problem

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

    async def age_claims(self) -> None:
        """Makes every claim as old as one whose owner has died."""
        await self.harness.rows(
            "notify",
            "UPDATE sms SET claimed_at = claimed_at - make_interval(secs => $1) WHERE state = 'sending'",
            LEASE_S + 1.0,
        )


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


# --- codes ------------------------------------------------------------------------------------------------------------


class TestSendCode:
    async def test_a_code_reaches_the_phone_and_the_answer_says_only_when(self, harness: Harness, desk: Desk) -> None:
        phone = new_phone()
        request = wish(harness, f" +86 {phone} ")
        answer: CodeSent = await harness.ask(request)
        assert answer.challenge_id == request.challenge_id
        assert answer.expires_at - answer.resend_after == timedelta(seconds=240)
        assert set(answer.model_dump()) == {"challenge_id", "expires_at", "resend_after"}
        code = await desk.code_of(phone)
        assert [line["phone"] for line in desk.lines(phone)] == [f"+86{phone}"]
        sent = await harness.expect(SmsSent, desk.lines(phone)[0]["sms_id"])
        assert (sent.purpose, sent.provider) == ("code.sign_in", "file")
        assert code not in str(harness.recorded)
        assert phone not in str(harness.recorded)

    async def test_it_goes_out_at_night_too(self, harness: Harness, desk: Desk) -> None:
        await sleep(harness)
        phone = new_phone()
        await harness.ask(wish(harness, phone))
        assert await desk.code_of(phone)

    async def test_phone_and_code_stand_nowhere_in_clear(self, harness: Harness, desk: Desk) -> None:
        challenge_id, phone, code = await sent_code(harness, desk)
        content = str(await harness.content("notify"))
        assert phone not in content
        assert not re.search(rf"(?<![0-9a-f]){code}(?![0-9a-f])", content)
        rows = await harness.rows("notify", "SELECT * FROM sms WHERE subject = $1", str(challenge_id))
        assert (rows[0]["state"], rows[0]["phone"], rows[0]["code"]) == ("sent", None, None)

    async def test_whether_the_phone_has_an_account_makes_no_difference(self, harness: Harness, desk: Desk) -> None:
        phone = await told(harness, new_id())
        answers = [await harness.ask(wish(harness, number)) for number in (phone, new_phone())]
        assert {tuple(answer.model_dump()) for answer in answers} == {("challenge_id", "expires_at", "resend_after")}

    async def test_a_challenge_asked_for_again_gets_its_answer_and_no_second_sms(
        self, harness: Harness, desk: Desk
    ) -> None:
        phone = new_phone()
        request = wish(harness, phone)
        first = await harness.ask(request)
        again = await harness.ask(wish(harness, phone, challenge_id=request.challenge_id))
        assert again == first
        await desk.send()
        assert len(desk.lines(phone)) == 1

    async def test_a_challenge_is_of_one_phone(self, harness: Harness, desk: Desk) -> None:
        request = wish(harness, new_phone())
        await harness.ask(request)
        before = await harness.content("notify")
        taken = wish(harness, new_phone(), challenge_id=request.challenge_id)
        assert await harness.refusal(taken) == "idempotency_conflict"
        assert await harness.content("notify") == before

    async def test_what_is_sealed_to_another_is_refused(self, harness: Harness, desk: Desk) -> None:
        before = await harness.content("notify")
        assert await harness.refusal(wish(harness, new_phone(), sealed_to="escrow")) == "sealed_unreadable"
        assert await harness.content("notify") == before

    @pytest.mark.parametrize("number", ["12345678901", "1391234567", "hello"])
    async def test_what_is_no_mobile_number_is_refused(self, harness: Harness, desk: Desk, number: str) -> None:
        before = await harness.content("notify")
        assert await harness.refusal(wish(harness, number)) == "phone_invalid"
        assert await harness.content("notify") == before

    async def test_the_next_code_waits_a_minute(self, harness: Harness, desk: Desk) -> None:
        phone = new_phone()
        await harness.ask(wish(harness, phone))
        before = await harness.content("notify")
        refused = await problem(harness, wish(harness, f"0086{phone}"))
        assert (refused.code, refused.retryable) == ("code_too_soon", True)
        assert 50 <= int(refused.figures["retry_after_s"]) <= 60
        assert await harness.content("notify") == before
        await harness.advance(timedelta(seconds=61))
        await harness.ask(wish(harness, phone))

    @pytest.mark.parametrize("where", [{"device": "phone-of-somebody"}, {"ip": "203.0.113.9"}, {"ip": "2001:db8::1"}])
    async def test_a_device_and_an_address_are_counted_whatever_the_phone(
        self, harness: Harness, desk: Desk, where: dict[str, str]
    ) -> None:
        await harness.ask(wish(harness, new_phone(), **where))
        before = await harness.content("notify")
        assert await harness.refusal(wish(harness, new_phone(), **where)) == "code_too_soon"
        assert await harness.content("notify") == before

    async def test_five_an_hour_and_ten_a_day(self, harness: Harness, desk: Desk) -> None:
        phone = new_phone()
        for _ in range(2):
            for _ in range(5):
                await harness.ask(wish(harness, phone))
                await harness.advance(timedelta(seconds=61))
            before = await harness.content("notify")
            refused = await problem(harness, wish(harness, phone))
            assert refused.code == "code_quota"
            assert await harness.content("notify") == before
            await harness.advance(timedelta(hours=1))
        refused = await problem(harness, wish(harness, phone))
        assert refused.code == "code_quota"
        assert 3600 * 20 < int(refused.figures["retry_after_s"]) < 3600 * 24
        await harness.advance(timedelta(hours=24))
        await harness.ask(wish(harness, phone))

    async def test_of_two_wishes_at_once_in_two_copies_one_is_too_soon(
        self, harness: Harness, desk: Desk, database: Database
    ) -> None:
        phones = [new_phone() for _ in range(6)]

        async def copy(number: int) -> list[str]:
            """One batch for all phones, in its own order, in a transaction of its own."""
            order = phones if number % 2 else phones[::-1]
            async with database.session() as session, session.begin():
                work = UnitOfWork("notify", session, harness.ring("notify"), harness.now())
                await codes.send_codes(work, [enveloped(harness, wish(harness, phone)) for phone in order])
                await work.write()
                await asyncio.sleep(0.05)
                bodies = [json.loads(row.body) for row in work.outbox]
                return [str(body["data"].get("code", body["type"])) for body in bodies]

        answers = [answer for found in await asyncio.gather(*(copy(n) for n in range(4))) for answer in found]
        assert sorted(answers) == ["code_too_soon"] * 18 + ["notify.code.sent.v1"] * 6


class TestCheckCode:
    async def test_the_right_code_gives_a_proof_that_only_orders_can_read(self, harness: Harness, desk: Desk) -> None:
        challenge_id, phone, code = await sent_code(harness, desk)
        answer: CodeChecked = await harness.ask(typed(harness, challenge_id, f" {code} "))
        orders = harness.ring("orders")
        claims = verify_proof(orders, answer.proof, issuer="notify", now=harness.now())
        assert claims["challenge_id"] == str(challenge_id)
        found = unseal(orders, Sealed[Phone].model_validate({"jwe": claims["phone"]}), Phone)
        assert found.phone == f"+86{phone}"
        assert phone not in answer.proof

    async def test_a_code_is_good_once(self, harness: Harness, desk: Desk) -> None:
        challenge_id, _, code = await sent_code(harness, desk)
        await harness.ask(typed(harness, challenge_id, code))
        before = await harness.content("notify")
        assert await harness.refusal(typed(harness, challenge_id, code)) == "code_wrong"
        assert await harness.content("notify") == before

    async def test_a_repeated_message_gets_the_same_proof(self, harness: Harness, desk: Desk) -> None:
        challenge_id, _, code = await sent_code(harness, desk)
        request, message_id = typed(harness, challenge_id, code), new_id()
        first = await harness.ask(request, message_id=message_id)
        assert await harness.ask(request, message_id=message_id) == first

    async def test_a_wrong_try_is_counted_though_it_is_refused(self, harness: Harness, desk: Desk) -> None:
        challenge_id, _, code = await sent_code(harness, desk)
        before = await harness.content("notify")
        assert await harness.refusal(typed(harness, challenge_id, other(code))) == "code_wrong"
        rows = await harness.rows("notify", "SELECT tries FROM challenges WHERE challenge_id = $1", challenge_id)
        assert rows[0]["tries"] == 1
        after = await harness.content("notify")
        assert {name: rows for name, rows in after.items() if name != "challenges"} == {
            name: rows for name, rows in before.items() if name != "challenges"
        }
        await harness.ask(typed(harness, challenge_id, code))

    async def test_five_wrong_tries_kill_it(self, harness: Harness, desk: Desk) -> None:
        challenge_id, _, code = await sent_code(harness, desk)
        for _ in range(5):
            assert await harness.refusal(typed(harness, challenge_id, other(code))) == "code_wrong"
        before = await harness.content("notify")
        assert await harness.refusal(typed(harness, challenge_id, code)) == "code_wrong"
        assert await harness.content("notify") == before

    async def test_five_wrong_tries_at_once_kill_it_too(self, harness: Harness, desk: Desk) -> None:
        challenge_id, _, code = await sent_code(harness, desk)
        tries = [harness.refusal(typed(harness, challenge_id, other(code))) for _ in range(8)]
        assert set(await asyncio.gather(*tries)) == {"code_wrong"}
        rows = await harness.rows("notify", "SELECT tries, state FROM challenges WHERE challenge_id = $1", challenge_id)
        assert (rows[0]["tries"], rows[0]["state"]) == (5, "killed")

    async def test_an_old_code_is_wrong(self, harness: Harness, desk: Desk) -> None:
        challenge_id, _, code = await sent_code(harness, desk)
        await harness.advance(timedelta(seconds=301))
        before = await harness.content("notify")
        assert await harness.refusal(typed(harness, challenge_id, code)) == "code_wrong"
        assert await harness.content("notify") == before

    async def test_a_challenge_that_never_was_looks_like_a_wrong_code(self, harness: Harness, desk: Desk) -> None:
        challenge_id, _, code = await sent_code(harness, desk)
        wrong = await problem(harness, typed(harness, challenge_id, other(code)))
        before = await harness.content("notify")
        unknown = await problem(harness, typed(harness, new_id(), code))
        assert unknown == wrong
        assert unknown.title == CODES["code_wrong"].title_zh
        assert await harness.content("notify") == before

    async def test_a_code_is_of_its_own_challenge(self, harness: Harness, desk: Desk) -> None:
        one, _, _ = await sent_code(harness, desk)
        _, _, code = await sent_code(harness, desk)
        assert await harness.refusal(typed(harness, one, code)) == "code_wrong"

    async def test_what_is_sealed_to_another_is_refused_and_no_try(self, harness: Harness, desk: Desk) -> None:
        challenge_id, _, code = await sent_code(harness, desk)
        before = await harness.content("notify")
        wrong = seal(harness.ring("orders"), "escrow", Code(code=code))
        assert await harness.refusal(CheckCode(challenge_id=challenge_id, code=wrong)) == "sealed_unreadable"
        assert await harness.content("notify") == before


# --- contacts and notices ---------------------------------------------------------------------------------------------


class TestContacts:
    async def test_the_same_phone_again_changes_nothing(self, harness: Harness, desk: Desk) -> None:
        account_id = new_id()
        phone = await told(harness, account_id)
        before = await harness.content("notify")
        again = await harness.publish(SetContact(account_id=account_id, phone=sealed(harness, f"+86 {phone}")))
        await harness.until(lambda: harness.rows("notify", "SELECT 1 FROM inbox WHERE message_id = $1", again))
        after = await harness.content("notify")
        assert after["contacts"] == before["contacts"]

    @pytest.mark.parametrize(
        ("phone", "service_name", "code"), [("123", "notify", "phone_invalid"), ("", "escrow", "sealed_unreadable")]
    )
    async def test_a_contact_that_is_none_is_refused(
        self, harness: Harness, desk: Desk, phone: str, service_name: str, code: str
    ) -> None:
        before = await harness.content("notify")
        told_wrongly = seal(harness.ring("orders"), service_name, Phone(phone=phone or new_phone()))
        answer = await harness.command(SetContact(account_id=new_id(), phone=told_wrongly))
        assert is_problem(answer, code)
        assert await harness.content("notify") == before

    async def test_a_notice_waits_for_its_contact(self, harness: Harness, desk: Desk) -> None:
        await wake(harness)
        account_id = new_id()
        await harness.publish(drawn(harness, account_id))
        [row] = await notices(harness, account_id)
        assert (row["state"], row["phone"]) == ("no_contact", None)
        phone = await told(harness, account_id)
        await desk.send()
        assert len(desk.lines(phone, "contract.waiting")) == 1

    async def test_what_is_queued_follows_a_new_phone(self, harness: Harness, desk: Desk) -> None:
        await sleep(harness)
        account_id = new_id()
        old = await told(harness, account_id)
        await harness.publish(applied(harness, account_id))
        await notices(harness, account_id)
        new = new_phone()
        sql = "SELECT changed_at FROM contacts WHERE recipient_id = $1"
        first = (await harness.rows("notify", sql, account_id))[0][0]
        await harness.publish(SetContact(account_id=account_id, phone=sealed(harness, new)))

        async def changed() -> bool:
            return bool((await harness.rows("notify", sql, account_id))[0][0] > first)

        await harness.until(changed)
        await wake(harness)
        await desk.send()
        assert (len(desk.lines(old)), len(desk.lines(new))) == (0, 1)

    async def test_a_contact_set_in_the_same_moment_misses_no_notice(
        self, harness: Harness, desk: Desk, database: Database
    ) -> None:
        account_id, phone = new_id(), new_phone()
        written, go_on = asyncio.Event(), asyncio.Event()

        async def hear() -> None:
            async with database.session() as session, session.begin():
                work = UnitOfWork("notify", session, harness.ring("notify"), harness.now())
                await on_lesson_applied(work, [enveloped(harness, applied(harness, account_id))])
                await work.write()
                written.set()
                await go_on.wait()

        async def tell() -> None:
            await written.wait()
            async with database.session() as session, session.begin():
                work = UnitOfWork("notify", session, harness.ring("notify"), harness.now())
                command = SetContact(account_id=account_id, phone=sealed(harness, phone))
                await use_cases.set_contacts(work, [enveloped(harness, command)])

        tasks = [asyncio.create_task(hear()), asyncio.create_task(tell())]
        _, waiting = await asyncio.wait(tasks, timeout=0.5)
        assert len(waiting) == 2  # the contact waits for the notice's commit
        go_on.set()
        await asyncio.gather(*tasks)
        [row] = await notices(harness, account_id)
        assert row["state"] == "queued"


class TestNotices:
    async def test_each_event_is_told_once_however_often_it_comes(self, harness: Harness, desk: Desk) -> None:
        await wake(harness)
        account_id = new_id()
        phone = await told(harness, account_id)
        lesson = applied(harness, account_id)
        refunded = Refunded(order_id=lesson.order_id, account_id=account_id, amount_fen=500)
        filing = FilingMoved(
            filing_id=new_id(),
            number="TS1",
            kind="complaint",
            account_id=account_id,
            order_id=None,
            state="accepted",
            department="常州市教育局",
            hotline="0519-85681357",
        )
        for _ in range(2):
            for happened in (drawn(harness, account_id, order_id=lesson.order_id), lesson, refunded, filing):
                await harness.publish(happened)
        await notices(harness, account_id, 4)
        await desk.send()
        await harness.publish(settled(lesson))
        await harness.publish(filing.model_copy(update={"state": "mediated"}))
        await notices(harness, account_id, 6)
        await desk.send()
        await harness.publish(lesson)
        await harness.publish(drawn(harness, account_id))
        await notices(harness, account_id, 7)
        await desk.send()
        assert sorted(line["purpose"] for line in desk.lines(phone)) == [
            "complaint.moved",
            "complaint.moved",
            "contract.waiting",
            "contract.waiting",
            "lesson.settled",
            "lesson.waiting",
            "order.refunded",
        ]

    async def test_an_anonymous_report_tells_nobody(self, harness: Harness, desk: Desk) -> None:
        before = (await harness.content("notify"))["sms"]
        await harness.publish(
            FilingMoved(
                filing_id=new_id(),
                number="JB1",
                kind="report",
                account_id=None,
                order_id=None,
                state="submitted",
                department="d",
                hotline="1",
            )
        )
        account_id = new_id()
        await harness.publish(Refunded(order_id=new_id(), account_id=account_id, amount_fen=5))
        await notices(harness, account_id)
        await told(harness, new_id())
        after = (await harness.content("notify"))["sms"]
        assert len(after) == len(before) + 1

    async def test_nobody_is_woken(self, harness: Harness, desk: Desk) -> None:
        await sleep(harness)
        account_id = new_id()
        phone = await told(harness, account_id)
        await harness.publish(applied(harness, account_id))
        [row] = await notices(harness, account_id)
        assert shanghai(row["not_before"]).strftime("%H:%M") == "08:00"
        await desk.send()
        assert desk.lines(phone) == []
        await harness.advance(timedelta(hours=10, minutes=1))
        await desk.send()
        assert len(desk.lines(phone)) == 1

    async def test_what_is_late_because_the_sender_stood_still_wakes_nobody_either(
        self, harness: Harness, desk: Desk
    ) -> None:
        await wake(harness)
        account_id = new_id()
        phone = await told(harness, account_id)
        await harness.publish(applied(harness, account_id))
        await notices(harness, account_id)
        await sleep(harness)
        await desk.send()
        assert desk.lines(phone) == []

    async def test_a_contract_that_has_to_be_signed_tonight_is_not_announced_tomorrow(
        self, harness: Harness, desk: Desk
    ) -> None:
        await sleep(harness)
        account_id = new_id()
        await told(harness, account_id)
        await harness.publish(drawn(harness, account_id))
        [row] = await notices(harness, account_id)
        assert (row["state"], row["reason"]) == ("dropped", "late")

    async def test_a_lesson_that_waits_is_told_of_three_times_and_its_silence_once(
        self, harness: Harness, desk: Desk
    ) -> None:
        await wake(harness)
        account_id = new_id()
        phone = await told(harness, account_id)
        lesson = applied(harness, account_id)
        happened = (lesson, waiting(lesson, "third_day"), waiting(lesson, "last_day"), confirmed(lesson, "silence"))
        for count, event_ in enumerate(happened, 1):
            for _ in range(2):
                await harness.publish(event_)
            await notices(harness, account_id, count)
            await desk.send()
        await harness.publish(settled(lesson))
        await notices(harness, account_id, 5)
        await desk.send()
        assert [line["purpose"] for line in desk.lines(phone)] == [
            "lesson.waiting",
            "lesson.waiting.third",
            "lesson.waiting.last",
            "lesson.auto_confirmed",
            "lesson.settled",
        ]

    @pytest.mark.parametrize("answer", ["objected", "confirmed"])
    @pytest.mark.parametrize("reminder", ["third_day", "last_day"])
    async def test_a_reminder_that_was_not_sent_yet_is_dropped_with_the_answer(
        self, harness: Harness, desk: Desk, answer: str, reminder: Literal["third_day", "last_day"]
    ) -> None:
        await sleep(harness)
        account_id = new_id()
        await told(harness, account_id)
        lesson, other = applied(harness, account_id), applied(harness, account_id)
        for event_ in (waiting(lesson, reminder), waiting(other, reminder)):
            await harness.publish(event_)
        await notices(harness, account_id, 2)
        await harness.publish(objection(lesson) if answer == "objected" else confirmed(lesson, "guardian"))

        async def dropped() -> bool:
            rows = await notices(harness, account_id, 2)
            return {(row["subject"], row["state"], row["reason"]) for row in rows} == {
                (f"{lesson.order_id}/1", "dropped", "answered"),
                (f"{other.order_id}/1", "queued", ""),
            }

        await harness.until(dropped)

    async def test_of_reminders_that_a_sender_has_left_for_days_the_last_is_sent(
        self, harness: Harness, desk: Desk
    ) -> None:
        await wake(harness)
        account_id = new_id()
        phone = await told(harness, account_id)
        lesson = applied(harness, account_id)
        for count, event_ in enumerate((lesson, waiting(lesson, "third_day"), waiting(lesson, "last_day")), 1):
            await harness.publish(event_)
            await notices(harness, account_id, count)
        await desk.send()
        assert [line["purpose"] for line in desk.lines(phone)] == ["lesson.waiting.last"]
        states = [(row["state"], row["reason"]) for row in await notices(harness, account_id, 3)]
        assert states == [("dropped", "overtaken"), ("dropped", "overtaken"), ("sent", "")]

    @pytest.mark.parametrize("answer", ["objected", "confirmed", "settled"])
    async def test_a_lesson_answered_at_night_is_not_said_to_wait_in_the_morning(
        self, harness: Harness, desk: Desk, answer: str
    ) -> None:
        await sleep(harness)
        account_id = new_id()
        await told(harness, account_id)
        lesson = applied(harness, account_id)
        await harness.publish(lesson)
        await notices(harness, account_id)
        answers = {
            "objected": objection(lesson),
            "confirmed": confirmed(lesson, "guardian"),
            "settled": settled(lesson),
        }
        await harness.publish(answers[answer])
        sql = "SELECT 1 FROM sms WHERE recipient = $1 AND purpose = 'lesson.waiting' AND reason = 'answered'"
        await harness.until(lambda: harness.rows("notify", sql, str(account_id)))

    @pytest.mark.parametrize("contacts_known", [True, False])
    @pytest.mark.parametrize(
        ("hear", "event_of"),
        [
            (on_settled, settled),
            (on_lesson_waiting, lambda lesson: waiting(lesson, "last_day")),
            (on_lesson_confirmed, lambda lesson: confirmed(lesson, "silence")),
        ],
    )
    async def test_a_batch_of_events_costs_few_statements(
        self,
        harness: Harness,
        desk: Desk,
        database: Database,
        hear: Callable[..., Awaitable[None]],
        event_of: Callable[[LessonApplied], Data],
        contacts_known: bool,
    ) -> None:
        accounts = [new_id() for _ in range(100)]
        async with database.session() as session, session.begin():
            work = UnitOfWork("notify", session, harness.ring("notify"), harness.now())
            if contacts_known:
                commands = [SetContact(account_id=a, phone=sealed(harness, new_phone())) for a in accounts]
                await use_cases.set_contacts(work, [enveloped(harness, command) for command in commands])
            statements: list[str] = []
            listener: Callable[..., None] = lambda *args: statements.append(args[2])  # noqa: E731
            event.listen(database.engine.sync_engine, "before_cursor_execute", listener)
            await hear(work, [enveloped(harness, event_of(applied(harness, a))) for a in accounts])
            await work.write()
            event.remove(database.engine.sync_engine, "before_cursor_execute", listener)
        assert len(statements) == (3 if contacts_known else 4)


class TestReturns:
    """What the bank gave back is told to the institution."""

    async def test_a_payout_that_came_back_is_told_once_each_time(self, harness: Harness, desk: Desk) -> None:
        await wake(harness)
        institution_id = new_id()
        phone = await named(harness, institution_id)
        first = returned(institution_id)
        other = returned(institution_id, order_id=first.order_id, lesson_no=2)
        for event_ in (first, first, other, first.model_copy(update={"turn": 2}), first):
            await harness.publish(event_)
        await harness.publish(returned(institution_id, order_id=first.order_id, lesson_no=0))
        await notices(harness, institution_id, 4)
        await desk.send()
        assert sorted(row["subject"] for row in await notices(harness, institution_id, 4)) == [
            f"{first.order_id}/{which}" for which in ("0/1", "1/1", "1/2", "2/1")
        ]
        assert [line["purpose"] for line in desk.lines(phone)] == ["payout.returned"] * 4

    async def test_a_sum_that_came_back_is_told_once_and_its_lessons_are_not(
        self, harness: Harness, desk: Desk
    ) -> None:
        await wake(harness)
        institution_id = new_id()
        phone = await named(harness, institution_id)
        back = delayed(institution_id)
        order_id = new_id()
        for lesson_no in (1, 2):
            of_sum = {"order_id": order_id, "lesson_no": lesson_no, "settlement_id": back.settlement_id}
            await harness.publish(returned(institution_id, **of_sum))
        for event_ in (back.model_copy(update={"outcome": "refused"}), back, back):
            await harness.publish(event_)
        # The last of both topics' partitions: what came before has been heard.
        await harness.publish(returned(institution_id, order_id=order_id, lesson_no=3))
        await harness.publish(back.model_copy(update={"number": f"{back.number[:-1]}1"}))
        rows = await notices(harness, institution_id, 3)
        await desk.send()
        assert sorted(row["purpose"] for row in rows) == ["payout.returned", *["settlement.returned"] * 2]
        assert sorted(line["purpose"] for line in desk.lines(phone)) == sorted(row["purpose"] for row in rows)

    async def test_who_has_named_no_phone_is_not_told_until_he_does(self, harness: Harness, desk: Desk) -> None:
        await wake(harness)
        institution_id = new_id()
        await harness.publish(returned(institution_id))
        [row] = await notices(harness, institution_id)
        assert (row["state"], row["phone"]) == ("no_contact", None)
        await desk.send()
        assert desk.lines() == []
        phone = await named(harness, institution_id)
        await desk.send()
        assert len(desk.lines(phone)) == 1

    async def test_it_waits_for_the_morning_and_goes_to_the_phone_named_last(
        self, harness: Harness, desk: Desk
    ) -> None:
        await sleep(harness)
        institution_id = new_id()
        old = await named(harness, institution_id)
        await harness.publish(returned(institution_id))
        await notices(harness, institution_id)
        await desk.send()
        new = await named(harness, institution_id)
        assert desk.lines() == []
        await wake(harness)
        await desk.send()
        assert (len(desk.lines(old)), len(desk.lines(new))) == (0, 1)

    async def test_the_same_phone_named_again_changes_nothing(self, harness: Harness, desk: Desk) -> None:
        institution_id = new_id()
        phone = await named(harness, institution_id)
        before = await harness.content("notify")
        await named(harness, institution_id, f"+86 {phone}")
        assert await harness.content("notify") == before
        assert phone not in str(before)

    async def test_nobody_names_the_phone_of_another(self, harness: Harness, desk: Desk) -> None:
        institution_id = new_id()
        phone = await named(harness, institution_id)
        before = await harness.content("notify")
        request = NameContact(institution_id=institution_id, phone=sealed(harness, new_phone()))
        strangers = [
            Actor(str(new_id()), "institution"),
            Actor(str(institution_id), "guardian"),
            Actor("district-1", "authority"),
            Actor("operator-1", "operator"),
        ]
        for actor in strangers:
            assert await harness.refusal(request, actor) == "actor_forbidden"
        assert await harness.refusal(request) == "actor_unauthenticated"
        assert await harness.content("notify") == before
        assert phone not in str(before)

    @pytest.mark.parametrize(
        ("phone", "service_name", "code"), [("123", "notify", "phone_invalid"), ("", "escrow", "sealed_unreadable")]
    )
    async def test_a_phone_that_is_none_is_refused(
        self, harness: Harness, desk: Desk, phone: str, service_name: str, code: str
    ) -> None:
        institution_id = new_id()
        before = await harness.content("notify")
        inside = seal(harness.ring("orders"), service_name, Phone(phone=phone or new_phone()))
        request = NameContact(institution_id=institution_id, phone=inside)
        assert await harness.refusal(request, Actor(str(institution_id), "institution")) == code
        assert await harness.content("notify") == before


# --- the sender -------------------------------------------------------------------------------------------------------


class Choosy(FileProvider):
    """A file whose first answers a test has chosen: an error to raise before or after writing, or None to take it."""

    def __init__(self, path: Path, *answers: Exception | None, after: bool = False, knows: bool = True) -> None:
        super().__init__(path)
        self.answers = list(answers)
        self.after = after
        self.knows = knows

    async def send(self, sms: Outgoing) -> None:
        answer = self.answers.pop(0) if self.answers else None
        if answer is None or self.after:
            await super().send(sms)
        if answer is not None:
            raise answer

    async def was_sent(self, sms_id: UUID) -> bool | None:  # type: ignore[override]
        return await super().was_sent(sms_id) if self.knows else None


async def queued_code(harness: Harness) -> tuple[UUID, str]:
    """A queued SMS with a code: its id, its phone."""
    phone = new_phone()
    request = wish(harness, phone)
    await harness.ask(request)
    rows = await harness.rows("notify", "SELECT id FROM sms WHERE subject = $1", str(request.challenge_id))
    return rows[0]["id"], phone


class TestSender:
    async def test_one_that_dies_after_the_call_leaves_one_line(self, harness: Harness, desk: Desk) -> None:
        sms_id, phone = await queued_code(harness)
        claimed = await desk.sender.claim(Lane.CODE)
        assert claimed is not None
        assert (await desk.row(sms_id))["state"] == "sending"
        await desk.sender.deliver(claimed)
        # Here it dies: nothing is marked. The row is nobody else's before the lease is over.
        await desk.send()
        assert await desk.sender.recover() == 0
        await desk.age_claims()
        assert await desk.sender.recover() == 1
        await desk.send()
        assert len(desk.lines(phone)) == 1
        assert (await desk.row(sms_id))["state"] == "sent"
        await harness.expect(SmsSent, sms_id)
        await harness.expect_recorded()
        assert len(harness.seen(SmsSent, sms_id)) == 1

    async def test_one_that_dies_before_the_call_leaves_one_line_too(self, harness: Harness, desk: Desk) -> None:
        sms_id, phone = await queued_code(harness)
        assert await desk.sender.claim(Lane.CODE) is not None
        await desk.age_claims()
        assert await desk.sender.recover() == 1
        assert (await desk.row(sms_id))["state"] == "queued"
        assert desk.lines(phone) == []
        await desk.send()
        assert len(desk.lines(phone)) == 1

    async def test_one_that_was_thought_dead_marks_nothing_that_is_not_its_own(
        self, harness: Harness, desk: Desk
    ) -> None:
        sms_id, phone = await queued_code(harness)
        claimed = await desk.sender.claim(Lane.CODE)
        assert claimed is not None
        outcomes = await desk.sender.deliver(claimed)
        await desk.age_claims()
        await desk.sender.recover()
        before = await harness.content("notify")
        await desk.sender.mark(claimed.id, outcomes)
        assert await harness.content("notify") == before
        assert len(harness.seen(SmsSent, sms_id)) <= 1
        assert len(desk.lines(phone)) == 1

    async def test_one_that_was_slow_does_not_call_any_more(
        self, harness: Harness, desk: Desk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sms_id, phone = await queued_code(harness)
        monkeypatch.setattr(sender, "LAST_CALL_S", -1.0)
        await desk.sender.send_due(Lane.CODE)
        assert desk.lines(phone) == []
        assert (await desk.row(sms_id))["state"] == "queued"

    async def test_what_a_provider_cannot_tell_is_unknown_and_not_sent_again(
        self, harness: Harness, desk: Desk
    ) -> None:
        desk.sender.provider = Choosy(desk.path, ConnectionResetError(), after=True, knows=False)
        sms_id, phone = await queued_code(harness)
        await desk.sender.send_due(Lane.CODE)
        assert (await desk.row(sms_id))["state"] == "sending"
        await desk.age_claims()
        await desk.sender.recover()
        await desk.send()
        row = await desk.row(sms_id)
        assert (row["state"], row["phone"], row["code"]) == ("unknown", None, None)
        assert len(desk.lines(phone)) == 1

    @pytest.mark.parametrize("after", [True, False])
    async def test_a_broken_call_is_looked_up(self, harness: Harness, desk: Desk, after: bool) -> None:
        desk.sender.provider = Choosy(desk.path, TimeoutError(), after=after)
        sms_id, phone = await queued_code(harness)
        await desk.sender.send_due(Lane.CODE)
        assert (await desk.row(sms_id))["state"] == "sending"
        await desk.age_claims()
        await desk.sender.recover()
        await desk.send()
        assert len(desk.lines(phone)) == 1
        assert (await desk.row(sms_id))["state"] == "sent"

    async def test_a_throttled_sms_comes_later(self, harness: Harness, desk: Desk) -> None:
        desk.sender.provider = Choosy(desk.path, ThrottledError("isv.BUSINESS_LIMIT_CONTROL"))
        sms_id, phone = await queued_code(harness)
        await desk.send()
        row = await desk.row(sms_id)
        assert (row["state"], row["reason"], row["tries"]) == ("queued", "isv.BUSINESS_LIMIT_CONTROL", 1)
        await harness.advance(timedelta(seconds=6))
        await desk.send()
        assert len(desk.lines(phone)) == 1

    async def test_a_rejected_sms_is_over(self, harness: Harness, desk: Desk) -> None:
        desk.sender.provider = Choosy(desk.path, RejectedError("isv.MOBILE_NUMBER_ILLEGAL"))
        sms_id, phone = await queued_code(harness)
        await desk.send()
        row = await desk.row(sms_id)
        assert (row["state"], row["reason"], row["phone"]) == ("failed", "isv.MOBILE_NUMBER_ILLEGAL", None)
        assert desk.lines(phone) == []

    async def test_a_dead_account_stops_the_sender_and_loses_nothing(self, harness: Harness, desk: Desk) -> None:
        desk.sender.provider = Choosy(desk.path, AccountDeadError("isv.AMOUNT_NOT_ENOUGH"))
        sms_id, phone = await queued_code(harness)
        await asyncio.wait_for(desk.sender.run(), 10)
        assert desk.sender.dead == "isv.AMOUNT_NOT_ENOUGH"
        assert STOPPED._value.get() == 1
        assert (await desk.row(sms_id))["state"] == "queued"
        desk.sender.dead = ""
        await desk.send()
        assert len(desk.lines(phone)) == 1

    async def test_one_that_is_told_to_stop_marks_the_calls_it_has_in_hand(self, harness: Harness, desk: Desk) -> None:
        called = asyncio.Event()

        class Slow(FileProvider):
            async def send(self, sms: Outgoing) -> None:
                called.set()
                await asyncio.sleep(0.3)
                await super().send(sms)

        desk.sender.provider = Slow(desk.path)
        sms_id, phone = await queued_code(harness)
        running = asyncio.create_task(desk.sender.run())
        await called.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert ((await desk.row(sms_id))["state"], len(desk.lines(phone))) == ("sent", 1)

    async def test_a_code_that_could_not_be_sent_in_time_is_dropped(self, harness: Harness, desk: Desk) -> None:
        sms_id, phone = await queued_code(harness)
        await harness.advance(timedelta(seconds=301))
        await desk.send()
        row = await desk.row(sms_id)
        assert (row["state"], row["reason"], row["code"]) == ("dropped", "late", None)
        assert desk.lines(phone) == []

    async def test_several_senders_share_the_queue_and_send_each_once(self, harness: Harness, desk: Desk) -> None:
        wishes = [queued_code(harness) for _ in range(30)]
        phones = [phone for _, phone in await asyncio.gather(*wishes)]
        await asyncio.gather(*(desk.sender.send_due(Lane.CODE) for _ in range(4)))
        assert sorted(line["phone"] for line in desk.lines()) == sorted(f"+86{phone}" for phone in phones)

    async def test_a_row_that_cannot_be_read_stops_nobody(self, harness: Harness, desk: Desk) -> None:
        broken, _ = await queued_code(harness)
        _, phone = await queued_code(harness)
        await harness.rows("notify", "UPDATE sms SET code = 'x' WHERE id = $1", broken)
        await desk.send()
        assert ((await desk.row(broken))["state"], len(desk.lines(phone))) == ("failed", 1)

    async def test_a_notice_whose_contact_never_comes_is_dropped_in_the_end(self, harness: Harness, desk: Desk) -> None:
        account_id = new_id()
        await harness.publish(applied(harness, account_id))
        await notices(harness, account_id)
        await harness.advance(timedelta(days=10))
        await desk.sender.keep_house()
        [row] = await notices(harness, account_id)
        assert (row["state"], row["reason"]) == ("dropped", "late")

    async def test_old_challenges_are_purged_and_the_record_of_what_was_told_stays(
        self, harness: Harness, desk: Desk
    ) -> None:
        sms_id, _ = await queued_code(harness)
        await desk.send()
        await harness.advance(timedelta(days=3))
        await desk.sender.keep_house()
        content = await harness.content("notify")
        assert (content["challenges"], content["code_sends"]) == ([], [])
        assert (await desk.row(sms_id))["state"] == "sent"
        sql = "UPDATE sms SET id = uuidv7(- interval '401 days') WHERE id = $1 RETURNING id"
        [[aged]] = await harness.rows("notify", sql, sms_id)
        await desk.sender.keep_house()
        assert await harness.rows("notify", "SELECT 1 FROM sms WHERE id = $1", aged) == []

    async def test_the_process_sends_a_code_at_once(self, harness: Harness, desk: Desk, service: Service) -> None:
        assert send_sms in BACKGROUND
        path = harness.settings("notify").sms_file
        running = asyncio.create_task(send_sms(service))
        try:
            phone = new_phone()
            await harness.ask(wish(harness, phone))
            await harness.until(lambda: path.exists() and phone in path.read_text(), timeout_s=5)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_the_trace_goes_on_in_the_event(harness: Harness, desk: Desk, database: Database) -> None:
    await wake(harness)
    account_id = new_id()
    await told(harness, account_id)
    message_id = await harness.publish(applied(harness, account_id))
    [row] = await notices(harness, account_id)
    await desk.send()
    envelope = await harness.expect_envelope(lambda e: e.get("partitionkey") == str(row["id"]))
    assert (envelope["correlationid"], envelope["causationid"]) == (str(message_id), str(message_id))
    assert envelope["traceparent"][:35] == row["traceparent"][:35]
