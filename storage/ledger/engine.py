"""Configure the pool of connections to SQLite (WAL) or PostgreSQL, also behind a pooler such as PgBouncer.

In session mode a pooler keeps one session of the server for each of its clients. In transaction mode the
session of a client is another one in each transaction, so nothing of a session may be relied upon: `SET`
without `LOCAL`, prepared statements, LISTEN (https://www.pgbouncer.org/features.html).
"""

import os
import select
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc

from storage.errors import Misconfigured
from storage.ledger.url import LedgerUrl
from storage.statements import to_json

BUSY_TIMEOUT_MS = 5_000
"""How long a write waits for a lock: gateways time out a callback after five to ten seconds."""

BUSY_LOOK_MS = 2
"""How long one try to begin a write waits inside SQLite."""

POOL = {"pool_size": 8, "max_overflow": 12, "pool_timeout": BUSY_TIMEOUT_MS / 1000}
"""How many connections to PostgreSQL one process keeps, how many more it opens when all are in use, and how
long a thread waits for one. A server's default limit is 100."""

CONNECT_S = 5
"""The timeout for connecting to PostgreSQL."""

POOLED = "pooled"
"""Whether a connection leads to a pooler, in what SQLAlchemy keeps with it."""

NAME = "darkroom"
"""The application name in PostgreSQL's `pg_stat_activity`."""

CACHE_KIB = 8 * 1024
"""The page cache of one connection to SQLite, at most; few are in use at one time."""


LIMITS = {"lock_timeout": BUSY_TIMEOUT_MS, "idle_in_transaction_session_timeout": 60_000}
"""Timeouts of PostgreSQL in milliseconds: a lock is not waited for longer than the sender of a callback waits
for us, and a transaction that idles is ended."""

SET_LIMITS = "".join(f"; SET LOCAL {name} = {value}" for name, value in LIMITS.items()).encode()
"""What sets them for one transaction."""

DO_NOT_WAIT = b"; SET LOCAL synchronous_commit = off"
"""What has one transaction's commit not wait for the disk. It is in the log before all that commits later:
https://www.postgresql.org/docs/current/wal-async-commit.html"""


ROUNDS = 3
"""How often it is tried whether a session changes hands; other clients of the pooler may hide it."""


def make_engine(place: LedgerUrl, *, alone: bool) -> Engine:
    """Return a pool of connections to a ledger's database; it connects on first use.

    `alone` is for SQLite: one connection, which from its first use on locks every other process out.
    """
    return _postgresql(place) if place.shared else _sqlite(place.url, alone=alone)


def _postgresql(place: LedgerUrl) -> Engine:
    url = place.url
    # A dead peer is noticed. What the URL itself says stands.
    reach = {"connect_timeout": CONNECT_S, "tcp_user_timeout": 10_000}
    arguments = {"application_name": NAME} | {name: reach[name] for name in reach.keys() - url.query.keys()}
    try:
        engine = create_engine(url, pool_use_lifo=True, connect_args=arguments, **POOL)
    except ImportError as error:
        raise Misconfigured(
            "PostgreSQL needs psycopg, which is not installed here: pip install 'psycopg[binary]>=3.2'."
        ) from error
    driver: Any = engine.dialect.loaded_dbapi
    known = {option.keyword.decode() for option in driver.pq.Conninfo.get_defaults()}
    if unknown := sorted(url.query.keys() - known):
        raise Misconfigured(f"{place.setting}: PostgreSQL knows no {', '.join(unknown)}. Leave it out.")
    event.listen(engine, "connect", _prepare_postgresql)
    event.listen(engine, "checkout", _check_alive)
    return engine


def _check_alive(connection: Any, _record: object, _proxy: object) -> None:
    """Have the pool connect anew in place of a connection that the server has ended.

    A server that stops, or ends a session, says so: there is something to read. To ask it before each
    transaction would be a round trip for nothing.
    """
    if not connection.closed:
        looked = select.poll()
        looked.register(connection.pgconn.socket, select.POLLIN)
        if not looked.poll(0):
            return
    raise exc.InvalidatePoolError


