"""The state machine of a job: its legal moves, the columns that they set, and how workers write them.

The changes of several leased jobs are written in one transaction: outputs, moves, events, search index.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from decimal import Context, Decimal
from math import isfinite
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, case, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import IntegrityError

from storage.errors import Conflict, LeaseLost
from storage.ledger import deliveries, events, leases, search_index
from storage.ledger.deliveries import pending
from storage.ledger.notifications import add_notification
from storage.ledger.rows import append_attempts, from_changes, to_job
from storage.ledger.schema import jobs, outputs
from storage.models import Attempt, Delivery, Job, Output, Status
from storage.statements import Prepared, Row

# Two tables, so that no step of a job's life can take it out of a terminal status.
MOVES: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.SUBMITTING, Status.FAILED, Status.CANCELLED}),
    # Back to queued: the gateway certainly did not accept it. To ready: its callback overtook the response.
    Status.SUBMITTING: frozenset({Status.QUEUED, Status.RUNNING, Status.READY, Status.FAILED}),
    # To partial: a retry found nothing more, and what was archived before still is.
    Status.RUNNING: frozenset({Status.READY, Status.PARTIAL, Status.FAILED}),
    Status.READY: frozenset({Status.ARCHIVED, Status.PARTIAL, Status.FAILED}),
    Status.ARCHIVED: frozenset(),
    Status.PARTIAL: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}
"""The legal moves of a job; `Ledger.move` refuses every other."""

REOPENS: Mapping[Status, frozenset[Status]] = {
    # To running: the gateway is polled for the result again. To queued: it is paid for again.
    Status.FAILED: frozenset({Status.QUEUED, Status.RUNNING}),
    Status.PARTIAL: frozenset({Status.RUNNING}),
    # Where an archived image is missing from the bucket.
    Status.ARCHIVED: frozenset({Status.RUNNING}),
    Status.CANCELLED: frozenset({Status.QUEUED}),
}
"""The legal moves of a retry that a user asked for; `Ledger.reopen` refuses every other."""

MAX_MOVES = 60
"""Of a job with more, the oldest rounds of `submitting` and back to `queued` are dropped."""

_EXACT = Context(prec=700)
"""Enough digits for every sum of 64-bit numbers."""

CHANGE = (
    update(jobs)
    .where(jobs.c.id == bindparam("the_id"), jobs.c.status == bindparam("the_status"))
    .where(jobs.c.leased_by == bindparam("the_worker"), jobs.c.submission == bindparam("the_submission"))
    .returning(jobs)
)
"""Set columns of a job that is still in `the_status` and leased by `the_worker`.

And in `the_submission`: the same worker may have leased it again after it was cancelled and resubmitted.
"""

CHANGE_AND_LISTEN = CHANGE.values(
    next_attempt_at=case((pending(bindparam("the_id")), bindparam("now")), else_=bindparam("later"))
)
"""The same, and due `later`; or `now`, if it has a pending callback."""


def columns_of_move(job: Job, to: Status, attempts: Sequence[Attempt], now: int) -> dict[str, Any]:
    """Return the columns that a move sets; raises Conflict if it is not legal."""
    if to not in MOVES[job.status]:
        raise Conflict(f"A job cannot move from {job.status} to {to}.")
    values = {
        "status": to,
        "attempts": _attempts_after(job, to),
        "updated_at": now,
        "moves": _moves(job, to, now),
        "attempt_log": append_attempts(job.attempt_log, attempts),
    }
    if to is Status.READY:
        values["ready_at"] = now
    if to.terminal:
        values |= {"next_attempt_at": None, "images": []}
    return values


def columns_of_cancelling(job: Job, now: int) -> dict[str, Any]:
    """Return the columns that cancelling sets: it cost nothing. Raises Conflict if it is not legal."""
    values = from_changes({"error": None}, job.result) | columns_of_move(job, Status.CANCELLED, (), now)
    return values | {"credits": 0.0, "credits_estimated": False, "leased_by": None, "leased_until": None}


def columns_of_reopening(job: Job, to: Status, attempt: Attempt, now: int) -> dict[str, Any]:
    """Return the columns that a retry of a terminal job sets; raises Conflict if it is not legal."""
    if to not in REOPENS.get(job.status, ()):
        raise Conflict(f"A job that is {job.status} cannot be put back to {to}.")
    values: dict[str, Any] = from_changes({"error": None}, job.result) | {
        "status": to,
        "attempts": 0,
        "next_attempt_at": now,
        "updated_at": now,
        "moves": _moves(job, to, now),
        "attempt_log": append_attempts(job.attempt_log, [attempt]),
    }
    if to is Status.QUEUED:
        # A new submission, without the gateway's job before.
        next_one = job.status is Status.CANCELLED or job.moved_at(Status.SUBMITTING) is not None
        values |= {"submission": job.submission + next_one, "submission_at": now, "found_by": None}
        values |= {"gateway_request_id": None, "sent": None, "reply": None}
        values |= {"images_returned": None, "withheld": None}
        values |= _paid_before(job)
    return values


def _paid_before(job: Job) -> dict[str, Any]:
    """Return the columns that keep what a job was charged before its next submission."""
    amount, estimated = job.result.credits or 0.0, job.result.credits_estimated
    return {
        "credits_before": _plus(job.credits_before, amount),
        "credits_before_estimated": _plus(job.credits_before_estimated, amount if estimated else 0.0),
        "credits": None,
        "credits_estimated": False,
    }


def _plus(one: float, other: float) -> float:
    # As `storage.search.usage` adds up: decimal numbers, so that 0.1 and 0.2 are 0.3.
    both = float(_EXACT.add(Decimal(repr(one)), Decimal(repr(other))))
    return both if isfinite(both) else one


def _moves(job: Job, to: Status, now: int) -> list[list[Any]]:
    moves = [[moved, at] for moved, at in job.moves] + [[to, now]]
    if len(moves) > MAX_MOVES:
        _drop_a_round(moves)
    return moves


def _drop_a_round(moves: list[list[Any]]) -> None:
    """Drop the first round of `submitting` and back to `queued`; the rest are still legal moves."""
    for n in range(1, len(moves) - 1):
        if (moves[n][0], moves[n + 1][0]) == (Status.SUBMITTING, Status.QUEUED):
            del moves[n : n + 2]
            return


def _attempts_after(job: Job, to: Status) -> int:
    # `submitting` and back to `queued` are tries of one step, with one backoff.
    if to is Status.QUEUED:
        return job.attempts + 1
    return job.attempts if to is Status.SUBMITTING else 0


@contextmanager
def unique_id() -> Iterator[None]:
    """Raise Conflict where a job would get the gateway job id of another one."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict("Another job has that gateway job id already.") from error


