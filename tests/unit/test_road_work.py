"""The unit of work: what is said of a message goes where it belongs, with its trace, and only if it is not refused."""

from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pydantic_core
import pytest

from shared.contracts import topics
from shared.contracts.catalog import SeatTaken, TakeSeat
from shared.contracts.envelope import Command, Data, Message, Problem
from shared.contracts.errors import ProblemBody, Refused
from shared.messaging.sets import NOTHING
from shared.messaging.work import MAX_BODY_BYTES, UnitOfWork

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
ORDER_ID, ACCOUNT_ID, CORRELATION = UUID(int=1), UUID(int=2), UUID(int=3)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
COMMANDS, REPLIES = topics.commands("catalog"), topics.replies("orders")
TAKE = TakeSeat(order_id=ORDER_ID)
TAKEN = SeatTaken(order_id=ORDER_ID)


@pytest.fixture
def work() -> UnitOfWork:
    """Of a service that takes seats; nothing here reads or writes a row."""
    return UnitOfWork("catalog", cast(Any, None), cast(Any, None), NOW)


def message(data: Data = TAKE, **changes: Any) -> Message[Any]:
    """A message that asks for an answer."""
    values: dict[str, Any] = {
        "id": UUID(int=9),
        "source": "/yike/orders",
        "type": data.TYPE,
        "time": NOW,
        "correlationid": CORRELATION,
        "partitionkey": "the key",
        "traceparent": TRACE,
        "replyto": REPLIES,
        "data": data,
    }
    return Message[Any](**values | changes)


def sent(work: UnitOfWork) -> list[dict[str, Any]]:
    """The envelopes in the outbox."""
    return [pydantic_core.from_json(row.body) for row in work.outbox]


# --- send -----------------------------------------------------------------------------------------------------------


def test_a_transaction_is_of_the_region_the_system_is_made_for_and_has_loaded_nothing(work: UnitOfWork) -> None:
    assert work.region == "changzhou"
    assert work.loading_s == 0


def test_what_is_sent_goes_on_in_the_trace_of_its_cause(work: UnitOfWork) -> None:
    id_ = work.send(TAKE, message(), replyto=REPLIES)
    (row,), (envelope,) = work.outbox, sent(work)
    assert (row.id, row.topic, row.key, row.partition) == (id_, COMMANDS, str(ORDER_ID), None)
    assert (row.type, row.correlationid, row.replyto) == (TAKE.TYPE, CORRELATION, REPLIES)
    assert row.traceparent[:36] == TRACE[:36]
    assert row.traceparent != TRACE
    assert envelope == {
        "specversion": "1.0",
        "id": str(id_),
        "source": "/yike/catalog",
        "type": TAKE.TYPE,
        "time": "2026-03-01T02:00:00Z",
        "subject": str(ORDER_ID),
        "correlationid": str(CORRELATION),
        "causationid": str(UUID(int=9)),
        "partitionkey": str(ORDER_ID),
        "traceparent": row.traceparent,
        "replyto": REPLIES,
        "data": {"order_id": str(ORDER_ID)},
    }


def test_what_nothing_has_caused_begins_a_story_of_its_own(work: UnitOfWork) -> None:
    id_ = work.send(TAKE, None)
    (row,), (envelope,) = work.outbox, sent(work)
    assert (row.correlationid, row.replyto) == (id_, "")
    assert envelope["correlationid"] == str(id_)
    assert "causationid" not in envelope
    assert "replyto" not in envelope
    assert row.traceparent == envelope["traceparent"] != ""


def test_a_topic_that_is_named_wins_over_the_contracts(work: UnitOfWork) -> None:
    work.send(TAKE, None, topic="elsewhere")
    assert work.outbox[0].topic == "elsewhere"


def test_what_has_no_topic_is_a_mistake(work: UnitOfWork) -> None:
    with pytest.raises(TypeError, match="no type or no topic"):
        work.send(cast(Any, TAKEN), None)
    with pytest.raises(TypeError, match="no type or no topic"):
        work.send(Command(), None, topic="somewhere")
    assert work.outbox == []


def test_a_body_may_be_as_long_as_the_limit_in_bytes_and_not_one_longer(work: UnitOfWork) -> None:
    problem = Problem(**ProblemBody.of(Refused("course_full", "名额已满" * 20), TAKE.TYPE).model_dump())

    def send(max_bytes: int) -> int:
        work.send(cast(Any, problem), message(), topic="somewhere", max_bytes=max_bytes)
        return len(work.outbox[-1].body.encode())

    size = send(MAX_BODY_BYTES)
    assert send(size) == size
    with pytest.raises(ValueError, match=f"body of {size} bytes is over {size - 1}"):
        send(size - 1)
    assert len(work.outbox) == 2


# --- answers --------------------------------------------------------------------------------------------------------


def test_an_answer_goes_to_who_asked_and_is_kept(work: UnitOfWork) -> None:
    work.reply(message(replypartition=2), TAKEN)
    (row,) = work.outbox
    assert (row.topic, row.key, row.partition, row.type) == (REPLIES, "the key", 2, TAKEN.TYPE)
    assert (row.correlationid, row.replyto) == (CORRELATION, "")
    assert sent(work)[0]["causationid"] == str(UUID(int=9))
    assert work.replies == [(UUID(int=9), row.body)]


