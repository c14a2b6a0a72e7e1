"""The rules of a purchase: who signs signs what was shown, a payment is chosen once, and what the family sees of it."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest

from services.orders.lessons.domain import Lesson
from services.orders.purchases.domain import Purchase, choose_payment, require_state, sign
from services.orders.purchases.queries import view
from shared.contracts.errors import Refused
from shared.contracts.orders import PurchaseState

NOW = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
SHA256 = "ab" * 32
STATES: tuple[str, ...] = get_args(PurchaseState)
SIGNED = ("to_pay", "paying", "held", "enrolled", "cancelling", "refunding")


def purchase(state: str, **changes: Any) -> Purchase:
    """A purchase as it stands in `state`; an ended one was signed."""
    made = Purchase(UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4), state, "", NOW, NOW, price_fen=30_000)
    if state != "placed":
        made.contract_sha256 = SHA256
    if state in SIGNED or state == "ended":
        made.signed_at = NOW
    if state in ("paying", "held", "enrolled"):
        made.method = "alipay"
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def assert_refused(code: str, one: Purchase, decide: Any) -> None:
    before = deepcopy(one)
    with pytest.raises(Refused) as caught:
        decide(one)
    assert caught.value.code == code
    assert one == before, "a refusal changed the purchase"


def test_a_new_purchase_has_cost_nothing_and_says_nothing_yet() -> None:
    new = Purchase(UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4), "placed", "", NOW, NOW)
    assert (new.title, new.category, new.contract_sha256, new.method) == ("", "", "", "")
    assert (new.detail, new.district) == ("", "")
    assert (new.price_fen, new.lessons, new.signer_version) == (0, 0, 0)
    assert (new.institution_id, new.offer, new.signed_at) == (None, None, None)


def test_who_signs_what_was_shown_has_signed_now() -> None:
    one = purchase("to_sign")
    assert sign(one, SHA256, NOW + timedelta(minutes=1))
    assert one == purchase("to_sign", signed_at=NOW + timedelta(minutes=1))


@pytest.mark.parametrize("state", ["to_pay", "paying", "held", "enrolled"])
def test_the_same_signature_again_changes_nothing(state: str) -> None:
    one = purchase(state)
    assert not sign(one, SHA256, NOW + timedelta(minutes=1))
    assert one == purchase(state)


@pytest.mark.parametrize("state", [state for state in STATES if state != "placed"])
def test_nobody_signs_another_contract_than_was_drawn(state: str) -> None:
    assert_refused("contract_changed", purchase(state), lambda one: sign(one, "cd" * 32, NOW))


@pytest.mark.parametrize("state", ["placed", "cancelling", "refunding", "ended"])
def test_nobody_signs_before_there_is_a_contract_or_after_it_was_given_up(state: str) -> None:
    assert_refused("order_state", purchase(state), lambda one: sign(one, SHA256, NOW))


def test_a_purchase_that_ended_before_its_contract_was_drawn_cannot_be_signed() -> None:
    one = purchase("ended", contract_sha256="", signed_at=None)
    assert_refused("order_state", one, lambda one: sign(one, SHA256, NOW))


def test_who_is_to_sign_and_was_shown_nothing_yet_is_told_that_the_contract_is_another() -> None:
    assert_refused("contract_changed", purchase("to_sign", contract_sha256=""), lambda one: sign(one, SHA256, NOW))


def test_a_payment_is_chosen_once_the_contract_is_signed() -> None:
    one = purchase("to_pay")
    assert choose_payment(one, "alipay")
    assert one == purchase("to_pay", method="alipay")


@pytest.mark.parametrize("state", ["paying", "held", "enrolled"])
def test_the_same_payment_again_changes_nothing_and_another_is_refused(state: str) -> None:
    one = purchase(state)
    assert not choose_payment(one, "alipay")
    assert one == purchase(state)
    assert_refused("order_state", one, lambda one: choose_payment(one, "e_cny"))


@pytest.mark.parametrize("state", ["placed", "to_sign", "cancelling", "refunding", "ended"])
def test_no_payment_is_chosen_before_the_signature_or_after_the_end(state: str) -> None:
    assert_refused("order_state", purchase(state, method="alipay"), lambda one: choose_payment(one, "alipay"))


def test_a_refused_state_is_named() -> None:
    require_state(purchase("paying"), "to_pay", "paying")
    with pytest.raises(Refused) as caught:
        require_state(purchase("held"), "to_pay", "paying")
    assert caught.value.figures == {"state": "held"}


# --- what the family sees -----------------------------------------------------------------------------------------


def lessons(*states: str) -> list[Lesson]:
    prices = (3_333, 3_333, 3_334)
    return [
        Lesson(UUID(int=1), number, NOW, NOW + timedelta(hours=1), price, state)
        for number, (price, state) in enumerate(zip(prices, states, strict=True), 1)
    ]


@pytest.mark.parametrize(
    ("states", "consumed", "consumed_fen", "left_fen"),
    [
        (("planned", "planned", "planned"), 0, 0, 10_000),
        (("applied", "objected", "planned"), 0, 0, 10_000),
        (("confirmed", "applied", "planned"), 1, 3_333, 6_667),
        (("paid_out", "planned", "confirmed"), 2, 6_667, 3_333),
        (("paid_out", "paid_out", "paid_out"), 3, 10_000, 0),
    ],
)
def test_consumed_and_left_are_what_is_confirmed_and_what_is_not(
    states: tuple[str, ...], consumed: int, consumed_fen: int, left_fen: int
) -> None:
    seen = view(purchase("enrolled", price_fen=10_000), lessons(*states))
    assert (seen.consumed_lessons, seen.left_lessons) == (consumed, 3 - consumed)
    assert (seen.consumed_fen, seen.left_fen) == (consumed_fen, left_fen)
    assert [one.state for one in seen.lessons] == list(states)


@pytest.mark.parametrize("state", STATES)
def test_a_view_without_lessons_tells_no_money_left(state: str) -> None:
    seen = view(purchase(state))
    assert (seen.state, seen.lessons, seen.left_lessons, seen.left_fen, seen.consumed_fen) == (state, (), 0, 0, 0)
    assert seen.contract == ""
