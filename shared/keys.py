"""The key folder: who may sign, who may read, and what each service keeps to itself.

    <folder>/public.json                     JWK Set of every public key, kid `<service>.<use>.<n>`
    <folder>/private/<service>.sign.jwk      Ed25519, signs tokens and proofs
    <folder>/private/<service>.seal.jwk      X25519, opens what was sealed to the service
    <folder>/private/<service>.data.jwk      256 random bits: encryption at rest and look-up hashes
    <folder>/private/<service>.<use>.previous.jwk   after a rotation: the key before, still valid

This module reads and writes files; nothing else under `shared` that uses keys does. Each service is given
its own private files and public.json, never the folder. [DOMAIN: sensitive personal information; layout:
ours]
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from joserfc.jwk import OctKey, OKPKey

MAX_FILE_BYTES: Final = 1 << 20
VALID_KEYS: Final = 2
"""Keys of one service and use that are valid at a time: the current and the one before."""

Key = TypeVar("Key")
RotatedUse = Literal["sign", "seal"]

_CURVES: Final[Mapping[RotatedUse, Literal["Ed25519", "X25519"]]] = {"sign": "Ed25519", "seal": "X25519"}
_JWK_USES: Final[Mapping[RotatedUse, Literal["sig", "enc"]]] = {"sign": "sig", "seal": "enc"}
_SERVICE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_KID: Final = re.compile(r"([a-z][a-z0-9_-]{0,31})\.(sign|seal)\.([1-9][0-9]{0,5})")


class KeysError(Exception):
    """A key file is missing, damaged or of the wrong kind: stops a process at its start, never a refusal."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeyRing:
    """What one service holds: its private keys and everybody's public ones. Immutable, compared by identity.

    A new key reaches a process when it starts again. `repr` shows the service only.
    """

    service: str
    _signing: OKPKey | None
    _unsealing: Mapping[str, OKPKey]  # own private keys by kid
    _verifying: Mapping[str, OKPKey]  # everybody's public keys by kid
    _sealing: Mapping[str, OKPKey]  # the newest public key of each service, by service
    _at_rest: OctKey | None
    _lookup: bytes | None

    def __repr__(self) -> str:
        return f"KeyRing({self.service!r})"

    @classmethod
    def load(cls, folder: Path, service: str) -> "KeyRing":
        """The ring of `service` from `folder`: its private keys (sign, seal, data) and all of public.json.

        Raises KeysError, naming the file and never its content.
        """
        _check_service(service)
        signing = _read_pair(folder, service, "sign")
        unsealing = _read_pair(folder, service, "seal")
        data = _read_data_key(folder, service)
        verifying, sealing = _read_public(folder)
        return cls(
            service=service,
            _signing=signing[0],
            _unsealing=MappingProxyType({_kid(key): key for key in unsealing}),
            _verifying=verifying,
            _sealing=sealing,
            # One secret, two keys: what encrypts must not also be the key of hashes that can be looked at.
            _at_rest=OctKey.import_key(_derive(data, b"yike at rest v1"), {"kid": f"{service}.data.1"}),
            _lookup=_derive(data, b"yike look-up v1"),
        )

    @classmethod
    def load_public(cls, folder: Path) -> "KeyRing":
        """A ring without private keys, for a gateway: it can seal to a service and verify, nothing else."""
        verifying, sealing = _read_public(folder)
        return cls("", None, MappingProxyType({}), verifying, sealing, None, None)

    @property
    def signing_key(self) -> OKPKey:
        """The current private Ed25519 key. Raises KeysError in a public ring."""
        return _present(self._signing)

    @property
    def at_rest_key(self) -> OctKey:
        """The 256-bit key of encryption at rest. Raises KeysError in a public ring."""
        return _present(self._at_rest)

    @property
    def lookup_key(self) -> bytes:
        """The 256-bit key of look-up hashes. Raises KeysError in a public ring."""
        return _present(self._lookup)

    def sealing_key(self, service: str) -> OKPKey:
        """The newest public X25519 key of `service`. Raises KeysError when it has none."""
        key = self._sealing.get(service)
        if key is None:
            raise KeysError(f"public.json has no seal key of {service!r}")
        return key

    def unsealing_key(self, kid: str) -> OKPKey | None:
        """This service's own private X25519 key with that id, or None: it was sealed to somebody else."""
        return self._unsealing.get(kid)

    def verifying_key(self, kid: str) -> tuple[str, OKPKey] | None:
        """(service that owns it, public Ed25519 key) for a key id, or None if unknown or rotated away."""
        key = self._verifying.get(kid)
        return None if key is None else (kid.split(".", 1)[0], key)


