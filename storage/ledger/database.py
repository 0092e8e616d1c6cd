"""Open the ledger's database: transactions, timeouts, migrations, errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from sqlalchemy import Connection, Engine, Insert, exc, inspect, text

from storage.errors import Misconfigured, TookTooLong, Unavailable, Unusable
from storage.gate import Gate
from storage.ledger import messages
from storage.ledger.engine import (
    BUSY_TIMEOUT_MS,
    begin_postgresql,
    copy_log,
    flush,
    is_pooled,
    make_engine,
    shares_sessions,
)
from storage.ledger.url import LedgerUrl

HEAD = "0012"
"""The newest migration; a test holds it against `migrations/versions/`."""

STEPS = 50_000
"""How many steps of SQLite's virtual machine there are between two checks of a deadline."""

TURN = 0x6461726B
"""The advisory lock that a migration of a PostgreSQL ledger holds."""

MOVING = "moving"
"""The schema version of a ledger that is only partly copied."""

SLOW = "This query takes too long; ask for less at a time."

CANCELED = "57014"
"""PostgreSQL's SQLSTATE of a statement that exceeded its timeout."""


_LIMIT = text(
    "SELECT set_config('statement_timeout', :ms, true), "
    "set_config('enable_mergejoin', 'off', true), set_config('enable_hashjoin', 'off', true)"
)
"""Sets the time limit of a search on PostgreSQL, and has it join by look-ups only: a page comes in the order
of one index, the rest is looked up, and a merge or a hash would read many jobs that are not on the page."""

_OURS = (exc.IntegrityError, exc.ProgrammingError, exc.NotSupportedError, exc.DataError)
"""What a statement of ours may be refused with."""


class Database:
    """A pool of connections, with transactions to read or to write."""

    def __init__(self, engine: Engine, place: LedgerUrl) -> None:
        self._engine = engine
        self._place = place
        self._shared = place.shared
        self._driver: Any = engine.dialect.loaded_dbapi
        # SQLite has one writer at a time and polls for its lock with growing pauses. Threads of one process
        # need not: a lock of ours wakes the next one.
        self._turn = None if place.shared else Lock()
        self._unflushed = False
        self._closed = False
        self.gate = Gate()
        """Closed while another thread has to `migrate` it first."""

    @classmethod
    def open(cls, url: str | LedgerUrl) -> Database:
        """Connect, and migrate the schema to the newest version.

        Raises Misconfigured if the URL cannot be used, Unavailable if the database does not answer.
        """
        database = cls.connect(url)
        try:
            database.migrate()
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def connect(cls, url: str | LedgerUrl, *, alone: bool = False) -> Database:
        """Connect without a migration; raises Misconfigured if the URL cannot be used.

        `alone` is for SQLite: one connection, which locks every other process out from its first use until
        it is closed. That use raises Unavailable if another process has the ledger open.
        """
        place = url if isinstance(url, LedgerUrl) else LedgerUrl.parse(url)
        if place.path is not None:
            try:
                place.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Misconfigured(
                    f"The folder of the ledger {place} cannot be made: {error.strerror}. "
                    f"Correct {place.setting}, or the rights."
                ) from error
        return cls(make_engine(place, alone=alone), place)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Open a transaction that may write. It commits at the end of the block, durably, or not at all.

        Without `durable`, a power loss may undo it until something else is written durably.
        """
        with self._translate_errors():
            lazy = {} if durable else {"darkroom_lazy": True}
            with self._in_turn(), self._connected(**lazy) as connection, connection.begin():
                yield connection
            if durable and self._place.path is not None:
                self._flush(self._place.path)

    def _flush(self, path: Path) -> None:
        try:
            if self._unflushed:
                self._copy_log()
            flush(path)
        except OSError as error:
            self._unflushed = True
            raise Unavailable(
                f"The disk of the ledger {self._place} does not write: {error.strerror}."
            ) from error

    def _copy_log(self) -> None:
        # What the system could not write once it may take for written, and not write again.
        with self._connected(darkroom_autocommit=True) as connection:
            if not copy_log(connection):
                raise Unavailable("The ledger is busy; what its disk did not write before is not copied yet.")
        self._unflushed = False

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
            raise Unavailable("The ledger was busy with other writes for too long.")
        try:
            yield
        finally:
            self._turn.release()

    @contextmanager
    def read(self, *, within_s: float | None = None) -> Iterator[Connection]:
        """Open a transaction that reads one snapshot; on SQLite it never waits for a writer.

        `within_s`: the time limit for all of it; after that TookTooLong is raised.
        """
        with self._translate_errors(), self._connected(darkroom_read=True) as connection:
            if within_s is None:
                yield connection
                return
            limited = _limited_by_server if self.shared else _limited_by_client
            with limited(connection, monotonic() + within_s):
                yield connection

    @property
    def shared(self) -> bool:
        """Whether processes on other machines may use it too: whether it is PostgreSQL."""
        return self._shared

    def pooled(self) -> bool:
        """Return whether it is reached through a pooler, such as PgBouncer."""
        with self.own_connection() as connection:
            return is_pooled(connection)

    def keeps_session(self, connection: Any) -> bool:
        """Return whether an own connection keeps its session: no pooler in transaction mode is between."""
        if not is_pooled(connection):
            return True
        with self.own_connection() as other:
            return not shares_sessions(connection, other)

    @contextmanager
    def own_connection(self) -> Iterator[Any]:
        """Open a driver's connection outside of the pool, where each statement is a transaction."""
        with self._translate_errors():
            pooled = self._engine.raw_connection()
            connection: Any = pooled.driver_connection
            pooled.detach()
            with closing(connection):
                yield connection

    @contextmanager
    def autocommit(self) -> Iterator[Connection]:
        """Open a connection for one statement that reads: `read` without the cost of a transaction."""
        with self._translate_errors(), self._connected(darkroom_autocommit=True) as connection:
            yield connection

    def migrate(self) -> None:
        """Apply the missing migrations.

        Raises Unusable if the schema is newer than this program's or the file no database, Misconfigured if
        the tables cannot be changed, and Unavailable if the database does not answer.
        """
        try:
            self._migrate()
        except Unavailable as error:
            if messages.is_damaged(error.__cause__):
                raise Unusable(str(error)) from error
            raise

    def _migrate(self) -> None:
        with self.read() as connection:
            if _version(connection) == HEAD:
                return
        # Imported here because a start with nothing to migrate should not pay for it.
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        while self._migrate_next(config):
            pass

    def _migrate_next(self, config: Any) -> bool:
        """Apply the next migration; returns False if none is missing.

        Each in a transaction of its own: replicas that run wait for the tables that one locks only while
        that one takes.
        """
        from alembic import command

        with self.write() as connection:
            if self.shared:
                # Of several processes that start together, one migrates and the others wait.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": TURN})
            at = _version(connection)
            if at == HEAD:
                return False
            config.attributes["connection"] = connection
            try:
                # A new ledger, for which nobody waits, at once.
                command.upgrade(config, "head" if at is None else "+1")
            except (exc.ProgrammingError, exc.NotSupportedError) as error:
                raise Misconfigured(
                    f"The tables of the ledger could not be created or changed in {self._place}. The user of "
                    f"{self._place.setting} must own the database, and the server has to offer the extension "
                    "pg_trgm."
                ) from error
        return True

    def close(self) -> None:
        """Close every connection; one that is in use is closed when it is given back."""
        self._closed = True
        self._engine.dispose()

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        self.gate.check()
        try:
            yield
        except exc.TimeoutError as error:
            raise Unavailable("Every connection of this process to the ledger's database is busy.") from error
        except (exc.DBAPIError, self._driver.Error) as error:
            cause = error.orig if isinstance(error, exc.DBAPIError) else error
            if isinstance(error, _OURS) and not messages.knows(cause):
                raise
            # Locked, full, read-only, unreachable, no database at all: none of it is the caller's fault.
            raise Unavailable(messages.unavailable(cause, self._place)) from error

    @contextmanager
    def _connected(self, **options: bool) -> Iterator[Connection]:
        pool = self._engine.pool
        try:
            with self._engine.connect() as plain:
                connection = plain.execution_options(**options)
                if self.shared:
                    begin_postgresql(connection)
                yield connection
        finally:
            if self._closed:
                # It went back to a pool that was emptied before.
                pool.dispose()


