"""The contract: filled from frozen data, its SHA-256 over all of it, and nobody to be recognised in what is shown."""

import hashlib
import re
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from joserfc.jwk import OctKey

from services.orders.families.queries import ContractParties
from services.orders.purchases import contract
from shared.contracts.catalog import BankAccount, SeatReserved
from shared.contracts.types import LessonTime, RefundTerms
from shared.keys import KeyRing
from shared.policy import Category

ORDER_ID = UUID(int=1)
NOW = datetime(2026, 3, 1, 16, 30, tzinfo=UTC)
RING = KeyRing("orders", None, {}, {}, {}, OctKey.generate_key(256, {"kid": "orders.data.1"}), b"look-up")
PARTIES = ContractParties(
    child_name="张小明",
    child_document="居民身份证 320402201506010011",
    signer_name="李华",
    signer_phone="13912345678",
    signer_address="常州市天宁区和平路 1 号",
    signer_document="护照 E12345678",
)


def seat_reserved(order_id: UUID = ORDER_ID, now: datetime = NOW, count: int = 3, **changes: Any) -> SeatReserved:
    """Catalog keeps a seat for 15 minutes; one lesson a day of an hour each, the first tomorrow."""
    starts = [now + timedelta(days=number) for number in range(1, count + 1)]
    parts: dict[str, Any] = {
        "order_id": order_id,
        "course_id": UUID(int=2),
        "institution_id": UUID(int=3),
        "institution_name": "常州市小荷书法培训中心",
        "institution_uscc": "91320412MA1ABCDE0X",
        "title": "硬笔书法春季班",
        "category": Category.CULTURE_AND_ART,
        "online": False,
        "district": "武进区",
        "price_fen": 10_000,
        "lessons": tuple(
            LessonTime(lesson_no=number, starts_at=at, ends_at=at + timedelta(hours=1))
            for number, at in enumerate(starts, 1)
        ),
        "refund_terms": RefundTerms(full_refund_days=10, penalty_basis_points=500),
        "account": BankAccount(bank="jiangnan", supervised_account="8800 0001", payout_account="6200 0001"),
        "expires_at": now + timedelta(minutes=15),
    }
    return SeatReserved(**(parts | changes))


def test_the_contract_prints_everything_that_was_agreed() -> None:
    text = contract.draw(seat_reserved(), PARTIES, ORDER_ID, NOW).text
    for printed in (
        "GF-2021-2604",
        str(ORDER_ID),
        "2026-03-02 00:30",  # of Shanghai
        "常州市小荷书法培训中心",
        "91320412MA1ABCDE0X",
        "硬笔书法春季班（文化艺术，线下，武进区）",
        "共 3 课时",
        "第1课 2026-03-03 00:30-01:30",
        "第3课 2026-03-05 00:30-01:30",
        "人民币 100.00 元",
        "jiangnan 8800 0001",
        "付款后 10 日内",
        "违约金 500 个基点",
        *(getattr(PARTIES, field.name) for field in fields(PARTIES)),
    ):
        assert printed in text


def test_the_same_data_make_the_same_contract() -> None:
    first, again = (contract.draw(seat_reserved(), replace(PARTIES), ORDER_ID, NOW) for _ in range(2))
    assert first == again
    assert contract.sha256_of(first) == contract.sha256_of(again)


def test_the_sha256_covers_the_whole_text() -> None:
    drawn = contract.draw(seat_reserved(), PARTIES, ORDER_ID, NOW)
    assert contract.sha256_of(drawn) == hashlib.sha256(drawn.text.encode("utf-8")).hexdigest()
    for place in (0, len(drawn.text) // 2, len(drawn.text) - 1):
        changed = drawn.text[:place] + "改" + drawn.text[place + 1 :]
        assert contract.sha256_of(drawn.model_copy(update={"text": changed})) != contract.sha256_of(drawn)


@pytest.mark.parametrize("field", [field.name for field in fields(PARTIES)])
def test_another_party_is_another_sha256(field: str) -> None:
    other = replace(PARTIES, **{field: getattr(PARTIES, field) + "1"})
    first, second = (contract.draw(seat_reserved(), parties, ORDER_ID, NOW) for parties in (PARTIES, other))
    assert contract.sha256_of(first) != contract.sha256_of(second)


@pytest.mark.parametrize(
    "change",
    [
        {"price_fen": 10_001},
        {"title": "硬笔书法夏季班"},
        {"online": True},
        {"lessons": seat_reserved(count=2).lessons},
        {"refund_terms": RefundTerms(full_refund_days=10, penalty_basis_points=501)},
        {"refund_terms": RefundTerms(full_refund_days=11, penalty_basis_points=500)},
        {"account": BankAccount(bank="jiangnan", supervised_account="8800 0002", payout_account="6200 0001")},
    ],
    ids=["price", "title", "online", "plan", "penalty", "full refund", "account"],
)
def test_other_terms_are_another_sha256(change: dict[str, Any]) -> None:
    first, second = (
        contract.draw(offer, PARTIES, ORDER_ID, NOW) for offer in (seat_reserved(), seat_reserved(**change))
    )
    assert contract.sha256_of(first) != contract.sha256_of(second)


def test_what_is_shown_masks_every_person_and_nothing_else() -> None:
    drawn = contract.draw(seat_reserved(), PARTIES, ORDER_ID, NOW)
    shown = contract.shown(RING, contract.encrypted(RING, drawn))
    for secret in ("张小明", "320402201506010011", "20150601", "李华", "13912345678", "和平路", "E12345678"):
        assert secret in drawn.text
        assert secret not in shown
    for printed in ("张**", "居民身份证 320*************11", "李*", "139****5678", "护照 E*******8"):
        assert printed in shown
    personal = re.compile(r"^(乙方|　　电话|学员).*$", re.MULTILINE)
    assert personal.sub("", shown) == personal.sub("", drawn.text)


@pytest.mark.parametrize("address", ["1", "常州市", "00", "书法", "元"])
def test_a_short_address_that_also_stands_elsewhere_spoils_no_other_word(address: str) -> None:
    drawn = contract.draw(seat_reserved(), replace(PARTIES, signer_address=address), ORDER_ID, NOW)
    shown = contract.shown(RING, contract.encrypted(RING, drawn))
    assert f"地址：{'*' * len(address)}\n" in shown
    for printed in ("常州市小荷书法培训中心", "人民币 100.00 元", str(ORDER_ID), "第1课 2026-03-03 00:30-01:30"):
        assert printed in shown


def test_the_stored_contract_can_be_read_with_the_key_only() -> None:
    stored = contract.encrypted(RING, contract.draw(seat_reserved(), PARTIES, ORDER_ID, NOW))
    assert not any(getattr(PARTIES, field.name) in stored for field in fields(PARTIES))
    assert "中小学生校外培训服务合同" in contract.shown(RING, stored)


def test_before_a_contract_is_drawn_nothing_is_shown() -> None:
    assert contract.shown(RING, "") == ""
