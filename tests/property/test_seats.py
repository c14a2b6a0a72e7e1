"""Seats: whatever arrives, late, twice or in any order, no seat is ever counted twice or sold to two orders."""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from services.catalog.domain import Reservation, SeatBook, Seats
from shared.contracts.errors import Refused

ORDERS = [UUID(int=number) for number in range(1, 6)]
COURSES = [UUID(int=number) for number in range(101, 103)]
START = datetime(2026, 3, 1, tzinfo=UTC)
KEPT_FOR = timedelta(minutes=15)

Order = int
Course = int
Command = tuple[Order, Course]
Batch = tuple[str, list[Command], int]
"""What the road hands over at once: commands of one kind, and how many minutes have passed since the last batch."""

commands = st.tuples(st.integers(0, len(ORDERS) - 1), st.integers(0, len(COURSES) - 1))
kinds = st.sampled_from(["reserve", "take", "give_back", "extend", "expire"])
batches = st.lists(st.tuples(kinds, st.lists(commands, min_size=1, max_size=6), st.integers(0, 20)), max_size=25)
capacities = st.lists(st.integers(1, 3), min_size=len(COURSES), max_size=len(COURSES))


class Tables:
    """What is stored. A batch works on copies, as rows loaded from a database are."""

    def __init__(self, seats: Sequence[int]) -> None:
        self.courses = {key: Seats(key, n, 0, 0) for key, n in zip(COURSES, seats, strict=True)}
        self.reservations: dict[UUID, Reservation] = {}
        self.now = START

    def load(self) -> SeatBook:
        return SeatBook(copy.deepcopy(self.reservations), copy.deepcopy(self.courses), self.now)

    def save(self, book: SeatBook) -> None:
        assert not book.made.keys() & self.reservations.keys(), "a row would be inserted twice"
        assert book.changed.keys() <= self.reservations.keys(), "a row would be updated that is not there"
        self.reservations |= book.made | book.changed
        self.courses |= book.counted


def send(book: SeatBook, kind: str, command: Command) -> str:
    """One command as the use cases give it to the book; the answer in one word."""
    order_id, course_id = ORDERS[command[0]], COURSES[command[1]]
    try:
        if kind == "reserve":
            if book.standing(order_id, course_id) is None:
                book.reserve(order_id, course_id, {"bank": "b"}, book.now + KEPT_FOR)
        elif kind == "take":
            book.take(order_id)
        elif kind == "give_back":
            book.give_back(order_id, "cancelled")
        elif kind == "extend":
            book.extend(order_id, book.now + 2 * KEPT_FOR)
        else:
            book.expire(order_id)
    except Refused as refused:
        return refused.code
    return "done"


def assert_counted_once(book: SeatBook) -> None:
    for course_id, seats in book.courses.items():
        states = [one.state for one in book.reservations.values() if one.course_id == course_id]
        assert seats.reserved == states.count("reserved")
        assert seats.taken == states.count("taken")
        assert 0 <= seats.free <= seats.seats


@given(capacities, batches)
@settings(max_examples=300)
def test_the_counts_of_a_course_are_the_states_of_its_reservations(seats: list[int], story: list[Batch]) -> None:
    tables = Tables(seats)
    for kind, batch, minutes in story:
        tables.now += timedelta(minutes=minutes)
        book = tables.load()
        for command in batch:
            send(book, kind, command)
            assert_counted_once(book)
        tables.save(book)
        assert (tables.courses, tables.reservations) == (book.courses, book.reservations), "not all was written"


@given(capacities, batches)
def test_an_order_that_was_given_back_never_holds_a_seat_again(seats: list[int], story: list[Batch]) -> None:
    tables = Tables(seats)
    ended: set[UUID] = set()
    for kind, batch, minutes in story:
        tables.now += timedelta(minutes=minutes)
        book = tables.load()
        for command in batch:
            answer = send(book, kind, command)
            order_id = ORDERS[command[0]]
            if order_id in ended and kind in ("reserve", "take", "extend"):
                assert answer == "seat_expired"
            if kind == "give_back":
                assert answer == "done"
                ended.add(order_id)
        tables.save(book)
        assert {key for key, one in tables.reservations.items() if one.state == "given_back"} == ended


@given(capacities, batches, st.integers(1, 3))
def test_the_same_command_again_is_answered_the_same_and_changes_nothing(
    seats: list[int], story: list[Batch], times: int
) -> None:
    tables = Tables(seats)
    for kind, batch, minutes in story:
        tables.now += timedelta(minutes=minutes)
        book = tables.load()
        for command in batch:
            answer = send(book, kind, command)
            before = copy.deepcopy((book.courses, book.reservations))
            assert [send(book, kind, command) for _ in range(times)] == [answer] * times
            assert (book.courses, book.reservations) == before
        tables.save(book)


@given(capacities, batches)
def test_a_refused_command_changes_nothing(seats: list[int], story: list[Batch]) -> None:
    tables = Tables(seats)
    for kind, batch, minutes in story:
        tables.now += timedelta(minutes=minutes)
        book = tables.load()
        for command in batch:
            before = copy.deepcopy(book)
            if send(book, kind, command) != "done":
                assert book == before
        tables.save(book)


@given(st.integers(1, 4), st.permutations(ORDERS))
def test_of_all_who_want_the_last_seats_exactly_as_many_get_one_and_they_came_first(
    seats: int, arrivals: list[UUID]
) -> None:
    book = Tables([seats, 1]).load()
    answers = [send(book, "reserve", (ORDERS.index(order_id), 0)) for order_id in arrivals]
    assert answers == ["done"] * seats + ["course_full"] * (len(ORDERS) - seats)


@given(st.permutations(["take", "expire", "give_back", "extend", "reserve"] * 2), st.integers(0, 40))
def test_once_time_and_the_end_of_the_order_have_come_its_seat_is_free(arrivals: list[str], minutes: int) -> None:
    tables = Tables([1, 1])
    for kind in ["reserve", *arrivals]:
        tables.now += timedelta(minutes=minutes)
        book = tables.load()
        send(book, kind, (0, 0))
        assert_counted_once(book)
        tables.save(book)
    assert tables.courses[COURSES[0]].free == 1
