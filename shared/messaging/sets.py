"""Load many, save many: one statement per table to load, and one for all tables to write, whatever the number of rows.

A row travels as a plain dataclass (the state a `domain.py` decides on) whose field names are column names; the SQL is
made once per table from its SQLModel definition. Rows are locked in key order, so two batches never deadlock.
"""

import dataclasses
import enum
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from types import UnionType
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import pydantic_core
from sqlalchemy import Column, TextClause, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

T = TypeVar("T")
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def _table(model: type[SQLModel]) -> Any:
    return model.__table__  # type: ignore[attr-defined]


def _array(column: Column[Any]) -> str:
    type_, _, _ = column.type.compile(dialect=_DIALECT).partition(
        " COLLATE "
    )  # an order is the column's, not a value's
    return f"CAST(:@{column.name} AS {type_}[])"


def _to_enum(hint: Any) -> Callable[[Any], Any] | None:
    """What makes a text the enum that `hint` says, where it says one (`State`, `State | None`)."""
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for option in options:
        if isinstance(option, type) and issubclass(option, enum.Enum):
            return lambda value: None if value is None else option(value)
    return None


def _to_json(value: Any) -> Any:
    return None if value is None else pydantic_core.to_json(value).decode()


@dataclasses.dataclass(frozen=True)
class _Loading:
    statement: TextClause
    build: Callable[[Sequence[Any]], Any]
    key: Callable[[Any], Any]


def _builder(into: type[T]) -> tuple[list[str], Callable[[Sequence[Any]], T]]:
    """Column names of `into` and a function that makes one from a row of them."""
    hints = get_type_hints(into)
    names = [field.name for field in dataclasses.fields(into)]  # type: ignore[arg-type]
    converters = [(position, to) for position, name in enumerate(names) if (to := _to_enum(hints[name]))]

    def build(row: Sequence[Any]) -> T:
        values = list(row)
        for position, convert in converters:
            values[position] = convert(values[position])
        return into(*values)

    return names, build


@functools.cache
def _loading(model: type[SQLModel], into: type[Any], by: tuple[str, ...], lock: bool) -> _Loading:
    table = _table(model)
    names, build = _builder(into)
    wanted = ", ".join(f"t.{name}" for name in names)
    if len(by) == 1:
        where = f"WHERE t.{by[0]} = ANY({_array(table.c[by[0]])})"
    else:
        arrays = ", ".join(_array(table.c[name]) for name in by)
        pairs = ", ".join(f"t.{name}" for name in by)
        where = f"WHERE ({pairs}) IN (SELECT * FROM unnest({arrays}))"
    order = ", ".join(f"t.{column.name}" for column in table.primary_key.columns)
    sql = f"SELECT {wanted} FROM {table.name} t {where} ORDER BY {order}" + (" FOR UPDATE OF t" if lock else "")

    def key(row: Any) -> Any:
        return getattr(row, by[0]) if len(by) == 1 else tuple(getattr(row, name) for name in by)

    return _Loading(text(sql.replace(":@", ":")), build, key)


def primary_key(model: type[SQLModel]) -> tuple[str, ...]:
    """Names of the primary key columns."""
    return tuple(column.name for column in _table(model).primary_key.columns)


async def load_all(
    session: AsyncSession,
    model: type[SQLModel],
    into: type[T],
    keys: Collection[Any],
    *,
    by: Sequence[str] = (),
    lock: bool = True,
) -> list[T]:
    """Rows of `model` whose `by` columns (default: the primary key) are among `keys`, as `into`, in key order.

    A key is a value, or a tuple where `by` has several columns. With `lock`, the rows are locked until the commit.
    """
    by = tuple(by) or primary_key(model)
    unique = set(keys)
    if not unique:
        return []
    loading = _loading(model, cast(Any, into), by, lock)
    if len(by) == 1:
        parameters: dict[str, Any] = {by[0]: list(unique)}
    else:
        parameters = {name: [key[position] for key in unique] for position, name in enumerate(by)}
    result = await (await session.connection()).execute(loading.statement, parameters)
    return [loading.build(row) for row in result]


