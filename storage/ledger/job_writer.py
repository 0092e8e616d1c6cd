"""Write jobs: accept them, and move or postpone them for the workers that hold their lease.

The changes of several leased jobs are written in one transaction: outputs, moves, events, search index.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypedDict, Unpack

import sqlalchemy as sa
from sqlalchemy import bindparam, case, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from storage.errors import Conflict, LeaseLost, Unavailable
from storage.ledger import deliveries, events, job_counts, leases, search_index, transitions
from storage.ledger.database import Database
from storage.ledger.deliveries import pending
from storage.ledger.engine import pipelined
from storage.ledger.job_numbers import NEXT_NUMBER, of_moment
from storage.ledger.notifications import add_notification
from storage.ledger.outputs import Later, add_output
from storage.ledger.rows import REQUEST_FIELDS, error_columns, to_job
from storage.ledger.schema import jobs, still_in
from storage.ledger.transitions import append_attempts
from storage.models import (
    Attempt,
    Clock,
    Delivery,
    FoundBy,
    Job,
    JobError,
    JobRequest,
    JobResult,
    Output,
    Status,
)
from storage.statements import GroupCommit, Prepared, Row

TIES = 100
"""How often a job is inserted again after another writer took its number in the same millisecond."""

BATCH_TURN = 0x6461726C
"""The advisory lock that a batch of jobs holds on PostgreSQL."""

_RELEASED = {"leased_by": None, "leased_until": None}
# Built once: to build a statement takes longer than to run it.
_INSERT = insert(jobs).values(number=NEXT_NUMBER).returning(jobs)
_SAME_KEY = select(jobs).where(jobs.c.idempotency_key == bindparam("key"))
_BATCH_TURN = text("SELECT pg_advisory_xact_lock(:turn)").bindparams(turn=BATCH_TURN)
_LOCK = Prepared(
    sa.select(jobs.c.id)
    .where(jobs.c.id == sa.any_(bindparam("ids", type_=sa.ARRAY(sa.String))))
    # Always in one order, so that two transactions can never deadlock.
    .order_by(jobs.c.id)
    .with_for_update()
)
_UPDATE = (
    update(jobs)
    .where(jobs.c.id == bindparam("the_id"), still_in(bindparam("the_status")))
    .where(jobs.c.leased_by == bindparam("the_worker"), jobs.c.submission == bindparam("the_submission"))
    .returning(jobs)
)
"""Set columns of a job that is still in `the_status` and leased by `the_worker`.

And in `the_submission`: the same worker may have leased it again after it was cancelled and resubmitted.
"""

_CHANGE = Prepared(_UPDATE)
_CHANGE_AND_LISTEN = Prepared(
    _UPDATE.values(
        next_attempt_at=case((pending(bindparam("the_id")), bindparam("now")), else_=bindparam("later"))
    )
)
"""The same, and due `later`; or `now`, if it has a pending callback."""


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


class Changes(TypedDict, total=False):
    """What a step may set on a job."""

    gateway_job_id: str | None
    gateway_request_id: str | None
    poll_url: str | None
    callback_expected: bool
    sent: Mapping[str, Any]
    result: JobResult
    found_by: FoundBy | None
    error: JobError | None
    records: int
    submission_at: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a worker writes of a job that it has leased."""

    job: Job
    worker: str
    values: Mapping[str, Any]
    """Columns of the job; `updated_at` is the one time for all of the change."""
    due_in_ms: int = 0
    applied: Mapping[str, str] | None = None
    """Deliveries that it applies: id to effect."""
    outputs: Sequence[Output] = ()
    """Images that were archived."""
    answer: Delivery | None = None
    """The gateway's answer to a request of ours, which is kept as a delivery."""
    at_most: int | None = None
    """How many jobs of its gateway may be leased in the new status, among all workers."""

    @property
    def status(self) -> Status:
        """The status that the job has after it."""
        return Status(self.values.get("status", self.job.status))


