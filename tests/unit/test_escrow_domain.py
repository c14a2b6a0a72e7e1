"""The rules of escrow: what moves money, what a bank's answer means, when and under which number it is asked again."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.escrow.domain import (
    ASK_AGAIN_AFTER,
    ASK_AGAIN_AT_MOST,
    MOST_ATTEMPTS,
    PENDING,
    RESOLVED,
    RETRY_REFUSED_AFTER,
    RETRY_REFUSED_AT_MOST,
    SUSPENSE,
    Account,
    Answer,
    Instruction,
    Kind,
    Purpose,
    Transfer,
    ask_again,
    come_back,
    conclude,
    fail_payment,
    hold,
    judge_collect,
    judge_outgoing,
    judge_unknown,
    move,
    next_ask,
    purpose_of,
    release,
    settle,
    start,
    would_still_collect,
)
from shared.contracts.errors import Refused

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ORDER = UUID("01939b6e-0000-7000-8000-000000000001")
PRICE_FEN = 1003
LESSONS = 10
LESSON_FEN = 100


def account(state: str = "collecting", **changes: Any) -> Account:
    """An account in `state`, its money where the state says."""
    made = Account(ORDER, uuid4(), uuid4(), "icbc", "S-1", "P-1", PRICE_FEN, LESSONS, "alipay", LATER, NOW, state)
    if state in ("held", "refunding", "refunded"):
        made.paid_fen, made.paid_reference = PRICE_FEN, "R-0"
        setattr(made, f"{state}_fen", PRICE_FEN)
    return dataclasses.replace(made, **changes)


def balances(one: Account) -> dict[str, int]:
    """The balances that are not zero."""
    names = ("paid", "held", "releasing", "released", "refunding", "refunded")
    return {name: fen for name in names if (fen := getattr(one, f"{name}_fen"))}


def instruction(kind: Kind = "payout", state: str = "sent", **changes: Any) -> Instruction:
    amounts = {"collect": PRICE_FEN, "payout": LESSON_FEN, "refund": PRICE_FEN}
    made = Instruction(ORDER, 3 if kind == "payout" else 0, kind, amounts[kind], NOW, state=state)
    return dataclasses.replace(made, **changes)


def answer(outcome: str, amount_fen: int, reference: str = "R-1", attempt: int = 0) -> Answer:
    return Answer(outcome, attempt, amount_fen, reference, "")


def refused(code: str, decide: Any, *arguments: Any) -> Refused:
    """`decide` refuses with `code` and leaves what it was given as it was."""
    before = [dataclasses.replace(one) if dataclasses.is_dataclass(one) else one for one in arguments]  # type: ignore[type-var]
    with pytest.raises(Refused) as caught:
        decide(*arguments)
    assert caught.value.code == code
    assert list(arguments) == before
    return caught.value


def test_what_stands_in_rows_and_what_banks_are_asked_after_is_fixed() -> None:
    assert (PENDING, RESOLVED, MOST_ATTEMPTS) == (1, 2, 35)
    assert (timedelta(minutes=5), timedelta(hours=6)) == (ASK_AGAIN_AFTER, ASK_AGAIN_AT_MOST)
    assert (timedelta(minutes=30), timedelta(days=1)) == (RETRY_REFUSED_AFTER, RETRY_REFUSED_AT_MOST)
    assert {"unknown_number", "short", "over", "late", "dead", "double", "foreign"} == SUSPENSE


def test_a_new_account_expects_its_money_and_a_new_instruction_has_been_answered_by_nobody() -> None:
    new = Account(ORDER, uuid4(), uuid4(), "icbc", "S-1", "P-1", PRICE_FEN, LESSONS, "alipay", LATER, NOW)
    assert (new.state, new.reason, new.paid_reference, new.suspensions) == ("collecting", "", "", 0)
    assert (new.district, new.given_back) == ("", [])
    assert balances(new) == {}
    told = Instruction(ORDER, 0, "collect", PRICE_FEN, NOW)
    assert (told.attempt, told.turn, told.state, told.reference, told.asks) == (0, 0, "sent", "", 0)
    assert told.returned == []


# --- movements --------------------------------------------------------------------------------------------------------


def movement(debit: str, credit: str, amount_fen: int) -> Transfer:
    return Transfer(ORDER, 1, "release", 0, PENDING, debit, credit, amount_fen, NOW)


def test_a_movement_takes_from_one_balance_what_it_gives_to_the_other() -> None:
    one = account("held")
    move(one, movement("held", "releasing", 3))
    assert balances(one) == {"paid": PRICE_FEN, "held": PRICE_FEN - 3, "releasing": 3}


def test_money_from_outside_is_paid_and_held() -> None:
    one = account()
    move(one, movement("outside", "held", 5))
    assert balances(one) == {"paid": 5, "held": 5}


@pytest.mark.parametrize("debit", ["held", "releasing", "released", "refunding", "refunded"])
def test_no_balance_goes_below_zero(debit: str) -> None:
    one = account("held", **({"held_fen": 0} | {f"{debit}_fen": 7}))
    credit = "releasing" if debit != "releasing" else "held"
    assert refused("escrow_insufficient", move, one, movement(debit, credit, 8)).figures == {"missing_fen": 1}
    move(one, movement(debit, credit, 7))
    assert getattr(one, f"{debit}_fen") == 0


@pytest.mark.parametrize(("debit", "credit", "fen"), [("held", "held", 1), ("held", "released", 0), ("held", "x", -1)])
def test_what_is_no_movement_is_an_error(debit: str, credit: str, fen: int) -> None:
    one = account("held")
    with pytest.raises(ValueError, match="not a transfer"):
        move(one, movement(debit, credit, fen))
    assert one == account("held", account_id=one.account_id, institution_id=one.institution_id)


# --- holding, releasing, refunding ------------------------------------------------------------------------------------


def test_a_payment_is_held_whole_and_its_reference_kept() -> None:
    one = account()
    transfer = hold(one, "R-9", NOW)
    assert (transfer.debit, transfer.credit, transfer.amount_fen) == ("outside", "held", PRICE_FEN)
    assert (transfer.lesson_no, transfer.kind, transfer.turn, transfer.phase) == (0, "hold", 0, RESOLVED)
    assert (one.state, one.paid_reference) == ("held", "R-9")
    assert balances(one) == {"paid": PRICE_FEN, "held": PRICE_FEN}


def test_a_lesson_is_released_at_its_price_and_the_last_takes_the_remainder() -> None:
    amounts = [release(account("held"), None, lesson_no, NOW) for lesson_no in range(1, LESSONS + 1)]
    assert [one.amount_fen for one in amounts if one] == [100] * 9 + [103]


def test_a_released_lesson_moves_from_held_to_releasing() -> None:
    one = account("held")
    payout = release(one, None, 3, NOW)
    assert payout == instruction(state="sent")
    assert payout is not None
    transfer = start(one, payout, LATER)
    assert (transfer.debit, transfer.credit, transfer.phase, transfer.turn) == ("held", "releasing", PENDING, 0)
    assert balances(one) == {"paid": PRICE_FEN, "held": PRICE_FEN - 100, "releasing": 100}
    assert payout.changed_at == LATER


@pytest.mark.parametrize("state", ["waiting", "sent", "refused", "paid", "dropped"])
@pytest.mark.parametrize("of_order", ["held", "refunding", "refunded"])
def test_a_lesson_that_was_released_before_is_not_released_again(state: str, of_order: str) -> None:
    assert release(account(of_order), instruction(state=state), 3, NOW) is None


def test_what_has_waited_is_on_its_way_once_it_starts() -> None:
    one, waiting = account("held"), instruction(state="waiting")
    start(one, waiting, LATER)
    assert (waiting.state, waiting.changed_at) == ("sent", LATER)


def test_a_lesson_waits_while_a_complaint_holds_the_order() -> None:
    payout = release(account("held", suspensions=1), None, 3, NOW)
    assert payout == instruction(state="waiting")


def test_a_lesson_waits_while_its_institution_is_frozen() -> None:
    payout = release(account("held"), None, 3, NOW, frozen=True)
    assert payout == instruction(state="waiting")


@pytest.mark.parametrize("state", ["collecting", "failed"])
def test_nothing_is_released_unless_the_money_is_held(state: str) -> None:
    assert refused("order_state", release, account(state), None, 1, NOW).figures == {"state": state}


def test_a_lesson_that_the_order_does_not_have_is_not_released() -> None:
    assert refused("lesson_unknown", release, account("held"), None, 11, NOW).figures == {"lessons": 10}


def test_a_lesson_of_no_price_is_not_released_but_the_last_one_is() -> None:
    cheap = account("held", price_fen=5, paid_fen=5, held_fen=5)
    refused("amount_invalid", release, cheap, None, 9, NOW)
    last = release(cheap, None, 10, NOW)
    assert last is not None
    assert last.amount_fen == 5


def test_more_than_is_held_is_not_released() -> None:
    short = account("held", held_fen=99, released_fen=PRICE_FEN - 99)
    assert refused("escrow_insufficient", release, short, None, 1, NOW).figures == {"missing_fen": 1}


def test_a_payment_is_given_up_only_while_it_is_expected() -> None:
    one = account("collecting")
    assert fail_payment(one, "expired")
    assert (one.state, one.reason) == ("failed", "expired")
    for state in ("held", "failed", "refunding", "refunded"):
        settled = account(state, reason="before")
        assert not fail_payment(settled, "expired")
        assert (settled.state, settled.reason) == (state, "before")


@pytest.mark.parametrize(
    ("kind", "pending", "final", "of_order"),
    [("payout", "releasing", "released", "held"), ("refund", "refunding", "refunded", "refunded")],
)
def test_a_payment_made_is_booked_and_when_it_comes_back_that_is_a_new_entry(
    kind: Kind, pending: str, final: str, of_order: str
) -> None:
    one, paid = account("held"), instruction(kind)
    start(one, paid, NOW)

    transfer = settle(one, paid, "R-1", LATER)
    assert (transfer.debit, transfer.credit, transfer.turn, transfer.phase) == (pending, final, 0, RESOLVED)
    assert (paid.state, paid.reference, paid.changed_at) == ("paid", "R-1", LATER)
    assert one.state == of_order
    assert balances(one)[final] == paid.amount_fen

    transfer = come_back(one, paid, LATER + timedelta(days=1))
    assert (transfer.debit, transfer.credit, transfer.turn, transfer.phase) == (final, pending, 1, PENDING)
    assert (paid.state, paid.turn, paid.reference, paid.returned) == ("refused", 1, "", ["R-1"])
    assert paid.changed_at == LATER + timedelta(days=1)
    assert one.state == ("held" if kind == "payout" else "refunding")
    assert balances(one)[pending] == paid.amount_fen

    number = paid.number
    assert ask_again(paid, LATER)
    assert paid.number != number
    transfer = settle(one, paid, "R-2", LATER)
    assert (transfer.turn, transfer.phase) == (1, RESOLVED)
    assert (one.state, balances(one)[final]) == (of_order, paid.amount_fen)


# --- what a bank's answer means ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "said", "verdict"),
    [
        ("collecting", answer("accepted", PRICE_FEN), "noted"),
        ("collecting", answer("unknown", PRICE_FEN), "noted"),
        ("held", answer("accepted", PRICE_FEN), "noted"),
        ("collecting", answer("paid", PRICE_FEN), "applied"),
        ("collecting", answer("paid", PRICE_FEN, attempt=1), "unknown_number"),
        ("collecting", answer("paid", PRICE_FEN - 1), "short"),
        ("collecting", answer("paid", PRICE_FEN + 1), "over"),
        ("failed", answer("paid", PRICE_FEN), "dead"),
        ("failed", answer("paid", 1), "dead"),
        ("held", answer("paid", PRICE_FEN, "R-0"), "repeated"),
        ("held", answer("paid", PRICE_FEN, "R-1"), "double"),
        ("held", answer("paid", 1, "R-1"), "double"),
        ("refunding", answer("paid", PRICE_FEN, "R-0"), "repeated"),
        ("refunded", answer("paid", PRICE_FEN, "R-1"), "double"),
        ("collecting", answer("refused", PRICE_FEN), "applied"),
        ("collecting", answer("refused", PRICE_FEN, attempt=1), "stale"),
        ("failed", answer("refused", PRICE_FEN), "repeated"),
        ("held", answer("refused", PRICE_FEN), "conflict"),
        ("refunded", answer("refused", PRICE_FEN), "conflict"),
        ("held", answer("returned", PRICE_FEN), "conflict"),
        ("collecting", answer("returned", PRICE_FEN), "conflict"),
    ],
)
def test_what_an_answer_to_a_collection_means(state: str, said: Answer, verdict: str) -> None:
    one, asked = account(state), instruction("collect")
    before = dataclasses.replace(one), dataclasses.replace(asked)
    assert judge_collect(one, asked, said) == verdict
    assert (one, asked) == before


PAID = {"state": "paid", "reference": "R-1"}
RETURNED = {"state": "refused", "turn": 1, "returned": ["R-1"]}
SENT_AGAIN = {"state": "sent", "attempt": 1, "turn": 1, "returned": ["R-1"]}
PAID_AGAIN = SENT_AGAIN | {"state": "paid", "reference": "R-2"}


@pytest.mark.parametrize(
    ("asked", "said", "verdict"),
    [
        ({}, answer("accepted", 100), "noted"),
        ({}, answer("unknown", 100), "noted"),
        (PAID, answer("accepted", 100), "noted"),
        ({}, answer("paid", 100), "applied"),
        ({}, answer("paid", 99), "conflict"),
        (PAID, answer("paid", 100), "repeated"),
        (PAID, answer("paid", 100, "R-2"), "conflict"),
        ({"state": "refused"}, answer("paid", 100), "conflict"),
        ({"state": "waiting"}, answer("paid", 100), "conflict"),
        ({"state": "dropped"}, answer("paid", 100), "conflict"),
        ({"attempt": 1}, answer("paid", 100), "conflict"),
        ({"attempt": 1}, answer("paid", 100, attempt=2), "conflict"),
        ({"attempt": 1}, answer("paid", 100, attempt=1), "applied"),
        ({}, answer("refused", 100), "applied"),
        ({"state": "refused"}, answer("refused", 100), "repeated"),
        (PAID, answer("refused", 100), "conflict"),
        ({"state": "waiting"}, answer("refused", 100), "conflict"),
        ({"attempt": 1}, answer("refused", 100), "stale"),
        (PAID, answer("returned", 100, "R-9"), "applied"),
        (PAID, answer("returned", 99, "R-9"), "conflict"),
        ({}, answer("returned", 100, "R-9"), "conflict"),
        ({"state": "waiting"}, answer("returned", 100, "R-9"), "conflict"),
        (RETURNED, answer("returned", 100, "R-9"), "stale"),
        (RETURNED, answer("paid", 100, "R-1"), "repeated"),
        (RETURNED, answer("paid", 100, "R-2"), "conflict"),
        (SENT_AGAIN, answer("paid", 100, "R-1"), "repeated"),
        (SENT_AGAIN, answer("returned", 100, "R-9"), "stale"),
        (SENT_AGAIN, answer("paid", 100, "R-2", attempt=1), "applied"),
        (PAID_AGAIN, answer("paid", 100, "R-1"), "repeated"),
        (PAID_AGAIN, answer("paid", 100, "R-3"), "conflict"),
        (PAID_AGAIN, answer("paid", 100, "R-2", attempt=1), "repeated"),
        (PAID_AGAIN, answer("returned", 100, "R-9"), "stale"),
        (PAID_AGAIN, answer("returned", 100, "R-9", attempt=1), "applied"),
    ],
)
def test_what_an_answer_to_a_payout_means(asked: dict[str, Any], said: Answer, verdict: str) -> None:
    one = instruction("payout", **asked)
    before = dataclasses.replace(one)
    assert judge_outgoing(one, said) == verdict
    assert one == before


@pytest.mark.parametrize(
    ("kind", "outcome", "verdict"),
    [
        ("collect", "paid", "unknown_number"),
        ("collect", "refused", "unknown_number"),
        ("payout", "refused", "unknown_number"),
        ("payout", "paid", "conflict"),
        ("refund", "paid", "conflict"),
    ],
)
def test_money_that_came_unasked_is_suspense_and_money_that_went_unasked_is_for_a_person(
    kind: str, outcome: str, verdict: str
) -> None:
    assert judge_unknown(kind, answer(outcome, 100)) == verdict
    assert (verdict in SUSPENSE) == (kind == "collect" or outcome != "paid")


def test_a_word_that_is_no_outcome_is_for_a_person() -> None:
    assert judge_outgoing(instruction(), answer("lost", LESSON_FEN)) == "conflict"
    assert judge_collect(account(), instruction("collect"), answer("returned", PRICE_FEN)) == "conflict"


def test_a_payment_that_comes_back_again_and_again_is_a_new_turn_each_time() -> None:
    one, told = account("held", held_fen=PRICE_FEN - LESSON_FEN, releasing_fen=LESSON_FEN), instruction()
    for turn in (1, 2, 3):
        settle(one, told, f"R-{turn}", NOW)
        back = come_back(one, told, LATER)
        assert (back.turn, back.phase, back.debit, back.credit) == (turn, PENDING, "released", "releasing")
        assert (told.turn, told.state, told.reference) == (turn, "refused", "")
    assert told.returned == ["R-1", "R-2", "R-3"]


# --- asking again -----------------------------------------------------------------------------------------------------


def test_after_an_unknown_outcome_the_same_number_is_asked_again() -> None:
    one = instruction()
    number = one.number
    assert ask_again(one, LATER)
    assert (one.number, one.state, one.asks, one.changed_at) == (number, "sent", 1, LATER)


def test_after_a_definite_refusal_a_new_number_is_tried() -> None:
    one = instruction(state="refused", asks=4)
    number = one.number
    assert ask_again(one, LATER)
    assert one.number != number
    assert (one.attempt, one.state, one.asks, one.changed_at) == (1, "sent", 0, LATER)


@pytest.mark.parametrize("state", ["waiting", "paid", "dropped"])
def test_a_late_timer_finds_nothing_to_ask(state: str) -> None:
    one = instruction(state=state)
    before = dataclasses.replace(one)
    assert not ask_again(one, LATER)
    assert one == before


def test_a_collection_that_was_refused_is_not_asked_again() -> None:
    one = instruction("collect", "refused")
    assert not ask_again(one, LATER)
    assert (one.attempt, one.state) == (0, "refused")


@pytest.mark.parametrize(
    ("state", "outcome", "attempt", "concluded"),
    [
        ("sent", "paid", 0, True),
        ("sent", "refused", 0, True),
        ("sent", "accepted", 0, False),
        ("sent", "unknown", 0, False),
        ("sent", "paid", 1, False),
        ("paid", "paid", 0, False),
        ("refused", "refused", 0, False),
    ],
)
def test_a_final_answer_nobody_waits_for_ends_a_collection(
    state: str, outcome: str, attempt: int, concluded: bool
) -> None:
    one = instruction("collect", state)
    assert conclude(one, dataclasses.replace(answer(outcome, 100), attempt=attempt), LATER) == concluded
    assert (one.state, one.changed_at == LATER) == (("dropped", True) if concluded else (state, False))


@pytest.mark.parametrize(
    ("kind", "state", "now", "would"),
    [
        ("collect", "failed", LATER, True),
        ("collect", "held", NOW, True),
        ("collect", "failed", LATER + timedelta(microseconds=1), False),
        ("collect", "collecting", NOW, False),
        ("payout", "failed", NOW, False),
    ],
)
def test_a_payment_that_was_given_up_would_still_be_collected_until_its_window_is_over(
    kind: Kind, state: str, now: datetime, would: bool
) -> None:
    assert would_still_collect(account(state, pay_by=LATER), instruction(kind), now) is would


def test_when_the_numbers_are_used_up_a_person_must_act() -> None:
    one = instruction(state="refused", attempt=MOST_ATTEMPTS - 1)
    assert ask_again(one, LATER)
    assert one.number.endswith("Z")
    one.state = "refused"
    assert not ask_again(one, LATER)
    assert (one.attempt, one.state) == (MOST_ATTEMPTS, "refused")


def test_pauses_double_up_to_a_limit() -> None:
    pauses = [next_ask(instruction(asks=asks)) for asks in range(100)]
    assert pauses[:4] == [ASK_AGAIN_AFTER * factor for factor in (1, 2, 4, 8)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == ASK_AGAIN_AT_MOST


def test_the_tries_after_refusals_last_for_weeks() -> None:
    pauses = [next_ask(instruction(state="refused", attempt=attempt)) for attempt in range(MOST_ATTEMPTS)]
    assert pauses[:3] == [RETRY_REFUSED_AFTER * factor for factor in (1, 2, 4)]
    assert max(pauses) == RETRY_REFUSED_AT_MOST
    assert sum(pauses, timedelta()) > timedelta(weeks=4)


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "letter"), [("collect", "C"), ("payout", "P"), ("refund", "R")])
def test_a_number_says_its_purpose(kind: Kind, letter: str) -> None:
    one = instruction(kind, attempt=12)
    assert one.number[0] == letter
    assert len(one.number) == 30
    assert purpose_of(one.number) == Purpose(kind, ORDER, one.lesson_no, 12)


GOOD = instruction().number


@pytest.mark.parametrize(
    "number",
    [
        "",
        "P",
        GOOD[:-1],
        GOOD + "0",
        " " + GOOD[1:],
        "X" + GOOD[1:],
        GOOD.lower(),
        GOOD[:10] + "_" + GOOD[11:],
        GOOD[:10] + "-" + GOOD[11:],
        GOOD[:10] + "一" + GOOD[11:],
        GOOD[:10] + "１" + GOOD[11:],
        GOOD[:-1] + "\n",
        "P" + "Z" * 29,
    ],
)
def test_a_number_that_is_not_ours_has_no_purpose(number: str) -> None:
    assert purpose_of(number) is None


def test_the_greatest_order_has_a_number_and_what_is_above_it_has_no_purpose() -> None:
    greatest = instruction(order_id=UUID(int=(1 << 128) - 1))
    purpose = purpose_of(greatest.number)
    assert purpose is not None
    assert purpose.order_id == greatest.order_id
    above = greatest.number[:25] + chr(ord(greatest.number[25]) + 1) + greatest.number[26:]
    assert purpose_of(above) is None