def generate_keys(folder: Path, services: Sequence[str]) -> None:
    """Make what is missing of the keys of `services` in `folder`, and public.json; the rest stays as it is.

    Idempotent; private files have mode 0600, their folder 0700. Not for two callers at once: it is a step
    of the installation. Public keys of services whose private files are elsewhere are kept. Raises
    KeysError when a file that is there cannot be read, ValueError for a bad name of a service.
    """
    for service in services:
        _check_service(service)
    private = folder / "private"
    folder.mkdir(parents=True, exist_ok=True)
    private.mkdir(mode=0o700, exist_ok=True)
    for service in services:
        for use in _CURVES:
            if not _private_path(folder, service, use).exists():
                _write_private(_private_path(folder, service, use), _new_key(service, use, 1))
        data_path = private / f"{service}.data.jwk"
        if not data_path.exists():
            _write_private(data_path, OctKey.generate_key(256, {"kid": f"{service}.data.1", "use": "enc"}))
    _publish(folder)


def rotate_key(folder: Path, service: str, use: RotatedUse) -> str:
    """Make a new key of `service`; the current one becomes the previous and stays valid; returns the new kid.

    Then start the other services again before `service` itself, so that nobody meets a kid he does not
    know. Rotate again only when the longest token of the key before has expired (sign), or nothing sealed
    to it is still on the road (seal). The data key cannot be rotated so: rows and look-up hashes hang on
    it.
    """
    _check_service(service)
    path, current = _private_path(folder, service, use), _read_pair(folder, service, use)[0]
    key = _new_key(service, use, _number(_kid(current)) + 1)
    _write_private(_previous_path(folder, service, use), current)
    _write_private(path, key)
    _publish(folder)
    return _kid(key)


def _present(key: Key | None) -> Key:
    if key is None:
        raise KeysError("this ring holds public keys only")
    return key


def _check_service(service: str) -> None:
    """Raises ValueError for a name that is no file name of ours: it becomes part of a path."""
    if not _SERVICE.fullmatch(service):
        raise ValueError(f"not a name of a service: {service!r}")


