"""The tables of escrow. Each has the order id first: no statement spans orders, so they can be sharded by it."""

from datetime import date, datetime
from typing import ClassVar, Final
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Index, MetaData, String, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from shared.tables import UTC_TIME, service_metadata

metadata = service_metadata()

IN_TROUBLE: Final = "(state = 'refused' OR (state = 'sent' AND attempt > 0))"
"""Of a payment: refused by the bank, or made and come back, and not made since. The partial indexes and what asks
them say it in the same words."""


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service stand in its own metadata."""

    metadata: ClassVar[MetaData] = metadata


class AccountRow(Base, table=True):
    """The supervised money of one order: six balances, and the law of escrow as a CHECK that holds at every commit."""

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint(
            "paid_fen = held_fen + releasing_fen + released_fen + refunding_fen + refunded_fen", name="balanced"
        ),
        CheckConstraint(
            "held_fen >= 0 AND releasing_fen >= 0 AND released_fen >= 0 AND refunding_fen >= 0 AND refunded_fen >= 0",
            name="no_overdraft",
        ),
        CheckConstraint("paid_fen IN (0, price_fen)", name="paid_whole"),
        CheckConstraint("price_fen > 0 AND lessons > 0", name="priced"),
        CheckConstraint("state IN ('collecting', 'held', 'failed', 'refunding', 'refunded')", name="state"),
        # Never changed, so that a release changes no index.
        Index("accounts_district", "district", "institution_id"),
    )

    order_id: UUID = Field(primary_key=True)
    account_id: UUID
    institution_id: UUID
    bank: str = Field(max_length=40)
    supervised_account: str = Field(max_length=100)
    payout_account: str = Field(max_length=100)
    price_fen: int = Field(sa_type=BigInteger)
    lessons: int
    method: str = Field(max_length=40)
    pay_by: datetime = Field(sa_type=UTC_TIME)
    opened_at: datetime = Field(sa_type=UTC_TIME)
    state: str = Field(max_length=20)
    reason: str = Field(max_length=40)
    paid_reference: str = Field(max_length=100)
    suspensions: int
    given_back: list[int] = Field(sa_type=JSONB)
    paid_fen: int = Field(sa_type=BigInteger)
    held_fen: int = Field(sa_type=BigInteger)
    releasing_fen: int = Field(sa_type=BigInteger)
    released_fen: int = Field(sa_type=BigInteger)
    refunding_fen: int = Field(sa_type=BigInteger)
    refunded_fen: int = Field(sa_type=BigInteger)
    # Of the contract. Sorted by code points, as other services and gateways sort.
    district: str = Field(sa_type=String(100, collation="C"))


class TransferRow(Base, table=True):
    """One movement between two balances of an order: both entries in one row, never changed.

    The primary key is what the transfer is for, so a cause can move money once: phase 1 is pending, phase 2 resolves it
    (posted or voided, whichever comes), and there is one of each.
    """

    __tablename__ = "transfers"
    __table_args__ = (
        CheckConstraint("amount_fen > 0", name="positive"),
        CheckConstraint("debit <> credit", name="two_sides"),
        CheckConstraint("phase IN (1, 2)", name="phase"),
    )

    order_id: UUID = Field(primary_key=True)
    lesson_no: int = Field(primary_key=True)
    kind: str = Field(primary_key=True, max_length=10)
    turn: int = Field(primary_key=True)
    phase: int = Field(primary_key=True)
    debit: str = Field(max_length=10)
    credit: str = Field(max_length=10)
    amount_fen: int = Field(sa_type=BigInteger)
    made_at: datetime = Field(sa_type=UTC_TIME)


class InstructionRow(Base, table=True):
    """What a bank was told to do for one purpose. Its number is made of this key and `attempt` (`shared/ids.py`).

    The row is only changed under the lock of the order's account; a `return`, whose order is the receipt, under that of
    the row in suspense.
    """

    __tablename__ = "instructions"
    __table_args__ = (
        CheckConstraint("kind IN ('collect', 'payout', 'refund', 'return')", name="kind"),
        CheckConstraint("state IN ('waiting', 'gathered', 'sent', 'refused', 'paid', 'dropped')", name="state"),
        CheckConstraint("amount_fen > 0", name="positive"),
        Index("instructions_waiting", "order_id", postgresql_where="state = 'waiting'"),
        # What was refused or came back and is not paid yet: few rows, whatever was ever paid.
        Index(
            "instructions_trouble",
            "order_id",
            "lesson_no",
            "kind",
            postgresql_where=f"kind <> 'collect' AND {IN_TROUBLE}",
        ),
    )

    order_id: UUID = Field(primary_key=True)
    lesson_no: int = Field(primary_key=True)
    kind: str = Field(primary_key=True, max_length=10)
    attempt: int
    turn: int
    state: str = Field(max_length=10)
    amount_fen: int = Field(sa_type=BigInteger)
    reference: str = Field(max_length=100)
    asks: int
    returned: list[str] = Field(sa_type=JSONB)
    changed_at: datetime = Field(sa_type=UTC_TIME)
    counter_account: str | None = Field(max_length=100)


INSTRUCTION_CHANGES: Final = ("attempt", "turn", "state", "reference", "asks", "returned", "changed_at")
"""What the bank's answers, and their want, change of an instruction."""