async def load(
    session: AsyncSession,
    model: type[SQLModel],
    into: type[T],
    keys: Collection[Any],
    *,
    by: Sequence[str] = (),
    lock: bool = True,
) -> dict[Any, T]:
    """As `load_all`, as a dict by key; for keys that are unique."""
    rows = await load_all(session, model, into, keys, by=by, lock=lock)
    key = _loading(model, cast(Any, into), tuple(by) or primary_key(model), lock).key
    return {key(row): row for row in rows}


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Write:
    """What is to be written to one table. `sql` names its parameters `:@name`, `values` has them.

    Two writes may share a statement unless they may touch the same row; then they have the same `place`, a name. What
    a write returns, a later one may read as `_<place>`.
    """

    place: str
    sql: str
    values: dict[str, Any]


NOTHING: Final = Write("", "", {})


@functools.cache
def _inserting(model: type[SQLModel], names: tuple[str, ...], ignore_existing: bool) -> str:
    table = _table(model)
    arrays = ", ".join(_array(table.c[name]) for name in names)
    conflict = " ON CONFLICT DO NOTHING" if ignore_existing else ""
    return f"INSERT INTO {table.name} ({', '.join(names)}) SELECT * FROM unnest({arrays}){conflict}"


@functools.cache
def _updating(model: type[SQLModel], names: tuple[str, ...]) -> str:
    table = _table(model)
    keys = primary_key(model)
    arrays = ", ".join(_array(table.c[name]) for name in (*keys, *names))
    assignments = ", ".join(f"{name} = u.{name}" for name in names)
    same = " AND ".join(f"t.{name} = u.{name}" for name in keys)
    return (
        f"UPDATE {table.name} t SET {assignments} "
        f"FROM unnest({arrays}) AS u ({', '.join((*keys, *names))}) WHERE {same}"
    )


def _columns(model: type[SQLModel], names: Iterable[str], rows: Sequence[Any]) -> dict[str, list[Any]]:
    table_columns = _table(model).c
    values: dict[str, list[Any]] = {}
    for name in names:
        column = list(map(attrgetter(name), rows))
        values[name] = [_to_json(v) for v in column] if isinstance(table_columns[name].type, JSONB) else column
    return values


def insert(model: type[SQLModel], rows: Sequence[Any], *, ignore_existing: bool = False) -> Write:
    """New rows, dataclasses of one type. With `ignore_existing` one whose unique key is there already is left as it
    is."""
    if not rows:
        return NOTHING
    names = tuple(field.name for field in dataclasses.fields(rows[0]))
    return Write(_table(model).name, _inserting(model, names, ignore_existing), _columns(model, names, rows))


def update(model: type[SQLModel], rows: Iterable[Any], *names: str) -> Write:
    """The columns `names` of `rows`, found by primary key. Each key at most once."""
    if not (changed := list(rows)):
        return NOTHING
    values = _columns(model, (*primary_key(model), *names), changed)
    return Write(_table(model).name, _updating(model, names), values)


@functools.cache
def _together(parts: tuple[tuple[str, str], ...]) -> TextClause:
    """The parts (place, SQL) as one statement: all but the last stand before it as WITH."""
    numbered = [(place, part.replace(":@", f":p{number}_")) for number, (place, part) in enumerate(parts)]
    before = ", ".join(f"_{place} AS ({part})" for place, part in numbered[:-1])
    return text((f"WITH {before} " if before else "") + numbered[-1][1])


async def write(session: AsyncSession, *writes: Write) -> int:
    """Executes `writes` in as few statements as their places allow. Returns the number of rows of the last write."""
    statements: list[list[Write]] = [[]]
    for one in writes:
        if one is NOTHING:
            continue
        if any(one.place == other.place for other in statements[-1]):
            statements.append([])
        statements[-1].append(one)
    rows = 0
    for parts in statements:
        if parts:
            values = {f"p{number}_{name}": v for number, part in enumerate(parts) for name, v in part.values.items()}
            statement = _together(tuple((part.place, part.sql) for part in parts))
            result = await (await session.connection()).execute(statement, values)
            rows = int(result.rowcount)
    return rows
