"""catalog on the real servers: the white list, courses, and seats that are sold once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import time, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from shared.actors import Actor
from shared.contracts.catalog import (
    CoursePage,
    CoursePublished,
    CourseView,
    ExpireSeat,
    ExtendSeat,
    GiveBackSeat,
    InstitutionChanged,
    InstitutionView,
    LookUpInstitution,
    PublishCourse,
    RegisterInstitution,
    ReserveSeat,
    SearchCourses,
    SeatExpired,
    SeatGivenBack,
    SeatReserved,
    SeatTaken,
    SetInstitutionState,
    ShowCourse,
    TakeSeat,
    UpdateDisclosure,
)
from shared.contracts.envelope import Problem, Request
from shared.ids import new_id
from shared.messaging.rpc import RequestRefused
from shared.policy import Category
from tests.catalog_samples import a_uscc, an_offer, disclosure, plan, registration, weekly
from tests.harness import Harness, is_problem

AUTHORITY = Actor("authority-1", "authority")
GUARDIAN = Actor(str(new_id()), "guardian")
SEAT_KEPT_FOR = timedelta(minutes=15)


class Catalog:
    """The service under test, and the steps most tests begin with."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness

    async def registered(self, **changes: Any) -> InstitutionView:
        return await self.harness.ask(registration(self.harness.now(), **changes), AUTHORITY)  # type: ignore[no-any-return]

    async def set_state(self, institution_id: UUID, state: Any, reason: str = "符合条件") -> InstitutionView:
        ask = SetInstitutionState(institution_id=institution_id, state=state, reason=reason)
        return await self.harness.ask(ask, AUTHORITY)  # type: ignore[no-any-return]

    async def listed(self, **changes: Any) -> InstitutionView:
        return await self.set_state((await self.registered(**changes)).institution_id, "listed")

    async def published(self, institution: InstitutionView, **changes: Any) -> CourseView:
        offer = an_offer(self.harness.now(), institution.institution_id, **changes)
        return await self.harness.ask(offer, of(institution))  # type: ignore[no-any-return]

    async def course(self, **changes: Any) -> CourseView:
        return await self.published(await self.listed(), **changes)

    async def refusal(self, ask: Request, actor: Actor | None) -> Problem:
        """What a request is told that is refused, after nothing has changed."""
        before = await self.harness.content("catalog")
        with pytest.raises(RequestRefused) as caught:
            await self.harness.ask(ask, actor)
        assert await self.harness.content("catalog") == before
        return caught.value.problem

    async def code(self, ask: Request, actor: Actor | None) -> str:
        return (await self.refusal(ask, actor)).code

    async def reserve(self, course_id: UUID, order_id: UUID | None = None) -> Any:
        return await self.harness.command(ReserveSeat(order_id=order_id or new_id(), course_id=course_id))

    async def reserved(self, course_id: UUID) -> UUID:
        reply = await self.reserve(course_id)
        assert isinstance(reply, SeatReserved)
        return reply.order_id

    async def seats(self, course_id: UUID) -> tuple[int, int]:
        row = (
            await self.harness.rows("catalog", "SELECT reserved, taken FROM courses WHERE course_id = $1", course_id)
        )[0]
        return row["reserved"], row["taken"]

    async def state(self, order_id: UUID) -> str | None:
        rows = await self.harness.rows("catalog", "SELECT state FROM reservations WHERE order_id = $1", order_id)
        return str(rows[0]["state"]) if rows else None

    async def advance(self, by: timedelta) -> None:
        """Moves the clock and waits for all reservations that run out by it, those of other tests too."""
        await self.harness.advance(by)
        await self.harness.until(self.nothing_is_due)

    async def nothing_is_due(self) -> bool:
        due = "SELECT 1 FROM reservations WHERE state = 'reserved' AND expires_at <= yike_now() LIMIT 1"
        return not await self.harness.rows("catalog", due)

    async def found(self, **filters: Any) -> list[UUID]:
        page: CoursePage = await self.harness.ask(SearchCourses(**filters))
        return [course.course_id for course in page.courses]


@pytest.fixture(scope="module")
async def catalog(harness: Harness) -> AsyncIterator[Catalog]:
    async with harness.service("catalog"):
        catalog = Catalog(harness)
        await harness.until(catalog.nothing_is_due)
        yield catalog


def of(institution: InstitutionView) -> Actor:
    return Actor(str(institution.institution_id), "institution")


def a_district() -> str:
    """A district of its own, so that a search finds the courses of one test only."""
    return f"试验区{new_id().hex[-10:]}"


