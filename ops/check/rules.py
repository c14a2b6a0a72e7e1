"""The rules as a page: each with its source, the code that decides it and the tests that prove it.

In: `rules.toml` beside this file, and the table of figures in `shared/policy.py`. Out: docs/rules.md.

    python -m ops.check.rules            fails on any difference (what `make check` calls)
    python -m ops.check.rules --write    writes the page anew

A rule whose source has no mark, whose code or test is not there any more, or that has no test, fails as well.
"""

import ast
import difflib
import functools
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any, Final

from shared.money import yuan
from shared.policy import RULES, Category, Policy, policy_for

ROOT: Final = Path(__file__).resolve().parents[2]
TABLE: Final = Path(__file__).with_name("rules.toml")
PAGE: Final = ROOT / "docs" / "rules.md"
REGION: Final = "changzhou"
MARK: Final = re.compile(r"^\[(seed|law|local|ours)\]")
_FIGURE: Final = re.compile(r"\{([A-Za-z_.:]+)\}")
_UNITS: Final = (("days", 86_400), ("hours", 3600), ("minutes", 60), ("seconds", 1))


@dataclass(frozen=True, slots=True)
class Kept:
    """One rule: `decided_by` is path:name in the code, `proved_by` path::test (or path::class::test)."""

    rule: str
    source: str
    decided_by: tuple[str, ...]
    proved_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Rules about one thing."""

    title: str
    rules: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """All rules that are kept, and those of the domain that nothing decides yet."""

    kept: tuple[Group, ...]
    not_built: tuple[tuple[str, tuple[str, ...]], ...]


def load(text: str) -> Table:
    """The table as written. Raises TypeError or KeyError for what is no rule."""
    read = tomllib.loads(text)
    groups = [
        Group(group["title"], tuple(Kept(**{key: _frozen(one[key]) for key in one}) for one in group["rule"]))
        for group in read["group"]
    ]
    not_built = [(part["title"], tuple(part["rules"])) for part in read.get("not_built", ())]
    return Table(tuple(groups), tuple(not_built))


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# --- figures --------------------------------------------------------------------------------------------------------


def in_force() -> date:
    """The day whose figures the page shows: that of the newest row. Not today, so that no day changes a page."""
    return max(row.effective for row in RULES)


@functools.cache
def _policy() -> Policy:
    return policy_for(REGION, Category.SPORTS, in_force())


def figures_in(text: str) -> str:
    """`text` with each {figure of the policy} and {module:CONSTANT} in its place."""
    return _FIGURE.sub(lambda found: _figure(found[1]), text)


def _figure(name: str) -> str:
    """One figure in words. Raises AttributeError or ImportError where there is none."""
    if ":" in name:
        module, _, constant = name.partition(":")
        return in_words(constant, getattr(importlib.import_module(module), constant))
    value: Any = functools.reduce(getattr, name.split("."), _policy())
    return in_words(name, value)


def in_words(name: str, value: Any) -> str:
    """A figure as people read it, by what its name says of its unit."""
    if name.endswith("_fen") and value is not None:
        return yuan(value)
    if name.endswith("_seconds"):
        value = timedelta(seconds=value)
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        unit, length = next((unit, length) for unit, length in _UNITS if seconds % length == 0)
        return f"{seconds // length} {unit if seconds != length else unit[:-1]}"
    if isinstance(value, tuple):
        return " to ".join(map(str, value))
    return f"{value:%H:%M}" if isinstance(value, time) else str(value)


# --- whether code and tests are there -------------------------------------------------------------------------------


def faults(table: Table, root: Path = ROOT) -> list[str]:
    """What is wrong with the table: marks, code and tests that are not there. None is right."""
    found: list[str] = []
    for rule in (rule for group in table.kept for rule in group.rules):
        if not MARK.match(rule.source):
            found.append(f"{rule.rule}: the source begins with no mark: {rule.source!r}")
        if not rule.decided_by or not rule.proved_by:
            found.append(f"{rule.rule}: no code or no test")
        found += [f"{rule.rule}: {one} is not there" for one in rule.decided_by if not _is_there(root, one, ":")]
        tests = [one for one in rule.proved_by if one.partition("::")[0].startswith("tests/")]
        found += [f"{rule.rule}: {one} is no test" for one in rule.proved_by if one not in tests]
        found += [f"{rule.rule}: {one} is not there" for one in tests if not _is_there(root, one, "::")]
    return found


def _is_there(root: Path, where: str, sign: str) -> bool:
    path, _, name = where.partition(sign)
    return (root / path).is_file() and name.replace("::", ".") in _names(root / path)


@functools.cache
def _names(path: Path) -> frozenset[str]:
    """All functions, classes and names of a module, those in a class as Class.name."""
    return frozenset(_named(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def _named(body: Sequence[ast.stmt], prefix: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _named(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


# --- the page -------------------------------------------------------------------------------------------------------


def page(table: Table) -> str:
    """docs/rules.md."""
    count = sum(len(group.rules) for group in table.kept)
    lines = [
        "# Rules",
        "",
        "<!-- Generated by `python -m ops.check.rules --write` from ops/check/rules.toml; do not edit. -->",
        "",
        f"The {count} rules that Yike keeps: where each comes from, the code that decides it, the tests that prove it.",
        "`make check` fails where one of these is not there any more. The marks: **[seed]** the notice of Changzhou of",
        "2023-04-19, **[law]** national law or a ministry's text, **[local]** a city's or a bank's practice,",
        "**[ours]** our decision where no text was found.",
        "",
        "Figures are read from the code, none is typed here. What differs by region and date is data, shown",
        f"[below](#figures-by-region-and-date); the sentences name what is in force in Changzhou since {in_force()}.",
        "",
    ]
    for group in table.kept:
        lines += [f"## {group.title}", "", "| Rule | Source | Decided by | Proved by |", "|---|---|---|---|"]
        lines += [_row(rule) for rule in group.rules]
        lines.append("")
    lines += _figures()
    lines += ["## Not built", "", "Rules of the domain that no code decides yet.", ""]
    for title, rules in table.not_built:
        lines += [f"- {title}: {figures_in(rule)}" for rule in rules]
    return "\n".join(lines) + "\n"


def _row(rule: Kept) -> str:
    code = "<br>".join(f"[`{_short(one, ':')}`](../{one.partition(':')[0]})" for one in rule.decided_by)
    tests = "<br>".join(f"[`{_short(one, '::')}`](../{one.partition('::')[0]})" for one in rule.proved_by)
    return f"| {_cell(figures_in(rule.rule))} | {_cell(rule.source)} | {code} | {tests} |"


def _short(where: str, sign: str) -> str:
    """The name, behind the file it stands in where that says more than the link."""
    path, _, name = where.partition(sign)
    return name.replace("::", ".") if sign == "::" else f"{path.removesuffix('.py').replace('/', '.')}:{name}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _figures() -> Iterator[str]:
    """The table of `shared/policy.py`, and what holds where no row says anything."""
    yield "## Figures by region and date"
    yield ""
    yield "Every row of `RULES` in [`shared/policy.py`](../shared/policy.py). A later date wins over an earlier one; on"
    yield "equal dates the narrower region wins. A contract keeps the figures of the day it was signed."
    yield ""
    yield "| From | Region | Categories | Figures | Source |"
    yield "|---|---|---|---|---|"
    for row in RULES:
        categories = "all" if len(row.categories) == len(Category) else "、".join(sorted(row.categories))
        values = ", ".join(f"`{name}` {words}" for said in row.values.items() for name, words in _parts(*said))
        yield f"| {row.effective} | {row.region} | {categories} | {values} | {_cell(row.source)} |"
    yield ""
    yield "Where no row says anything:"
    yield ""
    said = {name for row in RULES for name in row.values} | {"sources"}
    usual = Policy()
    unsaid = [one.name for one in fields(Policy) if one.name not in said]
    yield from (f"- `{name}` {words}" for one in unsaid for name, words in _parts(one, getattr(usual, one)))
    yield ""


def _parts(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """A figure, or those it consists of: each with its name, in words."""
    if is_dataclass(value):
        yield from ((f"{name}.{one.name}", in_words(one.name, getattr(value, one.name))) for one in fields(value))
    else:
        yield name, in_words(name, value) if value not in (None, ()) else "none"


def main(arguments: Sequence[str]) -> int:
    """Runs one of the two commands of the module's docstring; returns the exit code."""
    if list(arguments) not in ([], ["--write"]):
        print(__doc__)
        return 2
    table = load(TABLE.read_text(encoding="utf-8"))
    if wrong := faults(table):
        print("\n".join([*wrong, f"{len(wrong)} faults in {TABLE.relative_to(ROOT)}"]))
        return 1
    wanted = page(table)
    if arguments:
        PAGE.write_text(wanted, encoding="utf-8")
        print(f"docs: {PAGE.name} written")
        return 0
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if old != wanted:
        lines = difflib.unified_diff(old.splitlines(), wanted.splitlines(), "docs/rules.md", "rules", n=0, lineterm="")
        print("\n".join([*list(lines)[:30], "run `python -m ops.check.rules --write`, and review what changed"]))
        return 1
    print(f"rules: {sum(len(group.rules) for group in table.kept)} rules, each with its code and its tests")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
