"""Key folders, sealed values on the road, encryption at rest and look-up hashes."""

import base64
import json
import logging
import stat
from pathlib import Path

import pytest
from joserfc import jwe
from pydantic import BaseModel, ValidationError

from shared.contracts.errors import Refused
from shared.keys import KeyRing, KeysError, generate_keys, rotate_key
from shared.sealing import (
    MAX_JWE_CHARACTERS,
    MAX_SEALED_BYTES,
    AtRestError,
    Sealed,
    decrypt_at_rest,
    encrypt_at_rest,
    keyed_hash,
    same_secret,
    seal,
    unseal,
)

PHONE = "+8613912345678"


class Phone(BaseModel):
    phone: str


class Child(BaseModel):
    name: str
    number: str


class Request(BaseModel):
    phone: Sealed[Phone]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys")
    generate_keys(path, ["orders", "notify"])
    return path


@pytest.fixture(scope="module")
def orders(folder: Path) -> KeyRing:
    return KeyRing.load(folder, "orders")


@pytest.fixture(scope="module")
def notify(folder: Path) -> KeyRing:
    return KeyRing.load(folder, "notify")


def unreadable(ring: KeyRing, text: str) -> None:
    with pytest.raises(Refused) as caught:
        unseal(ring, Sealed[Phone].model_construct(jwe=text), Phone)
    assert caught.value.code == "sealed_unreadable"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_only_the_service_it_was_sealed_to_reads_it(folder: Path, orders: KeyRing, notify: KeyRing) -> None:
    sealed = seal(KeyRing.load_public(folder), "orders", Phone(phone=PHONE))
    assert unseal(orders, sealed, Phone) == Phone(phone=PHONE)
    unreadable(notify, sealed.jwe)


def test_a_sealed_value_travels_through_a_message(orders: KeyRing, notify: KeyRing) -> None:
    sent = Request(phone=seal(notify, "orders", Phone(phone=PHONE))).model_dump_json()
    assert PHONE not in sent
    assert unseal(orders, Request.model_validate_json(sent).phone, Phone).phone == PHONE


def test_the_same_value_is_never_sealed_to_the_same_text(orders: KeyRing) -> None:
    value = Phone(phone=PHONE)
    assert seal(orders, "notify", value).jwe != seal(orders, "notify", value).jwe


def test_nothing_that_prints_a_sealed_value_shows_it(orders: KeyRing, caplog: pytest.LogCaptureFixture) -> None:
    sealed = seal(orders, "notify", Phone(phone=PHONE))
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("got %s %r %s", sealed, sealed, Request(phone=sealed))
    assert "Sealed(…)" in caplog.text
    for text in (str(sealed), repr(sealed), f"{sealed}", repr(Request(phone=sealed)), caplog.text):
        assert "ey" not in text


def test_what_is_no_compact_jwe_is_refused_as_a_field_without_being_quoted() -> None:
    for text in ("13912345678", "a.b.c", "", "x" * (MAX_JWE_CHARACTERS + 1)):
        with pytest.raises(ValidationError) as caught:
            Sealed[Phone].model_validate({"jwe": text})
        assert text == "" or text not in str(caught.value)


def test_every_changed_part_makes_it_unreadable(orders: KeyRing) -> None:
    parts = seal(orders, "orders", Phone(phone=PHONE)).jwe.split(".")
    for place in range(5):
        changed = list(parts)
        middle = len(changed[place]) // 2
        other = "A" if changed[place][middle] != "A" else "B"
        changed[place] = changed[place][:middle] + other + changed[place][middle + 1 :]
        unreadable(orders, ".".join(changed))


def header(**fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "fields",
    [
        {"alg": "dir", "enc": "A256GCM", "kid": "orders.seal.1"},
        {"alg": "ECDH-ES", "enc": "A256GCM", "kid": "orders.seal.1"},
        {"alg": "none", "enc": "A256GCM", "kid": "orders.seal.1"},
        {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "kid": "orders.seal.1", "p2c": 2**31, "p2s": "AAAA"},
        {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "kid": "orders.seal.1"},
        {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "kid": ["orders.seal.1"]},
        {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "kid": "orders.seal.1",
         "epk": {"kty": "OKP", "crv": "X25519", "x": "A" * 43}},
    ],
)  # fmt: skip
def test_a_forged_header_is_unreadable_and_never_an_error(orders: KeyRing, fields: dict[str, object]) -> None:
    unreadable(orders, f"{header(**fields)}.AAAA.AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA")


