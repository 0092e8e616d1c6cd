"""When things are tried, tried again, and given up. All in seconds."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Timing:
    """The schedules of a job's life. Jitter is only ever added, so nothing is tried too early."""

    callback_polls: tuple[float, ...] = (30, 60, 120, 300, 600, 1800)
    """Where a callback is awaited: the waits between questions; the last one repeats."""
    poll_only: float = 2
    """Where none can come: the first wait, growing to five times that."""
    no_answer: float = 24 * 3600
    """A job that is older than this without an answer has failed."""
    unconfirmed: float = 15 * 60
    """How long a submission may stay unconfirmed where asking again would spend credits twice."""
    downloads: tuple[float, ...] = (0, 2, 10, 30, 120)
    """The waits before each try to download an image; then hourly."""
    downloads_later: float = 3600
    retention: float = 24 * 3600
    """How long gateways keep images; after that there is nothing left to try."""
    backoff_first: float = 1
    backoff_most: float = 300
    jitter: float = 0.1
    """The largest share that is added to a wait, so that many jobs do not come back at once."""

    def poll_due(self, polls: int, *, callback_expected: bool) -> float:
        """When question number `polls` (from 0) is due, after the gateway took the job."""
        if not callback_expected:
            return sum(min(self.poll_only * 1.5**n, self.poll_only * 5) for n in range(polls + 1))
        within = list(accumulate(self.callback_polls))
        beyond = max(0, polls + 1 - len(within))
        return within[min(polls, len(within) - 1)] + beyond * self.callback_polls[-1]

    def backoff(self, attempts: int) -> float:
        """How long to wait after a failure that was not the job's fault; doubles each time."""
        return self.later(min(self.backoff_first * 2 ** min(attempts, 20), self.backoff_most))

    def download_wait(self, attempts: int) -> float:
        """How long to wait before trying to download again, after `attempts` tries."""
        if attempts < len(self.downloads):
            return self.later(self.downloads[attempts])
        return self.later(self.downloads_later)

    def later(self, seconds: float) -> float:
        """Add jitter to a wait."""
        return seconds * (1 + random.random() * self.jitter)  # noqa: S311 - nothing secret hangs on it
