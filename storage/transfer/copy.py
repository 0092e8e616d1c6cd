"""Copy the tables of a ledger from SQLite to PostgreSQL, in batches of one transaction each.

The progress is stored in the copy itself with each batch, so that an interrupted copy can be resumed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy.types import NullType

from storage.errors import Misconfigured
from storage.ledger.database import Database
from storage.ledger.schema import jobs
from storage.ledger.search_index import INDEX_WORDS
from storage.transfer.compare import LEASES, TABLES, Progress, fetched, key_in, key_of, label

BATCH = 5_000
"""Rows in one transaction at most."""
BATCH_BYTES = 16 * 2**20
"""About how many bytes of texts and bodies there are in one transaction at most."""

AGAIN = "To start over, drop the new database, create it again, and run the command again."

moved_here = sa.Table(
    # Only in a copy: one row, of what it is a copy of, and how far it is.
    "moved_here",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("schema", sa.String(32), nullable=False),
    # Of each table of the original: rows and sha256.
    sa.Column("source", sa.JSON, nullable=False),
    # The table that is being copied, and the key of its last copied row.
    sa.Column("place", sa.JSON(none_as_null=True)),
    sa.Column("finished_at", sa.BigInteger),
)


def copy_all(
    reading: sa.Connection, target: Database, place: Mapping[str, Any] | None, progress: Progress, batch: int
) -> None:
    """Copy every table, from a place on. Raises Misconfigured, naming a row that PostgreSQL cannot store."""
    names = [table.name for table in TABLES]
    for table in TABLES[names.index(place["table"]) if place else 0 :]:
        after = place["after"] if place and place["table"] == table.name else None
        for rows in _batches(_raw(reading, table, after), batch):
            with target.write() as connection:
                _write(connection, table, rows)
                here = {"table": table.name, "after": key_in(table, rows[-1])}
                connection.execute(sa.update(moved_here).values(place=here))
            progress("copying", table.name, len(rows))


def _raw(reading: sa.Connection, table: sa.Table, after: Sequence[Any] | None) -> Iterator[sa.Row[Any]]:
    """Yield the rows behind a key, with the driver's values: JSON stays the same text."""
    columns: list[Any] = [
        sa.null() if one.name in LEASES else sa.type_coerce(one, NullType()).label(one.name)
        for one in table.c
    ]
    key = key_of(table)
    query = sa.select(*columns).order_by(*key)
    if after is not None:
        query = query.where(sa.tuple_(*key) > sa.tuple_(*after))
    with reading.execute(query, execution_options={"yield_per": fetched(table)}) as rows:
        yield from rows


def _batches(rows: Iterator[sa.Row[Any]], most: int) -> Iterator[list[sa.Row[Any]]]:
    some: list[sa.Row[Any]] = []
    length = 0
    for row in rows:
        some.append(row)
        length += sum(len(value) for value in row if isinstance(value, str | bytes))
        if len(some) >= most or length >= BATCH_BYTES:
            yield some
            some, length = [], 0
    if some:
        yield some


def _write(connection: sa.Connection, table: sa.Table, rows: Sequence[sa.Row[Any]]) -> None:
    quote = connection.dialect.identifier_preparer.quote
    columns = ", ".join(quote(column.name) for column in table.c)
    statement = f"COPY {quote(table.name)} ({columns}) FROM STDIN"
    errors: Any = connection.dialect.loaded_dbapi
    driver: Any = connection.connection.driver_connection
    number = 0
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for number, row in enumerate(rows):  # noqa: B007 - says which one failed
                copy.write_row(row)
    except (errors.DataError, errors.IntegrityError) as error:
        _refuse(error, table, rows, number)
    if table is jobs:
        # The search index is not copied but built from the jobs.
        first, last = (key_in(table, row)[0] for row in (rows[0], rows[-1]))
        connection.execute(INDEX_WORDS, {"first": first, "last": last})


def _refuse(error: Any, table: sa.Table, rows: Sequence[sa.Row[Any]], number: int) -> NoReturn:
    """Raise an error that names the row and the reason, without the row's content."""
    context = re.search(r"^COPY \S+, line (\d+)(?:, column (\w+))?", error.diag.context or "", re.MULTILINE)
    row = rows[int(context[1]) - 1 if context else number]
    column = context[2] if context else _with_nul(table, row)
    why = error.diag.message_primary or str(error).splitlines()[0]
    raise Misconfigured(
        f"PostgreSQL cannot store {table.name} {label(table, row)}{f', column {column}' if column else ''}: "
        f"{why.rstrip('.')}. The old ledger is unchanged; correct that row there. {AGAIN}"
    ) from error


def _with_nul(table: sa.Table, row: Sequence[Any]) -> str | None:
    """Return the column that holds a NUL, which the driver refuses before the server sees it."""
    values = zip(table.c, row, strict=True)
    return next((column.name for column, value in values if isinstance(value, str) and "\0" in value), None)