def _derive(secret: bytes, purpose: bytes) -> bytes:
    """256 bits for one purpose from the data key. HKDF-SHA256 (RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)


def _kid(key: OKPKey) -> str:
    kid = key.kid
    if kid is None or not _KID.fullmatch(kid):
        raise KeysError(f"a key has no kid of the form <service>.<use>.<n>: {kid!r}")
    return kid


def _number(kid: str) -> int:
    return int(kid.rsplit(".", 1)[1])


def _private_path(folder: Path, service: str, use: RotatedUse) -> Path:
    return folder / "private" / f"{service}.{use}.jwk"


def _previous_path(folder: Path, service: str, use: RotatedUse) -> Path:
    return folder / "private" / f"{service}.{use}.previous.jwk"


def _new_key(service: str, use: RotatedUse, number: int) -> OKPKey:
    parameters: Any = {"kid": f"{service}.{use}.{number}", "use": _JWK_USES[use]}
    return OKPKey.generate_key(_CURVES[use], parameters)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
    except OSError as fault:
        raise KeysError(f"{path}: {fault.strerror}") from None
    except ValueError:
        raise KeysError(f"{path}: not JSON") from None  # the fault itself would quote a secret
    if not isinstance(found, dict):
        raise KeysError(f"{path}: not a JSON object")
    return found


def _import(where: Path, jwk: dict[str, Any], service: str | None, use: RotatedUse, private: bool) -> OKPKey:
    """An OKP key checked for curve, kid (of `service`, if given) and presence of the private part."""
    try:
        key = OKPKey.import_key(jwk)
        curve = key.curve_name
    except Exception:  # whatever the library says may quote the key
        raise KeysError(f"{where}: not an OKP key") from None
    owner, kid_use, _ = _kid(key).split(".")
    if curve != _CURVES[use] or kid_use != use or service not in (None, owner) or key.is_private != private:
        kind = "private" if private else "public"
        raise KeysError(f"{where}: not a {kind} {_CURVES[use]} key of {service or owner} for {use}")
    return key


def _read_pair(folder: Path, service: str, use: RotatedUse) -> list[OKPKey]:
    """The current private key, then the previous one if there is any."""
    path, previous = _private_path(folder, service, use), _previous_path(folder, service, use)
    keys = [_import(path, _read_json(path), service, use, private=True)]
    if previous.exists():
        keys.append(_import(previous, _read_json(previous), service, use, private=True))
    return keys


def _read_data_key(folder: Path, service: str) -> bytes:
    path = folder / "private" / f"{service}.data.jwk"
    jwk = _read_json(path)
    if jwk.get("kty") != "oct" or jwk.get("kid") != f"{service}.data.1" or len(str(jwk.get("k"))) != 43:
        raise KeysError(f"{path}: not the 256-bit oct key of {service}")
    try:
        return OctKey.import_key(jwk).raw_value
    except Exception:  # whatever the library says may quote the key
        raise KeysError(f"{path}: not an oct key") from None


def _read_public(folder: Path) -> tuple[Mapping[str, OKPKey], Mapping[str, OKPKey]]:
    """(verifying keys by kid, newest sealing key by service) of public.json."""
    path = folder / "public.json"
    verifying: dict[str, OKPKey] = {}
    sealing: dict[str, OKPKey] = {}
    for jwk in _public_jwks(path):
        owner, use, number = str(jwk["kid"]).split(".")
        if use == "sign":
            verifying[str(jwk["kid"])] = _import(path, jwk, None, "sign", private=False)
            continue
        key = _import(path, jwk, None, "seal", private=False)
        if owner not in sealing or _number(_kid(sealing[owner])) < int(number):
            sealing[owner] = key
    return MappingProxyType(verifying), MappingProxyType(sealing)


def _public_jwks(path: Path) -> list[dict[str, Any]]:
    """The entries of a JWK Set, each with a well-formed kid that stands there once."""
    entries = _read_json(path).get("keys")
    if not isinstance(entries, list):
        raise KeysError(f"{path}: not a JWK Set")
    kids: set[str] = set()
    for entry in entries:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        if not isinstance(kid, str) or not _KID.fullmatch(kid) or kid in kids:
            raise KeysError(f"{path}: an entry without a kid of ours, or one kid twice: {kid!r}")
        kids.add(kid)
    return entries


def _publish(folder: Path) -> None:
    """Write public.json: all private keys in the folder, and the public keys of who keeps his elsewhere."""
    path = folder / "public.json"
    found: dict[str, dict[str, Any]] = {}
    if path.exists():
        found = {str(jwk["kid"]): jwk for jwk in _public_jwks(path)}
    for use in _CURVES:
        for private_path in sorted((folder / "private").glob(f"*.{use}.jwk")):
            service = private_path.name.removesuffix(f".{use}.jwk")
            keys = _read_pair(folder, service, use)
            found = {kid: jwk for kid, jwk in found.items() if not kid.startswith(f"{service}.{use}.")}
            found |= {_kid(key): dict(key.as_dict(private=False)) for key in keys[:VALID_KEYS]}
    document = json.dumps({"keys": [found[kid] for kid in sorted(found)]}, indent=2) + "\n"
    _write(path, document, 0o644)


def _write_private(path: Path, key: OKPKey | OctKey) -> None:
    _write(path, json.dumps(key.as_dict(private=True)) + "\n", 0o600)


def _write(path: Path, text: str, mode: int) -> None:
    """Write the whole file or nothing: a process that dies half way leaves no broken key behind."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # created with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
