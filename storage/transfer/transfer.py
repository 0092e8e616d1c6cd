"""Move a ledger from SQLite to PostgreSQL: copy it, compare both, and only then open the copy to services.

The digests of the old ledger are taken first and stored in the copy: a later run resumes only if they are
still the same. While it is read no other process can open it; and the copy has no schema version that a
service would start on until it was found to be equal.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from sqlite3 import SQLITE_BUSY
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Connection, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError

from storage.errors import Conflict, Corrupt, Misconfigured, Unavailable
from storage.ledger.database import HEAD, MOVING, TURN, Database
from storage.ledger.engine import NAME
from storage.ledger.fillings import Fillings
from storage.ledger.job_counts import wrong_counts
from storage.ledger.schema import events
from storage.ledger.search_index import WRONG_WORDS
from storage.ledger.url import LedgerUrl
from storage.transfer.compare import TABLES, Digest, Progress, digest, first_difference
from storage.transfer.copy import AGAIN, BATCH, copy_all, moved_here

STEPS = ("reading", "copying", "comparing")
"""Every row is processed once in each."""

GONE_S = 10.0
"""How long the connection of a killed process may take to end."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of a move."""

    tables: Mapping[str, Digest]
    """The digests of both ledgers, by table."""
    before: int | None
    """When an earlier run had finished the move; None if this one did."""


def open_alone(path: Path) -> Database:
    """Open a SQLite ledger exclusively, and migrate it.

    Raises Misconfigured if there is none, and Conflict if another process has it open.
    """
    if not path.is_file():
        raise Misconfigured(f"There is no ledger at {path}.")
    database = Database.connect(LedgerUrl.of_file(path), alone=True)
    try:
        _update(database, path)
    except BaseException:
        database.close()
        raise
    return database


def _update(database: Database, path: Path) -> None:
    try:
        with database.read() as connection:
            ours = inspect(connection).has_table("alembic_version")
        if ours:
            database.migrate()
            fillings = Fillings(database)
            while fillings.fill():
                pass
            return
    except Unavailable as error:
        if _is_busy(error):
            raise Conflict(
                f"{path} is in use. Stop every `darkroom serve` and `darkroom work` on it first."
            ) from None
        raise Misconfigured(f"{path} is not a ledger, or cannot be written.") from error
    raise Misconfigured(f"{path} is not a ledger of Darkroom.")


def rows_of(source: Database) -> int:
    """Count the rows to move."""
    with source.read() as connection:
        return sum(connection.scalar(select(func.count()).select_from(table)) or 0 for table in TABLES)


def move(
    source: Database,
    target: Database,
    *,
    clock: Callable[[], int],
    progress: Progress,
    batch: int = BATCH,
    wait_s: float = GONE_S,
) -> Moved:
    """Copy everything, compare both, and open the copy to services; resumes an interrupted move.

    `source` is of `open_alone`; `target` is PostgreSQL, connected without a migration. `progress` is called
    with one of `STEPS`. `wait_s`: how long other connections to `target` may take to end.

    Raises Conflict if `target` is in use, or holds anything but a copy of this ledger as it is now; Corrupt
    if the ledgers differ afterwards; Misconfigured if a row cannot be stored there.
    """
    _prepare(target, wait_s)
    with source.read() as reading:
        found = _digests(reading, progress, "reading", leases=False)
        finished_at, place = _begin(target, found)
        if finished_at is not None:
            return Moved(found, finished_at)
        copy_all(reading, target, place, progress, batch)
        _compare(reading, target, found, progress)
    _finish(target, clock())
    return Moved(found, None)


def _prepare(target: Database, wait_s: float) -> None:
    """Check first that the target is usable and not in use, and create its tables."""
    if target.pooled():
        raise Misconfigured(
            "The new database is behind a pooler, which hides whether it is in use. Give the URL of "
            "PostgreSQL itself."
        )
    with target.read() as connection:
        if connection.scalar(text("SHOW server_encoding")) != "UTF8":
            raise Misconfigured("The new database has to be made with ENCODING 'UTF8'.")
        known = inspect(connection).has_table("alembic_version")
        begun = known and connection.scalar(text("SELECT version_num FROM alembic_version")) == MOVING
    _await_alone(target, wait_s)
    if not begun:
        target.migrate()
    with target.read() as connection:
        if not inspect(connection).has_table(moved_here.name):
            _check_empty(connection)


