"""What happened lately: jobs that moved and outputs that were archived, in the order they were written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select

from storage.database import Database
from storage.records import Output
from storage.schema import events

KEPT_MS = 24 * 3600 * 1000
"""How long an event is kept, at least: a reader that was away for less misses nothing."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One event. `id` grows; `at` is in milliseconds since 1970."""

    id: int
    at: int
    job_id: str
    gateway: str
    status: str | None
    """Where the job moved to; None if the event is of an output."""
    output: int | None
    """The index of the output that was archived; None if the event is of a job."""
    error_code: str | None


class Events:
    """Reads what happened lately. Thread-safe; raises Unavailable if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, event_id: int, *, limit: int) -> Sequence[Happened]:
        """The next events after one, oldest first."""
        query = select(events).where(events.c.id > event_id).order_by(events.c.id).limit(limit)
        with self._database.read() as connection:
            return [Happened(**row) for row in connection.execute(query).mappings()]

    def ends(self) -> tuple[int, int]:
        """The ids of the oldest and the newest event that are kept; 0 and 0 if there is none."""
        query = select(func.coalesce(func.min(events.c.id), 0), func.coalesce(func.max(events.c.id), 0))
        with self._database.read() as connection:
            oldest, newest = connection.execute(query).one()
        return oldest, newest

    def forget(self, before: int) -> int:
        """Let go of what happened before a time (milliseconds since 1970); answers how many that were."""
        with self._database.write() as connection:
            return connection.execute(delete(events).where(events.c.at < before)).rowcount


def note_move(connection: Connection, job: RowMapping, at: int) -> None:
    """Write down where a job moved to, in the transaction that moves it; `job` is its row."""
    _note(connection, at, job, status=job["status"], error_code=job["error_code"])


def note_output(connection: Connection, job: RowMapping, output: Output) -> None:
    """Write down that an output was archived."""
    _note(connection, output.stored_at, job, output=output.index)


def _note(connection: Connection, at: int, job: RowMapping, **more: Any) -> None:
    row = {"at": at, "job_id": job["id"], "gateway": job["gateway"], **more}
    connection.execute(insert(events).values(row))
