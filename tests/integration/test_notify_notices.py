"""notify on the real servers: contacts, and each notice once, by day, to the phone named last."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Literal

import pytest
from sqlalchemy import event

from services.notify import use_cases
from services.notify.handlers import (
    on_lesson_applied,
    on_lesson_confirmed,
    on_lesson_waiting,
    on_settled,
)
from shared.actors import Actor
from shared.contracts.complaints import FilingMoved
from shared.contracts.envelope import Data
from shared.contracts.escrow import Refunded
from shared.contracts.notify import (
    NameContact,
    Phone,
    SetContact,
)
from shared.contracts.orders import LessonApplied
from shared.database import Database
from shared.ids import new_id
from shared.messaging.work import UnitOfWork
from shared.sealing import seal
from shared.working_days import shanghai
from tests.harness import Harness, is_problem
from tests.notifykit import (
    Desk,
    applied,
    confirmed,
    database,
    delayed,
    desk,
    drawn,
    enveloped,
    named,
    new_phone,
    notices,
    objection,
    returned,
    sealed,
    service,
    settled,
    sleep,
    told,
    waiting,
    wake,
)

__all__ = ["database", "desk", "service"]


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
