"""`yike dlq`: what could not be handled. Looked at without a group, and sent once more when its cause is mended."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from cyclopts import App, Parameter
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from ops.cli.base import DONE, FOUND, NOT_FOUND, USUAL, WRONG_CALL, CommandError, Common, local, table
from ops.cli.kafka import looking
from ops.cli.site import Found, check_service, connected, rows
from ops.stack_layout import PART_NAMES
from shared.contracts import topics
from shared.messaging.broker import make_producer
from shared.messaging.dead_letter import REPLAY_HEADER, DeadLetter, original_body

app = App(
    name="dlq",
    help="Dead letters: what could not be handled. Look at them, mend the cause, replay them.",
)

_OPEN: Final = "SELECT parked FROM inbox WHERE parked IS NOT NULL"
_CLOSE: Final = "UPDATE inbox SET parked = NULL WHERE parked = ANY($1::uuid[])"
UNREADABLE: Final = frozenset({"bad_json", "bad_envelope", "too_large"})
"""Such a message has no id to be known by: replayed it is a new one, and only we can close the letter of the old."""
DETAIL_CHARACTERS: Final = 60


@dataclass(frozen=True)
class Letter:
    """One dead letter. `open`: the message is still parked under it; `type` is the parked message's own."""

    letter_id: UUID
    consumer: str
    reason: str
    detail: str
    type: str
    open: bool
    parked_at: datetime
    topic: str
    partition: int
    offset: int
    key: str
    exception: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    body_bytes: int

    @property
    def is_cut(self) -> bool:
        """Whether the letter kept only the beginning of the body."""
        return len(self.body) < self.body_bytes

    def as_data(self, *, body: bool = False) -> dict[str, Any]:
        """The letter for JSON."""
        data = {name: getattr(self, name) for name in Letter.__dataclass_fields__ if name != "body"}
        return data | ({"body": self.body.decode(errors="backslashreplace")} if body else {})


Reason = Annotated[str, Parameter(name="--reason")]
Consumer = Annotated[str, Parameter(name="--consumer")]


@app.command(name="list")
async def list_(*, reason: Reason = "", consumer: Consumer = "", closed: bool = False, common: Common = USUAL) -> int:
    """Show the letters that wait for somebody, newest last.

    A letter is closed when its message was replayed and claimed again. A message that fails once more is a new letter.

    For example:

        yike dlq list
        yike dlq list --reason handler_failed --consumer escrow

    Parameters
    ----------
    reason
        Only letters with this reason: bad_json, bad_envelope, bad_data, type_unknown, replyto_forbidden, too_large,
        handler_failed.
    consumer
        Only letters of this service.
    closed
        Show the closed ones as well.
    """
    read = await letters(Found(common), consumer=consumer)
    shown = [letter for letter in read if (closed or letter.open) and reason in ("", letter.reason)]
    common.show([letter.as_data() for letter in shown], lambda console: _draw(console, shown, len(read)))
    return DONE


@app.command
async def show(letter: UUID, *, common: Common = USUAL) -> int:
    """Show one letter whole: why, where it came from, its headers and its body.

    The body is what was on the topic: what is sealed stays sealed; a token of an actor is masked.

    Parameters
    ----------
    letter
        Id of the letter, from `yike dlq list`.
    """
    found = _one(await letters(Found(common)), letter)
    body = _masked(found.body)
    common.show(found.as_data() | {"body": body}, lambda console: _draw_one(console, found, body))
    return DONE