def test_an_answer_is_kept_under_what_the_sender_calls_the_question(work: UnitOfWork) -> None:
    asked = message(idempotencykey="once")
    work.reply(asked, TAKEN)
    assert [id_ for id_, _ in work.replies] == [asked.dedup_id] != [asked.id]


def test_who_wants_no_answer_gets_none(work: UnitOfWork) -> None:
    work.reply(message(replyto=""), TAKEN)
    assert (work.outbox, work.replies) == ([], [])


def test_a_kept_answer_is_given_again_under_its_id_to_who_asks_now(work: UnitOfWork) -> None:
    work.reply(message(), TAKEN)
    first = work.outbox.pop()
    again = message(id=UUID(int=10), correlationid=UUID(int=11), replyto="gateway.test.replies.v1", replypartition=1)
    work.repeat_reply(again, first.body)
    (row,), (envelope,) = work.outbox, sent(work)
    assert (row.id, row.type, row.topic) == (first.id, first.type, "gateway.test.replies.v1")
    assert (row.key, row.partition, row.correlationid, row.replyto) == ("the key", 1, UUID(int=11), "")
    assert row.traceparent == envelope["traceparent"] != first.traceparent
    assert row.traceparent[:36] == TRACE[:36]
    before = pydantic_core.from_json(first.body)
    changed = {name for name in before if before[name] != envelope[name]}
    assert changed == {"causationid", "correlationid", "traceparent"}
    assert (envelope["causationid"], envelope["correlationid"]) == (str(UUID(int=10)), str(UUID(int=11)))
    assert len(work.replies) == 1


def test_a_refusal_is_a_problem_that_is_kept_and_counted(work: UnitOfWork) -> None:
    work.refuse(message(), Refused("course_full", seats=3))
    (envelope,) = sent(work)
    assert envelope["type"] == Problem.TYPE
    assert (envelope["data"]["code"], envelope["data"]["request_type"]) == ("course_full", TAKE.TYPE)
    assert work.refusals == [(TAKE.TYPE, "course_full")]
    assert len(work.replies) == 1


def test_a_refusal_of_a_repeat_does_not_take_the_place_of_the_answer(work: UnitOfWork) -> None:
    work.refuse(message(type="anything.anybody.v1"), Refused("idempotency_conflict"), keep=False)
    assert work.refusals == [("unknown", "idempotency_conflict")]
    assert (len(work.outbox), work.replies) == (1, [])


def test_what_a_refused_message_wanted_is_dropped_and_what_others_wanted_is_not(work: UnitOfWork) -> None:
    work.send(TAKE, message())
    work.set_timer(TAKE, NOW, message())
    work.reply(message(id=UUID(int=8)), TAKEN)
    work.writes.append(NOTHING)

    def decide() -> None:
        work.send(TAKE, message())
        work.cancel_timer(TakeSeat, ORDER_ID)
        work.reply(message(), TAKEN)
        work.writes.append(NOTHING)
        raise Refused("seat_unknown")

    with work.answering(message()):
        decide()
    assert [row.type for row in work.outbox] == [TAKE.TYPE, TAKEN.TYPE, Problem.TYPE]
    assert (len(work.timers), len(work.writes)) == (1, 1)
    assert [id_ for id_, _ in work.replies] == [UUID(int=8), UUID(int=9)]
    with work.answering(message()):
        work.send(TAKE, message())
    assert len(work.outbox) == 4


# --- timers ---------------------------------------------------------------------------------------------------------


def test_a_timer_carries_its_message_and_its_cause(work: UnitOfWork) -> None:
    due = NOW + timedelta(hours=1)
    work.set_timer(TAKE, due, message())
    (timer,) = work.timers
    assert (timer.type, timer.subject, timer.key, timer.due_at) == (TAKE.TYPE, str(ORDER_ID), str(ORDER_ID), due)
    assert (timer.correlationid, timer.causationid, timer.traceparent) == (CORRELATION, UUID(int=9), TRACE)
    assert TakeSeat.model_validate_json(timer.data) == TAKE


def test_a_timer_may_stand_for_something_else_than_its_key(work: UnitOfWork) -> None:
    work.set_timer(TAKE, NOW, message(), subject="lesson 3")
    assert (work.timers[0].subject, work.timers[0].key) == ("lesson 3", str(ORDER_ID))


def test_a_timer_is_cancelled_by_what_it_was_set_for(work: UnitOfWork) -> None:
    work.cancel_timer(TakeSeat, ORDER_ID)
    (timer,) = work.timers
    assert (timer.type, timer.subject, timer.due_at) == (TAKE.TYPE, str(ORDER_ID), None)
    assert (timer.data, timer.key, timer.causationid, timer.traceparent) == ("", "", None, "")
    assert {type(timer.id), type(timer.correlationid)} == {UUID}


# --- who asks -------------------------------------------------------------------------------------------------------


def test_nobody_is_nobody(work: UnitOfWork) -> None:
    with pytest.raises(Refused) as caught:
        work.actor(message(), "guardian", subject=ACCOUNT_ID)
    assert caught.value.code == "actor_unauthenticated"
