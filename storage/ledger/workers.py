"""Note when each worker was last seen, so that every process can tell whether one works anywhere."""

from sqlalchemy import Connection, delete, func, select, text, update

from storage.ledger.database import Database
from storage.ledger.schema import workers

FORGOTTEN_MS = 3600 * 1000
"""After how long a worker that is gone is deleted."""

_SEE = text(
    "INSERT INTO workers (name, seen_at) VALUES (:name, :now) "
    "ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at"
)


class Workers:
    """Read when a worker was last seen. Thread-safe; raises Unavailable if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last_seen_at(self) -> int | None:
        """Return when any worker was last seen (milliseconds); None if none has worked for an hour."""
        with self._database.read() as connection:
            seen_at: int | None = connection.scalar(select(func.max(workers.c.seen_at)))
        return seen_at


def note_seen(connection: Connection, name: str, now: int) -> None:
    """Note that a worker works now, and delete those that are gone."""
    connection.execute(delete(workers).where(workers.c.seen_at < now - FORGOTTEN_MS))
    connection.execute(_SEE, {"name": name, "now": now})


def repair_clock_skew(connection: Connection, now: int, skew_ms: int) -> None:
    """Set to now what was seen in the future, by a clock that has since been set back."""
    connection.execute(update(workers).where(workers.c.seen_at > now + skew_ms).values(seen_at=now))
