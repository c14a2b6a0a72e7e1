"""Reconciliation (对账): a bank's statement of a day against what its results said, against the ledger. Three ways.

Lines come from a file (`load`, by COPY) or as messages (`take_lines`, `close_statement`); both end in `_reconcile`. All
comparing is done by the database, over sets, in one transaction: a statement is there with all that follows from it, or
not at all. What is found is merged into `breaks`: the same difference is the same row, so a rerun changes nothing.

[law: 教育部等六部门 关于加强校外培训机构预收费监管工作的通知 (2021), 银行托管; the daily check and the figures: ours]
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from sqlalchemy import text

from services.escrow.domain import SUSPENSE
from services.escrow.statements import GATHERED_KIND, BadStatement, Line, StatementFile, Totals, line_of
from shared.contracts.envelope import Message
from shared.contracts.errors import Refused
from shared.contracts.escrow import (
    BreakDeadline,
    CloseStatement,
    Reconciled,
    ReconciliationView,
    ShowReconciliation,
    StatementDeadline,
    StatementTaken,
    TakeStatementLines,
)
from shared.database import LOOK_UPS_ONLY
from shared.ids import new_id
from shared.messaging.outbox import TimerRow
from shared.messaging.trace import new_traceparent
from shared.messaging.work import UnitOfWork
from shared.policy import NATION, Category, policy_for
from shared.working_days import SHANGHAI, add_working_days, shanghai

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection  # it takes no parameters at run time

NEAR_MIDNIGHT: Final = timedelta(hours=2)
"""What is booked so near the end of a day may stand on the next day's statement instead [ours]."""
MOST_LINES_BY_MESSAGES: Final = 200_000
"""Longer statements come as a file: while one is reconciled, this copy of the service does nothing else [ours]."""
CLOSE_WITHIN: Final = timedelta(days=1)
"""A statement that was begun as messages and is not closed by then is dropped [ours]."""
LINES_AT_ONCE: Final = 10_000
STATEMENT_TIMEOUT_S: Final = 280

_COLUMNS: Final = ("statement_id", *Line._fields)

# --- what we expect at the bank, and what the ledger says of it -------------------------------------------------------
# $1 bank, $2 and $3 from and until when. Each: reference, number, fen (signed, in is positive), status, happened_at.

EXPECTED: Final[tuple[str, ...]] = (
    # What was booked because a bank said so. Each movement once: `yike ledger check` proves it.
    """SELECT reference, number,
         CASE WHEN outcome = 'returned' OR number LIKE 'C%' THEN amount_fen ELSE -amount_fen END,
         CASE outcome WHEN 'returned' THEN 'returned' ELSE 'booked' END, happened_at
       FROM bank_results WHERE bank = $1 AND happened_at >= $2 AND happened_at < $3
         AND verdict = 'applied' AND outcome IN ('paid', 'returned')""",
    # Money that belongs nowhere. A bank may have told of it more than once.
    f"""SELECT DISTINCT ON (reference) reference, number, amount_fen, 'booked', happened_at
       FROM bank_results WHERE bank = $1 AND happened_at >= $2 AND happened_at < $3
         AND verdict IN ({", ".join(f"'{verdict}'" for verdict in sorted({*SUSPENSE, "wrong_amount"}))})
         AND outcome = 'paid'
       ORDER BY reference, happened_at""",  # wrong_amount: what short and over were called once
)
"""To add another kind of movement, add a SELECT here (if it is not a bank's result) and one to `BOOKED`."""

