"""Retry a job that lacks images: ask its gateway for the result again, or on request resubmit it."""

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from receiver.errors import ImageMissing, MalformedCallback, NeedsResubmit, NotRetryable
from receiver.jobs.context import JobContext
from storage.errors import Conflict
from storage.ledger.transitions import REOPENS
from storage.models import Attempt, Job, Output, Status, Verdict

log = structlog.get_logger("darkroom.retry")

SAID_NO = frozenset({"generation_failed"})
"""Where the gateway itself said that there will be no image: it would only say so again."""
RESUBMIT = "Fix: resubmit the job, which sends it to the gateway again and may be charged."


@dataclass(frozen=True, slots=True)
class Retrier:
    """Reopens jobs. Thread-safe."""

    context: JobContext
    check_image: Callable[[Output], None]
    """Raises ImageMissing if the bucket certainly lacks an archived image."""

    def retry(self, job_id: str, *, resubmit: bool = False) -> Job:
        """Put one job back to work and return it: its gateway is asked for the result again, without charge.

        An archived job goes back to work only if the bucket lacks some of its images. `resubmit` sends it to
        the gateway again, which may be charged again. Raises NotFound; NotRetryable if nothing is missing, or
        the job has images that a new submission would contradict; NeedsResubmit if asking cannot help; and
        the errors of the bucket.
        """
        job = self.context.ledger.job(job_id)
        if job.status not in REOPENS:
            raise NotRetryable(f"The job is {job.status}; only one that is finished can be retried.")
        missing = self._missing(job)
        if job.status is Status.ARCHIVED and not missing:
            raise NotRetryable("The job is archived, and all of its images are in the bucket.")
        if resubmit:
            return self._submit_again(job)
        if Status.RUNNING not in REOPENS[job.status]:
            raise NeedsResubmit(f"The job was cancelled before {job.gateway} had it. {RESUBMIT}")
        theirs = job.gateway_job_id or self._id_by_callback(job)
        if theirs is None:
            raise NeedsResubmit(
                f"{job.gateway} gave no id for this job, so its result cannot be requested. {RESUBMIT}"
            )
        if job.error is not None and job.error.code in SAID_NO:
            raise NeedsResubmit(
                f"{job.gateway} reported that this job failed, and would report the same again. {RESUBMIT}"
            )
        return self._reopen(job, Status.RUNNING, "Retried: the gateway is asked again.", theirs)

    def _missing(self, job: Job) -> bool:
        """Return whether images of a job are missing; raise NotRetryable if others are in their place."""
        missing = False
        for output in self.context.ledger.outputs(job.id):
            try:
                self.check_image(output)
            except ImageMissing as error:
                missing = True
                if error.found is not None:
                    raise NotRetryable(str(error)) from error
        return missing

    def _submit_again(self, job: Job) -> Job:
        if any(output.missing_since is None for output in self.context.ledger.outputs(job.id)):
            raise NotRetryable(
                "Some images of this job are archived, and a new submission would make others. "
                "Retry it without resubmit, or submit it as a new job."
            )
        was = f", in place of {job.gateway_job_id}" if job.gateway_job_id else ""
        return self._reopen(job, Status.QUEUED, f"Resubmitted{was}.", None)

    def _reopen(self, job: Job, to: Status, why: str, theirs: str | None) -> Job:
        attempt = Attempt.once("retry", "asked", why, self.context.clock())
        try:
            reopened = self.context.ledger.reopen(job, to, attempt, gateway_job_id=theirs)
        except Conflict as error:
            raise NotRetryable(str(error)) from error
        log.info("reopened", job=job.id, gateway=job.gateway, was=job.status, to=to)
        return reopened

    def _id_by_callback(self, job: Job) -> str | None:
        """Return the gateway's id of a job that only a callback has, perhaps one after the job had failed."""
        gateway = self.context.gateways.get(job.gateway)
        if gateway is None or job.submission > 1:
            return None
        for delivery in reversed(self.context.ledger.deliveries(job.id)):
            if delivery.signature is Verdict.ANSWER:
                continue
            try:
                found = gateway.read_callback(delivery.body).gateway_job_id
            except MalformedCallback:
                continue
            if found is not None and delivery.effect != "mismatch":
                return found
        return None
