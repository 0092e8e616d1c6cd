"""Claim due jobs and run the step of each one's status, many at a time, under a lease that is renewed."""

import os
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from time import monotonic, perf_counter

import structlog
import uuid_utils

from receiver.jobs.context import JobContext, Step
from receiver.jobs.fair_share import FairShare
from receiver.jobs.leased_pool import LeasedPool
from receiver.telemetry.outage import Outage
from storage.errors import Conflict, LeaseLost, StorageError
from storage.ledger.job_writer import Postpone
from storage.ledger.leases import ClaimBudget
from storage.models import Job, Status

log = structlog.get_logger("darkroom.worker")

MISHAP_MS = 60_000
"""When a job is tried again that met a bug or a contradiction."""

BUSY_MS = 250
"""When a job is looked at again whose gateway has no thread left for downloads."""

SET_BACK_MS = 5_000
"""The clock was set back if it fell behind by more than this."""

CLEAN_EVERY_S = 600.0
CLEAN_BETWEEN_S = 0.05
"""The rest between two transactions of one cleanup, in which others may write."""


class Worker(LeasedPool[Job]):
    """A pool of threads for the steps of jobs."""

    part = "worker"

    def __init__(
        self,
        context: JobContext,
        step: Step,
        *,
        concurrency: int,
        moved: Callable[[Job], None],
        forget: Callable[[], int],
        clean_every_s: float = CLEAN_EVERY_S,
    ) -> None:
        """`moved` is called with each job after each of its steps.

        `forget` deletes a piece of what is not kept for ever, or fills one that a migration left, in a short
        transaction, and returns 0 once nothing is left. There is a thread for each gateway at least, whatever
        the `concurrency`.
        """
        limits = context.sender.limits
        concurrency = max(concurrency, len(limits))
        super().__init__(
            f"{socket.gethostname()[:20]}.{os.getpid()}.{uuid_utils.uuid7().hex[-8:]}",
            concurrency=concurrency,
            clock=context.clock,
            metrics=context.metrics,
            besides=[self._renew, self._clean],
        )
        self._ledger = context.ledger
        self._full = context.sender.full
        self._shares = FairShare(_soonest_first(context, limits), concurrency, limits)
        self._step = step
        self._moved = moved
        self._forget = forget
        self._clean_every_s = clean_every_s
        self._drift_ms = float("inf")
        self._more = True

    def budget(self, room: int, held: Sequence[Job]) -> ClaimBudget:
        """Return how many jobs of each gateway may be claimed beside those that are held."""
        return self._shares.budget(room, [job.gateway for job in held], self._full(), self.ahead)

    def claim(self, room: int, held: Sequence[Job]) -> list[Job]:
        """Lease due jobs, after the ledger was healed if the clock was set back."""
        drift = self._clock() - monotonic() * 1000
        if drift < self._drift_ms - SET_BACK_MS and (healed := self._ledger.repair_clock_skew()):
            log.warning("the clock was set back; jobs put off by it are due now", jobs=healed)
        self._drift_ms = drift
        budget = self.budget(room, held)
        claimed = self._ledger.claim(self.name, budget)
        of = Counter(job.gateway for job in claimed)
        used_up = any(of[gateway] >= budget.of(gateway) for gateway in budget.by_gateway)
        self._more = used_up or len(claimed) >= room or bool(budget.no_images or budget.full)
        return claimed

    @property
    def ahead(self) -> int:
        """How many more jobs are leased than there are threads: as many as ended lately, none if all is slow.

        So that threads which are done in milliseconds find their next one without a claim for each.
        """
        return self.ended_lately

    @property
    def more(self) -> bool:
        """Whether more jobs may have been due than the last claim had room for."""
        return self._more

    def fits(self, one: Job, at_work: Collection[Job]) -> bool:
        """Return whether a job may be begun beside those at work, and take no thread of another gateway."""
        others = [job.gateway for job in at_work]
        return self._shares.fits(one.gateway, others, images=one.status is Status.READY)

    def next_due(self, held: Sequence[Job]) -> int | None:
        """Return when the next job is due that there is room for."""
        return self._ledger.next_due(self.budget(self._concurrency, held))

    def release(self) -> None:
        """Give back the leases of all jobs."""
        self._ledger.release(self.name)

    def work(self, job: Job) -> Job | None:
        """Run step after step, until the job is finished, due later, or has no thread for its images."""
        with structlog.contextvars.bound_contextvars(job=job.id, request=job.request_id):
            held = job
            try:
                while held.leased_by == self.name and not self.stopping.is_set():
                    before, held = held, self.run_step(held)
                    if held is before:
                        return held
                    self._moved(held)
            except LeaseLost as error:
                log.warning("job went to another worker", why=str(error))
            except Conflict as error:
                log.error("ledger refuses a step; the job is set aside", why=str(error))
                self.set_aside(held)
            except StorageError as error:
                log.error("ledger does not answer; the job is tried again later", why=str(error))
            except Exception:
                log.exception("step failed", status=held.status)
                self.set_aside(held)
        if not held.status.terminal:
            self.wake()  # when it is due again is not known to the claims
        return None

    def run_step(self, job: Job) -> Job:
        """Run the step of a job's status, write its outcome, and measure both; return the job as written.

        Where no thread is left for its images, that is the job itself if one will be free in a moment.
        """
        with self._shares.downloading(job.gateway, images=job.status is Status.READY) as free:
            if not free and self.ahead:
                return job
            if not free:
                return Postpone(BUSY_MS, counts_as_attempt=False).write(self._ledger, job, self.name)
            with self._measured(job):
                after = self._step(job).write(self._ledger, job, self.name)
        self._count(job, after)
        return after

    def set_aside(self, job: Job) -> None:
        """Postpone a job whose step raised an unexpected error."""
        try:
            Postpone(MISHAP_MS, ignore_callbacks=True).write(self._ledger, job, self.name)
        except Exception as error:  # noqa: BLE001 - this thread must not end
            self.complain("not set aside; its lease runs out", error)

    @contextmanager
    def _measured(self, job: Job) -> Iterator[None]:
        began = perf_counter()
        self._metrics.change("darkroom_worker_jobs", 1)
        try:
            yield
        except LeaseLost:
            self._metrics.count("darkroom_leases_lost_total")
            raise
        except Exception as error:
            if isinstance(error, StorageError) and not isinstance(error, Conflict):
                self._metrics.count("darkroom_ledger_errors_total", part=self.part)
            else:
                self._metrics.count("darkroom_steps_failed_total", status=job.status)
            raise
        finally:
            self._metrics.change("darkroom_worker_jobs", -1)
            self._metrics.observe("darkroom_step_seconds", perf_counter() - began, status=job.status)

    def _count(self, before: Job, after: Job) -> None:
        for status, _ in after.moves[len(before.moves) :]:
            self._metrics.count("darkroom_moves_total", gateway=after.gateway, status=status)
        if before.found_by is None and after.found_by is not None:
            self._metrics.count("darkroom_results_total", gateway=after.gateway, found_by=after.found_by)

    def _renew(self) -> None:
        """Renew the leases of all jobs in hand, three times in each lease, and be seen.

        A worker that ends sooner is never seen, so one that starts again and again does not pass for one.
        """
        outage = Outage()
        while not self.stopping.wait(self._ledger.lease_ms / 3000):
            try:
                self._ledger.renew(self.name, [job.id for job in self.held()])
            except Exception as error:  # noqa: BLE001 - this thread must not end
                self.complain("leases not renewed", error, silently=not outage.is_news(str(error)))
            else:
                outage.end()

    def _clean(self) -> None:
        """Tidy the ledger at the start and then every ten minutes; several processes may."""
        while not self.stopping.is_set():
            done = 0
            try:
                while not self.stopping.is_set() and (piece := self._forget()):
                    done += piece
                    self.stopping.wait(CLEAN_BETWEEN_S)
            except Exception as error:  # noqa: BLE001 - this thread must not end
                self.complain("ledger not tidied; tried again later", error)
            if done:
                log.info("ledger tidied", rows=done)
            self.stopping.wait(self._clean_every_s)


def _soonest_first(context: JobContext, gateways: Iterable[str]) -> list[str]:
    """Return gateways by how soon links to their images die; of equal shares the first is served first."""

    def life_s(name: str) -> float:
        gateway = context.gateways.get(name)
        return inf if gateway is None or gateway.life_s is None else gateway.life_s

    return sorted(gateways, key=life_s)
