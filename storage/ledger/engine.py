"""How the ledger's database is connected to: the settings of SQLite's and PostgreSQL's connections."""

from __future__ import annotations

import select
import sqlite3
from math import inf
from time import monotonic
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_TIMEOUT_MS = 5_000
"""How long a write waits for another one: gateways give up on a callback after five to ten seconds."""

BUSY_LOOK_MS = 2
"""After so long SQLite says that another process writes."""

POOL = {"pool_size": 8, "max_overflow": 12, "pool_timeout": BUSY_TIMEOUT_MS / 1000}
"""How many connections to PostgreSQL one process keeps, how many more it opens when all are in use, and how
long somebody waits for one; a server has room for 100, if nobody has changed that."""

CONNECT_S = 5
"""How long a connection to PostgreSQL may take to be made."""

RESTED_S = 1.0
"""A connection to PostgreSQL that was not used for so long is tried out before it is used."""

NAME = "darkroom"
"""What PostgreSQL calls those who are connected, in `pg_stat_activity`."""

CACHE_KIB = 8 * 1024
"""What one connection to SQLite keeps of the database in memory, at most; few are in use at one time."""


def make_engine(url: URL, *, alone: bool) -> Engine:
    """Make the pool of connections to a ledger's database; nothing is connected yet.

    `alone` is for SQLite: one connection, and from its first use on nobody else has the ledger open.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, alone=alone)
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername="postgresql+psycopg")
    # A server that is gone without a word is noticed, and one that is locked is not waited for any longer
    # than the sender of a callback waits for us.
    limits = f"-c lock_timeout={BUSY_TIMEOUT_MS} -c idle_in_transaction_session_timeout=60000"
    reach = {"connect_timeout": CONNECT_S, "tcp_user_timeout": 10_000, "options": limits}
    told = {"application_name": NAME, **reach}
    engine = create_engine(url, pool_use_lifo=True, connect_args=told, **POOL)
    event.listen(engine, "checkin", _put_back)
    event.listen(engine, "checkout", _taken_out)
    return engine


def _put_back(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["rests_since"] = monotonic()


def _taken_out(connection: Any, record: ConnectionPoolEntry, _pooled: object) -> None:
    """Try out a connection that has rested, or on which the server has said something, such as that it goes.

    Then the pool makes another one. Not each of them (`pool_pre_ping`), because that costs as much as a small
    question does.
    """
    if connection is None:
        return
    spoken = select.poll()
    spoken.register(connection.fileno(), select.POLLIN)
    if monotonic() - record.info.get("rests_since", inf) < RESTED_S and not spoken.poll(0):
        return
    try:
        connection.execute("SELECT 1")
        connection.rollback()
    except Exception as error:
        raise DisconnectionError from error


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
    options = connection.get_execution_options()
    if options.get("darkroom_autocommit", False):
        return
    if options.get("darkroom_read", False):
        connection.exec_driver_sql("BEGIN")
    else:
        _begin_to_write(connection)


def _begin_to_write(connection: Connection) -> None:
    # SQLite tells nobody when another process has written. Left to itself it looks ever more rarely, and
    # finds one that writes all the time at it each time; so it is asked often.
    deadline = monotonic() + BUSY_TIMEOUT_MS / 1000
    driver: Any = connection.connection.dbapi_connection
    driver.execute(f"PRAGMA busy_timeout={BUSY_LOOK_MS}")
    try:
        while monotonic() < deadline and not _begun(driver):
            pass
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # which says what is wrong
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")


def _begun(driver: Any) -> bool:
    """Begin to write; answers whether it could be done, or what hinders it is not another writer."""
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY
    return True
