"""The rules of money in suspense: why it belongs nowhere, whose it is, how it goes back."""

import dataclasses
from datetime import timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

import pytest

from services.escrow.domain import (
    MOST_ATTEMPTS,
    RETRY_REFUSED_AFTER,
    SUSPENSE,
    Account,
    Instruction,
    Suspense,
    ask_again,
    give_back,
    gone_back,
    judge_collect,
    judge_outgoing,
    judge_unknown,
    match,
    next_try,
    purpose_of,
)
from shared.contracts import escrow
from tests.unit.test_escrow_domain import LATER, NOW, ORDER, PRICE_FEN, account, answer, instruction, refused

RECEIPT = UUID("01939b6e-0000-7000-8000-0000000000ff")


def money(**changes: Any) -> Suspense:
    """As much as the order costs, at its bank."""
    made = Suspense(
        receipt_id=RECEIPT,
        order_id=None,
        number="X1",
        bank="icbc",
        account="S-1",
        reference="R-9",
        amount_fen=PRICE_FEN,
        reason="unknown_number",
        booked_at=NOW,
        due_at=LATER,
    )
    return dataclasses.replace(made, **changes)


def test_what_has_just_come_was_decided_by_nobody() -> None:
    new = money()
    assert (new.state, new.matched_order_id, new.decided_by, new.decision, new.decided_at) == (
        "open",
        None,
        "",
        "",
        None,
    )


def on_its_way(one: Suspense) -> Instruction:
    """The instruction that sends it back."""
    made = give_back(one, None, NOW)
    assert made is not None
    return made


def test_each_reason_of_suspense_has_a_word_on_the_bus() -> None:
    assert set(get_args(escrow.SuspenseReason)) >= SUSPENSE


@pytest.mark.parametrize(
    ("reason", "word"), [("expired", "late"), ("cancelled", "dead"), ("refused", "dead"), ("", "dead")]
)
def test_money_for_a_payment_that_has_failed_is_late_or_dead(reason: str, word: str) -> None:
    assert judge_collect(account("failed", reason=reason), instruction("collect"), answer("paid", PRICE_FEN)) == word


@pytest.mark.parametrize(
    ("kind", "outcome", "verdict"),
    [
        ("collect", "paid", "foreign"),
        ("collect", "refused", "unknown_number"),
        ("payout", "paid", "conflict"),
        ("return", "paid", "conflict"),
        ("return", "refused", "unknown_number"),
    ],
)
def test_what_another_bank_says_is_foreign_money_or_for_a_person(kind: str, outcome: str, verdict: str) -> None:
    assert judge_unknown(kind, answer(outcome, 1), elsewhere=True) == verdict


# --- matched ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["collecting", "failed"])
@pytest.mark.parametrize("told", ["S-1", ""])
def test_money_is_the_fee_of_an_order_that_waits_or_waited_for_it(state: str, told: str) -> None:
    one, collect, came = account(state, reason="expired"), instruction("collect", state="dropped"), money(account=told)
    transfer = match(one, collect, came, LATER)
    assert (transfer.kind, transfer.debit, transfer.credit, transfer.amount_fen) == (
        "hold",
        "outside",
        "held",
        PRICE_FEN,
    )
    assert (one.state, one.reason, one.paid_reference, one.held_fen) == ("held", "", "R-9", PRICE_FEN)
    assert (collect.state, collect.reference, collect.changed_at, collect.attempt) == ("paid", "R-9", LATER, 1)
    assert (came.state, came.matched_order_id) == ("matched", ORDER)
    # The very movement, told again, is the payment; whatever else comes is one too many.
    assert judge_collect(one, collect, answer("paid", PRICE_FEN, "R-9")) == "repeated"
    assert judge_collect(one, collect, answer("paid", PRICE_FEN, "R-1")) == "double"
    # What the bank was asked for before is refused now, or once more: nothing waits for it.
    assert judge_collect(one, collect, answer("refused", PRICE_FEN)) == "stale"


@pytest.mark.parametrize(
    ("code", "one", "came"),
    [
        ("suspense_elsewhere", account(), money(bank="abc")),
        ("suspense_elsewhere", account(), money(account="S-2")),
        ("amount_invalid", account(), money(amount_fen=PRICE_FEN - 1)),
        ("amount_invalid", account("failed"), money(amount_fen=PRICE_FEN + 1)),
        *(("order_state", account(state), money()) for state in ("held", "refunding", "refunded")),
        ("suspense_state", account(), money(state="matched", matched_order_id=uuid4())),
        *(("suspense_state", account(), money(state=state)) for state in ("returning", "returned")),
    ],
)
def test_money_that_is_not_the_fee_is_not_matched(code: str, one: Account, came: Suspense) -> None:
    refused(code, match, one, instruction("collect"), came, LATER)