# $1 statement, $2 bank. Each: line_no, fen (not signed) that the ledger has for that very movement.
BOOKED: Final[tuple[str, ...]] = (
    # Of an order: the transfer that the payment posted, be it the present one or one that came back since.
    """SELECT l.line_no, t.amount_fen FROM statement_lines l
       JOIN instructions i ON (i.order_id, i.lesson_no, i.kind) = (l.order_id, l.lesson_no, l.kind)
       JOIN transfers t ON (t.order_id, t.lesson_no, t.kind, t.phase) = (i.order_id, i.lesson_no,
           CASE i.kind WHEN 'collect' THEN 'hold' WHEN 'payout' THEN 'release' ELSE 'refund' END, 2)
         AND t.turn = CASE WHEN i.reference = l.reference THEN i.turn ELSE (
           SELECT o.n - 1 FROM jsonb_array_elements_text(i.returned) WITH ORDINALITY AS o (reference, n)
           WHERE o.reference = l.reference LIMIT 1) END
       WHERE l.statement_id = $1 AND (l.fen > 0) = (l.kind = 'collect')""",
    # A payment that came back (退票): the pending transfer the other way.
    """SELECT l.line_no, t.amount_fen FROM statement_lines l
       JOIN transfers t ON (t.order_id, t.lesson_no, t.kind, t.turn, t.phase) = (l.order_id, l.lesson_no,
         CASE l.kind WHEN 'payout' THEN 'release' ELSE 'refund' END, 1, 1)
       WHERE l.statement_id = $1 AND l.fen > 0 AND l.kind IN ('payout', 'refund')""",
    # A gathered payout: the transfers of all its lessons, of the time it was paid.
    f"""SELECT l.line_no, t.amount_fen FROM statement_lines l
       JOIN settlements s ON s.settlement_id = l.order_id JOIN gathered g ON g.settlement_id = s.settlement_id
       JOIN transfers t ON (t.order_id, t.lesson_no, t.kind, t.phase) = (g.order_id, g.lesson_no, 'release', 2)
         AND t.turn = CASE WHEN s.reference = l.reference THEN s.turn ELSE (
           SELECT o.n - 1 FROM jsonb_array_elements_text(s.returned) WITH ORDINALITY AS o (reference, n)
           WHERE o.reference = l.reference LIMIT 1) END
       WHERE l.statement_id = $1 AND l.fen < 0 AND l.kind = '{GATHERED_KIND}'""",
    # One that came back: the pending transfers the other way.
    f"""SELECT l.line_no, t.amount_fen FROM statement_lines l
       JOIN settlements s ON s.settlement_id = l.order_id JOIN gathered g ON g.settlement_id = s.settlement_id
       JOIN transfers t ON (t.order_id, t.lesson_no, t.kind) = (g.order_id, g.lesson_no, 'release')
         AND (t.turn, t.phase) = (1, 1)
       WHERE l.statement_id = $1 AND l.fen > 0 AND l.kind = '{GATHERED_KIND}'""",
    # Suspense that was sent back, and that came again.
    """SELECT l.line_no, s.amount_fen FROM statement_lines l JOIN suspense s ON s.receipt_id = l.order_id
       WHERE l.statement_id = $1 AND l.kind = 'return'""",
    # Suspense.
    """SELECT l.line_no, s.amount_fen FROM statement_lines l JOIN suspense s ON s.reference = l.reference
       WHERE l.statement_id = $1 AND s.bank = $2
         AND (l.kind = 'collect' AND s.matched_order_id = l.order_id) IS NOT TRUE""",  # that is its order's hold
)

