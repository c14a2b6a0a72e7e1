"""Which errors of the database pass by themselves. How they come about is seen in tests/faults and test_road_faults."""

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from shared.database import is_passing

IN_ANOTHER_STATE = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")


def through_sqlalchemy(cause: Exception) -> DBAPIError:
    """The error as a session raises it."""
    original = Exception(str(cause))
    original.__cause__ = cause
    return DBAPIError("SELECT 1", {}, original)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (asyncpg.DeadlockDetectedError("deadlock"), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        # A statement that was sent while the server's last words were already there.
        (IN_ANOTHER_STATE, True),
        (through_sqlalchemy(IN_ANOTHER_STATE), True),
        (asyncpg.DataError("value out of range"), False),
        (through_sqlalchemy(asyncpg.DataError("value out of range")), False),
        (asyncpg.UniqueViolationError("again"), False),
        (ValueError("a bug"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_passes_by_itself_is_tried_again_and_nothing_else(error: Exception, passes: bool) -> None:
    assert is_passing(error) is passes