# --- institutions -------------------------------------------------------------------------------------------------


async def test_an_institution_is_registered_listed_suspended_and_closed_and_all_of_it_is_history(
    catalog: Catalog,
) -> None:
    ask = registration(catalog.harness.now())
    view: InstitutionView = await catalog.harness.ask(ask, AUTHORITY)
    assert (view.state, view.uscc, view.name) == ("applied", ask.uscc, ask.name)
    assert view.disclosure == ask.disclosure
    for state in ("listed", "suspended", "closed"):
        view = await catalog.set_state(ask.institution_id, state, f"原因 {state}")
        assert (view.state, view.state_reason) == (state, f"原因 {state}")
        event = await catalog.harness.expect(InstitutionChanged, ask.institution_id, state=state)
        assert (event.name, event.reason) == (ask.name, f"原因 {state}")
    rows = await catalog.harness.rows(
        "catalog", "SELECT * FROM institution_changes WHERE institution_id = $1 ORDER BY change_no", ask.institution_id
    )
    assert [row["state"] for row in rows] == ["applied", "listed", "suspended", "closed"]
    assert {row["authority"] for row in rows} == {"authority-1"}
    assert [row["reason"] for row in rows] == ["", "原因 listed", "原因 suspended", "原因 closed"]
    assert [row["changed_at"] for row in rows] == sorted(row["changed_at"] for row in rows)


async def test_only_an_authority_registers_discloses_and_sets_states(catalog: Catalog) -> None:
    now = catalog.harness.now()
    institution_id = (await catalog.registered()).institution_id
    asks: list[Request] = [
        registration(now),
        UpdateDisclosure(institution_id=institution_id, disclosure=disclosure(now), reason="更新"),
        SetInstitutionState(institution_id=institution_id, state="listed", reason="符合条件"),
    ]
    for ask in asks:
        assert await catalog.code(ask, None) == "actor_unauthenticated"
        for actor in (GUARDIAN, Actor(str(institution_id), "institution"), Actor("bank", "bank")):
            assert await catalog.code(ask, actor) == "actor_forbidden"


async def test_a_wrong_code_is_refused_and_the_regulator_may_override_it(catalog: Catalog) -> None:
    code = a_uscc()
    wrong = code[:17] + ("1" if code[17] != "1" else "2")
    ask = registration(catalog.harness.now(), uscc=wrong)
    problem = await catalog.refusal(ask, AUTHORITY)
    assert (problem.code, problem.errors[0].field) == ("uscc_invalid", "uscc")
    overridden = ask.model_copy(update={"uscc_override_reason": "证照原件如此"})
    assert (await catalog.harness.ask(overridden, AUTHORITY)).uscc == wrong


async def test_a_name_without_any_sign_is_refused(catalog: Catalog) -> None:
    assert await catalog.code(registration(catalog.harness.now(), name="\u200b"), AUTHORITY) == "request_invalid"


async def test_the_same_registration_again_is_answered_the_same_and_another_one_is_refused(catalog: Catalog) -> None:
    ask = registration(catalog.harness.now())
    first = await catalog.harness.ask(ask, AUTHORITY)
    before = await catalog.harness.content("catalog")
    assert await catalog.harness.ask(ask, AUTHORITY) == first
    assert await catalog.harness.content("catalog") == before
    others: list[RegisterInstitution] = [
        ask.model_copy(update={"institution_id": new_id()}),
        registration(catalog.harness.now(), uscc=ask.uscc),
        registration(catalog.harness.now(), name=ask.name.replace("常州", "常 州")),
        ask.model_copy(update={"disclosure": disclosure(catalog.harness.now(), venue="别处")}),
    ]
    for other in others:
        assert await catalog.code(other, AUTHORITY) == "institution_exists"


async def test_of_two_registrations_of_one_code_at_the_same_time_one_wins(catalog: Catalog) -> None:
    uscc = a_uscc()
    asks = [registration(catalog.harness.now(), uscc=uscc) for _ in range(8)]
    answers = await asyncio.gather(*(catalog.harness.ask(ask, AUTHORITY) for ask in asks), return_exceptions=True)
    refused = [answer.code for answer in answers if isinstance(answer, RequestRefused)]
    assert refused == ["institution_exists"] * 7


