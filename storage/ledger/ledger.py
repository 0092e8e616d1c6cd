"""Write to the ledger: accept jobs, add deliveries and outputs, claim, move, postpone, reopen."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Connection, bindparam, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from storage.errors import Conflict, NotFound, Unavailable
from storage.group_commit import GroupCommit
from storage.ledger import circuits, deliveries, events, job_counts, leases, search_index, transitions
from storage.ledger.database import Database
from storage.ledger.deliveries import DeliveryResult, NewDelivery
from storage.ledger.job_numbers import NEXT_NUMBER, of_moment
from storage.ledger.leases import ClaimBudget
from storage.ledger.notifications import add_notification
from storage.ledger.rows import Changes, append_attempts, from_changes, new_job, request_digest, to_job
from storage.ledger.schema import jobs, outputs
from storage.ledger.transitions import Change, Later, add_output, row_of, write_changes
from storage.ledger.workers import note_seen
from storage.models import Attempt, Clock, Delivery, Job, JobCounts, JobRequest, Output, Status
from storage.statements import Prepared

LEASE_MS = 30_000
"""How long a worker holds a job without renewing."""

TIES = 100
"""How often a job is inserted again after another writer took its number in the same millisecond."""

BATCH_TURN = 0x6461726C
"""The advisory lock that a batch of jobs holds on PostgreSQL."""

# Built once: to build a statement takes longer than to run it.
_INSERT = insert(jobs).values(number=NEXT_NUMBER).returning(jobs)
_SAME_KEY = select(jobs).where(jobs.c.idempotency_key == bindparam("key"))
_BATCH_TURN = text("SELECT pg_advisory_xact_lock(:turn)").bindparams(turn=BATCH_TURN)
_JOB = select(jobs).where(jobs.c.id == bindparam("id"))
_OUTPUTS = Prepared(select(outputs).where(outputs.c.job_id == bindparam("job")).order_by(outputs.c.index))


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to accept.

    The same idempotency key with the same request is the job of the first time, and a Conflict with another
    request. `notify_url` is as asked: None means `notify_default`, and an empty text nowhere.
    """

    id: str
    gateway: str
    request: JobRequest
    idempotency_key: str | None = None
    notify_url: str | None = None
    notify_default: str | None = None
    request_id: str | None = None


Accepted = tuple[Job, bool]
"""A job, and whether it is new."""


class _More(TypedDict, total=False):
    due_in_ms: int
    applied: Mapping[str, str] | None
    outputs: Sequence[Output]
    answer: Delivery | None


