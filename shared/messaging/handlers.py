"""Which function handles which contract, and in which order the messages of one poll are given to them."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from structlog.contextvars import bound_contextvars

from shared.contracts import topics
from shared.contracts.envelope import Data, Message, Reply
from shared.contracts.errors import Refused
from shared.messaging.work import UnitOfWork

D = TypeVar("D", bound=Data)
D_contra = TypeVar("D_contra", bound=Data, contravariant=True)


class BatchHandler(Protocol[D_contra]):
    """A function of a batch of one contract: load many, decide each, save many."""

    def __call__(self, work: UnitOfWork, messages: "Sequence[Message[D_contra]]", /) -> Awaitable[None]:
        """Handles `messages`, in their order, inside `work`."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One contract that a service hears: the model of its envelope and the handler of a batch of it."""

    contract: type[Data]
    envelope: type[Message[Any]]
    handle: BatchHandler[Any]


class Handlers:
    """The handlers of one service: `@handlers.on(PlaceHold)` above a batch handler registers it."""

    def __init__(self, service: str) -> None:
        self.service: Final = service
        self.entries: Final[dict[str, Entry]] = {}

    def on(self, contract: type[D]) -> Callable[[BatchHandler[D]], BatchHandler[D]]:
        """Registers a batch handler for `contract`."""

        def register(handle: BatchHandler[D]) -> BatchHandler[D]:
            if contract.TYPE in self.entries:
                raise TypeError(f"{self.service} has two handlers for {contract.TYPE}")
            self.entries[contract.TYPE] = Entry(contract, Message[contract], handle)  # type: ignore[valid-type]
            return handle

        return register

    def include(self, other: "Handlers") -> None:
        """Takes over the handlers of a part of the same service."""
        for type_, entry in other.entries.items():
            if type_ in self.entries:
                raise TypeError(f"{self.service} has two handlers for {type_}")
            self.entries[type_] = entry

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
                try:
                    async with work.session.begin_nested():
                        await handle(work, message)
                        await work.write()
                except Refused:
                    work.writes.clear()
                    raise

    batch.__name__ = getattr(handle, "__name__", "handler")
    batch.__doc__ = handle.__doc__
    return batch


def in_groups(messages: Iterable[Message[Any]]) -> list[list[Message[Any]]]:
    """Groups of one type each, few of them, such that messages of one key keep their order.

    A message joins the first group of its type that does not stand before the last message of its key.
    """
    groups: list[list[Message[Any]]] = []
    by_type: dict[str, list[int]] = {}
    last_of_key: dict[str, int] = {}
    for message in messages:
        earliest = last_of_key.get(message.partitionkey, -1) if message.partitionkey else -1
        of_type = by_type.setdefault(message.type, [])
        place = next((position for position in of_type if position >= earliest), None)
        if place is None:
            place = len(groups)
            groups.append([])
            of_type.append(place)
        groups[place].append(message)
        if message.partitionkey:
            last_of_key[message.partitionkey] = place
    return groups
