"""Say in plain words why the ledger's database cannot be used, where it is, and which setting to change.

Nothing of a driver's text is repeated, since it may hold what is secret. PostgreSQL gives a reason a code
(https://www.postgresql.org/docs/current/errcodes-appendix.html); a connection that fails has none, only a
text, which is looked through for the words of the server, of libpq and of PgBouncer.
"""

import re
import sqlite3
from pathlib import Path
from typing import Any

from storage.ledger.url import LedgerUrl

_FULL = "PostgreSQL at {host} has no connection left. Raise max_connections, or run fewer processes."
_STARTING = "PostgreSQL at {host} is starting or stopping."

_BY_STATE = {
    "25006": "The {where} can only be read: it is a standby, or set so. Name the primary in {setting}.",
    "3F000": "The {where} has no schema for the ledger's tables. Correct {setting}, or search_path there.",
    "42501": "The user {user} may not use the ledger's tables in the {where}. It must own that database.",
    "42P01": "The {where} lacks tables of the ledger. Correct {setting}, or restore the database.",
    "53100": "The disk of the {where} is full. Free space there.",
    "53200": "PostgreSQL at {host} is out of memory.",
    "53300": _FULL,
    "55P03": "Another transaction in the {where} held a lock for too long.",
    "57P01": "PostgreSQL at {host} ended the connection: it is stopping, or somebody ended it.",
    "57P03": _STARTING,
}
"""What to say at an SQLSTATE."""

_BY_TEXT = {
    r"no password supplied": "PostgreSQL at {host} asks for a password of user {user}, and "
    "{setting} has none.",
    r"no such user|role .* does not exist": "PostgreSQL at {host} has no user {user}. Create it, or correct "
    "{setting}.",
    r"(password|scram|sasl) .*failed|auth failed|wrong password": "PostgreSQL at {host} does not accept the "
    "password of user {user}. Correct it in {setting}, with characters such as @ : / percent-encoded: "
    "%40 %3A %2F.",
    r"no such database|database .* does not exist": "There is no {where}. Create it, or correct its name in "
    "{setting}.",
    r"does not support (SSL|TLS)": "PostgreSQL at {host} offers no TLS, and sslmode in {setting} asks "
    "for it.",
    r"pg_hba\.conf.*(no encryption|SSL off)": "PostgreSQL at {host} does not let user {user} into {database} "
    "from this machine without TLS. If it has TLS, add ?sslmode=require to {setting}; if not, allow it in "
    "pg_hba.conf.",
    r"pg_hba\.conf": "PostgreSQL at {host} does not let user {user} into {database} from this machine. Allow "
    "it in pg_hba.conf.",
    r"(SSL|TLS) required": "PostgreSQL at {host} requires TLS. Add ?sslmode=require to {setting}.",
    r"certificate": "The TLS certificate of PostgreSQL at {host} is not trusted. Look at sslmode and "
    "sslrootcert in {setting}.",
    r"invalid sslmode": "The sslmode in {setting} for {host} is unknown. Write require or verify-full.",
    r"too many (clients|connections)|connection slots|no more connections allowed": _FULL,
    r"starting up|shutting down|recovery mode|not yet accepting": _STARTING,
    r"unsupported startup parameter": "The pooler at {host} refuses a parameter in {setting}. Leave out "
    "options=, or name it in ignore_startup_parameters there.",
    r"statement pooling mode": "The pooler at {host} is in statement mode, which has no transactions. Set "
    "pool_mode = transaction there.",
    r"query_wait_timeout|server_login_retry|cannot connect to server|login has been failing": "The pooler at "
    "{host} has no connection to PostgreSQL: that is away, refuses the pooler, or the pool is too small.",
    r"permission denied for database": "The user {user} may not connect to the {where}.",
    r"could not translate host|failed to resolve|name or service not known": "There is no host {host}. "
    "Correct it in {setting}, or look at DNS.",
    r"connection refused|no such file or directory": "No PostgreSQL listens at {host}. Start it, or correct "
    "host and port in {setting}.",
    r"timeout|timed out|no route to host|network is unreachable": "PostgreSQL at {host} cannot be reached. "
    "Correct host and port in {setting}, or look at the network.",
    r"FATAL": "PostgreSQL at {host} does not let user {user} into {database}; its own log says why.",
}
"""What to say where these words are in the text of a connection that failed; the first that fit."""

_CONNECTION = "08"
"""The class of SQLSTATE that a pooler gives every reason of its own."""

_AWAY = "PostgreSQL at {host} did not answer, or broke off the connection."

_HELD = "Another program held the ledger {path} for too long."
_READ_ONLY = (
    "The ledger {path} cannot be written. This user needs the right to write it and its folder, and the disk "
    "must not be read-only."
)

_SQLITE = {
    sqlite3.SQLITE_BUSY: _HELD,
    sqlite3.SQLITE_LOCKED: _HELD,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_PERM: _READ_ONLY,
    sqlite3.SQLITE_FULL: "The disk of the ledger {path} is full. Free space there.",
    sqlite3.SQLITE_IOERR: "The ledger {path} cannot be read or written. Look at its disk, and at its rights.",
    sqlite3.SQLITE_NOTADB: "{path} is not a SQLite database. Correct {setting}, or restore the file.",
    sqlite3.SQLITE_CORRUPT: "The ledger {path} is damaged. Restore it from a backup.",
}


def unavailable(error: BaseException | None, place: LedgerUrl) -> str:
    """Return why the database of a ledger cannot be used, from a driver's error."""
    if (path := place.path) is not None:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return _of_sqlite(code & 0xFF, path, place.setting)
    names = {name: getattr(place, name) for name in ("host", "user", "database", "setting")}
    where = f"database {place.database} at {place.host}"
    return _of_postgresql(error).format(where=where, **names)


def knows(error: Any) -> bool:
    """Return whether a driver's error has a reason that an operator can remove."""
    return getattr(error, "sqlstate", None) in _BY_STATE


def is_damaged(error: Any) -> bool:
    """Return whether an error of SQLite means that the file is no database, or a damaged one."""
    code = getattr(getattr(error, "orig", error), "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


def _of_sqlite(code: int, path: Path, setting: str) -> str:
    if code == sqlite3.SQLITE_CANTOPEN:
        why = "it is a folder" if path.is_dir() else "this user may not open it, or not write its folder"
        return f"The ledger {path} cannot be opened: {why}. Correct {setting}, or the rights."
    message = _SQLITE.get(code, "The ledger {path} cannot be used. Correct {setting}, or restore the file.")
    return message.format(path=path, setting=setting)


def _of_postgresql(error: Any) -> str:
    state = getattr(error, "sqlstate", None)
    if state in _BY_STATE:
        return _BY_STATE[state]
    if state is not None and not state.startswith(_CONNECTION):
        return f"PostgreSQL at {{host}} reports error {state}; its own log says more."
    text = str(error)
    return next((told for words, told in _BY_TEXT.items() if re.search(words, text, re.IGNORECASE)), _AWAY)
