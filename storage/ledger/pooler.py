"""Find out whether a pooler such as PgBouncer stands between us and PostgreSQL, and what it does.

In session mode a pooler keeps one session of the server for each of its clients. In transaction mode the
session of a client is another one in each transaction, so nothing of a session may be relied upon: `SET`
without `LOCAL`, prepared statements, LISTEN (https://www.pgbouncer.org/features.html).
"""

from typing import Any

ROUNDS = 3
"""How often it is tried whether a session changes hands; other clients of the pooler may hide it."""


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
