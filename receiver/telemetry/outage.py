"""Log a trouble that lasts: at once, and then at growing intervals."""

from collections.abc import Callable
from time import monotonic

FIRST_S = 30.0
MOST_S = 3600.0
"""The wait before the same is logged again: doubled each time."""


class Outage:
    """What is wrong with one part, since when, and whether to log it now. For one thread."""

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        """`now_s` is any clock that only goes forward."""
        self._now_s = now_s
        self._began_s: float | None = None
        self._why = ""
        self._again_s = self._gap_s = 0.0

    def is_news(self, why: str) -> bool:
        """Return whether to log it now: it begins, has another reason, or was last logged long ago."""
        now = self._now_s()
        if self._began_s is None:
            self._began_s, self._gap_s = now, 0.0
        elif why == self._why and now < self._again_s:
            return False
        self._gap_s = min(max(FIRST_S, 2 * self._gap_s), MOST_S)
        self._why, self._again_s = why, now + self._gap_s
        return True

    def end(self) -> float | None:
        """Forget it; returns for how many seconds it lasted, or None if nothing was wrong."""
        began, self._began_s = self._began_s, None
        return None if began is None else self._now_s() - began
