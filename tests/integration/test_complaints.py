"""Complaints on the real servers: filing, routing, steps, clocks, and what escrow and notify are told."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from services.complaints.use_cases import Content
from shared.actors import Actor
from shared.contracts.complaints import (
    FileComplaint,
    FilingDeadline,
    FilingMoved,
    FilingView,
    MoveFiling,
    ShowFiling,
)
from shared.contracts.escrow import ResumeReleases, SuspendReleases
from shared.contracts.orders import PurchaseEnrolled
from shared.ids import new_id
from shared.messaging.rpc import RequestRefused
from shared.sealing import decrypt_at_rest
from shared.working_days import add_working_days
from tests.harness import Harness

AUTHORITY = Actor("wujin-education", "authority")
TEXT = "老师王某某电话 13900001111，拒不退费"


def guardian(account_id: UUID | None = None) -> Actor:
    return Actor(str(account_id or new_id()), "guardian")


def a_filing(**changes: Any) -> FileComplaint:
    values: dict[str, Any] = {
        "filing_id": new_id(),
        "kind": "complaint",
        "type": "refund_refused",
        "area": "常州市武进区",
        "category": "体育类",
        "institution_name": "某某体育",
        "text": TEXT,
    }
    return FileComplaint(**(values | changes))


async def an_order(harness: Harness, account_id: UUID) -> UUID:
    """An order that complaints has heard of."""
    order_id = new_id()
    await harness.publish(
        PurchaseEnrolled(
            order_id=order_id,
            account_id=account_id,
            institution_id=new_id(),
            course_id=new_id(),
            title="游泳",
            price_fen=100_000,
            lessons=10,
        )
    )
    await harness.until(lambda: harness.rows("complaints", "SELECT 1 FROM orders WHERE order_id = $1", order_id))
    return order_id


async def step(harness: Harness, filing: FilingView, state: str, reason: str = "依法办理", to: str = "") -> Any:
    request = MoveFiling.model_validate(
        {"filing_id": filing.filing_id, "state": state, "reason": reason, "transferred_to": to}
    )
    return await harness.ask(request, AUTHORITY)


async def unchanged_by(harness: Harness, code: str, request: Any, actor: Actor | None = None) -> None:
    """Expects the refusal `code`, and that no business table changed."""
    before = await harness.content("complaints")
    assert await harness.refusal(request, actor) == code
    assert await harness.content("complaints") == before


# --- filing -----------------------------------------------------------------------------------------------------------


async def test_a_complaint_is_routed_numbered_and_told_to_notify(harness: Harness) -> None:
    async with harness.service("complaints"):
        actor, request = guardian(), a_filing()
        view = await harness.ask(request, actor)
        assert (view.area, view.category) == ("武进区", "体育")
        assert (view.department, view.hotline) == ("武进区文体广电和旅游局", "86312006")
        assert (view.state, view.kind) == ("submitted", "complaint")
        assert view.number.startswith("TS")
        assert view.act_by == add_working_days(view.submitted_at, 7)
        told = await harness.expect(FilingMoved, request.filing_id)
        assert (str(told.account_id), told.number, told.state) == (actor.subject, view.number, "submitted")
        assert (told.department, told.hotline, told.overdue) == (view.department, view.hotline, False)
        assert all(one.complaint_id != request.filing_id for one in harness.seen(SuspendReleases))


async def test_an_anonymous_report_is_filed_and_names_nobody(harness: Harness) -> None:
    async with harness.service("complaints"):
        request = a_filing(kind="report", type="unregistered", area="溧阳市", category="文化艺术")
        view = await harness.ask(request)
        assert view.number.startswith("JB")
        assert view.hotline == "87922882"
        told = await harness.expect(FilingMoved, request.filing_id)
        assert (told.account_id, told.order_id) == (None, None)


async def test_a_report_of_a_signed_in_guardian_gets_feedback(harness: Harness) -> None:
    async with harness.service("complaints"):
        actor, request = guardian(), a_filing(kind="report")
        await harness.ask(request, actor)
        assert str((await harness.expect(FilingMoved, request.filing_id)).account_id) == actor.subject


async def test_a_report_of_an_institution_is_as_good_as_anonymous(harness: Harness) -> None:
    async with harness.service("complaints"):
        request = a_filing(kind="report")
        await harness.ask(request, Actor(str(new_id()), "institution"))
        assert (await harness.expect(FilingMoved, request.filing_id)).account_id is None


async def test_a_complaint_on_an_order_holds_its_releases_until_it_is_closed(harness: Harness) -> None:
    async with harness.service("complaints"):
        account_id = new_id()
        order_id = await an_order(harness, account_id)
        filing = await harness.ask(a_filing(order_id=order_id), guardian(account_id))
        assert filing.order_id == order_id
        held = await harness.expect(SuspendReleases, order_id)
        assert held.complaint_id == filing.filing_id
        await step(harness, filing, "accepted")
        await step(harness, filing, "in_progress")
        assert harness.seen(ResumeReleases, order_id) == []
        closed = await step(harness, filing, "mediated", "双方达成退费协议")
        assert (closed.state, closed.act_by) == ("mediated", None)
        resumed = await harness.expect(ResumeReleases, order_id)
        assert resumed.complaint_id == filing.filing_id
        await harness.expect_recorded()
        assert len(harness.seen(SuspendReleases, order_id)) == len(harness.seen(ResumeReleases, order_id)) == 1


async def test_a_rejected_complaint_lets_the_releases_go_on(harness: Harness) -> None:
    async with harness.service("complaints"):
        account_id = new_id()
        order_id = await an_order(harness, account_id)
        filing = await harness.ask(a_filing(order_id=order_id), guardian(account_id))
        await step(harness, filing, "rejected", "不属于受理范围")
        assert (await harness.expect(ResumeReleases, order_id)).complaint_id == filing.filing_id


async def test_the_same_filing_again_is_answered_the_same_and_another_content_is_refused(harness: Harness) -> None:
    async with harness.service("complaints"):
        account_id = new_id()
        order_id = await an_order(harness, account_id)
        actor, request = guardian(account_id), a_filing(order_id=order_id)
        first = await harness.ask(request, actor)
        before = await harness.content("complaints")
        assert await harness.ask(request, actor) == first
        assert await harness.content("complaints") == before
        await unchanged_by(harness, "idempotency_conflict", request.model_copy(update={"text": "另一件事"}), actor)
        await unchanged_by(harness, "idempotency_conflict", request, guardian())
        await harness.expect_recorded()
        assert len(harness.seen(SuspendReleases, order_id)) == 1
        assert len(harness.seen(FilingMoved, request.filing_id)) == 1


async def test_what_a_person_wrote_is_encrypted_and_leaves_with_no_message(harness: Harness) -> None:
    async with harness.service("complaints"):
        actor, request = guardian(), a_filing()
        view = await harness.ask(request, actor)
        await harness.expect(FilingMoved, request.filing_id)
        stored = str(await harness.content("complaints"))
        assert "13900001111" not in stored
        assert request.institution_name not in stored
        row = (await harness.rows("complaints", "SELECT * FROM filings WHERE filing_id = $1", request.filing_id))[0]
        content = decrypt_at_rest(harness.ring("complaints"), row["content"], Content)
        assert content == Content(institution_name=request.institution_name, text=TEXT)
        bodies = await harness.rows("complaints", "SELECT body FROM outbox")
        assert all("13900001111" not in body["body"] for body in bodies)
        assert actor.subject not in view.model_dump_json()


async def test_every_refused_filing_changes_nothing(harness: Harness) -> None:
    async with harness.service("complaints"):
        order_id = await an_order(harness, new_id())
        await unchanged_by(harness, "complaint_needs_guardian", a_filing())
        await unchanged_by(harness, "complaint_needs_guardian", a_filing(), AUTHORITY)
        await unchanged_by(harness, "route_unknown", a_filing(area="苏州市"), guardian())
        await unchanged_by(harness, "route_unknown", a_filing(category="音乐"), guardian())
        await unchanged_by(harness, "order_unknown", a_filing(order_id=new_id()), guardian())
        await unchanged_by(harness, "actor_forbidden", a_filing(order_id=order_id), guardian())
        await unchanged_by(harness, "request_invalid", a_filing(kind="report", order_id=order_id), guardian())
        for kind in ("complaint", "report"):
            before = await harness.content("complaints")
            with pytest.raises(RequestRefused) as caught:
                await harness.client.ask(a_filing(kind=kind), token="bad.token.here")
            assert caught.value.code == "actor_unauthenticated"
            assert await harness.content("complaints") == before
        assert harness.seen(SuspendReleases, order_id) == []


# --- showing ----------------------------------------------------------------------------------------------------------


async def test_a_filing_is_shown_to_whoever_holds_its_number_and_its_order_to_few(harness: Harness) -> None:
    async with harness.service("complaints"):
        account_id = new_id()
        order_id = await an_order(harness, account_id)
        actor = guardian(account_id)
        filing = await harness.ask(a_filing(order_id=order_id), actor)
        public = await harness.ask(ShowFiling(number=filing.number.lower().replace("-", " ")))
        assert (public.number, public.department, public.order_id) == (filing.number, filing.department, None)
        assert (await harness.ask(ShowFiling(number=filing.number), guardian())).order_id is None
        assert (await harness.ask(ShowFiling(number=filing.number), actor)) == filing
        assert (await harness.ask(ShowFiling(number=filing.number), AUTHORITY)).order_id == order_id


async def test_a_number_that_nobody_was_given_shows_nothing(harness: Harness) -> None:
    async with harness.service("complaints"):
        filing = await harness.ask(a_filing(kind="report"))
        number = filing.number[:-1] + ("0" if filing.number[-1] != "0" else "1")
        await unchanged_by(harness, "complaint_unknown", ShowFiling(number=number))
        await unchanged_by(harness, "complaint_unknown", ShowFiling(number="投诉"))
        await unchanged_by(harness, "complaint_unknown", ShowFiling(number=str(filing.filing_id)[:30]))
        with pytest.raises(RequestRefused) as caught:
            await harness.client.ask(ShowFiling(number=filing.number), token="bad.token.here")
        assert caught.value.code == "actor_unauthenticated"


# --- steps ------------------------------------------------------------------------------------------------------------


async def test_every_step_is_kept_with_its_reason_and_told(harness: Harness) -> None:
    async with harness.service("complaints"):
        filing = await harness.ask(a_filing(kind="report", type="cash"))
        moved = await step(harness, filing, "transferred", "属另一部门职责", to="武进区教育局")
        assert (moved.department, moved.hotline) == ("武进区教育局", "")
        await step(harness, filing, "accepted", "受理")
        await step(harness, filing, "in_progress", "开始核查")
        closed = await step(harness, filing, "unfounded", "查无实据")
        assert (closed.state, closed.state_reason, closed.act_by) == ("unfounded", "查无实据", None)
        history = await harness.rows(
            "complaints", "SELECT * FROM steps WHERE filing_id = $1 ORDER BY step_no", filing.filing_id
        )
        assert [(row["from_state"], row["to_state"], row["reason"], row["decided_by"]) for row in history] == [
            ("", "submitted", "", ""),
            ("submitted", "transferred", "属另一部门职责", "wujin-education"),
            ("transferred", "accepted", "受理", "wujin-education"),
            ("accepted", "in_progress", "开始核查", "wujin-education"),
            ("in_progress", "unfounded", "查无实据", "wujin-education"),
        ]
        told = await harness.expect(FilingMoved, filing.filing_id, state="unfounded")
        assert (told.account_id, told.overdue) == (None, False)
        timers = await harness.rows("complaints", "SELECT 1 FROM timers WHERE subject = $1", str(filing.filing_id))
        assert timers == []


async def test_a_transfer_to_a_department_of_the_list_brings_its_hotline(harness: Harness) -> None:
    async with harness.service("complaints"):
        filing = await harness.ask(a_filing(area="新北区", category="体育"), guardian())
        moved = await step(harness, filing, "transferred", "属地管辖", to="武进区文体广电和旅游局")
        assert moved.hotline == "86312006"


async def test_the_same_step_again_is_answered_the_same_and_changes_nothing(harness: Harness) -> None:
    async with harness.service("complaints"):
        filing = await harness.ask(a_filing(), guardian())
        first = await step(harness, filing, "accepted", "受理")
        before = await harness.content("complaints")
        assert await step(harness, filing, "accepted", "受理") == first
        assert await harness.content("complaints") == before
        await harness.expect_recorded()
        assert len(harness.seen(FilingMoved, filing.filing_id)) == 2


async def test_every_refused_step_changes_nothing(harness: Harness) -> None:
    async with harness.service("complaints"):
        actor = guardian()
        filing = await harness.ask(a_filing(), actor)
        accept = MoveFiling(filing_id=filing.filing_id, state="accepted", reason="受理")
        await unchanged_by(harness, "actor_unauthenticated", accept)
        await unchanged_by(harness, "actor_forbidden", accept, actor)
        await unchanged_by(harness, "actor_forbidden", accept, Actor(str(new_id()), "institution"))
        unknown = accept.model_copy(update={"filing_id": new_id()})
        await unchanged_by(harness, "complaint_unknown", unknown, AUTHORITY)
        skip = accept.model_copy(update={"state": "mediated"})
        await unchanged_by(harness, "complaint_state", skip, AUTHORITY)
        nowhere = accept.model_copy(update={"state": "transferred"})
        await unchanged_by(harness, "request_invalid", nowhere, AUTHORITY)
        where = accept.model_copy(update={"transferred_to": "武进区教育局"})
        await unchanged_by(harness, "request_invalid", where, AUTHORITY)
        await harness.expect_recorded()
        assert len(harness.seen(FilingMoved, filing.filing_id)) == 1


# --- clocks -----------------------------------------------------------------------------------------------------------


async def test_a_filing_that_nobody_accepts_is_told_overdue_once_and_gets_a_new_deadline(harness: Harness) -> None:
    async with harness.service("complaints"):
        filing = await harness.ask(a_filing(), guardian())
        early = await harness.publish(FilingDeadline(filing_id=filing.filing_id, state="submitted"))
        await _handled(harness, early)
        await harness.advance(filing.act_by - harness.now() + timedelta(minutes=1))
        await harness.expect(FilingMoved, filing.filing_id, overdue=True)
        shown = await harness.ask(ShowFiling(number=filing.number))
        assert shown.state == "submitted"
        assert shown.act_by is not None
        assert shown.act_by > harness.now() + timedelta(days=7)
        late = await harness.publish(FilingDeadline(filing_id=filing.filing_id, state="submitted"))
        await _handled(harness, late)
        await harness.expect_recorded()
        assert [one.overdue for one in harness.seen(FilingMoved, filing.filing_id)] == [False, True]


async def test_an_accepted_complaint_that_is_not_mediated_in_time_is_told_overdue(harness: Harness) -> None:
    async with harness.service("complaints"):
        filing = await harness.ask(a_filing(), guardian())
        before = harness.now()
        accepted = await step(harness, filing, "accepted")
        # Midnight may pass in between.
        assert accepted.act_by in {add_working_days(before, 45), add_working_days(harness.now(), 45)}
        working = await step(harness, filing, "in_progress")
        assert working.act_by == accepted.act_by
        await harness.advance(working.act_by - harness.now() + timedelta(minutes=1))
        told = await harness.expect(FilingMoved, filing.filing_id, overdue=True)
        assert told.state == "in_progress"
        closed = await step(harness, filing, "terminated", "超期未达成协议")
        assert closed.act_by is None
        late = await harness.publish(FilingDeadline(filing_id=filing.filing_id, state="in_progress"))
        unknown = await harness.publish(FilingDeadline(filing_id=new_id(), state="submitted"))
        await _handled(harness, late)
        await _handled(harness, unknown)
        await harness.expect_recorded()
        assert sum(one.overdue for one in harness.seen(FilingMoved, filing.filing_id)) == 1


async def _handled(harness: Harness, message_id: UUID) -> None:
    await harness.until(lambda: harness.rows("complaints", "SELECT 1 FROM inbox WHERE message_id = $1", message_id))
