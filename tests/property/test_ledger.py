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

from services.escrow import bank, suspense, use_cases
from services.escrow.domain import (
    MOST_ATTEMPTS,
    PENDING,
    RESOLVED,
    Account,
    Instruction,
    Transfer,
    next_ask,
    purpose_of,
)
from services.escrow.tables import AccountRow, BankResultRow, InstructionRow, SuspenseRow, SuspensionRow, TransferRow
from shared.contracts.bank import Instruct, Result
from shared.contracts.catalog import BankAccount
from shared.contracts.envelope import CONTRACTS, Data, Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import (
    CancelPayment,
    CollectPayment,
    DivideLesson,
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
    SuspenseDeadline,
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
            model: {key: dataclasses.replace(row) for key, row in rows.items()}
            for model, rows in self.rows.items()
            if rows
        }


def _key(row: Any, names: Sequence[str]) -> Any:
    return getattr(row, names[0]) if len(names) == 1 else tuple(getattr(row, name) for name in names)


class Nothing:
    """A connection that finds no rows."""

    async def execute(self, *_: Any) -> "Nothing":
        return self

    def all(self) -> list[Any]:
        return []


class MemoryWork(UnitOfWork):
    """A unit of work on `Tables`, with what PostgreSQL refuses: a second row of one key."""

    tables: Tables

    async def connection(self) -> Any:
        """For what is asked of institutions in SQL: here none is frozen and each is paid at once."""
        return Nothing()

    async def load_all(self, model: Any, into: Any, keys: Any, *, by: Any = (), lock: bool = True) -> list[Any]:
        names = tuple(by) or primary_key(model)
        rows = self.tables.of(model)
        return [dataclasses.replace(rows[key]) for key in sorted(rows) if _key(rows[key], names) in set(keys)]

    async def load(self, model: Any, into: Any, keys: Any, *, by: Any = (), lock: bool = True) -> dict[Any, Any]:
        names = tuple(by) or primary_key(model)
        return {_key(row, names): row for row in await self.load_all(model, into, keys, by=by)}

    def insert(self, model: Any, rows: Any, *, ignore_existing: bool = False) -> None:
        for row in rows:
            key = _key(row, primary_key(model))
            assert ignore_existing or key not in self.tables.of(model), f"a second row of {key}"
            self.tables.of(model).setdefault(key, dataclasses.replace(row))

    def update(self, model: Any, rows: Iterable[Any], *names: str) -> None:
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
        ReleaseLesson: bank.move_money,
        Result: bank.move_money,
        InstructionDeadline: use_cases.instruction_deadlines,
    }
    single: ClassVar[dict[type[Data], Callable[..., Coroutine[Any, Any, None]]]] = {
        CancelPayment: use_cases.cancel_payment,
        RefundOrder: use_cases.refund_order,
        DivideLesson: use_cases.divide_lesson,
        SuspendReleases: use_cases.suspend,
        ResumeReleases: use_cases.resume,
        PaymentDeadline: use_cases.payment_deadline,
        SuspenseDeadline: suspense.deadline,
    }

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.tables = Tables()
        self.numbers = itertools.count(1)
        self.said: list[Data] = []
        self.timers: dict[tuple[str, str], tuple[datetime, str]] = {}
        self.fired: list[tuple[str, str]] = []
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
                    assert self.tables.copy() == before, "it changed something and then refused"
        for timer in work.timers:
            self.timers.pop((timer.type, timer.subject), None)
            if timer.due_at is not None:
                self.timers[timer.type, timer.subject] = timer.due_at, timer.data
        said = [CONTRACTS[row.type].model_validate(json.loads(row.body)["data"]) for row in work.outbox]
        for one in said:
            self.check(one)
        self.said += said
        return said

    def check(self, one: Data) -> None:
        """What is said agrees with the books of the same commit."""
        accounts, instructions = self.tables.of(AccountRow), self.tables.of(InstructionRow)
        if isinstance(one, Released):
            assert accounts[one.order_id].suspensions == 0, "released while a complaint holds the order"
        elif isinstance(one, Refunded):
            refund = instructions.get((one.order_id, one.lesson_no, "refund"))
            assert one.amount_fen == (refund.amount_fen if refund else 0)
            assert refund is not None or one.lesson_no == 0, "of one lesson nothing was to go back"
        elif isinstance(one, Instruct):
            purpose = purpose_of(one.number)
            assert purpose is not None
            known = instructions[purpose.order_id, purpose.lesson_no, purpose.kind]
            assert (one.number, one.kind, one.amount_fen) == (known.number, known.kind, known.amount_fen)
            assert known.state == "sent", "the bank is told to pay what is paid, refused or waits"

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

    @initialize(
        prices=st.tuples(*(st.integers(1, 400),) * 2),
        lessons=st.tuples(*(st.integers(1, MOST_LESSONS),) * 2),
        paid=st.sets(st.sampled_from(ORDERS)),
        suspended=st.sets(st.sampled_from(ORDERS)),
    )
    def begin(self, prices: tuple[int, int], lessons: tuple[int, int], paid: set[UUID], suspended: set[UUID]) -> None:
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
        for order_id in sorted(paid):
            self.pay(order_id)
        for order_id in sorted(suspended):
            self.suspend(order_id, COMPLAINTS[0])

    def pay(self, order_id: UUID) -> None:
        number = instruction_number("C", order_id, 0, 0)
        self.tell(self.result(number, "paid", self.collections[order_id].amount_fen))

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

    some_lessons = st.sets(st.integers(1, MOST_LESSONS + 1), min_size=1).map(sorted).map(tuple)

    @rule(order_id=st.sampled_from(ORDERS), lessons=some_lessons, deduction_fen=st.integers(0, 500))
    def refund_some(self, order_id: UUID, lessons: tuple[int, ...], deduction_fen: int) -> None:
        self.tell(RefundOrder(order_id=order_id, reason="asked", lessons=lessons, deduction_fen=deduction_fen))

    @rule(order_id=st.sampled_from(ORDERS), lesson_no=st.integers(1, MOST_LESSONS), release_fen=st.integers(0, 400))
    def divide(self, order_id: UUID, lesson_no: int, release_fen: int) -> None:
        self.tell(DivideLesson(order_id=order_id, lesson_no=lesson_no, release_fen=release_fen))

    @rule(order_id=st.sampled_from(ORDERS), complaint_id=st.sampled_from(COMPLAINTS))
    def suspend(self, order_id: UUID, complaint_id: UUID) -> None:
        assert self.tell(SuspendReleases(order_id=order_id, complaint_id=complaint_id)) == []

    @rule(order_id=st.sampled_from(ORDERS), complaint_id=st.sampled_from(COMPLAINTS))
    def resume(self, order_id: UUID, complaint_id: UUID) -> None:
        self.tell(ResumeReleases(order_id=order_id, complaint_id=complaint_id))

    @precondition(lambda self: self.tables.of(SuspensionRow))
    @rule(data=st.data())
    def resume_what_is_suspended(self, data: st.DataObject) -> None:
        self.resume(*data.draw(st.sampled_from(sorted(self.tables.of(SuspensionRow)))))

    def result(self, number: str, outcome: str, amount_fen: int, movement: int = 1, bank: str = "icbc") -> Result:
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

    movements = st.sampled_from([1, 1, 2])
    outcomes = st.sampled_from(["paid", "paid", "paid", "returned", "returned", "refused", "accepted", "unknown"])

    @rule(target=told, data=st.data())
    def the_bank_does_what_it_was_told(self, data: st.DataObject) -> Any:
        """Each payment on its way is made or refused, some that were made come back: most of what happens is right."""
        usual = {
            "sent": ["paid", "paid", "refused"],
            "paid": ["returned", "refused", "accepted"],
            "refused": ["refused"],
        }
        made = [
            self.result(one.number, data.draw(st.sampled_from(usual[one.state])), one.amount_fen)
            for one in sorted(self.instructions(), key=lambda one: str(one.key))
            if one.state in usual and (one.kind != "collect" or one.state == "sent")
        ]
        for one in made:
            self.tell(one)
        return multiple(*made)

    @rule(target=told, data=st.data(), answers=st.lists(st.tuples(outcomes, movements), min_size=1, max_size=4))
    def a_bank_answers(self, data: st.DataObject, answers: list[tuple[str, int]]) -> Any:
        """A bank says, all at once, what may or may not be true of an instruction it was given."""
        one = data.draw(st.sampled_from(sorted(self.instructions(), key=lambda one: str(one.key))))
        made = [self.result(one.number, outcome, one.amount_fen, movement) for outcome, movement in answers]
        self.tell(*made)
        return multiple(*made)

    @rule(
        target=told,
        data=st.data(),
        outcome=outcomes,
        movement=movements,
        wrong=st.sampled_from(["attempt", "amount", "bank", "purpose"]),
    )
    def a_bank_is_wrong(self, data: st.DataObject, outcome: str, movement: int, wrong: str) -> Any:
        """About a number that is dead or was never given, or in another amount, or it is another bank."""
        one = data.draw(st.sampled_from(sorted(self.instructions(), key=lambda one: str(one.key))))
        number, amount, other = one.number, one.amount_fen, "icbc"
        if wrong == "attempt":
            attempt = data.draw(st.integers(0, one.attempt + 1))
            number = instruction_number(number[0], one.order_id, one.lesson_no, attempt)
        elif wrong == "amount":
            amount += 1
        elif wrong == "bank":
            other = "abc"
        else:
            order_id = data.draw(st.sampled_from((one.order_id, UUID(int=3))))
            number = instruction_number(data.draw(st.sampled_from("CPRX")), order_id, MOST_LESSONS + 1, 0)
        made = self.result(number, outcome, amount, movement, other)
        self.tell(made)
        return multiple(made)

    @rule(results=st.lists(told, min_size=1, max_size=5))
    def told_again(self, results: list[Result]) -> None:
        """Whatever was said before comes again, in any order, also twice at once."""
        self.tell(*results)

    @rule(data=st.data(), hours=st.sampled_from([0, 1, 7, 30]), some_late=st.booleans())
    def time_passes(self, data: st.DataObject, hours: int, some_late: bool) -> None:
        """What is due fires and comes in any order; some of it late, after other things have happened."""
        self.now += timedelta(hours=hours)
        due = [key for key, (due_at, _) in self.timers.items() if due_at <= self.now]
        self.fired += [(key[0], self.timers.pop(key)[1]) for key in sorted(due)]
        here = self.fired
        if self.fired and some_late:
            here = data.draw(st.lists(st.sampled_from(self.fired), unique=True))
        self.fired = [one for one in self.fired if one not in here]
        for type_, body in here:
            self.tell(CONTRACTS[type_].model_validate_json(body))

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
    def each_lesson_leaves_what_is_held_once_at_its_price_released_refunded_or_divided(self) -> None:
        """What still waits has not left, and what an institution keeps of a refund (lesson 0) is a part of it."""
        for account in self.accounts():
            of_order = [one for one in self.instructions() if one.order_id == account.order_id]
            left = [one for one in self.transfers(account.order_id) if one.debit == "held"]
            waiting = sum(one.amount_fen for one in of_order if one.state == "waiting")
            decided: dict[int, int] = {}
            for one in of_order:
                if one.kind != "collect":
                    decided[one.lesson_no] = decided.get(one.lesson_no, 0) + one.amount_fen
            prices = {n: lesson_price_fen(account.price_fen, account.lessons, n) for n in range(1, account.lessons + 1)}
            given_back = sum(prices[n] for n in account.given_back if n not in decided)
            assert sum(one.amount_fen for one in left) + waiting == sum(decided.values())
            assert decided.pop(0, 0) == given_back
            assert decided.items() <= prices.items()

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
    def money_that_went_is_booked_once_or_for_a_person(self) -> None:
        """What a bank says it paid is never swallowed, and once it is booked, to be told again means nothing."""
        went: dict[tuple[str, str], list[str]] = {}
        for _, one in sorted(self.tables.of(BankResultRow).items()):
            if one.outcome == "paid" and one.kind != "collect":
                went.setdefault((one.bank, one.reference), []).append(one.verdict)
        for verdicts in went.values():
            first, _, after = " ".join(verdicts).partition("applied")
            assert set(first.split()) <= {"conflict"}
            assert set(after.split()) <= {"repeated"}

    @invariant()
    def the_state_of_an_order_agrees_with_its_money_and_its_one_refund(self) -> None:
        for one in self.accounts():
            refund = self.tables.of(InstructionRow).get((one.order_id, 0, "refund"))
            assert (one.paid_fen > 0) == (one.state in ("held", "refunding", "refunded"))
            sent_back = {None: ("collecting", "failed", "held"), "paid": ("refunded",)}
            assert one.state in sent_back.get(refund and refund.state, ("refunding",))

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
        suspensions = self.tables.of(SuspensionRow).values()
        for account in self.accounts():
            opened = sum(one.order_id == account.order_id and not one.ended for one in suspensions)
            assert account.suspensions == opened
            if account.state == "collecting":
                assert self.timer(PaymentDeadline, str(account.order_id)) in (account.pay_by, None)
        for one in self.instructions():
            account = self.tables.of(AccountRow)[one.order_id]
            if one.state == "waiting":
                assert account.suspensions > 0
            elif one.kind != "collect" and one.state in ("sent", "refused") and one.attempt < MOST_ATTEMPTS:
                due_at = self.timer(InstructionDeadline, f"{one.order_id}:{one.kind}:{one.lesson_no}")
                assert due_at in (one.changed_at + next_ask(one), None)

    def timer(self, contract: type[Data], subject: str) -> datetime | None:
        """When it is due, None when it has fired and is on its way; there must be one."""
        if (contract.TYPE, subject) in self.timers:
            return self.timers[contract.TYPE, subject][0]
        order_id, _, rest = subject.partition(":")
        fired = [body for type_, body in self.fired if type_ == contract.TYPE and order_id in body]
        assert fired, f"{contract.__name__} of {rest} will never come"
        return None

    @invariant()
    def every_payment_on_its_way_is_a_pending_transfer(self) -> None:
        transfers = self.tables.of(TransferRow)
        pending = {key[:4] for key in transfers if key[4] == PENDING} - {
            key[:4] for key in transfers if key[4] == RESOLVED
        }
        kinds = {"payout": "release", "refund": "refund"}
        assert pending == {
            (one.order_id, one.lesson_no, kinds[one.kind], one.turn)
            for one in self.instructions()
            if one.kind in kinds and one.state in ("sent", "refused")
        }


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
