"""Write the changes of leased jobs, of several in one transaction: outputs, move, events, search index."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from storage.errors import Conflict, LeaseLost
from storage.ledger import deliveries, events, leases, search_index, transitions
from storage.ledger.notifications import add_notification
from storage.ledger.rows import to_job
from storage.ledger.schema import jobs, outputs
from storage.ledger.statements import Prepared, Row
from storage.models import Delivery, Job, Output, Status

_COLUMNS = tuple(field.name for field in fields(Output))
_ADD_OUTPUT = Prepared(
    sa.text(
        "INSERT INTO outputs (" + ", ".join(f'"{name}"' for name in _COLUMNS) + ") "
        "VALUES (" + ", ".join(f":{name}" for name in _COLUMNS) + ") ON CONFLICT DO NOTHING"
    )
)
_FOUND_AGAIN = Prepared(
    sa.update(outputs).where(
        outputs.c.job_id == sa.bindparam("the_job"),
        outputs.c.index == sa.bindparam("the_index"),
        outputs.c.missing_since.is_not(None),
    )
)
_DIGEST = Prepared(
    sa.select(outputs.c.sha256).where(
        outputs.c.job_id == sa.bindparam("the_job"), outputs.c.index == sa.bindparam("the_index")
    )
)
_JOB = Prepared(sa.select(jobs).where(jobs.c.id == sa.bindparam("the_id")))
_LOCK = Prepared(
    sa.select(jobs.c.id)
    .where(jobs.c.id == sa.any_(sa.bindparam("ids", type_=ARRAY(sa.String))))
    # Always in one order, so that two transactions can never deadlock.
    .order_by(jobs.c.id)
    .with_for_update()
)
_CHANGE = Prepared(transitions.CHANGE)
_CHANGE_AND_LISTEN = Prepared(transitions.CHANGE_AND_LISTEN)


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
    with transitions.unique_id():
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
