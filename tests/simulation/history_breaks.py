"""The banks' statements: right and wrong, once more and corrected; and what operators make of the breaks."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from shared.actors import Actor
from shared.contracts.escrow import ListBreaks, ProposeBreak, ResolveBreak
from shared.ids import derived_id
from tests.simulation import statements
from tests.simulation.model import DAY, SHANGHAI
from tests.simulation.model_breaks import OPERATORS, Key, Line, Statement
from tests.simulation.people import AUTHORITY
from tests.simulation.rules import Rules

LI, WANG = (Actor(name, "operator") for name in OPERATORS)
HOW: Final = (
    *("a line dropped", "another amount", "the other way", "a line doubled", "nothing we know", "a fee near midnight"),
    *("another reference", "pending", "another status", "a line of another day", "goes on from there"),
    *("closes otherwise", "more held"),
)
"""How a bank's file may be wrong; its sums fit, but for the last two. One that goes on from there opens where the day
before has closed, as wrong as that was."""
ALTERATIONS: Final = st.lists(st.tuples(st.sampled_from(HOW), st.integers(0, 7)), min_size=1, max_size=3)
FILES: Final = ("wrong", "wrong", "again", "again", "right", "crosses midnight", "crosses midnight and is lost")
SAYINGS: Final = (
    *("propose", "propose", "resolve", "resolve", "resolve oneself", "the same again", "list", "list by pages"),
    *("days pass", "days pass", "propose none", "resolve none"),
    *("somebody else proposes", "somebody else resolves", "somebody else lists"),
)
BEGINNINGS: Final = ((), ("propose",), ("propose", "resolve oneself"), ("propose", "resolve"), ("propose", "resolve"))
"""With what begins what is said about one break."""
THEN: Final = st.tuples(
    st.sampled_from(FILES),
    st.integers(0, 30),
    ALTERATIONS,
    st.sampled_from(BEGINNINGS),
    st.lists(st.sampled_from(SAYINGS), max_size=4),
)
Alterations = Sequence[tuple[str, int]]
Then = tuple[str, int, Alterations, Sequence[str], Sequence[str]]


class BreakRules(Rules):
    """Reconciliation, when all else has come to rest."""

    def __init__(self) -> None:
        super().__init__()
        self.files_at_first: list[Alterations] = []
        self.files_then: list[Then] = []
        self.moved: dict[str, list[Line]] = {}

    @initialize(
        at_first=st.lists(st.one_of(st.just([]), ALTERATIONS), max_size=4),
        then=st.lists(THEN, min_size=1, max_size=3),
    )
    def statements_may_be_wrong(self, at_first: list[Alterations], then: list[Then]) -> None:
        """How the first statements are wrong, and what happens once there is one of each day."""
        self.files_at_first = at_first
        self.files_then = then

    def banks_send_statements(self) -> None:
        """At the end: of every day on which money moved. In the end each is right, and no break is left."""
        model = self.agreement.escrow.breaks
        model.ours = self.moved = self.run(statements.moves(self.simulation))
        days = sorted({(bank, _day(line.at)) for bank, lines in self.moved.items() for line in lines})
        for number, (bank, day) in enumerate(days):
            self._load(bank, day, self.files_at_first[number] if number < len(self.files_at_first) else ())
        self.run(self.agreement.check())
        for what, which, how, first, more in self.files_then if days else ():
            self._file(what, which, how)
            self.run(self.agreement.check())
            self._discuss(which, (*first, *more))
        wrong = [of for of, one in model.statements.items() if one != model.right(*of)]
        for bank, day in wrong[:: -1 if len(self.files_then) % 2 else 1]:
            self._load(bank, day)
        self.run(self._deadlines_pass())

    async def _deadlines_pass(self) -> None:
        """Those of breaks that there are no more."""
        await self.simulation.settle()
        for due in (await self.simulation.next_due())[-1:]:
            await self.simulation.set_clock(max(self.simulation.now, due))
        await self.simulation.settle()
        await self.agreement.check()

    # --- files ------------------------------------------------------------------------------------------------------

    def _file(self, what: str, which: int, how: Alterations) -> None:
        model = self.agreement.escrow.breaks
        known = sorted(model.statements)
        wrong = [of for of in known if model.statements[of] != model.right(*of)]
        of = (wrong or known) if what in ("again", "right") else known
        bank, day = of[which % len(of)]
        match what:
            case "wrong":
                self._load(bank, day, how)
            case "right":
                self._load(bank, day)
            case "again":
                self._load_statement(bank, day, model.statements[bank, day])
            case _:
                self._cross(bank, day, which, is_lost="lost" in what)
        self.simulation.counts[f"statements: {what}"] += 1

    def _cross(self, bank: str, day: date, which: int, *, is_lost: bool) -> None:
        """A line stands on the statement of the day after or before; the earlier of the two comes first, or last.
        `is_lost`: then that other day has another statement, without it."""
        right = self.agreement.escrow.breaks.right
        lines = right(bank, day).lines
        if not lines:
            return
        forward, late = which % 2 == 0, which % 3 == 0
        other = day + DAY if forward else day - DAY
        line = lines[which % len(lines)]
        there = replace(line, at=_at(other, time(0, 0, 10) if forward else time(23, 59, 50)))
        here = tuple(one for one in lines if one is not line)
        beside = right(bank, other).lines
        found = {day: here, other: (there, *beside) if forward else (*beside, there)}
        opening = right(bank, min(day, other)).opening
        new = {}
        for one in sorted(found):
            new[one] = _adds_up(opening, found[one])
            opening = new[one].closing
        for one in sorted(new, reverse=late):
            self._load_statement(bank, one, new[one])
        if is_lost:
            self._load(bank, other, [("goes on from there", 0)])

    def _load(self, bank: str, day: date, how: Alterations = ()) -> None:
        """The statement of a day, altered `how`."""
        right = self.agreement.escrow.breaks.right(bank, day)
        self._load_statement(bank, day, self._altered(bank, day, right, how))

    def _load_statement(self, bank: str, day: date, statement: Statement) -> None:
        """It is read; once more, and the model says that nothing changes: then nothing does that is stored anywhere."""
        model = self.agreement.escrow.breaks
        again = model.statements.get((bank, day)) == statement
        before = self.run(self._stored()) if again else []
        wrong = None if statement == model.right(bank, day) else statement
        self.run(statements.load(self.simulation, bank, day, wrong))
        changes = model.load(bank, day, statement, self.simulation.now)
        if again:
            after = self.run(self._stored())
            assert changes or after == before, f"again, and not the same: {before} {after}"
            what = "another break" if changes else "nothing"
            self.simulation.counts[f"statements read once more, and {what} is found"] += 1
        self.agreement.written("escrow")

    async def _stored(self) -> list[list[str]]:
        tables = "breaks", "statements", "statement_lines", "timers", "outbox"
        return [
            sorted(str(dict(row)) for row in await self.simulation.rows("escrow", f"SELECT * FROM {table}"))
            for table in tables
        ]

    def _altered(self, bank: str, day: date, right: Statement, how: Alterations) -> Statement:
        lines, more_at_first, more_at_last = list(right.lines), 0, 0
        others = [line for line in self.moved[bank] if _day(line.at) != day]
        others.sort(key=lambda line: abs(_day(line.at) - day))
        for number, (what, which) in enumerate(how):
            at = which % len(lines) if lines else -1
            unknown = Line(f"B{derived_id(str(day), which).hex}", "", -200 if which % 2 else 300, _at(day, time(12)))
            match what:
                case "nothing we know":
                    lines.append(unknown)
                case "a fee near midnight":
                    lines.append(replace(unknown, at=_at(day, time(22 if which % 2 else 23))))
                case "a line of another day":
                    lines += [replace(other, at=_at(day, time(12, number))) for other in others[which % 3 :][:1]]
                case "goes on from there":
                    before = self.agreement.escrow.breaks.statements.get((bank, day - DAY))
                    more = before.closing - right.opening if before else 0
                    more_at_first, more_at_last = more_at_first + more, more_at_last + more
                case "closes otherwise":
                    more_at_last += 1
                case "more held":
                    more_at_first, more_at_last = more_at_first + 100, more_at_last + 100
                case _ if lines:
                    lines[at : at + 1] = _line_altered(lines[at], what, which)
            self.simulation.counts[f"statements with {what}"] += 1
        altered = _adds_up(right.opening, lines)
        return Statement(altered.opening + more_at_first, altered.lines, altered.closing + more_at_last)

    # --- people -----------------------------------------------------------------------------------------------------

    def _discuss(self, which: int, sayings: Sequence[str]) -> None:
        """One break, which may be resolved, or not be there any more."""
        breaks = self.agreement.escrow.breaks
        keys = sorted(breaks.unresolved()) or sorted(breaks.breaks)
        key = keys[which % len(keys)] if keys else None
        for number, what in enumerate(sayings):
            self._say(what, which + number, key)
            self.simulation.counts[f"of breaks: {what}"] += 1
            self.run(self.simulation.settle())
            self.run(self.agreement.check())

    def _say(self, what: str, which: int, key: Key | None) -> None:
        one, another = (LI, WANG) if which % 2 else (WANG, LI)
        if key and self.agreement.escrow.breaks.breaks[key].proposed_by == another.subject:
            one, another = another, one  # now one has proposed it, if anybody has
        strangers = self.people.guardians[0], self.people.institution_actor, AUTHORITY
        match what:
            case "propose":
                self._propose(key, (LI, WANG)[which % 2])
            case "resolve":
                self._resolve(key, another)
            case "resolve oneself":
                self._resolve(key, one)
            case "the same again":
                message_id, (request, actor) = list(self.asked.items())[-1]
                if isinstance(request, ProposeBreak | ResolveBreak):
                    self.ask(request, actor, message_id)
            case "list" | "list by pages":
                self._list_breaks(key, (LI, WANG, AUTHORITY)[which % 3], by_pages=what == "list by pages")
            case "days pass":
                self.run(self.simulation.set_clock(self.simulation.now + timedelta(days=1 + which % 7)))
            case "propose none":
                self._propose(None, one)
            case "resolve none":
                self._resolve(None, one)
            case "somebody else proposes":
                self._propose(key, strangers[which % 3])
            case "somebody else resolves":
                self._resolve(key, strangers[which % 3])
            case "somebody else lists":
                self.ask(ListBreaks(), strangers[which % 2])

    def _id(self, key: Key | None) -> UUID:
        ids = {of: id_ for id_, of in self.agreement.escrow.breaks.ids.items()}
        return UUID(ids[key]) if key else derived_id("no break")

    def _propose(self, key: Key | None, actor: Actor) -> None:
        self.ask(ProposeBreak(break_id=self._id(key), reason=f"{actor.subject}：银行已更正"), actor)

    def _resolve(self, key: Key | None, actor: Actor) -> None:
        self.ask(ResolveBreak(break_id=self._id(key)), actor)

    def _list_breaks(self, key: Key | None, actor: Actor, *, by_pages: bool) -> None:
        if by_pages:
            for after in (None, *([self._id(key)] if key else [])):
                self.ask(ListBreaks(after=after, limit=1), actor)
            return
        self.ask(ListBreaks(), actor)
        if key:
            self.ask(ListBreaks(bank=key.bank, day=key.day), actor)


def _line_altered(line: Line, what: str, which: int) -> list[Line]:
    match what:
        case "another amount":
            more = which % 2 or abs(line.fen) == 1  # none is of nothing
            return [replace(line, fen=line.fen + (1 if (line.fen > 0) == more else -1))]
        case "the other way":
            return [replace(line, fen=-line.fen)]
        case "a line doubled":
            return [line, line]
        case "another reference":
            return [replace(line, reference=f"B{derived_id(line.reference).hex}")]
        case "pending":
            return [replace(line, status="pending")]
        case "another status":
            return [replace(line, status="booked" if line.status == "returned" else "returned")]
        case _:
            assert what == "a line dropped"
            return []


def _adds_up(opening: int, lines: Sequence[Line]) -> Statement:
    """Of these lines; what is only pending does not count."""
    return Statement(opening, tuple(lines), opening + sum(line.fen for line in lines if line.status != "pending"))


def _day(moment: datetime) -> date:
    return moment.astimezone(SHANGHAI).date()


def _at(day: date, clock: time) -> datetime:
    return datetime.combine(day, clock, SHANGHAI)
