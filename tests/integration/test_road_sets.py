"""Load many, save many: every kind of column goes in and comes out as it was, in one statement per table."""

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import UUID

import pytest
from sqlalchemy import BigInteger, Double, LargeBinary, MetaData, SmallInteger, Text, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from ops.stack.servers import Servers
from shared.database import Database
from shared.ids import new_id
from shared.messaging import sets
from shared.tables import UTC_TIME, service_metadata
from tests.roadkit import make_database

metadata = service_metadata()


class Base(SQLModel, registry=registry(metadata=metadata)):
    """Beside those of the road kit."""

    metadata: ClassVar[MetaData] = metadata


class State(enum.StrEnum):
    """A state."""

    OPEN = "open"
    DONE = "done"


class ThingRow(Base, table=True):
    """Every type of column the services use."""

    __tablename__ = "road_things"
    thing_id: UUID = Field(primary_key=True)
    name: str = Field(max_length=100)
    note: str | None = Field(sa_type=Text)
    small: int = Field(sa_type=SmallInteger)
    fen: int = Field(sa_type=BigInteger)
    count: int
    ratio: float = Field(sa_type=Double)
    done: bool
    at: datetime | None = Field(sa_type=UTC_TIME)
    digest: bytes | None = Field(sa_type=LargeBinary)
    state: str = Field(max_length=10)
    before: str | None = Field(max_length=10)
    extra: dict[str, Any] | None = Field(sa_type=JSONB)
    parts: list[Any] = Field(sa_type=JSONB)


class PairRow(Base, table=True):
    """A key of two columns."""

    __tablename__ = "road_pairs"
    order_id: UUID = Field(primary_key=True)
    lesson_no: int = Field(primary_key=True, sa_type=SmallInteger)
    fen: int = Field(sa_type=BigInteger)


@dataclass
class Thing:
    """Its state."""

    thing_id: UUID
    name: str = "一课一销 'quoted' {braces} \\ %s :colon"
    note: str | None = None
    small: int = -32768
    fen: int = 2**63 - 1
    count: int = -(2**31)
    ratio: float = 0.1
    done: bool = True
    at: datetime | None = None
    digest: bytes | None = None
    state: State = State.OPEN
    before: State | None = None
    extra: dict[str, Any] | None = None
    parts: list[Any] = field(default_factory=list)


@dataclass
class Pair:
    """Its state."""

    order_id: UUID
    lesson_no: int
    fen: int = 0


@pytest.fixture(scope="module")
async def tables(servers: Servers) -> AsyncIterator[Database]:
    """A database with the tables of this module."""
    async with make_database(servers) as database:
        async with database.engine.begin() as connection:
            mine = [metadata.tables[row.__tablename__] for row in (ThingRow, PairRow)]
            await connection.run_sync(metadata.create_all, tables=mine)
        yield database


@pytest.fixture
async def session(tables: Database) -> AsyncIterator[AsyncSession]:
    """A transaction that is not committed."""
    async with tables.session() as session, session.begin():
        yield session
        await session.rollback()


def things() -> list[Thing]:
    """One with nothing, one with everything, in the order of their ids."""
    full = Thing(
        new_id(),
        note="",
        small=32767,
        at=datetime(2026, 1, 5, 8, 0, 0, 123456, tzinfo=UTC),
        digest=b"\0\xff",
        state=State.DONE,
        before=State.OPEN,
        extra={"名": ["x", 1, None, 1.5, {"deep": True}], "id": str(new_id())},
        parts=["a", {"b": 2}, None],
    )
    return [Thing(new_id(), done=False), full]


async def test_what_goes_in_comes_out_as_it_was(session: AsyncSession) -> None:
    written = things()
    assert await sets.write(session, sets.insert(ThingRow, written)) == 2
    found = await sets.load(session, ThingRow, Thing, [one.thing_id for one in written])
    assert list(found.values()) == sorted(written, key=lambda one: one.thing_id)
    for one in found.values():
        assert type(one.state) is State
        assert type(one.before) in (State, type(None))