_TEMPORARY: Final = """
DROP TABLE IF EXISTS expected, booked, repeated, found;
CREATE TEMP TABLE expected (reference text, number text, fen bigint, status text, happened_at timestamptz)
  ON COMMIT DROP;
CREATE TEMP TABLE booked (line_no int, fen bigint) ON COMMIT DROP;
CREATE TEMP TABLE repeated (line_no int) ON COMMIT DROP;
CREATE TEMP TABLE found (break_id uuid, line_no int, type text, number text, reference text, ours_fen bigint,
  theirs_fen bigint, note text) ON COMMIT DROP
"""
# $1 statement, $2 the statement of the day before.
_REPEATED: Final = """
INSERT INTO repeated
SELECT line_no FROM (
  SELECT line_no, row_number() OVER (PARTITION BY reference ORDER BY line_no) AS nth FROM statement_lines
  WHERE statement_id = $1 AND status <> 'pending' AND reference IN (
    SELECT reference FROM statement_lines WHERE statement_id = $1 AND status <> 'pending'
    GROUP BY reference HAVING count(*) > 1)) again WHERE nth > 1
UNION SELECT l.line_no FROM statement_lines l JOIN statement_lines b ON b.reference = l.reference
  WHERE l.statement_id = $1 AND b.statement_id = $2 AND l.status <> 'pending' AND b.status <> 'pending'
"""
_BOOK: Final = f"""
INSERT INTO booked SELECT line_no, sum(fen) FROM ({" UNION ALL ".join(BOOKED)}) AS b (line_no, fen) GROUP BY line_no
"""
# $1 statement, $2 from when a line may be of the next day, $3 whether the next day's statement is there.
_LINES_AGAINST_BOOKS: Final = """
INSERT INTO found
SELECT NULL, line_no, split_part(what, ' ', 1), number, reference, ours_fen, theirs_fen,
       substr(what, length(split_part(what, ' ', 1)) + 2)
FROM (
  SELECT l.line_no, l.number, l.reference,
    CASE WHEN r.line_no IS NOT NULL THEN 0 ELSE coalesce(e.fen, 0) END AS ours_fen,
    CASE WHEN l.status = 'pending' THEN 0 ELSE l.fen END AS theirs_fen,
    CASE
      WHEN r.line_no IS NOT NULL THEN 'duplicate the reference stands on a statement already'
      WHEN l.status = 'pending' THEN CASE WHEN e.reference IS NOT NULL THEN 'status pending there, paid here' END
      WHEN e.reference IS NULL THEN CASE WHEN l.booked_at >= $2 AND NOT $3
        THEN 'late not known here yet' ELSE 'missing_here nothing is known of it' END
      WHEN e.fen <> l.fen THEN 'amount the bank''s result said another amount'
      WHEN l.status = 'returned' AND e.status <> 'returned' THEN 'status returned there, paid here'
      WHEN b.fen IS NULL THEN 'missing_here the bank told of it, the ledger has no transfer'
      WHEN b.fen <> abs(l.fen) THEN 'amount the ledger has ' || b.fen || ' fen'
    END AS what
  FROM statement_lines l
  LEFT JOIN expected e ON e.reference = l.reference AND e.number = l.number
  LEFT JOIN repeated r ON r.line_no = l.line_no
  LEFT JOIN booked b ON b.line_no = l.line_no
  WHERE l.statement_id = $1) compared
WHERE what IS NOT NULL
"""
_NOT_MISSING_BUT_NOT_PAID: Final = """
UPDATE found f SET type = 'status', note = 'booked there, ' || i.state || ' here'
FROM statement_lines l JOIN instructions i ON (i.order_id, i.lesson_no, i.kind) = (l.order_id, l.lesson_no, l.kind)
WHERE l.statement_id = $1 AND l.line_no = f.line_no AND f.type = 'missing_here' AND f.ours_fen = 0
"""
# $1 statements of this day and its neighbours, $2 and $3 the day, $4 and $5 near which midnights it may be late.
_BOOKS_AGAINST_LINES: Final = """
INSERT INTO found
SELECT NULL, NULL, CASE WHEN e.happened_at >= $4 OR e.happened_at < $5 THEN 'late' ELSE 'missing_there' END,
       e.number, e.reference, e.fen, 0, 'paid here, not on the statement'
FROM expected e LEFT JOIN statement_lines l
  ON l.statement_id = ANY($1) AND l.reference = e.reference AND l.number = e.number
WHERE e.happened_at >= $2 AND e.happened_at < $3 AND l.line_no IS NULL
"""
# What crossed midnight: on this statement, known here for the next day; and known here for this day, on the next one
# only.
_CROSSED: Final = """
SELECT coalesce((SELECT sum(l.fen) FROM statement_lines l JOIN expected e USING (reference, number)
           WHERE l.statement_id = $1 AND l.status <> 'pending' AND e.happened_at >= $4), 0)
     - coalesce((SELECT sum(e.fen) FROM expected e WHERE e.happened_at >= $3 AND e.happened_at < $4
           AND EXISTS (SELECT FROM statement_lines l WHERE l.statement_id = $2 AND l.status <> 'pending'
             AND (l.reference, l.number) = (e.reference, e.number))
           AND NOT EXISTS (SELECT FROM statement_lines l WHERE l.statement_id = $1 AND l.status <> 'pending'
             AND (l.reference, l.number) = (e.reference, e.number))), 0)
"""
_CUSTODY: Final = f"""
SELECT coalesce(sum(fen), 0)::bigint FROM ({" UNION ALL ".join(f"({select})" for select in EXPECTED)})
  AS e (reference, number, fen, status, happened_at)
"""
_BALANCES: Final = """
INSERT INTO found (type, number, reference, ours_fen, theirs_fen, note)
SELECT 'balance', * FROM (VALUES
    ('lines', '', $1::bigint, $2::bigint, 'opening balance and lines do not come to the closing balance'),
    ('opening', '', $3::bigint, $4::bigint, 'the closing balance of the day before is not the opening balance'))
  AS b (number, reference, ours_fen, theirs_fen, note) WHERE ours_fen <> theirs_fen
"""
_HELD_ELSEWHERE: Final = """
INSERT INTO found (type, number, reference, ours_fen, theirs_fen, note)
SELECT 'balance', 'custody', '', $3::bigint, $4::bigint, 'custody and suspense by our books are not the closing balance'
WHERE $3 <> $4 AND NOT EXISTS (SELECT FROM found)
  AND NOT EXISTS (SELECT FROM breaks WHERE bank = $1 AND day < $2 AND state IN ('open', 'proposed'))
  AND $4 - $3 <> coalesce((SELECT closing_fen - ours_fen FROM statements
    WHERE bank = $1 AND day < $2 AND state = 'closed' ORDER BY day DESC LIMIT 1), 0)
"""
_NAME: Final = """
UPDATE found SET break_id =
  md5(concat_ws('|', $1::text, $2::date, type, number, reference, ours_fen, theirs_fen, line_no IS NULL))::uuid
"""
_MERGE: Final = """
INSERT INTO breaks (break_id, bank, day, type, number, reference, ours_fen, theirs_fen, note, state, reason,
  proposed_by, resolved_by, first_seen, changed_at)
SELECT DISTINCT ON (break_id) break_id, $1, $2, type, number, reference, ours_fen, theirs_fen, note, 'open', '', '', '',
  $3, $3 FROM found
ON CONFLICT (break_id) DO UPDATE SET state = 'open', reason = '', changed_at = excluded.changed_at
WHERE breaks.state = 'closed'
"""
_CLOSE_BREAKS: Final = """
UPDATE breaks b SET state = 'closed', changed_at = $3, proposed_by = '',
  reason = CASE type WHEN 'late' THEN 'came on the other side of midnight' ELSE 'does not stand any more' END
WHERE bank = $1 AND day = $2 AND state IN ('open', 'proposed')
  AND NOT EXISTS (SELECT FROM found f WHERE f.break_id = b.break_id)
"""
_STATEMENTS: Final = """
SELECT day, statement_id, opening_fen, closing_fen, in_fen, out_fen, lines FROM statements
WHERE bank = $1 AND state = 'closed' AND day BETWEEN $2::date - 1 AND $2::date + 1
"""
_OLDEST: Final = """
SELECT min(first_seen) FROM breaks WHERE bank = $1 AND day = $2 AND state IN ('open', 'proposed')
"""
_DIFFERS: Final = """
SELECT EXISTS (SELECT FROM breaks WHERE bank = $1 AND day = $2 AND state <> 'closed')
"""
_INSERT: Final = """
INSERT INTO statements (statement_id, bank, day, form, sha256, state, lines, in_fen, out_fen, opening_fen, closing_fen,
  ours_fen, loaded_by, loaded_at)
VALUES ($1, $2, $3, $4, $5, 'loading', 0, 0, 0, 0, 0, 0, $6, $7)
"""
_CLOSE: Final = """
UPDATE statements SET state = 'closed', lines = $2, in_fen = $3, out_fen = $4, opening_fen = $5, closing_fen = $6
WHERE statement_id = $1
"""
_REPLACE: Final = """
UPDATE statements SET state = 'replaced' WHERE bank = $1 AND day = $2 AND state = 'closed' RETURNING statement_id
"""
_COUNT: Final = """
SELECT count(*)::int AS lines, coalesce(max(line_no), 0) AS last,
  coalesce(sum(fen) FILTER (WHERE fen > 0 AND status <> 'pending'), 0)::bigint AS in_fen,
  coalesce(-sum(fen) FILTER (WHERE fen < 0 AND status <> 'pending'), 0)::bigint AS out_fen
FROM statement_lines WHERE statement_id = $1
"""
_VIEW: Final = """
SELECT bank, day, statement_id, lines, in_fen, out_fen, opening_fen, closing_fen, ours_fen FROM statements
WHERE bank = $1 AND day = $2 AND state = 'closed'
"""
_BREAKS: Final = """
SELECT type, count(*) FILTER (WHERE state IN ('open', 'proposed'))::int AS open,
  count(*) FILTER (WHERE state = 'resolved')::int AS resolved
FROM breaks WHERE bank = $1 AND day = $2 GROUP BY type ORDER BY type
"""


