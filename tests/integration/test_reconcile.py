"""Reconciliation on a real database: each way in which a statement may differ, what people do about it, messages."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ops.cli.reconcile import _NO_KEYS
from services.escrow import breaks, reconcile
from services.escrow.statements import COLUMNS, BadStatement, StatementFile
from shared.actors import Actor
from shared.clock import now
from shared.contracts.bank import Instruct
from shared.contracts.catalog import BankAccount
from shared.contracts.escrow import (
    BreakPage,
    BreaksOverdue,
    BreakView,
    CancelPayment,
    ChooseSettlement,
    CloseSettlement,
    CloseStatement,
    CollectPayment,
    ListBreaks,
    MatchSuspense,
    PayoutReturned,
    ProposeBreak,
    Reconciled,
    ReconciliationView,
    ReleaseLesson,
    ResolveBreak,
    ReturnSuspense,
    Settled,
    ShowReconciliation,
    StatementLine,
    StatementTaken,
    TakeStatementLines,
)
from shared.database import Database
from shared.ids import new_id
from shared.messaging.work import UnitOfWork
from shared.working_days import SHANGHAI
from tests.escrowkit import LESSON_FEN, PRICE_FEN, Escrow, only, result

DAY = date(2026, 11, 23)
LI, WANG = Actor("li", "operator"), Actor("wang", "operator")


def at(clock: str, day: date = DAY) -> datetime:
    """A time of Shanghai."""
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=SHANGHAI)


NOON = at("12:00:00")


@dataclass(frozen=True)
class Row:
    """One line of a statement, signed in fen."""

    number: str
    reference: str
    fen: int
    booked_at: datetime = NOON
    status: str = "booked"


@dataclass
class Bank:
    """A bank of its own for each test: what it moved, and the statements it sends."""

    escrow: Escrow
    folder: Path
    code: str = field(default_factory=lambda: f"b{new_id().hex[-12:]}")
    loaded: int = 0

    @property
    def account(self) -> BankAccount:
        return BankAccount(bank=self.code, supervised_account="S-1", payout_account="P-1")

    async def paid(self, instruct: Instruct, moment: datetime = NOON, **changes: Any) -> Row:
        """The bank has done as told and says so: its line."""
        said = result(instruct, happened_at=moment, **changes)
        await self.escrow.at_once(said)
        inwards = said.kind == "collect" or said.outcome == "returned"
        status = "returned" if said.outcome == "returned" else "booked"
        return Row(said.number, said.reference, said.amount_fen if inwards else -said.amount_fen, moment, status)

    async def order(self, moment: datetime = NOON) -> tuple[CollectPayment, Row]:
        """An order whose fee has come, and the line of it."""
        ask = self.escrow.collection(account=self.account)
        return ask, await self.paid(only(Instruct, await self.escrow.at_once(ask)), moment)

    def file(self, rows: Sequence[Row], opening: int = 0, closing: int | None = None, day: date = DAY) -> StatementFile:
        """A statement of these lines."""
        total = opening + sum(row.fen for row in rows if row.status != "pending")
        lines = [",".join(COLUMNS), f"{day} 00:00:00,,,,,,opening,{yuan(opening)}"]
        for row in rows:
            direction = "credit" if row.fen > 0 else "debit"
            head = f"{row.booked_at.isoformat()},{row.number},{row.reference},{direction}"
            lines.append(f"{head},{yuan(abs(row.fen))},,{row.status},0.00")
        lines.append(f"{day} 23:59:59,,,,,,closing,{yuan(total if closing is None else closing)}")
        self.loaded += 1
        path = self.folder / f"{self.code}-{self.loaded}.csv"
        path.write_text("\n".join(lines) + "\n")
        return StatementFile.open(path, day)

    async def reconcile(self, rows: Sequence[Row], opening: int = 0, **more: Any) -> ReconciliationView:
        """Loads a statement of these lines as `yike reconcile` does."""
        return await self.load(self.file(rows, opening, **more))

    async def load(self, file: StatementFile) -> ReconciliationView:
        database = Database(self.escrow.harness.dsns["escrow"], pool_size=1)
        try:
            async with database.session() as session, session.begin():
                work = UnitOfWork("escrow", session, _NO_KEYS, await now(session))
                view = await reconcile.load(work, file, self.code, "test")
                await work.flush()
            return view
        finally:
            await database.close()

    async def breaks(self, day: date = DAY, state: str = "open") -> list[tuple[str, str, int, int]]:
        """Type, reference and both amounts of the breaks of a day."""
        sql = """SELECT type, reference, ours_fen, theirs_fen FROM breaks WHERE bank = $1 AND day = $2 AND state = $3
                 ORDER BY type, reference"""
        rows = await self.escrow.harness.rows("escrow", sql, self.code, day, state)
        return [tuple(row) for row in rows]

    async def resolve(self, reference: str) -> None:
        """Two operators lay a break to rest."""
        sql = "SELECT break_id FROM breaks WHERE bank = $1 AND reference = $2 AND state = 'open'"
        (row,) = await self.escrow.harness.rows("escrow", sql, self.code, reference)
        harness = self.escrow.harness
        await harness.ask(ProposeBreak(break_id=row["break_id"], reason="手续费"), LI)
        answer = await harness.ask(ResolveBreak(break_id=row["break_id"]), WANG)
        assert isinstance(answer, BreakView)
        assert answer.found.state == "resolved"

    async def said(self) -> list[Any]:
        """What was told of this bank, and what is due."""
        harness = self.escrow.harness
        events = await harness.rows("escrow", "SELECT id FROM outbox WHERE key = $1 ORDER BY seq", self.code)
        return [*events, *await harness.rows("escrow", "SELECT subject, due_at FROM timers WHERE key = $1", self.code)]

    async def everything(self) -> dict[str, list[str]]:
        """All that is stored of this bank's reconciliations."""
        content = await self.escrow.harness.content("escrow")
        return {name: content[name] for name in ("statements", "statement_lines", "breaks")}


