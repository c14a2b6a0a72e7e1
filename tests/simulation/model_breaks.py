"""The model of reconciliation: which breaks a bank's statements have, and what people make of these; see `model.py`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Final, NamedTuple

from tests.simulation.model import DAY, SHANGHAI, end_of_working_day
from tests.simulation.model_days import is_working_day
from tests.simulation.model_payments import Books
from tests.simulation.simulation import Heard

OPERATORS: Final = ("li", "wang")
RESOLVE_WORKING_DAYS: Final = 3
REMIND_WORKING_DAYS: Final = 1
NEAR_MIDNIGHT: Final = timedelta(hours=2)
UNRESOLVED: Final = ("open", "proposed")
OF_ONE_PAYMENT: Final = ("C", "P", "R", "S")
"""With what a number begins that was given to one payment; a sum of several is looked up in another way."""
BREAK_TIMER: Final = "escrow.break.deadline.v1"
RECONCILED: Final = "escrow.reconciled.v1"
OVERDUE: Final = "escrow.breaks_overdue.v1"


@dataclass(frozen=True)
class Line:
    """One movement as a bank tells it, or as the books have it. What came in is positive."""

    reference: str
    number: str
    fen: int
    at: datetime
    status: str = "booked"
    account: str = field(default="", compare=False)
    """The other side's, with which nothing is compared."""


@dataclass(frozen=True)
class Statement:
    """A bank's statement of one day."""

    opening: int
    lines: tuple[Line, ...]
    closing: int


Difference = tuple[str, str, str, int, int]
"""Type, our number, the bank's reference, what we have and what they have."""


class Key(NamedTuple):
    """What differs: of one difference there is one break, however often it is found."""

    bank: str
    day: date
    type: str
    number: str
    reference: str
    ours: int
    theirs: int


@dataclass
class Break:
    """One difference, and what was said about it."""

    first_seen: datetime
    state: str = "open"
    reason: str = ""
    proposed_by: str = ""
    resolved_by: str = ""


