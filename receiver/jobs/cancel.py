"""Cancel a job before it is sent to its gateway: for certain, or not at all."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

import structlog

from receiver import errors
from receiver.errors import NotCancellable
from receiver.jobs.context import JobContext
from storage.models import Job, Status

NOT_TAKEN = frozenset({errors.RateLimited.code, errors.GatewayUnauthorized.code, errors.OutOfCredits.code})
"""Error codes of a submission that the gateway certainly did not accept, as far as it can be trusted."""

log = structlog.get_logger("darkroom.cancel")


@dataclass(frozen=True, slots=True)
class Canceller:
    """Cancels jobs. Thread-safe."""

    context: JobContext
    moved: Callable[[Job], None]
    """Called with each job that was cancelled."""

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that was not sent yet, and return it; again, if it was cancelled before.

        Raises NotFound; NotCancellable if it is finished, or its gateway has it, or may have it. No gateway
        here has a way to call a job off, so such a job goes on, and what is paid for is archived.
        """
        job, new = self.context.ledger.cancel(job_id, self._check)
        if new:
            self.context.metrics.count("darkroom_moves_total", gateway=job.gateway, status=job.status)
            log.info("cancelled", job=job.id, gateway=job.gateway)
            self.moved(job)
        return job

    def _check(self, job: Job, called_back: bool) -> None:  # noqa: FBT001 - as the ledger calls it
        """Raise NotCancellable unless the gateway certainly does not have the job."""
        if job.status.terminal:
            raise NotCancellable(f"The job is {job.status} already.")
        if job.status in {Status.RUNNING, Status.READY}:
            raise NotCancellable(
                f"{job.gateway} has the job, and no way to cancel it there. It is charged, and its images "
                "are archived when they are ready."
            )
        if job.status is Status.SUBMITTING:
            raise NotCancellable(
                f"The job is being sent to {job.gateway}, which may charge it. If it is not accepted there, "
                "it is queued again, and can be cancelled then."
            )
        if called_back or self._perhaps_taken(job):
            raise NotCancellable(
                f"{job.gateway} may have accepted the job at a try whose answer was lost. If so, the job is "
                "charged, and its images are archived."
            )

    def _perhaps_taken(self, job: Job) -> bool:
        """Return whether an earlier try of this submission may have been accepted."""
        gateway, certain = self.context.gateways.get(job.gateway), NOT_TAKEN
        if gateway is not None and not gateway.idempotent:
            # Whatever may have been accepted there has a code of its own, because it is never sent again.
            certain |= {errors.GatewayUnavailable.code}
        tries = takewhile(lambda tried: tried.step != "retry", reversed(job.attempt_log))
        return any(tried.step == "send" and tried.code not in certain for tried in tries)
