"""Choose what comes next for a job, by its status."""

from dataclasses import dataclass

from receiver.jobs.archive import Archiver
from receiver.jobs.context import JobContext, Outcome
from receiver.jobs.reconcile import Reconciler
from receiver.jobs.submit import Submitter
from storage.ledger.job_writer import Move
from storage.models import Job, Status


@dataclass(frozen=True, slots=True)
class Steps:
    """The table of steps. Thread-safe."""

    context: JobContext
    submitter: Submitter
    reconciler: Reconciler
    archiver: Archiver

    def run(self, job: Job) -> Outcome:
        """Run the step of a job's status."""
        match job.status:
            case Status.QUEUED if job.moved_at(Status.SUBMITTING) is not None and self._called_back(job):
                # A submission that seemed to fail was accepted: its callback goes first.
                self.context.breaker.not_sent(job.gateway)
                return Move(Status.SUBMITTING, keep_lease=True)
            case Status.QUEUED:
                return self.submitter.send(job)
            case Status.SUBMITTING if not self._called_back(job):
                return self.submitter.recover(job)
            case Status.SUBMITTING | Status.RUNNING:
                return self.reconciler.advance(job)
            case Status.READY:
                return self.archiver.run(job)
        raise AssertionError(f"A job that is {job.status} has no next step.")

    def _called_back(self, job: Job) -> bool:
        return bool(self.context.ledger.pending_deliveries(job.id))
