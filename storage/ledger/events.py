"""What happened lately: jobs that moved and outputs that were archived, in the order they were written.

Ids only grow, and whoever has seen one has seen all before it: nothing is read from where something may still
appear (`storage.ledger.horizon`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select

from storage.ledger.database import Database
from storage.ledger.horizon import Horizon
from storage.ledger.schema import events
from storage.models import Output

KEPT_MS = 24 * 3600 * 1000
"""How long an event is kept, unless there are more than `KEPT` of them: a reader that was away for less
misses nothing."""

KEPT = 500_000
"""How many events are kept at most, about 80 MB of them; a job with one image has five."""


@dataclass(frozen=True, slots=True)
class Event:
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


@dataclass(frozen=True, slots=True)
class EventPosition:
    """A place among the events: behind the one of this id, or before all of them if `id` is 0.

    `OLDEST`, which is 0 without a time, is before the oldest that is kept, so that nothing is missing there.
    `at` is when that one happened. It tells a ledger from another one that has used the same id, such as one
    that was restored or built anew; None if it is not known.
    """

    id: int
    at: int | None = None


OLDEST = EventPosition(0)
"""Before the oldest event that is kept, whatever was forgotten."""
_BEGINNING = EventPosition(0, 0)
"""Behind all events of a ledger that has none: whoever comes back to it later may have missed some."""


class LostReason(StrEnum):
    """Why nobody can tell what happened since a place."""

    FORGOTTEN = "forgotten"
    """Some of it is not kept any more."""
    UNKNOWN = "unknown"
    """This ledger has never had that place."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """What happened since a place."""

    events: Sequence[Event]
    """The next ones, oldest first."""
    newest: EventPosition
    """Behind the newest event that there was as these were read."""
    lost: LostReason | None = None
    """Set if some may be missing; then there are no events here at all."""


class Events:
    """Reads what happened lately, and lets go of it. Thread-safe.

    Raises Unavailable if the database does not answer.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._horizon = Horizon()

    def after(self, event_id: int, *, limit: int) -> Sequence[Event]:
        """The next events after one, oldest first."""
        with self._database.read() as connection:
            return _read(connection, event_id, limit, events.c.id <= self._horizon.of(connection))

    def newest(self) -> EventPosition:
        """The place behind all events."""
        with self._database.read() as connection:
            return _newest(connection, self._horizon.of(connection))

    def since(
        self, place: EventPosition, *, limit: int, job_id: str | None = None, gateway: str | None = None
    ) -> EventPage:
        """The next events after a place, of one job or gateway if one is named.

        If there are fewer than `limit`, there are no others up to `newest`.
        """
        only = [events.c.job_id == job_id] if job_id else []
        only += [events.c.gateway == gateway] if gateway else []
        with self._database.read() as connection:
            horizon = self._horizon.of(connection)
            only.append(events.c.id <= horizon)
            newest = _newest(connection, horizon)
            lost = _lost(connection, place, newest)
            found = [] if lost else _read(connection, place.id, limit, *only)
        return EventPage(found, newest, lost)

    def forget(self, before: int, *, most: int = KEPT, limit: int = 1000) -> int:
        """Let go of the oldest events: from before a time (milliseconds since 1970), or beyond `most`.

        At most `limit` of them, so that no other write waits long; answers how many. The newest always stays,
        as proof of how far the ids have come; what is kept has no gap, even if the clock was set back.
        """
        with self._database.read() as connection:
            newest = _newest(connection, self._horizon.of(connection)).id
            oldest_first = select(events.c.id, events.c.at).order_by(events.c.id).limit(limit)
            rows = connection.execute(oldest_first).all()
        old = [
            row.id
            for row in takewhile(lambda row: row.at < before or row.id <= newest - most, rows)
            if row.id < newest
        ]
        if not old:
            return 0
        with self._database.write() as connection:
            return connection.execute(delete(events).where(events.c.id <= old[-1])).rowcount


_NOTE = insert(events).inline()


def note_move(connection: Connection, job: RowMapping, at: int) -> None:
    """Write down where a job moved to, in the transaction that moves it; `job` is its row."""
    _note(connection, at, job, status=job["status"], error_code=job["error_code"])


def note_output(connection: Connection, job: RowMapping, output: Output) -> None:
    """Write down that an output was archived."""
    _note(connection, output.stored_at, job, output=output.index)


def _note(connection: Connection, at: int, job: RowMapping, **more: Any) -> None:
    row = {"at": at, "job_id": job["id"], "gateway": job["gateway"], **more}
    connection.execute(_NOTE, row)


def _read(connection: Connection, event_id: int, limit: int, *only: Any) -> list[Event]:
    query = select(events).where(events.c.id > event_id, *only).order_by(events.c.id).limit(limit)
    return [Event(**row) for row in connection.execute(query).mappings()]


def _newest(connection: Connection, horizon: int) -> EventPosition:
    seen = select(events.c.id, events.c.at).where(events.c.id <= horizon)
    query = seen.order_by(events.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return _BEGINNING if row is None else EventPosition(row.id, row.at)


def _lost(connection: Connection, place: EventPosition, newest: EventPosition) -> LostReason | None:
    if place == OLDEST:
        return None
    if place.id > newest.id:
        return LostReason.UNKNOWN
    if place.id < (connection.scalar(select(func.min(events.c.id))) or 0) - 1:
        return LostReason.FORGOTTEN
    there = connection.scalar(select(events.c.at).where(events.c.id == place.id))
    return LostReason.UNKNOWN if None not in (there, place.at) and there != place.at else None
