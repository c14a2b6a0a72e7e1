"""The limits of one charge over all open orders of a child at an institution, in two running copies of orders.

[law: 校外培训机构财务管理暂行办法 2023, 教育部等六部门 2021, 国办发〔2018〕80号; that orders are summed: ours]
"""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import pytest
from aiokafka import ConsumerRecord

from services.orders.purchases.open_orders import Place, open_charges
from shared.contracts import topics
from shared.contracts.catalog import GiveBackSeat, ReserveSeat, SeatReserved, SeatTaken
from shared.contracts.envelope import Problem, encode
from shared.contracts.errors import ProblemBody, Refused
from shared.contracts.orders import (
    ApplyLesson,
    CancelPurchase,
    ConfirmLesson,
    ContractDrawn,
    LessonAnswer,
    PurchaseEnded,
    PurchaseView,
)
from shared.contracts.types import LessonTime
from shared.documents import DocumentType
from shared.ids import new_id
from shared.messaging.work import UnitOfWork
from shared.policy import Category, add_months
from shared.service import Service
from shared.working_days import SHANGHAI, shanghai
from tests.counter import WAY, Counter, Family, Order
from tests.harness import Harness

PASSPORTS = itertools.count(1)
OFFSETS = itertools.count(1)


@pytest.fixture(scope="module")
async def copies(harness: Harness) -> AsyncIterator[tuple[Service, Service]]:
    """Orders, twice."""
    async with harness.service("orders") as one, harness.service("orders") as other:
        yield one, other


@pytest.fixture
async def counter(harness: Harness, copies: tuple[Service, Service]) -> AsyncIterator[Counter]:
    counter = Counter(harness)
    yield counter
    await counter.forget()


async def a_family(counter: Counter, passport: int = 0, born: str = "2015-06-01") -> Family:
    """A family that can buy, whose child no other test knows, unless it is named."""
    number = passport or next(PASSPORTS)
    return await counter.family(document_type=DocumentType.PASSPORT, document_number=f"E{number:08}", birth_date=born)


def at(day: date) -> datetime:
    """Ten in the morning."""
    return datetime.combine(day, time(10), SHANGHAI)