@app.command
async def replay(
    *letter: UUID,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    reason: Reason = "",
    consumer: Consumer = "",
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    common: Common = USUAL,
) -> int:
    """Send parked messages once more: the same body to the same partition of the same topic.

    Mend the cause first. Only letters that are open can be replayed, and each has effect once: the service lets
    exactly the replay of the letter that holds a message claim it again. More than one letter asks before it sends.

    For example:

        yike dlq replay 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11
        yike dlq replay --all --reason handler_failed --consumer escrow --dry-run
        yike dlq replay --all --yes

    Parameters
    ----------
    letter
        Ids of letters.
    all_
        All open letters (that fit --reason and --consumer).
    reason
        Only letters with this reason.
    consumer
        Only letters of this service.
    dry_run
        Say what would be sent and send nothing.
    yes
        Do not ask.
    """
    if bool(letter) == all_:
        raise CommandError("Name letters, or say --all.", "yike dlq list shows them.", WRONG_CALL)
    found = Found(common)
    read = await letters(found, consumer=consumer)
    chosen = [_one(read, id_) for id_ in letter] if letter else [one for one in read if one.open]
    chosen = [one for one in chosen if reason in ("", one.reason)]
    refused = {one.letter_id: why for one in chosen if (why := _cannot(one))}
    sending = [one for one in chosen if one.letter_id not in refused]
    if not dry_run and sending:
        if len(sending) > 1:
            common.confirm(f"Replay {len(sending)} letters?", yes=yes)
        await _send(found, sending)
        await _close(found, [one for one in sending if one.reason in UNREADABLE])
    data = {
        "dry_run": dry_run,
        "replayed": [one.letter_id for one in sending],
        "refused": {str(id_): why for id_, why in refused.items()},
    }
    common.show(data, lambda console: _draw_replay(console, sending, refused, dry_run=dry_run))
    return FOUND if refused else DONE


@app.command
async def discard(
    *letter: UUID,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    common: Common = USUAL,
) -> int:
    """Close letters that nobody will replay: what was sent by mistake, or can never be read.

    The message stays parked for good. The letter stays on its topic for 90 days: yike dlq list --closed.

    For example:

        yike dlq discard 0199a0c4-7a5e-7cc1-9a8e-4d1f6f0f2b11

    Parameters
    ----------
    letter
        Ids of letters.
    yes
        Do not ask.
    """
    if not letter:
        raise CommandError("Name letters.", "yike dlq list shows them.", WRONG_CALL)
    found = Found(common)
    read = await letters(found)
    chosen = [_one(read, id_) for id_ in letter]
    common.confirm(f"Discard {len(chosen)} letters?", yes=yes)
    await _close(found, chosen)
    data = {"discarded": [one.letter_id for one in chosen]}
    common.show(data, lambda console: console.print(f"{len(chosen)} letters are closed."))
    return DONE


async def _close(found: Found, closing: Sequence[Letter]) -> None:
    for consumer in sorted({one.consumer for one in closing}):
        ids = [one.letter_id for one in closing if one.consumer == consumer]
        async with connected(found.dsn(consumer)) as connection:
            await connection.execute(_CLOSE, ids)


async def letters(found: Found, *, consumer: str = "") -> list[Letter]:
    """All letters on the dead-letter topics (of one consumer), oldest first."""
    consumers = [check_service(consumer)] if consumer else list(PART_NAMES)
    settings = found.client_settings
    names = [settings.namespace + topics.dead_letters(name) for name in consumers]
    async with looking(settings) as kafka:
        records = await kafka.scan([place for name in names for place in kafka.partitions(name)], lambda _: True)
    parked = {row["parked"] for name in consumers for row in await rows(found.dsn(name), _OPEN)}
    known = {one.letter_id: one for record in records if (one := _letter(record.value, parked)) is not None}
    return sorted(known.values(), key=lambda one: (one.parked_at, one.letter_id))


def _letter(value: bytes | None, parked: set[UUID]) -> Letter | None:
    """The letter in a record; None for what is none (anybody may have written there)."""
    try:
        data = json.loads(value or b"")["data"]
        letter = DeadLetter.model_validate(data)
        body = original_body(data)
    except (ValueError, KeyError, TypeError, ValidationError):
        return None
    return Letter(
        letter_id=letter.letter_id,
        consumer=letter.consumer,
        reason=letter.reason,
        detail=letter.detail,
        type=_type_of(body),
        open=letter.letter_id in parked,
        parked_at=letter.parked_at.astimezone(UTC),
        topic=letter.topic,
        partition=letter.partition,
        offset=letter.offset,
        key=letter.key,
        exception=letter.exception,
        headers=letter.headers,
        body=body,
        body_bytes=letter.body_bytes,
    )