@pytest.mark.parametrize(
    "fields",
    [
        {"alg": "ECDH-ES+A128KW", "enc": "A256GCM"},
        {"alg": "ECDH-ES", "enc": "A256GCM"},
        {"alg": "ECDH-ES+A256KW", "enc": "A128GCM"},
        {"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "zip": "DEF"},
    ],
)
def test_an_honest_jwe_with_another_algorithm_or_compression_is_unreadable(
    orders: KeyRing, fields: dict[str, str]
) -> None:
    registry = jwe.JWERegistry(algorithms=["ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW", "A128GCM", "A256GCM", "DEF"])
    plain = Phone(phone=PHONE).model_dump_json()
    key = orders.sealing_key("orders")
    unreadable(orders, jwe.encrypt_compact({**fields, "kid": str(key.kid)}, plain, key, registry=registry))


def test_content_that_is_no_such_model_is_unreadable_and_not_quoted(orders: KeyRing) -> None:
    sealed = seal(orders, "orders", Child(name="小明", number="320402201506011234"))
    unreadable(orders, sealed.jwe)


def test_too_much_is_not_sealed(orders: KeyRing) -> None:
    with pytest.raises(ValueError, match="bytes"):
        seal(orders, "notify", Phone(phone="1" * MAX_SEALED_BYTES))
    largest = Phone(phone="1" * (MAX_SEALED_BYTES - len('{"phone":""}')))
    assert unseal(orders, seal(orders, "orders", largest), Phone) == largest


def test_a_service_without_a_key_cannot_be_sealed_to(orders: KeyRing) -> None:
    with pytest.raises(KeysError, match="escrow"):
        seal(orders, "escrow", Phone(phone=PHONE))


def test_a_value_at_rest_comes_back_as_text_or_model(orders: KeyRing) -> None:
    child = Child(name="小明", number="320402201506011234")
    stored = encrypt_at_rest(orders, child)
    assert child.number not in stored
    assert stored.isascii()
    assert decrypt_at_rest(orders, stored, Child) == child
    assert decrypt_at_rest(orders, encrypt_at_rest(orders, "合同" * 40_000)) == "合同" * 40_000
    assert encrypt_at_rest(orders, child) != stored


def test_a_value_at_rest_of_another_service_or_damaged_is_an_error_of_ours(orders: KeyRing, notify: KeyRing) -> None:
    stored = encrypt_at_rest(orders, "x")
    for ring, text in ((notify, stored), (orders, stored[:-2]), (orders, ""), (orders, "." * 4)):
        with pytest.raises(AtRestError):
            decrypt_at_rest(ring, text)
    with pytest.raises(AtRestError) as caught:
        decrypt_at_rest(orders, encrypt_at_rest(orders, "13912345678"), Phone)
    assert "13912345678" not in str(caught.value)
    with pytest.raises(ValueError, match="at rest"):
        encrypt_at_rest(orders, "x" * 300_000)


def test_look_up_hashes_repeat_in_one_service_and_differ_between_two(orders: KeyRing, notify: KeyRing) -> None:
    assert keyed_hash(orders, PHONE) == keyed_hash(orders, PHONE)
    assert len(keyed_hash(orders, PHONE)) == 32
    assert keyed_hash(orders, PHONE) != keyed_hash(notify, PHONE)
    assert keyed_hash(orders, PHONE) != keyed_hash(orders, PHONE + "0")


def test_the_key_of_hashes_is_not_the_key_of_encryption(folder: Path, orders: KeyRing) -> None:
    assert orders.lookup_key != orders.at_rest_key.raw_value
    stored = json.loads((folder / "private" / "orders.data.jwk").read_text())
    raw = base64.urlsafe_b64decode(stored["k"] + "=")
    assert raw not in (orders.lookup_key, orders.at_rest_key.raw_value)


def test_secrets_are_compared_as_text_or_bytes() -> None:
    assert same_secret("123456", b"123456")
    assert not same_secret("123456", "123457")
    assert not same_secret("一", "二")


def test_making_keys_again_changes_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    generate_keys(folder, ["orders", "notify"])
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_private_files_are_for_their_owner_only_and_public_json_holds_no_secret(folder: Path) -> None:
    private = list((folder / "private").iterdir())
    assert {path.name for path in private} == {
        f"{service}.{use}.jwk" for service in ("orders", "notify") for use in ("sign", "seal", "data")
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    assert stat.S_IMODE((folder / "private").stat().st_mode) == 0o700
    keys = json.loads((folder / "public.json").read_text())["keys"]
    assert {key["kid"] for key in keys} == {
        f"{service}.{use}.1" for service in ("orders", "notify") for use in ("sign", "seal")
    }
    assert all("d" not in key and "k" not in key for key in keys)


def test_a_ring_shows_no_key(orders: KeyRing) -> None:
    assert repr(orders) == "KeyRing('orders')"


def test_a_public_ring_seals_but_neither_signs_nor_opens(folder: Path) -> None:
    ring = KeyRing.load_public(folder)
    unreadable(ring, seal(ring, "orders", Phone(phone=PHONE)).jwe)
    for use in (lambda: ring.signing_key, lambda: ring.at_rest_key, lambda: ring.lookup_key):
        with pytest.raises(KeysError):
            use()


def test_after_a_rotation_old_and_new_are_read_and_after_two_the_oldest_is_gone(tmp_path: Path) -> None:
    generate_keys(tmp_path, ["orders"])
    first = seal(KeyRing.load(tmp_path, "orders"), "orders", Phone(phone=PHONE))
    assert rotate_key(tmp_path, "orders", "seal") == "orders.seal.2"
    ring = KeyRing.load(tmp_path, "orders")
    assert ring.sealing_key("orders").kid == "orders.seal.2"
    assert unseal(ring, first, Phone).phone == PHONE
    second = seal(ring, "orders", Phone(phone=PHONE))
    rotate_key(tmp_path, "orders", "seal")
    ring = KeyRing.load(tmp_path, "orders")
    assert unseal(ring, second, Phone).phone == PHONE
    unreadable(ring, first.jwe)
    kids = [key["kid"] for key in json.loads((tmp_path / "public.json").read_text())["keys"]]
    assert kids == ["orders.seal.2", "orders.seal.3", "orders.sign.1"]


def test_public_keys_of_services_that_keep_their_own_elsewhere_are_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "public.json").write_bytes((folder / "public.json").read_bytes())
    generate_keys(tmp_path, ["escrow"])
    KeyRing.load(tmp_path, "escrow").sealing_key("orders")
    with pytest.raises(KeysError, match=r"orders\.sign\.jwk"):
        KeyRing.load(tmp_path, "orders")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"kty":"oct","k":"c2VjcmV0"}'])
def test_a_damaged_key_file_is_named_and_not_quoted(tmp_path: Path, content: str) -> None:
    generate_keys(tmp_path, ["orders"])
    for name in ("orders.sign.jwk", "orders.data.jwk"):
        path = tmp_path / "private" / name
        good = path.read_text()
        path.write_text(content)
        with pytest.raises(KeysError, match=name) as caught:
            KeyRing.load(tmp_path, "orders")
        assert "c2VjcmV0" not in str(caught.value)
        path.write_text(good)


def test_a_key_of_another_service_is_not_taken_for_ones_own(folder: Path, tmp_path: Path) -> None:
    generate_keys(tmp_path, ["orders"])
    stolen = (folder / "private" / "notify.sign.jwk").read_text()
    (tmp_path / "private" / "orders.sign.jwk").write_text(stolen)
    with pytest.raises(KeysError, match="orders"):
        KeyRing.load(tmp_path, "orders")


@pytest.mark.parametrize("name", ["", "../etc", "Orders", "a.b", "a/b"])
def test_a_name_that_is_no_file_name_makes_no_keys(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="service"):
        generate_keys(tmp_path, [name])
    with pytest.raises(ValueError, match="service"):
        KeyRing.load(tmp_path, name)