@dataclass(frozen=True, slots=True)
class Day:
    """A day of Shanghai, as instants."""

    day: date

    @property
    def begins(self) -> datetime:
        """Its first instant."""
        return datetime.combine(self.day, time(), SHANGHAI)

    @property
    def ends(self) -> datetime:
        """The first instant that is too late."""
        return datetime.combine(self.day + timedelta(days=1), time(), SHANGHAI)


# --- by messages ------------------------------------------------------------------------------------------------------


async def take_lines(work: UnitOfWork, message: Message[TakeStatementLines]) -> None:
    """Keeps some lines of a statement until it is closed. Refused: statement_invalid, statement_state."""
    ask = message.data
    actor = work.actor(message, "bank", "operator", own={"bank": ask.bank})
    lines = list(_lines_of(ask))
    connection = await connection_of(work)
    await _lock(connection, ask.bank)
    known = await connection.fetchrow(
        "SELECT bank, day, state FROM statements WHERE statement_id = $1", ask.statement_id
    )
    if known is None:
        await connection.execute(_INSERT, ask.statement_id, ask.bank, ask.day, "messages", "", actor.subject, work.now)
        due = StatementDeadline(bank=ask.bank, statement_id=ask.statement_id)
        work.set_timer(due, work.now + CLOSE_WITHIN, message, subject=str(ask.statement_id))
    elif (known["bank"], known["day"]) != (ask.bank, ask.day):
        raise Refused("statement_invalid", "this statement was begun for another bank or day")
    elif known["state"] != "loading":
        raise Refused("statement_state", state=known["state"])
    numbers = [line.line_no for line in lines]
    await connection.execute(
        "DELETE FROM statement_lines WHERE statement_id = $1 AND line_no = ANY($2)", ask.statement_id, numbers
    )
    await add_lines(connection, ask.statement_id, lines)
    work.reply(message, StatementTaken(statement_id=ask.statement_id, line_nos=tuple(numbers)))


