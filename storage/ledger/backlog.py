"""What waits in the ledger, for whoever watches over it. Small answers, from the indexes alone."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import bindparam, func, select, union_all

from storage.ledger.database import Database
from storage.ledger.schema import BEGUN, UNFINISHED, deliveries, jobs
from storage.models import Clock, Status

TELLING = (Status.READY.value, "hint")
"""The effects of a delivery that told of a result, by itself or by making us ask."""

_TOLD = select(func.min(deliveries.c.received_at)).where(
    deliveries.c.job_id == bindparam("job"), deliveries.c.effect.in_(TELLING)
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much work lies in the ledger now."""

    jobs_due: int
    """Jobs whose next step is due, those that a worker has in hand included."""
    deliveries: int
    """Callbacks that were recorded, and not applied to their job yet."""


class Backlog:
    """Reads how much is waiting. Thread-safe; raises Unavailable if the database does not answer."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def read(self) -> Waiting:
        """Count what is waiting now."""
        # Counted by halves, because each half has an index and both together have none.
        now = self._clock()
        halves = [select(func.count()).where(half, jobs.c.next_attempt_at <= now) for half in UNFINISHED]
        # Only jobs that are not finished have such deliveries.
        unfinished = union_all(*(select(jobs.c.id).where(half) for half in UNFINISHED))
        unapplied = select(func.count()).where(
            deliveries.c.applied_at.is_(None), deliveries.c.job_id.in_(unfinished)
        )
        with self._database.read() as connection:
            due = sum(connection.scalar(half) or 0 for half in halves)
            return Waiting(due, connection.scalar(unapplied) or 0)

    def many_due(self, gateway: str, many: int) -> bool:
        """Whether at least so many jobs that a gateway has are to be asked about now, held or not."""
        due = select(jobs.c.id).where(
            BEGUN,
            jobs.c.gateway == gateway,
            jobs.c.status == Status.RUNNING,
            jobs.c.next_attempt_at <= self._clock(),
        )
        found = select(func.count()).select_from(due.limit(many).subquery())
        with self._database.read() as connection:
            return (connection.scalar(found) or 0) >= many

    def oldest_ready_at(self) -> int | None:
        """Since when the result that has waited longest to be archived is known; None if none waits."""
        waiting = select(func.min(jobs.c.ready_at)).where(BEGUN, jobs.c.status == Status.READY)
        with self._database.read() as connection:
            oldest: int | None = connection.scalar(waiting)
        return oldest

    def result_callback_at(self, job_id: str) -> int | None:
        """When the first callback came that told of a job's result (milliseconds); None if none did."""
        with self._database.autocommit() as connection:
            told: int | None = connection.scalar(_TOLD, {"job": job_id})
        return told
