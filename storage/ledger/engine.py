"""Configure the pool of connections to SQLite (WAL) or PostgreSQL."""

import sqlite3
from time import monotonic
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

BUSY_TIMEOUT_MS = 5_000
"""How long a write waits for a lock: gateways time out a callback after five to ten seconds."""

BUSY_LOOK_MS = 2
"""How long one try to begin a write waits inside SQLite."""

POOL = {"pool_size": 8, "max_overflow": 12, "pool_timeout": BUSY_TIMEOUT_MS / 1000}
"""How many connections to PostgreSQL one process keeps, how many more it opens when all are in use, and how
long a thread waits for one. A server's default limit is 100."""

CONNECT_S = 5
"""The timeout for connecting to PostgreSQL."""

NAME = "darkroom"
"""The application name in PostgreSQL's `pg_stat_activity`."""

CACHE_KIB = 8 * 1024
"""The page cache of one connection to SQLite, at most; few are in use at one time."""


def make_engine(url: URL, *, alone: bool) -> Engine:
    """Return a pool of connections to a ledger's database; it connects on first use.

    `alone` is for SQLite: one connection, which from its first use on locks every other process out.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, alone=alone)
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername="postgresql+psycopg")
    # A dead peer is noticed, and a lock is not waited for longer than the sender of a callback waits for us.
    limits = f"-c lock_timeout={BUSY_TIMEOUT_MS} -c idle_in_transaction_session_timeout=60000"
    reach = {"connect_timeout": CONNECT_S, "tcp_user_timeout": 10_000, "options": limits}
    arguments = {"application_name": NAME, **reach}
    return create_engine(url, pool_use_lifo=True, pool_pre_ping=True, connect_args=arguments, **POOL)


def _sqlite(url: URL, *, alone: bool) -> Engine:
    # Threads limit connections here; a pool that ran dry would only be a second, hidden limit.
    size = {"pool_size": 1, "max_overflow": 0} if alone else {"pool_size": 32, "max_overflow": -1}
    engine = create_engine(url, connect_args={"check_same_thread": False}, pool_use_lifo=True, **size)
    if alone:
        event.listen(engine, "connect", _lock_out)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _lock_out(connection: Any, _record: object) -> None:
    # Every process that has a ledger in WAL mode open holds a shared lock on its file, which keeps this one
    # out until the last of them is gone: https://www.sqlite.org/pragma.html#pragma_locking_mode
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
            "secure_delete=ON",  # what was deleted from a row is not left in the file
            f"cache_size=-{CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("darkroom_autocommit", False):
        return
    if options.get("darkroom_read", False):
        connection.exec_driver_sql("BEGIN")
    else:
        _begin_to_write(connection)


def _begin_to_write(connection: Connection) -> None:
    # SQLite polls for the write lock with growing pauses, and so loses each time to a process that writes
    # all the time; short tries get it.
    deadline = monotonic() + BUSY_TIMEOUT_MS / 1000
    driver: Any = connection.connection.dbapi_connection
    driver.execute(f"PRAGMA busy_timeout={BUSY_LOOK_MS}")
    try:
        while monotonic() < deadline and not _begun(driver):
            pass
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises what is wrong
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


def _begun(driver: Any) -> bool:
    """Try to begin a write; returns False while another writer has the lock."""
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY
    return True