def _lines_of(ask: TakeStatementLines) -> Iterator[Line]:
    seen: set[int] = set()
    for one in ask.lines:
        where = f"line {one.line_no}"
        if one.line_no in seen or one.line_no > MOST_LINES_BY_MESSAGES:
            raise Refused("statement_invalid", f"{where}: twice, or beyond {MOST_LINES_BY_MESSAGES}")
        seen.add(one.line_no)
        fen = one.amount_fen if one.direction == "credit" else -one.amount_fen
        try:
            yield line_of(
                one.line_no, one.number.strip(), one.reference, fen, one.booked_at, one.status, ask.day, where
            )
        except BadStatement as error:
            raise Refused("statement_invalid", str(error)) from None


async def close_statement(work: UnitOfWork, message: Message[CloseStatement]) -> None:
    """All lines were sent: the day is reconciled. Closed before, it is reconciled again.

    Refused: statement_incomplete, statement_unknown, statement_state.
    """
    ask = message.data
    actor = work.actor(message, "bank", "operator", own={"bank": ask.bank})
    connection = await connection_of(work)
    await _lock(connection, ask.bank)
    known = await connection.fetchrow(
        "SELECT bank, day, state FROM statements WHERE statement_id = $1", ask.statement_id
    )
    if known is None and ask.lines == 0:
        # A day on which nothing moved has no lines to begin it.
        await connection.execute(_INSERT, ask.statement_id, ask.bank, ask.day, "messages", "", actor.subject, work.now)
    elif known is None or (known["bank"], known["day"]) != (ask.bank, ask.day):
        raise Refused("statement_unknown")
    elif known["state"] not in ("loading", "closed"):
        raise Refused("statement_state", state=known["state"])
    totals = Totals(ask.lines, ask.in_fen, ask.out_fen, ask.opening_fen, ask.closing_fen)
    new = known is None or known["state"] == "loading"
    replaces = False
    if new:
        replaces = await _close(connection, ask.statement_id, ask.bank, ask.day, totals)
    work.cancel_timer(StatementDeadline, ask.statement_id)
    work.reply(message, await _reconcile(work, connection, ask.bank, ask.day, message, new=new, replaces=replaces))


