"""Reads answered to gateways. They are public: no token is asked for."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import TextClause, text

from services.catalog.domain import (
    NAME_MAX_CHARACTERS,
    NOT_REGISTERED_ZH,
    Course,
    Institution,
    Seller,
    fold_name,
    fold_uscc,
)
from services.catalog.tables import CourseRow, InstitutionRow
from shared.contracts.catalog import (
    CoursePage,
    CourseView,
    InstitutionView,
    LookUpInstitution,
    SearchCourses,
    ShowCourse,
)
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.types import RefundTerms
from shared.messaging.work import UnitOfWork
from shared.pages import first_that_fit

SCANNED_COURSES: Final = 2_000
"""Most courses one page of a search looks at: whatever is asked, its cost has an end."""
MAX_WORDS: Final = 10


def institution_view(institution: Institution) -> InstitutionView:
    """An institution as the public sees it."""
    return InstitutionView(
        institution_id=institution.institution_id,
        uscc=institution.uscc,
        name=institution.name,
        district=institution.district,
        category=institution.category,
        state=institution.state,
        state_reason=institution.state_reason,
        state_since=institution.state_since,
        frozen_until=institution.frozen_until,
        disclosure=institution.disclosed,
    )


def course_view(course: Course, institution_name: str) -> CourseView:
    """A course as the public sees it."""
    return CourseView(
        course_id=course.course_id,
        institution_id=course.institution_id,
        institution_name=institution_name,
        title=course.title,
        description=course.description,
        category=course.category,
        online=course.online,
        district=course.district,
        price_fen=course.price_fen,
        lessons=course.plan,
        refund_terms=RefundTerms.model_validate(course.refund_terms),
        seats=course.seats,
        seats_left=course.free,
        sells_from=course.sells_from,
    )


async def look_up_institutions(work: UnitOfWork, messages: Sequence[Message[LookUpInstitution]]) -> None:
    """Institutions by exact name or code. Not to be found means: not registered, do not pay [seed]."""
    codes = {fold_uscc(message.data.query) for message in messages}
    names = {name for m in messages if len(name := fold_name(m.data.query)) <= NAME_MAX_CHARACTERS}
    by_code = await work.load(InstitutionRow, Institution, codes, by=("uscc",), lock=False)
    by_name: dict[str, Institution] = {}
    named = await work.load_all(InstitutionRow, Institution, names, by=("name_key",), lock=False)
    for institution in sorted(named, key=_age):
        by_name[institution.name_key] = institution
    for message in messages:
        with work.answering(message):
            query = message.data.query
            found = by_code.get(fold_uscc(query)) or by_name.get(fold_name(query))
            if found is None:
                raise Refused("institution_not_registered", NOT_REGISTERED_ZH)
            work.reply(message, institution_view(found))


def _age(institution: Institution) -> tuple[bool, datetime]:
    """Who bears a name now sorts after those who bore it and are closed, the last closed after the others."""
    return institution.state != "closed", institution.state_since


async def show_courses(work: UnitOfWork, messages: Sequence[Message[ShowCourse]]) -> None:
    """Courses by id, on sale or not."""
    views = await _views(work, {message.data.course_id for message in messages})
    for message in messages:
        with work.answering(message):
            view = views.get(message.data.course_id)
            if view is None:
                raise Refused("course_unknown")
            work.reply(message, view)


async def _views(work: UnitOfWork, course_ids: set[UUID]) -> dict[UUID, CourseView]:
    courses = await work.load(CourseRow, Course, course_ids, lock=False)
    institutions = {course.institution_id for course in courses.values()}
    sellers = await work.load(InstitutionRow, Seller, institutions, lock=False)
    return {key: course_view(course, sellers[course.institution_id].name) for key, course in courses.items()}


async def search_courses(work: UnitOfWork, messages: Sequence[Message[SearchCourses]]) -> None:
    """Pages of courses on sale, the greatest ids first."""
    for message in messages:
        with work.answering(message):
            work.reply(message, await _page(work, message.data))


async def _page(work: UnitOfWork, ask: SearchCourses) -> CoursePage:
    district = ask.district.strip()
    filters = {"district": district, "category": ask.category, "institution_id": ask.institution_id}
    given = {name: value for name, value in filters.items() if value} | ({"after": ask.after} if ask.after else {})
    parameters: dict[str, Any] = given | {
        "now": work.now,
        "patterns": [_pattern(word) for word in ask.words.split()[:MAX_WORDS]],
        "begun_too": ask.institution_id is not None,
        "wanted": ask.limit + 1,
        "scan": SCANNED_COURSES,
    }
    connection = await work.connection()
    scanned, last, found = (await connection.execute(_search(frozenset(given)), parameters)).one()
    views = await _views(work, set(found))
    shown = first_that_fit(views[course_id] for course_id in found[: ask.limit])
    next_after: UUID | None = None
    if len(shown) < len(found):
        next_after = shown[-1].course_id
    elif scanned == SCANNED_COURSES:
        next_after = last
    return CoursePage(courses=tuple(shown), next_after=next_after)


def _pattern(word: str) -> str:
    """An ILIKE pattern for titles that hold `word` as it stands: its wildcards are no wildcards."""
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


@cache
def _search(given: frozenset[str]) -> TextClause:
    """One statement per set of filters: a bounded range of one index first, then what no index can judge."""
    conditions = [f"{name} = :{name}" for name in ("district", "category", "institution_id") if name in given]
    conditions += ["course_id < :after"] if "after" in given else []
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return text(f"""
WITH scanned AS MATERIALIZED (
  SELECT course_id, institution_id, title, starts_at FROM courses {where} ORDER BY course_id DESC LIMIT :scan),
found AS (
  SELECT s.course_id FROM scanned s JOIN institutions i ON i.institution_id = s.institution_id
  WHERE i.state = 'listed' AND i.licensed_from <= :now AND :now < i.licensed_until
    AND (:begun_too OR s.starts_at > :now) AND s.title ILIKE ALL (CAST(:patterns AS text[]))
  ORDER BY s.course_id DESC LIMIT :wanted)
SELECT (SELECT count(*) FROM scanned), (SELECT course_id FROM scanned ORDER BY course_id LIMIT 1),
  ARRAY(SELECT course_id FROM found ORDER BY course_id DESC)
""")
