"""Reading banks' statements: both forms, what is wrong in a file and where, and files that mean harm."""

import resource
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import pytest

from services.escrow import statements
from services.escrow.statements import BadStatement, Line, StatementFile
from shared.ids import instruction_number

DAY = date(2026, 11, 23)
ORDER = UUID(int=7)
NUMBER = instruction_number("P", ORDER, 3, 0)
NOON = datetime(2026, 11, 23, 4, tzinfo=UTC)
HEADING = "booked_at,number,reference,direction,amount,counter_account,status,balance"
CSV = f"""{HEADING}
2026-11-23 00:00:00,,,,,,opening,"1,000.00"
2026-11-23 12:00:00,{NUMBER},B1,debit,100.01,P-1,booked,899.99
2026-11-23T12:00:00+08:00,,B2,credit,0.01,,pending,899.99
2026-11-23 23:59:59,,,,,,closing,899.99
"""
CAMT = f"""<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><GrpHdr><MsgId>1</MsgId></GrpHdr>
<Stmt><Id>1</Id>
<Bal><Tp><CdOrPrtry><Cd>OPBD</Cd></CdOrPrtry></Tp>\
<Amt Ccy="CNY">1000</Amt><CdtDbtInd>CRDT</CdtDbtInd><Dt><Dt>2026-11-23</Dt></Dt></Bal>
<Bal><Tp><CdOrPrtry><Cd>CLBD</Cd></CdOrPrtry></Tp>\
<Amt Ccy="CNY">899.99</Amt><CdtDbtInd>CRDT</CdtDbtInd><Dt><Dt>2026-11-23</Dt></Dt></Bal>
<Ntry><Amt Ccy="CNY">100.01</Amt><CdtDbtInd>DBIT</CdtDbtInd><Sts><Cd>BOOK</Cd></Sts>\
<BookgDt><DtTm>2026-11-23T12:00:00+08:00</DtTm></BookgDt>
<AcctSvcrRef>B1</AcctSvcrRef><NtryDtls><TxDtls><Refs><EndToEndId>{NUMBER}</EndToEndId></Refs></TxDtls></NtryDtls></Ntry>
<Ntry><Amt Ccy="CNY">0.01</Amt><CdtDbtInd>CRDT</CdtDbtInd><Sts>PDNG</Sts><BookgDt><Dt>2026-11-23</Dt></BookgDt>
<AcctSvcrRef>B2</AcctSvcrRef><NtryDtls><TxDtls><Refs><EndToEndId>NOTPROVIDED</EndToEndId></Refs></TxDtls></NtryDtls></Ntry>
</Stmt></BkToCstmrStmt></Document>
"""
LINES = [
    Line(1, NUMBER, "B1", -10_001, NOON, "booked", ORDER, 3, "payout"),
    Line(2, "", "B2", 1, NOON, "pending", None, None, None),
]


def opened(folder: Path, content: str | bytes) -> StatementFile:
    path = folder / "statement"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return StatementFile.open(path, DAY)


@pytest.mark.parametrize("content", [CSV, "\ufeff" + CSV, CAMT, CSV.replace("\n", "\r\n")])
def test_both_forms_say_the_same(tmp_path: Path, content: str) -> None:
    file = opened(tmp_path, content)
    told: list[int] = []
    file.told = told.append
    assert list(file.lines()) == LINES
    totals = file.totals
    assert (totals.lines, totals.in_fen, totals.out_fen) == (2, 0, 10_001)
    assert (totals.opening_fen, totals.closing_fen) == (100_000, 89_999)
    assert told[-1] == file.size
    assert list(file.lines()) == LINES  # once more


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_csv_in_chinese_is_read_in_either_encoding(tmp_path: Path, encoding: str) -> None:
    titles = ",".join(statements.COLUMNS.values())
    words = {
        "debit": "借",
        "credit": "贷",
        "booked": "已记账",
        "pending": "处理中",
        "opening": "期初",
        "closing": "期末",
    }
    content = CSV.replace(HEADING, titles).replace("P-1", "对方账户一")
    for english, chinese in words.items():
        content = content.replace(f",{english},", f",{chinese},")
    file = opened(tmp_path, content.encode(encoding))
    assert list(file.lines()) == LINES
    assert file.encoding == ("gb18030" if encoding == "gb18030" else "utf-8-sig")


