"""Schedules: polls, retries with backoff and jitter, timeouts. All in seconds."""

import random
import time
from dataclasses import dataclass

from storage.models import Clock

REMEMBERED_S = 5.0
"""Counts behind gauges are cached so long: to count a million jobs takes a good part of a second."""


def system_clock() -> int:
    """Return the time, in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


def age_s(since: int | None, clock: Clock) -> float:
    """Return the seconds since a time in milliseconds; 0 if there is none."""
    return 0 if since is None else max(0, clock() - since) / 1000


@dataclass(frozen=True, slots=True)
class Timing:
    """The schedules of a job's life. Jitter is only ever added, so nothing is tried too early."""

    callback_polls: tuple[float, ...] = (30, 60, 120, 300, 600, 1800)
    """The waits between polls of a job that awaits a callback; the last one repeats."""
    poll_only: float = 2
    """The first wait of a job that cannot have one, growing to five times that."""
    no_answer: float = 24 * 3600
    """A job that has had no result for so long fails."""
    unconfirmed: float = 15 * 60
    """How long a submission may stay unconfirmed where sending it again could spend credits twice."""
    replay: float = 23 * 3600
    """How long a gateway is trusted to remember an idempotency key; Apiframe says 24 hours."""
    forgotten: float = 600
    """How old a job must be before a gateway is believed that does not know it."""
    no_images: float = 600
    """How long a gateway must say that a job succeeded without any image before it is believed."""
    downloads: tuple[float, ...] = (0, 2, 10, 30, 120)
    """The waits before each try to download an image; after that each is half as long again."""
    downloads_later: float = 3600
    """The longest of them."""
    retention: float = 24 * 3600
    """How long gateways keep images; after that no retry can help."""
    backoff_first: float = 1
    backoff_most: float = 300
    open_first: float = 1
    open_most: float = 15
    """The backoff between two tries to open what was away at the start."""
    pause_first: float = 30
    """How long a gateway is paused that wants another key or more credits; doubles up to `pause_most`."""
    pause_most: float = 300
    breaker_failures: int = 5
    """After so many failures in a row the circuit of a gateway or image host opens."""
    breaker_first: float = 5
    """How long it stays open at first; doubles up to `backoff_most`."""
    notify: tuple[float, ...] = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    """The waits before each try to notify an application, after the one before it: 76 hours in all.

    https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """
    jitter: float = 0.1
    """The largest share that is added to a wait, so that many jobs do not come back at once."""

    def poll_wait(self, polls: int, *, callback_expected: bool) -> float:
        """Return the wait before poll number `polls` (from 0), after the one before it."""
        waits = self._poll_waits(callback_expected=callback_expected)
        return waits[min(polls, len(waits) - 1)]

    def poll_due(self, polls: int, *, callback_expected: bool) -> float:
        """Return when poll number `polls` (from 0) is due, after the gateway accepted the job."""
        waits = self._poll_waits(callback_expected=callback_expected)
        beyond = max(0, polls + 1 - len(waits))
        return sum(waits[: polls + 1]) + beyond * waits[-1]

    def _poll_waits(self, *, callback_expected: bool) -> tuple[float, ...]:
        if callback_expected:
            return self.callback_polls
        return tuple(self.poll_only * factor for factor in (1, 1.5, 2.25, 3.375, 5))

    def backoff(self, attempts: int) -> float:
        """Return the exponential backoff after a failure that was not the job's fault."""
        return self.later(min(self.backoff_first * 2 ** min(attempts, 20), self.backoff_most))

    def open_wait(self, failures: int) -> float:
        """Return the wait before the ledger or the bucket is tried again at the start."""
        return self.later(min(self.open_first * 2 ** min(failures - 1, 20), self.open_most))

    def pause(self, failures: int) -> float:
        """Return how long to pause a gateway after so many refusals in a row."""
        return self.later(min(self.pause_first * 2 ** min(failures - 1, 20), self.pause_most))

    def breaker_wait(self, failures: int) -> float:
        """Return how long a circuit stays open after so many failures in a row; 0 while it is closed."""
        beyond = failures - self.breaker_failures
        if beyond < 0:
            return 0
        return self.later(min(self.breaker_first * 2 ** min(beyond, 20), self.backoff_most))

    def outage_wait(self, since: float) -> float:
        """Return the backoff while something has been unavailable for `since` seconds; so it doubles."""
        return self.later(min(max(since, self.backoff_first), self.backoff_most))

    def download_wait(self, attempts: int) -> float:
        """Return the wait before the next download, after `attempts` tries."""
        beyond = attempts + 1 - len(self.downloads)
        if beyond <= 0:
            return self.later(self.downloads[attempts])
        # So that an image whose trouble was mended is had before its link has lived for half as long again.
        return self.later(min(self.downloads[-1] * 1.5 ** min(beyond, 40), self.downloads_later))

    def notify_wait(self, attempts: int) -> float | None:
        """Return the wait before the next try to notify, after `attempts` tries; None after the last one."""
        return self.later(self.notify[attempts]) if attempts < len(self.notify) else None

    def later(self, seconds: float) -> float:
        """Add jitter to a wait."""
        return seconds * (1 + random.random() * self.jitter)  # noqa: S311 - nothing secret hangs on it