async def show_reconciliation(work: UnitOfWork, message: Message[ShowReconciliation]) -> None:
    """How a day stands. Refused: statement_unknown."""
    ask = message.data
    work.actor(message, "operator", "authority", "bank", own={"bank": ask.bank})
    work.reply(message, await view(await connection_of(work), ask.bank, ask.day), keep=False)


async def statement_deadline(work: UnitOfWork, message: Message[StatementDeadline]) -> None:
    """A statement was begun and never closed: its lines go."""
    connection = await connection_of(work)
    await _lock(connection, message.data.bank)
    sql = "UPDATE statements SET state = 'dropped' WHERE statement_id = $1 AND state = 'loading' RETURNING statement_id"
    if await connection.fetchval(sql, message.data.statement_id):
        await connection.execute("DELETE FROM statement_lines WHERE statement_id = $1", message.data.statement_id)


# --- from a file ------------------------------------------------------------------------------------------------------


async def load(work: UnitOfWork, file: StatementFile, bank: str, loaded_by: str) -> ReconciliationView:
    """Loads a statement from a file and reconciles its day; the same file again is only compared again.

    Raises BadStatement, and then nothing was changed, once the caller rolls back.
    """
    connection = await connection_of(work)
    await _lock(connection, bank)
    same = await connection.fetchval(
        "SELECT sha256 = $3 FROM statements WHERE bank = $1 AND day = $2 AND state = 'closed'",
        bank,
        file.day,
        file.sha256,
    )
    replaces = False
    if not same:
        statement_id = new_id()
        await connection.execute(_INSERT, statement_id, bank, file.day, file.form, file.sha256, loaded_by, work.now)
        lines = file.lines()
        while some := list(islice(lines, LINES_AT_ONCE)):
            await add_lines(connection, statement_id, some)
        replaces = await _close(connection, statement_id, bank, file.day, file.totals)
    return await _reconcile(work, connection, bank, file.day, None, new=not same, replaces=replaces)


# --- what both share --------------------------------------------------------------------------------------------------


async def connection_of(work: UnitOfWork) -> Connection:
    """The driver's connection, inside the transaction of `work`: for COPY, and for statements that take their time."""
    connection = await work.connection()
    await connection.execute(text("SELECT 1"))  # the transaction begins with the first statement
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    return driver  # type: ignore[no-any-return]