async def test_an_update_writes_the_named_columns_and_no_other(session: AsyncSession) -> None:
    written = things()
    await sets.write(session, sets.insert(ThingRow, written))
    changed = [
        replace(
            one,
            name="new",
            note=None if one.note is not None else "x",
            extra={"n": 1},
            parts=[],
            state=State.DONE,
            fen=7,
        )
        for one in written
    ]
    await sets.write(session, sets.update(ThingRow, changed, "name", "note", "extra", "parts", "state"))
    found = await sets.load(session, ThingRow, Thing, [one.thing_id for one in written])
    assert [found[one.thing_id] for one in written] == [replace(new, fen=2**63 - 1) for new in changed]
    await sets.write(session, sets.update(ThingRow, [replace(one, extra=None) for one in changed], "extra"))
    found = await sets.load(session, ThingRow, Thing, [one.thing_id for one in written])
    assert {one.extra for one in found.values()} == {None}


async def test_json_null_is_sql_null(session: AsyncSession) -> None:
    await sets.write(session, sets.insert(ThingRow, [Thing(new_id())]))
    result = await (await session.connection()).exec_driver_sql("SELECT count(*) FROM road_things WHERE extra IS NULL")
    assert result.scalar_one() == 1


async def test_a_key_of_two_columns_finds_pairs_and_not_their_mixture(session: AsyncSession) -> None:
    first, second = new_id(), new_id()
    pairs = [Pair(order, lesson, lesson) for order in (first, second) for lesson in (1, 2)]
    await sets.write(session, sets.insert(PairRow, pairs))
    found = await sets.load(session, PairRow, Pair, [(first, 1), (second, 2), (second, 9)])
    assert found == {(first, 1): Pair(first, 1, 1), (second, 2): Pair(second, 2, 2)}
    await sets.write(session, sets.update(PairRow, [Pair(first, 1, 100)], "fen"))
    assert [one.fen for one in await sets.load_all(session, PairRow, Pair, [first, second], by=["order_id"])] == [
        100,
        2,
        1,
        2,
    ]


async def test_a_row_that_is_there_is_kept_or_refused_as_asked(session: AsyncSession) -> None:
    old = Pair(new_id(), 1, 1)
    assert await sets.write(session, sets.insert(PairRow, [old])) == 1
    rows = [replace(old, fen=2), Pair(new_id(), 1, 3)]
    assert await sets.write(session, sets.insert(PairRow, rows, ignore_existing=True)) == 1
    assert (await sets.load(session, PairRow, Pair, [(old.order_id, 1)]))[old.order_id, 1].fen == 1
    with pytest.raises(IntegrityError):
        await sets.write(session, sets.insert(PairRow, rows))


async def test_nothing_asks_nothing(tables: Database, session: AsyncSession) -> None:
    statements: list[str] = []
    event.listen(tables.engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert await sets.load(session, ThingRow, Thing, []) == {}
    assert await sets.load_all(session, ThingRow, Thing, []) == []
    assert await sets.write(session, sets.insert(ThingRow, [])) == 0
    await sets.write(session, sets.update(ThingRow, [], "name"))
    assert statements == []
    many = [Thing(new_id()) for _ in range(500)]
    await sets.write(session, sets.insert(ThingRow, many))
    await sets.load(session, ThingRow, Thing, [one.thing_id for one in many] * 2)
    await sets.write(session, sets.update(ThingRow, many, "name", "fen"))
    assert len(statements) == 3


async def test_loaded_rows_are_locked_in_the_order_of_their_keys_unless_they_are_only_read(tables: Database) -> None:
    pairs = [Pair(new_id(), 1) for _ in range(3)]
    async with tables.session() as setup, setup.begin():
        await sets.write(setup, sets.insert(PairRow, pairs))
    keys = [(one.order_id, 1) for one in reversed(pairs)]
    async with tables.session() as one, one.begin(), tables.session() as two, two.begin():
        assert [pair.order_id for pair in (await sets.load(one, PairRow, Pair, keys)).values()] == sorted(
            pair.order_id for pair in pairs
        )
        assert len(await sets.load(two, PairRow, Pair, keys, lock=False)) == 3
        free = await (await two.connection()).exec_driver_sql("SELECT 1 FROM road_pairs FOR UPDATE SKIP LOCKED")
        assert free.all() == []
