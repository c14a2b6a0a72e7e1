"""Families: what is taken as a child and a signer, what is shown of them, what a contract prints."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.orders.families import domain, queries
from services.orders.families.domain import Account, Child, Family
from shared.contracts.errors import Refused
from shared.contracts.orders import ChildDetails, SignerDetails
from shared.documents import DocumentType, Sex
from shared.keys import KeyRing, generate_keys
from shared.sealing import encrypt_at_rest

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
TODAY = date(2026, 11, 23)
BOY = ChildDetails(
    name="张小明",
    sex=Sex.MALE,
    birth_date="2015-06-01",
    document_type=DocumentType.RESIDENT_IDENTITY_CARD,
    document_number="320402201506011234",
)
MOTHER = SignerDetails(
    name="李华",
    phone="139 1234 5678",
    address="常州市天宁区  和平路 1 号",
    document_type=DocumentType.RESIDENT_IDENTITY_CARD,
    document_number="11010519491231002x",
)


def refused(code: str, decide: Any, *arguments: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        decide(*arguments)
    assert caught.value.code == code
    return caught.value


def child(number: int = 1, account_id: UUID | None = None) -> Child:
    return Child(uuid4(), account_id or uuid4(), bytes([number]) * 32, "encrypted", "unchecked", NOW)


def family(*children: Child) -> Family:
    account = Account(uuid4(), b"p" * 32, "encrypted", 0, NOW)
    return Family(account.account_id, account, {one.child_id: one for one in children})


# --- sign-in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["", "  "])
def test_a_sign_in_without_the_agreement_is_refused(version: str) -> None:
    refused("agreement_missing", domain.agreed_version, version)


def test_the_version_of_the_agreement_is_taken_as_given() -> None:
    assert domain.agreed_version(" 2026-09 ") == "2026-09"


def test_a_token_that_stands_in_clear_lives_half_a_day_and_a_sealed_one_thirty_days() -> None:
    assert timedelta(seconds=domain.CLEAR_TOKEN_SECONDS) == timedelta(hours=12)
    assert timedelta(seconds=domain.SEALED_TOKEN_SECONDS) == timedelta(days=30)


# --- children -----------------------------------------------------------------------------------------------------


def test_a_child_is_kept_with_name_and_number_in_one_form() -> None:
    typed = BOY.model_copy(update={"name": "张 \t小明\n", "document_number": "３２０４０２ 20150601 1234"})
    kept = domain.checked_child(typed, TODAY)
    assert (kept.name, kept.document_number) == ("张 小明", "320402201506011234")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"document_number": "320402201506011235"}, "document_number"),
        ({"document_number": "810000199001010019"}, "document_type"),
        ({"birth_date": "2015-06-02"}, "birth_date"),
        ({"birth_date": "2015-02-30"}, "birth_date"),
        ({"birth_date": "2026-11-24"}, "birth_date"),
        ({"sex": Sex.FEMALE}, "sex"),
    ],
)
def test_a_child_whose_document_disagrees_is_refused_with_the_field(changes: dict[str, Any], field: str) -> None:
    found = refused("document_invalid", domain.checked_child, BOY.model_copy(update=changes), TODAY)
    assert [fault.field for fault in found.errors] == [field]


def test_a_child_born_tomorrow_is_refused_whatever_its_document_says() -> None:
    passport = {"document_type": DocumentType.PASSPORT, "document_number": "E12345678", "birth_date": "2026-11-24"}
    found = refused("document_invalid", domain.checked_child, BOY.model_copy(update=passport), TODAY)
    assert [fault.field for fault in found.errors] == ["birth_date"]


def test_a_child_born_today_is_taken() -> None:
    passport = {"document_type": DocumentType.PASSPORT, "document_number": "E12345678", "birth_date": str(TODAY)}
    assert domain.checked_child(BOY.model_copy(update=passport), TODAY).birth_date == str(TODAY)


def test_a_refusal_never_repeats_the_number() -> None:
    wrong = BOY.model_copy(update={"document_number": "320402201506011235"})
    found = refused("document_invalid", domain.checked_child, wrong, TODAY)
    assert "320402201506011235" not in f"{found!r}{found.errors}{found.detail}"


def test_a_new_child_is_of_the_family() -> None:
    of, mine = family(), child()
    assert domain.add_child(of, mine, BOY, recorded=None)
    assert of.child_ids == {mine.child_id}


def test_the_same_child_again_is_no_change() -> None:
    mine = child()
    of = family(mine)
    assert not domain.add_child(of, mine, BOY, recorded=BOY)
    assert of.child_ids == {mine.child_id}


def test_an_id_that_stands_for_another_child_is_refused() -> None:
    mine = child()
    other = BOY.model_copy(update={"name": "张小红"})
    found = refused("idempotency_conflict", domain.add_child, family(mine), mine, other, BOY)
    assert found.detail == "child_id"


def test_a_document_is_recorded_once_in_a_family() -> None:
    of = family(child(1))
    refused("child_exists", domain.add_child, of, child(1), BOY, None)
    assert len(of.children) == 1


def test_an_account_has_at_most_ten_children() -> None:
    of = family(*(child(n) for n in range(domain.MAX_CHILDREN)))
    found = refused("child_limit", domain.add_child, of, child(99), BOY, None)
    assert found.figures == {"limit": 10}
    assert len(of.children) == domain.MAX_CHILDREN


def test_a_repeat_of_the_tenth_child_is_no_change_either() -> None:
    of = family(*(child(n) for n in range(domain.MAX_CHILDREN)))
    tenth = list(of.children.values())[-1]
    assert not domain.add_child(of, tenth, BOY, recorded=BOY)


# --- signer -------------------------------------------------------------------------------------------------------


def test_a_signer_is_kept_with_everything_in_one_form() -> None:
    kept = domain.checked_signer(MOTHER.model_copy(update={"name": " 李\t华 "}))
    assert kept.name == "李 华"
    assert kept.phone == "+8613912345678"
    assert kept.document_number == "11010519491231002X"
    assert kept.address == "常州市天宁区 和平路 1 号"


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"phone": "12345"}, "phone_invalid", "phone"),
        ({"document_number": "110105194912310021"}, "document_invalid", "document_number"),
        ({"address": " \n "}, "request_invalid", "address"),
    ],
)
def test_a_signer_with_a_fault_is_refused_with_the_field(changes: dict[str, Any], code: str, field: str) -> None:
    found = refused(code, domain.checked_signer, MOTHER.model_copy(update=changes))
    assert [fault.field for fault in found.errors] == [field]


def test_each_other_signer_is_a_new_version_and_the_same_one_is_not() -> None:
    of = family()
    assert of.account is not None
    first, moved = domain.checked_signer(MOTHER), MOTHER.model_copy(update={"address": "武进区"})
    assert domain.next_signer(of, of.account, first, None, "one", NOW)
    assert not domain.next_signer(of, of.account, first, first, "one again", NOW)
    assert (of.signer_version, of.account.signer_version) == (1, 1)
    assert domain.next_signer(of, of.account, moved, first, "two", NOW)
    assert of.signer is not None
    assert (of.signer.version, of.signer.details, of.signer.valid_from) == (2, "two", NOW)
    assert of.account.signer_version == 2


# --- what is shown ------------------------------------------------------------------------------------------------


def test_a_family_says_what_a_purchase_still_needs() -> None:
    of = family()
    assert of.signer_version == 0
    assert list(of.missing) == ["child", "signer"]
    assert of.account is not None
    domain.next_signer(of, of.account, MOTHER, None, "one", NOW)
    assert list(of.missing) == ["child"]
    domain.add_child(of, child(), BOY, None)
    assert not of.missing


@pytest.mark.parametrize(
    ("name", "shown"),
    [("张三", "张*"), ("张小明", "张**"), ("欧阳小明", "欧**"), ("李", "*"), ("Alexander Smith", "A**"), ("", "*")],
)
def test_a_name_shows_its_first_character_only(name: str, shown: str) -> None:
    assert domain.mask_name(name) == shown


def test_every_kind_of_document_has_its_name_for_the_contract() -> None:
    assert set(domain.DOCUMENT_TITLES_ZH) == set(DocumentType)


def test_the_details_of_a_person_are_not_in_their_repr() -> None:
    for details in (BOY, MOTHER):
        shown = f"{details!r} {details} {[details]}"
        assert details.name not in shown
        assert details.document_number not in shown


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    folder = tmp_path_factory.mktemp("keys")
    generate_keys(folder, ["orders"])
    return KeyRing.load(folder, "orders")


def whole_family(ring: KeyRing) -> tuple[Family, UUID]:
    of, mine = family(), child()
    mine.details = encrypt_at_rest(ring, BOY)
    domain.add_child(of, mine, BOY, None)
    signer = domain.checked_signer(MOTHER)
    assert of.account is not None
    domain.next_signer(of, of.account, signer, None, encrypt_at_rest(ring, signer), NOW)
    return of, mine.child_id


def test_a_contract_prints_its_parties_whole(ring: KeyRing) -> None:
    of, child_id = whole_family(ring)
    parties = queries.contract_parties(ring, of, child_id)
    assert parties.child_name == "张小明"
    assert parties.child_document == "居民身份证 320402201506011234"
    assert parties.signer_name == "李华"
    assert parties.signer_phone == "13912345678"
    assert parties.signer_address == "常州市天宁区 和平路 1 号"
    assert parties.signer_document == "居民身份证 11010519491231002X"
    assert "李华" not in repr(parties)


def test_no_contract_is_printed_for_a_strange_child_or_without_signer(ring: KeyRing) -> None:
    of, child_id = whole_family(ring)
    refused("child_unknown", queries.contract_parties, ring, of, uuid4())
    of.signer = None
    refused("profile_incomplete", queries.contract_parties, ring, of, child_id)


def test_a_profile_shows_everything_masked(ring: KeyRing) -> None:
    of, child_id = whole_family(ring)
    view = queries.profile(ring, of)
    assert [(one.child_id, one.name, one.document) for one in view.children] == [
        (child_id, "张**", "320*************34")
    ]
    assert (view.signer, view.missing) == ("李*", ())
    assert view.children[0].roll_check == "unchecked"


def test_a_family_nobody_has_is_empty(ring: KeyRing) -> None:
    view = queries.profile(ring, Family(uuid4()))
    assert (view.children, view.signer, view.missing) == ((), "", ("child", "signer"))
