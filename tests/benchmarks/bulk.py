"""Write very many rows into a new ledger, past the service: as fast as its database takes them."""

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from storage.ledger.database import Database
from storage.ledger.search_index import pieces_of

Row = Mapping[str, Any]


class Writer(ABC):
    """Writes rows, and then makes them durable."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def insert(self, table: str, rows: Iterable[Row]) -> None:
        """Insert rows that all have the same columns."""
        rows = iter(rows)
        if (first := next(rows, None)) is not None:
            self._write(table, list(first), (_values(row) for row in chain([first], rows)))

    @abstractmethod
    def index(self, jobs: Iterable[Row]) -> None:
        """Make jobs findable by the words of their prompts."""

    @abstractmethod
    def _write(self, table: str, names: list[str], rows: Iterable[Sequence[Any]]) -> None: ...

    def commit(self) -> None:
        self._connection.commit()

    def close(self) -> None:
        self._connection.close()


def writer(url: str) -> Writer:
    Database.open(url).close()
    return _Sqlite(url) if url.startswith("sqlite") else _Postgres(url)


class _Sqlite(Writer):
    def __init__(self, url: str) -> None:
        super().__init__(sqlite3.connect(str(make_url(url).database)))
        self._connection.execute("PRAGMA synchronous=OFF")

    def _write(self, table: str, names: list[str], rows: Iterable[Sequence[Any]]) -> None:
        columns, places = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
        self._connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", rows)

    def index(self, jobs: Iterable[Row]) -> None:
        self.insert(
            "grams", ({"rowid": job["number"], "pieces": pieces_of(job["prompt_folded"])} for job in jobs)
        )


class _Postgres(Writer):
    def __init__(self, url: str) -> None:
        super().__init__(psycopg.connect(url))

    def _write(self, table: str, names: list[str], rows: Iterable[Sequence[Any]]) -> None:
        columns = sql.SQL(", ").join(map(sql.Identifier, names))
        copied = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
        with self._connection.cursor() as cursor, cursor.copy(copied) as copy:
            for row in rows:
                copy.write_row(row)

    def index(self, jobs: Iterable[Row]) -> None:
        self.insert("grams", ({"number": job["number"], "folded": job["prompt_folded"]} for job in jobs))

    def close(self) -> None:
        # As the server does by itself in a ledger that has grown for a while.
        self._connection.autocommit = True
        self._connection.execute("VACUUM ANALYZE")
        super().close()


def _values(row: Row) -> Sequence[Any]:
    return [json.dumps(value) if isinstance(value, (dict, list, tuple)) else value for value in row.values()]
