"""Write very many rows into a new ledger, past the service: as fast as its database takes them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from storage.ledger.database import Database
from storage.ledger.search_index import pieces_of

Row = Mapping[str, Any]


class Writer(Protocol):
    """Writes rows, and then makes them durable."""

    def insert(self, table: str, rows: Iterable[Row]) -> None:
        """Insert rows that all have the same columns."""

    def index(self, jobs: Iterable[Row]) -> None:
        """Make jobs findable by the words of their prompts."""

    def commit(self) -> None:
        """Make durable what was written."""

    def close(self) -> None:
        """End, when all is written."""


def writer(url: str) -> Writer:
    """Open a ledger that may not exist yet, and write."""
    Database.open(url).close()
    return _Sqlite(url) if url.startswith("sqlite") else _Postgres(url)


class _Sqlite:
    def __init__(self, url: str) -> None:
        self._connection = sqlite3.connect(str(make_url(url).database))
        self._connection.execute("PRAGMA synchronous=OFF")

    def insert(self, table: str, rows: Iterable[Row]) -> None:
        rows = iter(rows)
        if (first := next(rows, None)) is None:
            return
        names = ", ".join(f'"{name}"' for name in first)
        values = (_values(row) for row in chain([first], rows))
        places = ", ".join("?" * len(first))
        self._connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({places})", values)

    def index(self, jobs: Iterable[Row]) -> None:
        pieces = ((job["number"], pieces_of(job["prompt_folded"])) for job in jobs)
        self._connection.executemany("INSERT INTO grams (rowid, pieces) VALUES (?, ?)", pieces)

    def commit(self) -> None:
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()


class _Postgres:
    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url)

    def insert(self, table: str, rows: Iterable[Row]) -> None:
        rows = iter(rows)
        if (first := next(rows, None)) is None:
            return
        names = sql.SQL(", ").join(sql.Identifier(name) for name in first)
        copied = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
        with self._connection.cursor() as cursor, cursor.copy(copied) as copy:
            for row in chain([first], rows):
                copy.write_row(_values(row))

    def index(self, jobs: Iterable[Row]) -> None:
        self.insert("grams", ({"number": job["number"], "folded": job["prompt_folded"]} for job in jobs))

    def commit(self) -> None:
        self._connection.commit()

    def close(self) -> None:
        # As the server does by itself in a ledger that has grown for a while.
        self._connection.autocommit = True
        self._connection.execute("VACUUM ANALYZE")
        self._connection.close()


def _values(row: Row) -> Sequence[Any]:
    return [json.dumps(value) if isinstance(value, (dict, list, tuple)) else value for value in row.values()]