def _type_of(body: bytes) -> str:
    try:
        envelope = json.loads(body)
    except ValueError:
        return ""
    return str(envelope.get("type", "")) if isinstance(envelope, dict) else ""


def _one(read: Sequence[Letter], id_: UUID) -> Letter:
    for letter in read:
        if letter.letter_id == id_:
            return letter
    raise CommandError(f"There is no letter {id_}.", "yike dlq list --closed shows all there are.", NOT_FOUND)


def _cannot(letter: Letter) -> str:
    """Why a letter cannot be replayed, or nothing."""
    if not letter.open:
        return "closed: its message was replayed before"
    if letter.is_cut:
        return f"its body was cut; the whole record stood at {letter.topic}/{letter.partition}@{letter.offset}"
    return ""


async def _send(found: Found, sending: Sequence[Letter]) -> None:
    producer = make_producer(found.client_settings, "replay")
    await producer.start()
    try:
        for letter in sending:
            headers = [(name, value.encode()) for name, value in letter.headers if name != REPLAY_HEADER]
            headers.append((REPLAY_HEADER, str(letter.letter_id).encode()))
            # One after the other: letters of one key keep their order.
            await producer.send_and_wait(
                letter.topic,
                letter.body,
                key=letter.key.encode() or None,
                partition=letter.partition,
                headers=headers,
            )
    finally:
        await producer.stop()


def _masked(body: bytes) -> str:
    """The body as text, an actor's token in it masked."""
    try:
        envelope = json.loads(body)
    except ValueError:
        return body.decode(errors="backslashreplace")
    if isinstance(envelope, dict) and "actortoken" in envelope:
        envelope["actortoken"] = "…"
    return json.dumps(envelope, ensure_ascii=False, indent=2)


def _draw(console: Console, shown: Sequence[Letter], read: int) -> None:
    if not shown:
        console.print(f"[green]No dead letters[/green] ({read} on the topics)")
        return
    lines = table(f"{len(shown)} dead letters", "letter", "parked", "consumer", "reason", "type", "detail")
    for one in shown:
        detail = one.detail if len(one.detail) <= DETAIL_CHARACTERS else one.detail[: DETAIL_CHARACTERS - 1] + "…"
        state = "" if one.open else " [dim](closed)[/dim]"
        lines.add_row(
            str(one.letter_id), local(one.parked_at), one.consumer, one.reason + state, escape(one.type), escape(detail)
        )
    console.print(lines)
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(one.reason for one in shown).most_common())
    console.print(f"[dim]{reasons}. Next: yike dlq show LETTER · yike dlq replay LETTER[/dim]")


def _draw_one(console: Console, letter: Letter, body: str) -> None:
    console.print(f"[bold]Letter {letter.letter_id}[/bold] of {letter.consumer}{'' if letter.open else ' (closed)'}")
    console.print(f"  reason     {letter.reason}, {letter.exception}: {escape(letter.detail)}")
    console.print(
        f"  record     {letter.topic}/{letter.partition}@{letter.offset}, key {escape(letter.key) or '(none)'}"
    )
    console.print(f"  parked     {local(letter.parked_at)}")
    for name, value in letter.headers:
        console.print(f"  header     {escape(name)}: {escape(value)}")
    cut = f" (the first {len(letter.body)} bytes of {letter.body_bytes})" if letter.is_cut else ""
    console.print(f"  body{cut}\n{escape(body)}")


def _draw_replay(console: Console, sent: Sequence[Letter], refused: dict[UUID, str], *, dry_run: bool) -> None:
    for one in sent:
        place = f"{one.topic}/{one.partition}"
        console.print(f"[green]{'would go' if dry_run else 'sent'}[/green]  {one.letter_id}  {one.type} to {place}")
    for id_, why in refused.items():
        console.print(f"[red]not sent[/red]  {id_}  {why}")
    if not sent and not refused:
        console.print("Nothing to replay.")
    elif sent and not dry_run:
        console.print("[dim]What fails once more comes back as a new letter: yike dlq list[/dim]")
