"""The rules of gathered payouts: their numbers, what goes into one, and how lessons follow."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.escrow.domain import (
    Account,
    Answer,
    Gathered,
    Instruction,
    Settlement,
    answer_settlement,
    ask_again,
    close,
    first_settlement,
    follow,
    gathered_number,
    judge_outgoing,
    purpose_of,
    settlement_of,
    start,
)
from shared.contracts.bank import MOST_GATHERED, GatheredLesson, Instruct
from shared.contracts.envelope import encode
from shared.contracts.topics import MAX_MESSAGE_BYTES
from shared.ids import instruction_number, new_id
from shared.money import MAX_FEN

NOW = datetime(2026, 11, 23, 4, tzinfo=UTC)
INSTITUTION, SETTLEMENT = UUID(int=1), UUID(int=2)


def lesson(order: int, amount_fen: int = 100, payout_account: str = "P-1") -> Gathered:
    return Gathered(UUID(int=order), 1, INSTITUTION, "icbc", "S-1", payout_account, amount_fen, NOW)


def settlement(*lessons: Gathered) -> Settlement:
    return close(SETTLEMENT, lessons or [lesson(1)], NOW)


def on_its_way() -> tuple[Account, Instruction]:
    """A lesson that was gathered."""
    account = Account(
        *(UUID(int=1), UUID(int=9), INSTITUTION, "icbc", "S-1", "P-1", 1000, 10, "alipay", NOW, NOW),
        state="held",
        paid_fen=1000,
        held_fen=1000,
    )
    instruction = Instruction(account.order_id, 1, "payout", 100, NOW)
    start(account, instruction, NOW, gathered=True)
    assert instruction.state == "gathered"
    return account, instruction


def answer(outcome: str, reference: str = "r", attempt: int = 0, amount_fen: int = 100) -> Answer:
    return Answer(outcome, attempt, amount_fen, reference, "")


@given(st.uuids(), st.integers(0, 35))
def test_the_number_of_a_gathered_payout_is_nobody_elses_and_is_read_back(settlement_id: UUID, attempt: int) -> None:
    number = gathered_number(settlement_id, attempt)
    assert len(number) == 30
    assert settlement_of(number) == (settlement_id, attempt)
    assert purpose_of(number) is None
    for letter in "CPR":
        assert settlement_of(instruction_number(letter, settlement_id, 0, attempt)) is None


@pytest.mark.parametrize("number", ["", "G", "nonsense", "G" + "Z" * 29, gathered_number(SETTLEMENT, 0).lower()])
def test_what_is_no_number_is_no_settlements(number: str) -> None:
    assert settlement_of(number) is None


def test_a_settlement_is_the_sum_of_what_goes_to_the_same_account() -> None:
    found = [lesson(1), lesson(2, 50), lesson(3, payout_account="P-2")]
    chosen = first_settlement(found, 10)
    assert chosen == found[:2]
    closed = close(SETTLEMENT, chosen, NOW)
    assert (closed.amount_fen, closed.lessons, closed.payout_account) == (150, 2, "P-1")
    assert (closed.state, closed.number) == ("sent", gathered_number(SETTLEMENT, 0))
    assert [one.settlement_id for one in found] == [SETTLEMENT, SETTLEMENT, None]
    assert first_settlement(found[1:], 10) == found[1:2]


def test_a_new_settlement_is_a_payout_that_nobody_has_answered() -> None:
    new = settlement()
    assert (new.kind, new.attempt, new.turn, new.asks, new.returned) == ("payout", 0, 0, 0, [])
    assert (new.reference, new.reason, new.booked_step, new.step) == ("", "", 0, 0)


def test_what_the_bank_said_last_of_a_settlement_stands_with_it() -> None:
    sum_, days = settlement(), [NOW + timedelta(days=day) for day in (1, 2)]
    answer_settlement(sum_, answer("paid", "r1"), days[0])
    assert (sum_.state, sum_.reference, sum_.reason, sum_.changed_at) == ("paid", "r1", "", days[0])
    back = dataclasses.replace(answer("returned", "x"), reason="account_closed")
    answer_settlement(sum_, back, days[1])
    assert (sum_.state, sum_.reference, sum_.reason, sum_.changed_at) == ("refused", "", "account_closed", days[1])
    assert (sum_.turn, sum_.returned) == (1, ["r1"])


def test_a_lesson_whose_settlement_came_back_is_gathered_again() -> None:
    account, instruction = on_its_way()
    sum_ = settlement()
    answer_settlement(sum_, answer("paid", "r1"), NOW)
    answer_settlement(sum_, answer("returned", "x"), NOW)
    follow(account, instruction, sum_, NOW)
    assert (instruction.state, instruction.turn, instruction.reference) == ("gathered", 1, "")
    assert (account.releasing_fen, account.released_fen) == (100, 0)


def test_a_settlement_has_an_end_in_lessons_and_in_money() -> None:
    assert len(first_settlement([lesson(number) for number in range(5)], 3)) == 3
    assert len(first_settlement([lesson(1, MAX_FEN - 1), lesson(2, 1), lesson(3, 1)], 3)) == 2
    assert len(first_settlement([lesson(1, MAX_FEN)], 3)) == 1


def test_the_longest_list_fits_a_message() -> None:
    lessons = [GatheredLesson(order_id=new_id(), lesson_no=40_000, amount_fen=MAX_FEN) for _ in range(MOST_GATHERED)]
    long = "号" * 100
    instruct = Instruct(
        order_id=new_id(),
        number=gathered_number(SETTLEMENT, 0),
        kind="payout",
        bank="b" * 40,
        supervised_account=long,
        counter_account=long,
        amount_fen=MAX_FEN,
        lessons=tuple(lessons),
    )
    assert len(encode({"data": instruct}).encode()) + 2_000 < MAX_MESSAGE_BYTES
    assert len(json.loads(encode({"data": instruct}))["data"]["lessons"]) == MOST_GATHERED


def test_a_lesson_follows_over_as_many_steps_as_it_is_behind() -> None:
    account, instruction = on_its_way()
    sum_ = settlement()
    assert follow(account, instruction, sum_, NOW) == []
    for outcome, reference in (("paid", "r1"), ("returned", "x"), ("paid", "r2")):
        if outcome == "paid" and sum_.state == "refused":
            assert ask_again(sum_, NOW)
        told = answer(outcome, reference, sum_.attempt)
        assert judge_outgoing(sum_, told) == "applied"
        answer_settlement(sum_, told, NOW)
    transfers = follow(account, instruction, sum_, NOW)
    assert [(one.turn, one.debit, one.credit) for one in transfers] == [
        (0, "releasing", "released"),
        (1, "released", "releasing"),
        (1, "releasing", "released"),
    ]
    assert (instruction.state, instruction.turn, instruction.reference) == ("paid", 1, "r2")
    assert instruction.returned == sum_.returned == ["r1"]
    assert (account.releasing_fen, account.released_fen) == (0, 100)
    assert follow(account, instruction, sum_, NOW) == []


def test_late_repeated_and_contradictory_answers_are_judged_as_those_to_a_lesson() -> None:
    sum_ = settlement()
    assert judge_outgoing(sum_, answer("accepted")) == "noted"
    assert judge_outgoing(sum_, answer("paid", amount_fen=99)) == "conflict"
    assert judge_outgoing(sum_, answer("returned")) == "conflict"
    answer_settlement(sum_, answer("refused"), NOW)
    assert judge_outgoing(sum_, answer("refused")) == "repeated"
    assert ask_again(sum_, NOW)
    assert (sum_.attempt, sum_.state) == (1, "sent")
    assert judge_outgoing(sum_, answer("paid")) == "conflict"
    assert judge_outgoing(sum_, answer("refused")) == "stale"
    answer_settlement(sum_, answer("paid", "r", 1), NOW)
    assert judge_outgoing(sum_, answer("paid", "r", 1)) == "repeated"
    assert judge_outgoing(sum_, answer("paid", "other", 1)) == "conflict"
    assert not ask_again(sum_, NOW)
