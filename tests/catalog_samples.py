"""Institutions and courses that break no rule, for tests to spoil one thing at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import UUID

from shared.contracts.catalog import (
    BankAccount,
    Disclosure,
    Licence,
    PublishCourse,
    RegisterInstitution,
    Teacher,
)
from shared.contracts.types import LessonTime
from shared.documents import uscc_check_character
from shared.ids import base36, new_id
from shared.policy import Category
from shared.working_days import SHANGHAI, shanghai

_LETTERS_NOT_IN_CODES = str.maketrans("IOSVZ", "ABCDE")


def a_uscc() -> str:
    """A new code whose check character is right."""
    first = "9132" + base36(new_id().int % 36**13, 13).translate(_LETTERS_NOT_IN_CODES)
    first = first[:2] + "320412" + first[8:]
    return first + uscc_check_character(first)


def disclosure(now: datetime, **changes: Any) -> Disclosure:
    """A full disclosure with a licence of two years."""
    licence = Licence(
        number="教民132041270000001",
        issued_by="常州市武进区教育局",
        valid_from=now - timedelta(days=365),
        valid_until=now + timedelta(days=365),
    )
    parts: dict[str, Any] = {
        "licences": (licence,),
        "venue": "常州市武进区延政中大道 1 号 3 楼",
        "teachers": (Teacher(name="王老师", qualification="书法教师资格证 2020-001"),),
        "materials": "《书法入门》",
        "fee_standard": "每课时 100 元",
        "refund_rules": "未上课全额退费",
        "account": BankAccount(bank="jiangnan", supervised_account="8800 0001", payout_account="6200 0001"),
    }
    return Disclosure(**(parts | changes))


def registration(now: datetime, **changes: Any) -> RegisterInstitution:
    """A new institution with everything disclosed."""
    institution_id = new_id()
    parts: dict[str, Any] = {
        "institution_id": institution_id,
        "uscc": a_uscc(),
        "name": f"常州市小荷书法培训中心{institution_id.hex[-10:]}",
        "district": "武进区",
        "category": Category.CULTURE_AND_ART,
        "disclosure": disclosure(now),
    }
    return RegisterInstitution(**(parts | changes))


def weekly(now: datetime, lessons: int, *, start: time = time(10), minutes: int = 60) -> tuple[LessonTime, ...]:
    """Lessons every seven days, the first in three days, at the same hour in Shanghai."""
    first = datetime.combine(shanghai(now).date() + timedelta(days=3), start, SHANGHAI)
    return plan([first + timedelta(days=7 * n) for n in range(lessons)], minutes)


def plan(starts: Sequence[datetime], minutes: int = 60) -> tuple[LessonTime, ...]:
    """Lessons at these times, numbered from 1."""
    return tuple(
        LessonTime(lesson_no=n, starts_at=at.astimezone(UTC), ends_at=at.astimezone(UTC) + timedelta(minutes=minutes))
        for n, at in enumerate(starts, 1)
    )


def an_offer(now: datetime, institution_id: UUID, **changes: Any) -> PublishCourse:
    """A course of eight lessons and two seats."""
    parts: dict[str, Any] = {
        "course_id": new_id(),
        "institution_id": institution_id,
        "title": "硬笔书法春季班",
        "price_fen": 80_000,
        "lessons": weekly(now, 8),
        "seats": 2,
    }
    return PublishCourse(**(parts | changes))
