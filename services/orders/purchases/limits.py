"""What a family may have prepaid at one institution, pure: the limits of one charge, over all open orders of a child.

3 个月、60 课时、5000 元 [law: 校外培训机构财务管理暂行办法 2023; 教育部等六部门 2021; 国办发〔2018〕80号].
The sum over the open orders of the same child at the same institution counts, so that a sale split into several
contracts is caught [ours]. Of an order counts what is not consumed yet, so that a family may buy the next course near
the end of the last one [ours]. Subject training (学科类) is not for pre-school children [law: “双减”意见 2021].
The figures of the day are `shared/policy.py`'s; what holds for each offer alone (hours, rest days, lead time) catalog
checks, when a course is published and again when a seat is reserved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from shared.contracts.catalog import SeatReserved
from shared.contracts.errors import FieldError, Refused
from shared.money import yuan
from shared.policy import Category, Policy, add_months, is_preschool, school_age_by
from shared.working_days import shanghai

UNCONSUMED: Final = ("planned", "applied", "objected")
"""States of lessons that count; every other one is the institution's, or is on its way back, or is back already."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What one order has prepaid: fen and number of its lessons, when the first begins and the last ends (aware)."""

    fen: int
    lessons: int
    first: datetime
    last: datetime


def charge_of(offer: SeatReserved) -> Charge:
    """The whole of a new offer."""
    first = min(lesson.starts_at for lesson in offer.lessons)
    return Charge(offer.price_fen, len(offer.lessons), first, max(lesson.ends_at for lesson in offer.lessons))


def check_sum(policy: Policy, new: Charge, others: Sequence[Charge]) -> None:
    """Nothing if `new` and the child's `others` together keep the limits of one charge, else one Refused.

    It has the code of the first fault, all faults in `errors`, and rule and figures in its words:
    course_limit_lessons, course_limit_price, course_limit_span.
    """
    all_ = (*others, new)
    lessons, fen = sum(one.lessons for one in all_), sum(one.fen for one in all_)
    faults: list[FieldError] = []
    if policy.max_lessons is not None and lessons > policy.max_lessons:
        message = f"共 {lessons} 课时（本次 {new.lessons} 课时），上限 {policy.max_lessons} 课时"
        faults.append(FieldError(field="lessons", message=message, code="course_limit_lessons"))
    if policy.max_charge_fen is not None and fen > policy.max_charge_fen:
        message = f"共 {yuan(fen)} 元（本次 {yuan(new.fen)} 元），上限 {yuan(policy.max_charge_fen)} 元"
        faults.append(FieldError(field="price_fen", message=message, code="course_limit_price"))
    if policy.max_span_months is not None:
        first = shanghai(min(one.first for one in all_)).date()
        last = shanghai(max(one.last for one in all_)).date()
        limit = add_months(first, policy.max_span_months)
        if last > limit:
            message = f"自 {first} 至 {last}，跨度上限 {policy.max_span_months} 个月（至 {limit}）"
            faults.append(FieldError(field="lessons", message=message, code="course_limit_span"))
    if not faults:
        return
    whole = f"同一孩子在同一机构未消课的 {len(others)} 个订单与本次购买合并按一次收费计算：" if others else "一次收费"
    detail = whole + "；".join(fault.message for fault in faults)
    raise Refused(
        faults[0].code, detail, errors=faults, open_orders=len(others), lessons=lessons, price_fen=fen, new_fen=new.fen
    )


def has_age_limit(policy: Policy, category: str) -> bool:
    """Whether the child's age matters: of subject training only."""
    return Category(category) is Category.SUBJECT and not policy.subject_before_school_age


def check_age(birth_date: date, new: Charge) -> None:
    """Nothing if the child is of school age on the day of the first lesson [ours: that day], else child_preschool.

    Its words say by when one must have become six, and not when the child was born: they travel in the clear.
    """
    day = shanghai(new.first).date()
    if is_preschool(birth_date, day):
        by = school_age_by(day)
        detail = f"学科类培训不得面向学龄前儿童：首次上课 {day}，孩子应于 {by} 前年满 6 周岁"
        raise Refused("child_preschool", detail, first_lesson=day.isoformat(), six_by=by.isoformat())
