"""The ledger under random histories: whatever is asked in whatever order, and whatever banks say, the books are right.

The real use cases and rules run on tables in memory, so thousands of histories fit in seconds; that PostgreSQL keeps
the same books is for the integration tests.
"""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from sqlmodel import SQLModel

from services.escrow import bank, use_cases
from services.escrow.domain import MOST_ATTEMPTS, Account, Instruction, Transfer, purpose_of
from services.escrow.tables import AccountRow, BankResultRow, InstructionRow, SuspenseRow, SuspensionRow, TransferRow
from shared.contracts.bank import Instruct, Result
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import CONTRACTS, Data, Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import (
    CancelPayment,
    CollectPayment,
    Held,
    InstructionDeadline,
    PaymentDeadline,
    PaymentFailed,
    PayoutReturned,
    Refunded,
    RefundOrder,
    Released,
    ReleaseLesson,
    ResumeReleases,
    Settled,
    SuspendReleases,
    SuspenseBooked,
)
from shared.ids import instruction_number
from shared.messaging.sets import primary_key
from shared.messaging.work import UnitOfWork
from shared.money import lesson_price_fen

START = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
BALANCES = ("held", "releasing", "released", "refunding", "refunded")
ORDERS = tuple(UUID(int=number) for number in (1, 2))
COMPLAINTS = tuple(UUID(int=number) for number in (11, 12))
MOST_LESSONS = 5


class Tables:
    """Rows by table and primary key. What is loaded is a copy: only what is saved stays."""

    def __init__(self) -> None:
        self.rows: dict[type[SQLModel], dict[Any, Any]] = {}

    def of(self, model: type[SQLModel]) -> dict[Any, Any]:
        return self.rows.setdefault(model, {})

    def copy(self) -> dict[type[SQLModel], dict[Any, Any]]:
        return {
            model: {key: dataclasses.replace(row) for key, row in rows.items()} for model, rows in self.rows.items()
        }


def _key(row: Any, names: Sequence[str]) -> Any:
    return getattr(row, names[0]) if len(names) == 1 else tuple(getattr(row, name) for name in names)


class MemoryWork(UnitOfWork):
    """A unit of work on `Tables`, with what PostgreSQL refuses: a second row of one key."""

    tables: Tables

    async def load_all(self, model: Any, into: Any, keys: Any, *, by: Any = (), lock: bool = True) -> list[Any]:
        names = tuple(by) or primary_key(model)
        rows = self.tables.of(model)
        return [dataclasses.replace(rows[key]) for key in sorted(rows) if _key(rows[key], names) in set(keys)]

    async def load(self, model: Any, into: Any, keys: Any, *, by: Any = (), lock: bool = True) -> dict[Any, Any]:
        names = tuple(by) or primary_key(model)
        return {_key(row, names): row for row in await self.load_all(model, into, keys, by=by)}

    async def insert(self, model: Any, rows: Any, *, ignore_existing: bool = False) -> int:
        for row in rows:
            key = _key(row, primary_key(model))
            assert ignore_existing or key not in self.tables.of(model), f"a second row of {key}"
            self.tables.of(model).setdefault(key, dataclasses.replace(row))
        return len(rows)

    async def update(self, model: Any, rows: Iterable[Any], *names: str) -> None:
        for row in rows:
            changes = {name: getattr(row, name) for name in names}
            key = _key(row, primary_key(model))
            self.tables.of(model)[key] = dataclasses.replace(self.tables.of(model)[key], **changes)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Runs what never waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


