"""`yike timeline`: everything that was said about one order, by everybody, in the order in which it was said.

From two places: the outboxes of all services (rows whose key is the order), and the requests of gateways, which no
outbox has, from the one partition of each requests topic in which that key lies.
"""

import asyncio
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape

from ops.cli.base import DONE, NOT_FOUND, USUAL, CommandError, Common, age, local, table, yuan
from ops.cli.kafka import looking
from ops.cli.site import Found, rows
from ops.stack_layout import PART_NAMES
from shared.contracts import topics
from shared.settings import SERVICES

_ROWS: Final = """
SELECT seq, id, topic, type, body, created_at, NOT EXISTS (SELECT FROM unsent u WHERE u.seq = o.seq) AS published
FROM outbox o WHERE key = $1 ORDER BY seq
"""
WHAT_CHARACTERS: Final = 60
VALUE_CHARACTERS: Final = 36
FIRST_FACTS: Final = ("lesson_no", "kind", "state", "outcome", "code", "reason", "amount_fen", "price_fen", "method")
"""What a reader looks for; the other facts follow in the contract's order."""
ONLY_ASKING: Final = ".show.v1"
"""Requests of these types change nothing: they and their answers are left out for a person, unless asked for."""
CLOCK_MOVED: Final = timedelta(seconds=30)
"""Clocks further apart than this were moved apart; less is an ordinary difference."""


@dataclass(frozen=True)
class Said:
    """One message. `at` is the one clock's time, `made_at` that of the machine (differs where the clock was moved)."""

    at: datetime
    ms: int
    service: str
    type: str
    what: str
    topic: str
    id: UUID
    correlation_id: str
    causation_id: str
    published: bool
    made_at: datetime | None = None


async def timeline(
    order: UUID,
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    requests: Annotated[bool, Parameter(negative="--no-requests")] = True,
    common: Common = USUAL,
) -> int:
    """Show all messages about one order, in the order in which they were said.

    Reads the outboxes of all services by key, and the requests of gateways from the partition of that key. Messages
    older than the outboxes keep them (30 days) are gone; requests stay on their topics for 7 days.

    For example:

        yike timeline 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11
        yike timeline 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11 --json

    Parameters
    ----------
    order
        Id of the order. An id of a child's account, a course or an institution works too: it is the messages' key.
    all_
        Show also the questions how it stands, and their answers (in JSON they always are).
    requests
        Also read what gateways asked.
    """
    found = Found(common)
    told = await _from_outboxes(found, str(order))
    asked = await _from_topics(found, str(order)) if requests else []
    said = in_order(told, asked)
    if not said:
        raise CommandError(f"Nobody has said anything about {order}.", "Is it the id of an order?", NOT_FOUND)
    shown = said if all_ else without_asking(said)
    common.show(said, lambda console: _draw(console, order, shown, len(said) - len(shown)))
    return DONE


async def _from_outboxes(found: Found, key: str) -> list[Said]:
    read = await asyncio.gather(*(rows(found.dsn(service), _ROWS, key) for service in PART_NAMES))
    return [
        _said(service, json.loads(row["body"]), row["created_at"], row["topic"], row["published"])
        for service, lines in zip(PART_NAMES, read, strict=True)
        for row in lines
    ]


async def _from_topics(found: Found, key: str) -> list[Said]:
    settings = found.client_settings
    asked: list[Said] = []
    async with looking(settings) as kafka:
        names = [settings.namespace + topics.requests(service) for service in SERVICES]
        where = [partition for name in names for partition in kafka.partition_of(name, key)]
        for record in await kafka.scan(where, lambda record: record.key == key.encode()):
            envelope = _envelope(record.value)
            made = datetime.fromtimestamp(record.timestamp / 1000, UTC)
            topic = record.topic.removeprefix(settings.namespace)
            source = str(envelope.get("source", "")).strip("/").replace("gateway/", "gateway ")
            asked.append(_said(source, envelope, made, topic, published=True))
    return asked


def _envelope(value: bytes | None) -> dict[str, Any]:
    """What stands in a record, which anybody may have written."""
    try:
        envelope = json.loads(value or b"")
    except ValueError:
        envelope = {}
    return envelope if isinstance(envelope, dict) else {}