def _prepare_postgresql(connection: Any, record: Any) -> None:
    # The driver must not begin transactions on its own: their limits go into the same message.
    connection.autocommit = True
    try:
        record.info[POOLED] = pooled = is_pooled(connection)
        if pooled:
            connection.prepare_threshold = None
        else:
            connection.execute("; ".join(f"SET {name} = {value}" for name, value in LIMITS.items()))
    except BaseException:
        connection.close()
        raise


def begin_postgresql(connection: Connection) -> None:
    """Begin a transaction on PostgreSQL, of the kind that the connection's options name, with its limits.

    To be called, because an engine with a listener of `begin` takes longer over every statement.
    """
    options, pooled = connection.get_execution_options(), connection.info[POOLED]
    if options.get("darkroom_autocommit", False) and not pooled:
        return
    # A snapshot for all statements, as on SQLite.
    begin = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if options.get("darkroom_read") else b"BEGIN"
    if options.get("darkroom_lazy", False):
        begin += DO_NOT_WAIT
    # Behind a pooler the session may be another one in each transaction, and is not ours to set. All in one
    # message, by libpq: a cursor of the driver would take longer over it than the server does.
    session: Any = connection.connection.driver_connection
    done = session.pgconn.exec_(begin + SET_LIMITS if pooled else begin)
    driver: Any = connection.dialect.loaded_dbapi
    if done.status != driver.pq.ExecStatus.COMMAND_OK:
        raise driver.errors.error_from_result(done)


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Send the statements of a block without waiting for the answer to each one: on PostgreSQL, if no pooler
    is between.

    With `Prepared` ones alone. The first that needs rows waits for all before it, and gets their errors too;
    what is left comes at the end of the block.
    """
    if connection.dialect.name != "postgresql" or connection.info[POOLED]:
        yield
        return
    session: Any = connection.connection.driver_connection
    with session.pipeline():
        yield


def _sqlite(url: URL, *, alone: bool) -> Engine:
    # Threads limit connections here; a pool that ran dry would only be a second, hidden limit.
    size = {"pool_size": 1, "max_overflow": 0} if alone else {"pool_size": 32, "max_overflow": -1}
    engine = create_engine(
        url,
        connect_args={"check_same_thread": False},
        pool_use_lifo=True,
        json_serializer=to_json,
        **size,
    )
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
            "synchronous=NORMAL",  # a commit does not wait for the disk; `flush` does
            "foreign_keys=ON",
            "secure_delete=ON",  # what was deleted from a row is not left in the file
            f"cache_size=-{CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise


def flush(path: Path) -> None:
    """Return once what was committed to SQLite is on the disk, as after a commit with `synchronous=FULL`.

    Raises OSError if the disk refuses it. To be called without the write lock, which that would keep until
    the disk is done: a callback would wait for the disk behind each step of a job. What another process reads
    of a commit before, and writes for it, is behind that commit in the same log: https://www.sqlite.org/wal.html
    """
    try:
        log = os.open(f"{path}-wal", os.O_RDONLY)
    except FileNotFoundError:
        return  # its last connection was closed, which has copied all of it into the ledger, and flushed that
    try:
        os.fdatasync(log)
    finally:
        os.close(log)


def copy_log(connection: Connection) -> bool:
    """Copy SQLite's log into the ledger, and wait for the disk; return whether all of it was copied."""
    busy, frames, copied = connection.exec_driver_sql("PRAGMA wal_checkpoint(FULL)").one()
    return not busy and frames == copied


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


def is_pooled(connection: Any) -> bool:
    """Return whether a driver's connection leads to a pooler and not to PostgreSQL itself.

    A pooler makes up the process id that a client is told when it connects.
    """
    told: int = connection.info.backend_pid
    return _session(connection) != told


def shares_sessions(first: Any, second: Any) -> bool:
    """Return whether a pooler is in transaction mode, seen by two of its clients in autocommit."""
    for _ in range(ROUNDS):
        # Twice, because a pooler may give out its sessions in turn.
        seen = {_session(first), _session(first)}
        with second.transaction():
            if _session(second) in seen:
                return True
            seen.add(_session(first))
        if len(seen) > 1:
            return True
    return False


def _session(connection: Any) -> int:
    """Return the process id of the server's session that a statement is run in now."""
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    return int(pid)
