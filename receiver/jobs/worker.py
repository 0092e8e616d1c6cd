"""Claim due work and do the next step of it, many jobs at a time."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from time import monotonic

import structlog
import uuid_utils

from receiver.jobs.fair_share import FairShare
from receiver.telemetry.metrics import Metrics
from storage.errors import Conflict, LeaseLost, StorageError
from storage.ledger.ledger import Ledger
from storage.models import Clock, Job, Status

log = structlog.get_logger("darkroom.worker")

Step = Callable[[Job, str], Job]
"""Does what comes next for a job that this worker holds, and answers the job as it is then."""

IDLE_S = 1.0
"""The longest sleep of an idle worker: another process may have queued something."""

MISHAP_MS = 60_000

BUSY_MS = 250
"""When a job is looked at again whose gateway has no place left for fetching images."""

SET_BACK_MS = 5_000
"""The clock was set back if it fell behind by more than this."""


class Worker:
    """Threads that work on leased jobs until there is nothing due, and then wait to be woken."""

    def __init__(
        self,
        ledger: Ledger,
        steps: Mapping[Status, Step],
        *,
        concurrency: int,
        sending: Mapping[str, int],
        clock: Clock,
        moved: Callable[[str], None],
        full: Callable[[], Collection[str]],
        metrics: Metrics,
    ) -> None:
        """`moved` is called with a job's id after each step; `full` names the gateways with no free slot.

        `sending` says of every gateway how many jobs may be sent to it at once, by all workers together.
        There is a thread for each of them at least, whatever the `concurrency`.
        """
        concurrency = max(concurrency, len(sending))
        self.name = f"{socket.gethostname()[:20]}.{os.getpid()}.{uuid_utils.uuid7().hex[-8:]}"
        self._ledger = ledger
        self._steps = steps
        self._clock = clock
        self._moved = moved
        self._full = full
        self._metrics = metrics
        self._lanes = FairShare(list(sending), concurrency, sending)
        self._drift_ms = float("inf")
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._free = threading.Semaphore(concurrency)
        self._concurrency = concurrency
        self._held: set[str] = set()
        self._again: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._idle = threading.Condition(self._lock)
        # Daemons, because a step that hangs in a download must not outlive a stop; its lease is given back.
        names = ["claim", "renew"] + [f"work-{number}" for number in range(concurrency)]
        targets = [self._claim, self._renew] + [self._work] * concurrency
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in zip(targets, names, strict=True)
        ]

    def start(self) -> None:
        """Begin to work."""
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Look for due work now."""
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether it can take nothing more on now, or has not begun to work."""
        return len(self._held) >= self._concurrency or not self._threads[0].is_alive()

    def stop(self, timeout_s: float) -> None:
        """Claim nothing more, let the steps in hand finish for a while, and give the rest back."""
        self._stopping.set()
        self._wake.set()
        self._free.release()
        for _ in range(self._concurrency):
            self._jobs.put(None)
        deadline = monotonic() + timeout_s
        with self._idle:
            while self._held and (left := deadline - monotonic()) > 0:
                self._idle.wait(left)
            left_over = len(self._held)
        self._release()
        log.info("worker stopped", worker=self.name, given_back=left_over)

    def join(self, timeout_s: float) -> None:
        """Wait for the threads to end, once what they hang in was closed under them."""
        deadline = monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))

    def _release(self) -> None:
        try:
            self._ledger.release(self.name)
        except StorageError as error:
            self._metrics.count("darkroom_ledger_errors_total", part="worker")
            seconds = self._ledger.lease_ms / 1000
            log.warning("leases not given back; they run out", seconds=seconds, why=str(error))

    def _claim(self) -> None:
        while not self._stopping.is_set():
            self._free.acquire()
            if self._stopping.is_set():
                return
            free = 1
            while free < self._concurrency and self._free.acquire(blocking=False):
                free += 1
            claimed = self._claim_once(free)
            for _ in range(free - claimed):
                self._free.release()
            if not claimed:
                self._wake.wait(self._pause())
                self._wake.clear()

    def _claim_once(self, limit: int) -> int:
        try:
            self._look_at_the_clock()
            claimed = self._ledger.claim(self.name, self._lanes.room(limit, self._full()))
        except Exception as error:  # noqa: BLE001 - this thread must not end
            self._complain("ledger does not answer", error)
            self._stopping.wait(IDLE_S)
            return 0
        with self._lock:
            # Due again before the step that put it back was over; or a clock that was set forward has ended
            # the leases of jobs that are in hand here too. Whoever has it in hand goes on with it.
            self._again |= {job.id: job for job in claimed if job.id in self._held}
            jobs = [job for job in claimed if job.id not in self._held]
            self._held.update(job.id for job in jobs)
        for job in jobs:
            self._lanes.enter(job)
            self._jobs.put(job)
        return len(jobs)

    def _look_at_the_clock(self) -> None:
        """Heal the ledger at the start, and whenever the clock was set back."""
        drift = self._clock() - monotonic() * 1000
        if drift < self._drift_ms - SET_BACK_MS:
            healed = self._ledger.repair_clock_skew()
            if healed:
                log.warning("the clock was set back; what it had put off is due now", jobs=healed)
        self._drift_ms = drift

    def _pause(self) -> float:
        try:
            due = self._ledger.next_due(self._lanes.room(self._concurrency, self._full()))
        except Exception as error:  # noqa: BLE001 - this thread must not end
            self._complain("ledger does not answer", error)
            return IDLE_S
        if due is None:
            return IDLE_S
        return max(0.005, min(IDLE_S, (due - self._clock()) / 1000))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._see_through(job)
            finally:
                self._lanes.leave(job)
                self._let_go(job)

    def _let_go(self, job: Job) -> None:
        with self._idle:
            again = None if self._stopping.is_set() else self._again.pop(job.id, None)
            if again is None:
                self._held.discard(job.id)
                self._idle.notify_all()
        if again is not None:
            self._lanes.enter(again)
            self._jobs.put(again)
            return
        self._free.release()
        # A slot at a full gateway may be free again.
        self._wake.set()

    def _see_through(self, job: Job) -> None:
        """Do step after step, until the job rests or is due later."""
        with structlog.contextvars.bound_contextvars(job=job.id, request=job.request_id):
            held: Job = job
            try:
                while held.leased_by == self.name and not self._stopping.is_set():
                    held = self._step(held)
                    self._moved(held.id)
            except LeaseLost as error:
                log.warning("job went to another worker", why=str(error))
            except Conflict as error:
                log.error("ledger refuses a step; the job is set aside", why=str(error))
                self._set_aside(held)
            except StorageError as error:
                log.error("ledger does not answer; the job is taken up again later", why=str(error))
            except Exception:
                log.exception("step failed", status=held.status)
                self._set_aside(held)

    def _step(self, job: Job) -> Job:
        with ExitStack() as places:
            if job.status is Status.READY and not places.enter_context(self._lanes.collecting(job)):
                return self._ledger.postpone(job, self.name, due_in_ms=BUSY_MS, counts_as_attempt=False)
            return self._steps[job.status](job, self.name)

    def _set_aside(self, job: Job) -> None:
        try:
            self._ledger.postpone(job, self.name, due_in_ms=MISHAP_MS, ignore_callbacks=True)
        except Exception as error:  # noqa: BLE001 - this thread must not end
            self._metrics.count("darkroom_ledger_errors_total", part="worker")
            log.warning("not set aside; its lease runs out", why=str(error))

    def _renew(self) -> None:
        while not self._stopping.wait(self._ledger.lease_ms / 3000):
            with self._lock:
                held = list(self._held)
            if not held:
                continue
            try:
                self._ledger.renew(self.name, held)
            except Exception as error:  # noqa: BLE001 - this thread must not end
                self._complain("leases not renewed", error)

    def _complain(self, what: str, error: Exception) -> None:
        self._metrics.count("darkroom_ledger_errors_total", part="worker")
        # A traceback only for what nobody expected.
        log.error(what, why=str(error), exc_info=None if isinstance(error, StorageError) else error)
