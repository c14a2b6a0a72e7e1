"""The bank's daily statement (对账单) as a file, in two forms. Written from the book as it comes, page by page.

The bank writes what its book says, in its own words, and knows nothing of who reads it. The supervised accounts are
those that collections have come in on.
"""

import csv
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, Literal, TextIO
from xml.sax.saxutils import escape

import asyncpg

from shared.working_days import SHANGHAI

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

Form = Literal["csv", "camt053"]
NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"

_MOVES: Final = """
SELECT number, reference, outcome, amount_fen, happened_at,
  CASE WHEN kind = 'collect' OR outcome = 'returned' THEN amount_fen ELSE -amount_fen END AS fen,
  CASE WHEN kind = 'collect' OR outcome = 'returned' THEN from_account ELSE to_account END AS counter_account
FROM entries WHERE bank = $1 AND outcome IN ('paid', 'returned') AND happened_at < $2
"""
_DAY: Final = f"{_MOVES} AND happened_at >= $3 ORDER BY happened_at, number, step"
_BALANCE: Final = f"SELECT coalesce(sum(fen), 0)::bigint FROM ({_MOVES}) m"
_HEADING: Final = ("记账时间", "商户流水号", "银行流水号", "借贷标志", "金额", "对方账号", "状态", "余额")


@dataclass(frozen=True, slots=True)
class Move:
    """One line of the statement, and the balance after it."""

    number: str
    reference: str
    returned: bool
    fen: int
    happened_at: datetime
    counter_account: str
    balance_fen: int


async def write(dsn: str, bank: str, day: date, form: Form, out: TextIO) -> int:
    """Writes the statement of one bank for one day of Shanghai to `out`; returns its number of lines."""
    begins = datetime.combine(day, time(), SHANGHAI)
    ends = begins + timedelta(days=1)
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            opening = await connection.fetchval(_BALANCE, bank, begins)
            closing = await connection.fetchval(_BALANCE, bank, ends)
            moves = _moves(connection, bank, begins, ends, opening)
            if form == "csv":
                return await write_csv(out, day, moves, opening, closing)
            return await write_camt(out, bank, day, moves, opening, closing)
    finally:
        await connection.close()


async def _moves(
    connection: Connection, bank: str, begins: datetime, ends: datetime, balance: int
) -> AsyncIterator[Move]:
    async for row in connection.cursor(_DAY, bank, ends, begins, prefetch=5000):
        balance += row["fen"]
        yield Move(
            number=row["number"],
            reference=row["reference"],
            returned=row["outcome"] == "returned",
            fen=row["fen"],
            happened_at=row["happened_at"].astimezone(SHANGHAI),
            counter_account=row["counter_account"],
            balance_fen=balance,
        )


async def write_csv(out: TextIO, day: date, moves: AsyncIterator[Move], opening: int, closing: int) -> int:
    rows = csv.writer(out)
    rows.writerow(_HEADING)
    rows.writerow([f"{day} 00:00:00", "", "", "", "", "", "期初", _yuan(opening)])
    lines = 0
    async for move in moves:
        lines += 1
        rows.writerow(
            [
                move.happened_at.strftime("%Y-%m-%d %H:%M:%S.%f"),
                move.number,
                move.reference,
                "贷" if move.fen > 0 else "借",
                _yuan(abs(move.fen)),
                move.counter_account,
                "已退回" if move.returned else "已记账",
                _yuan(move.balance_fen),
            ]
        )
    rows.writerow([f"{day} 23:59:59", "", "", "", "", "", "期末", _yuan(closing)])
    return lines


async def write_camt(out: TextIO, bank: str, day: date, moves: AsyncIterator[Move], opening: int, closing: int) -> int:
    name = escape(f"{bank}-{day:%Y%m%d}")
    head = f"<MsgId>{name}</MsgId><CreDtTm>{day}T23:59:59+08:00</CreDtTm>"
    out.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="{NAMESPACE}"><BkToCstmrStmt>\n')
    out.write(f"<GrpHdr>{head}</GrpHdr>\n<Stmt><Id>{name}</Id>\n")
    out.write(f"<Acct><Id><Othr><Id>{escape(bank)}</Id></Othr></Id><Ccy>CNY</Ccy></Acct>\n")
    out.write(_balance("OPBD", opening, day) + _balance("CLBD", closing, day))
    lines = 0
    async for move in moves:
        lines += 1
        out.write(_entry(move))
    out.write("</Stmt></BkToCstmrStmt></Document>\n")
    return lines


def _balance(code: str, fen: int, day: date) -> str:
    kind = f"<Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
    return f"<Bal>{kind}{_amount(fen)}<Dt><Dt>{day}</Dt></Dt></Bal>\n"


def _amount(fen: int) -> str:
    return f'<Amt Ccy="CNY">{_yuan(abs(fen))}</Amt><CdtDbtInd>{"DBIT" if fen < 0 else "CRDT"}</CdtDbtInd>'


def _entry(move: Move) -> str:
    reversal = "<RvslInd>true</RvslInd>" if move.returned else ""
    moment = move.happened_at.isoformat(timespec="microseconds")
    code = "<BkTxCd><Prtry><Cd>TRF</Cd></Prtry></BkTxCd>"
    return (
        f"<Ntry>{_amount(move.fen)}{reversal}<Sts><Cd>BOOK</Cd></Sts><BookgDt><DtTm>{moment}</DtTm></BookgDt>"
        f"<AcctSvcrRef>{escape(move.reference)}</AcctSvcrRef>{code}<NtryDtls><TxDtls><Refs>"
        f"<EndToEndId>{escape(move.number)}</EndToEndId></Refs></TxDtls></NtryDtls></Ntry>\n"
    )


def _yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02d}"
