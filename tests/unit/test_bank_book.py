"""The stand-in bank's book: a number moves money once, and the bank misbehaves exactly as it is told to."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from ops.bank.behaviour import KINDS_OF, MONEY, Behaviour, Name, meet
from ops.bank.book import Account, Book, Entry, Said, accounts_of, money_in
from shared.contracts.bank import Instruct, Result
from shared.ids import derived_id, new_id

NOW = datetime(2026, 3, 2, 2, 0, tzinfo=UTC)
ORDER = new_id()
SUPERVISED, INSTITUTION = "supervised-1", "institution-1"
LOT = 45
"""Of message 2 for behaviour 1."""


def a_book(supervised_fen: int = 0, institution_fen: int = 0) -> Book:
    return Book([Account("icbc", SUPERVISED, supervised_fen), Account("icbc", INSTITUTION, institution_fen)], [])


def instruction(kind: str, number: str, amount_fen: int = 1000, **changes: Any) -> Instruct:
    values: dict[str, Any] = {
        "order_id": ORDER,
        "number": number,
        "kind": kind,
        "bank": "icbc",
        "supervised_account": SUPERVISED,
        "amount_fen": amount_fen,
    }
    values |= {
        "collect": {"method": "alipay"},
        "payout": {"counter_account": INSTITUTION},
        "refund": {"refund_of": "C1"},
    }[kind]
    return Instruct(**(values | changes))


def behaviour(name: Name, **changes: Any) -> Behaviour:
    return Behaviour(new_id(), name, **changes)


def do(book: Book, asked: Instruct, how: Behaviour | None = None, now: datetime = NOW) -> Said:
    return book.instruct(asked, how, now)


def outcomes(said: Said) -> list[str]:
    return [result.outcome for result in said.results]


def balance(book: Book, account: str = SUPERVISED) -> int:
    return book._accounts["icbc", account].balance_fen


def only(said: Said) -> Result:
    assert len(said.results) == 1
    return said.results[0]


# --- what a bank does -----------------------------------------------------------------------------------------------


def test_a_collection_comes_from_outside_into_the_supervised_account() -> None:
    book = a_book()
    result = only(do(book, instruction("collect", "C1")))
    assert (result.outcome, result.amount_fen, result.order_id, result.number) == ("paid", 1000, ORDER, "C1")
    assert balance(book) == 1000
    assert [(e.from_account, e.to_account) for e in book.written] == [("", SUPERVISED)]


def test_a_payout_goes_from_the_supervised_account_to_the_institution() -> None:
    book = a_book(supervised_fen=1500)
    paid = only(do(book, instruction("payout", "P1")))
    assert (paid.outcome, paid.account) == ("paid", ""), "what went out names no account it came to"
    assert (balance(book), balance(book, INSTITUTION)) == (500, 1000)


def test_a_payout_of_more_than_there_is_is_refused_for_ever() -> None:
    book = a_book(supervised_fen=999)
    first = only(do(book, instruction("payout", "P1")))
    assert (first.outcome, first.reason) == ("refused", "insufficient_balance")
    do(book, instruction("collect", "C1"))
    assert only(do(book, instruction("payout", "P1"))) == first
    assert outcomes(do(book, instruction("payout", "P2"))) == ["paid"]
    assert balance(book) == 999


@pytest.mark.parametrize("counter_account", ["", SUPERVISED])
def test_a_payout_to_nowhere_or_to_itself_is_refused(counter_account: str) -> None:
    book = a_book(supervised_fen=5000)
    result = only(do(book, instruction("payout", "P1", counter_account=counter_account)))
    assert (result.outcome, result.reason) == ("refused", "counter_account_invalid")


def test_a_refund_names_a_collection_and_never_exceeds_it() -> None:
    book = a_book()
    do(book, instruction("collect", "C1", 1000))
    do(book, instruction("collect", "C2", 9000))
    assert only(do(book, instruction("refund", "R0", 10, refund_of="C9"))).reason == "refund_of_unknown"
    assert only(do(book, instruction("refund", "R1", 1001))).reason == "refund_exceeds_collection"
    assert outcomes(do(book, instruction("refund", "R2", 600))) == ["paid"]
    assert only(do(book, instruction("refund", "R3", 401))).reason == "refund_exceeds_collection"
    assert outcomes(do(book, instruction("refund", "R4", 400))) == ["paid"]
    assert balance(book) == 9000


def test_refunds_of_earlier_batches_count() -> None:
    book = a_book()
    do(book, instruction("collect", "C1", 1000))
    do(book, instruction("refund", "R1", 600))
    collected = [e for e in book.written if e.number == "C1"]
    paid_back = [e for e in book.written if e.number == "R1"]
    later = Book(book._accounts.values(), collected, paid_back)
    assert only(do(later, instruction("refund", "R2", 401))).reason == "refund_exceeds_collection"


def test_one_movement_is_sent_back_by_its_reference_whatever_it_came_under() -> None:
    book = a_book()
    came = money_in("icbc", SUPERVISED, "被叫做什么都行", 700, NOW)
    book = Book([Account("icbc", SUPERVISED, 700)], [came])

    def back(number: str, amount_fen: int = 700, **changes: Any) -> Instruct:
        named = {"refund_of": "", "refund_reference": came.reference}
        return instruction("refund", number, amount_fen, **(named | changes))

    wrongs: list[dict[str, Any]] = [{"refund_reference": "nobody's"}, {"supervised_account": INSTITUTION}]
    for wrong in wrongs:
        assert only(do(book, back("S0", **wrong))).reason == "refund_of_unknown"
        book = Book([Account("icbc", SUPERVISED, 700), Account("icbc", INSTITUTION, 700)], [came])
    assert only(do(book, back("S1", 701))).reason == "refund_exceeds_collection"
    assert only(do(book, back("S2", 300))).outcome == "paid"
    assert only(do(book, back("S3", 401, supervised_account=""))).reason == "refund_exceeds_collection"
    assert only(do(book, back("S4", 400, supervised_account=""))).outcome == "paid"
    assert balance(book) == 0


def test_of_two_payments_under_one_number_one_goes_back_and_the_other_is_refunded_once() -> None:
    book = a_book()
    results = do(book, instruction("collect", "C1"), behaviour("pay_twice")).results
    assert [one.account for one in results] == [SUPERVISED, SUPERVISED]
    first, second = results
    too_much = instruction("refund", "S0", 1001, refund_of="", refund_reference=second.reference)
    assert only(do(book, too_much)).reason == "refund_exceeds_collection"
    assert outcomes(do(book, instruction("refund", "S1", refund_of="", refund_reference=second.reference))) == ["paid"]
    assert outcomes(do(book, instruction("refund", "R1", refund_of="C1", refund_reference=first.reference))) == ["paid"]
    assert only(do(book, instruction("refund", "R2", 1))).reason == "refund_exceeds_collection"
    assert balance(book) == 0


@pytest.mark.parametrize("kind", ["collect", "payout", "refund"])
def test_nothing_comes_to_or_goes_from_an_account_without_a_name(kind: str) -> None:
    result = only(do(a_book(5000), instruction(kind, "N1", supervised_account="")))
    assert (result.outcome, result.reason) == ("refused", "account_unknown")


def test_a_refund_from_another_supervised_account_than_it_came_to_is_refused() -> None:
    book = Book([Account("icbc", SUPERVISED, 0), Account("icbc", "supervised-2", 5000)], [])
    do(book, instruction("collect", "C1"))
    result = only(do(book, instruction("refund", "R1", supervised_account="supervised-2")))
    assert result.reason == "refund_of_unknown"


def test_a_collection_after_its_time_is_refused() -> None:
    book = a_book()
    result = only(do(book, instruction("collect", "C1", valid_until=NOW)))
    assert (result.outcome, result.reason) == ("refused", "expired")
    assert outcomes(do(book, instruction("collect", "C2", valid_until=NOW + timedelta(seconds=1)))) == ["paid"]


def test_the_same_number_twice_moves_money_once_and_is_answered_the_same() -> None:
    book = a_book()
    first = do(book, instruction("collect", "C1"))
    again = do(book, instruction("collect", "C1"), now=NOW + timedelta(hours=1))
    assert again.results == first.results
    assert balance(book) == 1000
    assert len(book.written) == 1


def test_the_same_number_with_another_amount_moves_nothing_and_is_answered_with_what_was_done() -> None:
    book = a_book()
    do(book, instruction("collect", "C1", 1000))
    assert only(do(book, instruction("collect", "C1", 7000))).amount_fen == 1000
    assert balance(book) == 1000


def test_two_banks_have_their_own_numbers_and_accounts() -> None:
    book = Book([Account("icbc", SUPERVISED), Account("boc", SUPERVISED)], [])
    one = only(do(book, instruction("collect", "C1")))
    two = only(do(book, instruction("collect", "C1", bank="boc")))
    assert one.reference != two.reference
    assert [account.balance_fen for account in book.changed] == [1000, 1000]


def test_a_batch_tried_again_gives_the_same_references() -> None:
    one, two = a_book(), a_book()
    assert do(one, instruction("collect", "C1")).results == do(two, instruction("collect", "C1")).results


def test_every_entry_has_the_banks_own_number_of_it() -> None:
    # Derived, so that a batch tried again, and a bank started again, says the same.
    book = a_book()
    one, two = do(book, instruction("collect", "C1"), behaviour("pay_twice")).results
    assert one.reference == f"B{derived_id('bank', 'icbc', 'C1', 0).hex}"
    assert two.reference == f"B{derived_id('bank', 'icbc', 'C1', 1).hex}"
    assert do(book, instruction("collect", "C2"), behaviour("unknown")).results == [
        Result(
            order_id=ORDER,
            number="C2",
            kind="collect",
            outcome="unknown",
            amount_fen=1000,
            bank="icbc",
            reference=f"B{derived_id('bank', 'icbc', 'C2', 'unknown').hex}",
            reason="timeout",
            happened_at=NOW,
        )
    ]


def test_what_was_done_is_written_as_it_was() -> None:
    book = a_book()
    do(book, instruction("collect", "C1"))
    assert book.written == [
        Entry(
            bank="icbc",
            number="C1",
            step=0,
            order_id=ORDER,
            kind="collect",
            outcome="paid",
            amount_fen=1000,
            from_account="",
            to_account=SUPERVISED,
            refund_of=None,
            reference=f"B{derived_id('bank', 'icbc', 'C1', 0).hex}",
            reason="",
            happened_at=NOW,
        )
    ]


def test_money_that_comes_unasked_is_an_entry_like_a_collection() -> None:
    entry = money_in("icbc", SUPERVISED, "X1", 500, NOW)
    assert entry == Entry(
        bank="icbc",
        number="X1",
        step=0,
        order_id=None,
        kind="collect",
        outcome="paid",
        amount_fen=500,
        from_account="",
        to_account=SUPERVISED,
        refund_of=None,
        reference=f"B{derived_id('bank', 'icbc', 'X1', 0).hex}",
        reason="",
        happened_at=NOW,
    )
    again = money_in("icbc", SUPERVISED, "X1", 500, NOW, step=1, order_id=ORDER)
    assert (again.step, again.order_id, again.reference == entry.reference) == (1, ORDER, False)


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (instruction("collect", "C1"), [SUPERVISED]),
        (instruction("payout", "P1"), [SUPERVISED, INSTITUTION]),
        (instruction("payout", "P1", counter_account=""), [SUPERVISED]),
        (instruction("refund", "R1", counter_account=INSTITUTION), [SUPERVISED]),
    ],
)
def test_the_accounts_of_an_instruction_are_those_its_money_may_move_on(asked: Instruct, names: list[str]) -> None:
    assert accounts_of(asked) == [("icbc", name) for name in names]


def test_only_money_that_came_in_is_paid_back() -> None:
    book = a_book(supervised_fen=5000)
    do(book, instruction("collect", "C1"), behaviour("refuse"))
    do(book, instruction("payout", "P1", counter_account=INSTITUTION))
    for number in ("C1", "P1"):
        assert only(do(book, instruction("refund", f"R{number}", refund_of=number))).reason == "refund_of_unknown"


def test_a_payout_takes_nothing_from_what_can_be_paid_back() -> None:
    book = a_book(supervised_fen=5000)
    do(book, instruction("collect", "C1"))
    do(book, instruction("payout", "P1", refund_of="C1"))
    assert outcomes(do(book, instruction("refund", "R1"))) == ["paid"]


# --- how it misbehaves ----------------------------------------------------------------------------------------------


def test_slow_moves_the_money_now_and_answers_later() -> None:
    book = a_book()
    said = do(book, instruction("collect", "C1"), behaviour("slow", seconds=30.0))
    assert said.results == []
    assert [(later.act, later.due_at) for later in said.later] == [("answer", NOW + timedelta(seconds=30))]
    assert balance(book) == 1000
    assert outcomes(book.act("icbc", "C1", "answer", NOW + timedelta(seconds=30))) == ["paid"]


def test_refuse_gives_the_reason_and_moves_nothing() -> None:
    book = a_book()
    result = only(do(book, instruction("collect", "C1"), behaviour("refuse", reason="card_blocked")))
    assert (result.outcome, result.reason) == ("refused", "card_blocked")
    assert balance(book) == 0


def test_refuse_without_a_reason_gives_one() -> None:
    assert only(do(a_book(), instruction("collect", "C1"), behaviour("refuse"))).reason == "refused_by_bank"


def test_an_amount_is_wrong_only_where_that_is_the_behaviour() -> None:
    results = do(a_book(), instruction("collect", "C1"), behaviour("repeat", delta_fen=7)).results
    assert [result.amount_fen for result in results] == [1000, 1000]


def test_unknown_moves_the_money_and_says_it_does_not_know_until_it_is_asked_again() -> None:
    book = a_book()
    unknown = only(do(book, instruction("collect", "C1"), behaviour("unknown")))
    assert (unknown.outcome, balance(book)) == ("unknown", 1000)
    paid = only(do(book, instruction("collect", "C1")))
    assert paid.outcome == "paid"
    assert paid.reference != unknown.reference
    assert balance(book) == 1000


def test_silent_moves_the_money_and_says_nothing_until_it_is_asked_again() -> None:
    book = a_book()
    assert do(book, instruction("collect", "C1"), behaviour("silent")) == Said()
    assert balance(book) == 1000
    assert outcomes(do(book, instruction("collect", "C1"))) == ["paid"]


def test_repeat_says_the_same_twice() -> None:
    book = a_book()
    one, two = do(book, instruction("collect", "C1"), behaviour("repeat")).results
    assert one == two
    assert balance(book) == 1000


def test_pay_twice_is_two_payments_under_two_references() -> None:
    book = a_book()
    one, two = do(book, instruction("collect", "C1"), behaviour("pay_twice")).results
    assert one.reference != two.reference
    assert (one.outcome, two.outcome, balance(book)) == ("paid", "paid", 2000)
    assert do(book, instruction("collect", "C1")).results == [one, two]


def test_pay_twice_never_overdraws() -> None:
    book = a_book(supervised_fen=1500)
    assert outcomes(do(book, instruction("payout", "P1"), behaviour("pay_twice"))) == ["paid"]
    assert balance(book) == 500


@pytest.mark.parametrize(("delta", "amount"), [(1, 1001), (-1, 999), (-5000, 1)])
def test_wrong_amount_collects_more_or_less(delta: int, amount: int) -> None:
    book = a_book()
    result = only(do(book, instruction("collect", "C1"), behaviour("wrong_amount", delta_fen=delta)))
    assert (result.outcome, result.amount_fen, balance(book)) == ("paid", amount, amount)


def test_accepted_is_not_paid() -> None:
    book = a_book()
    said = do(book, instruction("collect", "C1"), behaviour("accept_first", seconds=60.0))
    assert (outcomes(said), balance(book)) == (["accepted"], 0)
    assert [(later.act, later.due_at) for later in said.later] == [("pay", NOW + timedelta(seconds=60))]
    assert outcomes(do(book, instruction("collect", "C1"))) == ["accepted"]
    due = NOW + timedelta(seconds=60)
    paid = only(book.act("icbc", "C1", "pay", due))
    assert (paid.outcome, paid.happened_at, balance(book)) == ("paid", due, 1000)
    assert outcomes(do(book, instruction("collect", "C1"))) == ["paid"]
    assert book.act("icbc", "C1", "pay", due) == Said()


def test_an_accepted_payout_is_refused_when_the_money_has_gone_meanwhile() -> None:
    book = a_book(supervised_fen=1000)
    do(book, instruction("payout", "P1"), behaviour("accept_first", seconds=60.0))
    do(book, instruction("payout", "P2"))
    assert only(book.act("icbc", "P1", "pay", NOW)).reason == "insufficient_balance"


def test_a_payout_reported_paid_comes_back_as_a_new_entry() -> None:
    book = a_book(supervised_fen=1000)
    said = do(book, instruction("payout", "P1"), behaviour("return_after", seconds=60.0))
    paid = only(said)
    assert [(later.act, later.due_at) for later in said.later] == [("return", NOW + timedelta(seconds=60))]
    returned = only(book.act("icbc", "P1", "return", NOW + timedelta(seconds=60)))
    assert (returned.outcome, returned.kind, returned.number) == ("returned", "payout", "P1")
    assert (paid.reason, returned.reason) == ("", "account_closed")
    assert returned.reference != paid.reference
    assert (balance(book), balance(book, INSTITUTION)) == (1000, 0)
    assert book.act("icbc", "P1", "return", NOW) == Said()
    assert len(book.written) == 2


def test_what_was_paid_back_and_returned_may_be_paid_back_again() -> None:
    book = a_book()
    do(book, instruction("collect", "C1"))
    do(book, instruction("refund", "R1"), behaviour("return_after", seconds=1.0))
    assert only(do(book, instruction("refund", "R2"))).reason == "refund_exceeds_collection"
    assert outcomes(book.act("icbc", "R1", "return", NOW)) == ["returned"]
    assert outcomes(do(book, instruction("refund", "R3"))) == ["paid"]
    assert balance(book) == 0


@pytest.mark.parametrize("act", ["answer", "pay", "return"])
def test_a_timer_for_an_unknown_number_says_nothing(act: Any) -> None:
    assert a_book().act("icbc", "C9", act, NOW) == Said()


def test_whatever_happens_a_balance_is_the_sum_of_its_entries() -> None:
    chance = random.Random(7)
    book = a_book(0)
    names: list[Name | None] = [None, None, "refuse", "unknown", "silent", "repeat", "pay_twice", "accept_first"]
    for _ in range(3000):
        kind = chance.choice(["collect", "collect", "payout", "refund"])
        number = f"{kind[0].upper()}{chance.randrange(400)}"
        name = chance.choice(names)
        asked = instruction(kind, number, chance.randrange(1, 2000))
        if kind == "refund":
            asked = instruction(kind, number, chance.randrange(1, 2000), refund_of=f"C{chance.randrange(400)}")
        said = do(book, asked, behaviour(name, seconds=1.0) if name else None)
        for later in said.later:
            book.act("icbc", number, later.act, NOW)
        assert balance(book) >= 0
    moves: dict[str, int] = {"": 0}
    for entry in book.written:
        if entry.moved:
            moves[entry.from_account] = moves.get(entry.from_account, 0) - entry.amount_fen
            moves[entry.to_account] = moves.get(entry.to_account, 0) + entry.amount_fen
    assert moves[SUPERVISED] == balance(book)
    assert moves[INSTITUTION] == balance(book, INSTITUTION)
    assert sum(moves.values()) == 0
    assert len({entry.reference for entry in book.written}) == len(book.written)
    assert len({entry.outcome for entry in book.written}) == 3


# --- which behaviour meets an instruction ---------------------------------------------------------------------------


def test_a_behaviour_is_used_as_many_times_as_it_was_set_for() -> None:
    twice = behaviour("refuse", times_left=2)
    met = [meet([twice], instruction("collect", f"C{n}"), new_id(), known=False) for n in range(4)]
    assert met == [twice, twice, None, None]


def test_a_behaviour_without_a_count_is_used_always() -> None:
    always = behaviour("silent", times_left=None)
    assert all(meet([always], instruction("collect", "C1"), new_id(), known=True) is always for _ in range(5))


@pytest.mark.parametrize(
    "changes",
    [{"kind": "payout"}, {"order_id": new_id()}, {"number_prefix": "P"}, {"name": "return_after"}],
)
def test_a_behaviour_for_others_is_not_met(changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"id": new_id(), "name": "refuse"} | changes
    other = Behaviour(**values)
    assert meet([other], instruction("collect", "C1"), new_id(), known=False) is None
    assert other.times_left == 1


def test_the_narrowest_behaviour_is_met_first_and_among_equals_the_oldest() -> None:
    general = behaviour("slow", times_left=None)
    first, second = behaviour("refuse", order_id=ORDER), behaviour("unknown", order_id=ORDER)
    prefixed = behaviour("silent", number_prefix="C")
    active = [general, second, prefixed, first]
    names = []
    for n in range(4):
        met = meet(active, instruction("collect", f"C{n}"), new_id(), known=False)
        names.append(met.name if met else "")
    assert names == ["refuse", "unknown", "silent", "slow"]


@pytest.mark.parametrize("name", ["refuse", "pay_twice", "wrong_amount", "accept_first"])
def test_what_changes_the_money_does_not_meet_a_number_that_was_done(name: Name) -> None:
    assert meet([behaviour(name)], instruction("collect", "C1"), new_id(), known=True) is None


def test_one_for_a_kind_is_narrower_than_one_for_all() -> None:
    general, collecting = behaviour("slow"), behaviour("refuse", kind="collect")
    assert meet([general, collecting], instruction("collect", "C1"), new_id(), known=False) is collecting


def test_a_behaviour_meets_where_it_makes_sense() -> None:
    assert {"wrong_amount": {"collect"}, "return_after": {"payout", "refund"}} == KINDS_OF
    assert {"refuse", "pay_twice", "wrong_amount", "accept_first", "return_after"} == MONEY
    for kind, number in (("payout", "P1"), ("refund", "R1")):
        assert meet([behaviour("wrong_amount")], instruction(kind, number), new_id(), known=False) is None
        assert meet([behaviour("return_after")], instruction(kind, number), new_id(), known=False) is not None


def test_a_new_behaviour_meets_everything_once_and_changes_no_figure() -> None:
    new = behaviour("slow")
    assert (new.kind, new.order_id, new.number_prefix, new.percentage, new.times_left) == ("", None, "", 100, 1)
    assert (new.seconds, new.delta_fen, new.reason) == (0.0, 0, "")


def test_the_lot_of_a_message_is_known_and_below_the_percentage_is_met() -> None:
    def met(percentage: int) -> bool:
        one = Behaviour(UUID(int=1), "silent", percentage=percentage)
        return meet([one], instruction("collect", "C1"), UUID(int=2), known=False) is not None

    assert [percentage for percentage in range(101) if met(percentage)] == list(range(LOT + 1, 101))
    lots = [UUID(int=n) for n in range(3000)]
    hundredth = behaviour("silent", percentage=99, times_left=None)
    assert any(meet([hundredth], instruction("collect", "C1"), id_, known=False) is None for id_ in lots)


def test_a_percentage_meets_about_so_many_and_the_same_message_always_alike() -> None:
    tenth = behaviour("silent", percentage=10, times_left=None)
    messages = [UUID(int=n) for n in range(4000)]
    met = [m for m in messages if meet([tenth], instruction("collect", "C1"), m, known=False)]
    assert 300 <= len(met) <= 500
    assert met == [m for m in messages if meet([tenth], instruction("collect", "C1"), m, known=False)]


def test_an_entry_told_again_is_the_same_to_the_letter() -> None:
    book = a_book()
    first = do(book, instruction("collect", "C1")).results
    rows: list[Entry] = book.written
    reloaded = Book([Account("icbc", SUPERVISED, 1000)], rows)
    assert do(reloaded, instruction("collect", "C1")).results == first
    assert reloaded.changed == []
