"""The stories that `yike demo` can play, one module each: what each tells, in one sentence.

A module has `async def play(story, stack, scenario)`; `stage.py` holds what they share.
"""

import importlib
from collections.abc import Awaitable, Callable
from typing import Final

STORIES: Final[dict[str, str]] = {
    "purchase": "Two families at the gateway: from the code in their SMS to the pay-out of a lesson, and a complaint",
    "refund": "One family goes before the first lesson and gets all back, one later, less the penalty of its contract",
    "gone": "An institution is gone: the authority has every unconsumed lesson of every order paid back",
    "silence": "A guardian does not answer, through a week of holidays: silence confirms the lesson; it is paid out",
    "objection": "A guardian objects to lessons: the authority divides one fee, and gives one back after silence",
    "freeze": "An authority freezes an institution: no sale, no pay-out; thawed, what was due goes out once",
    "reconcile": "A pay-out the bank made and did not tell of is found on its statement, and resolved by two people",
}
"""Name of the story, and of its module → what it tells."""

Play = Callable[..., Awaitable[None]]


def load(name: str) -> Play:
    """How the story `name` is played. Raises KeyError for one that is not told here."""
    if name not in STORIES:
        raise KeyError(name)
    play: Play = importlib.import_module(f"{__name__}.{name}").play
    return play


def listed() -> str:
    """All stories, a line each, in Markdown: for the help of a command."""
    return "\n".join(f"- `{name}`: {tells}." for name, tells in STORIES.items())