def yuan(fen: int) -> str:
    """Fen in a bank's words."""
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02d}"


@pytest.fixture
def bank(escrow: Escrow, tmp_path: Path) -> Bank:
    return Bank(escrow, tmp_path)


async def test_a_day_that_fits_says_that_there_are_no_breaks(bank: Bank) -> None:
    ask, came = await bank.order()
    first = await bank.paid(await bank.escrow.payout(ask))
    back = await bank.paid(await bank.escrow.refund(ask))
    view = await bank.reconcile([came, first, back])
    assert (view.no_breaks, view.breaks, view.resolved, view.lines) == (True, {}, 0, 3)
    assert (view.in_fen, view.out_fen) == (PRICE_FEN, PRICE_FEN)
    assert view.closing_fen == view.ours_fen == 0
    told = await bank.escrow.harness.expect(Reconciled, bank.code)
    assert told.no_breaks


async def test_a_day_on_which_nothing_moved_has_no_breaks(bank: Bank) -> None:
    view = await bank.reconcile([])
    assert (view.no_breaks, view.lines) == (True, 0)


async def test_suspense_and_a_payment_that_came_back_and_was_paid_again_fit(bank: Bank) -> None:
    ask, came = await bank.order()
    stray = Row("X1", "stray", 500)
    number = Instruct(
        order_id=ask.order_id, number="X1", kind="collect", bank=bank.code, supervised_account="S-1", amount_fen=500
    )
    for _ in range(2):  # told twice, it is one movement
        await bank.escrow.at_once(result(number, reference="stray", happened_at=at("12:00:00")))
    payout = await bank.escrow.payout(ask)
    out = await bank.paid(payout)
    back = await bank.paid(payout, outcome="returned", reference="back")
    view = await bank.reconcile([came, stray, out, back])
    assert view.no_breaks, await bank.breaks()
    assert view.closing_fen == view.ours_fen == PRICE_FEN + 500


async def test_a_gathered_payout_is_one_line_for_all_its_lessons_and_may_come_back(bank: Bank) -> None:
    escrow = bank.escrow
    ask, came = await bank.order()
    choice = ChooseSettlement(institution_id=ask.institution_id, mode="daily")
    await escrow.harness.ask(choice, Actor("district-1", "authority"))
    for lesson_no in (1, 2):
        await escrow.at_once(ReleaseLesson(order_id=ask.order_id, lesson_no=lesson_no))
    closed = await escrow.at_once(CloseSettlement(institution_id=ask.institution_id, bank=bank.code))
    payout = only(Instruct, closed)
    out = await bank.paid(payout)
    await escrow.harness.expect(Settled, ask.order_id, lesson_no=2)
    assert (await bank.reconcile([came, out])).no_breaks, await bank.breaks()
    assert out.fen == -2 * LESSON_FEN
    wrong = Row(out.number, out.reference, out.fen + 1)
    assert (await bank.reconcile([came, wrong])).breaks == {"amount": 1}
    back = await bank.paid(payout, outcome="returned", reference="back")
    await escrow.harness.expect(PayoutReturned, ask.order_id, lesson_no=2)
    assert (await bank.reconcile([came, out, back])).no_breaks, await bank.breaks()