class JobWriter:
    """Accepts jobs, and writes what their steps decide. Thread-safe."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
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

        In the same transaction `outputs` are inserted. `attempts` go into the job's log. `at_most` limits how
        many jobs of its gateway may be leased in the new status, among all workers. `answer`, the gateway's
        to a request of ours, is kept as a delivery.

        Raises Conflict if the move is not legal, or an output is another than the ledger has; LeaseLost if
        the worker does not hold the lease any more; Crowded if as many are there already as may be.
        """
        moved = transitions.columns_of_move(job, to, attempts, self._clock())
        values = from_changes(changes, job.result) | moved
        if not keep_lease or to.terminal:
            values |= _RELEASED
        change = Change(job, worker, values, due_in_ms, applied, outputs, answer, at_most)
        if at_most is None:
            return self._commits.run(change)
        # It waits for other processes that send, which other changes should not.
        return self._write_changes([change])[0]

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
        return self._commits.run(Change(job, worker, values | _RELEASED, due_in_ms, applied, outputs))

    def _write_changes(self, changes: Sequence[Change]) -> list[Job]:
        with self._database.write() as connection, _pipelined(connection, changes):
            return write_changes(connection, changes)


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

    def write(self, ledger: JobWriter, job: Job, worker: str) -> Job:
        """Write it to the ledger."""
        return ledger.move(job, self.to, worker, **self.options)


@dataclass(init=False, slots=True)
class Postpone:
    """Leave a job in its status until it is due again in `due_in_ms` milliseconds."""

    due_in_ms: int
    options: PostponeOptions

    def __init__(self, due_in_ms: int, **options: Unpack[PostponeOptions]) -> None:
        self.due_in_ms, self.options = due_in_ms, options

    def write(self, ledger: JobWriter, job: Job, worker: str) -> Job:
        """Write it to the ledger."""
        return ledger.postpone(job, worker, due_in_ms=self.due_in_ms, **self.options)


def from_changes(changes: Changes, known: JobResult) -> dict[str, Any]:
    """Return the columns of `jobs` that changes set; less certain credits do not overwrite `known` ones."""
    others = ((name, value) for name, value in changes.items() if name not in {"result", "error"})
    columns: dict[str, Any] = dict(others)
    if (result := changes.get("result")) is not None:
        paid = max(result, known, key=_certainty)
        columns |= {
            "result_model": result.model,
            "result_seed": result.seed,
            "echoed_seed": result.echoed_seed,
            "credits": paid.credits,
            "credits_estimated": paid.credits_estimated,
            "images": [asdict(image) for image in result.images],
            "reply": result.reply,
        }
        if result.images_returned is not None:
            columns["images_returned"] = result.images_returned
            columns["withheld"] = [asdict(one) for one in result.withheld] or None
    if "error" in changes:
        columns |= error_columns(changes["error"])
    return columns


def _certainty(result: JobResult) -> int:
    """Rank what is known of credits: reported by the gateway, estimated, unknown."""
    if result.credits is None:
        return 0
    return 1 if result.credits_estimated else 2


def _asked(request: JobRequest) -> dict[str, Any]:
    # `asdict` would copy every value, and take twenty times as long.
    return {name: getattr(request, name) for name in (*REQUEST_FIELDS, "ignored")}


def new_job(job_id: str, gateway: str, request: JobRequest, now: int) -> dict[str, Any]:
    """Return the columns of a job that is queued, and due now."""
    return {
        "id": job_id,
        "gateway": gateway,
        "status": Status.QUEUED,
        "prompt_folded": search_index.fold(request.prompt),
        "callback_expected": False,
        "credits_estimated": False,
        "images": [],
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
        "updated_at": now,
        "moves": [[Status.QUEUED, now]],
        **_asked(request),
    }


def request_digest(gateway: str, request: JobRequest, notify_url: str | None) -> str:
    """Return a digest of a request, by which a reused idempotency key is checked."""
    asked = json.dumps([gateway, _asked(request), notify_url], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()


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
    connection: sa.Connection, rows: Sequence[Mapping[str, Any]], pieces: Sequence[str]
) -> list[Accepted | Conflict]:
    found = [_accept(connection, row, words) for row, words in zip(rows, pieces, strict=True)]
    # Last, and in one order, because other writers wait for the counters that it changes.
    new = Counter(one[0].gateway for one in found if not isinstance(one, Conflict) and one[1])
    for gateway, more in sorted(new.items()):
        job_counts.count_accepted(connection, gateway, more)
    return found


