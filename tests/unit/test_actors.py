"""Tokens of actors and proofs between services: who may say what, to whom, and for how long."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from joserfc import jws
from joserfc.jwk import OctKey

from shared import actors
from shared.actors import Actor, Role, issue_proof, issue_token, require, verify_proof, verify_token
from shared.contracts.errors import Refused
from shared.keys import KeyRing, KeysError, generate_keys, rotate_key

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
PARENT = Actor("guardian-1", "guardian", frozenset({"family:1", "read"}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys")
    generate_keys(path, ["orders", "ops", "notify", "escrow"])
    return path


@pytest.fixture(scope="module")
def rings(folder: Path) -> dict[str, KeyRing]:
    return {name: KeyRing.load(folder, name) for name in ("orders", "ops", "notify", "escrow")}


def unauthenticated(ring: KeyRing, token: str, now: datetime = NOW) -> None:
    with pytest.raises(Refused) as caught:
        verify_token(ring, token, now=now)
    assert caught.value.code == "actor_unauthenticated"


def signed(ring: KeyRing, typ: str = "yike-actor+jwt", kid: str | None = None, **changes: object) -> str:
    """A token with any claims, honestly signed by the service of `ring`."""
    seconds = int(NOW.timestamp())
    claims = {"iss": ring.service, "nbf": seconds, "exp": seconds + 60, "sub": "x", "role": "guardian"}
    claims |= {"scope": ""} | changes
    key = ring.signing_key
    header = {"alg": "EdDSA", "typ": typ, "kid": kid or key.kid}
    return jws.serialize_compact(header, json.dumps(claims).encode(), key, registry=actors._REGISTRY)


def test_every_service_reads_the_actor_from_the_token(rings: dict[str, KeyRing]) -> None:
    token = issue_token(rings["orders"], PARENT, now=NOW, lifetime_seconds=3600)
    for ring in rings.values():
        assert verify_token(ring, token, now=NOW) == PARENT


@pytest.mark.parametrize("role", ["institution", "authority", "bank", "operator"])
def test_ops_issues_the_roles_of_offices(rings: dict[str, KeyRing], role: Role) -> None:
    actor = Actor("office-1", role)
    token = issue_token(rings["ops"], actor, now=NOW, lifetime_seconds=60)
    assert verify_token(rings["escrow"], token, now=NOW) == actor


def test_no_service_issues_a_role_of_another(rings: dict[str, KeyRing]) -> None:
    wrong: list[tuple[str, Role]] = [("ops", "guardian"), ("orders", "operator"), ("notify", "guardian")]
    for name, role in wrong:
        with pytest.raises(ValueError, match="may not issue"):
            issue_token(rings[name], Actor("x", role), now=NOW, lifetime_seconds=60)


def test_a_stolen_key_of_one_service_makes_no_actor_of_another(rings: dict[str, KeyRing]) -> None:
    unauthenticated(rings["escrow"], signed(rings["orders"], role="operator"))
    unauthenticated(rings["escrow"], signed(rings["notify"], role="guardian"))
    unauthenticated(rings["escrow"], signed(rings["orders"], iss="ops", role="operator"))
    unauthenticated(rings["escrow"], signed(rings["orders"], kid="ops.sign.1", role="operator", iss="ops"))


def test_a_token_ends_to_the_second_and_the_memory_of_it_changes_nothing(rings: dict[str, KeyRing]) -> None:
    token = issue_token(rings["orders"], PARENT, now=NOW, lifetime_seconds=60)
    verify_token(rings["escrow"], token, now=NOW + timedelta(seconds=59, microseconds=999_999))
    unauthenticated(rings["escrow"], token, NOW + timedelta(seconds=60))
    verify_token(rings["escrow"], token, now=NOW)


def test_a_token_of_the_future_is_refused_beyond_the_leeway(rings: dict[str, KeyRing]) -> None:
    token = issue_token(rings["orders"], PARENT, now=NOW, lifetime_seconds=60)
    verify_token(rings["escrow"], token, now=NOW - timedelta(seconds=5))
    unauthenticated(rings["escrow"], token, NOW - timedelta(seconds=6))


def test_a_verified_signature_is_remembered_and_a_bad_one_is_not(
    rings: dict[str, KeyRing], monkeypatch: pytest.MonkeyPatch
) -> None:
    actors._verified_actor.cache_clear()
    token = issue_token(rings["orders"], PARENT, now=NOW, lifetime_seconds=60)
    for _ in range(3):
        verify_token(rings["escrow"], token, now=NOW)
    unauthenticated(rings["escrow"], token + "x")
    info = actors._verified_actor.cache_info()
    assert (info.hits, info.currsize, info.maxsize) == (2, 1, actors.CACHED_TOKENS)


def test_any_changed_character_makes_a_token_worthless(rings: dict[str, KeyRing]) -> None:
    token = issue_token(rings["orders"], PARENT, now=NOW, lifetime_seconds=60)
    for place in range(0, len(token), 7):
        other = "A" if token[place] != "A" else "B"
        unauthenticated(rings["escrow"], token[:place] + other + token[place + 1 :])


def encoded(**fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


def test_no_other_algorithm_is_accepted(rings: dict[str, KeyRing]) -> None:
    seconds = int(NOW.timestamp())
    claims = {"iss": "orders", "nbf": seconds, "exp": seconds + 60, "sub": "x", "role": "guardian"}
    body, typ, kid = encoded(**claims), "yike-actor+jwt", "orders.sign.1"
    unauthenticated(rings["escrow"], f"{encoded(alg='none', typ=typ, kid=kid)}.{body}.")
    # The classic: the public key, which everybody has, used as the secret of an HMAC.
    known = rings["escrow"].verifying_key(kid)
    assert known is not None
    public = OctKey.import_key(json.dumps(known[1].as_dict(private=False)))
    header = {"alg": "HS256", "typ": typ, "kid": kid}
    unauthenticated(rings["escrow"], jws.serialize_compact(header, json.dumps(claims).encode(), public))
    ed25519 = {"alg": "Ed25519", "typ": typ, "kid": kid}
    key = rings["orders"].signing_key
    other_name = jws.serialize_compact(ed25519, json.dumps(claims).encode(), key, algorithms=["Ed25519"])
    unauthenticated(rings["escrow"], other_name)


@pytest.mark.parametrize(
    "changes",
    [{"sub": ""}, {"sub": "a b"}, {"sub": None}, {"sub": "x" * 129}, {"role": "king"}, {"scope": "汉"},
     {"exp": "9999999999"}, {"exp": None}, {"nbf": 1.5}, {"exp": True}, {"iss": None}],
)  # fmt: skip
def test_claims_of_a_wrong_form_are_refused(rings: dict[str, KeyRing], changes: dict[str, Any]) -> None:
    unauthenticated(rings["escrow"], signed(rings["orders"], **changes))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "ä.ö.ü", "x" * 5000, "\ud800.a.b"])
def test_what_is_no_token_is_refused_and_never_an_error(rings: dict[str, KeyRing], token: str) -> None:
    unauthenticated(rings["escrow"], token)
    with pytest.raises(Refused) as caught:
        verify_proof(rings["orders"], token, issuer="notify", now=NOW)
    assert caught.value.code == "proof_invalid"


def test_a_lifetime_outside_its_limits_is_a_mistake(rings: dict[str, KeyRing]) -> None:
    for seconds in (0, -1, 32 * 86_400):
        with pytest.raises(ValueError, match="lives"):
            issue_token(rings["orders"], PARENT, now=NOW, lifetime_seconds=seconds)


def test_an_actor_has_a_plain_subject_and_plain_scope() -> None:
    for subject, scope in (("", "a"), ("a b", "a"), ("a", "b c"), ("a", ""), ("汉", "a")):
        with pytest.raises(ValueError, match="ASCII"):
            Actor(subject, "guardian", frozenset({scope}))


def test_a_gateway_can_verify_but_not_issue(folder: Path, rings: dict[str, KeyRing]) -> None:
    public = KeyRing.load_public(folder)
    token = issue_token(rings["orders"], PARENT, now=NOW, lifetime_seconds=60)
    assert verify_token(public, token, now=NOW) == PARENT
    with pytest.raises(ValueError, match="may not issue"):
        issue_token(public, PARENT, now=NOW, lifetime_seconds=60)
    with pytest.raises(KeysError):
        issue_proof(public, audience="orders", claims={}, now=NOW)


def test_a_token_outlives_one_rotation_and_not_two(tmp_path: Path) -> None:
    generate_keys(tmp_path, ["orders"])
    token = issue_token(KeyRing.load(tmp_path, "orders"), PARENT, now=NOW, lifetime_seconds=60)
    rotate_key(tmp_path, "orders", "sign")
    assert verify_token(KeyRing.load(tmp_path, "orders"), token, now=NOW) == PARENT
    rotate_key(tmp_path, "orders", "sign")
    unauthenticated(KeyRing.load(tmp_path, "orders"), token)


def test_require_lets_the_right_actor_through_and_returns_it() -> None:
    assert require(PARENT) is PARENT
    assert require(PARENT, "guardian", "authority", subject="guardian-1", scope="read") is PARENT


def test_require_tells_nobody_from_the_wrong_one() -> None:
    with pytest.raises(Refused) as caught:
        require(None, "guardian")
    assert caught.value.code == "actor_unauthenticated"
    attempts: list[Callable[[], Actor]] = [
        lambda: require(PARENT, "operator"),
        lambda: require(PARENT, "guardian", subject="guardian-2"),
        lambda: require(PARENT, scope="write"),
        lambda: require(Actor("op", "operator"), "guardian"),
        lambda: require(PARENT, "guardian", "authority", own={"guardian": "guardian-2"}),
    ]
    for forbidden in attempts:
        with pytest.raises(Refused) as caught:
            forbidden()
        assert caught.value.code == "actor_forbidden"


def test_require_asks_only_the_roles_that_speak_for_themselves_who_they_are() -> None:
    own: dict[Role, str] = {"guardian": "guardian-1"}
    assert require(PARENT, "guardian", "authority", own=own) is PARENT
    authority = Actor("authority-1", "authority")
    assert require(authority, "guardian", "authority", own=own) is authority


def test_a_guardian_and_an_institution_see_their_own_and_an_authority_sees_all() -> None:
    guardian, institution, other = uuid4(), uuid4(), uuid4()
    roles: tuple[Role, ...] = ("guardian", "institution", "authority")
    seen = {
        (role, subject): Actor(str(subject), role).may_see(guardian=guardian, institution=institution)
        for role in roles
        for subject in (guardian, institution, other)
    }
    assert {key for key, may in seen.items() if may} == {
        ("guardian", guardian),
        ("institution", institution),
        *(("authority", subject) for subject in (guardian, institution, other)),
    }
    assert not Actor(str(institution), "institution").may_see(guardian=guardian, institution=None)


def test_a_proof_reaches_the_service_it_was_made_for(rings: dict[str, KeyRing]) -> None:
    claims = {"challenge": "c-1", "tries": 2, "nested": {"ok": True}}
    proof = issue_proof(rings["notify"], audience="orders", claims=claims, now=NOW)  # type: ignore[arg-type]
    assert verify_proof(rings["orders"], proof, issuer="notify", now=NOW) == claims


def test_a_proof_for_another_service_of_another_issuer_or_too_old_is_invalid(
    rings: dict[str, KeyRing],
) -> None:
    proof = issue_proof(rings["notify"], audience="orders", claims={"challenge": "c-1"}, now=NOW)
    late = NOW + timedelta(seconds=300)
    for reader, issuer, now in (("escrow", "notify", NOW), ("orders", "ops", NOW), ("orders", "notify", late)):
        with pytest.raises(Refused) as caught:
            verify_proof(rings[reader], proof, issuer=issuer, now=now)
        assert caught.value.code == "proof_invalid"


def test_a_proof_is_no_token_and_a_token_no_proof(rings: dict[str, KeyRing]) -> None:
    token = issue_token(rings["orders"], PARENT, now=NOW, lifetime_seconds=60)
    with pytest.raises(Refused):
        verify_proof(rings["orders"], token, issuer="orders", now=NOW)
    proof = issue_proof(rings["orders"], audience="escrow", claims={"sub": "x", "role": "guardian"}, now=NOW)
    unauthenticated(rings["escrow"], proof)


def test_a_proof_that_claims_to_live_longer_than_it_may_is_invalid(rings: dict[str, KeyRing]) -> None:
    long = signed(rings["notify"], typ="yike-proof+jwt", aud="orders", claims={}, exp=int(NOW.timestamp()) + 301)
    with pytest.raises(Refused):
        verify_proof(rings["orders"], long, issuer="notify", now=NOW)
    with pytest.raises(ValueError, match="lives"):
        issue_proof(rings["notify"], audience="orders", claims={}, now=NOW, lifetime_seconds=301)
    with pytest.raises(ValueError, match="longer"):
        issue_proof(rings["notify"], audience="orders", claims={"x": "y" * 5000}, now=NOW)
