"""How far the events can be read: up to where nothing can appear any more.

On SQLite that is all of them: there is one writer at a time, and no id is used twice (AUTOINCREMENT). On
PostgreSQL an id is given out when a row is written and becomes visible when its transaction commits, so a
smaller one may appear after a larger one was read. Where ids follow each other without a gap, nothing is
missing. A gap is what is not committed yet, or what was rolled back and never will be: it is passed once
every transaction is over that was open when something behind it was first seen (whoever writes an event has
changed something before, so the transaction had its number by then). See "Transaction ID and Snapshot
Information Functions" at https://www.postgresql.org/docs/current/functions-info.html.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import monotonic

from sqlalchemy import Connection, func, select, text

from storage.ledger.job_numbers import LARGEST
from storage.ledger.schema import events

GAP_S = 60.0
"""After this a gap is passed whoever is still at work: a transaction of ours that rests is ended before."""


@dataclass(frozen=True, slots=True)
class _Barrier:
    """Ids up to `event_id` are settled once no transaction before `transaction` is open."""

    event_id: int
    transaction: int
    at: float


class Horizon:
    """Remembers how far all is settled. Thread-safe; one for each process."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._settled: int | None = None
        self._barrier: _Barrier | None = None
        self._lock = Lock()

    def of(self, connection: Connection) -> int:
        """The id up to which no event can appear any more, as this connection's transaction sees it."""
        if connection.dialect.name == "sqlite":
            return LARGEST
        with self._lock:
            settled = self._settled
        if settled is None:
            settled = (connection.scalar(select(func.min(events.c.id))) or 1) - 1
        newest = connection.scalar(select(func.max(events.c.id))) or settled
        settled = max(settled, self._unbroken(connection, settled, newest))
        if settled < newest:
            settled = self._look(connection, settled, newest)
        with self._lock:
            self._settled = max(settled, self._settled or 0)
        return settled

    def _unbroken(self, connection: Connection, settled: int, newest: int) -> int:
        """Up to where ids follow each other."""
        between = events.c.id.between(settled + 1, newest)
        if connection.scalar(select(func.count()).where(between)) == newest - settled:
            return newest
        place = (events.c.id - func.row_number().over(order_by=events.c.id)).label("place")
        numbered = select(events.c.id, place).where(between).subquery()
        first_run = select(func.max(numbered.c.id)).where(numbered.c.place == settled)
        return connection.scalar(first_run) or settled

    def _look(self, connection: Connection, settled: int, newest: int) -> int:
        """Pass a gap if its time has come; otherwise remember what it waits for."""
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
