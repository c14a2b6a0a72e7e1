"""Spans (`7d`, `1h30m`) and moments (`2026-03-01T12:00`, `2h` ago) as an operator types them."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from ops.cli.base import SHANGHAI, WRONG_CALL, CommandError

_SECONDS: Final = {"w": 7 * 86_400, "d": 86_400, "h": 3600, "m": 60, "min": 60, "s": 1}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(min|[wdhms])")


def span(typed: str) -> timedelta:
    """A span of one or more parts: weeks w, days d, hours h, minutes m or min, seconds s. Raises CommandError."""
    parts = _PART.findall(typed)
    if not parts or "".join(number + unit for number, unit in parts) != typed:
        raise CommandError(f"{typed!r} is no span of time.", "Write it like 7d, 36h, 1h30m or 90s.", WRONG_CALL)
    return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))


def moment(typed: str, now: datetime) -> datetime:
    """A moment in UTC: ISO 8601 (without a zone it is Shanghai's time), or a span before `now`. Raises CommandError."""
    try:
        parsed = datetime.fromisoformat(typed)
    except ValueError:
        try:
            return now - span(typed)
        except CommandError:
            hint = "Write 2026-03-01T12:00 (Shanghai), 2026-03-01T04:00Z, or a span back from now: 2h."
            raise CommandError(f"{typed!r} is no moment.", hint, WRONG_CALL) from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=SHANGHAI)).astimezone(UTC)


def day_of(typed: str) -> date:
    """A day of Shanghai. Raises CommandError."""
    try:
        return date.fromisoformat(typed)
    except ValueError:
        raise CommandError(f"{typed!r} is no day.", "Write it like 2026-11-23.", WRONG_CALL) from None
