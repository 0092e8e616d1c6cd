"""Read and write jobs, deliveries and outputs: the parts of the ledger behind one door."""

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import bindparam, select, update

from storage.errors import Conflict, NotFound
from storage.ledger import circuits, deliveries, events, job_counts, leases, outputs, transitions
from storage.ledger.database import Database
from storage.ledger.deliveries import DeliveryResult, NewDelivery
from storage.ledger.job_writer import JobWriter, unique_id
from storage.ledger.leases import ClaimBudget
from storage.ledger.notifications import add_notification
from storage.ledger.rows import to_job
from storage.ledger.schema import jobs, still_in
from storage.models import Attempt, Clock, Delivery, Job, JobCounts, Output, Status

LEASE_MS = 30_000
"""How long a worker holds a job without renewing."""

_JOB = select(jobs).where(jobs.c.id == bindparam("id"))


class Ledger(JobWriter):
    """The SQL database of jobs, deliveries and outputs. Thread-safe; every method is one transaction.

    Any method raises Unavailable when the database cannot be reached, written or locked in time.
    """

    def __init__(self, database: Database, clock: Clock, *, lease_ms: int = LEASE_MS) -> None:
        """`lease_ms`: after how long a lease that is not renewed expires, in milliseconds."""
        super().__init__(database, clock)
        self.lease_ms = lease_ms

    def job(self, job_id: str) -> Job:
        """Return one job; raises NotFound."""
        with self._database.autocommit() as connection:
            row = connection.execute(_JOB, {"id": job_id}).mappings().one_or_none()
        if row is None:
            raise NotFound(f"There is no job {job_id}.")
        return to_job(row)

    def add_deliveries(self, offers: Sequence[NewDelivery]) -> list[DeliveryResult]:
        """Insert callbacks in one durable transaction, and make their jobs due; returns each result."""
        now = self._clock()
        with self._database.write() as connection:
            return deliveries.insert_deliveries(connection, offers, now)

    def claim(self, worker: str, room: ClaimBudget | int) -> list[Job]:
        """Lease the jobs that have been due longest to a worker."""
        room = ClaimBudget(room) if isinstance(room, int) else room
        now = self._clock()
        # After a power loss there is no worker left whose lease could count.
        with self._database.write(durable=False) as connection:
            return leases.claim(connection, worker, room, now=now, lease_ms=self.lease_ms)

    def next_due(self, room: ClaimBudget | None = None) -> int | None:
        """Return when the earliest job without a lease is due; None if there is none, or no room for it."""
        with self._database.read() as connection:
            return leases.next_due(connection, room or ClaimBudget(1), self._clock())

    def renew(self, worker: str, job_ids: Iterable[str]) -> None:
        """Renew the leases of jobs that are still being worked on, and note that the worker works."""
        now = self._clock()
        with self._database.write(durable=False) as connection:
            leases.renew(connection, worker, job_ids, now + self.lease_ms)
            leases.note_seen(connection, worker, now)

    def repair_clock_skew(self) -> int:
        """Make due what a clock that was since set back had put off; returns how many jobs that were."""
        with self._database.write() as connection:
            return leases.repair_clock_skew(connection, self._clock(), self.lease_ms)

    def release(self, worker: str) -> None:
        """Release the lease of every job that a worker holds, as it stops."""
        with self._database.write(durable=False) as connection:
            leases.release(connection, worker)

    def note_submission(
        self,
        job: Job,
        gateway_job_id: str | None,
        request_id: str | None,
        answer: Delivery | None = None,
        *,
        poll_url: str | None = None,
    ) -> bool:
        """Keep a gateway's response to a worker that has lost its lease; returns whether it was new.

        The worker that holds the job goes on with it; with the `answer` that has the result, at once.
        """
        waiting = jobs.c.status.in_([Status.QUEUED, Status.SUBMITTING]) & jobs.c.gateway_job_id.is_(None)
        mine = update(jobs).where(jobs.c.id == job.id, jobs.c.submission == job.submission, waiting)
        news = mine.values(gateway_job_id=gateway_job_id, gateway_request_id=request_id, poll_url=poll_url)
        if answer is not None:
            news = news.values(next_attempt_at=self._clock())
        with unique_id(), self._database.write() as connection:
            noted = connection.execute(news).rowcount == 1
            if noted and answer is not None:
                deliveries.insert_answer(connection, answer)
            return noted

    def knows(self, gateway: str, gateway_job_id: str) -> bool:
        """Return whether a job of ours has this id at its gateway."""
        same = (jobs.c.gateway == gateway) & (jobs.c.gateway_job_id == gateway_job_id)
        with self._database.read() as connection:
            return connection.scalar(select(jobs.c.id).where(same)) is not None

    def reopen(self, job: Job, to: Status, attempt: Attempt, *, gateway_job_id: str | None = None) -> Job:
        """Move a job out of a terminal status, as a user's retry; it is due now.

        To queued it begins a new submission, without the gateway's job before. Raises Conflict if that is
        not legal, if another job has that gateway job id, or if the job has moved meanwhile.
        """
        values = transitions.columns_of_reopening(job, to, attempt, self._clock())
        unmoved = still_in(job.status) & (jobs.c.updated_at == job.updated_at)
        reopened = update(jobs).where(jobs.c.id == job.id, unmoved).returning(jobs)
        reopened = reopened.values(**values, gateway_job_id=gateway_job_id)
        with unique_id(), self._database.write() as connection:
            row = connection.execute(reopened).mappings().one_or_none()
            if row is None:
                raise Conflict("The job has moved meanwhile; look at it again.")
            events.note_move(connection, row)
        return to_job(row)

    def cancel(self, job_id: str, check: Callable[[Job, bool], None]) -> tuple[Job, bool]:
        """Cancel a job that was not sent, whoever has its lease: that worker can no longer send it.

        `check` gets the job as it is under a lock, and whether callbacks of it are pending; it raises to
        refuse. Returns the job, and whether it was not cancelled before. Raises NotFound.
        """
        now = self._clock()
        with self._database.write() as connection:
            row = connection.execute(_JOB.with_for_update(), {"id": job_id}).mappings().one_or_none()
            if row is None:
                raise NotFound(f"There is no job {job_id}.")
            job = to_job(row)
            if job.status is Status.CANCELLED:
                return job, False
            check(job, bool(deliveries.of_job(connection, job_id, only_pending=True)))
            values = transitions.columns_of_cancelling(job, now)
            cancelled = update(jobs).where(jobs.c.id == job_id).values(values).returning(jobs)
            row = connection.execute(cancelled).mappings().one()
            events.note_move(connection, row)
            add_notification(connection, row)
        return to_job(row), True

    def call_off(self, job: Job, at: int | None) -> Job:
        """Note when a running job's gateway was told to cancel it, or None: that it refused.

        The job is due now, to be asked about. One that is not running any more stays as it is.
        """
        running = still_in(Status.RUNNING) & (jobs.c.submission == job.submission)
        noted = update(jobs).where(jobs.c.id == job.id, running).values(called_off_at=at)
        with self._database.write() as connection:
            connection.execute(noted.values(next_attempt_at=self._clock()))
            return to_job(connection.execute(_JOB, {"id": job.id}).mappings().one())

    def pending_deliveries(self, job_id: str) -> list[Delivery]:
        """Return the deliveries of a job that were not applied yet, in the order they came."""
        with self._database.autocommit() as connection:
            return deliveries.of_job(connection, job_id, only_pending=True)

    def deliveries(self, job_id: str, *, bodies: bool = True) -> list[Delivery]:
        """Return all deliveries of a job, in the order they came; without `bodies` theirs are empty."""
        with self._database.autocommit() as connection:
            return deliveries.of_job(connection, job_id, bodies=bodies)

    def note_missing(self, output: Output) -> bool:
        """Note that the bucket does not have an image any more; returns whether that was not known."""
        with self._database.write() as connection:
            return outputs.note_missing(connection, output, self._clock())

    def note_found(self, output: Output) -> None:
        """Note that the bucket has an image again."""
        with self._database.write() as connection:
            outputs.note_found(connection, output)

    def newest_job(self, *, with_record: bool = False) -> Job | None:
        """Return the job that was accepted last, or the last one that has a record; None if there is none."""
        newest = select(jobs).order_by(jobs.c.number.desc()).limit(1)
        with self._database.autocommit() as connection:
            wanted = newest.where(jobs.c.records > 0) if with_record else newest
            row = connection.execute(wanted).mappings().one_or_none()
        return None if row is None else to_job(row)

    def unsent_before(self, job: Job, most: int) -> list[Job]:
        """Return the newest jobs before another one that have not been sent yet, for the first time."""
        with self._database.autocommit() as connection:
            found = connection.execute(leases.UNSENT_BEFORE, {"job": job.id, "most": most})
            return [to_job(row) for row in found.mappings()]

    def outputs(self, job_id: str) -> list[Output]:
        """Return the outputs of a job by index."""
        with self._database.autocommit() as connection:
            return outputs.of_job(connection, job_id)

    def job_counts(self) -> dict[str, JobCounts]:
        """Count jobs by status, for each gateway ever used."""
        with self._database.read() as connection:
            return job_counts.count_jobs(connection)

    def ping(self) -> None:
        """Check that the ledger can be written now; raises Unavailable otherwise."""
        with self._database.write() as connection:
            circuits.write_probe_row(connection)
