"""Which function handles which contract, and in which order the messages of one poll are given to them."""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from structlog.contextvars import bound_contextvars

from shared.contracts import topics
from shared.contracts.envelope import Data, Message, Reply
from shared.messaging.work import UnitOfWork

D = TypeVar("D", bound=Data)
D_contra = TypeVar("D_contra", bound=Data, contravariant=True)


_ONE_BY_ONE: Final = "one_by_one"
"""What marks a batch handler made by `each`."""


class BatchHandler(Protocol[D_contra]):
    """A function of a batch of one contract: load many, decide each, save many."""

    def __call__(self, work: UnitOfWork, messages: "Sequence[Message[D_contra]]", /) -> Awaitable[None]:
        """Handles `messages`, in their order, inside `work`."""
        ...


Lock = Callable[[UnitOfWork, Sequence[Message[Any]]], Awaitable[None]]
"""Locks rows that some messages may change."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One contract that a service hears: the model of its envelope and the handler of a batch of it."""

    contract: type[Data]
    envelope: type[Message[Any]]
    handle: BatchHandler[Any]


class Handlers:
    """The handlers of one service: `@handlers.on(PlaceHold)` above a batch handler registers it.

    Contracts that change the same rows should share a handler: one load and one write for all of them in a batch.
    """

    def __init__(self, service: str) -> None:
        self.service: Final = service
        self.entries: Final[dict[str, Entry]] = {}
        self.lock: Lock | None = None

    def locks_first(self, lock: Lock) -> Lock:
        """Registers what locks the rows of a whole poll before its first message is handled.

        A batch handler locks the rows of its messages in one order. Where a poll is for several handlers, or for one
        that takes its messages one by one, rows would be locked as messages come, and two copies of the service, each
        with a row that the other asks for next, would deadlock.
        """
        self.lock = lock
        return lock

    def on(self, *contracts: type[D]) -> Callable[[BatchHandler[D]], BatchHandler[D]]:
        """Registers a batch handler for `contracts`; it gets messages of all of them, in their order."""

        def register(handle: BatchHandler[D]) -> BatchHandler[D]:
            for contract in contracts:
                if contract.TYPE in self.entries:
                    raise TypeError(f"{self.service} has two handlers for {contract.TYPE}")
                self.entries[contract.TYPE] = Entry(contract, Message[contract], handle)  # type: ignore[valid-type]
            return handle

        return register

    def include(self, other: "Handlers") -> None:
        """Takes over the handlers of a part of the same service; what locks a poll is of the whole."""
        if other.lock is not None:
            raise TypeError(f"a part of {self.service} locks for itself what is locked for a whole poll")
        for type_, entry in other.entries.items():
            if type_ in self.entries:
                raise TypeError(f"{self.service} has two handlers for {type_}")
            self.entries[type_] = entry

    async def lock_for(
        self, work: UnitOfWork, groups: Sequence[tuple[BatchHandler[Any], Sequence[Message[Any]]]]
    ) -> None:
        """Locks the rows of a poll at once, if its `groups` would lock them in more than one step."""
        steps = sum(len(group) if getattr(handle, _ONE_BY_ONE, False) else 1 for handle, group in groups)
        if self.lock is not None and steps > 1:
            await self.lock(work, [message for _, group in groups for message in group])

    def groups(self, messages: Iterable[Message[Any]]) -> list[tuple[BatchHandler[Any], list[Message[Any]]]]:
        """`messages` by handler, in the order in which they are to be handled; see `in_groups`."""
        grouped = in_groups(messages, lambda message: id(self.entries[message.type].handle))
        return [(self.entries[group[0].type].handle, group) for group in grouped]

    def topics(self) -> list[str]:
        """The topics these handlers hear, sorted; answers come on the service's own replies topic."""
        found = {entry.contract.TOPIC for entry in self.entries.values() if entry.contract.TOPIC}
        if any(issubclass(entry.contract, Reply) for entry in self.entries.values()):
            found.add(topics.replies(self.service))
        return sorted(found)


def words(message: Message[Any]) -> dict[str, str]:
    """What every line logged about `message` carries."""
    return {"message": str(message.id), "correlation": str(message.correlationid), "trace": message.traceparent}


def each(
    handle: Callable[[UnitOfWork, Message[D]], Awaitable[None]],
) -> BatchHandler[D]:
    """Makes a batch handler of a function of one message, for cold paths.

    A `Refused` raised anywhere in it undoes what it wrote (a savepoint) and becomes the answer.
    """

    async def batch(work: UnitOfWork, messages: Sequence[Message[D]]) -> None:
        for message in messages:
            await work.write()  # what others have collected is not this one's to undo
            with bound_contextvars(**words(message)), work.answering(message):
                async with work.session.begin_nested():
                    await handle(work, message)
                    await work.write()

    setattr(batch, _ONE_BY_ONE, True)
    batch.__name__ = getattr(handle, "__name__", "handler")
    batch.__doc__ = handle.__doc__
    return batch


def in_groups(messages: Iterable[Message[Any]], kind: Callable[[Message[Any]], Hashable]) -> list[list[Message[Any]]]:
    """Groups of one kind each, few of them, such that messages of one key keep their order.

    A message joins the first group of its kind that does not stand before the last message of its key.
    """
    groups: list[list[Message[Any]]] = []
    by_kind: dict[Hashable, list[int]] = {}
    last_of_key: dict[str, int] = {}
    for message in messages:
        earliest = last_of_key.get(message.partitionkey, -1) if message.partitionkey else -1
        of_kind = by_kind.setdefault(kind(message), [])
        place = next((position for position in of_kind if position >= earliest), None)
        if place is None:
            place = len(groups)
            groups.append([])
            of_kind.append(place)
        groups[place].append(message)
        if message.partitionkey:
            last_of_key[message.partitionkey] = place
    return groups