async def test_late_money_that_was_matched_with_its_own_order_is_one_movement(bank: Bank) -> None:
    escrow = bank.escrow
    ask = escrow.collection(account=bank.account)
    told = only(Instruct, await escrow.at_once(ask))
    await escrow.at_once(CancelPayment(order_id=ask.order_id, reason="expired"))
    came = await bank.paid(told)
    (row,) = await escrow.harness.rows("escrow", "SELECT receipt_id FROM suspense WHERE bank = $1", bank.code)
    matching = MatchSuspense(receipt_id=row["receipt_id"], order_id=ask.order_id, reason="银行回单")
    await escrow.harness.ask(matching, Actor("ops-1", "operator"))
    assert (await bank.reconcile([came])).no_breaks, await bank.breaks()


async def test_suspense_that_was_sent_back_is_a_line_of_its_own(bank: Bank) -> None:
    escrow = bank.escrow
    ask, came = await bank.order()
    number = Instruct(
        order_id=ask.order_id, number="X2", kind="collect", bank=bank.code, supervised_account="S-1", amount_fen=700
    )
    await escrow.at_once(result(number, reference="stray-2", happened_at=NOON))
    (row,) = await escrow.harness.rows("escrow", "SELECT receipt_id FROM suspense WHERE bank = $1", bank.code)
    giving_back = ReturnSuspense(receipt_id=row["receipt_id"], reason="无主")
    await escrow.harness.ask(giving_back, Actor("ops-1", "operator"))
    told = await escrow.harness.expect(Instruct, row["receipt_id"])
    gone = await bank.paid(told)
    view = await bank.reconcile([came, Row("X2", "stray-2", 700), gone])
    assert view.no_breaks, await bank.breaks()
    assert (gone.fen, view.closing_fen, view.ours_fen) == (-700, PRICE_FEN, PRICE_FEN)


async def test_money_that_we_know_nothing_of_is_missing_here(bank: Bank) -> None:
    _, came = await bank.order()
    view = await bank.reconcile([came, Row("", "fee", -200), Row("X9", "who", 300)])
    assert view.breaks == {"missing_here": 2}
    assert await bank.breaks() == [("missing_here", "fee", 0, -200), ("missing_here", "who", 0, 300)]


async def test_what_we_booked_and_the_bank_did_not_is_missing_there(bank: Bank) -> None:
    _, came = await bank.order()
    assert (await bank.reconcile([])).breaks == {"missing_there": 1}
    assert await bank.breaks() == [("missing_there", came.reference, PRICE_FEN, 0)]


async def test_another_amount_or_direction_is_a_break(bank: Bank) -> None:
    _, came = await bank.order()
    _, other = await bank.order()
    view = await bank.reconcile([replace(came, fen=came.fen - 1), replace(other, fen=-other.fen)])
    assert view.breaks == {"amount": 2}
    assert ("amount", came.reference, PRICE_FEN, PRICE_FEN - 1) in await bank.breaks()
    assert ("amount", other.reference, PRICE_FEN, -PRICE_FEN) in await bank.breaks()


async def test_another_state_is_a_break_in_either_direction(bank: Bank) -> None:
    ask, came = await bank.order()
    out = await bank.paid(await bank.escrow.payout(ask))
    sent = await bank.escrow.payout(ask, 2)
    unknown = Row(sent.number, "quiet", -LESSON_FEN)
    view = await bank.reconcile([replace(came, status="pending"), replace(out, status="returned"), unknown])
    assert view.breaks == {"status": 3}
    assert await bank.breaks() == [
        ("status", "quiet", 0, -LESSON_FEN),
        ("status", came.reference, PRICE_FEN, 0),
        ("status", out.reference, -LESSON_FEN, -LESSON_FEN),
    ]
    notes = await bank.escrow.harness.rows("escrow", "SELECT note FROM breaks WHERE bank = $1", bank.code)
    assert {row["note"] for row in notes} == {
        "booked there, sent here",
        "pending there, paid here",
        "returned there, paid here",
    }