class Ledger:
    """The SQL database of jobs, deliveries and outputs. Thread-safe; every method is one transaction.

    Any method raises Unavailable when the database cannot be reached, written or locked in time.
    """

    def __init__(self, database: Database, clock: Clock, *, lease_ms: int = LEASE_MS) -> None:
        """`lease_ms`: after how long a lease that is not renewed expires, in milliseconds."""
        self._database = database
        self._clock = clock
        self.lease_ms = lease_ms
        self._commits = GroupCommit(self._write_changes)

    def add_jobs(self, asked: Sequence[NewJob]) -> list[Accepted | Conflict]:
        """Accept jobs in one transaction: they are queued, and due now. Returns the result of each."""
        now = self._clock()
        rows = [_row(one, now) for one in asked]
        # Which takes a while: not in a transaction.
        pieces = [search_index.pieces_of(row["prompt_folded"]) for row in rows]
        for _ in range(TIES):
            try:
                with self._database.write() as connection:
                    if self._database.shared and len(rows) > 1:
                        # Two batches that have the same keys in another order would wait for each other.
                        connection.execute(_BATCH_TURN)
                    return _accept_all(connection, rows, pieces)
            except IntegrityError:
                # Two at once: of one key, of one id, or of one millisecond, who then had the same number.
                with self._database.read() as connection:
                    if connection.scalar(select(jobs.c.id).where(jobs.c.id.in_([one.id for one in asked]))):
                        raise
        raise Unavailable("Too many jobs came at once.")

    def known_jobs(self, asked: Sequence[NewJob]) -> list[Job | Conflict | None]:
        """Return what `add_jobs` would find by each idempotency key; None for a job that would be new."""
        with self._database.read() as connection:
            return [_same_key(connection, one.idempotency_key, _digest(one)) for one in asked]

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
        with self._database.write() as connection:
            return leases.claim(connection, worker, room, now=now, lease_ms=self.lease_ms)

    def next_due(self, room: ClaimBudget | None = None) -> int | None:
        """Return when the earliest job without a lease is due; None if there is none, or no room for it."""
        with self._database.read() as connection:
            return leases.next_due(connection, room or ClaimBudget(1), self._clock())

    def renew(self, worker: str, job_ids: Iterable[str]) -> None:
        """Renew the leases of jobs that are still being worked on, and note that the worker works."""
        now = self._clock()
        with self._database.write() as connection:
            leases.renew(connection, worker, job_ids, now + self.lease_ms)
            note_seen(connection, worker, now)

    def repair_clock_skew(self) -> int:
        """Make due what a clock that was since set back had put off; returns how many jobs that were."""
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
        answer: Delivery | None = None,
        outputs: Sequence[Output] = (),
        **changes: Unpack[Changes],
    ) -> Job:
        """Move a job to another status, and mark the deliveries that moved it (`applied`: id to effect).

        In the same transaction `outputs` are inserted, as `add_output` does. `attempts` go into the job's
        log. `at_most` limits how many jobs of its gateway may be leased in the new status, among all workers.
        `answer`, the gateway's to a request of ours, is kept as a delivery.

        Raises Conflict if the move is not legal, LeaseLost if the worker does not hold the lease any more,
        and Crowded if as many are there already as may be.
        """
        moved = transitions.columns_of_move(job, to, attempts, self._clock())
        values = from_changes(changes, job.result) | moved
        lasting = keep_lease and not to.terminal
        more: _More = {"due_in_ms": due_in_ms, "applied": applied, "outputs": outputs, "answer": answer}
        return self._change(job, worker, values, keep_lease=lasting, at_most=at_most, **more)

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
        outputs: Sequence[Output] = (),
        **changes: Unpack[Changes],
    ) -> Job:
        """Keep a job's status, release its lease, and make it due later; insert `outputs` with that.

        `counts_as_attempt`: whether that was a try of the step, which is counted for the backoff. With
        `ignore_callbacks`, pending callbacks do not make it due sooner: for when they cannot be applied now.
        """
        now = self._clock()
        values = from_changes(changes, job.result) | {"updated_at": now}
        values["attempts"] = job.attempts + counts_as_attempt
        if attempts:
            values["attempt_log"] = append_attempts(job.attempt_log, attempts)
        if ignore_callbacks:
            values["next_attempt_at"] = now + due_in_ms
        more: _More = {"due_in_ms": due_in_ms, "applied": applied, "outputs": outputs}
        return self._change(job, worker, values, keep_lease=False, **more)

    def release(self, worker: str) -> None:
        """Release the lease of every job that a worker holds, as it stops."""
        with self._database.write() as connection:
            leases.release(connection, worker)

    def note_submission(
        self, job: Job, gateway_job_id: str | None, request_id: str | None, answer: Delivery | None = None
    ) -> bool:
        """Keep a gateway's response to a worker that has lost its lease; returns whether it was new.

        The worker that holds the job goes on with it; with the `answer` that has the result, at once.
        """
        waiting = jobs.c.status.in_([Status.QUEUED, Status.SUBMITTING]) & jobs.c.gateway_job_id.is_(None)
        mine = update(jobs).where(jobs.c.id == job.id, jobs.c.submission == job.submission, waiting)
        news = mine.values(gateway_job_id=gateway_job_id, gateway_request_id=request_id)
        if answer is not None:
            news = news.values(next_attempt_at=self._clock())
        with transitions.unique_id(), self._database.write() as connection:
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
        unmoved = (jobs.c.status == job.status) & (jobs.c.updated_at == job.updated_at)
        reopened = update(jobs).where(jobs.c.id == job.id, unmoved).returning(jobs)
        reopened = reopened.values(**values, gateway_job_id=gateway_job_id)
        with transitions.unique_id(), self._database.write() as connection:
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

    def _change(
        self,
        job: Job,
        worker: str,
        values: Mapping[str, Any],
        *,
        keep_lease: bool,
        at_most: int | None = None,
        **more: Unpack[_More],
    ) -> Job:
        free = {} if keep_lease else {"leased_by": None, "leased_until": None}
        change = Change(job, worker, {**values, **free}, at_most=at_most, **more)
        if at_most is not None:
            # It waits for other processes that send, which other changes should not.
            return self._write_changes([change])[0]
        return self._commits.run(change)

    def _write_changes(self, changes: Sequence[Change]) -> list[Job]:
        with self._database.write() as connection:
            return write_changes(connection, changes)

    def pending_deliveries(self, job_id: str) -> list[Delivery]:
        """Return the deliveries of a job that were not applied yet, in the order they came."""
        with self._database.autocommit() as connection:
            return deliveries.of_job(connection, job_id, only_pending=True)

    def deliveries(self, job_id: str, *, bodies: bool = True) -> list[Delivery]:
        """Return all deliveries of a job, in the order they came; without `bodies` theirs are empty."""
        with self._database.autocommit() as connection:
            return deliveries.of_job(connection, job_id, bodies=bodies)

    def add_output(self, output: Output) -> None:
        """Insert an archived image, or replace one that is missing; idempotent.

        Raises Conflict if the job has another one at that index.
        """
        with self._database.write() as connection:
            job, later = row_of(connection, output.job_id), Later()
            if job is None:
                raise NotFound(f"There is no job {output.job_id}.")
            add_output(connection, job, output, later)
            later.write(connection)

    def note_missing(self, output: Output) -> bool:
        """Note that the bucket does not have an image any more; returns whether that was not known."""
        there = update(outputs).where(*_of_output(output), outputs.c.missing_since.is_(None))
        with self._database.write() as connection:
            return connection.execute(there.values(missing_since=self._clock())).rowcount == 1

    def note_found(self, output: Output) -> None:
        """Note that the bucket has an image again."""
        with self._database.write() as connection:
            connection.execute(update(outputs).where(*_of_output(output)).values(missing_since=None))

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
            return [Output(**row) for row in _OUTPUTS.rows(connection, {"job": job_id})]

    def job_counts(self) -> dict[str, JobCounts]:
        """Count jobs by status, for each gateway ever used."""
        with self._database.read() as connection:
            return job_counts.count_jobs(connection)

    def ping(self) -> None:
        """Check that the ledger can be written now; raises Unavailable otherwise."""
        with self._database.write() as connection:
            circuits.write_probe_row(connection)


