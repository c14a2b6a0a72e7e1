"""What families do: load → decide → save → answer."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from joserfc.jwk import OKPKey
from sqlalchemy import text

from services.orders.families import domain, queries
from services.orders.families.domain import Account, Agreement, Child, Family, UsedChallenge
from services.orders.families.tables import AccountRow, AgreementRow, ChildRow, SignerRow, UsedChallengeRow
from shared.actors import Actor, issue_token, verify_proof
from shared.contracts.envelope import Message
from shared.contracts.errors import FieldError, Refused
from shared.contracts.notify import Phone, SetContact
from shared.contracts.orders import (
    AddChild,
    ChildDetails,
    ReplyKey,
    SetSigner,
    SignedIn,
    SignerDetails,
    SignIn,
    Token,
)
from shared.documents import normalise_phone
from shared.ids import new_id
from shared.keys import KeyRing
from shared.messaging.work import UnitOfWork
from shared.sealing import Sealed, encrypt_at_rest, keyed_hash, seal, unseal
from shared.working_days import shanghai

USED_CHALLENGES_KEPT: Final = timedelta(days=1)
"""Far longer than a proof lives (five minutes): after that its challenge need not be remembered."""

# Each sign-in adds a row and takes away up to two that are long past, so the table never grows.
_SWEEP: Final = text("""
DELETE FROM used_challenges WHERE challenge_id IN (
  SELECT challenge_id FROM used_challenges WHERE used_at < :before ORDER BY used_at LIMIT 2 FOR UPDATE SKIP LOCKED)
""")


# --- sign-in ------------------------------------------------------------------------------------------------------


async def sign_in(work: UnitOfWork, message: Message[SignIn]) -> None:
    """Takes the proof, finds or makes the account of its phone, records the agreement, gives a token."""
    asked = message.data
    version = domain.agreed_version(asked.agreement_version)
    challenge_id, phone = _proved(work.ring, asked.proof, work.now)
    if not await work.insert_new(UsedChallengeRow, UsedChallenge(challenge_id, work.now)):
        raise Refused("proof_invalid")
    account_id, created = await _account_of(work, phone)
    work.insert(AgreementRow, [Agreement(account_id, version, work.now)], ignore_existing=True)
    await (await work.connection()).execute(_SWEEP, {"before": work.now - USED_CHALLENGES_KEPT})
    if created:
        work.send(SetContact(account_id=account_id, phone=seal(work.ring, "notify", Phone(phone=phone))), message)
    work.reply(message, _signed_in(work, account_id, created, asked.reply_key))


def _proved(ring: KeyRing, proof: str, now: datetime) -> tuple[UUID, str]:
    """Challenge and phone (E.164) that notify vouches for. Refused: proof_invalid, whatever is wrong."""
    claims = verify_proof(ring, proof, issuer="notify", now=now)
    try:
        challenge_id = UUID(str(claims.get("challenge_id")))
        sealed = Sealed[Phone].model_validate({"jwe": claims.get("phone")})
        return challenge_id, normalise_phone(unseal(ring, sealed, Phone).phone)
    except (ValueError, Refused):
        raise Refused("proof_invalid") from None


async def _account_of(work: UnitOfWork, phone: str) -> tuple[UUID, bool]:
    """The account of `phone`, and whether it was made now. Of two sign-ins at once the unique hash lets one make it."""
    phone_hash = keyed_hash(work.ring, phone)
    found = await work.load(AccountRow, Account, [phone_hash], by=("phone_hash",), lock=False)
    if not found:
        account = Account(new_id(), phone_hash, encrypt_at_rest(work.ring, phone), 0, work.now)
        if await work.insert_new(AccountRow, account):
            return account.account_id, True
        # The insert has waited for the other one's commit; a new statement sees what it made.
        found = await work.load(AccountRow, Account, [phone_hash], by=("phone_hash",), lock=False)
    return found[phone_hash].account_id, False


def _signed_in(work: UnitOfWork, account_id: UUID, created: bool, reply_key: ReplyKey | None) -> SignedIn:
    """The answer with a token: sealed to the gateway where it gave a key, else in clear and short-lived."""
    seconds = domain.SEALED_TOKEN_SECONDS if reply_key else domain.CLEAR_TOKEN_SECONDS
    token = issue_token(work.ring, Actor(str(account_id), "guardian"), now=work.now, lifetime_seconds=seconds)
    return SignedIn(
        account_id=account_id,
        created=created,
        token="" if reply_key else token,
        sealed_token=_sealed_to(reply_key, Token(token=token)) if reply_key else None,
        expires_at=work.now.replace(microsecond=0) + timedelta(seconds=seconds),
    )


def _sealed_to(key: ReplyKey, token: Token) -> Sealed[Token]:
    """`token` for the holder of `key` alone, sealed as between services. Refused: request_invalid."""
    try:
        public = OKPKey.import_key(key.model_dump())
        return seal(KeyRing("", None, {}, {}, {"gateway": public}, None, None), "gateway", token)
    except ValueError:  # not 32 bytes, or a point with which every secret would be zero
        fault = FieldError(field="reply_key.x", message="不是有效的 X25519 公钥")
        raise Refused("request_invalid", errors=[fault]) from None


# --- profile ------------------------------------------------------------------------------------------------------


async def add_child(work: UnitOfWork, message: Message[AddChild]) -> None:
    """Adds a child with a checked document to the account of who asks."""
    asked = message.data
    family, _ = await _own_family(work, message, asked.account_id)
    typed = unseal(work.ring, asked.details, ChildDetails)
    details = domain.checked_child(typed, shanghai(work.now).date())
    child = Child(
        child_id=asked.child_id,
        account_id=asked.account_id,
        document_hash=keyed_hash(work.ring, f"{details.document_type.value}:{details.document_number}"),
        details=encrypt_at_rest(work.ring, details),
        roll_check="unchecked",
        added_at=work.now,
    )
    known = asked.child_id in family.children
    recorded = queries.child_details(work.ring, family, asked.child_id) if known else None
    # The family is locked, so only a child of another family can stand in the way of the row: the id is taken.
    if domain.add_child(family, child, details, recorded) and not await work.insert_new(ChildRow, child):
        raise domain.id_taken()
    work.reply(message, queries.profile(work.ring, family))


async def set_signer(work: UnitOfWork, message: Message[SetSigner]) -> None:
    """Puts a new version of the signer in force, unless it says what the present one says."""
    asked = message.data
    family, account = await _own_family(work, message, asked.account_id)
    details = domain.checked_signer(unseal(work.ring, asked.details, SignerDetails))
    recorded = queries.signer_details(work.ring, family)
    stored = encrypt_at_rest(work.ring, details)
    if domain.next_signer(family, account, details, recorded, stored, work.now):
        work.insert(SignerRow, [family.signer])
        work.update(AccountRow, [account], "signer_version")
    work.reply(message, queries.profile(work.ring, family))


async def _own_family(
    work: UnitOfWork, message: Message[AddChild] | Message[SetSigner], account_id: UUID
) -> tuple[Family, Account]:
    """The family of who asks, locked. A token whose account is not here is no sign-in: actor_unauthenticated."""
    work.actor(message, "guardian", subject=account_id)
    family = (await queries.families_of(work, [account_id], lock=True))[account_id]
    if family.account is None:
        raise Refused("actor_unauthenticated")
    return family, family.account
