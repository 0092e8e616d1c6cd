"""Count what waits in the ledger, for metrics and scheduling; from the indexes alone."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import BigInteger, cast, func, select

from storage.ledger.database import Database
from storage.ledger.schema import BEGUN, READY, UNFINISHED, deliveries, job_counts, jobs, outputs
from storage.models import Clock, Status

_MISSING = select(func.count()).where(outputs.c.missing_since.is_not(None))
_PENDING = select(func.count()).where(deliveries.c.applied_at.is_(None))


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much work is in the ledger."""

    jobs_due: int
    """Jobs whose next step is due, leased ones included."""
    deliveries: int
    """Callbacks that were recorded and not applied to their job yet."""
    images_missing: int
    """Archived images that the bucket was found to lack."""


@dataclass(frozen=True, slots=True)
class Held:
    """Unfinished jobs of one gateway whose last try failed with the same error code."""

    gateway: str
    code: str
    jobs: int


class Backlog:
    """Read how much is waiting. Thread-safe; raises Unavailable if the database does not answer."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def read(self) -> Waiting:
        """Count what is waiting now."""
        # Counted by halves, because each half has an index and their union has none.
        now = self._clock()
        halves = [select(func.count()).where(half, jobs.c.next_attempt_at <= now) for half in UNFINISHED]
        with self._database.read() as connection:
            due = sum(connection.scalar(half) or 0 for half in halves)
            return Waiting(due, connection.scalar(_PENDING) or 0, connection.scalar(_MISSING) or 0)

    def held(self, codes: Collection[str]) -> list[Held]:
        """Count the unfinished jobs whose last try failed with one of these codes, by gateway and code."""
        columns = job_counts.c.gateway, job_counts.c.error_code
        count = cast(func.sum(job_counts.c.jobs), BigInteger)
        unfinished = job_counts.c.status.in_([status for status in Status if not status.terminal])
        counted = select(*columns, count).where(unfinished, job_counts.c.error_code.in_(codes))
        with self._database.read() as connection:
            found = [Held(*row) for row in connection.execute(counted.group_by(*columns)) if row[2]]
        return sorted(found, key=lambda one: (one.gateway, one.code))

    def many_due(self, gateway: str, many: int) -> bool:
        """Return whether at least so many running jobs of a gateway are due to be polled, leased or not."""
        due = select(jobs.c.id).where(
            BEGUN,
            jobs.c.gateway == gateway,
            jobs.c.status == Status.RUNNING,
            jobs.c.next_attempt_at <= self._clock(),
        )
        found = select(func.count()).select_from(due.limit(many).subquery())
        with self._database.read() as connection:
            return (connection.scalar(found) or 0) >= many

    def oldest_ready_at(self, *, without: Collection[str] = ()) -> int | None:
        """Return when the job that has been ready longest became so; None if none is ready.

        `without`: leave out jobs whose error has one of these codes.
        """
        others = jobs.c.error_code.is_(None) | jobs.c.error_code.not_in(without)
        # In the order of an index, with the condition of that as it is.
        waiting = select(jobs.c.ready_at).where(READY, jobs.c.ready_at.is_not(None), others)
        with self._database.read() as connection:
            oldest: int | None = connection.scalar(waiting.order_by(jobs.c.ready_at).limit(1))
        return oldest
