"""SMS codes (短信验证码): sent within limits, kept as a keyed hash only, checked once."""

import ipaddress
import secrets
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import text

from services.notify.domain import (
    DAY,
    Cause,
    Challenge,
    Sms,
    check_limits,
    code_sms,
    open_challenge,
    try_code,
)
from services.notify.reminders import cause_of
from services.notify.tables import ChallengeRow, CodeSendRow, SmsRow
from shared.actors import issue_proof
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.notify import CheckCode, Code, CodeChecked, CodeSent, Phone, SendCode
from shared.documents import normalise_phone
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging.work import UnitOfWork
from shared.policy import NATION, Category, CodeRules, policy_for
from shared.sealing import decrypt_at_rest, encrypt_at_rest, keyed_hash, same_secret, seal, unseal
from shared.working_days import shanghai

PROOF_AUDIENCE: Final = "orders"
NO_HASH: Final = bytes(32)
"""What a code is compared with where there is no challenge; no keyed hash is that."""

# The keys come sorted and unnest keeps their order: two copies never hold what the other one waits for.
_LOCK: Final = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS u (key)")

_RECENT: Final = text("""
SELECT key_hash, sent_at FROM code_sends WHERE key_hash = ANY(CAST(:key_hashes AS bytea[])) AND sent_at > :since
""")


@dataclass(frozen=True, slots=True)
class Asked:
    """A wish for a code: the phone normalised, its keyed hash, and the keyed hashes of all that is counted."""

    message: Message[SendCode]
    phone: str
    phone_hash: bytes
    counted: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CodeSend:
    """One send counted for one phone, device or IP."""

    key_hash: bytes
    sent_at: datetime
    challenge_id: UUID


def rules_at(now: datetime) -> CodeRules:
    """The figures of codes on the day of `now`; they know neither region nor category."""
    return policy_for(NATION, Category.SUBJECT, shanghai(now).date()).codes


async def send_codes(work: UnitOfWork, messages: Sequence[Message[SendCode]]) -> None:
    """Sends codes within the limits. A challenge asked for again gets its answer again and no second SMS.

    The challenge is the key of the topic, the phone is not: two wishes for one phone may be in two copies of this
    service at once. So whoever counts first takes a lock on what he counts, until his commit.
    """
    rules = rules_at(work.now)
    asked: list[Asked] = []
    for message in messages:
        with work.answering(message):
            asked.append(_read(work.ring, message))
    if not asked:
        return
    await _lock(work, asked)
    known = await work.load(ChallengeRow, Challenge, {one.message.data.challenge_id for one in asked}, lock=False)
    recent = await _recent_sends(work, {key for one in asked for key in one.counted})
    challenges: list[Challenge] = []
    sends: list[CodeSend] = []
    queue: list[Sms] = []
    for one in asked:
        with work.answering(one.message):
            challenge_id = one.message.data.challenge_id
            challenge = known.get(challenge_id)
            if challenge is None:
                check_limits(rules, work.now, [recent[key] for key in one.counted])
                challenge, sms = _issue(work, one, rules)
                known[challenge_id] = challenge
                challenges.append(challenge)
                queue.append(sms)
                for key in one.counted:
                    recent[key].append(work.now)
                    sends.append(CodeSend(key, work.now, challenge_id))
            elif not same_secret(challenge.phone_hash, one.phone_hash):
                raise Refused("idempotency_conflict", "该验证编号已用于另一手机号码")
            work.reply(one.message, _answer(challenge))
    work.insert(ChallengeRow, challenges)
    work.insert(CodeSendRow, sends)
    work.insert(SmsRow, queue)


async def check_codes(work: UnitOfWork, messages: Sequence[Message[CheckCode]]) -> None:
    """Checks typed codes. Every try is written, the wrong ones too, so no try may stand inside a savepoint.

    Wrong, expired, used, killed and unknown look the same and take the same steps.
    """
    rules = rules_at(work.now)
    challenges = await work.load(ChallengeRow, Challenge, {message.data.challenge_id for message in messages})
    tried: dict[UUID, Challenge] = {}
    for message in messages:
        with work.answering(message):
            challenge_id = message.data.challenge_id
            typed = unseal(work.ring, message.data.code, Code).code
            challenge = challenges.get(challenge_id)
            right = same_secret(
                _code_hash(work.ring, challenge_id, _plain(typed)), challenge.code_hash if challenge else NO_HASH
            )
            phone: str | None = None
            if challenge is not None:
                phone = try_code(challenge, right, rules, work.now)
                tried[challenge_id] = challenge
            if phone is None:
                raise Refused("code_wrong")
            proof = _proof(work, challenge_id, decrypt_at_rest(work.ring, phone))
            work.reply(message, CodeChecked(challenge_id=challenge_id, proof=proof))
    work.update(ChallengeRow, tried.values(), "state", "tries", "phone")