class _Options(Changes, total=False):
    applied: Mapping[str, str]
    attempts: Sequence[Attempt]
    outputs: Sequence[Output]


class MoveOptions(_Options, total=False):
    """The keyword arguments of `Ledger.move`."""

    due_in_ms: int
    keep_lease: bool
    at_most: int
    answer: Delivery | None


class PostponeOptions(_Options, total=False):
    """The keyword arguments of `Ledger.postpone`."""

    counts_as_attempt: bool
    ignore_callbacks: bool


@dataclass(init=False, slots=True)
class Move:
    """Move a job to another status; with `keep_lease` the worker goes on with its next step at once."""

    to: Status
    options: MoveOptions

    def __init__(self, to: Status, **options: Unpack[MoveOptions]) -> None:
        self.to, self.options = to, options

    def write(self, ledger: Ledger, job: Job, worker: str) -> Job:
        """Write it to the ledger."""
        return ledger.move(job, self.to, worker, **self.options)


@dataclass(init=False, slots=True)
class Postpone:
    """Leave a job in its status until it is due again in `due_in_ms` milliseconds."""

    due_in_ms: int
    options: PostponeOptions

    def __init__(self, due_in_ms: int, **options: Unpack[PostponeOptions]) -> None:
        self.due_in_ms, self.options = due_in_ms, options

    def write(self, ledger: Ledger, job: Job, worker: str) -> Job:
        """Write it to the ledger."""
        return ledger.postpone(job, worker, due_in_ms=self.due_in_ms, **self.options)


def _of_output(output: Output) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return outputs.c.job_id == output.job_id, outputs.c.index == output.index


def _row(new: NewJob, now: int) -> dict[str, Any]:
    return new_job(new.id, new.gateway, new.request, now) | {
        "idempotency_key": new.idempotency_key,
        "request_sha256": _digest(new),
        "notify_url": new.notify_default if new.notify_url is None else new.notify_url or None,
        "request_id": new.request_id,
    }


def _digest(new: NewJob) -> str:
    return request_digest(new.gateway, new.request, new.notify_url)


def _accept_all(
    connection: Connection, rows: Sequence[Mapping[str, Any]], pieces: Sequence[str]
) -> list[Accepted | Conflict]:
    found = [_accept(connection, row, words) for row, words in zip(rows, pieces, strict=True)]
    # Last, and in one order, because other writers wait for the counters that it changes.
    new = Counter(one[0].gateway for one in found if not isinstance(one, Conflict) and one[1])
    for gateway, more in sorted(new.items()):
        job_counts.count_accepted(connection, gateway, more)
    return found


def _accept(connection: Connection, row: Mapping[str, Any], pieces: str) -> Accepted | Conflict:
    """Insert a job, its search index and its event, unless its idempotency key was used before."""
    earlier = _same_key(connection, row["idempotency_key"], row["request_sha256"])
    if earlier is not None:
        return earlier if isinstance(earlier, Conflict) else (earlier, False)
    new = connection.execute(_INSERT, {**row, **of_moment(row["created_at"])}).mappings().one()
    search_index.index_job(connection, new, pieces)
    events.note_move(connection, new)
    return to_job(new), True


def _same_key(connection: Connection, key: str | None, digest: str) -> Job | Conflict | None:
    """Return the earlier job with this key, or a Conflict if that was another request."""
    if key is None:
        return None
    earlier = connection.execute(_SAME_KEY, {"key": key}).mappings().one_or_none()
    if earlier is None:
        return None
    if earlier["request_sha256"] != digest:
        return Conflict("This Idempotency-Key was used for another request.")
    return to_job(earlier)