async def test_what_is_only_pending_and_not_known_here_is_no_break(bank: Bank) -> None:
    assert (await bank.reconcile([Row("", "soon", 100, status="pending")])).no_breaks


async def test_one_reference_twice_is_a_duplicate_on_one_day_and_over_two(bank: Bank) -> None:
    _, came = await bank.order()
    assert (await bank.reconcile([came, came])).breaks == {"duplicate": 1}
    assert await bank.breaks() == [("duplicate", came.reference, 0, PRICE_FEN)]
    again = replace(came, booked_at=at("12:00:00", DAY + timedelta(days=1)))
    view = await bank.reconcile([again], 2 * PRICE_FEN, day=DAY + timedelta(days=1))
    assert view.breaks == {"duplicate": 1}


async def test_a_transfer_that_the_ledger_lacks_is_found_though_the_bank_told_of_it(bank: Bank) -> None:
    ask, came = await bank.order()
    out = await bank.paid(await bank.escrow.payout(ask))
    harness = bank.escrow.harness
    sql = "UPDATE transfers SET {} WHERE order_id = $1 AND kind = 'release' AND phase = 2"
    await harness.rows("escrow", sql.format("amount_fen = amount_fen + 1"), ask.order_id)
    assert (await bank.reconcile([came, out])).breaks == {"amount": 1}
    await harness.rows("escrow", sql.format("amount_fen = amount_fen - 1, turn = 5"), ask.order_id)
    assert (await bank.reconcile([came, out])).breaks == {"missing_here": 1}
    await harness.rows("escrow", sql.format("turn = 0"), ask.order_id)
    assert (await bank.reconcile([came, out])).no_breaks


# --- over midnight ----------------------------------------------------------------------------------------------------


async def test_what_is_paid_before_midnight_and_stands_on_the_next_days_statement_is_late_and_closes_itself(
    bank: Bank,
) -> None:
    tomorrow = DAY + timedelta(days=1)
    _, came = await bank.order()
    _, late = await bank.order(at("23:59:30"))
    assert (await bank.reconcile([came])).breaks == {"late": 1}
    assert await bank.breaks() == [("late", late.reference, PRICE_FEN, 0)]
    late = replace(late, booked_at=at("00:00:10", tomorrow))
    view = await bank.reconcile([late], PRICE_FEN, day=tomorrow)
    assert view.no_breaks, await bank.breaks(tomorrow)
    assert await bank.breaks() == []
    assert await bank.breaks(state="closed") == [("late", late.reference, PRICE_FEN, 0)]
    reason = await bank.escrow.harness.rows("escrow", "SELECT reason FROM breaks WHERE bank = $1", bank.code)
    assert [row["reason"] for row in reason] == ["came on the other side of midnight"]
    assert (await bank.reconcile([came])).no_breaks  # and the day before, looked at once more


async def test_what_the_next_days_statement_does_not_bring_is_missing_there(bank: Bank) -> None:
    tomorrow = DAY + timedelta(days=1)
    _, late = await bank.order(at("23:59:30"))
    assert (await bank.reconcile([])).breaks == {"late": 1}
    assert (await bank.reconcile([], day=tomorrow)).no_breaks
    assert await bank.breaks() == [("missing_there", late.reference, PRICE_FEN, 0)]


async def test_what_the_bank_booked_before_midnight_and_we_hear_of_after_it_is_late_until_then(bank: Bank) -> None:
    tomorrow = DAY + timedelta(days=1)
    ask = bank.escrow.collection(account=bank.account)
    instruct = only(Instruct, await bank.escrow.at_once(ask))
    line = Row(instruct.number, f"ref-{instruct.number}", PRICE_FEN, at("23:59:50"))
    assert (await bank.reconcile([line])).breaks == {"late": 1}
    await bank.paid(instruct, at("00:00:05", tomorrow))
    assert (await bank.reconcile([], PRICE_FEN, day=tomorrow)).no_breaks, await bank.breaks(tomorrow)
    assert await bank.breaks() == []
    assert (await bank.reconcile([line])).no_breaks


