"""Sealing and tokens: round trips for every value, and no text that does anything but be refused."""

import contextlib
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.actors import Actor, issue_proof, issue_token, verify_proof, verify_token
from shared.contracts.errors import Refused
from shared.keys import KeyRing, generate_keys
from shared.sealing import (
    AtRestError,
    Sealed,
    decrypt_at_rest,
    encrypt_at_rest,
    keyed_hash,
    same_secret,
    seal,
    unseal,
)

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


class Note(BaseModel):
    text: str
    number: int = 0


def _rings() -> tuple[KeyRing, KeyRing]:
    with tempfile.TemporaryDirectory() as folder:
        generate_keys(Path(folder), ["orders", "notify"])
        return KeyRing.load(Path(folder), "orders"), KeyRing.load(Path(folder), "notify")


ORDERS, NOTIFY = _rings()
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=500)
notes = st.builds(Note, text=texts, number=st.integers(-(2**60), 2**60))
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(notes)
def test_what_was_sealed_comes_back_the_same(note: Note) -> None:
    assert unseal(ORDERS, seal(NOTIFY, "orders", note), Note) == note


@given(notes)
def test_what_was_encrypted_at_rest_comes_back_the_same(note: Note) -> None:
    assert decrypt_at_rest(ORDERS, encrypt_at_rest(ORDERS, note), Note) == note
    assert decrypt_at_rest(ORDERS, encrypt_at_rest(ORDERS, note.text)) == note.text


@given(texts, texts)
def test_look_up_hashes_are_equal_for_equal_texts_only(one: str, other: str) -> None:
    assert same_secret(keyed_hash(ORDERS, one), keyed_hash(ORDERS, other)) == (one == other)


@given(st.one_of(st.text(max_size=300), st.lists(st.text("eyJhbGc0-_", max_size=40), max_size=6).map(".".join)))
def test_any_text_is_unreadable_and_never_an_error(text: str) -> None:
    with contextlib.suppress(Refused):
        unseal(ORDERS, Sealed[Note].model_construct(jwe=text), Note)
        raise AssertionError
    with contextlib.suppress(AtRestError):
        decrypt_at_rest(ORDERS, text)
        raise AssertionError
    with contextlib.suppress(Refused):
        verify_token(ORDERS, text, now=NOW)
        raise AssertionError


@given(notes, st.data())
def test_one_changed_character_is_unreadable(note: Note, data: st.DataObject) -> None:
    text = seal(NOTIFY, "orders", note).jwe
    place = data.draw(st.integers(0, len(text) - 1))
    # The last character of a part may carry padding bits that decode to the same bytes.
    assume(text[place] != "." and (text + ".")[place + 1] != ".")
    other = "A" if text[place] != "A" else "B"
    with contextlib.suppress(Refused):
        unseal(ORDERS, Sealed[Note](jwe=text[:place] + other + text[place + 1 :]), Note)
        raise AssertionError


@given(words, st.frozensets(words, max_size=5), st.integers(1, 86_400), st.integers(-100_000, 100_000))
def test_a_token_holds_exactly_during_its_life(subject: str, scope: frozenset[str], lifetime: int, offset: int) -> None:
    actor = Actor(subject, "guardian", scope)
    token = issue_token(ORDERS, actor, now=NOW, lifetime_seconds=lifetime)
    try:
        found: Actor | None = verify_token(NOTIFY, token, now=NOW + timedelta(seconds=offset))
    except Refused:
        found = None
    assert found == (actor if -5 <= offset < lifetime else None)


plain_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts.map(lambda text: text[:20])
json_values = st.recursive(
    plain_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text("abcxyz", max_size=8), json_values, max_size=4))
def test_a_proof_says_what_it_was_given(claims: dict[str, object]) -> None:
    proof = issue_proof(NOTIFY, audience="orders", claims=claims, now=NOW)  # type: ignore[arg-type]
    assert verify_proof(ORDERS, proof, issuer="notify", now=NOW) == claims
