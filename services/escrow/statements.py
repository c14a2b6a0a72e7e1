"""Reading a bank's daily statement (对账单) from a file, CSV or ISO 20022 camt.053: line by line, never all of it.

A file comes from outside: it is checked to the last field before anything is believed, and whatever is wrong is told
with its place. One file holds one day of one bank, all its supervised accounts together.

CSV: UTF-8 or GB18030, a heading, then `COLUMNS` in any order under their English or Chinese names. Times are
Shanghai's, amounts in yuan. The first row is the opening balance, the last one the closing balance (status `opening`,
`closing`).

camt.053: Document/BkToCstmrStmt/Stmt with the balances OPBD (or PRCD) and CLBD; each Ntry is a line, or each TxDtls of
one that gathers many. Our number is EndToEndId, else InstrId; the bank's is AcctSvcrRef; RvslInd marks a payment that
came back. The fields are those of version 001.08; older and newer ones that have them are read too.
"""

import codecs
import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import IO, Any, Final, Literal, NamedTuple
from uuid import UUID

from lxml import etree

from services.escrow.domain import purpose_of, settlement_of
from shared.money import MAX_FEN, parse_yuan
from shared.working_days import SHANGHAI

Form = Literal["csv", "camt053"]
Status = Literal["booked", "pending", "returned"]

GATHERED_KIND: Final = "gathered"
"""What a line's number stands for that is a settlement's: its `order_id` is the settlement then."""
MOST_LINES: Final = 5_000_000
"""Most lines of one statement [ours]."""
MOST_LINE_CHARACTERS: Final = 4_000
"""Longest line of a CSV file [ours]."""
MOST_ENTRY_BYTES: Final = 1024 * 1024
"""Most of an XML file that may pass without an entry coming to its end [ours]: what is held in memory."""
CHUNK_BYTES: Final = 64 * 1024

COLUMNS: Final[dict[str, str]] = {
    "booked_at": "记账时间",
    "number": "商户流水号",
    "reference": "银行流水号",
    "direction": "借贷标志",
    "amount": "金额",
    "counter_account": "对方账号",
    "status": "状态",
    "balance": "余额",
}
_DIRECTIONS: Final = {"credit": 1, "贷": 1, "debit": -1, "借": -1}
_STATUSES: Final[dict[str, Status]] = {
    "booked": "booked",
    "已记账": "booked",
    "pending": "pending",
    "处理中": "pending",
    "returned": "returned",
    "已退回": "returned",
}
_OPENING: Final = frozenset({"opening", "期初"})
_CLOSING: Final = frozenset({"closing", "期末"})
_CAMT: Final = re.compile(r"urn:iso:std:iso:20022:tech:xsd:camt\.053\.001\.\d\d")
_DECIMAL: Final = re.compile(r"([0-9]{1,13})(?:\.([0-9]{1,5}))?")


class BadStatement(Exception):
    """A file that is not a statement of that day. In: where (line, column), what stands there, what was expected."""


class Line(NamedTuple):
    """One movement at the bank. `fen` is signed: what came in is positive. The last three are what its number says."""

    line_no: int
    number: str
    reference: str
    fen: int
    booked_at: datetime
    status: Status
    order_id: UUID | None
    lesson_no: int | None
    kind: str | None


@dataclass(slots=True)
class Totals:
    """What the lines of a statement come to."""

    lines: int = 0
    in_fen: int = 0
    out_fen: int = 0
    opening_fen: int = 0
    closing_fen: int = 0

    def add(self, line: Line) -> None:
        """Counts a line; what is only pending has moved nothing."""
        self.lines += 1
        if line.status == "pending":
            return
        if line.fen > 0:
            self.in_fen += line.fen
        else:
            self.out_fen -= line.fen


def line_of(
    line_no: int, number: str, reference: str, fen: int, booked_at: datetime, status: Status, day: date, where: str
) -> Line:
    """A line, checked. Raises BadStatement; `where` is its place for people."""
    if line_no > MOST_LINES:
        raise BadStatement(f"{where}: more than {MOST_LINES} lines")
    for name, value in (("our number", number), ("bank's reference", reference)):
        if len(value) > 100 or not value.isprintable():
            raise BadStatement(f"{where}: {name} {value[:40]!r} is not at most 100 printable characters")
    if not reference:
        raise BadStatement(f"{where}: there is no reference of the bank, nothing can be matched without one")
    if not 0 < abs(fen) <= MAX_FEN:
        raise BadStatement(f"{where}: {fen} fen is no amount that moves")
    if booked_at.astimezone(SHANGHAI).date() != day:
        raise BadStatement(f"{where}: booked on {booked_at.astimezone(SHANGHAI):%Y-%m-%d}, expected {day}")
    purpose = purpose_of(number)
    if purpose is None:
        gathered = settlement_of(number)
        subject = (gathered[0], None, GATHERED_KIND) if gathered else (None, None, None)
        return Line(line_no, number, reference, fen, booked_at, status, *subject)
    return Line(line_no, number, reference, fen, booked_at, status, purpose.order_id, purpose.lesson_no, purpose.kind)