async def _lock(connection: Connection, bank: str) -> None:
    """One at a time for each bank."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('reconcile ' || $1, 0))", bank)


async def add_lines(connection: Connection, statement_id: UUID, lines: Iterable[Line]) -> None:
    """Lines of a statement, by COPY."""
    records = [(statement_id, *line) for line in lines]
    await connection.copy_records_to_table("statement_lines", records=records, columns=_COLUMNS)


async def _close(connection: Connection, statement_id: UUID, bank: str, day: date, totals: Totals) -> bool:
    """The statement is whole and stands for its day; one that stood there before is replaced, and its lines go. Whether
    there was one."""
    counted = await connection.fetchrow(_COUNT, statement_id, timeout=STATEMENT_TIMEOUT_S)
    assert counted is not None
    told = (totals.lines, totals.lines, totals.in_fen, totals.out_fen)
    if tuple(counted) != told:
        detail = "{lines} lines up to {last}, in {in_fen} fen, out {out_fen} fen".format(**counted)
        raise Refused("statement_incomplete", f"{detail}; expected {told[0]}, {told[2]}, {told[3]}")
    before = await connection.fetchval(_REPLACE, bank, day)
    if before:
        await connection.execute(
            "DELETE FROM statement_lines WHERE statement_id = $1", before, timeout=STATEMENT_TIMEOUT_S
        )
    figures = (totals.lines, totals.in_fen, totals.out_fen, totals.opening_fen, totals.closing_fen)
    await connection.execute(_CLOSE, statement_id, *figures)
    return before is not None


async def _reconcile(
    work: UnitOfWork,
    connection: Connection,
    bank: str,
    day: date,
    cause: Message[Any] | None,
    *,
    new: bool,
    replaces: bool,
) -> ReconciliationView:
    """Compares a day, and those beside it whose breaks this statement may end or bring. Tells of each that is `new`, or
    stands otherwise than before. Of the day before, what differed may stand on this one; and where nothing did, that
    may be so because of a line that went with the statement that this one `replaces`."""
    shown = await view(connection, bank, day)
    for plan in LOOK_UPS_ONLY:  # a whole day is compared with a whole day
        await connection.execute(f"SET LOCAL {plan} = on")
    await connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
    await connection.execute("SET LOCAL work_mem = '64MB'")
    await connection.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
    if new and shown.lines > LINES_AT_ONCE:
        await connection.execute("ANALYZE statement_lines", timeout=STATEMENT_TIMEOUT_S)
    before, after = day - timedelta(days=1), day + timedelta(days=1)
    changed: dict[date, bool] = {}  # day by day: where an earlier one differs, a later one may for that reason
    if replaces or await connection.fetchval(_DIFFERS, bank, before):
        changed[before] = await _compare(connection, bank, before, work.now)
    changed[day] = await _compare(connection, bank, day, work.now) or new
    changed[after] = await _compare(connection, bank, after, work.now)
    for setting in (*LOOK_UPS_ONLY, "plan_cache_mode", "work_mem", "statement_timeout"):
        await connection.execute(f"SET LOCAL {setting} TO DEFAULT")
    for one in (one for one, otherwise in changed.items() if otherwise):
        shown = await view(connection, bank, one)
        told = Reconciled(bank=bank, day=one, lines=shown.lines, breaks=shown.breaks, no_breaks=shown.no_breaks)
        work.send(told, cause)
        if not shown.no_breaks:
            await _remind(work, connection, bank, one, cause)
    return await view(connection, bank, day)


async def _remind(work: UnitOfWork, connection: Connection, bank: str, day: date, cause: Message[Any] | None) -> None:
    """When the oldest of the day's breaks must be resolved; the next working day, if that has passed."""
    data = BreakDeadline(bank=bank, day=day)
    due_at = overdue_from(await connection.fetchval(_OLDEST, bank, day), work.now)
    if due_at <= work.now:
        due_at = add_working_days(work.now, 1)
    work.timers.append(
        TimerRow(
            type=data.TYPE,
            subject=f"{bank}:{day}",
            id=new_id(),
            due_at=due_at,
            data=data.model_dump_json(),
            key=data.partition_key,
            correlationid=cause.correlationid if cause else new_id(),
            causationid=cause.id if cause else None,
            traceparent=cause.traceparent if cause else new_traceparent(),
        )
    )


