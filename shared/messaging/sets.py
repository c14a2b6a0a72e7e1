"""Load many, save many: one statement per table, whatever the number of rows.

A row travels as a plain dataclass (the state a `domain.py` decides on) whose field names are column names; the SQL is
made once per table from its SQLModel definition. Rows are locked in key order, so two batches never deadlock.
"""

import dataclasses
import enum
import functools
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from types import UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import pydantic_core
from sqlalchemy import Column, TextClause, Uuid, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

T = TypeVar("T")
_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def _table(model: type[SQLModel]) -> Any:
    return model.__table__  # type: ignore[attr-defined]


def _array(column: Column[Any]) -> str:
    return f"CAST(:{column.name} AS {column.type.compile(dialect=_DIALECT)}[])"


def _indexed(table: Any, names: Sequence[str]) -> str:
    """A condition that a join with unnest implies already, in the words for which the planner always takes the index.

    Plans are prepared while a table is small and kept while it grows: a join alone was once planned as a scan of all.
    An id says enough by itself; another first column (the bank of a number) may have the same value in every row.
    """
    said = names[:1] if isinstance(table.c[names[0]].type, Uuid) else names
    return " AND ".join(f"t.{name} = ANY({_array(table.c[name])})" for name in said)


def _from_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


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


def _builder(model: type[SQLModel], into: type[T]) -> tuple[list[str], Callable[[Sequence[Any]], T]]:
    """Column names of `into` and a function that makes one from a row of them."""
    hints = get_type_hints(into)
    columns = _table(model).c
    names = [field.name for field in dataclasses.fields(into)]  # type: ignore[arg-type]
    converters: list[tuple[int, Callable[[Any], Any]]] = []
    for position, name in enumerate(names):
        if to_enum := _to_enum(hints[name]):
            converters.append((position, to_enum))
        elif isinstance(columns[name].type, JSONB):
            converters.append((position, _from_json))

    def build(row: Sequence[Any]) -> T:
        values = list(row)
        for position, convert in converters:
            values[position] = convert(values[position])
        return into(*values)

    return names, build


@functools.cache
def _loading(model: type[SQLModel], into: type[Any], by: tuple[str, ...], lock: bool) -> _Loading:
    table = _table(model)
    names, build = _builder(model, into)
    wanted = ", ".join(f"t.{name}" for name in names)
    if len(by) == 1:
        where = f"WHERE t.{by[0]} = ANY({_array(table.c[by[0]])})"
    else:
        arrays = ", ".join(_array(table.c[name]) for name in by)
        pairs = ", ".join(f"t.{name}" for name in by)
        where = f"WHERE ({pairs}) IN (SELECT * FROM unnest({arrays})) AND {_indexed(table, by)}"
    order = ", ".join(f"t.{column.name}" for column in table.primary_key.columns)
    statement = text(
        f"SELECT {wanted} FROM {table.name} t {where} ORDER BY {order}" + (" FOR UPDATE OF t" if lock else "")
    )

    def key(row: Any) -> Any:
        return getattr(row, by[0]) if len(by) == 1 else tuple(getattr(row, name) for name in by)

    return _Loading(statement, build, key)


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


@functools.cache
def _inserting(model: type[SQLModel], names: tuple[str, ...], ignore_existing: bool) -> TextClause:
    table = _table(model)
    arrays = ", ".join(_array(table.c[name]) for name in names)
    conflict = " ON CONFLICT DO NOTHING" if ignore_existing else ""
    return text(f"INSERT INTO {table.name} ({', '.join(names)}) SELECT * FROM unnest({arrays}){conflict}")


@functools.cache
def _updating(model: type[SQLModel], names: tuple[str, ...]) -> TextClause:
    table = _table(model)
    keys = primary_key(model)
    arrays = ", ".join(_array(table.c[name]) for name in (*keys, *names))
    assignments = ", ".join(f"{name} = u.{name}" for name in names)
    same = " AND ".join(f"t.{name} = u.{name}" for name in keys)
    return text(
        f"UPDATE {table.name} t SET {assignments} "
        f"FROM unnest({arrays}) AS u ({', '.join((*keys, *names))}) WHERE {same} AND {_indexed(table, keys)}"
    )


def _columns(model: type[SQLModel], names: Iterable[str], rows: Sequence[Any]) -> dict[str, list[Any]]:
    table_columns = _table(model).c
    values: dict[str, list[Any]] = {}
    for name in names:
        column = [getattr(row, name) for row in rows]
        values[name] = [_to_json(v) for v in column] if isinstance(table_columns[name].type, JSONB) else column
    return values


async def insert(
    session: AsyncSession, model: type[SQLModel], rows: Sequence[Any], *, ignore_existing: bool = False
) -> int:
    """Inserts `rows` (dataclasses of one type) in one statement; returns how many were new.

    With `ignore_existing` a row whose unique key is there already is left as it is.
    """
    if not rows:
        return 0
    names = tuple(field.name for field in dataclasses.fields(rows[0]))
    statement = _inserting(model, names, ignore_existing)
    result = await (await session.connection()).execute(statement, _columns(model, names, rows))
    return int(result.rowcount)


async def update(session: AsyncSession, model: type[SQLModel], rows: Iterable[Any], *names: str) -> None:
    """Writes the columns `names` of `rows`, found by primary key, in one statement. Each key at most once."""
    rows = list(rows)
    if not rows:
        return
    parameters = _columns(model, (*primary_key(model), *names), rows)
    await (await session.connection()).execute(_updating(model, names), parameters)