class GatheredRow(Base, table=True):
    """A lesson whose fee goes out with others of its institution; in one settlement at most, by its key.

    By institution, as settlements are: these statements span orders, at a bank's cut-off and never for one lesson.
    """

    __tablename__ = "gathered"
    __table_args__ = (
        CheckConstraint("amount_fen > 0", name="positive"),
        Index(
            "gathered_open",
            *("institution_id", "bank", "supervised_account", "payout_account", "order_id", "lesson_no"),
            postgresql_where="settlement_id IS NULL",
        ),
        Index("gathered_settlement", "settlement_id", "order_id", "lesson_no"),
    )

    order_id: UUID = Field(primary_key=True)
    lesson_no: int = Field(primary_key=True)
    institution_id: UUID
    bank: str = Field(max_length=40)
    supervised_account: str = Field(max_length=100)
    payout_account: str = Field(max_length=100)
    amount_fen: int = Field(sa_type=BigInteger)
    gathered_at: datetime = Field(sa_type=UTC_TIME)
    settlement_id: UUID | None


class SettlementRow(Base, table=True):
    """A gathered payout: what the bank was told of many lessons. `number` is that of the present attempt; the first 29
    characters are those of every attempt."""

    __tablename__ = "settlements"
    __table_args__ = (
        CheckConstraint("state IN ('sent', 'refused', 'paid')", name="state"),
        CheckConstraint("amount_fen > 0 AND lessons > 0", name="positive"),
        UniqueConstraint("number"),
        Index("settlements_institution", "institution_id", "closed_at"),
        # What was refused or came back and is not paid yet.
        Index(
            "settlements_trouble",
            "settlement_id",
            postgresql_where=IN_TROUBLE,
        ),
    )

    settlement_id: UUID = Field(primary_key=True)
    institution_id: UUID
    bank: str = Field(max_length=40)
    supervised_account: str = Field(max_length=100)
    payout_account: str = Field(max_length=100)
    amount_fen: int = Field(sa_type=BigInteger)
    lessons: int
    closed_at: datetime = Field(sa_type=UTC_TIME)
    changed_at: datetime = Field(sa_type=UTC_TIME)
    number: str = Field(max_length=30)
    attempt: int
    turn: int
    state: str = Field(max_length=10)
    reference: str = Field(max_length=100)
    reason: str = Field(sa_type=Text)
    asks: int
    returned: list[str] = Field(sa_type=JSONB)
    booked_step: int


