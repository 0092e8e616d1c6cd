"""What waits in the ledger, for whoever watches over it. Small answers, from the indexes alone."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select, union_all

from storage.database import Database
from storage.records import Clock, Status
from storage.schema import UNFINISHED, deliveries, jobs

TELLING = (Status.READY.value, "hint")
"""The effects of a delivery that told of a result, by itself or by making us ask."""


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

    def told_at(self, job_id: str) -> int | None:
        """When the first callback came that told of a job's result (milliseconds); None if none did."""
        query = select(func.min(deliveries.c.received_at)).where(
            deliveries.c.job_id == job_id, deliveries.c.effect.in_(TELLING)
        )
        with self._database.read() as connection:
            told: int | None = connection.scalar(query)
        return told
