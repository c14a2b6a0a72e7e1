"""The stories of `yike demo`: each that is listed can be played, each module is listed, a wrong name is told."""

import inspect
from pathlib import Path

import pytest

from ops import stories
from ops.cli import main
from ops.cli.base import WRONG_CALL

SHARED = ("__init__", "stage")


def test_every_story_in_the_folder_is_listed_and_every_listed_one_can_be_played() -> None:
    files = {path.stem for path in Path(stories.__file__).parent.glob("*.py")}
    assert files - set(SHARED) == set(stories.STORIES)
    for name in stories.STORIES:
        assert inspect.iscoroutinefunction(stories.load(name))


def test_a_story_nobody_tells_is_refused_with_a_list_of_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError):
        stories.load("stage")
    assert main(["demo", "--story", "thriller"]) == WRONG_CALL
    told = capsys.readouterr().err
    assert "thriller" in told
    assert all(name in told for name in stories.STORIES)


def test_the_help_says_what_each_story_tells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, tells in stories.STORIES.items():
        assert f"{name}: {tells}" in shown