def test_columns_stand_in_any_order_and_others_are_let_be(tmp_path: Path) -> None:
    rows = [line.split(",") for line in CSV.replace('"1,000.00"', "1000").splitlines()]
    content = "\n".join(",".join(["note" if n == 0 else "", *reversed(row)]) for n, row in enumerate(rows))
    assert list(opened(tmp_path, content).lines()) == LINES


@pytest.mark.parametrize(
    ("wrong", "right", "place"),
    [
        ("100.01,P-1", "100.011,P-1", "line 3, column amount: '100.011'"),
        ("100.01,P-1", "-1,P-1", "line 3, column amount"),
        ("100.01,P-1", "0.00,P-1", "line 3: 0 fen"),
        ("debit", "D", "line 3, column direction: 'D', expected credit (贷) or debit (借)"),
        ("booked,899", "done,899", "line 3, column status: 'done'"),
        ("B1", "", "line 3: there is no reference"),
        ("2026-11-23 12", "2026-11-22 12", "line 3: booked on 2026-11-22, expected 2026-11-23"),
        ("2026-11-23 12:00:00", "noon", "line 3, column booked_at: 'noon'"),
        ("2026-11-23 12:00:00", "0001-01-01 00:00:00", "line 3, column booked_at"),
        ("B1", "B" * 101, "line 3: bank's reference"),
        ("B1", "B\x00", "line 3"),
        ("P-1,booked", "booked", "line 3: 7 columns, expected 8"),
        ("reference,direction", "ref,direction", "line 1: the heading lacks reference (银行流水号)"),
        ("number,reference", "number,number", "line 1, column 3: 'number' stands there twice"),
        ("opening", "booked", "line 2, column status: 'booked', expected the opening balance first"),
        ("2026-11-23 23:59:59,,,,,,closing,899.99\n", "", "the file ends before the closing balance"),
        ("closing,899.99", "closing,nothing", "line 5, column balance: 'nothing'"),
        ("2026-11-23 23:59:59", "2026-11-24 23:59:59", "line 5: a balance of 2026-11-24, expected 2026-11-23"),
        ("pending", "x" * 5000, "line 4: longer than 4000 characters"),
        ('"1,000.00"', '"1,000.00', "not CSV"),
    ],
)
def test_what_is_wrong_in_a_csv_is_told_with_its_place(tmp_path: Path, wrong: str, right: str, place: str) -> None:
    assert wrong in CSV
    with pytest.raises(BadStatement) as told:
        list(opened(tmp_path, CSV.replace(wrong, right)).lines())
    assert place in str(told.value)


@pytest.mark.parametrize(
    ("wrong", "right", "place"),
    [
        ("DBIT", "OUT", "entry 1 (line 6), CdtDbtInd: 'OUT'"),
        ('"CNY">100.01', '"USD">100.01', "entry 1 (line 6), Amt: USD, expected an amount in CNY"),
        ("100.01", "100.015", "entry 1 (line 6), Amt: '100.015'"),
        ("<Cd>BOOK</Cd>", "<Cd>X</Cd>", "Sts: 'X'"),
        ("2026-11-23T12", "2026-11-24T12", "entry 1 (line 6): booked on 2026-11-24"),
        ("<Dt>2026-11-23</Dt></BookgDt>", "<Dt>soon</Dt></BookgDt>", "entry 2 (line 8), BookgDt: 'soon'"),
        ("<AcctSvcrRef>B2</AcctSvcrRef>", "", "entry 2 (line 8): there is no reference"),
        ("CLBD", "CLAV", "needs an opening (OPBD) and a closing (CLBD) balance"),
        (
            "<Dt><Dt>2026-11-23</Dt></Dt></Bal>\n<Ntry",
            "<Dt><Dt>2026-11-22</Dt></Dt></Bal>\n<Ntry",
            "CLBD: a balance of",
        ),
        ("camt.053.001.08", "camt.052.001.08", "expected Document of camt.053"),
        ("</Stmt>", "</Statement>", "line 10, column"),
        ("</Document>", "", "not XML"),
    ],
)
def test_what_is_wrong_in_a_camt_file_is_told_with_its_place(
    tmp_path: Path, wrong: str, right: str, place: str
) -> None:
    assert wrong in CAMT
    with pytest.raises(BadStatement) as told:
        list(opened(tmp_path, CAMT.replace(wrong, right)).lines())
    assert place in str(told.value)


