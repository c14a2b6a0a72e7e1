"""Every coming deadline in words: what happens, and when, if nobody does anything. Pure.

One small function for each aggregate says what of it waits; `views/queries.py` puts them together.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from services.orders.purchases.domain import GRACE
from shared.contracts.orders import Deadline
from shared.working_days import until_words

MOST: Final = 100
"""Most deadlines told of one purchase, the nearest first: whatever a contract holds, an answer has its size."""

SIGN: Final = "sign"
PAY: Final = "pay"
LESSON: Final = "lesson"
REFUND_ASKED: Final = "refund.asked"
REFUND_CONTESTED: Final = "refund.contested"
REFUND_PAYING: Final = "refund.paying"
OBJECTION_RAISED: Final = "objection.raised"
OBJECTION_TO_DECIDE: Final = "objection.to_decide"

WORDING: Final[Mapping[str, str]] = MappingProxyType(
    {
        SIGN: "如不签署合同，本订单将于{until}取消",
        PAY: "如不付款，本订单将于{until}取消",
        LESSON: "如不答复，第{lesson}课次将于{until}视为确认",
        REFUND_ASKED: "机构如不答复，退费申请将于{until}视为同意",
        REFUND_CONTESTED: "机构不同意退费，主管部门应于{until}前作出决定",
        REFUND_PAYING: "退费应于{until}前由监管银行原路退回",
        OBJECTION_RAISED: "机构如不答复，第{lesson}课次的异议将于{until}转主管部门处理",
        OBJECTION_TO_DECIDE: "第{lesson}课次的异议，主管部门应于{until}前作出决定",
    }
)
"""The sentence of each kind of deadline."""


def deadline(kind: str, due_at: datetime, lesson_no: int | None = None) -> Deadline:
    """A deadline with its sentence. Raises KeyError for a kind that has none."""
    words = WORDING[kind].format(until=until_words(due_at), lesson=lesson_no)
    return Deadline(kind=kind, due_at=due_at, words=words, lesson_no=lesson_no)


def of_purchase(state: str, act_by: datetime | None) -> list[Deadline]:
    """By when the contract must be signed, or paid. What else a purchase waits for is no business of its family's."""
    if act_by is None:
        return []
    if state == "to_sign":
        return [deadline(SIGN, act_by)]
    if state == "to_pay":
        return [deadline(PAY, act_by)]
    if state == "paying":
        return [deadline(PAY, act_by - GRACE)]  # the bank collects until then; the saga waits a little longer
    return []


def of_lessons(waiting: Iterable[tuple[int, datetime]]) -> list[Deadline]:
    """By when each lesson that waits for its guardian (number, time) counts as confirmed."""
    return [deadline(LESSON, answer_by, lesson_no) for lesson_no, answer_by in waiting]


def of_refund(state: str, act_by: datetime | None) -> list[Deadline]:
    """By when the institution, the authority or the bank must act on a refund; none once it is over."""
    return [deadline(f"refund.{state}", act_by)] if act_by is not None else []


def of_objection(lesson_no: int, state: str, act_by: datetime | None) -> list[Deadline]:
    """By when the institution must answer an objection, or the authority decide it; none once it is over."""
    if act_by is None:
        return []
    return [deadline(OBJECTION_RAISED if state == "raised" else OBJECTION_TO_DECIDE, act_by, lesson_no)]


def nearest(found: Iterable[Deadline]) -> tuple[Deadline, ...]:
    """The nearest of a purchase's deadlines, in their order."""
    return tuple(sorted(found, key=lambda one: (one.due_at, one.kind, one.lesson_no or 0))[:MOST])