class SettlementModeRow(Base, table=True):
    """How an institution is paid, if it has ever chosen; who chose last."""

    __tablename__ = "settlement_modes"
    __table_args__ = (CheckConstraint("mode IN ('at_once', 'daily', 'weekly')", name="mode"),)

    institution_id: UUID = Field(primary_key=True)
    mode: str = Field(max_length=10)
    changed_by: str = Field(max_length=100)
    changed_at: datetime = Field(sa_type=UTC_TIME)


class PayoutAccountRow(Base, table=True):
    """Where payouts of an institution's orders at a bank go, if it has changed that; who changed it last."""

    __tablename__ = "payout_accounts"

    institution_id: UUID = Field(primary_key=True)
    bank: str = Field(primary_key=True, max_length=40)
    payout_account: str = Field(max_length=100)
    changed_by: str = Field(max_length=100)
    changed_at: datetime = Field(sa_type=UTC_TIME)


class BankResultRow(Base, table=True):
    """What a bank said, as it said it; `verdict` is what became of it. Duplicates and unknown numbers are rows too."""

    __tablename__ = "bank_results"
    __table_args__ = (
        # Why a payment was refused or came back, whatever the attempt: the number less its last digit.
        Index(
            "bank_results_trouble",
            text("left(number, 29)"),
            postgresql_where="verdict = 'applied' AND outcome IN ('refused', 'returned')",
        ),
        # A day's results are looked up by when the bank says they happened; rows come in nearly that order.
        Index("bank_results_happened_at", "happened_at", postgresql_using="brin"),
    )

    id: UUID = Field(primary_key=True)
    order_id: UUID | None
    number: str = Field(max_length=100)
    kind: str = Field(max_length=10)
    outcome: str = Field(max_length=10)
    amount_fen: int = Field(sa_type=BigInteger)
    bank: str = Field(max_length=40)
    reference: str = Field(max_length=100)
    reason: str = Field(sa_type=Text)
    happened_at: datetime = Field(sa_type=UTC_TIME)
    received_at: datetime = Field(sa_type=UTC_TIME)
    verdict: str = Field(max_length=20)


class SuspenseRow(Base, table=True):
    """Money in the supervised account that belongs to no order yet (挂账). One row per movement at the bank; it stays
    when the money was matched with an order or sent back."""

    __tablename__ = "suspense"
    __table_args__ = (
        CheckConstraint("amount_fen > 0", name="positive"),
        CheckConstraint("state IN ('open', 'returning', 'matched', 'returned')", name="state"),
        CheckConstraint("(state = 'matched') = (matched_order_id IS NOT NULL)", name="matched"),
        # Listed oldest first: what is not done with, and all.
        Index("suspense_open", "booked_at", "receipt_id", postgresql_where="state IN ('open', 'returning')"),
        Index("suspense_booked_at", "booked_at", "receipt_id"),
    )

    receipt_id: UUID = Field(primary_key=True)
    order_id: UUID | None
    number: str = Field(max_length=100)
    bank: str = Field(max_length=40)
    reference: str = Field(max_length=100)
    amount_fen: int = Field(sa_type=BigInteger)
    reason: str = Field(max_length=20)
    state: str = Field(max_length=10)
    booked_at: datetime = Field(sa_type=UTC_TIME)
    account: str = Field(max_length=100)
    due_at: datetime = Field(sa_type=UTC_TIME)
    matched_order_id: UUID | None
    decided_by: str = Field(max_length=200)
    decision: str = Field(sa_type=Text)
    decided_at: datetime | None = Field(sa_type=UTC_TIME)


class FreezeRow(Base, table=True):
    """An institution that an authority has frozen, as catalog told last. A payout that waits for it holds this row's
    lock, so that none begins to wait unseen while it thaws."""

    __tablename__ = "freezes"
    __table_args__ = (CheckConstraint("state IN ('frozen', 'thawing', 'thawed')", name="state"),)

    institution_id: UUID = Field(primary_key=True)
    state: str = Field(max_length=10)
    change_no: int
    changed_at: datetime = Field(sa_type=UTC_TIME)


