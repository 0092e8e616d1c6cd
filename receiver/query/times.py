"""Parse times: a date, an RFC 3339 time, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

AGO = "^([0-9]{1,6})([smhdw])$"
"""The pattern of `7d`: a number and its unit, ago."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

EXAMPLES = "such as 7d, 12h, 2026-11-22 or 2026-11-22T10:00:00Z"


def read_moment(text: str, now: int) -> int:
    """Parse `7d` (that long ago), `2026-11-22` (its beginning, UTC) or an RFC 3339 time, as milliseconds.

    `now` is in milliseconds. Raises ValueError with a message for users.
    """
    if found := re.fullmatch(AGO, text, re.ASCII):
        return max(0, now - int(timedelta(**{_UNITS[found[2]]: int(found[1])}).total_seconds() * 1000))
    try:
        moment = datetime.fromisoformat(text)
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0, int(zoned.timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"must be a time, {EXAMPLES}") from None
