"""Run a pool of threads over leased rows of the ledger: claim, work, release, retry after an outage."""

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import ClassVar, Generic, Protocol, TypeVar

import structlog

from receiver.telemetry.metrics import Metrics
from receiver.telemetry.outage import Outage
from storage.errors import StorageError
from storage.models import Clock

log = structlog.get_logger("darkroom.pool")

IDLE_S = 1.0
"""The longest sleep: another process may have made something due."""

LATELY_S = 2.0
"""In seconds."""

ENOUGH = 2
"""While so many wait for a thread, no more are leased ahead."""

STUCK_S = 0.25
"""What does not fit beside the others is begun after so long, to give it back if it must."""


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)


class LeasedPool(ABC, Generic[T]):
    """Threads that work on what they lease until nothing is due, and then wait to be woken."""

    part: ClassVar[str]
    """Its name in metrics and in the log."""
    least_pause_s: ClassVar[float] = 0.005

    def __init__(
        self,
        name: str,
        *,
        concurrency: int,
        clock: Clock,
        metrics: Metrics,
        besides: Sequence[Callable[[], None]] = (),
    ) -> None:
        """`name` holds the leases; `besides` run in threads of their own, and end once `stopping` is set."""
        self.name = name
        self.stopping = threading.Event()
        self._concurrency = concurrency
        self._clock = clock
        self._metrics = metrics
        self._waiting: deque[tuple[T, float]] = deque()
        """What is leased and not begun, and since when, by `monotonic`."""
        self._at_work: dict[str, T] = {}
        self._held: dict[str, T] = {}
        self._again: dict[str, T] = {}
        lock = threading.Lock()
        self._idle, self._work_waits = threading.Condition(lock), threading.Condition(lock)
        self._ended: deque[float] = deque(maxlen=concurrency)
        """When the last works ended, by `monotonic`."""
        self._wake = threading.Event()
        # Daemons, because work that hangs in a download must not outlive a stop; its lease is given back.
        targets = [self._claim, *besides] + [self._work] * concurrency
        self._threads = [
            threading.Thread(target=target, name=f"{self.part}-{number}", daemon=True)
            for number, target in enumerate(targets)
        ]

    @abstractmethod
    def claim(self, room: int, held: Sequence[T]) -> list[T]:
        """Lease what is due, `room` at most, beside what is `held`."""

    @abstractmethod
    def next_due(self, held: Sequence[T]) -> int | None:
        """Return when the next claim is worth it (milliseconds since 1970); None if nothing waits."""

    @abstractmethod
    def work(self, one: T) -> T | None:
        """Do the work on one of them. An exception leaves it until its lease runs out.

        Returns None, or what it is now if its work has to wait until others end; its lease is kept for that.
        """

    def fits(self, one: T, at_work: Collection[T]) -> bool:  # noqa: ARG002
        """Return whether work on one may begin beside what is worked on. Must be quick."""
        return True

    @property
    def more(self) -> bool:
        """Whether more may have been due than the last claim had room for."""
        return True

    @abstractmethod
    def release(self) -> None:
        """Give back every lease."""

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look for due work now."""
        self._wake.set()

    @property
    def ahead(self) -> int:
        """How many more may be leased than there are threads."""
        return 0

    @property
    def ended_lately(self) -> int:
        """How much work has ended within `LATELY_S`, at most as much as there are threads."""
        since = monotonic() - LATELY_S
        return sum(ended > since for ended in list(self._ended))

    @property
    def busy(self) -> bool:
        """Whether every thread has work, or none was started."""
        return len(self._held) >= self._concurrency or not self._threads[0].is_alive()

    def stop(self, timeout_s: float) -> None:
        """Claim nothing more, let the work in hand finish for a while, and give the rest back."""
        deadline = monotonic() + timeout_s
        self.stopping.set()
        self._wake.set()
        if self._threads[0].is_alive():
            self._threads[0].join(timeout_s)
        with self._idle:
            self._work_waits.notify_all()
            while self._held and (left := deadline - monotonic()) > 0:
                self._idle.wait(left)
            left_over = len(self._held)
        try:
            self.release()
        except StorageError as error:
            self.complain("leases not given back; they run out", error)
        log.info(f"{self.part} stopped", name=self.name, given_back=left_over)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads to end, once what they hang in was closed under them."""
        deadline = monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))

    def complain(self, what: str, error: Exception, *, silently: bool = False) -> None:
        """Count an error and, unless `silently`, log it, with a traceback only if it was not foreseen."""
        self._metrics.count("darkroom_ledger_errors_total", part=self.part)
        if not silently:
            log.error(what, part=self.part, why=str(error), exc_info=not isinstance(error, StorageError))

    def held(self) -> list[T]:
        """Return what is being worked on."""
        with self._idle:
            return list(self._held.values())

    def _claim(self) -> None:
        outage = Outage()
        while not self.stopping.is_set():
            try:
                pause_s = self._claim_once()
            except Exception as error:  # noqa: BLE001 - this thread must not end
                self.complain("ledger does not answer", error, silently=not outage.is_news(str(error)))
                self.stopping.wait(IDLE_S)
                continue
            if (lasted_s := outage.end()) is not None:
                log.info("ledger answers again", part=self.part, after_s=round(lasted_s, 1))
            self._wake.wait(pause_s)
            self._wake.clear()

    def _claim_once(self) -> float:
        """Lease what there is room for; return for how many seconds nothing more can be claimed."""
        held = self.held()
        room = self._concurrency + self.ahead - len(held)
        if room <= 0 or (len(self._waiting) > ENOUGH and room < self._concurrency // 2):
            return IDLE_S  # woken when some have ended
        claimed = self.claim(room, held)
        self._take(claimed)
        if claimed and self.more:
            return IDLE_S if self._waiting else 0
        due = self.next_due(self.held())
        until_s = IDLE_S if due is None else (due - self._clock()) / 1000
        return max(self.least_pause_s, min(IDLE_S, until_s))

    def _take(self, claimed: Sequence[T]) -> None:
        with self._idle:
            for one in claimed:
                if one.id in self._held:
                    # Due again before the work that put it back was over; or a clock that was set forward has
                    # ended leases that are in hand here too. The thread that has it in hand goes on with it.
                    self._again[one.id] = one
                else:
                    self._wait(one)

    def _wait(self, one: T) -> None:
        self._held[one.id] = one
        self._waiting.append((one, monotonic()))
        self._work_waits.notify()

    def _work(self) -> None:
        while (one := self._next()) is not None:
            again: T | None = None
            try:
                if not self.stopping.is_set():
                    again = self.work(one)
            except Exception:
                log.exception("left until its lease runs out", part=self.part, id=one.id)
            finally:
                self._let_go(one, again)

    def _next(self) -> T | None:
        """Return the next one whose work may begin, once there is one; None once all is to stop."""
        with self._idle:
            while (one := self._fitting()) is None:
                if self.stopping.is_set():
                    return None
                # What does not fit may wait too long; otherwise something ends or is claimed.
                self._work_waits.wait(STUCK_S if self._waiting else None)
            self._at_work[one.id] = one
            return one

    def _fitting(self) -> T | None:
        stuck = monotonic() - STUCK_S
        for place, (one, since) in enumerate(self._waiting):
            if since < stuck or self.stopping.is_set() or self.fits(one, self._at_work.values()):
                del self._waiting[place]
                return one
        return None

    def _let_go(self, one: T, again: T | None) -> None:
        with self._idle:
            del self._at_work[one.id]
            if again is None:
                self._ended.append(monotonic())
            again = self._again.pop(one.id, again)
            if again is None or self.stopping.is_set():
                del self._held[one.id]
                self._idle.notify_all()
            else:
                self._wait(again)
            # What did not fit beside this one may now.
            self._work_waits.notify(len(self._waiting))
            wanted = len(self._waiting) <= ENOUGH
        if wanted and self.more:
            self._wake.set()
