"""Compare two ledgers: a digest of each table, and the first difference.

Rows are read as the service reads them, in the order of their keys, and without leases, which a move ends.
"""

import hashlib
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa

from storage.ledger.schema import fillings, job_counts, jobs, metadata, workers

TABLES: Sequence[sa.Table] = [
    table
    for table in metadata.sorted_tables
    if table is not workers and table is not job_counts and table is not fillings
]
"""Every table that is the same on all databases, without the workers, which all have stopped, without the
counts of jobs, which the new database keeps by itself, and without what is still to be filled: nothing is.

Those that others refer to come first.
"""

LEASES = frozenset({"leased_by", "leased_until"})
"""The columns that are empty in the copy, so that jobs go on at once."""

FETCHED = 2_000
"""Rows fetched at once; fewer where they hold whole bodies of requests."""

Progress = Callable[[str, str, int], None]
"""Called with the step, the table, and how many more rows were processed."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A table's number of rows, and the SHA-256 of all of them in the order of their keys."""

    rows: int
    sha256: str


def key_of(table: sa.Table) -> Sequence[sa.Column[Any]]:
    """Return the columns that order a table. Jobs are ordered by number, the same on every database."""
    return [jobs.c.number] if table is jobs else list(table.primary_key)


def fetched(table: sa.Table) -> int:
    """Return how many rows of a table to fetch at once."""
    return 50 if any(isinstance(column.type, sa.LargeBinary) for column in table.c) else FETCHED


def digest(
    connection: sa.Connection, table: sa.Table, progress: Progress, step: str, *, leases: bool
) -> Digest:
    """Return the digest of a whole table. Without `leases`, they are read as empty."""
    sha256, rows = hashlib.sha256(), 0
    for row in _walk(connection, table, leases=leases):
        sha256.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
        rows += 1
        if rows % FETCHED == 0:
            progress(step, table.name, FETCHED)
    progress(step, table.name, rows % FETCHED)
    return Digest(rows, sha256.hexdigest())


def first_difference(ours: sa.Connection, theirs: sa.Connection, table: sa.Table) -> str:
    """Describe the first difference of a copy (`theirs`); leases of `ours` are read as empty."""
    with (
        closing(_walk(ours, table, leases=False)) as one,
        closing(_walk(theirs, table, leases=True)) as other,
    ):
        for here, there in zip_longest(one, other):
            if there is None or (here is not None and _bytes(table, here) < _bytes(table, there)):
                return f"{table.name} {label(table, here)} is missing in the copy"
            if here is None or _bytes(table, here) != _bytes(table, there):
                return f"{table.name} {label(table, there)} is in the copy only"
            pairs = zip(table.c, here, there, strict=True)
            if names := [column.name for column, *two in pairs if two[0] != two[1]]:
                return f"{table.name} {label(table, here)} differs in {', '.join(names)}"
    return f"{table.name} differs in how its values are written"


def label(table: sa.Table, row: Sequence[Any]) -> str:
    """Return a row's primary key as text."""
    return " ".join(str(value) for value in _values(table, table.primary_key, row))


def key_in(table: sa.Table, row: Sequence[Any]) -> list[Any]:
    """Return the key of a row."""
    return _values(table, key_of(table), row)


def _walk(connection: sa.Connection, table: sa.Table, *, leases: bool) -> Generator[sa.Row[Any], None, None]:
    columns = [sa.null().label(one.name) if one.name in LEASES and not leases else one for one in table.c]
    ordered = [_bytewise(connection, column) for column in key_of(table)]
    query = sa.select(*columns).order_by(*ordered)
    with connection.execute(query, execution_options={"yield_per": fetched(table)}) as rows:
        yield from rows


def _bytewise(connection: sa.Connection, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """Order texts by their bytes, as SQLite does; PostgreSQL would use the order of a language."""
    plain = connection.dialect.name == "sqlite" or not isinstance(column.type, sa.String)
    return column if plain else sa.collate(column, "C")


def _bytes(table: sa.Table, row: Sequence[Any]) -> list[Any]:
    return [value.encode() if isinstance(value, str) else value for value in key_in(table, row)]


def _values(table: sa.Table, columns: Iterable[sa.Column[Any]], row: Sequence[Any]) -> list[Any]:
    names = [column.name for column in table.c]
    return [row[names.index(column.name)] for column in columns]
