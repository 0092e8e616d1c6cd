"""Run a pool of threads over leased rows of the ledger: claim, work, release, retry after an outage."""

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._held: dict[str, T] = {}
        self._again: dict[str, T] = {}
        self._idle = threading.Condition()
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
    def work(self, one: T) -> None:
        """Do the work on one of them. An exception leaves it until its lease runs out."""

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
        for _ in range(self._concurrency):
            self._queue.put(None)
        with self._idle:
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
        room = self._concurrency - len(held)
        if room <= 0:
            return IDLE_S
        if not (claimed := self.claim(room, held)):
            due = self.next_due(held)
            until_s = IDLE_S if due is None else (due - self._clock()) / 1000
            return max(self.least_pause_s, min(IDLE_S, until_s))
        with self._idle:
            # Due again before the work that put it back was over; or a clock that was set forward has ended
            # leases that are in hand here too. The thread that has it in hand goes on with it.
            self._again |= {one.id: one for one in claimed if one.id in self._held}
            new = [one for one in claimed if one.id not in self._held]
            self._held |= {one.id: one for one in new}
        for one in new:
            self._queue.put(one)
        return 0

    def _work(self) -> None:
        while (one := self._queue.get()) is not None:
            try:
                if not self.stopping.is_set():
                    self.work(one)
            except Exception:
                log.exception("left until its lease runs out", part=self.part, id=one.id)
            finally:
                self._let_go(one)

    def _let_go(self, one: T) -> None:
        with self._idle:
            again = None if self.stopping.is_set() else self._again.pop(one.id, None)
            if again is None:
                del self._held[one.id]
                self._idle.notify_all()
            else:
                self._held[one.id] = again
                self._queue.put(again)
        self._wake.set()
