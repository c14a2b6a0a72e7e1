"""The page of rules: up to date, and a rule without source, code or test does not get into it."""

from datetime import time, timedelta
from pathlib import Path

import pytest

from ops.check import rules
from ops.check.rules import Group, Kept, Table


@pytest.fixture
def table() -> Table:
    return rules.load(rules.TABLE.read_text(encoding="utf-8"))


def with_one(**changes: object) -> Table:
    right: dict[str, object] = {
        "rule": "No lesson is ever released twice.",
        "source": "[law] 一课一销",
        "decided_by": ("services/escrow/domain.py:release",),
        "proved_by": ("tests/unit/test_notify_domain.py::TestTyping::test_a_code_lives_five_minutes",),
    }
    return Table((Group("One", (Kept(**right | changes),)),), ())  # type: ignore[arg-type]


def test_the_page_is_what_the_table_makes(table: Table) -> None:
    assert rules.faults(table) == []
    assert rules.PAGE.read_text(encoding="utf-8") == rules.page(table)


def test_no_rule_is_listed_twice(table: Table) -> None:
    sentences = [rule.rule for group in table.kept for rule in group.rules]
    assert len(set(sentences)) == len(sentences)


def test_a_rule_with_code_and_test_is_right() -> None:
    assert rules.faults(with_one()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "一课一销"},
        {"source": "[somewhere] 一课一销"},
        {"decided_by": ()},
        {"proved_by": ()},
        {"decided_by": ("services/escrow/domain.py:release_twice",)},
        {"decided_by": ("services/escrow/nowhere.py:release",)},
        {"decided_by": ("services/escrow/domain.py",)},
        {"proved_by": ("tests/unit/test_notify_domain.py::TestTyping::test_that_never_was",)},
        {"proved_by": ("tests/unit/test_notify_domain.py::test_a_code_lives_five_minutes",)},
        {"proved_by": ("services/escrow/domain.py::release",)},
    ],
)
def test_what_is_not_there_is_a_fault(changes: dict[str, object]) -> None:
    (fault,) = rules.faults(with_one(**changes))
    assert fault.startswith("No lesson is ever released twice.: ")


def test_a_method_is_found_in_its_class(tmp_path: Path) -> None:
    (tmp_path / "book.py").write_text("class Book:\n    def take(self): ...\nSAGA: object = ()\n", encoding="utf-8")
    proof = "tests/test_book.py"
    (tmp_path / "tests").mkdir()
    (tmp_path / proof).write_text("async def test_it(): ...\n", encoding="utf-8")
    good = with_one(decided_by=("book.py:Book.take", "book.py:SAGA"), proved_by=(f"{proof}::test_it",))
    assert rules.faults(good, tmp_path) == []
    assert len(rules.faults(with_one(decided_by=("book.py:take",), proved_by=(f"{proof}::test_it",)), tmp_path)) == 1


def test_figures_come_from_the_policy_and_from_the_code() -> None:
    assert rules.figures_in("at most {max_charge_fen} yuan") == "at most 5,000.00 yuan"
    assert rules.figures_in("by {offline_ends_by}") == "by 20:30"
    assert rules.figures_in("lives {codes.lifetime_seconds}") == "lives 5 minutes"
    assert rules.figures_in("{services.escrow.domain:ASK_AGAIN_AT_MOST}") == "6 hours"
    with pytest.raises(AttributeError):
        rules.figures_in("{max_everything}")


def test_figures_are_said_in_the_largest_unit_that_is_exact() -> None:
    assert rules.in_words("wait_seconds", 86_400) == "1 day"
    assert rules.in_words("wait_seconds", 90) == "90 seconds"
    assert rules.in_words("WAIT", timedelta(hours=3)) == "3 hours"
    assert rules.in_words("ends_by", time(21)) == "21:00"
    assert rules.in_words("max_lessons", 60) == "60"
