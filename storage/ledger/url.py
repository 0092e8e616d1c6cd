"""Parse the URL of the ledger: whether it is SQLite or PostgreSQL, where it is, and how messages name it.

This is the one place that looks at the text of the URL; everything else asks a `LedgerUrl`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from storage.errors import Misconfigured

SETTING = "DARKROOM_DATABASE_URL"

_POSTGRESQL = frozenset({"postgres", "postgresql", "postgres+psycopg", "postgresql+psycopg"})
_SQLITE = frozenset({"sqlite", "sqlite+pysqlite"})
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]{0,30})://", re.IGNORECASE)
_FORMS = "postgresql://USER:PASSWORD@HOST/DATABASE, or sqlite:/// and the path of a file"


@dataclass(frozen=True, slots=True)
class LedgerUrl:
    """Where the ledger is. `str()` names the file, or the database and its host, and no secret."""

    url: URL = field(repr=False)
    """As SQLAlchemy needs it. Never for a message: it may hold a password."""
    setting: str = SETTING
    """The setting to change if the ledger cannot be used."""

    @classmethod
    def parse(cls, text: str, setting: str = SETTING) -> LedgerUrl:
        """Parse a URL; raises Misconfigured, which names the setting and no part that may be secret."""
        scheme = _SCHEME.match(text.strip())
        if scheme is None:
            raise Misconfigured(f"{setting} is no URL. Write {_FORMS}.")
        kind, rest = scheme[1].lower(), text.strip()[scheme.end() :]
        if kind in _SQLITE:
            return cls.of_file(_path(rest, setting), setting)
        if kind in _POSTGRESQL:
            return cls(_postgresql(rest, setting), setting)
        raise Misconfigured(f"{setting} begins with {kind}://, which no ledger can be. Write {_FORMS}.")

    @classmethod
    def of_file(cls, path: Path, setting: str = SETTING) -> LedgerUrl:
        """Return the URL of a SQLite file, whatever characters its path has."""
        return cls(URL.create("sqlite", database=str(path.absolute())), setting)

    @property
    def shared(self) -> bool:
        """Whether processes on other machines may use it too: whether it is PostgreSQL."""
        return self.path is None

    @property
    def path(self) -> Path | None:
        """The file of a SQLite ledger."""
        return Path(self.url.database or "") if self.url.drivername == "sqlite" else None

    @property
    def host(self) -> str:
        """The host of PostgreSQL with its port, or the folder of its socket; several with commas."""
        hosts = self.url.host or self._query("host") or self._query("hostaddr") or os.environ.get("PGHOST")
        port = self.url.port or self._query("port")
        return f"{hosts or 'this machine'}{f':{port}' if port else ''}"

    @property
    def user(self) -> str:
        """The user of PostgreSQL."""
        return self.url.username or self._query("user") or os.environ.get("PGUSER") or "of this process"

    @property
    def database(self) -> str:
        """The database of PostgreSQL; its default is named like the user."""
        return self.url.database or self._query("dbname") or os.environ.get("PGDATABASE") or self.user

    def __str__(self) -> str:
        return str(self.path) if self.path else f"the database {self.database} at {self.host}"

    def _query(self, name: str) -> str:
        value: str | Sequence[str] = self.url.query.get(name, "")
        return value if isinstance(value, str) else ", ".join(value)


def _path(rest: str, setting: str) -> Path:
    """Return the path in a URL of SQLite, of which `rest` is what follows `sqlite://`."""
    text = rest.removeprefix("/")
    if text == rest or text in {"", ":memory:"} or text.startswith("file:"):
        raise Misconfigured(
            f"{setting} must name a file: sqlite:///relative/path or sqlite:////absolute/path. "
            "A ledger in memory would be lost."
        )
    if "?" in text:
        raise Misconfigured(f"{setting}: a SQLite file takes no parameters. Leave out ? and what follows.")
    literal = Path(text)
    return literal if literal.exists() else Path(unquote(text))


def _postgresql(rest: str, setting: str) -> URL:
    try:
        url = make_url(f"postgresql+psycopg://{rest}")
    except (ArgumentError, ValueError):
        url = None
    if url is None or "@" in f"{url.host}{url.database}":
        raise Misconfigured(
            f"{setting} cannot be parsed. Write postgresql://USER:PASSWORD@HOST/DATABASE, and percent-encode "
            "characters such as @ : / in the password: %40 %3A %2F."
        )
    return url.set(database=unquote(url.database) if url.database else None)
