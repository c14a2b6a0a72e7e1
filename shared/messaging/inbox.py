"""The inbox: each message is handled once per consumer, whatever Kafka, a gateway or an operator sends again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from shared.messaging.sets import NOTHING, Write

# Sorted, so that two copies of a service that got the same records (a rebalance, a zombie) wait and never deadlock.
# The same statement brings the time of the transaction: one round trip less for every batch.
_CLAIM: Final = text("""
WITH claimed AS (
  INSERT INTO inbox (consumer, message_id, body_hash, received_at)
  SELECT :consumer, u.id, u.hash, yike_now()
  FROM unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[])) AS u (id, hash) ORDER BY u.id
  ON CONFLICT DO NOTHING RETURNING message_id)
SELECT yike_now(), coalesce(array_agg(message_id), '{}') FROM claimed
""")

# The consumer stands beside each id: were it one value, a plan made while the inbox was nearly empty, and kept, would
# compare all messages of the consumer with each id.
_CONSUMERS: Final = "array_fill(CAST({consumer} AS text), ARRAY[cardinality(CAST({ids} AS uuid[]))])"

_RECLAIM: Final = text(f"""
UPDATE inbox SET parked = NULL, body_hash = u.hash
FROM unnest({_CONSUMERS.format(consumer=":consumer", ids=":ids")}, CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]),
  CAST(:letters AS uuid[])) AS u (consumer, id, hash, letter)
WHERE inbox.consumer = u.consumer AND message_id = u.id AND parked = u.letter
RETURNING message_id
""")

_KNOWN: Final = text("""
SELECT message_id, body_hash, reply FROM inbox WHERE consumer = :consumer AND message_id = ANY(CAST(:ids AS uuid[]))
""")

_NOTE: Final = f"""
UPDATE inbox SET reply = coalesce(u.reply, inbox.reply), parked = u.letter
FROM unnest({_CONSUMERS.format(consumer=":@consumer", ids=":@ids")}, CAST(:@ids AS uuid[]),
  CAST(:@replies AS text[]), CAST(:@letters AS uuid[])) AS u (consumer, id, reply, letter)
WHERE inbox.consumer = u.consumer AND message_id = u.id
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """What to claim: the message's inbox id, the hash of what it asks, the dead letter it is a replay of, if any."""

    id: UUID
    hash: bytes
    replay_of: UUID | None = None

    @property
    def letter(self) -> int:
        """The dead letters of one message in the order of their making; 0 for the message itself."""
        return self.replay_of.int if self.replay_of else 0


@dataclass(frozen=True, slots=True)
class Known:
    """A message that was there before: the hash it came with, and the answer it was given."""

    hash: bytes
    reply: str | None


@dataclass(frozen=True, slots=True)
class Claimed:
    """`new` are ours to handle now; `known` were handled before. `now` is the time of this transaction."""

    now: datetime
    new: frozenset[UUID]
    known: dict[UUID, Known]


async def claim(session: AsyncSession, consumer: str, claims: Sequence[Claim]) -> Claimed:
    """Claims `claims` (ids unique among them) for this transaction in one statement."""
    connection = await session.connection()
    parameters = {"consumer": consumer, "ids": [c.id for c in claims], "hashes": [c.hash for c in claims]}
    now, ids = (await connection.execute(_CLAIM, parameters)).one()
    new = set(ids)
    known: dict[UUID, Known] = {}
    if len(new) < len(claims):
        replays = [c for c in claims if c.id not in new and c.replay_of is not None]
        if replays:
            again = await connection.execute(
                _RECLAIM,
                {
                    "consumer": consumer,
                    "ids": [c.id for c in replays],
                    "hashes": [c.hash for c in replays],
                    "letters": [c.replay_of for c in replays],
                },
            )
            new.update(again.scalars())
        left = [c.id for c in claims if c.id not in new]
        rows = await connection.execute(_KNOWN, {"consumer": consumer, "ids": left})
        known = {row.message_id: Known(bytes(row.body_hash), row.reply) for row in rows}
    return Claimed(now, frozenset(new), known)


def notes(consumer: str, replies: Sequence[tuple[UUID, str]], letters: Mapping[UUID, UUID]) -> Write:
    """Keeps each answer with the message it answers, and which dead letter holds a message that was parked."""
    last = dict(replies)
    ids = list(dict.fromkeys([*last, *letters]))
    if not ids:
        return NOTHING
    values = {
        "consumer": consumer,
        "ids": ids,
        "replies": [last.get(id_) for id_ in ids],
        "letters": [letters.get(id_) for id_ in ids],
    }
    return Write("inbox", _NOTE, values)
