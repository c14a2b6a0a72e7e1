"""notify on the real servers: codes within limits, sealed, good once."""

import asyncio
import json
import re
from datetime import timedelta

import pytest

from services.notify import codes
from shared.actors import verify_proof
from shared.contracts.errors import CODES
from shared.contracts.notify import (
    CheckCode,
    Code,
    CodeChecked,
    CodeSent,
    Phone,
    SmsSent,
)
from shared.database import Database
from shared.ids import new_id
from shared.messaging.work import UnitOfWork
from shared.sealing import Sealed, seal, unseal
from tests.harness import Harness
from tests.notifykit import (
    Desk,
    database,
    desk,
    enveloped,
    new_phone,
    other,
    problem,
    sent_code,
    service,
    sleep,
    told,
    typed,
    wish,
)

__all__ = ["database", "desk", "service"]


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
