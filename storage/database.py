"""Open the ledger's database: connection settings, transactions, migrations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

from sqlalchemy import URL, Connection, Engine, Insert, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage.errors import Misconfigured, TookTooLong, Unavailable

HEAD = "0003"
"""The newest migration; a test holds it against `migrations/versions/`."""

BUSY_TIMEOUT_MS = 5_000
"""How long a write waits for another one: gateways give up on a callback after five to ten seconds."""


STEPS = 50_000
"""How many steps of SQLite's virtual machine there are between two looks at the clock."""

POOL = {"pool_size": 8, "max_overflow": 12, "pool_timeout": BUSY_TIMEOUT_MS / 1000}
"""How many connections to PostgreSQL one process keeps, how many more it opens when all are in use, and how
long somebody waits for one; a server has room for 100, if nobody has changed that."""

CONNECT_S = 5
"""How long a connection to PostgreSQL may take to be made."""

TURN = 0x6461726B
"""The advisory lock that whoever migrates a PostgreSQL ledger holds."""

NAME = "darkroom"
"""What PostgreSQL calls those who are connected, in `pg_stat_activity`."""

MOVING = "moving"
"""What stands in the place of the schema's version while a ledger is being copied there."""

CANCELED = "57014"
"""What PostgreSQL calls a statement that took longer than it may."""

CACHE_KIB = 8 * 1024
"""What one connection to SQLite keeps of the database in memory, at most; few are in use at one time."""


class Database:
    """A pool of connections, and the two ways to use one: to read, and to write."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # SQLite has one writer at a time, and whoever finds it busy sleeps ever longer before looking again.
        # Threads of one process need not: they take turns here, and are woken when it is theirs.
        self._turn = Lock() if engine.dialect.name == "sqlite" else None
        self._closed = False

    @classmethod
    def open(cls, url: str) -> Database:
        """Connect, and bring the schema up to date.

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
    def connect(cls, url: str, *, alone: bool = False) -> Database:
        """Connect, whatever schema is there; raises Misconfigured if the URL cannot be used.

        `alone` is for SQLite: from its first use until it is closed nobody else can open the ledger, and that
        use fails with Unavailable if somebody has it open. There is one connection only.
        """
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            return cls(_engine(parsed, alone=alone))
        except (SQLAlchemyError, ImportError, OSError) as error:
            raise Misconfigured(f"DARKROOM_DATABASE_URL cannot be used: {type(error).__name__}.") from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may write. It commits at the end of the block, durably, or not at all."""
        with _translated(), self._in_turn(), self._connected() as connection, connection.begin():
            yield connection

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
        """A connection for reading only; it never waits for a writer on SQLite.

        `within_s`: how long all that is read may take; then it is broken off, and TookTooLong raised.
        """
        with _translated(), self._connected() as plain:
            connection = plain.execution_options(darkroom_read=True)
            if self._turn is None:
                # What is read together is of one moment, as it is on SQLite.
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            if within_s is None:
                yield connection
                return
            limited = _ended_by_server if self._turn is None else _broken_off
            with limited(connection, monotonic() + within_s):
                yield connection

    def migrate(self) -> None:
        """Apply the migrations that this database lacks; raise Misconfigured if it is newer than we are."""
        with self.read() as connection:
            if _is_current(connection):
                return
        # Imported here because a start with nothing to migrate should not pay for it.
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        with self.write() as connection:
            if self._turn is None:
                # Several may be started together; the others find nothing left to do.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": TURN})
            if not _is_current(connection):
                config.attributes["connection"] = connection
                command.upgrade(config, "head")

    def close(self) -> None:
        """Close every connection; one that is still in use is closed by whoever uses it."""
        self._closed = True
        self._engine.dispose()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            try:
                yield connection
            finally:
                if self._closed and not connection.invalidated:
                    connection.detach()


def inserted(connection: Connection, statement: Insert) -> bool:
    """Insert, unless another transaction was faster; answers whether it was done."""
    try:
        with connection.begin_nested():
            connection.execute(statement)
    except IntegrityError:
        return False
    return True


def _is_current(connection: Connection) -> bool:
    known = inspect(connection).has_table("alembic_version")
    at = connection.scalar(text("SELECT version_num FROM alembic_version")) if known else None
    if at == MOVING:
        raise Misconfigured(
            "A ledger is being moved to this database, and is not whole yet. "
            "Give the same `darkroom migrate-ledger` again."
        )
    if at is not None and at > HEAD:
        raise Misconfigured(f"The ledger is of a newer Darkroom (schema {at}, ours is {HEAD}); upgrade.")
    return bool(at == HEAD)


def _engine(url: URL, *, alone: bool) -> Engine:
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, alone=alone)
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername="postgresql+psycopg")
    # A server that is gone without a word is noticed, and one that is locked is not waited for any longer
    # than the sender of a callback waits for us.
    limits = f"-c lock_timeout={BUSY_TIMEOUT_MS} -c idle_in_transaction_session_timeout=60000"
    reach = {"connect_timeout": CONNECT_S, "tcp_user_timeout": 10_000, "options": limits}
    told = {"application_name": NAME, **reach}
    return create_engine(url, pool_pre_ping=True, pool_use_lifo=True, connect_args=told, **POOL)


def _sqlite(url: URL, *, alone: bool) -> Engine:
    # Threads are what limits connections here; a pool that ran dry would only be a second, hidden limit.
    size = {"pool_size": 1, "max_overflow": 0} if alone else {"pool_size": 32, "max_overflow": -1}
    engine = create_engine(url, connect_args={"check_same_thread": False}, pool_use_lifo=True, **size)
    if alone:
        event.listen(engine, "connect", _lock_out)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _lock_out(connection: Any, _record: object) -> None:
    # Whoever has a ledger in WAL mode open holds a shared lock on its file, which keeps this one out until
    # the last of them is gone: https://www.sqlite.org/pragma.html#pragma_locking_mode
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver must not open transactions on its own: it would begin them as readers, and a reader
    # that turns into a writer fails at once instead of waiting for its turn.
    connection.isolation_level = None
    try:
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",  # an acknowledged callback survives a power loss
            "foreign_keys=ON",
            "secure_delete=ON",  # what was taken out of a row is not left in the file
            f"cache_size=-{CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("darkroom_read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


@contextmanager
def _broken_off(connection: Connection, deadline: float) -> Iterator[None]:
    driver: Any = connection.connection.dbapi_connection
    driver.set_progress_handler(lambda: monotonic() > deadline, STEPS)
    try:
        yield
    except DBAPIError as error:
        if monotonic() <= deadline:
            raise
        raise TookTooLong("This question takes too long to answer; ask for less at a time.") from error
    finally:
        driver.set_progress_handler(None, 0)


@contextmanager
def _ended_by_server(connection: Connection, deadline: float) -> Iterator[None]:
    left_ms = max(1, int((deadline - monotonic()) * 1000))
    connection.execute(text(f"SET LOCAL statement_timeout = {left_ms}"))
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != CANCELED:
            raise
        raise TookTooLong("This question takes too long to answer; ask for less at a time.") from error


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable("Every connection to the ledger's database is busy.") from error
    except (IntegrityError, ProgrammingError, DataError):
        raise
    except DBAPIError as error:
        # Locked, full, read-only, unreachable, no database at all: whatever it is, it is not the caller's.
        raise Unavailable(f"The ledger's database did not answer: {type(error.orig).__name__}.") from error