def overdue_from(first_seen: datetime, now: datetime) -> datetime:
    """When a break is overdue. One figure for all: a bank's statement knows no category."""
    policy = policy_for(NATION, Category.SUBJECT, shanghai(now).date())
    return add_working_days(first_seen, policy.break_overdue_working_days)


async def _compare(connection: Connection, bank: str, day: date, now: datetime) -> bool:
    """What differs on a day, merged into `breaks`; whether any of them changed. Without a statement, nothing."""
    near = {row["day"]: row for row in await connection.fetch(_STATEMENTS, bank, day)}
    this = near.get(day)
    if this is None:
        return False
    before, after = near.get(day - timedelta(days=1)), near.get(day + timedelta(days=1))
    begins, ends = Day(day).begins, Day(day).ends
    statement_id, day_long = this["statement_id"], timedelta(days=1)

    async def run(sql: str, *arguments: Any) -> bool:
        """Whether any row was written."""
        return not (await connection.execute(sql, *arguments, timeout=STATEMENT_TIMEOUT_S)).endswith(" 0")

    await run(_TEMPORARY)
    for select in EXPECTED:
        await run(f"INSERT INTO expected {select}", bank, begins - day_long, ends + day_long)
    await run("ANALYZE expected")
    await run(_REPEATED, statement_id, before["statement_id"] if before else None)
    await run(_BOOK, statement_id, bank)
    await run("ANALYZE booked")
    late_from = ends - NEAR_MIDNIGHT
    await run(_LINES_AGAINST_BOOKS, statement_id, late_from, after is not None)
    await run(_NOT_MISSING_BUT_NOT_PAID, statement_id)
    ids = [row["statement_id"] for row in near.values()]
    until = begins if before else begins + NEAR_MIDNIGHT
    await run(_BOOKS_AGAINST_LINES, ids, begins, ends, ends if after else late_from, until)
    await _compare_balances(connection, bank, this, before, after)
    await run(_NAME, bank, day)
    await run("ANALYZE found")
    merged = await run(_MERGE, bank, day, now)
    return await run(_CLOSE_BREAKS, bank, day, now) or merged


async def _compare_balances(
    connection: Connection,
    bank: str,
    this: asyncpg.Record,
    before: asyncpg.Record | None,
    after: asyncpg.Record | None,
) -> None:
    """Opening and lines come to closing; the day before has closed where this one opens; and, where nothing else
    differs, the bank holds at the end what our books say it holds."""
    day, opening, closing = this["day"], this["opening_fen"], this["closing_fen"]
    begins, ends = Day(day).begins, Day(day).ends
    closed_before = before["closing_fen"] if before else opening
    moved = opening + this["in_fen"] - this["out_fen"]
    await connection.execute(_BALANCES, moved, closing, closed_before, opening)
    since = datetime.combine(date(2000, 1, 1), time(), SHANGHAI)
    custody = await connection.fetchval(_CUSTODY, bank, since, ends, timeout=STATEMENT_TIMEOUT_S)
    next_id = after["statement_id"] if after else None
    crossed = await connection.fetchval(
        _CROSSED, this["statement_id"], next_id, begins, ends, timeout=STATEMENT_TIMEOUT_S
    )
    ours = custody + int(crossed)
    await connection.execute(_HELD_ELSEWHERE, bank, day, ours, closing)
    await connection.execute("UPDATE statements SET ours_fen = $2 WHERE statement_id = $1", this["statement_id"], ours)


async def view(connection: Connection, bank: str, day: date) -> ReconciliationView:
    """How a day stands. Refused: statement_unknown."""
    statement = await connection.fetchrow(_VIEW, bank, day)
    if statement is None:
        raise Refused("statement_unknown")
    rows: Sequence[asyncpg.Record] = await connection.fetch(_BREAKS, bank, day)
    return ReconciliationView(
        **dict(statement),
        breaks={row["type"]: row["open"] for row in rows if row["open"]},
        resolved=sum(row["resolved"] for row in rows),
        no_breaks=not any(row["open"] for row in rows),
    )