class SuspensionRow(Base, table=True):
    """A complaint that holds an order's releases; ended when it is closed."""

    __tablename__ = "suspensions"

    order_id: UUID = Field(primary_key=True)
    complaint_id: UUID = Field(primary_key=True)
    ended: bool
    changed_at: datetime = Field(sa_type=UTC_TIME)


class StatementRow(Base, table=True):
    """A bank's statement of one day (对账单): `loading` while its lines come as messages, then closed; another one for
    the same day replaces it. `ours_fen` is what the bank should hold at the end of that day by our books."""

    __tablename__ = "statements"
    __table_args__ = (
        CheckConstraint("form IN ('csv', 'camt053', 'messages')", name="form"),
        CheckConstraint("state IN ('loading', 'closed', 'replaced', 'dropped')", name="state"),
        CheckConstraint("lines >= 0 AND in_fen >= 0 AND out_fen >= 0", name="totals"),
        Index("statements_closed", "bank", "day", unique=True, postgresql_where="state = 'closed'"),
    )

    statement_id: UUID = Field(primary_key=True)
    bank: str = Field(max_length=40)
    day: date
    form: str = Field(max_length=10)
    sha256: str = Field(max_length=64)
    state: str = Field(max_length=10)
    lines: int
    in_fen: int = Field(sa_type=BigInteger)
    out_fen: int = Field(sa_type=BigInteger)
    opening_fen: int = Field(sa_type=BigInteger)
    closing_fen: int = Field(sa_type=BigInteger)
    ours_fen: int = Field(sa_type=BigInteger)
    loaded_by: str = Field(max_length=128)
    loaded_at: datetime = Field(sa_type=UTC_TIME)


class StatementLineRow(Base, table=True):
    """One line of a statement. `fen` is signed: what came in is positive. Order, lesson and kind are what our number
    says, if it is one. No other index: lines are only ever read by statement, all of them at once."""

    __tablename__ = "statement_lines"
    __table_args__ = (
        CheckConstraint("fen <> 0", name="moves"),
        CheckConstraint("status IN ('booked', 'pending', 'returned')", name="status"),
    )

    statement_id: UUID = Field(primary_key=True)
    line_no: int = Field(primary_key=True)
    number: str = Field(max_length=100)
    reference: str = Field(max_length=100)
    fen: int = Field(sa_type=BigInteger)
    booked_at: datetime = Field(sa_type=UTC_TIME)
    status: str = Field(max_length=10)
    order_id: UUID | None
    lesson_no: int | None
    kind: str | None = Field(max_length=10)


class BreakRow(Base, table=True):
    """What differs between a bank's statement and our books (差异). Its id is made of what differs: a rerun finds it.

    open → proposed (somebody says why) → resolved (somebody else agrees); closed: it does not stand any more.
    """

    __tablename__ = "breaks"
    __table_args__ = (
        CheckConstraint(
            "type IN ('missing_here', 'missing_there', 'amount', 'status', 'duplicate', 'late', 'balance')", name="type"
        ),
        CheckConstraint("state IN ('open', 'proposed', 'resolved', 'closed')", name="state"),
        CheckConstraint("state <> 'resolved' OR (resolved_by <> proposed_by AND reason <> '')", name="second_person"),
        Index("breaks_day", "bank", "day"),
        Index("breaks_open", "first_seen", "break_id", postgresql_where="state IN ('open', 'proposed')"),
    )

    break_id: UUID = Field(primary_key=True)
    bank: str = Field(max_length=40)
    day: date
    type: str = Field(max_length=20)
    number: str = Field(max_length=100)
    reference: str = Field(max_length=100)
    ours_fen: int = Field(sa_type=BigInteger)
    theirs_fen: int = Field(sa_type=BigInteger)
    note: str = Field(max_length=200)
    state: str = Field(max_length=10)
    reason: str = Field(max_length=500)
    proposed_by: str = Field(max_length=128)
    resolved_by: str = Field(max_length=128)
    first_seen: datetime = Field(sa_type=UTC_TIME)
    changed_at: datetime = Field(sa_type=UTC_TIME)
