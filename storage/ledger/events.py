"""Events of the last day: jobs that moved and outputs that were archived, in the order they were written.

Ids only grow, and a reader that has seen one has seen all before it: it reads up to a safe position, behind
which nothing can appear any more. On SQLite that is the end: there is one writer at a time, and no id is used
twice (AUTOINCREMENT). On PostgreSQL an id is given out when a row is written and becomes visible when its
transaction commits, so a smaller one may appear after a larger one was read. Where ids follow each other
without a gap, nothing is missing. A gap is what is not committed yet, or was rolled back and never will be:
it is passed once every transaction is over that was open when something behind it was first seen (the writer
of an event has changed something before, so its transaction had its number by then). See "Transaction ID and
Snapshot Information Functions" at https://www.postgresql.org/docs/current/functions-info.html.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from threading import Lock
from time import monotonic
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, text

from storage.ledger.database import Database
from storage.ledger.job_numbers import LARGEST
from storage.ledger.schema import events
from storage.models import Output
from storage.statements import AnyRow, Prepared

KEPT_MS = 24 * 3600 * 1000
"""How long an event is kept, unless there are more than `KEPT` of them, in milliseconds."""

KEPT = 500_000
"""How many events are kept at most, about 80 MB of them; a job with one image has five."""

GAP_S = 60.0
"""After this a gap is passed in any case: a transaction of ours that idles is ended before."""


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
    """A cursor among the events: behind the one of this id, or before all of them if `id` is 0.

    `at` is the time of that event; None if it is not known. It distinguishes a ledger from another one that
    has used the same id, such as one that was restored from a backup.
    """

    id: int
    at: int | None = None


OLDEST = EventPosition(0)
"""Before the oldest event that is kept, whatever was deleted: nothing is missing there."""
_BEGINNING = EventPosition(0, 0)
"""Behind all events of a ledger that has none: a reader that resumes here later may have missed some."""


class LostReason(StrEnum):
    """Why the events since a position are not known."""

    FORGOTTEN = "forgotten"
    """Some were deleted."""
    UNKNOWN = "unknown"
    """This ledger has never had that position."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """The next events after a position, oldest first."""

    events: Sequence[Event]
    newest: EventPosition
    """Behind the newest event at the time of reading."""
    lost: LostReason | None = None
    """Set if events may be missing; then `events` is empty."""


class Events:
    """Read events, and delete old ones. Thread-safe; raises Unavailable if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._safe = SafePosition()

    def after(self, event_id: int, *, limit: int) -> Sequence[Event]:
        """Return the next events after one, oldest first."""
        with self._database.read() as connection:
            return _read(connection, event_id, limit, events.c.id <= self._safe.read(connection))

    def newest(self) -> EventPosition:
        """Return the position behind all events."""
        with self._database.read() as connection:
            return _newest(connection, self._safe.read(connection))

    def since(
        self, place: EventPosition, *, limit: int, job_id: str | None = None, gateway: str | None = None
    ) -> EventPage:
        """Return the next events after a position, of one job or gateway if one is named.

        If there are fewer than `limit`, there are no others up to `newest`.
        """
        only = [events.c.job_id == job_id] if job_id else []
        only += [events.c.gateway == gateway] if gateway else []
        with self._database.read() as connection:
            safe = self._safe.read(connection)
            only.append(events.c.id <= safe)
            newest = _newest(connection, safe)
            lost = _lost(connection, place, newest)
            found = [] if lost else _read(connection, place.id, limit, *only)
        return EventPage(found, newest, lost)

    def forget(self, before: int, *, most: int = KEPT, limit: int = 1000) -> int:
        """Delete the oldest events: from before a time (milliseconds since 1970), or beyond `most`.

        At most `limit` of them, so that no other write waits long; returns how many. The newest always stays,
        as proof of how far the ids have come; what is kept has no gap, even if the clock was set back.
        """
        with self._database.read() as connection:
            newest = _newest(connection, self._safe.read(connection)).id
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


@dataclass(frozen=True, slots=True)
class _Barrier:
    """Ids up to `event_id` are settled once no transaction before `transaction` is open."""

    event_id: int
    transaction: int
    at: float


class SafePosition:
    """The id up to which events can be read safely. Thread-safe; one for each process."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._settled: int | None = None
        self._barrier: _Barrier | None = None
        self._lock = Lock()

    def read(self, connection: Connection) -> int:
        """Return the id up to which no event can appear any more, as this transaction sees it."""
        if connection.dialect.name == "sqlite":
            return LARGEST
        with self._lock:
            settled = self._settled
        if settled is None:
            settled = (connection.scalar(select(func.min(events.c.id))) or 1) - 1
        newest = connection.scalar(select(func.max(events.c.id))) or settled
        settled = max(settled, self._unbroken(connection, settled, newest))
        if settled < newest:
            settled = self._pass_gap(connection, settled, newest)
        with self._lock:
            self._settled = max(settled, self._settled or 0)
        return settled

    def _unbroken(self, connection: Connection, settled: int, newest: int) -> int:
        """Return up to where ids follow each other."""
        between = events.c.id.between(settled + 1, newest)
        if connection.scalar(select(func.count()).where(between)) == newest - settled:
            return newest
        place = (events.c.id - func.row_number().over(order_by=events.c.id)).label("place")
        numbered = select(events.c.id, place).where(between).subquery()
        first_run = select(func.max(numbered.c.id)).where(numbered.c.place == settled)
        return connection.scalar(first_run) or settled

    def _pass_gap(self, connection: Connection, settled: int, newest: int) -> int:
        """Pass a gap if its transactions are over; otherwise remember which it waits for."""
        snapshot = text(
            "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint "
            "FROM pg_current_snapshot() AS s"
        )
        oldest, following = connection.execute(snapshot).one()
        with self._lock:
            barrier = self._barrier or _Barrier(newest, following, self._clock())
            if oldest >= barrier.transaction or self._clock() - barrier.at > GAP_S:
                self._barrier = None
                return max(settled, barrier.event_id)
            self._barrier = barrier
        return settled


_NOTE = Prepared(insert(events).inline())


def of_move(job: AnyRow) -> dict[str, Any]:
    """Return the event of a job's move; `job` is its row."""
    more = {"status": job["status"], "output": None, "error_code": job["error_code"]}
    return {"at": job["updated_at"], "job_id": job["id"], "gateway": job["gateway"], **more}


def of_output(job: AnyRow, output: Output) -> dict[str, Any]:
    """Return the event of an archived output."""
    more = {"status": None, "output": output.index, "error_code": None}
    return {"at": output.stored_at, "job_id": job["id"], "gateway": job["gateway"], **more}


def note(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert events, in the transaction of what they tell."""
    _NOTE.run_each(connection, rows)


def note_move(connection: Connection, job: AnyRow) -> None:
    """Insert an event of a job's move, in the transaction that moves it; `job` is its row."""
    note(connection, [of_move(job)])


def _read(connection: Connection, event_id: int, limit: int, *only: Any) -> list[Event]:
    query = select(events).where(events.c.id > event_id, *only).order_by(events.c.id).limit(limit)
    return [Event(**row) for row in connection.execute(query).mappings()]


def _newest(connection: Connection, safe: int) -> EventPosition:
    seen = select(events.c.id, events.c.at).where(events.c.id <= safe)
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