def _begin(target: Database, found: Mapping[str, Digest]) -> tuple[int | None, Mapping[str, Any] | None]:
    """Begin or resume a copy; returns when it was finished, if it was, and how far it is."""
    source = {name: asdict(one) for name, one in found.items()}
    with target.write() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": TURN})
        moved_here.create(connection, checkfirst=True)
        earlier = connection.execute(select(moved_here)).one_or_none()
        if earlier is None:
            _check_empty(connection)
            connection.execute(insert(moved_here).values(id=1, schema=HEAD, source=source))
            connection.execute(text("UPDATE alembic_version SET version_num = :at"), {"at": MOVING})
            return None, None
        if earlier.source != source:
            raise Conflict(
                f"The new database holds a copy of another ledger, or of this one before it changed. {AGAIN}"
            )
        if earlier.finished_at is None and earlier.schema != HEAD:
            raise Conflict(f"This copy was started by another version of Darkroom. {AGAIN}")
        return earlier.finished_at, earlier.place


def _compare(reading: Connection, target: Database, found: Mapping[str, Digest], progress: Progress) -> None:
    with target.read() as connection:
        copied = _digests(connection, progress, "comparing", leases=True)
        for table in TABLES:
            ours, theirs = found[table.name], copied[table.name]
            if ours != theirs:
                raise Corrupt(
                    f"The copy differs from the ledger: {first_difference(reading, connection, table)}. "
                    f"Of {table.name} there are {ours.rows} rows in the ledger and {theirs.rows} in the "
                    f"copy. {AGAIN}"
                )
        if (wrong := connection.scalar(WRONG_WORDS)) is not None:
            raise Corrupt(f"In the copy the words of job number {wrong} cannot be looked up. {AGAIN}")
        if miscounted := wrong_counts(connection):
            raise Corrupt(f"In the copy jobs are counted wrong: {sorted(miscounted)[0]}. {AGAIN}")


def _finish(target: Database, now: int) -> None:
    with target.write() as connection:
        newest = select(func.max(events.c.id)).scalar_subquery()
        sequence = func.pg_get_serial_sequence(events.name, events.c.id.name)
        # The next event's id follows the newest one's, so that readers of events see no gap.
        connection.execute(select(func.setval(sequence, newest)).where(newest.is_not(None)))
        connection.execute(text("UPDATE alembic_version SET version_num = :at"), {"at": HEAD})
        connection.execute(update(moved_here).values(finished_at=now))
        # Or the first queries would be planned as if all tables were small.
        connection.execute(text("ANALYZE"))


def _digests(connection: Connection, progress: Progress, step: str, *, leases: bool) -> dict[str, Digest]:
    return {table.name: digest(connection, table, progress, step, leases=leases) for table in TABLES}


def _check_empty(connection: Connection) -> None:
    """Raise Conflict if there is anything in the ledger."""
    for table in TABLES:
        if connection.scalar(select(select(table).exists())):
            raise Conflict("The new database holds another ledger already. Create an empty one for this.")


def _await_alone(target: Database, wait_s: float) -> None:
    """Raise Conflict if another Darkroom stays connected."""
    others = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND pid <> pg_backend_pid() AND application_name = :name"
    )
    deadline = monotonic() + wait_s
    while True:
        # In a new transaction each time, because within one the statistics do not change.
        with target.read() as connection:
            if not connection.scalar(others, {"name": NAME}):
                return
        if monotonic() > deadline:
            raise Conflict(
                "The new database is in use. Stop every Darkroom, and every other move, on it first."
            )
        sleep(0.2)


def _is_busy(error: Unavailable) -> bool:
    cause = error.__cause__
    code = getattr(cause.orig, "sqlite_errorcode", None) if isinstance(cause, DBAPIError) else None
    return code is not None and code & 0xFF == SQLITE_BUSY