def a_plan(counter: Counter, lessons: int, first_in_days: int = 1) -> tuple[LessonTime, ...]:
    """A lesson an hour, twelve a day."""
    first = at(shanghai(counter.harness.now()).date() + timedelta(days=first_in_days)).replace(hour=0)
    starts = [first + timedelta(days=n // 12, hours=2 * (n % 12)) for n in range(lessons)]
    return tuple(LessonTime(lesson_no=n, starts_at=s, ends_at=s + timedelta(hours=1)) for n, s in enumerate(starts, 1))


async def placed(counter: Counter, family: Family, institution_id: UUID) -> Order:
    """A purchase that waits for its seat."""
    order = Order(new_id(), family, new_id(), institution_id)
    await counter.ask(counter.placing(order), order)
    return order


async def bought(
    counter: Counter,
    family: Family,
    institution_id: UUID,
    price_fen: int = 10_000,
    lessons: int = 2,
    plan: tuple[LessonTime, ...] = (),
    **changes: Any,
) -> Order:
    """A purchase whose seat is kept, and that was decided."""
    order = await placed(counter, family, institution_id)
    plan = plan or a_plan(counter, lessons)
    await counter.answers(order, counter.seat(order, price_fen=price_fen, lessons=plan, **changes))
    return order


async def enrolled(counter: Counter, order: Order) -> None:
    """The purchase goes the rest of its way."""
    for step in WAY["enrolled"][1:]:
        if step == "sign":
            await counter.ask(await counter.signing(order), order)
        elif step == "pay":
            await counter.ask(counter.paying(order), order)
        else:
            await counter.answers(order, counter.held(order) if step == "held" else SeatTaken(order_id=order.order_id))
    assert await counter.state(order) == "enrolled"


async def passed(counter: Counter, *orders: Order) -> None:
    """Their contracts wait for their signatures."""
    for order in orders:
        view = await counter.show(order)
        assert (view.state, view.reason, view.detail) == ("to_sign", "", "")


async def refused(counter: Counter, order: Order, code: str, *words: str) -> PurchaseView:
    """The purchase has ended for `code`, its seat goes back, nothing else was said or kept of it, and the family is
    told the rule and the figures, in the view and in the event."""
    view = await counter.show(order)
    assert (view.state, view.reason, view.contract, view.lessons) == ("ended", code, "", ())
    for word in words:
        assert word in view.detail
    ended = await counter.harness.expect(PurchaseEnded, order.order_id)
    assert ended == PurchaseEnded(
        order_id=order.order_id, account_id=order.family.account_id, reason=code, detail=view.detail
    )
    back = await counter.harness.expect(GiveBackSeat, order.order_id)
    assert back == GiveBackSeat(order_id=order.order_id, reason=code)
    assert await counter.said(order) == [ReserveSeat.TYPE, GiveBackSeat.TYPE, PurchaseEnded.TYPE]
    for table in ("contracts", "lessons"):
        sql = f"SELECT 1 FROM {table} WHERE order_id = $1"
        assert await counter.harness.rows("orders", sql, order.order_id) == [], table
    sql = "SELECT 1 FROM timers WHERE key = $1"
    assert await counter.harness.rows("orders", sql, str(order.order_id)) == [], "nothing is waited for"
    return view


# --- each limit, at its figure and one above it -----------------------------------------------------------------------


async def test_5000_yuan_over_all_open_orders_and_not_a_fen_more(counter: Counter) -> None:
    """[law] 教育部等十三部门 2022, 财务管理暂行办法 2023: 一次收费不超过 5000 元."""
    family, institution = await a_family(counter), new_id()
    first = await bought(counter, family, institution, 300_000)
    one_too_many = await bought(counter, family, institution, 200_001)
    second = await bought(counter, family, institution, 200_000)
    await passed(counter, first, second)
    await refused(
        counter, one_too_many, "course_limit_price", "1 个订单", "5,000.01 元", "2,000.01 元", "上限 5,000.00 元"
    )


async def test_60_lessons_over_all_open_orders_and_not_one_more(counter: Counter) -> None:
    """[law] 教育部等六部门 2021: 一次收费不超过 60 课时."""
    family, institution = await a_family(counter), new_id()
    first = await bought(counter, family, institution, lessons=30)
    one_too_many = await bought(counter, family, institution, lessons=31)
    second = await bought(counter, family, institution, lessons=30)
    await passed(counter, first, second)
    await refused(counter, one_too_many, "course_limit_lessons", "共 61 课时", "本次 31 课时", "上限 60 课时")


async def test_3_months_from_the_first_open_lesson_to_the_last_one_and_not_a_day_more(counter: Counter) -> None:
    """[law] 国办发〔2018〕80号: 一次收费的时间跨度不超过 3 个月. The later part may be bought first."""
    family, institution = await a_family(counter), new_id()
    begins = shanghai(counter.harness.now()).date() + timedelta(days=20)
    ends = add_months(begins, 3)

    def lesson(day: date) -> tuple[LessonTime, ...]:
        return (LessonTime(lesson_no=1, starts_at=at(day), ends_at=at(day) + timedelta(hours=1)),)

    first = await bought(counter, family, institution, plan=lesson(ends))
    early = await bought(counter, family, institution, plan=lesson(begins - timedelta(days=7)))
    second = await bought(counter, family, institution, plan=lesson(begins))
    late = await bought(counter, family, institution, plan=lesson(ends + timedelta(days=1)))
    await passed(counter, first, second)
    await refused(counter, early, "course_limit_span", str(ends), "3 个月")
    await refused(counter, late, "course_limit_span", str(begins), str(ends + timedelta(days=1)), f"至 {ends}")


async def test_all_that_is_broken_is_told_at_once(counter: Counter) -> None:
    family, institution = await a_family(counter), new_id()
    await bought(counter, family, institution, 300_000, 40)
    order = await bought(counter, family, institution, 300_000, 40)
    await refused(counter, order, "course_limit_lessons", "共 80 课时", "6,000.00 元")


# --- whose orders count, and for how long -----------------------------------------------------------------------------


async def test_the_same_child_in_two_accounts_is_one_person(counter: Counter) -> None:
    """A sale split over mother's and father's account is caught [ours]."""
    passport, institution = next(PASSPORTS), new_id()
    mother, father = await a_family(counter, passport), await a_family(counter, passport)
    assert mother.account_id != father.account_id
    first = await bought(counter, mother, institution, 300_000)
    second = await bought(counter, father, institution, 300_000)
    await passed(counter, first)
    view = await refused(counter, second, "course_limit_price", "6,000.00 元")
    assert f"E{passport:08}" not in str(view)


async def test_another_child_and_another_institution_are_another_charge(counter: Counter) -> None:
    family, others, institution = await a_family(counter), await a_family(counter), new_id()
    orders = [
        await bought(counter, who, where, 500_000)
        for who, where in ((family, institution), (others, institution), (family, new_id()))
    ]
    await passed(counter, *orders)


async def test_a_purchase_counts_from_its_seat_until_it_has_ended(counter: Counter) -> None:
    family, institution = await a_family(counter), new_id()
    unheard = await placed(counter, family, institution)
    given_up = await bought(counter, family, institution, 500_000)
    await refused(counter, await bought(counter, family, institution, 1), "course_limit_price")
    await counter.ask(CancelPurchase(order_id=given_up.order_id), given_up)
    again = await bought(counter, family, institution, 500_000)
    await passed(counter, again)
    await counter.answers(unheard, counter.seat(unheard, price_fen=1))
    await refused(counter, unheard, "course_limit_price")


async def test_what_is_consumed_counts_no_more(counter: Counter) -> None:
    """So that a family may buy the next course near the end of the last one [ours]."""
    family, institution = await a_family(counter), new_id()
    first = await bought(counter, family, institution, 500_000, plan=a_plan(counter, 2, -2))
    await enrolled(counter, first)
    await refused(counter, await bought(counter, family, institution, 250_000), "course_limit_price", "7,500.00 元")
    applies = ApplyLesson(order_id=first.order_id, lesson_no=1)
    assert isinstance(await counter.harness.ask(applies, first.institution), LessonAnswer)
    await refused(counter, await bought(counter, family, institution, 250_000), "course_limit_price", "7,500.00 元")
    await counter.harness.ask(ConfirmLesson(order_id=first.order_id, lesson_no=1), family.actor)
    await refused(counter, await bought(counter, family, institution, 250_001), "course_limit_price", "5,000.01 元")
    await passed(counter, await bought(counter, family, institution, 250_000))


# --- age --------------------------------------------------------------------------------------------------------------


async def test_subject_training_is_not_sold_for_a_child_before_school_age(counter: Counter) -> None:
    """[law] “双减”意见 2021: 不得开展面向学龄前儿童的学科类培训. Nobody reads a birth date."""
    born = str(shanghai(counter.harness.now()).year - 4) + "-02-03"
    family, institution = await a_family(counter, born=born), new_id()
    order = await bought(counter, family, institution, category=Category.SUBJECT)
    view = await refused(counter, order, "child_preschool", "学龄前", "年满 6 周岁")
    assert born not in str(view)
    schoolchild = await bought(counter, await a_family(counter), institution, category=Category.SUBJECT)
    other = await bought(counter, family, institution, category=Category.SPORTS)
    await passed(counter, schoolchild, other)


# --- what catalog refuses ---------------------------------------------------------------------------------------------


async def test_what_catalog_says_of_its_refusal_reaches_the_family(counter: Counter) -> None:
    """Lead time, hours, rest days and vacations are checked by catalog when a seat is to be reserved."""
    order = await placed(counter, await a_family(counter), new_id())
    words = "最早可于 2026-12-06 开始收费（开课前 1 个月）"
    problem = Problem(**ProblemBody.of(Refused("course_lead_time", words), ReserveSeat.TYPE).model_dump())
    await counter.answers(order, problem)
    view = await refused(counter, order, "course_lead_time")
    assert view.detail == words


# --- at once ----------------------------------------------------------------------------------------------------------


def poll(counter: Counter, offers: Sequence[SeatReserved]) -> list["ConsumerRecord[Any, Any]"]:
    """Offers, as one poll brings them."""
    records = []
    for offer in offers:
        message_id = new_id()
        body = {
            "specversion": "1.0",
            "id": message_id,
            "source": "/yike/test",
            "type": offer.TYPE,
            "time": counter.harness.now(),
            "correlationid": message_id,
            "partitionkey": str(offer.order_id),
            "data": offer,
        }
        topic, value = counter.harness.client_settings.namespace + topics.replies("orders"), encode(body).encode()
        records.append(ConsumerRecord(topic, 0, next(OFFSETS), 0, 0, b"", value, None, 0, len(value), ()))
    return records


async def test_in_one_poll_each_is_decided_after_those_before_it(
    counter: Counter, copies: tuple[Service, Service]
) -> None:
    family, institution = await a_family(counter), new_id()
    orders = [await placed(counter, family, institution) for _ in range(4)]
    prices = (200_000, 300_001, 300_000, 1)
    offers = [counter.seat(order, price_fen=price) for order, price in zip(orders, prices, strict=True)]
    await copies[0].consumer.handle(poll(counter, offers))
    await passed(counter, orders[0], orders[2])
    await refused(counter, orders[1], "course_limit_price", "5,000.01 元")
    await refused(counter, orders[3], "course_limit_price", "2 个订单", "5,000.01 元")
    assert len(counter.harness.seen(ContractDrawn, orders[1].order_id)) == 0


async def test_of_two_purchases_that_race_in_two_copies_exactly_one_passes(
    counter: Counter, copies: tuple[Service, Service]
) -> None:
    for _ in range(10):
        passport, institution = next(PASSPORTS), new_id()
        families = [await a_family(counter, passport), await a_family(counter, passport)]
        orders = [await placed(counter, family, institution) for family in families]
        polls = [poll(counter, [counter.seat(order, price_fen=300_000)]) for order in orders]
        await asyncio.gather(*(copy.consumer.handle(one) for copy, one in zip(copies, polls, strict=True)))
        states = [await counter.state(order) for order in orders]
        assert sorted(states) == ["ended", "to_sign"]
        await refused(counter, orders[states.index("ended")], "course_limit_price", "6,000.00 元")


async def test_batches_that_meet_the_same_children_crosswise_never_deadlock(
    counter: Counter, copies: tuple[Service, Service]
) -> None:
    async def sums(service: Service, places: list[Place]) -> None:
        async with service.consumer.database.session() as session, session.begin():
            work = UnitOfWork("orders", session, counter.harness.ring("orders"), counter.harness.now())
            await open_charges(work, places)

    places = [(os.urandom(32), new_id()) for _ in range(3000)]
    for _ in range(4):  # the first time the rows are made, then they are there
        await asyncio.gather(sums(copies[0], places), sums(copies[1], places[::-1]))
