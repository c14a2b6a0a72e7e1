"""The supervising banks (监管银行): with each there is a contract of its own, a form of statement, a cut-off, accounts.

Data, as `policy.py` is: which banks supervise, under which contract, is the city's list [local]. The rows below are
examples [ours]: codes of real banks, invented contracts. An institution chooses one of them in what it discloses.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from types import MappingProxyType
from typing import Final, Literal

from shared.contracts.errors import FieldError, Refused
from shared.working_days import SHANGHAI, is_working_day, shanghai

StatementForm = Literal["csv", "camt053"]

CUT_OFF: Final = time(16, 30)
"""Where a bank's own is not known, and of one that is not on the list any more while orders still have money there
[ours]."""


@dataclass(frozen=True, slots=True)
class Bank:
    """One bank that supervises: its contract (监管协议), statement (对账单), cut-off (日终截止), form of accounts."""

    code: str
    name: str
    contract_no: str
    contract_from: date
    statement_form: StatementForm
    cut_off: time = CUT_OFF
    """Shanghai time. Until then a day's gathered payouts are taken [local]."""
    account_form: str = r"[0-9A-Za-z][0-9A-Za-z -]{1,33}"
    """What its account numbers look like: at most 34 characters, as an IBAN's [ours]."""


BANKS: Final = MappingProxyType(
    {
        bank.code: bank
        for bank in (
            Bank("icbc", "中国工商银行", "CZ-JG-2023-001", date(2023, 4, 19), "camt053"),
            Bank("abc", "中国农业银行", "CZ-JG-2023-002", date(2023, 4, 19), "csv", time(16, 0)),
            Bank("boc", "中国银行", "CZ-JG-2023-003", date(2023, 4, 19), "camt053", time(17, 0)),
            Bank("ccb", "中国建设银行", "CZ-JG-2023-004", date(2023, 4, 19), "csv"),
            Bank("jiangnan", "江南农村商业银行", "CZ-JG-2023-005", date(2023, 4, 19), "csv", time(15, 30)),
        )
    }
)

WEEKLY_ON: Final = 4
"""Weekly settlement: on Friday [ours]."""
LONGEST_REST_DAYS: Final = 14
"""No holiday with the days around it is longer: a Friday moved behind one is found by looking back so far [ours]."""


def check_account(bank: str, **accounts: str) -> None:
    """Nothing if `bank` supervises and each of `accounts` (field → number) looks like one of its accounts.

    Raises Refused: bank_unknown, bank_account_invalid (names every field).
    """
    known = BANKS.get(bank)
    if known is None:
        raise Refused("bank_unknown", f"已签约的监管银行：{'、'.join(one.name for one in BANKS.values())}", bank=bank)
    form = re.compile(known.account_form)
    wrong = [name for name, number in accounts.items() if not form.fullmatch(number)]
    if wrong:
        message = f"不是{known.name}的账号"
        faults = [FieldError(field=name, message=message, code="bank_account_invalid") for name in wrong]
        raise Refused("bank_account_invalid", message, errors=faults)


def next_cut_off(bank: str, mode: Literal["daily", "weekly"], now: datetime) -> datetime:
    """The bank's first cut-off after `now` at which gathered payouts go out, in UTC.

    Each day, or each Friday [ours]; a day that is no working day moves to the next that is one [ours, as 民法典 203].
    """
    known = BANKS.get(bank)
    cut_off = known.cut_off if known else CUT_OFF
    today = shanghai(now).date()
    day = today - timedelta(days=LONGEST_REST_DAYS) if mode == "weekly" else today
    while True:
        if mode == "daily" or day.weekday() == WEEKLY_ON:
            moved = _working_day_from(day)
            due = datetime.combine(moved, cut_off, SHANGHAI).astimezone(UTC)
            if due > now:
                return due
        day += timedelta(days=1)


def _working_day_from(day: date) -> date:
    while not is_working_day(day):
        day += timedelta(days=1)
    return day
