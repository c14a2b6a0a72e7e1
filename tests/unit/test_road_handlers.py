"""Which handler gets which message, and which topics a service hears."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

import pytest

from shared.contracts import topics
from shared.contracts.catalog import GiveBackSeat, SeatTaken, TakeSeat
from shared.contracts.envelope import Data, Message
from shared.contracts.orders import PurchaseEnrolled, ShowPurchase
from shared.messaging.handlers import Handlers, each, words
from shared.messaging.work import UnitOfWork

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


async def on_seats(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Handles seats."""


async def on_others(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
    """Handles the rest."""


def message(contract: type[Data], number: int, key: str = "") -> Message[Any]:
    """A message of which only the contract and the key matter."""
    values: dict[str, Any] = {"type": contract.TYPE, "partitionkey": key, "traceparent": TRACE, "data": Data()}
    return Message[Any].model_construct(id=UUID(int=number), correlationid=UUID(int=number + 100), **values)


def test_a_contract_has_one_handler_in_a_service() -> None:
    handlers = Handlers("catalog")
    assert handlers.on(TakeSeat, GiveBackSeat)(on_seats) is on_seats
    assert set(handlers.entries) == {TakeSeat.TYPE, GiveBackSeat.TYPE}
    entry = handlers.entries[TakeSeat.TYPE]
    assert (entry.contract, entry.envelope, entry.handle) == (TakeSeat, Message[TakeSeat], on_seats)
    with pytest.raises(TypeError, match=f"catalog has two handlers for {TakeSeat.TYPE}"):
        handlers.on(TakeSeat)(on_others)
    assert handlers.entries[TakeSeat.TYPE].handle is on_seats


def test_a_service_takes_over_the_handlers_of_its_parts_and_a_contract_stays_one_parts() -> None:
    whole, part, same = Handlers("catalog"), Handlers("catalog"), Handlers("catalog")
    part.on(TakeSeat)(on_seats)
    same.on(TakeSeat)(on_others)
    whole.include(part)
    assert whole.entries == part.entries
    with pytest.raises(TypeError, match=f"catalog has two handlers for {TakeSeat.TYPE}"):
        whole.include(same)
    assert whole.entries[TakeSeat.TYPE].handle is on_seats


def test_a_part_of_a_service_locks_nothing_for_itself() -> None:
    whole, part = Handlers("catalog"), Handlers("catalog")
    part.locks_first(on_seats)
    with pytest.raises(TypeError, match="a part of catalog locks for itself"):
        whole.include(part)
    assert whole.lock is None


def test_messages_of_one_handler_are_one_group_in_their_order() -> None:
    handlers = Handlers("catalog")
    handlers.on(TakeSeat, GiveBackSeat)(on_seats)
    handlers.on(ShowPurchase)(on_others)
    poll = [message(TakeSeat, 1, "a"), message(ShowPurchase, 2), message(GiveBackSeat, 3, "a"), message(TakeSeat, 4)]
    assert [(handle, [one.id.int for one in group]) for handle, group in handlers.groups(poll)] == [
        (on_seats, [1, 3, 4]),
        (on_others, [2]),
    ]


@pytest.mark.parametrize(
    ("contracts", "locked"),
    [
        ([TakeSeat, GiveBackSeat], False),  # one batch handler locks once
        ([TakeSeat, ShowPurchase], True),
        ([ShowPurchase], False),
        ([ShowPurchase, ShowPurchase], True),  # one after the other
    ],
)
async def test_the_rows_of_a_poll_are_locked_at_once_where_they_would_be_in_steps(
    contracts: list[type[Data]], locked: bool
) -> None:
    handlers, seen = Handlers("catalog"), list[int]()
    handlers.on(TakeSeat, GiveBackSeat)(on_seats)

    @handlers.on(ShowPurchase)
    @each
    async def on_show(work: UnitOfWork, message: Message[ShowPurchase]) -> None:
        """Handles one."""

    @handlers.locks_first
    async def lock(work: UnitOfWork, messages: Sequence[Message[Any]]) -> None:
        """Locks them."""
        seen.extend(sorted(one.id.int for one in messages))

    poll = [message(contract, number) for number, contract in enumerate(contracts)]
    await handlers.lock_for(cast(UnitOfWork, None), handlers.groups(poll))
    assert seen == (list(range(len(poll))) if locked else [])


def test_a_service_hears_the_topics_of_its_contracts_and_its_answers_if_it_awaits_any() -> None:
    handlers = Handlers("orders")
    handlers.on(ShowPurchase)(on_others)
    handlers.on(PurchaseEnrolled)(on_seats)
    assert handlers.topics() == [topics.events("orders"), topics.requests("orders")]
    handlers.on(SeatTaken)(on_others)
    assert handlers.topics() == [topics.events("orders"), topics.replies("orders"), topics.requests("orders")]


def test_a_line_of_the_log_names_message_story_and_trace() -> None:
    assert words(message(TakeSeat, 1)) == {
        "message": str(UUID(int=1)),
        "correlation": str(UUID(int=101)),
        "trace": TRACE,
    }


def test_a_handler_of_one_message_keeps_its_name_and_what_it_says_of_itself() -> None:
    async def on_show(work: UnitOfWork, message: Message[ShowPurchase]) -> None:
        """Shows."""

    batch = each(on_show)
    assert (getattr(batch, "__name__", ""), batch.__doc__) == ("on_show", "Shows.")