def _read(ring: KeyRing, message: Message[SendCode]) -> Asked:
    """Raises Refused: sealed_unreadable, phone_invalid."""
    phone = normalise_phone(unseal(ring, message.data.phone, Phone).phone)
    phone_hash = keyed_hash(ring, phone)
    counted = [phone_hash]
    # The word before keeps a device that calls itself like a phone from being counted as one.
    if device := message.data.device.strip():
        counted.append(keyed_hash(ring, f"device {device}"))
    if address := _network(message.data.ip):
        counted.append(keyed_hash(ring, f"ip {address}"))
    return Asked(message, phone, phone_hash, tuple(counted))


def _network(ip: str) -> str:
    """What is counted for an address: an IPv4 address, or the /64 that one subscriber of IPv6 has for himself."""
    try:
        address = ipaddress.ip_address(ip.strip())
    except ValueError:
        return ip.strip()
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address.packed, 64), strict=False))
    return str(address)


async def _lock(work: UnitOfWork, asked: Sequence[Asked]) -> None:
    """Locks every phone, device, IP and challenge of the batch, in one order everywhere, until the commit."""
    hashes = {key for one in asked for key in one.counted}
    hashes |= {keyed_hash(work.ring, f"challenge {one.message.data.challenge_id}") for one in asked}
    keys = sorted({int.from_bytes(key[:8], signed=True) for key in hashes})
    await (await work.connection()).execute(_LOCK, {"keys": keys})


async def _recent_sends(work: UnitOfWork, keys: Iterable[bytes]) -> dict[bytes, list[datetime]]:
    """The sends of the last day for each key: at most as many as a day allows."""
    recent: dict[bytes, list[datetime]] = {key: [] for key in keys}
    parameters = {"key_hashes": list(recent), "since": work.now - DAY}
    for row in await (await work.connection()).execute(_RECENT, parameters):
        recent[bytes(row.key_hash)].append(row.sent_at)
    return recent


def _issue(work: UnitOfWork, one: Asked, rules: CodeRules) -> tuple[Challenge, Sms]:
    """A new code: the challenge that knows its hash, and the SMS that carries it."""
    data = one.message.data
    code = "".join(secrets.choice("0123456789") for _ in range(rules.digits))
    hashes = one.phone_hash, _code_hash(work.ring, data.challenge_id, code)
    phone = encrypt_at_rest(work.ring, one.phone)
    challenge = open_challenge(data.challenge_id, data.purpose, phone, hashes, rules, work.now)
    cause: Cause = cause_of(one.message)
    minutes = rules.lifetime_seconds // 60
    sms = code_sms(new_id(), challenge, one.phone_hash.hex(), encrypt_at_rest(work.ring, code), minutes, cause)
    return challenge, sms


def _answer(challenge: Challenge) -> CodeSent:
    return CodeSent(
        challenge_id=challenge.challenge_id,
        expires_at=challenge.expires_at,
        resend_after=challenge.resend_after,
    )


def _code_hash(ring: KeyRing, challenge_id: UUID, code: str) -> bytes:
    """Of challenge and code together, so that the same code of two challenges does not look the same."""
    return keyed_hash(ring, f"code {challenge_id} {code}")


def _plain(typed: str) -> str:
    """The digits of what a person typed: full-width ones are read, blanks are not."""
    return "".join(unicodedata.normalize("NFKC", typed).split())


def _proof(work: UnitOfWork, challenge_id: UUID, phone: str) -> str:
    """Signed by notify for orders alone; who carries it can read that a challenge was met, not whose phone it was."""
    sealed = seal(work.ring, PROOF_AUDIENCE, Phone(phone=phone))
    claims = {"challenge_id": str(challenge_id), "phone": sealed.jwe}
    return issue_proof(work.ring, audience=PROOF_AUDIENCE, claims=claims, now=work.now)