def _accept(connection: sa.Connection, row: Mapping[str, Any], pieces: str) -> Accepted | Conflict:
    """Insert a job, its search index and its event, unless its idempotency key was used before."""
    earlier = _same_key(connection, row["idempotency_key"], row["request_sha256"])
    if earlier is not None:
        return earlier if isinstance(earlier, Conflict) else (earlier, False)
    new = connection.execute(_INSERT, {**row, **of_moment(row["created_at"])}).mappings().one()
    search_index.index_job(connection, new, pieces)
    events.note_move(connection, new)
    return to_job(new), True


def _same_key(connection: sa.Connection, key: str | None, digest: str) -> Job | Conflict | None:
    """Return the earlier job with this key, or a Conflict if that was another request."""
    if key is None:
        return None
    earlier = connection.execute(_SAME_KEY, {"key": key}).mappings().one_or_none()
    if earlier is None:
        return None
    if earlier["request_sha256"] != digest:
        return Conflict("This Idempotency-Key was used for another request.")
    return to_job(earlier)


@contextmanager
def unique_id() -> Iterator[None]:
    """Raise Conflict where a job would get the gateway job id of another one."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict("Another job has that gateway job id already.") from error


def _pipelined(connection: sa.Connection, changes: Sequence[Change]) -> AbstractContextManager[None]:
    # Of what else is written, some is asked first.
    plain = all(
        one.at_most is None and one.answer is None and not (one.status.terminal and one.job.notify_url)
        for one in changes
    )
    return pipelined(connection) if plain else nullcontext()


def write_changes(connection: sa.Connection, changes: Sequence[Change]) -> list[Job]:
    """Write changes, and return their jobs as they are then; those of one job are written in their order.

    Raises LeaseLost if a worker does not hold a lease any more, Crowded if as many jobs are in a status as
    may be, and Conflict for another image than the ledger has, or the gateway job id of another job.
    """
    if connection.dialect.name == "postgresql":
        # Locked before anything is read, so that a callback comes either before or after all of this.
        _LOCK.run(connection, {"ids": sorted({change.job.id for change in changes})})
    later, after = Later(), [change.job for change in changes]
    for place in sorted(range(len(changes)), key=lambda n: changes[n].job.id):
        after[place] = _write(connection, changes[place], later)
    later.write(connection)
    return after


def _write(connection: sa.Connection, change: Change, later: Later) -> Job:
    job, status, now = change.job, change.status, change.values["updated_at"]
    if change.at_most is not None:
        leases.must_have_room(connection, job.gateway, status, change.at_most, now)
    for delivery_id, effect in (change.applied or {}).items():
        deliveries.mark_applied(connection, delivery_id, effect, now)
    if change.answer is not None:
        deliveries.insert_answer(connection, change.answer)
    if status in deliveries.DECIDED:
        deliveries.mark_late(connection, job.id, now)
    if status.terminal:
        deliveries.scrub(connection, job.id)
    row = _changed(connection, change, now)
    for output in change.outputs:
        add_output(connection, row, output, later)
    _propagate(connection, row, change.values, later)
    return to_job(row)


def _changed(connection: sa.Connection, change: Change, now: int) -> Row:
    job, statement = change.job, _CHANGE
    known = {"the_id": job.id, "the_status": job.status, "the_submission": job.submission}
    known |= {"the_worker": change.worker}
    if "next_attempt_at" not in change.values:
        statement = _CHANGE_AND_LISTEN
        known |= {"now": now, "later": now + change.due_in_ms}
    with unique_id():
        row = statement.row(connection, {**known, **change.values})
    if row is None:
        raise LeaseLost(f"This worker no longer has the lease of job {job.id}.")
    return row


def _propagate(connection: sa.Connection, job: Row, changed: Mapping[str, Any], later: Later) -> None:
    """Write what follows from a change of a job: search index, events, the outbox of notifications."""
    if "result_model" in changed:
        search_index.index_result(connection, job)
        if to_job(job).short:
            search_index.index_short(connection, job["number"])
    if "status" in changed:
        later.events.append(events.of_move(job))
        if Status(job["status"]).terminal:
            add_notification(connection, job)
