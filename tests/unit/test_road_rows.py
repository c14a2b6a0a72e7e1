"""What a batch writes of the road's own tables: messages, timers, kept answers, in which order and which of several."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from shared.messaging import inbox, outbox, sets
from shared.messaging.outbox import OutboxRow, TimerRow
from shared.messaging.sets import NOTHING, Write

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
ONE, TWO, THREE = UUID(int=1), UUID(int=2), UUID(int=3)


def row(id_: UUID, partition: int | None = None) -> OutboxRow:
    """A message to publish."""
    return OutboxRow(id_, "topic", f"key {id_.int}", partition, "type.v1", TWO, "replies", "trace", "{}")


def timer(type_: str, subject: str, id_: UUID, due_at: datetime | None = NOW) -> TimerRow:
    """A timer to set, or to cancel."""
    return TimerRow(type_, subject, id_, due_at, "{}", "key", TWO, None, "trace")


def test_messages_are_written_in_their_order_with_all_their_columns_and_then_wait() -> None:
    write, wait = outbox.messages([row(TWO), row(ONE, 3)])
    assert (write.place, wait.place, wait.values) == ("outbox", "unsent", {})
    assert write.values == {
        "id": [TWO, ONE],
        "topic": ["topic", "topic"],
        "key": ["key 2", "key 1"],
        "partition": [None, 3],
        "type": ["type.v1", "type.v1"],
        "correlationid": [TWO, TWO],
        "replyto": ["replies", "replies"],
        "traceparent": ["trace", "trace"],
        "body": ["{}", "{}"],
    }
    assert all(f":@{name}" in write.sql for name in write.values)
    assert "FROM _outbox" in wait.sql, "what waits is what was written"


def test_nothing_said_is_nothing_written() -> None:
    assert outbox.messages([]) == (NOTHING, NOTHING)
    assert outbox.timers([]) == (NOTHING, NOTHING)
    assert inbox.notes("catalog", [], {}) is NOTHING


def test_of_several_wishes_for_a_timer_the_last_counts_and_they_are_written_in_the_order_of_their_keys() -> None:
    wanted = [
        timer("b", "2", ONE),
        timer("a", "9", ONE),
        timer("b", "2", TWO, None),
        timer("b", "1", ONE, None),
        timer("b", "1", THREE),
    ]
    cancelled, kept = outbox.timers(wanted)
    assert (cancelled.place, cancelled.values) == ("timers_cancelled", {"type": ["b"], "subject": ["2"]})
    assert kept.place == "timers_set"
    assert list(zip(kept.values["type"], kept.values["subject"], kept.values["id"], strict=True)) == [
        ("a", "9", ONE),
        ("b", "1", THREE),
    ]
    assert set(kept.values) == set(TimerRow.__slots__)
    assert all(f":@{name}" in kept.sql for name in kept.values)


def test_only_setting_cancels_nothing_and_only_cancelling_sets_nothing() -> None:
    cancelled, kept = outbox.timers([timer("a", "1", ONE)])
    assert (cancelled, kept.values["due_at"]) == (NOTHING, [NOW])
    cancelled, kept = outbox.timers([timer("a", "1", ONE, None)])
    assert (cancelled.values["subject"], kept) == (["1"], NOTHING)


def test_the_last_answer_is_kept_with_its_message_and_the_letter_with_the_one_it_holds() -> None:
    write = inbox.notes("catalog", [(ONE, "first"), (TWO, "other"), (ONE, "last")], {TWO: THREE, THREE: ONE})
    assert write.place == "inbox"
    assert write.values == {
        "consumer": "catalog",
        "ids": [ONE, TWO, THREE],
        "replies": ["last", "other", None],
        "letters": [None, THREE, ONE],
    }


def test_the_letters_of_a_message_are_in_the_order_of_their_making_and_come_after_it() -> None:
    claims: list[Any] = [inbox.Claim(ONE, b""), inbox.Claim(ONE, b"", TWO), inbox.Claim(ONE, b"", THREE)]
    assert [claim.letter for claim in claims] == [0, 2, 3]


def test_writes_of_other_places_are_one_statement_whose_parameters_do_not_meet() -> None:
    parts = (("one", "INSERT INTO a SELECT :@id RETURNING seq"), ("two", "INSERT INTO b SELECT :@id"))
    assert sets._together(parts).text == (
        "WITH _one AS (INSERT INTO a SELECT :p0_id RETURNING seq) INSERT INTO b SELECT :p1_id"
    )
    assert sets._together(parts[:1]).text == "INSERT INTO a SELECT :p0_id RETURNING seq"
    assert Write("", "", {}) == NOTHING