async def test_a_statement_that_is_corrected_ends_and_brings_breaks_of_the_day_before(bank: Bank) -> None:
    tomorrow = DAY + timedelta(days=1)
    _, came = await bank.order()
    late = replace(came, booked_at=at("00:00:10", tomorrow))
    assert (await bank.reconcile([])).breaks == {"missing_there": 1}
    assert (await bank.reconcile([late], day=tomorrow)).no_breaks
    assert await bank.breaks() == []
    for _ in range(2):
        assert (await bank.reconcile([], day=tomorrow)).no_breaks
        assert await bank.breaks() == [("missing_there", came.reference, PRICE_FEN, 0)]
        assert (await bank.reconcile([late], day=tomorrow)).no_breaks
        assert await bank.breaks() == []


async def test_what_stands_on_two_days_is_held_since_the_first(bank: Bank) -> None:
    tomorrow = DAY + timedelta(days=1)
    _, came = await bank.order()
    file = bank.file([came])
    assert (await bank.load(file)).ours_fen == PRICE_FEN
    again = [replace(came, booked_at=at("12:00:00", tomorrow))] * 2
    assert (await bank.reconcile(again, PRICE_FEN, day=tomorrow)).breaks == {"duplicate": 1}
    view = await bank.load(file)
    assert (view.no_breaks, view.ours_fen) == (True, PRICE_FEN), await bank.breaks()


# --- balances ---------------------------------------------------------------------------------------------------------


async def test_balances_that_do_not_fit_are_breaks(bank: Bank) -> None:
    _, came = await bank.order()
    assert (await bank.reconcile([came], closing=PRICE_FEN + 1)).breaks == {"balance": 1}
    assert (await bank.reconcile([came], 100)).breaks == {"balance": 1}  # the bank holds 100 more than our books say
    assert await bank.breaks() == [("balance", "", PRICE_FEN, PRICE_FEN + 100)]
    view = await bank.reconcile([], 7, day=DAY + timedelta(days=1))
    assert view.breaks == {"balance": 1}
    assert await bank.breaks(DAY + timedelta(days=1)) == [("balance", "", PRICE_FEN + 100, 7)]


# --- again ------------------------------------------------------------------------------------------------------------


async def test_a_rerun_changes_nothing(bank: Bank) -> None:
    _, came = await bank.order()
    file = bank.file([came, came, Row("", "fee", -200), replace(came, reference="pending", status="pending")])
    first = await bank.load(file)
    before = await bank.everything(), await bank.said()
    assert await bank.load(file) == first
    assert (await bank.everything(), await bank.said()) == before


async def test_a_corrected_statement_replaces_the_lines_and_what_was_resolved_stays_so(bank: Bank) -> None:
    _, came = await bank.order()
    await bank.reconcile([came, Row("", "fee", -200), Row("", "error", -300)])
    await bank.resolve("fee")
    view = await bank.reconcile([came, Row("", "fee", -200)])
    assert (view.no_breaks, view.resolved, view.lines) == (True, 1, 2)
    assert await bank.breaks(state="resolved") == [("missing_here", "fee", 0, -200)]
    assert await bank.breaks(state="closed") == [("missing_here", "error", 0, -300)]
    lines = await bank.escrow.harness.rows(
        "escrow",
        "SELECT state, count(line_no)::int FROM statements LEFT JOIN statement_lines USING (statement_id) "
        "WHERE bank = $1 GROUP BY state ORDER BY state",
        bank.code,
    )
    assert [tuple(row) for row in lines] == [("closed", 2), ("replaced", 0)]
    # Another amount is another break, and one that comes again is open again.
    view = await bank.reconcile([came, Row("", "fee", -201), Row("", "error", -300)])
    assert view.breaks == {"missing_here": 2}


async def test_a_bad_file_leaves_nothing_behind(bank: Bank) -> None:
    _, came = await bank.order()
    await bank.reconcile([came])
    before = await bank.everything()
    file = bank.file([came] * 3)
    file.path.write_text(file.path.read_text().replace("closing", "close"))
    with pytest.raises(BadStatement, match="line 6, column direction"):
        await bank.load(StatementFile.open(file.path, DAY))
    assert await bank.everything() == before


