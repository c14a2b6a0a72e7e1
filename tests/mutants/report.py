"""What is said of a run: the table by module, the survivors and why they are let live, the document."""

import re
from collections import defaultdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.mutants.argued import ARGUED
from tests.mutants.nursery import ROOT
from tests.mutants.targets import GOAL, MONEY, MONEY_GOAL, TESTS

DOCUMENT: Final = ROOT / "docs" / "mutants.md"
HEADINGS: Final = ("module", "mutants", "tried", "killed", "timed out", "survived", "%", "s")
NOT_ARGUED: Final = "Not argued"


def result(verdicts: list[dict[str, Any]], seconds: dict[str, float], sizes: dict[str, int]) -> dict[str, Any]:
    """All figures of a run, as they are written. `sizes`: how many mutants each file has, tried or not."""
    rows = [_row(path, [one for one in verdicts if one["path"] == path], size) for path, size in sizes.items()]
    money = [one for one in verdicts if one["path"] in MONEY]
    return {
        "modules": [row for row in rows if row["tried"]],
        "money": _row("money", money, sum(size for path, size in sizes.items() if path in MONEY)),
        "all": _row("all", verdicts, sum(sizes.values())),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "mutants": sorted(verdicts, key=lambda one: (list(TESTS).index(one["path"]), one["number"])),
    }


def _row(name: str, verdicts: list[dict[str, Any]], size: int) -> dict[str, Any]:
    count = {word: sum(one["verdict"] == word for one in verdicts) for word in ("killed", "timed out", "survived")}
    # A mutant that never ends is noticed too: the suite would not pass.
    caught = count["killed"] + count["timed out"]
    percent = round(100 * caught / len(verdicts), 1) if verdicts else 100.0
    seconds = round(sum(one["seconds"] for one in verdicts))  # of workers, of which several are at work
    return {"module": name, "mutants": size, "tried": len(verdicts), **count, "%": percent, "s": seconds}


def status(result: dict[str, Any]) -> int:
    """0 if enough mutants are killed, of all and of the money's."""
    return int(result["all"]["%"] < GOAL or result["money"]["%"] < MONEY_GOAL)


def argument(one: dict[str, Any]) -> str:
    """Why a survivor is let live."""
    line = f"{one['scope']}: {one['operator']}: {one['before']} → {one['after']}"
    for reason, places in ARGUED.items():
        if any(one["path"] == path and re.search(pattern, line) for path, pattern in places):
            return reason
    return NOT_ARGUED


def survivors(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Those that live, by argument."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in result["mutants"]:
        if one["verdict"] == "survived":
            found[argument(one)].append(one)
    return {reason: found[reason] for reason in (*ARGUED, NOT_ARGUED) if reason in found}


def show(console: Console, result: dict[str, Any]) -> None:
    """The table, and the survivors nobody has argued for."""
    table = Table(title="Mutants", title_justify="left")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "module" else "right")
    for row in (*result["modules"], result["money"], result["all"]):
        table.add_row(*(str(row[heading]) for heading in HEADINGS))
    console.print(table)
    for reason, them in survivors(result).items():
        if reason != NOT_ARGUED:
            continue
        for one in them:
            place = f"{one['path']}:{one['line']} {one['scope']}"
            console.print(f"{place}: {one['operator']}: {one['before']} → {one['after']}", markup=False, soft_wrap=True)
    took = ", ".join(f"{name} {value:.0f} s" for name, value in result["seconds"].items())
    console.print(
        f"mutants: {result['all']['tried']} of {result['all']['mutants']}, {result['all']['%']} % killed ({took})",
        markup=False,
    )


def write_document(result: dict[str, Any]) -> None:
    """Renews the table and the list of survivors in docs/mutants.md, between their marks."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "| --- |" + " ---: |" * (len(HEADINGS) - 1)]
    rows = (*result["modules"], result["money"], result["all"])
    lines += ["| " + " | ".join(str(row[heading]) for heading in HEADINGS) + " |" for row in rows]
    parts = {"table": "\n".join(lines), "survivors": "\n".join(_listed(result))}
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, content in parts.items():
        head, _, rest = text.partition(f"<!-- {name}:begin -->")
        tail = rest.partition(f"<!-- {name}:end -->")[2]
        text = f"{head}<!-- {name}:begin -->\n{content}\n<!-- {name}:end -->{tail}"
    DOCUMENT.write_text(text, encoding="utf-8")


def _listed(result: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for reason, them in survivors(result).items():
        lines += ["", f"**{len(them)}: {reason}**" if reason != NOT_ARGUED else f"**{len(them)}: not argued yet**", ""]
        for path in dict.fromkeys(one["path"] for one in them):
            places = [_place(one) for one in them if one["path"] == path]
            lines.append(f"- {path}: {'; '.join(places)}")
    return lines


def _place(one: dict[str, Any]) -> str:
    scope = one["scope"] or "module"
    return f"{scope} `{one['before']}` ({one['operator']})".replace("|", "\\|")