async def test_the_name_of_a_closed_institution_is_free_and_a_look_up_finds_who_has_it_now(catalog: Catalog) -> None:
    first = await catalog.registered()
    await catalog.set_state(first.institution_id, "closed", "申请不予通过")
    assert (await catalog.harness.ask(LookUpInstitution(query=first.name))).state == "closed"
    second = await catalog.registered(name=first.name)
    found: InstitutionView = await catalog.harness.ask(LookUpInstitution(query=first.name))
    assert found.institution_id == second.institution_id
    assert (await catalog.harness.ask(LookUpInstitution(query=first.uscc))).institution_id == first.institution_id


async def test_listing_is_refused_with_every_missing_part_until_all_is_disclosed(catalog: Catalog) -> None:
    now = catalog.harness.now()
    view = await catalog.registered(disclosure=disclosure(now, venue="", account=None))
    ask = SetInstitutionState(institution_id=view.institution_id, state="listed", reason="符合条件")
    problem = await catalog.refusal(ask, AUTHORITY)
    assert problem.code == "institution_undisclosed"
    assert [fault.field for fault in problem.errors] == ["disclosure.venue", "disclosure.account"]
    update = UpdateDisclosure(institution_id=view.institution_id, disclosure=disclosure(now), reason="补充材料")
    updated = await catalog.harness.ask(update, AUTHORITY)
    assert updated.disclosure == update.disclosure
    assert await catalog.harness.ask(update, AUTHORITY) == updated
    rows = await catalog.harness.rows(
        "catalog",
        "SELECT reason, disclosure IS NOT NULL AS told FROM institution_changes WHERE institution_id = $1"
        " ORDER BY change_no",
        view.institution_id,
    )
    assert [(row["reason"], row["told"]) for row in rows] == [("", True), ("补充材料", True)]
    assert (await catalog.harness.ask(ask, AUTHORITY)).state == "listed"


async def test_a_listed_institution_cannot_take_back_what_it_must_disclose(catalog: Catalog) -> None:
    view = await catalog.listed()
    bare = disclosure(catalog.harness.now(), licences=())
    update = UpdateDisclosure(institution_id=view.institution_id, disclosure=bare, reason="撤下")
    assert await catalog.code(update, AUTHORITY) == "institution_undisclosed"


async def test_a_closed_institution_discloses_nothing_more(catalog: Catalog) -> None:
    view = await catalog.registered()
    await catalog.set_state(view.institution_id, "closed")
    update = UpdateDisclosure(
        institution_id=view.institution_id, disclosure=disclosure(catalog.harness.now(), venue="新址"), reason="搬迁"
    )
    assert await catalog.code(update, AUTHORITY) == "institution_state"


async def test_a_state_that_does_not_follow_is_refused_and_the_same_again_changes_nothing(catalog: Catalog) -> None:
    view = await catalog.registered()
    suspend = SetInstitutionState(institution_id=view.institution_id, state="suspended", reason="检查")
    assert await catalog.code(suspend, AUTHORITY) == "institution_state"
    listed = await catalog.set_state(view.institution_id, "listed")
    before = await catalog.harness.content("catalog")
    assert await catalog.set_state(view.institution_id, "listed") == listed
    assert await catalog.harness.content("catalog") == before
    assert len(catalog.harness.seen(InstitutionChanged, view.institution_id)) <= 2


async def test_nothing_is_done_to_an_institution_that_is_not_registered(catalog: Catalog) -> None:
    now, unknown = catalog.harness.now(), new_id()
    asks: list[Request] = [
        SetInstitutionState(institution_id=unknown, state="listed", reason="符合条件"),
        UpdateDisclosure(institution_id=unknown, disclosure=disclosure(now), reason="更新"),
    ]
    for ask in asks:
        assert await catalog.code(ask, AUTHORITY) == "institution_not_registered"


async def test_whoever_looks_for_an_institution_that_is_not_there_is_told_not_to_pay(catalog: Catalog) -> None:
    view = await catalog.registered()
    for query in (a_uscc(), view.name[:-1], "不存在的培训机构", "%", "_" * 18, "ﷺ" * 100):
        problem = await catalog.refusal(LookUpInstitution(query=query), None)
        assert problem.code == "institution_not_registered"
        assert "未注册登记" in problem.detail
        assert "请勿交费" in problem.detail


async def test_an_institution_is_found_by_its_exact_name_or_code_without_a_token(catalog: Catalog) -> None:
    view = await catalog.listed(name=f"常州（Little Lotus）{new_id().hex[-10:]}")
    for query in (view.name, view.name.replace("（", "(").replace("）", ")").lower(), view.uscc, view.uscc.lower()):
        assert await catalog.harness.ask(LookUpInstitution(query=query)) == view


