"""Who asks: a signed token in every request, and short-lived statements of one service to another.

A gateway carries tokens, it is no authority; each service verifies for itself (DESIGN 3). Tokens are
compact JWS with EdDSA over Ed25519, nothing else. They are signed, not secret: they stand readable in a log
of Kafka, so no phone, name or document number may be put into one unless sealed. [DESIGN; figures: ours]
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeVar
from uuid import UUID

from joserfc import jws
from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from shared.contracts.errors import Refused
from shared.keys import KeyRing

Role = Literal["guardian", "institution", "authority", "bank", "operator"]
"""家长, 机构, 主管部门, 监管银行, 运营."""

MAX_TOKEN_CHARACTERS: Final = 4000
MAX_LIFETIME_SECONDS: Final = 31 * 86_400
MAX_PROOF_SECONDS: Final = 300
NOT_BEFORE_LEEWAY_SECONDS: Final = 5
"""How far the verifier's clock may be behind the issuer's. Expiry has no leeway."""
CACHED_TOKENS: Final = 8192
"""Verified signatures remembered per process: at most 8192 x 4 kB, least recently used go first."""

ISSUER_ROLES: Final[Mapping[str, frozenset[Role]]] = MappingProxyType(
    {
        "orders": frozenset[Role]({"guardian"}),
        "ops": frozenset[Role]({"institution", "authority", "bank", "operator"}),
    }
)
"""Which service may issue tokens of which role: a stolen key of one does not make actors of the other."""

_ACTOR_TYPE: Final = "yike-actor+jwt"
_PROOF_TYPE: Final = "yike-proof+jwt"
_SCOPE_WORD: Final = re.compile(r"[!-~]{1,128}")
_SUBJECT: Final = re.compile(r"[!-~]{1,128}")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: `subject` is an id (never a phone), `scope` words that narrow or widen what the role may do.

    Raises ValueError for a subject or a word of scope that is not 1..128 visible ASCII characters.
    """

    subject: str
    role: Role
    scope: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not _SUBJECT.fullmatch(self.subject):
            raise ValueError("a subject is 1..128 visible ASCII characters")
        if not all(_SCOPE_WORD.fullmatch(word) for word in self.scope):
            raise ValueError("a word of scope is 1..128 visible ASCII characters")

    def may_see(self, *, guardian: UUID, institution: UUID | None) -> bool:
        """Whether what is between this guardian and this institution is the actor's to see: a guardian and an
        institution see their own only, every other role sees all."""
        owner = {"guardian": str(guardian), "institution": str(institution)}
        return owner.get(self.role, self.subject) == self.subject


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)
    iss: str
    nbf: int
    exp: int


class _ActorClaims(_Claims):
    sub: Annotated[str, Field(pattern=_SUBJECT.pattern, max_length=128)]
    role: Role
    scope: str = ""


class _ProofClaims(_Claims):
    aud: str
    claims: dict[str, JsonValue]


_C = TypeVar("_C", bound=_Claims)


class _EdDSAOnly(jws.JWSRegistry):
    """The one algorithm. joserfc warns that RFC 9864 renames EdDSA; other JWT libraries still say EdDSA."""

    max_payload_length = MAX_TOKEN_CHARACTERS

    def get_alg(self, name: str) -> JWSAlgModel:
        if name != "EdDSA":
            raise UnsupportedAlgorithmError(f"Algorithm of {name!r} is not allowed")
        return self.algorithms["EdDSA"]


_REGISTRY: Final = _EdDSAOnly()


def _seconds(instant: datetime) -> float:
    """Seconds since 1970. Raises ValueError for a naive datetime."""
    if instant.tzinfo is None:
        raise ValueError("a datetime without a time zone is not an instant")
    return instant.timestamp()


def _sign(ring: KeyRing, typ: str, claims: BaseModel) -> str:
    """A compact JWS by the ring's service. Raises ValueError when it would be longer than a token may be."""
    key = ring.signing_key
    header = {"alg": "EdDSA", "typ": typ, "kid": key.kid}
    token = jws.serialize_compact(header, claims.model_dump_json().encode(), key, registry=_REGISTRY)
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise ValueError(f"a token of {len(token)} characters is longer than {MAX_TOKEN_CHARACTERS}")
    return token


def _verified(ring: KeyRing, token: str, typ: str, model: type[_C]) -> _C | None:
    """The claims of a token whose form, type, algorithm, signature and issuer hold, or None. No times yet."""
    if len(token) > MAX_TOKEN_CHARACTERS:
        return None
    owner = ""

    def key_of(message: Any) -> Any:
        nonlocal owner
        header = message.headers()
        known = ring.verifying_key(str(header.get("kid")))
        if known is None or header.get("typ") != typ:
            raise ValueError("unknown key or another kind of token")
        owner, key = known
        return key

    try:
        payload = jws.deserialize_compact(token, key_of, registry=_REGISTRY).payload
        claims = model.model_validate_json(payload)
    except Exception:
        # The token is hostile and passes three libraries; whatever they raise means: not verified.
        return None
    # A service speaks in its own name only: iss must own the key.
    return claims if claims.iss == owner else None


