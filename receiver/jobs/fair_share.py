"""Share the worker's threads out, so that one gateway, or its images, can never hold all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from storage.ledger.leases import ClaimBudget
from storage.models import Job

OTHERS = ""
"""The lane of jobs whose gateway is not configured here any more."""


class FairShare:
    """Counts the jobs in hand by gateway. Thread-safe.

    Each gateway may hold all threads but a few that are kept for each other one; and of its own share one
    is always left for talking to it, however many of its images are slow to come.
    """

    def __init__(self, gateways: Collection[str], threads: int, sending: Mapping[str, int]) -> None:
        """`sending`: how many jobs may be sent to each at once, by all workers together."""
        self._gateways = tuple(gateways)
        self._sending = sending
        kept = max(1, threads // (2 * len(self._gateways))) if self._gateways else 0
        self._share = max(1, threads - kept * (len(self._gateways) - 1))
        self._images = max(1, self._share - 1)
        self._held: Counter[str] = Counter()
        self._collecting: Counter[str] = Counter()
        self._lock = Lock()

    def room(self, free: int, full: Collection[str]) -> ClaimBudget:
        """What can be claimed now for so many free threads; gateways that hold least come first."""
        with self._lock:
            no_images = [gateway for gateway in self._gateways if self._collecting[gateway] >= self._images]
            left = {gateway: self._share - self._held[gateway] for gateway in (*self._gateways, OTHERS)}
        others = left.pop(OTHERS)
        first = sorted(left, key=lambda gateway: -left[gateway])
        return ClaimBudget(
            free, {gateway: left[gateway] for gateway in first}, others, full, no_images, self._sending
        )

    def enter(self, job: Job) -> None:
        """Count a job that is in hand from now on."""
        with self._lock:
            self._held[self._lane(job)] += 1

    def leave(self, job: Job) -> None:
        """Count it no more."""
        with self._lock:
            self._held[self._lane(job)] -= 1

    @contextmanager
    def collecting(self, job: Job) -> Iterator[bool]:
        """Take a place for fetching a job's images for the block, if one is free; gives whether it was."""
        lane = self._lane(job)
        with self._lock:
            free = self._collecting[lane] < self._images
            self._collecting[lane] += free
        try:
            yield free
        finally:
            with self._lock:
                self._collecting[lane] -= free

    def _lane(self, job: Job) -> str:
        return job.gateway if job.gateway in self._gateways else OTHERS
