"""notify on the real servers: a sender that dies at the wrong moment, and providers that fail."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from services.notify import sender
from services.notify.app import BACKGROUND
from services.notify.domain import Lane
from services.notify.providers import AccountDeadError, Outgoing, RejectedError, ThrottledError
from services.notify.providers.file import FileProvider
from services.notify.sender import STOPPED, send_sms
from shared.contracts.notify import (
    SmsSent,
)
from shared.ids import new_id
from shared.service import Service
from tests.harness import Harness
from tests.notifykit import Desk, applied, desk, new_phone, notices, service, wish

__all__ = ["desk", "service"]


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
        assert await desk.recover() == 1
        await desk.send()
        assert len(desk.lines(phone)) == 1
        assert (await desk.row(sms_id))["state"] == "sent"
        await harness.expect(SmsSent, sms_id)
        await harness.expect_recorded()
        assert len(harness.seen(SmsSent, sms_id)) == 1

    async def test_one_that_dies_before_the_call_leaves_one_line_too(self, harness: Harness, desk: Desk) -> None:
        sms_id, phone = await queued_code(harness)
        assert await desk.sender.claim(Lane.CODE) is not None
        assert await desk.recover() == 1
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
        await desk.recover()
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
        await desk.recover()
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
        await desk.recover()
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
