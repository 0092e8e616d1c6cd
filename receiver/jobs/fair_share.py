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

    def budget(self, free: int, held: Iterable[str], full: Collection[str], ahead: int = 0) -> ClaimBudget:
        """Return what so many free threads may claim; the gateways with the fewest jobs held come first.

        `held` has the gateway of each job in hand; gateways that are `full` can be sent nothing now. `ahead`
        are as many jobs of `free` as are claimed before there is a thread for them.
        """
        in_hand = Counter(map(self._of, held))
        first = sorted(self._gateways, key=lambda gateway: in_hand[gateway])
        with self._lock:
            # Images that are fetched so fast that there are jobs claimed ahead hold up nobody.
            most = self._images + ahead
            no_images = [gateway for gateway in self._gateways if self._downloading[gateway] >= most]
        return ClaimBudget(
            free,
            {gateway: self._share + ahead - in_hand[gateway] for gateway in first},
            self._share + ahead - in_hand[OTHERS],
            full,
            no_images,
            self._sending,
        )

    def fits(self, gateway: str, at_work: Iterable[str], *, images: bool) -> bool:
        """Return whether a job may be begun beside those at work, each named by its gateway."""
        mine = self._of(gateway)
        if images and self._downloading[mine] >= self._images:
            return False
        return sum(self._of(other) == mine for other in at_work) < self._share

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
