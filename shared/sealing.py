"""What must not be read in a log of Kafka or in a table: sealed to one service, or encrypted at rest.

On the road: `Sealed[T]`, a compact JWE (RFC 7516) to ONE service's public key, ECDH-ES+A256KW with A256GCM.
At rest: dir with A256GCM under the service's own data key; look-ups go by HMAC-SHA256 of the plain text.
Algorithms are pinned: what a header asks for beyond these is refused, compression included. Sizes are limited
before anything is decoded. [law: PIPL 28-31, 敏感个人信息; algorithms and limits: ours]
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Annotated, Final, Generic, TypeVar, overload

from joserfc import jwe
from joserfc.jwk import OctKey, OKPKey
from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.errors import Refused
from shared.keys import KeyRing

MAX_SEALED_BYTES: Final = 16_384
"""Most plain text in one Sealed, in bytes of UTF-8: a person's data is far below 1 kB."""
MAX_JWE_CHARACTERS: Final = 24_576
MAX_AT_REST_BYTES: Final = 262_144
"""Most plain text of one value at rest, in bytes of UTF-8: room for a whole contract (合同)."""

T = TypeVar("T", bound=BaseModel)


class Sealed(BaseModel, Generic[T]):
    """A `T` that only one service can read. On the wire `{"jwe": "…"}`; its repr and str show nothing.

    T says what is inside; it is checked when the owner unseals it, not before.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    jwe: Annotated[
        str,
        Field(
            max_length=MAX_JWE_CHARACTERS,
            pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+$",
            repr=False,
        ),
    ]

    def __repr__(self) -> str:
        return "Sealed(…)"

    def __str__(self) -> str:
        return "Sealed(…)"


class AtRestError(Exception):
    """A stored value cannot be decrypted: damaged, or of another key. A fault of ours, not a refusal."""


class _SealedRegistry(jwe.JWERegistry):
    max_ciphertext_length = MAX_JWE_CHARACTERS


class _AtRestRegistry(jwe.JWERegistry):
    # Base64 text of the largest value; the library compares it with both the text and the decoded bytes.
    max_ciphertext_length = MAX_AT_REST_BYTES * 4 // 3 + 4


_SEALED_HEADER: Final = {"alg": "ECDH-ES+A256KW", "enc": "A256GCM"}
_AT_REST_HEADER: Final = {"alg": "dir", "enc": "A256GCM"}
_SEALED: Final = _SealedRegistry(algorithms=list(_SEALED_HEADER.values()))
_AT_REST: Final = _AtRestRegistry(algorithms=list(_AT_REST_HEADER.values()))


def seal(ring: KeyRing, to_service: str, value: T) -> Sealed[T]:
    """`value` as JSON, readable by `to_service` only. Each call gives another text.

    Raises ValueError above `MAX_SEALED_BYTES`, KeysError when the service has no seal key.
    """
    plain = value.model_dump_json().encode()
    if len(plain) > MAX_SEALED_BYTES:
        raise ValueError(f"{len(plain)} bytes are more than fit a Sealed ({MAX_SEALED_BYTES})")
    key = ring.sealing_key(to_service)
    header = {**_SEALED_HEADER, "kid": key.kid}
    return Sealed(jwe=jwe.encrypt_compact(header, plain, key, registry=_SEALED))


def unseal(ring: KeyRing, sealed: Sealed[T], model: type[T]) -> T:
    """The `model` inside. Raises Refused `sealed_unreadable` for whatever is wrong, never saying what.

    Wrong service, rotated-away key, changed text, other algorithm and content that is no `model` look alike.
    """

    def own_key(kid: str) -> OKPKey | None:
        return ring.unsealing_key(kid)

    plain = _opened(sealed.jwe, own_key, _SEALED, MAX_JWE_CHARACTERS)
    if plain is None or len(plain) > MAX_SEALED_BYTES:
        raise Refused("sealed_unreadable")
    try:
        return model.model_validate_json(plain)
    except ValueError:
        # `from None`: pydantic's message quotes the plain text.
        raise Refused("sealed_unreadable") from None


def encrypt_at_rest(ring: KeyRing, value: BaseModel | str) -> str:
    """`value` (a model as JSON, or text) encrypted for this service's own tables: a compact JWE in ASCII.

    Each call gives another text; a column to look up by is `keyed_hash`. Raises ValueError above
    `MAX_AT_REST_BYTES`.
    """
    plain = (value if isinstance(value, str) else value.model_dump_json()).encode()
    if len(plain) > MAX_AT_REST_BYTES:
        raise ValueError(f"{len(plain)} bytes are more than fit at rest ({MAX_AT_REST_BYTES})")
    key = ring.at_rest_key
    return jwe.encrypt_compact({**_AT_REST_HEADER, "kid": key.kid}, plain, key, registry=_AT_REST)


@overload
def decrypt_at_rest(ring: KeyRing, stored: str) -> str: ...
@overload
def decrypt_at_rest(ring: KeyRing, stored: str, model: type[T]) -> T: ...
def decrypt_at_rest(ring: KeyRing, stored: str, model: type[T] | None = None) -> str | T:
    """The text that `encrypt_at_rest` was given, or the `model` of it. Raises AtRestError."""

    def own_key(kid: str) -> OctKey | None:
        return ring.at_rest_key if kid == ring.at_rest_key.kid else None

    plain = _opened(stored, own_key, _AT_REST, _AtRestRegistry.max_ciphertext_length + 1024)
    if plain is None:
        raise AtRestError("a value at rest cannot be decrypted")
    if model is None:
        return plain.decode()
    try:
        return model.model_validate_json(plain)
    except ValueError:
        # `from None`: pydantic's message quotes the plain text.
        raise AtRestError(f"a value at rest is not a {model.__name__}") from None


def _opened(
    text: str,
    own_key: Callable[[str], OKPKey | None] | Callable[[str], OctKey | None],
    registry: jwe.JWERegistry,
    max_characters: int,
) -> bytes | None:
    """The plain text of a compact JWE, or None. `own_key` finds the key by the kid of its header."""
    if len(text) > max_characters:
        return None

    def key_of(message: object) -> OKPKey | OctKey:
        headers = message.headers() if isinstance(message, jwe.Recipient) else {}
        key = own_key(str(headers.get("kid")))
        if key is None:
            raise ValueError("not sealed to us")
        return key

    try:
        return jwe.decrypt_compact(text, key_of, registry=registry).plaintext
    except Exception:
        # The text is hostile and passes three libraries; whatever they raise means: unreadable.
        return None


def keyed_hash(ring: KeyRing, text: str) -> bytes:
    """HMAC-SHA256 (32 bytes) of `text` under this service's own key, to find an encrypted value again.

    The same number always gives the same hash in one service and another one elsewhere, so normalise before
    (`check_document`, `normalise_phone`). A plain SHA-256 of a phone number is guessed in minutes; this is
    not.
    """
    return hmac.digest(ring.lookup_key, text.encode(), hashlib.sha256)


def same_secret(left: bytes | str, right: bytes | str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    left_bytes = left.encode() if isinstance(left, str) else left
    right_bytes = right.encode() if isinstance(right, str) else right
    return hmac.compare_digest(left_bytes, right_bytes)
