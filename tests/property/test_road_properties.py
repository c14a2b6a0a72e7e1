"""How a poll is grouped, and when two messages ask the same."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from operator import attrgetter
from typing import Any
from uuid import UUID

import pydantic_core
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.envelope import Data, Message, content_hash
from shared.ids import derived_id
from shared.messaging.handlers import in_groups

TIME = datetime(2026, 1, 5, tzinfo=UTC)
TYPES = ("a.v1", "b.v1", "c.v1", "d.v1")
KEYS = ("", "k1", "k2", "k3")
TYPE_OF = attrgetter("type")


def message(number: int, type_: str, key: str) -> Message[Any]:
    """A message of which only the type and the key matter."""
    return made(derived_id(number), type=type_, partitionkey=key)


def made(id_: UUID, **fields: str) -> Message[Any]:
    """A message with these fields."""
    texts = {"type": "t", "source": "s"} | fields
    values: dict[str, Any] = {"id": id_, "correlationid": id_, "time": TIME, "data": Data(), **texts}
    return Message[Data].model_construct(**values)


polls = st.lists(st.tuples(st.sampled_from(TYPES), st.sampled_from(KEYS)), max_size=60).map(
    lambda pairs: [message(number, type_, key) for number, (type_, key) in enumerate(pairs)]
)


@given(polls)
def test_every_message_is_in_one_group_and_every_group_has_one_type(poll: list[Message[Any]]) -> None:
    groups = in_groups(poll, TYPE_OF)
    assert sorted(m.id for group in groups for m in group) == sorted(m.id for m in poll)
    assert all(group and len({m.type for m in group}) == 1 for group in groups)


@given(polls)
def test_messages_of_one_key_keep_their_order(poll: list[Message[Any]]) -> None:
    handled = [m for group in in_groups(poll, TYPE_OF) for m in group]
    for key in filter(None, KEYS):
        assert [m.id for m in handled if m.partitionkey == key] == [m.id for m in poll if m.partitionkey == key]


@given(polls)
def test_groups_are_few(poll: list[Message[Any]]) -> None:
    # No two groups of one type stand where one would do: between them stands what orders them.
    groups = in_groups(poll, TYPE_OF)
    assert len(groups) <= len(poll)
    assert all(first[0].type != second[0].type for first, second in pairwise(groups))
    if not any(m.partitionkey for m in poll):
        assert len(groups) == len({m.type for m in poll})
    changes = {
        key: sum(a.type != b.type for a, b in pairwise([m for m in poll if m.partitionkey == key]))
        for key in KEYS
        if key
    }
    assert len(groups) <= len(TYPES) * (1 + sum(changes.values()))


@given(st.integers(2, 60), st.integers(1, 4))
def test_one_story_told_for_many_keys_is_as_many_groups_as_the_story_has_steps(keys: int, steps: int) -> None:
    story = [message(key * 10 + step, TYPES[step], f"order {key}") for key in range(keys) for step in range(steps)]
    assert len(in_groups(story, TYPE_OF)) == steps
    assert len(in_groups(sorted(story, key=TYPE_OF), TYPE_OF)) == steps


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=12
)


def shuffled(value: Any) -> Any:
    """The same value with the fields of every object in another order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(list(value))}
    return [shuffled(one) for one in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_fields_asks_nothing_else(data: Any) -> None:
    assert content_hash("t", data) == content_hash("t", shuffled(data))


@given(values, values)
def test_other_content_has_another_hash(one: Any, other: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_hash("t", one) == content_hash("t", other)) == same


@given(values)
def test_the_type_is_part_of_what_is_asked(data: Any) -> None:
    assert content_hash("a", data) != content_hash("b", data)


@given(values)
def test_a_body_read_from_the_wire_has_the_hash_of_what_was_written(data: Any) -> None:
    wire = json.dumps({"data": data}).encode()
    try:
        read = pydantic_core.from_json(wire)["data"]
    except ValueError:  # lone surrogates are no JSON to a strict reader
        return
    spaced = json.dumps({"data": data}, indent=3, ensure_ascii=False).encode(errors="surrogatepass")
    assert content_hash("t", read) == content_hash("t", pydantic_core.from_json(spaced)["data"])


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_an_idempotency_key_stands_for_the_message_and_an_empty_one_does_not(one: str, other: str) -> None:
    ids = [UUID(int=n) for n in (1, 2)]

    def asked(id_: UUID, key: str) -> UUID:
        return made(id_, idempotencykey=key).dedup_id

    assert asked(ids[0], one) == asked(ids[1], one)
    assert (asked(ids[0], one) == asked(ids[0], other)) == (one == other)
    assert [asked(id_, "") for id_ in ids] == ids