_COLUMNS = tuple(field.name for field in fields(Output))
_ADD_OUTPUT = Prepared(
    sa.text(
        "INSERT INTO outputs (" + ", ".join(f'"{name}"' for name in _COLUMNS) + ") "
        "VALUES (" + ", ".join(f":{name}" for name in _COLUMNS) + ") ON CONFLICT DO NOTHING"
    )
)
_FOUND_AGAIN = Prepared(
    update(outputs).where(
        outputs.c.job_id == bindparam("the_job"),
        outputs.c.index == bindparam("the_index"),
        outputs.c.missing_since.is_not(None),
    )
)
_DIGEST = Prepared(
    sa.select(outputs.c.sha256).where(
        outputs.c.job_id == bindparam("the_job"), outputs.c.index == bindparam("the_index")
    )
)
_JOB = Prepared(sa.select(jobs).where(jobs.c.id == bindparam("the_id")))
_LOCK = Prepared(
    sa.select(jobs.c.id)
    .where(jobs.c.id == sa.any_(bindparam("ids", type_=ARRAY(sa.String))))
    # Always in one order, so that two transactions can never deadlock.
    .order_by(jobs.c.id)
    .with_for_update()
)
_CHANGE, _CHANGE_AND_LISTEN = Prepared(CHANGE), Prepared(CHANGE_AND_LISTEN)


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


class Later:
    """What is written at the end of a transaction, because other transactions wait for it."""

    def __init__(self) -> None:
        self.events: list[Row] = []
        self._tallies: Counter[tuple[str, str]] = Counter()

    def count(self, facets: Iterable[tuple[str, str]]) -> None:
        """Count an output under its facets."""
        self._tallies.update(facets)

    def write(self, connection: sa.Connection) -> None:
        """Write it."""
        events.note(connection, self.events)
        search_index.count_outputs(connection, self._tallies)


def write_changes(connection: sa.Connection, changes: Sequence[Change]) -> list[Job]:
    """Write changes, and return their jobs as they are then; those of one job are written in their order.

    Raises LeaseLost if a worker does not hold a lease any more, Crowded if as many jobs are in a status as
    may be, and Conflict for another image than the ledger has, or the gateway job id of another job.
    """
    if connection.dialect.name == "postgresql":
        # Locked before anything is read, so that a callback comes either before or after all of this.
        _LOCK.rows(connection, {"ids": sorted({change.job.id for change in changes})})
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


def row_of(connection: sa.Connection, job_id: str) -> Row | None:
    """Return the row of a job."""
    return _JOB.row(connection, {"the_id": job_id})


def add_output(connection: sa.Connection, job: Row, output: Output, later: Later) -> None:
    """Insert an archived image, or replace one that is missing; idempotent. `job` is the row of its job.

    Raises Conflict if the job has another one at that index.
    """
    values = asdict(output)
    new = _ADD_OUTPUT.run(connection, values) == 1
    place = {"the_job": output.job_id, "the_index": output.index}
    if not new and _FOUND_AGAIN.run(connection, place | values) == 0:
        if _DIGEST.scalar(connection, place) != output.sha256:
            raise Conflict(f"Output {output.id} is archived with another digest.")
        return
    later.events.append(events.of_output(job, output))
    search_index.index_output(connection, job, output)
    if new:
        later.count(search_index.facets_of(job))


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