def test_an_empty_file_and_one_in_no_encoding_are_told(tmp_path: Path) -> None:
    with pytest.raises(BadStatement, match="empty"):
        opened(tmp_path, b"")
    with pytest.raises(BadStatement, match="neither UTF-8 nor GB18030"):
        list(opened(tmp_path, CSV.encode().replace(b"P-1", b"\xff\xff")).lines())


def test_parts_of_one_entry_are_lines_and_must_come_to_its_amount(tmp_path: Path) -> None:
    def part(reference: str, yuan: str) -> str:
        return f'<TxDtls><Refs><AcctSvcrRef>{reference}</AcctSvcrRef></Refs><Amt Ccy="CNY">{yuan}</Amt></TxDtls>'

    gathered = CAMT.replace(
        f"<TxDtls><Refs><EndToEndId>{NUMBER}</EndToEndId></Refs></TxDtls>", part("B11", "40") + part("B12", "60.01")
    )
    lines = list(opened(tmp_path, gathered).lines())
    assert [(line.reference, line.fen) for line in lines] == [("B11", -4000), ("B12", -6001), ("B2", 1)]
    with pytest.raises(BadStatement, match="differ from its amount by 1 fen"):
        list(opened(tmp_path, gathered.replace("60.01", "60.00")).lines())


def test_a_payment_that_came_back_is_marked(tmp_path: Path) -> None:
    content = CAMT.replace("<CdtDbtInd>DBIT</CdtDbtInd>", "<CdtDbtInd>CRDT</CdtDbtInd><RvslInd>true</RvslInd>")
    first = next(opened(tmp_path, content).lines())
    assert (first.status, first.fen) == ("returned", 10_001)


BOMB = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha" * 20}">' for n in range(12))


@pytest.mark.parametrize(
    "doctype",
    [
        f"<!DOCTYPE Document [{BOMB}]>",
        '<!DOCTYPE Document [<!ENTITY a11 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE Document SYSTEM "http://127.0.0.1:9/a.dtd">',
    ],
)
def test_a_file_with_entities_is_refused_before_they_are_looked_at(tmp_path: Path, doctype: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    content = CAMT.replace("?>\n", f"?>\n{doctype}\n", 1).replace("<AcctSvcrRef>B1<", "<AcctSvcrRef>&a11;<")
    if 'SYSTEM "http' in doctype:
        content = content.replace("&a11;", "B1")
    with pytest.raises(BadStatement, match=r"DOCTYPE|not XML"):
        list(opened(tmp_path, content).lines())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_an_entry_without_end_is_refused(tmp_path: Path) -> None:
    content = CAMT.replace("<AcctSvcrRef>B1", "<X/>" * 300_000 + "<AcctSvcrRef>B1")
    with pytest.raises(BadStatement, match="without an entry"):
        list(opened(tmp_path, content).lines())


@pytest.mark.parametrize("form", ["csv", "camt053"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: str) -> None:
    if form == "csv":
        head, line, tail = CSV.splitlines(True)[:2], CSV.splitlines(True)[2], CSV.splitlines(True)[4:]
    else:
        rows = CAMT.splitlines(True)
        head, line, tail = rows[:5], "".join(rows[5:7]), rows[9:]
    path = tmp_path / "long"
    with path.open("w") as file:
        file.writelines([*head, line * 60_000, *tail])
    statement = StatementFile.open(path, DAY)
    resource_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in statement.lines()) == 60_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resource_before < 16 * 1024
