"""The rules of escrow for money that goes back: refunds of some lessons, and lessons divided by an authority."""

import copy
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.escrow.domain import Account, Instruction, divide, refund, release, settle, start
from shared.contracts.errors import Refused

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
ORDER = UUID("01939b6e-0000-7000-8000-000000000001")
PRICE_FEN = 1003
LESSONS = 10


def account(**changes: Any) -> Account:
    """An account of ten lessons, all of its fee held, unless changed."""
    later = NOW + timedelta(hours=1)
    made = Account(ORDER, uuid4(), uuid4(), "icbc", "S-1", "P-1", PRICE_FEN, LESSONS, "alipay", later, NOW, "held")
    made.paid_fen = made.held_fen = PRICE_FEN
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def told(new: list[Instruction]) -> list[tuple[str, int, int, str]]:
    """Kind, lesson, fen and state of each instruction."""
    return [(one.kind, one.lesson_no, one.amount_fen, one.state) for one in new]


def ask(one: Account, *lessons: int, decided: tuple[int, ...] = (), deduction_fen: int = 0, **more: Any) -> Any:
    """What a refund comes to."""
    return refund(one, None, decided, lessons, deduction_fen, "parent_asked", NOW, **more)


def refuses(code: str, one: Account, decide: Any) -> Refused:
    """`decide` refuses with `code` and changes nothing."""
    before = copy.deepcopy(one)
    with pytest.raises(Refused) as caught:
        decide()
    assert caught.value.code == code
    assert one == before
    return caught.value


def test_a_refund_of_some_lessons_takes_their_fee_and_leaves_the_others_to_be_released() -> None:
    one = account()
    (back,) = ask(one, 9, 10)
    assert told([back]) == [("refund", 0, 203, "sent")]
    assert (one.state, one.reason, one.given_back) == ("refunding", "parent_asked", [9, 10])
    transfer = start(one, back, NOW)
    assert (transfer.kind, transfer.lesson_no, transfer.debit, transfer.credit) == ("refund", 0, "held", "refunding")
    assert (one.held_fen, one.refunding_fen) == (800, 203)

    payout = release(one, None, 8, NOW)
    assert payout is not None
    start(one, payout, NOW)
    settle(one, back, "R-1", NOW)
    assert (one.state, one.held_fen, one.releasing_fen, one.refunded_fen) == ("refunded", 700, 100, 203)
    assert release(one, None, 7, NOW) is not None


def test_what_the_contract_lets_the_institution_keep_is_paid_out_to_it() -> None:
    one = account()
    new = ask(one, 9, 10, deduction_fen=50)
    assert told(new) == [("payout", 0, 50, "sent"), ("refund", 0, 153, "sent")]
    for instruction in new:
        start(one, instruction, NOW)
    assert (one.held_fen, one.releasing_fen, one.refunding_fen) == (800, 50, 153)


@pytest.mark.parametrize("changes", [{"suspensions": 1}, {}])
def test_while_releases_are_held_the_refund_goes_and_what_is_kept_of_it_waits(changes: dict[str, int]) -> None:
    new = ask(account(**changes), 9, 10, deduction_fen=50, frozen=not changes)
    assert told(new) == [("payout", 0, 50, "waiting"), ("refund", 0, 153, "sent")]


def test_without_lessons_all_that_nothing_was_decided_about_goes_back() -> None:
    one = account(given_back=[2])
    assert told(ask(one, decided=(1, 3))) == [("refund", 0, 703, "sent")]
    assert one.given_back == [2, 4, 5, 6, 7, 8, 9, 10]
    untouched = account()
    assert told(ask(untouched)) == [("refund", 0, PRICE_FEN, "sent")]
    assert untouched.given_back == list(range(1, 11))


def test_nothing_goes_back_where_everything_was_decided() -> None:
    one = account(held_fen=0, released_fen=PRICE_FEN)
    assert ask(one, decided=tuple(range(1, 11))) == []
    assert (one.state, one.given_back) == ("held", [])


def test_a_refund_and_a_release_of_one_lesson_never_both_win() -> None:
    one = account()
    assert refuses("lesson_settled", one, lambda: ask(one, 2, 3, decided=(3,))).figures == {"lesson_no": 3}
    ask(one, 3)
    assert refuses("lesson_settled", one, lambda: release(one, None, 3, NOW)).figures == {"lesson_no": 3}