@dataclass(slots=True)
class StatementFile:
    """A file, looked at once before it is read: its hash, its form, its encoding."""

    path: Path
    day: date
    sha256: str
    size: int
    form: Form
    encoding: str
    totals: Totals = field(default_factory=Totals)
    """Complete when all lines were read."""
    told: Callable[[int], None] = lambda _: None
    """Told how many bytes were read so far."""

    @classmethod
    def open(cls, path: Path, day: date, form: Form | None = None) -> "StatementFile":
        """Raises BadStatement for an empty file, OSError where there is none."""
        digest, size, start = hashlib.sha256(), 0, b""
        decoder = codecs.getincrementaldecoder("utf-8")()
        encoding = "utf-8-sig"
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                start = start or chunk[:1000]
                digest.update(chunk)
                size += len(chunk)
                if encoding == "utf-8-sig":
                    encoding = _encoding(decoder, chunk)
        if not size:
            raise BadStatement("the file is empty")
        xml = start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<") or start[:2] in (b"\xff\xfe", b"\xfe\xff")
        return cls(path, day, digest.hexdigest(), size, form or ("camt053" if xml else "csv"), encoding)

    def lines(self) -> Iterator[Line]:
        """The lines in their order; `totals` grows with them. Raises BadStatement."""
        self.totals = Totals()
        with self.path.open("rb") as file:
            for line in self._csv(file) if self.form == "csv" else self._camt(file):
                self.totals.add(line)
                yield line
        self.told(self.size)

    # --- CSV --------------------------------------------------------------------------------------------------------

    def _csv(self, file: IO[bytes]) -> Iterator[Line]:
        text = io.TextIOWrapper(file, encoding=self.encoding, newline="")
        rows = csv.reader(_short_lines(text), strict=True)
        try:
            heading = next(rows, [])
            place = _columns(heading)
            stage, number = "opening", 0
            for row in rows:
                where = f"line {rows.line_num}"
                if not row:
                    continue
                if len(row) != len(heading):
                    raise BadStatement(f"{where}: {len(row)} columns, expected {len(heading)} as in the heading")
                value = {name: row[at].strip() for name, at in place.items()}
                status = value["status"]
                if stage == "closed":
                    raise BadStatement(f"{where}: a row after the closing balance")
                if status in _OPENING or status in _CLOSING:
                    if (stage == "opening") != (status in _OPENING):
                        raise BadStatement(f"{where}, column status: {status!r}, expected the opening balance first")
                    self._balance(value, where, opening=status in _OPENING)
                    stage = "lines" if stage == "opening" else "closed"
                    continue
                if stage == "opening":
                    raise BadStatement(f"{where}, column status: {status!r}, expected the opening balance first")
                number += 1
                if number % 1000 == 0:
                    self.told(file.tell())
                yield self._row(number, value, where)
            if stage != "closed":
                raise BadStatement("the file ends before the closing balance (a row with the status closing)")
        except UnicodeDecodeError as error:
            raise BadStatement(f"near line {rows.line_num + 1}: neither UTF-8 nor GB18030 ({error.reason})") from None
        except csv.Error as error:
            raise BadStatement(f"line {rows.line_num}: not CSV: {error}") from None

    def _row(self, number: int, value: dict[str, str], where: str) -> Line:
        sign = _DIRECTIONS.get(value["direction"])
        if sign is None:
            raise BadStatement(f"{where}, column direction: {value['direction']!r}, expected credit (贷) or debit (借)")
        status = _STATUSES.get(value["status"])
        if status is None:
            expected = "booked (已记账), pending (处理中), returned (已退回), closing (期末)"
            raise BadStatement(f"{where}, column status: {value['status']!r}, expected {expected}")
        fen = sign * _yuan(value["amount"], f"{where}, column amount")
        booked_at = _moment(value["booked_at"], f"{where}, column booked_at")
        return line_of(number, value["number"], value["reference"], fen, booked_at, status, self.day, where)

    def _balance(self, value: dict[str, str], where: str, *, opening: bool) -> None:
        day = _moment(value["booked_at"], f"{where}, column booked_at").astimezone(SHANGHAI).date()
        if day != self.day:
            raise BadStatement(f"{where}: a balance of {day}, expected {self.day}")
        text = value["balance"]
        sign = -1 if text.startswith("-") else 1
        fen = sign * _yuan(text.removeprefix("-"), f"{where}, column balance")
        if opening:
            self.totals.opening_fen = fen
        else:
            self.totals.closing_fen = fen

    # --- camt.053 ---------------------------------------------------------------------------------------------------

    def _camt(self, file: IO[bytes]) -> Iterator[Line]:
        # A file from outside: no entity is resolved, no DTD loaded, no address asked, and libxml2 keeps its limits.
        parser = etree.XMLPullParser(
            events=("start", "end"),
            tag=("{*}Document", "{*}Stmt", "{*}Bal", "{*}Ntry"),
            resolve_entities=False,
            load_dtd=False,
            no_network=True,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        entries = _Entries(self)
        try:
            read = done = 0
            while chunk := file.read(CHUNK_BYTES):
                parser.feed(chunk)
                read += len(chunk)
                self.told(read)
                for event, element in parser.read_events():
                    done = read
                    yield from entries.hear(event, element)
                if read - done > MOST_ENTRY_BYTES:
                    raise BadStatement(f"byte {done}: more than {MOST_ENTRY_BYTES} bytes without an entry (Ntry)")
            parser.close()
            for event, element in parser.read_events():
                yield from entries.hear(event, element)
        except etree.XMLSyntaxError as error:
            line, column = error.position
            raise BadStatement(f"line {line}, column {column}: not XML: {error.msg}") from None
        if not entries.statements:
            raise BadStatement("there is no statement (BkToCstmrStmt/Stmt) in the file")


class _Entries:
    """The entries of a camt.053 document, as the parser comes by them."""

    def __init__(self, file: StatementFile) -> None:
        self.file = file
        self.statements = 0
        self._space = ""
        self._number = 0
        self._balances: set[str] = set()
        self._details = ""

    def hear(self, event: str, element: Any) -> Iterator[Line]:
        """What an element says; one that was heard is forgotten."""
        if not self._space:
            self._begin(element)
        name = element.tag.rpartition("}")[2]
        if event == "start":
            if name == "Stmt":
                self._balances = set()
            return
        if name == "Bal":
            self._balance(element)
        elif name == "Stmt":
            if self._balances != {"opening", "closing"}:
                raise BadStatement(
                    f"{_line(element)}: a statement needs an opening (OPBD) and a closing (CLBD) balance"
                )
            self.statements += 1
        elif name == "Ntry":
            yield from self._entry(element)
        if name in ("Ntry", "Stmt"):
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]

    def _begin(self, root: Any) -> None:
        """The first element: it must be a camt.053 document, without a DTD."""
        info = root.getroottree().docinfo
        if info.internalDTD is not None or info.externalDTD is not None or info.doctype:
            raise BadStatement("the file has a document type (DOCTYPE); a statement has none")
        name = etree.QName(root)
        if name.localname != "Document" or not _CAMT.fullmatch(name.namespace or ""):
            raise BadStatement(f"{_line(root)}: {root.tag}, expected Document of camt.053")
        self._space = f"{{{name.namespace}}}"
        self._details = f"{self._space}NtryDtls/{self._space}TxDtls"

    def _parts(self, element: Any) -> dict[str, Any]:
        """The elements right below by name, of several the first. One pass; a path for each costs thrice as much."""
        parts: dict[str, Any] = {}
        start = len(self._space)
        for part in element:
            parts.setdefault(part.tag[start:], part)
        return parts

    def _balance(self, element: Any) -> None:
        parts = self._parts(element)
        kind = _text(self._parts(self._parts(parts["Tp"]).get("CdOrPrtry", ())).get("Cd")) if "Tp" in parts else ""
        which = {"OPBD": "opening", "PRCD": "opening", "CLBD": "closing"}.get(kind)
        if which is None or which in self._balances:
            return
        where = f"{_line(element)}, {kind}"
        fen = self._fen(parts, where) * self._sign(parts, where)
        day = self._moment(parts, where, "Dt").astimezone(SHANGHAI).date()
        if which == "closing" and day != self.file.day:
            raise BadStatement(f"{where}: a balance of {day}, expected {self.file.day}")
        self._balances.add(which)
        if which == "opening":
            self.file.totals.opening_fen += fen
        else:
            self.file.totals.closing_fen += fen

    def _entry(self, element: Any) -> Iterator[Line]:
        where = f"entry {self._number + 1} ({_line(element)})"
        parts = self._parts(element)
        whole = self._fen(parts, where)
        sign = self._sign(parts, where)
        booked_at = self._moment(parts, where, "BookgDt")
        said = parts.get("Sts")
        code = _text(self._parts(said).get("Cd")) or _text(said) if said is not None else ""
        if code not in ("BOOK", "PDNG", "INFO", "FUTR"):
            raise BadStatement(f"{where}, Sts: {code!r}, expected BOOK, PDNG, INFO or FUTR")
        status: Status = "booked" if code == "BOOK" else "pending"
        if status == "booked" and _text(parts.get("RvslInd")) in ("true", "1"):
            status = "returned"
        reference = _text(parts.get("AcctSvcrRef"))
        details = element.findall(self._details) if "NtryDtls" in parts else ()
        left = whole
        for one in details or (element,):
            self._number += 1
            own = parts if one is element else self._parts(one)
            fen = self._fen(own, where) if len(details) > 1 else whole
            left -= fen
            refs = self._parts(own["Refs"]) if "Refs" in own else {}
            number = _text(refs.get("EndToEndId"))
            if number in ("", "NOTPROVIDED"):
                number = _text(refs.get("InstrId"))
            theirs = _text(refs.get("AcctSvcrRef"))
            mine = theirs if len(details) > 1 else reference or theirs
            yield line_of(self._number, number, mine, sign * fen, booked_at, status, self.file.day, where)
        if left:
            raise BadStatement(f"{where}: its parts (TxDtls) differ from its amount by {abs(left)} fen")

    def _sign(self, parts: dict[str, Any], where: str) -> int:
        said = _text(parts.get("CdtDbtInd"))
        if said not in ("CRDT", "DBIT"):
            raise BadStatement(f"{where}, CdtDbtInd: {said!r}, expected CRDT or DBIT")
        return 1 if said == "CRDT" else -1

    def _fen(self, parts: dict[str, Any], where: str) -> int:
        amount = parts.get("Amt")
        currency = None if amount is None else amount.get("Ccy")
        if amount is None or currency != "CNY":
            raise BadStatement(f"{where}, Amt: {currency or 'none'}, expected an amount in CNY")
        found = _DECIMAL.fullmatch(_text(amount))
        decimals = (found.group(2) or "").ljust(2, "0") if found else ""
        if found is None or decimals[2:].strip("0"):
            raise BadStatement(f"{where}, Amt: {amount.text!r}, expected yuan and whole fen, like 1200.50")
        return int(found.group(1)) * 100 + int(decimals[:2])

    def _moment(self, parts: dict[str, Any], where: str, name: str) -> datetime:
        """A time; of a date alone its noon, which is not near any midnight."""
        said = self._parts(parts[name]) if name in parts else {}
        if moment := _text(said.get("DtTm")):
            return _moment(moment, f"{where}, {name}")
        day = _text(said.get("Dt"))
        try:
            return datetime.combine(date.fromisoformat(day[:10]), time(12), SHANGHAI).astimezone(UTC)
        except ValueError:
            raise BadStatement(f"{where}, {name}: {day!r}, expected a date") from None