# --- courses ------------------------------------------------------------------------------------------------------


async def test_a_published_course_can_be_seen_by_everybody(catalog: Catalog) -> None:
    institution = await catalog.listed()
    offer = an_offer(catalog.harness.now(), institution.institution_id, description="零基础")
    view: CourseView = await catalog.harness.ask(offer, of(institution))
    assert (view.title, view.description, view.price_fen, view.lessons) == (
        offer.title,
        "零基础",
        offer.price_fen,
        offer.lessons,
    )
    assert (view.institution_name, view.category, view.district) == (
        institution.name,
        institution.category,
        institution.district,
    )
    assert (view.seats, view.seats_left) == (2, 2)
    assert await catalog.harness.ask(ShowCourse(course_id=offer.course_id)) == view
    event = await catalog.harness.expect(CoursePublished, offer.course_id)
    assert (event.institution_id, event.title) == (institution.institution_id, offer.title)


async def test_only_the_institution_itself_publishes_its_courses(catalog: Catalog) -> None:
    institution, other = await catalog.listed(), await catalog.listed()
    offer = an_offer(catalog.harness.now(), institution.institution_id)
    assert await catalog.code(offer, None) == "actor_unauthenticated"
    for actor in (of(other), GUARDIAN, AUTHORITY, Actor(str(institution.institution_id), "guardian")):
        assert await catalog.code(offer, actor) == "actor_forbidden"


async def test_an_institution_publishes_only_while_it_is_listed(catalog: Catalog) -> None:
    institution = await catalog.registered()
    offer = an_offer(catalog.harness.now(), institution.institution_id)
    assert await catalog.code(offer, of(institution)) == "institution_not_listed"
    await catalog.set_state(institution.institution_id, "listed")
    await catalog.set_state(institution.institution_id, "suspended", "检查")
    assert await catalog.code(offer, of(institution)) == "institution_not_listed"
    unknown = new_id()
    nobody = an_offer(catalog.harness.now(), unknown)
    assert await catalog.code(nobody, Actor(str(unknown), "institution")) == "institution_not_registered"


async def test_an_offer_is_refused_with_every_limit_it_breaks(catalog: Catalog) -> None:
    institution = await catalog.listed()
    now = catalog.harness.now()
    first = weekly(now, 1, start=time(20))[0].starts_at
    offer = an_offer(
        now,
        institution.institution_id,
        lessons=plan([first + timedelta(days=2 * n) for n in range(61)]),
        price_fen=500_001,
        description="买 10 课时送 2 课时",
        sells_from=now - timedelta(days=60),
    )
    problem = await catalog.refusal(offer, of(institution))
    assert {fault.code for fault in problem.errors} == {
        "course_limit_lessons",
        "course_limit_price",
        "course_limit_span",
        "course_time_of_day",
        "course_lead_time",
        "course_promotion_forbidden",
    }


@pytest.mark.parametrize(
    ("spoiled", "code"),
    [
        ({"price_fen": 500_001}, "course_limit_price"),
        ({"days": 91}, "course_limit_span"),
        ({"lessons": 61}, "course_limit_lessons"),
        ({"hour": 20}, "course_time_of_day"),
        ({"sells_from": -40}, "course_lead_time"),
        ({"title": "充值卡课程"}, "course_promotion_forbidden"),
        ({"lesson_no": 2}, "request_invalid"),
        ({"days": -30}, "course_started"),
        ({"days": 365_000}, "request_invalid"),
    ],
)
async def test_each_fault_of_an_offer_has_its_code(catalog: Catalog, spoiled: dict[str, Any], code: str) -> None:
    institution = await catalog.listed()
    now = catalog.harness.now()
    first = weekly(now, 1, start=time(spoiled.get("hour", 10)))[0].starts_at
    starts = [first + timedelta(days=n) for n in range(spoiled.get("lessons", 2))]
    if spoiled.get("days", 0) > 0:
        starts.append(first + timedelta(days=spoiled["days"] + 2))
    if spoiled.get("days", 0) < 0:
        starts.insert(0, first + timedelta(days=spoiled["days"]))
    lessons = plan(starts)
    if "lesson_no" in spoiled:
        lessons = tuple(lesson.model_copy(update={"lesson_no": spoiled["lesson_no"]}) for lesson in lessons)
    changes: dict[str, Any] = {name: spoiled[name] for name in ("price_fen", "title") if name in spoiled}
    if "sells_from" in spoiled:
        changes["sells_from"] = now + timedelta(days=spoiled["sells_from"])
    problem = await catalog.refusal(
        an_offer(now, institution.institution_id, lessons=lessons, **changes), of(institution)
    )
    assert problem.code == code