class Breaks:
    """Statements by bank and day, and the breaks between them and what the books have of each bank."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.ours: dict[str, list[Line]] = {}
        """Bank → what it moved, oldest first: at rest the bank's own book and escrow's have the same."""
        self.statements: dict[tuple[str, date], Statement] = {}
        self.held: dict[tuple[str, date], int] = {}
        """What the bank should hold at the end of a day, as it was reckoned last."""
        self.breaks: dict[Key, Break] = {}
        self.ids: dict[str, Key] = {}
        """Id → break, as escrow names them."""

    def right(self, bank: str, day: date) -> Statement:
        """The statement of a day on which nothing differs."""
        begins, ends = _bounds(day)
        opening = sum(one.fen for one in self.ours[bank] if one.at < begins)
        lines = tuple(one for one in self.ours[bank] if begins <= one.at < ends)
        return Statement(opening, lines, opening + sum(one.fen for one in lines))

    def unresolved(self, bank: str = "", day: date | None = None) -> dict[Key, Break]:
        """Of one bank or all, of one day or all."""
        left = {key: one for key, one in self.breaks.items() if one.state in UNRESOLVED}
        return {key: one for key, one in left.items() if bank in ("", key.bank) and day in (None, key.day)}

    # --- a statement comes ------------------------------------------------------------------------------------------

    def load(self, bank: str, day: date, statement: Statement, now: datetime) -> bool:
        """It stands for its day from now on; whether that changes anything. The day after is looked at, too; the one
        before where something differs, or if lines that it may have had go with the statement that was there."""
        known = self.statements.get((bank, day))
        new = known != statement
        replaces = known is not None and new
        self.books.counts["statements replaced"] += replaces
        self.statements[bank, day] = statement
        before, after = day - DAY, day + DAY
        changed: dict[date, bool] = {}
        if replaces or any(key[:2] == (bank, before) and one.state != "closed" for key, one in self.breaks.items()):
            changed[before] = self._compare(bank, before, now)
        changed[day] = self._compare(bank, day, now) or new
        changed[after] = self._compare(bank, after, now)
        for one in (one for one, otherwise in changed.items() if otherwise):
            self.books.said[RECONCILED, bank] += 1
            left = self.unresolved(bank, one)
            if left:
                due = end_of_working_day(min(it.first_seen for it in left.values()), RESOLVE_WORKING_DAYS)
                due = due if now < due else end_of_working_day(now, REMIND_WORKING_DAYS)
                self.books.timers[BREAK_TIMER, f"{bank}:{one}"] = due
        return any(changed.values())

    def _compare(self, bank: str, day: date, now: datetime) -> bool:
        """Whether any break of the day is there, or stands, otherwise than before."""
        if (bank, day) not in self.statements:
            return False
        found = {Key(bank, day, *what) for what in self._differences(bank, day)}
        before = {key: one.state for key, one in self.breaks.items()}
        for key in found:
            one = self.breaks.setdefault(key, Break(now))
            if one.state == "closed":
                one.state, one.reason = "open", ""
                self.books.counts["breaks opened again"] += 1
        for key in self.unresolved(bank, day).keys() - found:
            one = self.breaks[key]
            self.books.counts[f"breaks closed by themselves: {key.type}, {one.state}"] += 1
            one.state, one.proposed_by = "closed", ""
        for key in found - before.keys():
            name = f"{key.type} {key.number}" if key.type == "balance" else key.type
            self.books.counts[f"breaks: {name}"] += 1
        return before != {key: one.state for key, one in self.breaks.items()}

    def _differences(self, bank: str, day: date) -> list[Difference]:
        statement, before, after = (self.statements.get((bank, day + beside)) for beside in (DAY * 0, -DAY, DAY))
        assert statement is not None
        begins, ends = _bounds(day)
        ours = {_name(one): one for one in self.ours[bank] if begins - DAY <= one.at < ends + DAY}
        found = list(_wrong_lines(statement, ours, {line.reference for line in _moved(before)}, after, ends))
        on_paper = {_name(line) for one in (before, statement, after) if one for line in one.lines}
        for name, one in ours.items():
            if begins <= one.at < ends and name not in on_paper:
                may_come = after is None and one.at >= ends - NEAR_MIDNIGHT
                may_have_come = before is None and one.at < begins + NEAR_MIDNIGHT
                found.append(
                    ("late" if may_come or may_have_come else "missing_there", one.number, name[0], one.fen, 0)
                )
        lines = statement.opening + sum(line.fen for line in _moved(statement))
        if lines != statement.closing:
            found.append(("balance", "lines", "", lines, statement.closing))
        if before and before.closing != statement.opening:
            found.append(("balance", "opening", "", before.closing, statement.opening))
        # What has crossed midnight is held already, or not yet; what stands on both days is, since the first.
        held = sum(one.fen for one in self.ours[bank] if one.at < ends)
        held += sum(line.fen for line in _moved(statement) if _name(line) in ours and ours[_name(line)].at >= ends)
        not_yet = {_name(line) for line in _moved(after)} - {_name(line) for line in _moved(statement)}
        held -= sum(ours[name].fen for name in not_yet & ours.keys() if begins <= ours[name].at < ends)
        self.held[bank, day] = held
        if not found and self._is_held_elsewhere(bank, day, statement.closing - held):
            found.append(("balance", "custody", "", held, statement.closing))
        return found

    def _is_held_elsewhere(self, bank: str, day: date, differs: int) -> bool:
        """Whether the bank holds so much more than it should, and no earlier day has said so in any way."""
        unresolved = any(key.day < day for key in self.unresolved(bank))
        earlier = [one for of, one in self.statements if of == bank and one < day]
        last = max(earlier) if earlier else None
        known = self.statements[bank, last].closing - self.held[bank, last] if last else 0
        return differs != 0 and not unresolved and differs != known

    # --- people and timers ------------------------------------------------------------------------------------------

    def hear(self, m: Heard) -> str:
        """A request about breaks, or a deadline; the answer in words, or the code of a refusal."""
        if m.type == BREAK_TIMER:
            self._passes(m, m.data["bank"], date.fromisoformat(m.data["day"]))
            return ""
        if m.type == "escrow.break.list.v1":
            return self._list(m)
        if m.actor not in OPERATORS:
            return "!actor_forbidden"
        key = self.ids.get(m.data["break_id"])
        if key is None:
            return "!break_unknown"
        one = self.breaks[key]
        if m.type == "escrow.break.propose.v1":
            if one.state not in UNRESOLVED:
                return "!break_state"
            one.state, one.reason, one.proposed_by = "proposed", m.data["reason"], m.actor
        else:
            if one.state != "proposed":
                return "!break_state"
            if one.proposed_by == m.actor:
                return "!break_second_person"
            one.state, one.resolved_by = "resolved", m.actor
            self.books.counts[f"breaks resolved: {key.type}"] += 1
        return self._told(m.data["break_id"], m.now)

    def _list(self, m: Heard) -> str:
        if m.actor not in (*OPERATORS, self.books.banks.authority):
            return "!actor_forbidden"
        asked = m.data["day"]
        keys = self.unresolved(m.data["bank"], date.fromisoformat(asked) if asked else None)
        ids = sorted((self.breaks[key].first_seen, id_) for id_, key in self.ids.items() if key in keys)
        if after := m.data["after"]:
            ids = [one for one in ids if one > (self.breaks[self.ids[after]].first_seen, after)]
        page = [id_ for _, id_ in ids[: m.data["limit"]]]
        more = page[-1] if len(page) < len(ids) else None
        self.books.counts["lists with breaks"] += bool(page)
        return f"{[self._told(id_, m.now) for id_ in page]} {more}"

    def _told(self, id_: str, now: datetime) -> str:
        key, one = self.ids[id_], self.breaks[self.ids[id_]]
        overdue = one.state in UNRESOLVED and end_of_working_day(one.first_seen, RESOLVE_WORKING_DAYS) <= now
        self.books.counts["breaks shown as overdue"] += overdue
        said = one.state, one.reason, one.proposed_by, one.resolved_by
        return _words(key, said, _working_days(one.first_seen, now), overdue)

    def _passes(self, m: Heard, bank: str, day: date) -> None:
        left = self.unresolved(bank, day)
        if left:
            first = min(one.first_seen for one in left.values())
            is_overdue = end_of_working_day(first, RESOLVE_WORKING_DAYS) <= m.now
            self.books.said[OVERDUE, bank] += is_overdue
            self.books.counts["alarms of breaks"] += is_overdue
            self.books.timers[BREAK_TIMER, f"{bank}:{day}"] = end_of_working_day(m.now, REMIND_WORKING_DAYS)


def _wrong_lines(
    statement: Statement, ours: dict[tuple[str, str], Line], told: set[str], after: Statement | None, ends: datetime
) -> Iterator[Difference]:
    """What is wrong with each line; `told` are the references of the day before. A bank need not mark what came back: a
    credit under the number of a payment says so, too."""
    for line in statement.lines:
        one = ours.get(_name(line))
        what = ""
        if line.status == "pending":
            if one is not None:
                yield "status", line.number, line.reference, one.fen, 0
            continue
        if line.reference in told:
            what, one = "duplicate", None
        elif one is None:
            what = "status" if line.number[:1] in OF_ONE_PAYMENT else "missing_here"
            what = "late" if after is None and line.at >= ends - NEAR_MIDNIGHT else what
        elif line.fen != one.fen:
            what = "amount"
        elif line.status == "returned" and one.status != "returned":
            what = "status"
        if what:
            yield what, line.number, line.reference, one.fen if one else 0, line.fen
        told.add(line.reference)


def _name(line: Line) -> tuple[str, str]:
    """By what a line is found."""
    return line.reference, line.number


def _moved(statement: Statement | None) -> Iterator[Line]:
    """Its lines, less what is only pending."""
    return (line for line in (statement.lines if statement else ()) if line.status != "pending")


def _bounds(day: date) -> tuple[datetime, datetime]:
    begins = datetime.combine(day, time(), SHANGHAI)
    return begins, begins + DAY


def _working_days(first: datetime, now: datetime) -> int:
    """How many have begun since the day of `first`."""
    day, last = first.astimezone(SHANGHAI).date(), now.astimezone(SHANGHAI).date()
    return sum(is_working_day(day + DAY * number) for number in range(1, (last - day).days + 1))


def _words(key: Key, said: tuple[str, ...], age: int, overdue: bool) -> str:
    return f"{key.bank} {key.day} {key[2:]} {said} {age} {overdue}"


def in_words(type_: str, data: dict[str, Any]) -> str:
    """An answer about breaks, as the model gives it."""
    if type_ == "escrow.break.view.v1":
        return _told(data["found"])
    return f"{[_told(one) for one in data['breaks']]} {data['next_after']}"


def _told(one: dict[str, Any]) -> str:
    differs = one["type"], one["number"], one["reference"], one["ours_fen"], one["theirs_fen"]
    said = one["state"], one["reason"], one["proposed_by"], one["resolved_by"]
    key = Key(one["bank"], date.fromisoformat(one["day"]), *differs)
    return _words(key, said, one["age_working_days"], one["overdue"])