# --- what people do ---------------------------------------------------------------------------------------------------


async def test_a_break_needs_a_reason_and_a_second_person(bank: Bank) -> None:
    harness = bank.escrow.harness
    await bank.reconcile([Row("", "fee", -200)])
    page = await harness.ask(ListBreaks(bank=bank.code), LI)
    assert isinstance(page, BreakPage)
    (found,) = page.breaks
    assert (found.type, found.state, found.age_working_days, found.overdue) == ("missing_here", "open", 0, False)
    propose, resolve = ProposeBreak(break_id=found.break_id, reason="手续费"), ResolveBreak(break_id=found.break_id)
    before = await bank.everything()
    for request in (propose, resolve, ListBreaks()):
        assert await harness.refusal(request, Actor("b", "bank")) == "actor_forbidden"
        assert await harness.refusal(request) == "actor_unauthenticated"
    assert await harness.refusal(resolve, WANG) == "break_state"
    assert await harness.refusal(ResolveBreak(break_id=new_id()), WANG) == "break_unknown"
    assert await harness.refusal(ProposeBreak(break_id=new_id(), reason="x"), WANG) == "break_unknown"
    assert await bank.everything() == before

    assert (await harness.ask(propose, LI)).found.proposed_by == "li"
    before = await bank.everything()
    assert await harness.refusal(resolve, LI) == "break_second_person"
    assert await bank.everything() == before
    done = (await harness.ask(resolve, WANG)).found
    assert (done.state, done.reason, done.proposed_by, done.resolved_by) == ("resolved", "手续费", "li", "wang")
    before = await bank.everything()
    for request in (propose, resolve):
        assert await harness.refusal(request, Actor("zhao", "operator")) == "break_state"
    assert await bank.everything() == before
    assert (await harness.ask(ListBreaks(bank=bank.code), LI)).breaks == ()
    view = await harness.ask(ShowReconciliation(bank=bank.code, day=DAY), LI)
    assert (view.no_breaks, view.resolved) == (True, 1)


async def test_breaks_are_paged_oldest_first(bank: Bank) -> None:
    harness = bank.escrow.harness
    await bank.reconcile([Row("", f"r{n}", 100) for n in range(5)])
    seen: list[str] = []
    after = None
    for size in (2, 2, 1):
        page = await harness.ask(ListBreaks(bank=bank.code, day=DAY, after=after, limit=2), LI)
        assert len(page.breaks) == size
        seen += [one.reference for one in page.breaks]
        after = page.next_after
    assert after is None
    assert sorted(seen) == [f"r{n}" for n in range(5)]
    assert (await harness.ask(ListBreaks(bank=bank.code, day=DAY + timedelta(days=1)), LI)).breaks == ()


# --- as messages ------------------------------------------------------------------------------------------------------


def told_lines(rows: Sequence[Row], first: int = 1) -> tuple[StatementLine, ...]:
    """Lines as a bank sends them in messages."""
    return tuple(
        StatementLine.model_validate(
            {
                "line_no": number,
                "number": row.number,
                "reference": row.reference,
                "direction": "credit" if row.fen > 0 else "debit",
                "amount_fen": abs(row.fen),
                "booked_at": row.booked_at,
                "status": row.status,
            }
        )
        for number, row in enumerate(rows, first)
    )