def _text(element: Any) -> str:
    return (element.text or "").strip() if element is not None else ""


def _line(element: Any) -> str:
    return f"line {element.sourceline}"


def _encoding(decoder: codecs.IncrementalDecoder, chunk: bytes) -> str:
    try:
        decoder.decode(chunk)
    except UnicodeDecodeError:
        return "gb18030"
    return "utf-8-sig"


def _short_lines(text: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := text.readline(MOST_LINE_CHARACTERS + 1):
        number += 1
        if len(line) > MOST_LINE_CHARACTERS:
            raise BadStatement(f"line {number}: longer than {MOST_LINE_CHARACTERS} characters")
        yield line


def _columns(heading: list[str]) -> dict[str, int]:
    """Where each column stands. Others are let be."""
    names = {chinese: name for name, chinese in COLUMNS.items()}
    place: dict[str, int] = {}
    for at, title in enumerate(heading):
        name = names.get(title.strip(), title.strip().lower())
        if name in place:
            raise BadStatement(f"line 1, column {at + 1}: {title!r} stands there twice")
        if name in COLUMNS:
            place[name] = at
    missing = [f"{name} ({chinese})" for name, chinese in COLUMNS.items() if name not in place]
    if missing:
        raise BadStatement(f"line 1: the heading lacks {', '.join(missing)}")
    return place


def _yuan(text: str, where: str) -> int:
    try:
        return parse_yuan(text)
    except ValueError:
        raise BadStatement(f"{where}: {text[:40]!r}, expected yuan like 1,200.50") from None


def _moment(text: str, where: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=SHANGHAI)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadStatement(f"{where}: {text[:40]!r}, expected a time like 2026-11-23 12:00:00") from None
