"""Share the worker's threads out, so that one gateway, or its images, can never hold all of them."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from storage.ledger.leases import ClaimBudget

OTHERS = ""
"""The share of jobs whose gateway is not configured here any more."""


class FairShare:
    """The share of each gateway: all threads but a few that are kept for each other one. Thread-safe.

    Of a share one thread is always left for talking to the gateway, however slow its images are.
    """

    def __init__(self, gateways: Collection[str], threads: int, sending: Mapping[str, int]) -> None:
        """`sending`: how many jobs may be sent to each at once, by all workers together."""
        self._gateways = tuple(gateways)
        self._sending = sending
        kept = max(1, threads // (2 * len(self._gateways))) if self._gateways else 0
        self._share = max(1, threads - kept * (len(self._gateways) - 1))
        self._images = max(1, self._share - 1)
        self._downloading: Counter[str] = Counter()
        self._lock = Lock()

    def budget(self, free: int, held: Iterable[str], full: Collection[str]) -> ClaimBudget:
        """Return what so many free threads may claim; the gateways with the fewest jobs held come first.

        `held` has the gateway of each job in hand; gateways that are `full` can be sent nothing now.
        """
        in_hand = Counter(map(self._of, held))
        first = sorted(self._gateways, key=lambda gateway: in_hand[gateway])
        with self._lock:
            no_images = [gateway for gateway in self._gateways if self._downloading[gateway] >= self._images]
        return ClaimBudget(
            free,
            {gateway: self._share - in_hand[gateway] for gateway in first},
            self._share - in_hand[OTHERS],
            full,
            no_images,
            self._sending,
        )

    @contextmanager
    def downloading(self, gateway: str, *, images: bool) -> Iterator[bool]:
        """Reserve a thread for a job's images; yield whether one was free. Without `images` it needs none."""
        share = self._of(gateway)
        with self._lock:
            free = not images or self._downloading[share] < self._images
            taken = free and images
            self._downloading[share] += taken
        try:
            yield free
        finally:
            with self._lock:
                self._downloading[share] -= taken

    def _of(self, gateway: str) -> str:
        return gateway if gateway in self._gateways else OTHERS