def test_an_order_is_refunded_once() -> None:
    one = account()
    (back,) = ask(one, 9, 10)
    for lessons in ((), (10, 9)):
        assert refund(one, back, (), lessons, 0, "again", NOW) == []
    refuses("refund_exists", one, lambda: refund(one, back, (), (8,), 0, "again", NOW))
    assert one.reason == "parent_asked"


@pytest.mark.parametrize(
    ("lessons", "deduction_fen", "code"),
    [((11,), 0, "lesson_unknown"), ((9, 10), 203, "amount_invalid"), ((9, 10), 204, "amount_invalid")],
)
def test_a_refund_that_cannot_be_is_refused(lessons: tuple[int, ...], deduction_fen: int, code: str) -> None:
    one = account()
    refuses(code, one, lambda: ask(one, *lessons, deduction_fen=deduction_fen))


@pytest.mark.parametrize("state", ["collecting", "failed"])
def test_what_has_not_come_does_not_go_back(state: str) -> None:
    one = account(state=state, paid_fen=0, held_fen=0)
    refuses("order_state", one, lambda: ask(one, 1))
    refuses("order_state", one, lambda: divide(one, [], 1, 0, NOW))


def test_more_than_is_held_does_not_go_back() -> None:
    one = account(held_fen=50, released_fen=PRICE_FEN - 50)
    assert refuses("escrow_insufficient", one, lambda: ask(one, 1)).figures == {"missing_fen": 50}
    assert refuses("escrow_insufficient", one, lambda: divide(one, [], 1, 60, NOW)).figures == {"missing_fen": 50}


@pytest.mark.parametrize(
    ("release_fen", "instructions", "given_back"),
    [
        (103, [("payout", 10, 103, "sent")], []),
        (0, [("refund", 10, 103, "sent")], [10]),
        (40, [("payout", 10, 40, "sent"), ("refund", 10, 63, "sent")], []),
    ],
)
def test_an_authority_divides_a_lesson_to_the_fen(
    release_fen: int, instructions: list[tuple[str, int, int, str]], given_back: list[int]
) -> None:
    one = account()
    new = divide(one, [], 10, release_fen, NOW)
    assert told(new) == instructions
    assert one.given_back == given_back
    for instruction in new:
        start(one, instruction, NOW)
        settle(one, instruction, f"R-{instruction.kind}", NOW)
    assert (one.state, one.held_fen, one.released_fen) == ("held", 900, release_fen)
    assert divide(one, new, 10, release_fen, NOW) == []
    refuses("lesson_settled", one, lambda: divide(one, new, 10, release_fen + 1, NOW))
    refuses("lesson_settled", one, lambda: ask(one, 10, decided=(10,)))


def test_of_a_divided_lesson_the_payout_waits_while_a_complaint_holds_the_order() -> None:
    assert told(divide(account(suspensions=1), [], 10, 40, NOW)) == [
        ("payout", 10, 40, "waiting"),
        ("refund", 10, 63, "sent"),
    ]


@pytest.mark.parametrize(("lesson_no", "release_fen", "code"), [(11, 0, "lesson_unknown"), (1, 101, "amount_invalid")])
def test_a_division_that_cannot_be_is_refused(lesson_no: int, release_fen: int, code: str) -> None:
    one = account()
    refuses(code, one, lambda: divide(one, [], lesson_no, release_fen, NOW))


def test_of_a_lesson_without_a_price_there_is_nothing_to_divide() -> None:
    one = account(price_fen=5, paid_fen=5, held_fen=5)
    assert refuses("amount_invalid", one, lambda: divide(one, [], 1, 0, NOW)).figures == {"price_fen": 0}


def test_a_lesson_that_was_left_out_of_a_refund_is_divided_all_the_same() -> None:
    one = account()
    (back,) = ask(one, 9)
    start(one, back, NOW)
    assert told(divide(one, [], 10, 103, NOW)) == [("payout", 10, 103, "sent")]
    settle(one, back, "R-refund", NOW)
    assert told(divide(one, [], 1, 0, NOW)) == [("refund", 1, 100, "sent")]
    assert (one.state, one.given_back) == ("refunded", [9, 1])


def test_a_lesson_in_a_refund_is_not_divided() -> None:
    one = account()
    ask(one, 9, 10)
    refuses("lesson_settled", one, lambda: divide(one, [], 10, 50, NOW))