# --- sent back --------------------------------------------------------------------------------------------------------


def test_money_goes_back_under_a_number_of_its_own() -> None:
    came = money()
    back = on_its_way(came)
    assert (came.state, back.state, back.amount_fen, back.kind) == ("returning", "sent", PRICE_FEN, "return")
    assert back.number[0] == "S"
    assert len(back.number) == 30
    purpose = purpose_of(back.number)
    assert purpose is not None
    assert (purpose.kind, purpose.order_id, purpose.lesson_no, purpose.attempt) == ("return", RECEIPT, 0, 0)
    assert give_back(came, back, LATER) is None
    assert back.changed_at == NOW


def test_it_is_gone_when_the_bank_has_paid_and_open_again_when_it_comes_back() -> None:
    came = money()
    back = on_its_way(came)
    paid = answer("paid", PRICE_FEN, "R-10")
    assert judge_outgoing(back, paid) == "applied"
    gone_back(came, back, paid, LATER)
    assert (came.state, back.state, back.reference, back.changed_at) == ("returned", "paid", "R-10", LATER)

    returned = answer("returned", PRICE_FEN, "R-11")
    assert judge_outgoing(back, returned) == "applied"
    gone_back(came, back, returned, LATER)
    assert (came.state, back.state, back.reference, back.turn, back.returned) == ("open", "dropped", "", 1, ["R-10"])
    assert not ask_again(back, LATER)
    assert (judge_outgoing(back, returned), judge_outgoing(back, paid)) == ("stale", "repeated")

    first = back.number
    back.asks = 3
    assert give_back(came, back, LATER) is back
    assert (came.state, back.state, back.attempt, back.asks) == ("returning", "sent", 1, 0)
    assert back.number != first
    assert (judge_outgoing(back, returned), judge_outgoing(back, paid)) == ("stale", "repeated")


def test_a_refused_return_stays_on_its_way_and_is_tried_under_a_new_number() -> None:
    came = money()
    back = on_its_way(came)
    gone_back(came, back, answer("refused", PRICE_FEN), LATER)
    assert (came.state, back.state) == ("returning", "refused")
    assert next_try(back) == LATER + RETRY_REFUSED_AFTER
    first = back.number
    assert ask_again(back, LATER)
    assert (back.state, back.number == first) == ("sent", False)


def test_a_return_that_was_refused_under_its_last_number_is_open_again() -> None:
    came = money(state="returning")
    back = Instruction(RECEIPT, 0, "return", PRICE_FEN, NOW, attempt=MOST_ATTEMPTS)
    gone_back(came, back, answer("refused", PRICE_FEN, attempt=MOST_ATTEMPTS), LATER)
    assert (came.state, back.state) == ("open", "dropped")
    refused("suspense_attempts", give_back, came, back, LATER)
    match(account("failed", reason="expired"), instruction("collect", state="dropped"), came, LATER)
    assert came.state == "matched"


@pytest.mark.parametrize("state", ["matched", "returned"])
def test_money_that_was_matched_or_returned_is_not_sent_back(state: str) -> None:
    refused("suspense_state", give_back, money(state=state), None, LATER)


def test_money_that_came_back_too_often_is_for_a_person() -> None:
    used_up = Instruction(RECEIPT, 0, "return", PRICE_FEN, NOW, attempt=MOST_ATTEMPTS, state="dropped")
    assert refused("suspense_attempts", give_back, money(), used_up, LATER).figures == {"attempts": MOST_ATTEMPTS + 1}


def test_a_payment_is_tried_next_when_its_pause_is_over_and_never_when_its_numbers_are_used_up() -> None:
    assert next_try(instruction(state="refused", attempt=1)) == NOW + 2 * RETRY_REFUSED_AFTER
    assert next_try(instruction(asks=0)) == NOW + timedelta(minutes=5)
    assert next_try(instruction(attempt=MOST_ATTEMPTS)) is not None
    assert next_try(instruction(state="refused", attempt=MOST_ATTEMPTS)) is None
