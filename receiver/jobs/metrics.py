"""Measure the work: each step as it is done, and what lies in the ledger whenever somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

from receiver.cache import TtlCache
from receiver.jobs.worker import Step
from receiver.schedule import REMEMBERED_S, age_s
from receiver.telemetry.metrics import Metrics, Read, Values
from storage.errors import Conflict, LeaseLost, StorageError
from storage.ledger.backlog import Backlog
from storage.ledger.ledger import Ledger
from storage.models import Clock, Job, JobCounts, Status


class Measured:
    """Puts measuring around steps, which therefore know nothing of it. Thread-safe."""

    def __init__(self, metrics: Metrics, backlog: Backlog) -> None:
        self._metrics = metrics
        self._backlog = backlog

    def steps(self, steps: Mapping[Status, Step]) -> dict[Status, Step]:
        """The same steps, measured."""
        return {status: self._around(step) for status, step in steps.items()}

    def _around(self, step: Step) -> Step:
        def measured(job: Job, worker: str) -> Job:
            began = perf_counter()
            self._metrics.change("darkroom_worker_jobs", 1)
            try:
                after = step(job, worker)
            except Exception as error:
                self._failed(job, error)
                raise
            finally:
                self._metrics.change("darkroom_worker_jobs", -1)
                self._metrics.observe("darkroom_step_seconds", perf_counter() - began, status=job.status)
            self._note(job, after)
            return after

        return measured

    def _failed(self, job: Job, error: Exception) -> None:
        if isinstance(error, LeaseLost):
            self._metrics.count("darkroom_leases_lost_total")
        elif isinstance(error, StorageError) and not isinstance(error, Conflict):
            self._metrics.count("darkroom_ledger_errors_total", part="worker")
        else:
            self._metrics.count("darkroom_steps_failed_total", status=job.status)

    def _note(self, before: Job, after: Job) -> None:
        for status, _ in after.moves[len(before.moves) :]:
            self._metrics.count("darkroom_moves_total", gateway=after.gateway, status=status)
        if before.found_by is None and after.found_by is not None:
            self._metrics.count("darkroom_results_total", gateway=after.gateway, found_by=after.found_by)
        if after.status in {Status.ARCHIVED, Status.PARTIAL} and not before.status.terminal:
            seconds = (after.updated_at - self._known_since(after)) / 1000
            self._metrics.observe("darkroom_result_to_archive_seconds", seconds, gateway=after.gateway)

    def _known_since(self, job: Job) -> int:
        """When the callback came that told of a job's result; of one that was polled, when it was ready."""
        ready = job.moved_at(Status.READY) or job.created_at
        try:
            told = self._backlog.result_callback_at(job.id)
        except StorageError:
            told = None
        return ready if told is None else min(told, ready)


def from_process(waiting: Callable[[], int]) -> Read:
    """Read what lies in this process' memory: callbacks waiting for a commit."""
    return lambda: {"darkroom_intake_waiting_callbacks": waiting()}


def from_ledger(ledger: Ledger, backlog: Backlog, clock: Clock) -> Read:
    """Read the job counts and the backlog, a few seconds old at most."""
    known = TtlCache(lambda: (ledger.job_counts(), backlog.read()), REMEMBERED_S)

    def read() -> Values:
        pages, waiting = known()
        return {
            "darkroom_jobs": {
                (gateway, status): page.counts[status] for gateway, page in pages.items() for status in Status
            },
            "darkroom_jobs_accepted_total": _by_gateway(pages, lambda page: page.accepted),
            "darkroom_jobs_found_by_polling": _by_gateway(pages, lambda page: page.found_by_polling),
            "darkroom_status_balanced": all(page.balanced for page in pages.values()),
            "darkroom_oldest_unfinished_job_age_seconds": _by_gateway(
                pages, lambda page: age_s(page.oldest_unfinished_at, clock)
            ),
            "darkroom_jobs_due": waiting.jobs_due,
            "darkroom_deliveries_waiting": waiting.deliveries,
        }

    return read


def from_results(oldest_ready_at: Callable[[], int | None], clock: Clock) -> Read:
    """Read the age of the oldest result that is not archived; `oldest_ready_at` says when it was ready."""
    return lambda: {"darkroom_oldest_unarchived_result_age_seconds": age_s(oldest_ready_at(), clock)}


def from_pauses(reasons: Callable[[], Mapping[str, str]]) -> Read:
    """Read which gateways are paused; `reasons` answers the error code of each one's reason."""
    return lambda: {"darkroom_gateway_paused": dict.fromkeys(reasons().items(), 1)}


def _by_gateway(
    pages: Mapping[str, JobCounts], value: Callable[[JobCounts], float]
) -> dict[tuple[str, ...], float]:
    return {(gateway,): value(page) for gateway, page in pages.items()}