def _said(service: str, envelope: dict[str, Any], at: datetime, topic: str, published: bool) -> Said:
    own = str(envelope.get("id", ""))
    try:
        id_ = UUID(own)
    except ValueError:
        id_ = UUID(int=0)
    # A timer's id is made when it is set, so it does not tell when its message was written.
    is_timer = str(envelope.get("source", "")).endswith("/timers")
    made_at = _made_at(id_) if not is_timer else None
    data = envelope.get("data")
    return Said(
        at=at.astimezone(UTC),
        ms=0,
        service=service,
        type=str(envelope.get("type", "?")),
        what=what(data if isinstance(data, dict) else {}, str(envelope.get("partitionkey", ""))),
        topic=topic,
        id=id_,
        correlation_id=str(envelope.get("correlationid", "")),
        causation_id=str(envelope.get("causationid", "")),
        published=published,
        made_at=made_at,
    )


def _made_at(id_: UUID) -> datetime | None:
    """The machine's time at which a UUIDv7 was made."""
    return datetime.fromtimestamp((id_.int >> 80) / 1000, UTC) if id_.version == 7 else None


def in_order(told: list[Said], asked: list[Said]) -> list[Said]:
    """Sorted, with milliseconds since the first.

    Services write the one clock's time, gateways have only their machine's. Where the clock was moved, a request is
    put into the one clock's time by what its first consequence shows: how far that clock was ahead then.
    """
    shifted = [replace(request, at=_shifted(request, told)) for request in asked]
    # A service's rows of one transaction have the same time; sorting is stable and they come in the order written.
    said = sorted([*shifted, *told], key=lambda one: one.at)
    return [replace(one, ms=int((one.at - said[0].at) / timedelta(milliseconds=1))) for one in said]


def _shifted(request: Said, told: list[Said]) -> datetime:
    dated = [one for one in told if one.made_at is not None]
    if not dated:
        return request.at
    caused = [one for one in dated if one.causation_id == str(request.id)]

    def distance(one: Said) -> timedelta:
        assert one.made_at is not None
        return abs(one.made_at - request.at)

    witness = min(caused or dated, key=distance)
    assert witness.made_at is not None
    ahead = witness.at - witness.made_at
    moved = request.at + (ahead if abs(ahead) > CLOCK_MOVED else timedelta(0))
    return min([moved, *(one.at for one in caused)])


def without_asking(said: list[Said]) -> list[Said]:
    """The messages without the questions that change nothing, and without their answers."""
    asked = {str(one.id) for one in said if one.type.endswith(ONLY_ASKING)}
    return [one for one in said if str(one.id) not in asked and one.causation_id not in asked]


def what(data: dict[str, Any], key: str) -> str:
    """The few short facts of a message's data: no ids, no texts, nothing sealed or signed."""
    facts: list[str] = []
    for name, value in sorted(data.items(), key=lambda item: _rank(item[0])):
        if value is None or value in ("", key, False) or isinstance(value, (dict, list)):
            continue
        if name.endswith("_fen") and isinstance(value, int):
            facts.append(f"{name.removesuffix('_fen')} {yuan(value)}")
        elif name.endswith(("_id", "sha256")) or name in ("proof", "token", "body", "contract"):
            continue
        elif len(str(value)) <= VALUE_CHARACTERS:
            facts.append(f"{name} {_short(value)}")
    line = ", ".join(facts)
    return line if len(line) <= WHAT_CHARACTERS else line[: WHAT_CHARACTERS - 1] + "…"


def _rank(name: str) -> int:
    return FIRST_FACTS.index(name) if name in FIRST_FACTS else len(FIRST_FACTS)


def _short(value: Any) -> str:
    """A value as a person reads it; a moment in Shanghai's time."""
    if isinstance(value, str) and len(value) >= 20 and value[4:5] == "-" and "T" in value:
        try:
            return local(datetime.fromisoformat(value))
        except ValueError:
            return value
    return str(value)


def _draw(console: Console, order: UUID, said: list[Said], left_out: int) -> None:
    columns = ("time", "since first", "service", "type", "what")
    lines = table(f"{len(said)} messages about {order}", *columns, right=["since first"])
    for one in said:
        since = f"{one.ms} ms" if one.ms < 100_000 else age(one.ms / 1000)
        kind = one.type if one.published else f"{one.type} [yellow](not yet published)[/yellow]"
        service = f"[cyan]{one.service}[/cyan]" if one.service.startswith("gateway") else one.service
        lines.add_row(local(one.at), since, service, kind, escape(one.what))
    console.print(lines)
    if left_out:
        console.print(f"[dim]{left_out} messages only asked how it stands, or answered that: --all shows them.[/dim]")