def _in_time(claims: _Claims, now: datetime) -> bool:
    seconds = _seconds(now)
    return claims.nbf - NOT_BEFORE_LEEWAY_SECONDS <= seconds < claims.exp


def issue_token(ring: KeyRing, actor: Actor, *, now: datetime, lifetime_seconds: int) -> str:
    """A token for `actor`, issued by the ring's service, valid from `now` (aware) for `lifetime_seconds`.

    Raises ValueError for a role this service may not issue, or a lifetime outside 1 second .. 31 days.
    """
    if actor.role not in ISSUER_ROLES.get(ring.service, frozenset()):
        raise ValueError(f"{ring.service!r} may not issue the role {actor.role!r}")
    if not 1 <= lifetime_seconds <= MAX_LIFETIME_SECONDS:
        raise ValueError(f"a token lives 1..{MAX_LIFETIME_SECONDS} seconds")
    issued = int(_seconds(now))
    claims = _ActorClaims(
        iss=ring.service,
        nbf=issued,
        exp=issued + lifetime_seconds,
        sub=actor.subject,
        role=actor.role,
        scope=" ".join(sorted(actor.scope)),
    )
    return _sign(ring, _ACTOR_TYPE, claims)


class _NotVerifiedError(Exception):
    """Passes the cache below, which so remembers good tokens only: bad ones cannot push them out."""


@lru_cache(maxsize=CACHED_TOKENS)
def _verified_actor(ring: KeyRing, token: str) -> tuple[Actor, _ActorClaims]:
    """Actor and claims of a token whose signature and issuer hold: what time cannot change."""
    claims = _verified(ring, token, _ACTOR_TYPE, _ActorClaims)
    if claims is None or claims.role not in ISSUER_ROLES.get(claims.iss, frozenset()):
        raise _NotVerifiedError
    try:
        return Actor(claims.sub, claims.role, frozenset(claims.scope.split())), claims
    except ValueError:
        raise _NotVerifiedError from None


def verify_token(ring: KeyRing, token: str, *, now: datetime) -> Actor:
    """The actor of a token, or Refused `actor_unauthenticated`, whatever is wrong with it.

    Checked: EdDSA, known key, key of the issuer, role the issuer may give, nbf and exp at `now` (aware).
    Signatures are remembered (an Ed25519 verification costs more than all the rest); times are checked each
    time.
    """
    if len(token) > MAX_TOKEN_CHARACTERS:
        raise Refused("actor_unauthenticated")
    try:
        actor, claims = _verified_actor(ring, token)
    except _NotVerifiedError:
        raise Refused("actor_unauthenticated") from None
    if not _in_time(claims, now):
        raise Refused("actor_unauthenticated")
    return actor


def require(
    actor: Actor | None,
    *roles: Role,
    subject: str | None = None,
    scope: str | None = None,
    own: Mapping[Role, str] = MappingProxyType({}),
) -> Actor:
    """`actor`, if it is there and has one of `roles` (none given: any), and is `subject`, and has `scope`. In a role
    of `own` it must be the one named there: “the institution itself, or any authority”.

    Raises Refused `actor_unauthenticated` without an actor, `actor_forbidden` otherwise. Nobody is let
    through for being an operator: name the role where it may pass.
    """
    if actor is None:
        raise Refused("actor_unauthenticated")
    if roles and actor.role not in roles:
        raise Refused("actor_forbidden")
    if subject is not None and actor.subject != subject:
        raise Refused("actor_forbidden")
    if scope is not None and scope not in actor.scope:
        raise Refused("actor_forbidden")
    if own.get(actor.role, actor.subject) != actor.subject:
        raise Refused("actor_forbidden")
    return actor


def issue_proof(
    ring: KeyRing,
    *,
    audience: str,
    claims: Mapping[str, JsonValue],
    now: datetime,
    lifetime_seconds: int = MAX_PROOF_SECONDS,
) -> str:
    """A statement of the ring's service to `audience`, e.g. notify: the phone of challenge X is verified.

    `claims` are free, but readable by everybody on the road: ids of challenges, never the phone itself. A
    proof may be shown more than once while it lives; who must not accept it twice remembers the challenge's
    id. Raises ValueError for a lifetime outside 1..300 seconds or claims that make it too long.
    """
    if not 1 <= lifetime_seconds <= MAX_PROOF_SECONDS:
        raise ValueError(f"a proof lives 1..{MAX_PROOF_SECONDS} seconds")
    issued = int(_seconds(now))
    body = _ProofClaims(iss=ring.service, nbf=issued, exp=issued + lifetime_seconds, aud=audience, claims=dict(claims))
    return _sign(ring, _PROOF_TYPE, body)


def verify_proof(ring: KeyRing, token: str, *, issuer: str, now: datetime) -> dict[str, JsonValue]:
    """The claims of a proof that `issuer` gave to this ring's service, or Refused `proof_invalid`.

    A token of an actor is no proof and a proof no token: their types differ.
    """
    found = _verified(ring, token, _PROOF_TYPE, _ProofClaims)
    if found is None or found.iss != issuer or found.aud != ring.service or not _in_time(found, now):
        raise Refused("proof_invalid")
    if timedelta(seconds=found.exp - found.nbf) > timedelta(seconds=MAX_PROOF_SECONDS):
        raise Refused("proof_invalid")
    return found.claims