async def test_the_same_offer_again_is_answered_the_same_and_another_one_is_refused(catalog: Catalog) -> None:
    institution = await catalog.listed()
    offer = an_offer(catalog.harness.now(), institution.institution_id)
    view = await catalog.harness.ask(offer, of(institution))
    before = await catalog.harness.content("catalog")
    assert await catalog.harness.ask(offer, of(institution)) == view
    assert await catalog.harness.content("catalog") == before
    other = offer.model_copy(update={"price_fen": 1})
    assert await catalog.code(other, of(institution)) == "course_exists"


async def test_a_course_that_is_not_there_is_unknown(catalog: Catalog) -> None:
    assert await catalog.code(ShowCourse(course_id=new_id()), None) == "course_unknown"


async def test_courses_are_found_by_district_category_institution_and_words(catalog: Catalog) -> None:
    district = a_district()
    art = await catalog.listed(district=district)
    sports = await catalog.listed(district=district, category=Category.SPORTS)
    brush = (await catalog.published(art, title="毛笔 100% 入门 Brush_1")).course_id
    pen = (await catalog.published(art, title="硬笔提高")).course_id
    football = (await catalog.published(sports, title="足球入门")).course_id
    assert await catalog.found(district=district) == [football, pen, brush]
    assert await catalog.found(district=district, category=Category.CULTURE_AND_ART) == [pen, brush]
    assert await catalog.found(institution_id=sports.institution_id) == [football]
    assert await catalog.found(district=district, words="入门") == [football, brush]
    assert await catalog.found(district=district, words="brush 入门") == [brush]
    assert await catalog.found(district=district, words="足球 毛笔") == []
    assert football in await catalog.found(category=Category.SPORTS)
    assert football in await catalog.found()
    assert await catalog.found(district=f" {district} ", words="足球") == [football]
    assert await catalog.harness.refusal(SearchCourses(district="\x00")) == "request_invalid"


@pytest.mark.parametrize(
    ("words", "hits"),
    [("%", 1), ("_", 1), ("100%", 1), ("h_1", 1), ("%入门%", 0), ("\\", 0), ("'; --", 0)],
)
async def test_the_wildcards_of_the_database_are_plain_signs_in_a_search(
    catalog: Catalog, words: str, hits: int
) -> None:
    institution = await catalog.listed()
    await catalog.published(institution, title="毛笔 100% 入门 Brush_1")
    await catalog.published(institution, title="硬笔提高")
    assert len(await catalog.found(institution_id=institution.institution_id, words=words)) == hits


async def test_a_search_is_paged_by_course_id_without_gaps_or_repeats(catalog: Catalog) -> None:
    institution = await catalog.listed()
    made = [(await catalog.published(institution)).course_id for _ in range(5)]
    found: list[UUID] = []
    after: UUID | None = None
    sizes: list[int] = []
    while True:
        ask = SearchCourses(institution_id=institution.institution_id, limit=2, after=after)
        page: CoursePage = await catalog.harness.ask(ask)
        found += [course.course_id for course in page.courses]
        sizes.append(len(page.courses))
        after = page.next_after
        if after is None:
            break
    assert found == sorted(made, reverse=True)
    assert sizes == [2, 2, 1]


async def test_a_page_of_the_longest_courses_still_fits_the_road(catalog: Catalog) -> None:
    institution = await catalog.listed()
    now = catalog.harness.now()
    first = weekly(now, 1)[0].starts_at
    lessons = plan([first + timedelta(days=n, microseconds=1) for n in range(60)])
    for _ in range(30):
        await catalog.published(institution, lessons=lessons, description="字" * 2000)
    page: CoursePage = await catalog.harness.ask(SearchCourses(institution_id=institution.institution_id, limit=100))
    assert 10 < len(page.courses) < 30
    rest: CoursePage = await catalog.harness.ask(
        SearchCourses(institution_id=institution.institution_id, limit=100, after=page.next_after)
    )
    assert len(page.courses) + len(rest.courses) == 30


async def test_courses_of_institutions_that_may_not_sell_are_not_found(catalog: Catalog) -> None:
    district = a_district()
    institution = await catalog.listed(district=district)
    course = (await catalog.published(institution)).course_id
    assert await catalog.found(district=district) == [course]
    await catalog.set_state(institution.institution_id, "suspended", "检查")
    assert await catalog.found(district=district) == []
    assert await catalog.found(institution_id=institution.institution_id) == []
    assert (await catalog.harness.ask(ShowCourse(course_id=course))).course_id == course