async def test_a_statement_in_messages_gives_what_the_file_gives(bank: Bank) -> None:
    harness, itself = bank.escrow.harness, Actor(bank.code, "bank")
    _, came = await bank.order()
    rows = [came, Row("", "fee", -200), came]
    from_file = await bank.reconcile(rows)
    found = await bank.breaks()
    statement_id = new_id()
    head = {"statement_id": statement_id, "bank": bank.code, "day": DAY}
    totals = {"lines": 3, "in_fen": 2 * PRICE_FEN, "out_fen": 200, "opening_fen": 0, "closing_fen": 2 * PRICE_FEN - 200}
    close = CloseStatement(**head, **totals)
    assert await harness.refusal(close, itself) == "statement_unknown"
    taken = await harness.ask(TakeStatementLines(**head, lines=told_lines(rows[:2])), itself)
    assert taken == StatementTaken(statement_id=statement_id, line_nos=(1, 2))
    before = await bank.everything()
    assert await harness.refusal(close, itself) == "statement_incomplete"
    assert await harness.refusal(close, Actor("another", "bank")) == "actor_forbidden"
    assert await harness.refusal(close, Actor("a", "authority")) == "actor_forbidden"
    lines = TakeStatementLines(**head, lines=told_lines(rows[2:], 3))
    assert await harness.refusal(lines, Actor("another", "bank")) == "actor_forbidden"
    wrong = lines.model_copy(update={"day": DAY + timedelta(days=1)})
    assert await harness.refusal(wrong, itself) == "statement_invalid"
    elsewhere = told_lines([replace(came, booked_at=at("12:00:00", DAY + timedelta(days=2)))], 3)
    assert await harness.refusal(lines.model_copy(update={"lines": elsewhere}), itself) == "statement_invalid"
    assert await harness.refusal(lines.model_copy(update={"lines": lines.lines * 2}), itself) == "statement_invalid"
    assert await bank.everything() == before
    # Sent again under a new id, the same lines replace themselves.
    await harness.ask(lines, itself)
    await harness.ask(lines, itself)
    view = await harness.ask(close, itself)
    assert view == from_file.model_copy(update={"statement_id": statement_id})
    assert await bank.breaks() == found
    before = await bank.everything()
    assert await harness.ask(close, itself) == view
    assert await harness.refusal(lines, itself) == "statement_state"
    assert await bank.everything() == before
    assert await harness.ask(ShowReconciliation(bank=bank.code, day=DAY), itself) == view
    nothing = ShowReconciliation(bank=bank.code, day=DAY - timedelta(days=9))
    assert await harness.refusal(nothing, itself) == "statement_unknown"


async def test_a_day_without_lines_is_closed_at_once(bank: Bank) -> None:
    close = CloseStatement(
        statement_id=new_id(), bank=bank.code, day=DAY, lines=0, in_fen=0, out_fen=0, opening_fen=0, closing_fen=0
    )
    assert (await bank.escrow.harness.ask(close, LI)).no_breaks


# --- what is due: these tests move the clock, so they come last -------------------------------------------------------


async def test_a_statement_that_is_never_closed_is_dropped(bank: Bank) -> None:
    harness = bank.escrow.harness
    head = {"statement_id": new_id(), "bank": bank.code, "day": DAY}
    await harness.ask(TakeStatementLines(**head, lines=told_lines([Row("", "r", 100)])), LI)
    await harness.advance(reconcile.CLOSE_WITHIN + timedelta(minutes=1))
    sql = """SELECT state, (SELECT count(*) FROM statement_lines l WHERE l.statement_id = s.statement_id)::int AS lines
             FROM statements s WHERE bank = $1"""

    async def dropped() -> bool:
        return [tuple(row) for row in await harness.rows("escrow", sql, bank.code)] == [("dropped", 0)]

    await harness.until(dropped)
    close = CloseStatement(**head, lines=1, in_fen=100, out_fen=0, opening_fen=0, closing_fen=100)
    assert await harness.refusal(close, LI) == "statement_state"


async def test_breaks_that_nobody_resolves_raise_the_alarm(bank: Bank) -> None:
    harness = bank.escrow.harness
    await bank.reconcile([Row("", "fee", -200)])
    await harness.advance(timedelta(days=7))
    alarm = await harness.expect(BreaksOverdue, bank.code)
    assert (alarm.day, alarm.breaks) == (DAY, 1)
    assert alarm.age_working_days >= 3
    page = await harness.ask(ListBreaks(bank=bank.code), LI)
    assert page.breaks[0].overdue
    await bank.resolve("fee")
    await harness.advance(timedelta(days=7))

    async def forgotten() -> bool:
        sql = "SELECT FROM timers WHERE type = 'escrow.break.deadline.v1' AND subject = $1"
        return not await harness.rows("escrow", sql, f"{bank.code}:{DAY}")

    await harness.until(forgotten)


def test_age_counts_working_days() -> None:
    friday = at("18:00:00", date(2026, 11, 20))
    assert breaks.age_working_days(friday, friday) == 0
    assert breaks.age_working_days(friday, friday + timedelta(days=2)) == 0
    assert breaks.age_working_days(friday, friday + timedelta(days=3)) == 1
    assert breaks.age_working_days(friday, friday + timedelta(days=7)) == 5
