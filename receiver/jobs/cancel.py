"""Cancel a job: for certain before it is sent, and at its gateway where that has a way to."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

import httpx
import structlog

from receiver import errors
from receiver.errors import NotCancellable
from receiver.jobs.context import JobContext
from storage.models import Job, Status

NOT_TAKEN = frozenset({errors.RateLimited.code, errors.GatewayUnauthorized.code, errors.OutOfCredits.code})
"""Error codes of a submission that the gateway certainly did not accept, as far as it can be trusted."""

log = structlog.get_logger("darkroom.cancel")


class _AtGateway(Exception):
    """The gateway has the job, and a way to cancel it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        super().__init__(job.id)


@dataclass(frozen=True, slots=True)
class Canceller:
    """Cancels jobs. Thread-safe."""

    context: JobContext
    moved: Callable[[Job], None]
    """Called with each job that was cancelled."""

    def cancel(self, job_id: str) -> Job:
        """Cancel a job and return it; again, if it was cancelled before.

        One that was not sent yet is cancelled for certain. One that its gateway has is cancelled there, if
        that has a way to: it stays as it is until the gateway says what became of it. Raises NotFound;
        NotCancellable if it is finished, or its gateway cannot cancel it, or may have it.
        """
        try:
            job, new = self.context.ledger.cancel(job_id, self._check)
        except _AtGateway as there:
            return self._call_off(there.job)
        if new:
            self.context.metrics.count("darkroom_moves_total", gateway=job.gateway, status=job.status)
            log.info("cancelled", job=job.id, gateway=job.gateway)
            self.moved(job)
        return job

    def can_cancel(self, job: Job) -> bool:
        """Return whether it is worth trying."""
        return job.status is Status.QUEUED or (
            job.status is Status.RUNNING and self._request(job) is not None
        )

    def _request(self, job: Job) -> httpx.Request | None:
        gateway = self.context.gateways.get(job.gateway)
        return gateway.cancel_request(job) if gateway is not None and job.gateway_job_id else None

    def _call_off(self, job: Job) -> Job:
        """Tell the gateway to cancel a job. Raises NotCancellable if it does not."""
        gateway, request, ledger = self.context.gateways[job.gateway], self._request(job), self.context.ledger
        assert request is not None
        with self.context.sender.reserve(job.gateway) as free:
            if not free:
                raise NotCancellable(f"{job.gateway} has as many requests as it may have. Try it again.")
            # Before it is told, because its callback may be here before its answer.
            job = ledger.call_off(job, self.context.clock())
            try:
                gateway.read_cancel(self.context.sender.send(request))
            except errors.OutcomeUnknown as error:
                log.warning("called off without an answer", gateway=job.gateway, why=str(error))
            except errors.GatewayError as error:
                ledger.call_off(job, None)
                why = self.context.redactor.text(str(error))
                raise NotCancellable(f"{job.gateway} did not cancel the job, so it goes on. {why}") from error
        log.info("called off", job=job.id, gateway=job.gateway)
        return job

    def _check(self, job: Job, called_back: bool) -> None:  # noqa: FBT001 - as the ledger calls it
        """Raise NotCancellable unless the gateway certainly does not have the job."""
        if job.status.terminal:
            raise NotCancellable(f"The job is {job.status} already.")
        if job.status is Status.RUNNING and self._request(job) is not None:
            raise _AtGateway(job)
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