# --- seats --------------------------------------------------------------------------------------------------------


async def test_a_reserved_seat_comes_with_the_offer_the_contract_freezes(catalog: Catalog) -> None:
    institution = await catalog.listed()
    course = await catalog.published(institution)
    order_id = new_id()
    reply = await catalog.reserve(course.course_id, order_id)
    assert isinstance(reply, SeatReserved)
    assert (reply.order_id, reply.course_id, reply.institution_id) == (
        order_id,
        course.course_id,
        institution.institution_id,
    )
    assert (reply.institution_name, reply.institution_uscc) == (institution.name, institution.uscc)
    assert (reply.title, reply.price_fen, reply.lessons) == (course.title, course.price_fen, course.lessons)
    assert (reply.category, reply.online, reply.district) == (course.category, course.online, course.district)
    assert reply.refund_terms == course.refund_terms
    assert reply.account == institution.disclosure.account
    left = reply.expires_at - catalog.harness.now()
    assert SEAT_KEPT_FOR - timedelta(seconds=30) < left < SEAT_KEPT_FOR + timedelta(seconds=30)
    assert (await catalog.harness.ask(ShowCourse(course_id=course.course_id))).seats_left == 1


async def test_of_many_who_want_the_last_seats_exactly_as_many_get_one(catalog: Catalog) -> None:
    course = await catalog.course(seats=3)
    answers = await asyncio.gather(*(catalog.reserve(course.course_id) for _ in range(40)))
    assert sum(isinstance(answer, SeatReserved) for answer in answers) == 3
    assert sum(is_problem(answer, "course_full") for answer in answers) == 37
    assert await catalog.seats(course.course_id) == (3, 0)


async def test_two_copies_of_the_service_sell_the_last_seats_once(catalog: Catalog) -> None:
    courses = [(await catalog.course(seats=4)).course_id for _ in range(3)]
    async with catalog.harness.service("catalog"):
        answers = await asyncio.gather(*(catalog.reserve(course_id) for course_id in courses * 20))
        orders = [answer.order_id for answer in answers if isinstance(answer, SeatReserved)]
        assert len(orders) == 12
        taken = await asyncio.gather(*(catalog.harness.command(TakeSeat(order_id=one)) for one in orders))
        assert all(isinstance(answer, SeatTaken) for answer in taken)
    assert [await catalog.seats(course_id) for course_id in courses] == [(0, 4)] * 3


async def test_a_repeated_reservation_is_answered_the_same_even_after_the_institution_was_suspended(
    catalog: Catalog,
) -> None:
    institution = await catalog.listed()
    course = await catalog.published(institution)
    order_id = new_id()
    first = await catalog.reserve(course.course_id, order_id)
    update = UpdateDisclosure(
        institution_id=institution.institution_id,
        disclosure=institution.disclosure.model_copy(
            update={"account": institution.disclosure.account.model_copy(update={"payout_account": "6200 9999"})}
            if institution.disclosure.account
            else {}
        ),
        reason="变更收款账户",
    )
    await catalog.harness.ask(update, AUTHORITY)
    await catalog.set_state(institution.institution_id, "suspended", "检查")
    before = await catalog.harness.content("catalog")
    assert await catalog.reserve(course.course_id, order_id) == first
    assert await catalog.harness.content("catalog") == before


async def refused_reservation(catalog: Catalog, course_id: UUID, order_id: UUID | None = None) -> str:
    before = await catalog.harness.content("catalog")
    reply = await catalog.reserve(course_id, order_id)
    assert isinstance(reply, Problem), reply
    assert await catalog.harness.content("catalog") == before
    return reply.code


async def test_a_seat_that_may_not_be_sold_is_refused(catalog: Catalog) -> None:
    now = catalog.harness.now()
    assert await refused_reservation(catalog, new_id()) == "course_unknown"
    institution = await catalog.listed()
    later = await catalog.published(institution, sells_from=now + timedelta(days=1))
    assert await refused_reservation(catalog, later.course_id) == "course_not_on_sale"
    far = await catalog.published(institution, lessons=plan([weekly(now, 1)[0].starts_at + timedelta(days=60)]))
    assert await refused_reservation(catalog, far.course_id) == "course_lead_time"
    course = await catalog.published(institution)
    order_id = await catalog.reserved(course.course_id)
    assert await refused_reservation(catalog, far.course_id, order_id) == "order_exists"
    await catalog.set_state(institution.institution_id, "suspended", "检查")
    assert await refused_reservation(catalog, course.course_id) == "institution_not_listed"


