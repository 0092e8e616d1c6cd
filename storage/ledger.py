"""Every write to the ledger, in the words of a job's life."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Unpack

from sqlalchemy import ColumnElement, Connection, Update, case, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from storage.books import count_accepted, read_books
from storage.database import Database, inserted
from storage.deliveries import DECIDED, Offer, Receipt, mark_applied, pending, scrub, take_in
from storage.errors import Conflict, LeaseLost, NotFound
from storage.records import MOVES, Books, Clock, Delivery, Job, JobRequest, Output, Status
from storage.rows import Changes, from_changes, request_digest, to_delivery, to_job, to_output
from storage.schema import accepted, deliveries, jobs, outputs

LEASE_MS = 30_000
"""How long a worker holds a job without renewing."""


class Ledger:
    """The SQL database of jobs, deliveries and outputs. Thread-safe; every method is one transaction.

    Any method raises Unavailable when the database cannot be reached, written or locked in time.
    """

    def __init__(self, database: Database, clock: Clock, *, lease_ms: int = LEASE_MS) -> None:
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
    ) -> tuple[Job, bool]:
        """Accept a job: it is queued, and due now. Answers the job, and whether it is new.

        The same idempotency key with the same request answers the job of the first time; with another
        request it raises Conflict.
        """
        now = self._clock()
        row = {
            "id": job_id,
            "gateway": gateway,
            "status": Status.QUEUED,
            "idempotency_key": idempotency_key,
            "request_sha256": request_digest(gateway, request, notify_url),
            "notify_url": notify_url,
            "prompt_folded": request.prompt.casefold(),
            "callback_expected": False,
            "credits_estimated": False,
            "images": [],
            "attempts": 0,
            "next_attempt_at": now,
            "created_at": now,
            "updated_at": now,
            "moves": [[Status.QUEUED, now]],
            **asdict(request),
        }
        try:
            with self._database.write() as connection:
                if earlier := _same_key(connection, row):
                    return earlier, False
                connection.execute(insert(jobs).values(row))
                count_accepted(connection, gateway)
                return _job(connection, job_id), True
        except IntegrityError:
            # Two of the same key at the same instant, on a database where writers do not queue up.
            with self._database.read() as connection:
                if earlier := _same_key(connection, row):
                    return earlier, False
            raise

    def job(self, job_id: str) -> Job:
        """Read one job; raise NotFound."""
        with self._database.read() as connection:
            return _job(connection, job_id)

    def record(self, offers: Sequence[Offer]) -> list[Receipt]:
        """Take callbacks in, all in one durable transaction, and wake the jobs that they speak of."""
        now = self._clock()
        with self._database.write() as connection:
            return take_in(connection, offers, now)

    def claim(self, worker: str, limit: int, *, full: Collection[str] = ()) -> list[Job]:
        """Lease the jobs that have been due longest, so that no other worker touches them meanwhile.

        What is queued for a gateway that is `full` is left alone.
        """
        now = self._clock()
        due = (
            select(jobs.c.id)
            .where(jobs.c.next_attempt_at <= now, func.coalesce(jobs.c.leased_until, 0) <= now)
            .where(_sendable(full))
            .order_by(jobs.c.next_attempt_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        lease = (
            update(jobs)
            .where(jobs.c.id.in_(due))
            .values(leased_by=worker, leased_until=now + self.lease_ms)
            .returning(jobs)
        )
        with self._database.write() as connection:
            return [to_job(row) for row in connection.execute(lease).mappings()]

    def next_due(self, *, full: Collection[str] = ()) -> int | None:
        """When the earliest job that nobody holds is due; None if there is none."""
        free = select(jobs.c.next_attempt_at).where(
            jobs.c.next_attempt_at.is_not(None), jobs.c.leased_by.is_(None), _sendable(full)
        )
        with self._database.read() as connection:
            return connection.scalar(free.order_by(jobs.c.next_attempt_at).limit(1))

    def renew(self, worker: str, job_ids: Iterable[str]) -> None:
        """Hold on to jobs that are still being worked on."""
        kept = _held(worker).where(jobs.c.id.in_(list(job_ids)))
        with self._database.write() as connection:
            connection.execute(kept.values(leased_until=self._clock() + self.lease_ms))

    def move(
        self,
        job: Job,
        to: Status,
        worker: str,
        *,
        due_in_ms: int = 0,
        applied: Mapping[str, str] | None = None,
        keep_lease: bool = False,
        **changes: Unpack[Changes],
    ) -> Job:
        """Move a job on, and mark the deliveries that moved it (`applied`: delivery id to effect).

        Raises Conflict if the move is not legal, and LeaseLost if the worker does not hold the job any more.
        """
        if to not in MOVES[job.status]:
            raise Conflict(f"A job cannot move from {job.status} to {to}.")
        now = self._clock()
        values = from_changes(changes) | {
            "status": to,
            "attempts": _attempts_after(job, to),
            "updated_at": now,
            "moves": [[moved, at] for moved, at in job.moves] + [[to, now]],
        }
        if to.terminal:
            values |= {"next_attempt_at": None, "images": []}
        return self._update(
            job, worker, values, due_in_ms, applied, keep_lease=keep_lease and not to.terminal
        )

    def postpone(
        self,
        job: Job,
        worker: str,
        *,
        due_in_ms: int,
        applied: Mapping[str, str] | None = None,
        attempted: bool = True,
        deaf: bool = False,
        **changes: Unpack[Changes],
    ) -> Job:
        """Leave a job where it is and let it go until it is due again.

        `attempted` says whether that was a try, which is counted, or only a look. While `deaf`, callbacks
        that are waiting to be applied do not make it due any sooner: for when they cannot be applied now.
        """
        now = self._clock()
        values = from_changes(changes) | {"attempts": job.attempts + attempted, "updated_at": now}
        if deaf:
            values["next_attempt_at"] = now + due_in_ms
        return self._update(job, worker, values, due_in_ms, applied, keep_lease=False)

    def release(self, worker: str) -> None:
        """Let go of every job that a worker holds, as it stops."""
        with self._database.write() as connection:
            connection.execute(_held(worker).values(leased_by=None, leased_until=None))

    def _update(
        self,
        job: Job,
        worker: str,
        values: dict[str, Any],
        due_in_ms: int,
        applied: Mapping[str, str] | None,
        *,
        keep_lease: bool,
    ) -> Job:
        # One reading of the clock for all of a change, so that its times agree.
        now = values["updated_at"]
        if not keep_lease:
            values |= {"leased_by": None, "leased_until": None}
        with self._database.write() as connection:
            # Locked before anything is read, so that a callback comes either wholly before or after this.
            connection.execute(select(jobs.c.id).where(jobs.c.id == job.id).with_for_update())
            for delivery_id, effect in (applied or {}).items():
                mark_applied(connection, deliveries.c.id == delivery_id, effect, now)
            status = values.get("status", job.status)
            if status in DECIDED:
                mark_applied(connection, deliveries.c.job_id == job.id, "late", now)
            if status.terminal:
                scrub(connection, job.id)
            # A callback that came in the meantime makes the job due at once.
            values.setdefault("next_attempt_at", case((pending(job.id), now), else_=now + due_in_ms))
            held = _held(worker).where(jobs.c.id == job.id, jobs.c.status == job.status)
            try:
                row = connection.execute(held.values(values).returning(jobs)).mappings().one_or_none()
            except IntegrityError as error:
                raise Conflict("Another job has that gateway job id already.") from error
            if row is None:
                raise LeaseLost(f"Job {job.id} is not held by this worker any more.")
            return to_job(row)

    def pending_deliveries(self, job_id: str) -> list[Delivery]:
        """List the deliveries of a job that were not applied yet, in the order they came."""
        return self._deliveries(deliveries.c.job_id == job_id, deliveries.c.applied_at.is_(None))

    def deliveries(self, job_id: str) -> list[Delivery]:
        """List all deliveries of a job, in the order they came."""
        return self._deliveries(deliveries.c.job_id == job_id)

    def _deliveries(self, *where: Any) -> list[Delivery]:
        query = select(deliveries).where(*where).order_by(deliveries.c.received_at, deliveries.c.id)
        with self._database.read() as connection:
            return [to_delivery(row) for row in connection.execute(query).mappings()]

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

    def outputs(self, job_id: str) -> list[Output]:
        """List the outputs of a job by index."""
        query = select(outputs).where(outputs.c.job_id == job_id).order_by(outputs.c.index)
        with self._database.read() as connection:
            return [to_output(row) for row in connection.execute(query).mappings()]

    def books(self) -> dict[str, Books]:
        """Add up the books, a page for each gateway that was ever used."""
        with self._database.read() as connection:
            return read_books(connection)

    def ping(self) -> None:
        """Prove that the ledger can be written now; raise Unavailable otherwise."""
        with self._database.write() as connection:
            connection.execute(update(accepted).values(jobs=accepted.c.jobs))


def _attempts_after(job: Job, to: Status) -> int:
    # Sending and falling back are tries of one step, so that they back off together.
    if to is Status.QUEUED:
        return job.attempts + 1
    return job.attempts if to is Status.SUBMITTING else 0


def _job(connection: Connection, job_id: str) -> Job:
    row = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"There is no job {job_id}.")
    return to_job(row)


def _same_key(connection: Connection, row: Mapping[str, Any]) -> Job | None:
    if row["idempotency_key"] is None:
        return None
    same = select(jobs).where(jobs.c.idempotency_key == row["idempotency_key"])
    earlier = connection.execute(same).mappings().one_or_none()
    if earlier is None:
        return None
    if earlier["request_sha256"] != row["request_sha256"]:
        raise Conflict("This Idempotency-Key was used for another request.")
    return to_job(earlier)


def _sendable(full: Collection[str]) -> ColumnElement[bool]:
    return or_(jobs.c.status != Status.QUEUED, jobs.c.gateway.not_in(full))


def _held(worker: str) -> Update:
    return update(jobs).where(jobs.c.leased_by == worker)