class Ledger(RuleBasedStateMachine):
    """Two orders, their saga, their complaints, a bank that may say anything, and the timers."""

    told = Bundle("told")
    """Results that some bank has sent once."""

    batched: ClassVar[dict[type[Data], Callable[..., Coroutine[Any, Any, None]]]] = {
        CollectPayment: use_cases.collect,
        ReleaseLesson: use_cases.release_lessons,
        Result: bank.apply_results,
        InstructionDeadline: use_cases.instruction_deadlines,
    }
    single: ClassVar[dict[type[Data], Callable[..., Coroutine[Any, Any, None]]]] = {
        CancelPayment: use_cases.cancel_payment,
        RefundOrder: use_cases.refund_order,
        SuspendReleases: use_cases.suspend,
        ResumeReleases: use_cases.resume,
        PaymentDeadline: use_cases.payment_deadline,
    }

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.tables = Tables()
        self.numbers = itertools.count(1)
        self.said: list[Data] = []
        self.timers: dict[tuple[str, str], tuple[datetime, str]] = {}
        self.collections: dict[UUID, CollectPayment] = {}

    # --- the road -----------------------------------------------------------------------------------------------------

    def tell(self, *batch: Data) -> list[Data]:
        """Handles a batch of one contract in one transaction; what was said."""
        messages: list[Message[Any]] = [
            Message[Any].model_construct(
                id=(message_id := UUID(int=next(self.numbers))),
                source="/yike/test",
                type=data.TYPE,
                time=self.now,
                correlationid=message_id,
                data=data,
            )
            for data in batch
        ]
        work = MemoryWork("escrow", None, None, self.now)  # type: ignore[arg-type]
        work.tables = self.tables
        before = self.tables.copy()
        if type(batch[0]) in self.batched:
            run(self.batched[type(batch[0])](work, messages))
        else:
            for message in messages:
                try:
                    run(self.single[type(batch[0])](work, message))
                except Refused:
                    assert self.tables.rows == before, "it changed something and then refused"
        for timer in work.timers:
            self.timers.pop((timer.type, timer.subject), None)
            if timer.due_at is not None:
                self.timers[timer.type, timer.subject] = timer.due_at, timer.data
        said = [CONTRACTS[row.type].model_validate(json.loads(row.body)["data"]) for row in work.outbox]
        self.said += said
        return said

    def heard(self, contract: type[Any], order_id: UUID) -> list[Any]:
        """All events of a kind so far."""
        return [one for one in self.said if isinstance(one, contract) and one.order_id == order_id]

    def accounts(self) -> list[Account]:
        return list(self.tables.of(AccountRow).values())

    def transfers(self, order_id: UUID) -> list[Transfer]:
        return [one for one in self.tables.of(TransferRow).values() if one.order_id == order_id]

    def instructions(self) -> list[Instruction]:
        return list(self.tables.of(InstructionRow).values())

    # --- what happens -------------------------------------------------------------------------------------------------

    @initialize(prices=st.tuples(*(st.integers(1, 400),) * 2), lessons=st.tuples(*(st.integers(1, MOST_LESSONS),) * 2))
    def begin(self, prices: tuple[int, int], lessons: tuple[int, int]) -> None:
        for order_id, price, count in zip(ORDERS, prices, lessons, strict=True):
            self.collections[order_id] = CollectPayment(
                order_id=order_id,
                account_id=UUID(int=21),
                institution_id=UUID(int=31),
                account=BankAccount(bank="icbc", supervised_account="S-1", payout_account="P-1"),
                amount_fen=price,
                lessons=count,
                method="alipay",
                pay_by=START + timedelta(minutes=15),
            )
        self.tell(*self.collections.values())

    @rule(order_id=st.sampled_from(ORDERS))
    def collect_again(self, order_id: UUID) -> None:
        assert self.tell(self.collections[order_id]) == []

    @rule(order_id=st.sampled_from(ORDERS))
    def pay(self, order_id: UUID) -> None:
        """The bank does what a bank should: most histories are to get somewhere."""
        price = self.collections[order_id].amount_fen
        number = instruction_number("C", order_id, 0, 0)
        self.tell(self.result(number, "paid", price, "icbc", "first"))

    releases = st.builds(ReleaseLesson, order_id=st.sampled_from(ORDERS), lesson_no=st.integers(1, MOST_LESSONS + 1))

    @rule(commands=st.lists(releases, min_size=1, max_size=6))
    def release(self, commands: list[ReleaseLesson]) -> None:
        self.tell(*commands)

    @rule(order_id=st.sampled_from(ORDERS), contract=st.sampled_from([CancelPayment, RefundOrder]))
    def send_back(self, order_id: UUID, contract: type[CancelPayment | RefundOrder]) -> None:
        said = self.tell(contract(order_id=order_id, reason="cancelled"))
        on_its_way = self.tables.of(AccountRow)[order_id].state == "refunding"
        assert [type(one) for one in said if not isinstance(one, Instruct)] in ([PaymentFailed], [Refunded], [])
        assert said or on_its_way, "who asks for money back is told the end, now or when the bank has paid"

    @rule(order_id=st.sampled_from(ORDERS), complaint_id=st.sampled_from(COMPLAINTS))
    def suspend(self, order_id: UUID, complaint_id: UUID) -> None:
        assert self.tell(SuspendReleases(order_id=order_id, complaint_id=complaint_id)) == []

    @rule(order_id=st.sampled_from(ORDERS), complaint_id=st.sampled_from(COMPLAINTS))
    def resume(self, order_id: UUID, complaint_id: UUID) -> None:
        self.tell(ResumeReleases(order_id=order_id, complaint_id=complaint_id))

    def result(self, number: str, outcome: str, amount_fen: int, bank: str, movement: str) -> Result:
        """One movement has one number, one amount and one reference at its bank: that much a bank is believed."""
        return Result.model_validate(
            {
                "order_id": None,
                "number": number,
                "kind": {"C": "collect", "P": "payout"}.get(number[0], "refund"),
                "outcome": outcome,
                "amount_fen": amount_fen,
                "bank": bank,
                "reference": f"{number} {amount_fen} {movement} {outcome}",
                "happened_at": self.now,
            }
        )

    @rule(target=told, data=st.data())
    def anything(self, data: st.DataObject) -> Any:
        """A bank says anything of any number, ours or not, given or not."""
        draw = data.draw
        attempt = draw(st.integers(0, 2))
        letter = draw(st.sampled_from("CPRX"))
        lesson_no = draw(st.integers(1, MOST_LESSONS + 1)) if letter == "P" else 0
        order_id = draw(st.sampled_from((*ORDERS, UUID(int=3))))
        number = instruction_number(letter, order_id, lesson_no, attempt)
        known = {one.number: one.amount_fen for one in self.instructions()}
        amount = draw(st.sampled_from(sorted({known.get(number, 7), 7})))
        outcome = draw(st.sampled_from(["accepted", "paid", "refused", "unknown", "returned"]))
        made = self.result(
            number, outcome, amount, draw(st.sampled_from(["icbc", "abc"])), draw(st.sampled_from(["first", "second"]))
        )
        self.tell(made)
        return multiple(made)

    @precondition(lambda self: self.instructions())
    @rule(target=told, data=st.data(), outcomes=st.lists(st.sampled_from(["paid", "refused", "returned"]), min_size=1))
    def a_bank_answers(self, data: st.DataObject, outcomes: list[str]) -> Any:
        """A bank says, all at once, things that fit an instruction it was given."""
        one = data.draw(st.sampled_from(sorted(self.instructions(), key=lambda one: str(one.key))))
        made = [self.result(one.number, outcome, one.amount_fen, "icbc", "first") for outcome in outcomes]
        self.tell(*made)
        return multiple(*made)

    @rule(results=st.lists(told, min_size=1, max_size=5))
    def told_again(self, results: list[Result]) -> None:
        """Whatever was said before comes again, in any order, also twice at once."""
        self.tell(*results)

    @rule(data=st.data(), hours=st.sampled_from([0, 1, 7, 30]))
    def time_passes(self, data: st.DataObject, hours: int) -> None:
        """Some of what is due fires, in any order; a timer already fired may come late."""
        self.now += timedelta(hours=hours)
        due = sorted(key for key, (due_at, _) in self.timers.items() if due_at <= self.now)
        for key in data.draw(st.lists(st.sampled_from(due), unique=True) if due else st.just([])):
            body = self.timers.pop(key, None)
            if body is not None:
                self.tell(CONTRACTS[key[0]].model_validate_json(body[1]))

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def paid_is_all_that_is_anywhere_and_nothing_is_negative(self) -> None:
        for account in self.accounts():
            fen = [getattr(account, f"{name}_fen") for name in BALANCES]
            assert account.paid_fen == sum(fen)
            assert min(fen) >= 0
            assert account.paid_fen in (0, account.price_fen)

    @invariant()
    def balances_are_the_sums_of_the_transfers(self) -> None:
        for account in self.accounts():
            sums = dict.fromkeys(("outside", *BALANCES), 0)
            for one in self.transfers(account.order_id):
                sums[one.debit] -= one.amount_fen
                sums[one.credit] += one.amount_fen
            assert {name: getattr(account, f"{name}_fen") for name in BALANCES} | {"outside": -account.paid_fen} == sums

    @invariant()
    def each_lesson_leaves_what_is_held_once_at_its_price_released_or_refunded(self) -> None:
        for account in self.accounts():
            left = [one for one in self.transfers(account.order_id) if one.debit == "held"]
            released = {one.lesson_no: one.amount_fen for one in left if one.kind == "release"}
            refunds = [one.amount_fen for one in left if one.kind == "refund"]
            prices = {n: lesson_price_fen(account.price_fen, account.lessons, n) for n in range(1, account.lessons + 1)}
            assert len(left) == len(released) + len(refunds)
            assert released.items() <= prices.items()
            assert refunds in ([], [sum(price for n, price in prices.items() if n not in released)])

    @invariant()
    def the_bank_has_what_the_books_say(self) -> None:
        """All that was booked of the banks' results, in and out, is what custody holds."""
        fen = 0
        for one in self.tables.of(BankResultRow).values():
            if one.verdict == "applied" and one.outcome in ("paid", "returned"):
                fen += one.amount_fen if one.outcome == "returned" or one.number[0] == "C" else -one.amount_fen
        assert fen == sum(one.held_fen + one.releasing_fen + one.refunding_fen for one in self.accounts())

    @invariant()
    def money_that_came_is_held_or_suspense_once(self) -> None:
        came: dict[tuple[str, str], set[str]] = {}
        for one in self.tables.of(BankResultRow).values():
            if one.outcome == "paid" and one.kind == "collect":
                came.setdefault((one.bank, one.reference), set()).add(one.verdict)
        suspense = {(one.bank, one.reference) for one in self.tables.of(SuspenseRow).values()}
        for movement, verdicts in came.items():
            assert ("applied" in verdicts) != (movement in suspense)
        assert suspense <= came.keys()
        booked = [one.receipt_id for one in self.said if isinstance(one, SuspenseBooked)]
        assert sorted(booked) == sorted(self.tables.of(SuspenseRow))

    @invariant()
    def what_was_told_fits_the_books(self) -> None:
        for account in self.accounts():
            heard = functools.partial(self.heard, order_id=account.order_id)
            assert len(heard(Held)) == (account.paid_fen > 0)
            assert not (heard(Held) and heard(PaymentFailed))
            assert (account.state == "failed") == bool(heard(PaymentFailed))
            released = [one.lesson_no for one in heard(Released)]
            assert len(released) == len(set(released))
            settled = sum(one.amount_fen for one in heard(Settled))
            assert settled - sum(one.amount_fen for one in heard(PayoutReturned)) == account.released_fen

    @invariant()
    def a_new_number_follows_a_definite_refusal_or_a_return_only(self) -> None:
        over = {
            one.number
            for one in self.tables.of(BankResultRow).values()
            if one.verdict == "applied" and one.outcome in ("refused", "returned")
        }
        for one in self.said:
            if isinstance(one, Instruct):
                purpose = purpose_of(one.number)
                assert purpose is not None
                letter = one.number[0]
                for attempt in range(purpose.attempt):
                    assert instruction_number(letter, purpose.order_id, purpose.lesson_no, attempt) in over

    @invariant()
    def whatever_waits_has_its_timer_or_its_complaint(self) -> None:
        for account in self.accounts():
            opened = [
                one
                for one in self.tables.of(SuspensionRow).values()
                if one.order_id == account.order_id and not one.ended
            ]
            assert account.suspensions == len(opened)
        accounts = self.tables.of(AccountRow)
        for one in self.instructions():
            account = accounts[one.order_id]
            if one.state == "waiting":
                assert account.suspensions > 0
                assert account.state == "held"
            elif one.kind != "collect" and one.state in ("sent", "refused") and one.attempt < MOST_ATTEMPTS:
                subject = f"{one.order_id}:{one.kind}:{one.lesson_no}"
                assert (InstructionDeadline.TYPE, subject) in self.timers
            elif one.kind == "collect" and account.state == "collecting":
                assert (PaymentDeadline.TYPE, str(one.order_id)) in self.timers


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