async def test_a_seat_is_sold_once_however_often_that_is_asked_for(catalog: Catalog) -> None:
    course = await catalog.course()
    order_id = await catalog.reserved(course.course_id)
    for _ in range(2):
        assert await catalog.harness.command(TakeSeat(order_id=order_id)) == SeatTaken(order_id=order_id)
    assert await catalog.seats(course.course_id) == (0, 1)
    timers = await catalog.harness.rows("catalog", "SELECT 1 FROM timers WHERE subject = $1", str(order_id))
    assert timers == []


async def test_what_nobody_reserved_is_neither_sold_nor_extended(catalog: Catalog) -> None:
    before = await catalog.harness.content("catalog")
    assert is_problem(await catalog.harness.command(TakeSeat(order_id=new_id())), "seat_unknown")
    extend = ExtendSeat(order_id=new_id(), until=catalog.harness.now())
    assert is_problem(await catalog.harness.command(extend), "seat_unknown")
    assert await catalog.harness.content("catalog") == before


async def test_a_seat_given_back_is_free_and_stays_given_back(catalog: Catalog) -> None:
    course = await catalog.course(seats=1)
    for sold in (False, True):
        order_id = await catalog.reserved(course.course_id)
        if sold:
            await catalog.harness.command(TakeSeat(order_id=order_id))
        for _ in range(2):
            reply = await catalog.harness.command(GiveBackSeat(order_id=order_id, reason="cancelled"))
            assert reply == SeatGivenBack(order_id=order_id)
        assert await catalog.seats(course.course_id) == (0, 0)
        before = await catalog.harness.content("catalog")
        for late in (
            ReserveSeat(order_id=order_id, course_id=course.course_id),
            TakeSeat(order_id=order_id),
            ExtendSeat(order_id=order_id, until=catalog.harness.now() + timedelta(days=1)),
        ):
            assert is_problem(await catalog.harness.command(late), "seat_expired")
        assert await catalog.harness.content("catalog") == before


async def test_a_reservation_that_comes_after_its_end_is_refused(catalog: Catalog) -> None:
    course = await catalog.course()
    order_id = new_id()
    reply = await catalog.harness.command(GiveBackSeat(order_id=order_id, reason="cancelled"))
    assert reply == SeatGivenBack(order_id=order_id)
    assert await refused_reservation(catalog, course.course_id, order_id) == "seat_expired"
    assert await catalog.seats(course.course_id) == (0, 0)


async def test_commands_that_come_in_one_batch_are_decided_in_their_order(catalog: Catalog) -> None:
    course = await catalog.course(seats=1)
    first, second = new_id(), new_id()
    for command in (
        ReserveSeat(order_id=first, course_id=course.course_id),
        ReserveSeat(order_id=first, course_id=course.course_id),
        TakeSeat(order_id=first),
        GiveBackSeat(order_id=first, reason="cancelled"),
        TakeSeat(order_id=first),
        GiveBackSeat(order_id=second, reason="cancelled"),
        GiveBackSeat(order_id=second, reason="cancelled"),
        ReserveSeat(order_id=second, course_id=course.course_id),
    ):
        await catalog.harness.publish(command)
    await catalog.harness.until(lambda: catalog.state(second))
    await catalog.harness.until(lambda: is_given_back(catalog, first))
    assert await catalog.seats(course.course_id) == (0, 0)
    assert isinstance(await catalog.reserve(course.course_id), SeatReserved)


async def is_given_back(catalog: Catalog, order_id: UUID) -> bool:
    return await catalog.state(order_id) == "given_back"


async def test_the_database_itself_holds_that_no_course_is_oversold(catalog: Catalog) -> None:
    course = await catalog.course(seats=1)
    for change in ("reserved = 1, taken = 1", "reserved = -1", "taken = -1", "reserved = 2"):
        with pytest.raises(asyncpg.CheckViolationError):
            await catalog.harness.rows(
                "catalog", f"UPDATE courses SET {change} WHERE course_id = $1 RETURNING 1", course.course_id
            )


async def test_a_timer_that_fires_early_changes_nothing(catalog: Catalog) -> None:
    course = await catalog.course()
    order_id = await catalog.reserved(course.course_id)
    await catalog.harness.publish(ExpireSeat(order_id=order_id))
    await catalog.harness.publish(ExpireSeat(order_id=new_id()))
    # The same key keeps its order: when this is answered, the timer before it has been handled.
    await catalog.harness.command(TakeSeat(order_id=order_id))
    assert await catalog.seats(course.course_id) == (0, 1)
    assert catalog.harness.seen(SeatExpired, order_id) == []


