"""What `make faults` has found: the matrix fault x invariant, for a person, for a program, and for docs/faults.md."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.faults.strike import Outcome

INVARIANTS: Final = tuple(f"I{number}" for number in range(1, 12))
PLACES_SHOWN: Final = 3
BEGIN: Final = "<!-- written by make faults: -->"
END: Final = "<!-- end -->"


def as_json(outcomes: Sequence[Outcome]) -> str:
    """All of it."""
    return json.dumps([asdict(one) for one in outcomes], indent=2, ensure_ascii=False)


def summary(outcomes: Sequence[Outcome]) -> str:
    """The last line."""
    looked_at = {invariant for one in outcomes for invariant in one.violations}
    struck = [one for one in outcomes if not one.skipped]
    skipped = [one.fault for one in outcomes if one.skipped]
    line = f"faults: {len(struck)} faults, {len(looked_at)} invariants, {sum(o.all_wrong for o in outcomes)} violations"
    return line + (f" (skipped: {', '.join(skipped)})" if skipped else "")


def show(console: Console, outcomes: Sequence[Outcome]) -> None:
    """The matrix, and each place that is wrong."""
    table = Table(title="Faults under load: places that are wrong", title_justify="left")
    for heading in ("", "fault", *INVARIANTS, *_COUNTS):
        table.add_column(heading, justify="left" if heading == "fault" else "right", no_wrap=heading == "fault")
    for one in outcomes:
        table.add_row(*_cells(one))
    console.print(table)
    for one in outcomes:
        again = f"make faults ONE={one.fault} SEED={one.seed}"
        if one.skipped or one.failed:
            console.print(f"{one.fault}: {one.skipped or one.failed}" + (f" ({again})" if one.failed else ""))
        for invariant, checks in one.violations.items():
            for check, places in checks.items():
                for place in places[:PLACES_SHOWN]:
                    console.print(f"{one.fault} {invariant}, {check}: {place} ({again})")


_COUNTS: Final = ("blows", "restarts", "messages", "orders", "lessons", "s", "quiet, s", "all, s")


def _cells(one: Outcome) -> list[str]:
    if one.skipped:
        return [str(one.number), one.fault, *("skipped" for _ in INVARIANTS), *("" for _ in _COUNTS)]
    wrong = (one.wrong(invariant) for invariant in INVARIANTS)
    counts = (one.blows, one.restarts, one.messages, one.purchases, one.lessons)
    took = (one.took.get("strike", 0.0), one.took.get("quiet", 0.0), sum(one.took.values()))
    times = (f"{took[0]:.0f}", f"{took[1]:.1f}", f"{took[2]:.0f}")
    return [
        str(one.number),
        one.fault,
        *("-" if places is None else str(places) for places in wrong),
        *(f"{count:,}".replace(",", " ") for count in counts),
        *times,
    ]


def write_page(page: Path, outcomes: Sequence[Outcome], today: date, machine: str) -> None:
    """Puts the matrix of this run where the page has its marks; all else on the page is left."""
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    page.write_text(f"{before}{BEGIN}\n\n{_page(outcomes, today, machine)}\n{END}{after}", encoding="utf-8")


def _page(outcomes: Sequence[Outcome], today: date, machine: str) -> str:
    lines = [f"One run, {machine}, {today}:", ""]
    headings = ("#", "fault", *INVARIANTS, *_COUNTS)
    lines += [f"| {' | '.join(headings)} |", f"| --- | --- |{' ---: |' * (len(headings) - 2)}"]
    lines += [f"| {' | '.join(_cells(one))} |" for one in outcomes]
    lines += ["", f"`{summary(outcomes)}`", "", "| fault | what is done |", "| --- | --- |"]
    lines += [f"| {one.fault} | {' '.join(one.does.split())} |" for one in outcomes]
    for one in outcomes:
        if one.measured:
            figures = ", ".join(f"{name} {value:,.2f}".rstrip("0").rstrip(".") for name, value in one.measured.items())
            lines += ["", f"Measured in {one.fault}: {figures}."]
        if one.skipped:
            lines += ["", f"{one.fault} was skipped: {one.skipped}."]
    return "\n".join(lines) + "\n"