def inserted(connection: Connection, statement: Insert) -> bool:
    """Insert a row; returns False if a row with its key is there already."""
    try:
        with connection.begin_nested():
            connection.execute(statement)
    except exc.IntegrityError:
        return False
    return True


def _version(connection: Connection) -> str | None:
    """Return the ledger's newest migration; None if it is new. Raises Misconfigured if it is not for us."""
    known = inspect(connection).has_table("alembic_version")
    version = text("SELECT version_num FROM alembic_version")
    at: str | None = connection.scalar(version) if known else None
    if at == MOVING:
        raise Misconfigured(
            "A ledger is being moved to this database, and the copy is not complete yet. "
            "Run the same `darkroom migrate-ledger` again."
        )
    if at is not None and at > HEAD:
        raise Unusable(
            f"The ledger is of a newer Darkroom (schema {at}, this version's is {HEAD}). Install that, or "
            "restore the ledger from before the upgrade."
        )
    return at


@contextmanager
def _limited_by_client(connection: Connection, deadline: float) -> Iterator[None]:
    driver: Any = connection.connection.dbapi_connection
    driver.set_progress_handler(lambda: monotonic() > deadline, STEPS)
    try:
        yield
    except exc.DBAPIError as error:
        if monotonic() <= deadline:
            raise
        raise TookTooLong(SLOW) from error
    finally:
        driver.set_progress_handler(None, 0)


@contextmanager
def _limited_by_server(connection: Connection, deadline: float) -> Iterator[None]:
    left_ms = max(1, int((deadline - monotonic()) * 1000))
    connection.execute(_LIMIT, {"ms": str(left_ms)})
    try:
        yield
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != CANCELED:
            raise
        raise TookTooLong(SLOW) from error
