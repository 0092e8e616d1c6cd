"""Every write to the ledger, in the words of a job's life."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Unpack

from sqlalchemy import Connection, RowMapping, bindparam, insert, select, update

from storage.errors import Conflict, LeaseLost, NotFound
from storage.ledger import circuits, job_counts, leases
from storage.ledger.accept import accept_once
from storage.ledger.database import Database, inserted
from storage.ledger.deliveries import (
    DECIDED,
    DeliveryResult,
    NewDelivery,
    insert_deliveries,
    mark_applied,
    mark_late,
    of_job,
    scrub,
)
from storage.ledger.events import note_move, note_output
from storage.ledger.leases import ClaimBudget
from storage.ledger.notifications import add_notification
from storage.ledger.rows import Changes, new_job, request_digest, to_job, to_output
from storage.ledger.schema import jobs, outputs
from storage.ledger.search_index import index_output, index_result, pieces_of
from storage.ledger.transitions import (
    CHANGE,
    CHANGE_AND_LISTEN,
    columns_of_move,
    columns_of_postponement,
    columns_of_reopening,
    unique_id,
)
from storage.models import Attempt, Clock, Delivery, Job, JobCounts, JobRequest, Output, Status

LEASE_MS = 30_000
"""How long a worker holds a job without renewing."""

# Made once: to put a statement together takes longer than to run it.
_LOCK = select(jobs.c.id).where(jobs.c.id == bindparam("the_id")).with_for_update()
_JOB = select(jobs).where(jobs.c.id == bindparam("id"))
_OUTPUTS = select(outputs).where(outputs.c.job_id == bindparam("job")).order_by(outputs.c.index)


class Ledger:
    """The SQL database of jobs, deliveries and outputs. Thread-safe; every method is one transaction.

    Any method raises Unavailable when the database cannot be reached, written or locked in time.
    """

    def __init__(self, database: Database, clock: Clock, *, lease_ms: int = LEASE_MS) -> None:
        """`lease_ms`: how long a worker that is not heard of any more keeps its jobs, in milliseconds."""
        self._database = database
        self._clock = clock
        self.lease_ms = lease_ms

    def add_job(
        self,
        job_id: str,
        gateway: str,
        request: JobRequest,
        *,
        idempotency_key: str | None = None,
        notify_url: str | None = None,
        notify_default: str | None = None,
        request_id: str | None = None,
    ) -> tuple[Job, bool]:
        """Accept a job: it is queued, and due now. Answers the job, and whether it is new.

        The same idempotency key with the same request answers the job of the first time; with another one it
        raises Conflict. `notify_url` is as asked: None means `notify_default`, and an empty text nowhere.
        """
        row = new_job(job_id, gateway, request, self._clock()) | {
            "idempotency_key": idempotency_key,
            "request_sha256": request_digest(gateway, request, notify_url),
            "notify_url": notify_default if notify_url is None else notify_url or None,
            "request_id": request_id,
        }
        return accept_once(self._database, row, pieces_of(row["prompt_folded"]))

    def job(self, job_id: str) -> Job:
        """Read one job; raise NotFound."""
        with self._database.autocommit() as connection:
            return _job(connection, job_id)

    def add_deliveries(self, offers: Sequence[NewDelivery]) -> list[DeliveryResult]:
        """Take callbacks in, all in one durable transaction, and wake the jobs that they speak of."""
        now = self._clock()
        with self._database.write() as connection:
            return insert_deliveries(connection, offers, now)

    def claim(self, worker: str, room: ClaimBudget | int) -> list[Job]:
        """Lease the jobs that have been due longest, so that no other worker touches them meanwhile."""
        room = ClaimBudget(room) if isinstance(room, int) else room
        now = self._clock()
        with self._database.write() as connection:
            return leases.claim(connection, worker, room, now=now, lease_ms=self.lease_ms)

    def next_due(self, room: ClaimBudget | None = None) -> int | None:
        """When the earliest job that nobody holds is due; None if there is none, or no room for it."""
        with self._database.read() as connection:
            return leases.next_due(connection, room or ClaimBudget(1), self._clock())

    def renew(self, worker: str, job_ids: Iterable[str]) -> None:
        """Hold on to jobs that are still being worked on."""
        with self._database.write() as connection:
            leases.renew(connection, worker, job_ids, self._clock() + self.lease_ms)

    def repair_clock_skew(self) -> int:
        """Make due what a clock that was since set back had put off; answers how many jobs that were."""
        with self._database.write() as connection:
            return leases.repair_clock_skew(connection, self._clock(), self.lease_ms)

    def move(
        self,
        job: Job,
        to: Status,
        worker: str,
        *,
        due_in_ms: int = 0,
        applied: Mapping[str, str] | None = None,
        attempts: Sequence[Attempt] = (),
        keep_lease: bool = False,
        at_most: int | None = None,
        **changes: Unpack[Changes],
    ) -> Job:
        """Move a job on, and mark the deliveries that moved it (`applied`: delivery id to effect).

        `attempts` are what was tried to get there; they go into the job's log. `at_most` so many jobs of its
        gateway may be in hand where it goes to, among all workers.

        Raises Conflict if the move is not legal, LeaseLost if the worker does not hold the job any more, and
        Crowded if as many are there already as may be.
        """
        values = columns_of_move(job, to, changes, attempts, self._clock())
        lasting = keep_lease and not to.terminal
        return self._update(job, worker, values, due_in_ms, applied, keep_lease=lasting, at_most=at_most)

    def postpone(
        self,
        job: Job,
        worker: str,
        *,
        due_in_ms: int,
        applied: Mapping[str, str] | None = None,
        attempts: Sequence[Attempt] = (),
        counts_as_attempt: bool = True,
        ignore_callbacks: bool = False,
        **changes: Unpack[Changes],
    ) -> Job:
        """Leave a job where it is and let it go until it is due again.

        `counts_as_attempt` says whether that was a try, which is counted, or only a look. While
        `ignore_callbacks`, callbacks that are waiting to be applied do not make it due any sooner: for when
        they cannot be applied now.
        """
        now = self._clock()
        values = columns_of_postponement(job, changes, attempts, now, counts_as_attempt=counts_as_attempt)
        if ignore_callbacks:
            values["next_attempt_at"] = now + due_in_ms
        return self._update(job, worker, values, due_in_ms, applied, keep_lease=False)

    def release(self, worker: str) -> None:
        """Let go of every job that a worker holds, as it stops."""
        with self._database.write() as connection:
            leases.release(connection, worker)

    def note_submission(self, job: Job, gateway_job_id: str, request_id: str | None) -> bool:
        """Keep what a gateway answered a worker that has lost its lease meanwhile, if it is still news.

        Whoever holds the job goes on with it. Answers whether it was kept.
        """
        waiting = jobs.c.status.in_([Status.QUEUED, Status.SUBMITTING]) & jobs.c.gateway_job_id.is_(None)
        mine = update(jobs).where(jobs.c.id == job.id, jobs.c.submission == job.submission, waiting)
        news = mine.values(gateway_job_id=gateway_job_id, gateway_request_id=request_id)
        with unique_id(), self._database.write() as connection:
            return connection.execute(news).rowcount == 1

    def knows(self, gateway: str, gateway_job_id: str) -> bool:
        """Whether a job of ours is known to be that one of its gateway's."""
        same = (jobs.c.gateway == gateway) & (jobs.c.gateway_job_id == gateway_job_id)
        with self._database.read() as connection:
            return connection.scalar(select(jobs.c.id).where(same)) is not None

    def reopen(self, job: Job, to: Status, attempt: Attempt, *, gateway_job_id: str | None = None) -> Job:
        """Take a job out of a terminal state, because somebody asked for it; it is due now.

        To queued it begins a new submission, which knows nothing of the gateway's job before. Raises Conflict
        if that is not legal, if another job has that gateway job id, or if the job has moved meanwhile.
        """
        values = columns_of_reopening(job, to, attempt, self._clock()) | {"gateway_job_id": gateway_job_id}
        unmoved = (jobs.c.status == job.status) & (jobs.c.updated_at == job.updated_at)
        reopened = update(jobs).where(jobs.c.id == job.id, unmoved).values(values).returning(jobs)
        with unique_id(), self._database.write() as connection:
            row = connection.execute(reopened).mappings().one_or_none()
            if row is None:
                raise Conflict("The job has moved meanwhile; look at it again.")
            note_move(connection, row, row["updated_at"])
        return to_job(row)

    def _update(
        self,
        job: Job,
        worker: str,
        values: dict[str, Any],
        due_in_ms: int,
        applied: Mapping[str, str] | None,
        *,
        keep_lease: bool,
        at_most: int | None = None,
    ) -> Job:
        # One reading of the clock for all of a change, so that its times agree.
        now = values["updated_at"]
        if not keep_lease:
            values |= {"leased_by": None, "leased_until": None}
        status = values.get("status", job.status)
        change = CHANGE if "next_attempt_at" in values else CHANGE_AND_LISTEN
        known = {"the_id": job.id, "the_status": job.status, "the_worker": worker}
        known |= {"now": now, "later": now + due_in_ms}
        with self._database.write() as connection:
            if self._database.shared:
                # Locked before anything is read, so that a callback comes either wholly before or after this.
                connection.execute(_LOCK, known)
            if at_most is not None:
                leases.must_have_room(connection, job.gateway, status, at_most, now)
            for delivery_id, effect in (applied or {}).items():
                mark_applied(connection, delivery_id, effect, now)
            if status in DECIDED:
                mark_late(connection, job.id, now)
            if status.terminal:
                scrub(connection, job.id)
            with unique_id():
                row = connection.execute(change, known | values).mappings().one_or_none()
            if row is None:
                raise LeaseLost(f"Job {job.id} is not held by this worker any more.")
            _tell(connection, row, values)
            return to_job(row)

    def pending_deliveries(self, job_id: str) -> list[Delivery]:
        """List the deliveries of a job that were not applied yet, in the order they came."""
        with self._database.autocommit() as connection:
            return of_job(connection, job_id, only_pending=True)

    def deliveries(self, job_id: str) -> list[Delivery]:
        """List all deliveries of a job, in the order they came."""
        with self._database.autocommit() as connection:
            return of_job(connection, job_id)

    def add_output(self, output: Output) -> None:
        """Note an image that is in the archive; again is the same as once.

        Raises Conflict if the job has another image at that index.
        """
        here = (outputs.c.job_id == output.job_id) & (outputs.c.index == output.index)
        with self._database.write() as connection:
            if not inserted(connection, insert(outputs).values(asdict(output))):
                known = connection.scalar(select(outputs.c.sha256).where(here))
                if known != output.sha256:
                    raise Conflict(f"Output {output.id} is archived with another digest.")
                return
            row = connection.execute(_JOB, {"id": output.job_id}).mappings().one()
            note_output(connection, row, output)
            # Last, because others wait for the rows in which it counts.
            index_output(connection, row, output)

    def outputs(self, job_id: str) -> list[Output]:
        """List the outputs of a job by index."""
        with self._database.autocommit() as connection:
            return [to_output(row) for row in connection.execute(_OUTPUTS, {"job": job_id}).mappings()]

    def job_counts(self) -> dict[str, JobCounts]:
        """Count jobs by state, for each gateway ever used."""
        with self._database.read() as connection:
            return job_counts.count_jobs(connection)

    def ping(self) -> None:
        """Prove that the ledger can be written now; raise Unavailable otherwise."""
        with self._database.write() as connection:
            circuits.try_out(connection)


def _tell(connection: Connection, job: RowMapping, changed: Mapping[str, Any]) -> None:
    """Keep up what else speaks of a job that has just changed."""
    if "result_model" in changed:
        index_result(connection, job)
    if "status" in changed:
        note_move(connection, job, job["updated_at"])
        if Status(job["status"]).terminal:
            add_notification(connection, job, job["updated_at"])


def _job(connection: Connection, job_id: str) -> Job:
    row = connection.execute(_JOB, {"id": job_id}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no job {job_id}.")
    return to_job(row)