# These move the clock of the session, so they stand last.


async def test_a_seat_that_nobody_paid_for_is_free_after_its_time(catalog: Catalog) -> None:
    course = await catalog.course(seats=1)
    late = await catalog.reserved(course.course_id)
    await catalog.advance(SEAT_KEPT_FOR)
    event = await catalog.harness.expect(SeatExpired, late)
    assert event.course_id == course.course_id
    assert await catalog.seats(course.course_id) == (0, 0)
    assert await refused_reservation(catalog, course.course_id, late) == "seat_expired"
    # The money comes after all, and a seat is free.
    assert await catalog.harness.command(TakeSeat(order_id=late)) == SeatTaken(order_id=late)
    assert await catalog.seats(course.course_id) == (0, 1)


async def test_a_seat_that_ran_out_and_was_sold_to_another_is_refused(catalog: Catalog) -> None:
    course = await catalog.course(seats=1)
    late = await catalog.reserved(course.course_id)
    await catalog.advance(SEAT_KEPT_FOR)
    await catalog.harness.expect(SeatExpired, late)
    other = await catalog.reserved(course.course_id)
    before = await catalog.harness.content("catalog")
    assert is_problem(await catalog.harness.command(TakeSeat(order_id=late)), "seat_expired")
    extend = ExtendSeat(order_id=late, until=catalog.harness.now() + timedelta(days=1))
    assert is_problem(await catalog.harness.command(extend), "seat_expired")
    assert await catalog.harness.content("catalog") == before
    assert await catalog.state(other) == "reserved"


async def test_an_extended_seat_is_kept_until_its_new_time(catalog: Catalog) -> None:
    course = await catalog.course(seats=2)
    kept, witness = await catalog.reserved(course.course_id), await catalog.reserved(course.course_id)
    until = catalog.harness.now() + 2 * SEAT_KEPT_FOR
    await catalog.harness.publish(ExtendSeat(order_id=kept, until=until))
    repeated = await catalog.reserve(course.course_id, kept)
    assert isinstance(repeated, SeatReserved)
    assert repeated.expires_at == until
    await catalog.advance(SEAT_KEPT_FOR)
    await catalog.harness.expect(SeatExpired, witness)
    assert await catalog.seats(course.course_id) == (1, 0)
    await catalog.advance(SEAT_KEPT_FOR)
    await catalog.harness.expect(SeatExpired, kept)
    assert await catalog.seats(course.course_id) == (0, 0)


async def test_nothing_is_sold_or_found_when_a_licence_has_run_out(catalog: Catalog) -> None:
    now, district = catalog.harness.now(), a_district()
    full = disclosure(now)
    short = full.licences[0].model_copy(update={"valid_until": now + timedelta(minutes=10)})
    parts = full.model_copy(update={"licences": (*full.licences, short)})
    institution = await catalog.listed(district=district, disclosure=parts)
    course = await catalog.published(institution)
    assert await catalog.found(district=district) == [course.course_id]
    await catalog.advance(timedelta(minutes=11))
    assert await catalog.found(district=district) == []
    assert await refused_reservation(catalog, course.course_id) == "institution_not_listed"
    offer: PublishCourse = an_offer(catalog.harness.now(), institution.institution_id)
    assert await catalog.code(offer, of(institution)) == "institution_not_listed"
    renewed = UpdateDisclosure(
        institution_id=institution.institution_id, disclosure=disclosure(catalog.harness.now()), reason="续证"
    )
    await catalog.harness.ask(renewed, AUTHORITY)
    assert await catalog.found(district=district) == [course.course_id]
    assert isinstance(await catalog.reserve(course.course_id), SeatReserved)


async def test_a_course_that_has_begun_is_not_sold_and_found_only_among_its_institutions_courses(
    catalog: Catalog,
) -> None:
    now, district = catalog.harness.now(), a_district()
    institution = await catalog.listed(district=district)
    starts = weekly(now, 1)[0].starts_at
    course = await catalog.published(institution, lessons=plan([starts, starts + timedelta(days=7)]))
    assert await catalog.found(district=district) == [course.course_id]
    await catalog.advance(starts - now)
    assert await refused_reservation(catalog, course.course_id) == "course_started"
    assert await catalog.found(district=district) == []
    assert await catalog.found(institution_id=institution.institution_id) == [course.course_id]
