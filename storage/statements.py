"""Run statements of SQLAlchemy Core on the driver itself, compiled once: for what runs for each image.

To execute a statement, SQLAlchemy makes half a dozen objects around it, which takes ten times as long as
SQLite takes to run it. Here a statement is compiled once for each database, its values are bound by the
columns' own types, and rows come as plain dictionaries. Errors are those of SQLAlchemy.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

Row = dict[str, Any]
AnyRow = Mapping[str, Any] | sa.RowMapping
"""A row as this module or as SQLAlchemy gives it."""
_Convert = Callable[[Any], Any]


class _Compiled(NamedTuple):
    sql: str
    order: Sequence[str] | None
    """The names of the values, where they go by position."""
    fixed: Mapping[str, Any]
    """Values that the statement has itself."""
    binds: Sequence[tuple[str, _Convert]]
    names: Sequence[str]
    converts: Sequence[tuple[str, _Convert]]


class Prepared:
    """One statement. Thread-safe; its values are named as its parameters and columns are.

    An insert or update sets the columns that the values name beside those that the statement itself sets.
    """

    def __init__(self, statement: sa.Select[Any] | sa.UpdateBase | sa.TextClause) -> None:
        self._statement = statement
        self._known: dict[tuple[str, ...], _Compiled] = {}

    def run(self, connection: sa.Connection, values: Mapping[str, Any]) -> int:
        """Execute it; return how many rows it changed, where the driver says so."""
        return int(self._execute(connection, values)[1].rowcount)

    def run_each(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it for each of several sets of values, all of the same names."""
        if not rows:
            return
        compiled = self._compiled(connection, rows[0])
        cursor = _driver(connection).cursor()
        with _translated(connection, compiled.sql):
            cursor.executemany(compiled.sql, [_bound(compiled, values) for values in rows])

    def rows(self, connection: sa.Connection, values: Mapping[str, Any]) -> list[Row]:
        """Return its rows, by the names of their columns."""
        compiled, cursor = self._execute(connection, values)
        found = [dict(zip(compiled.names, row, strict=True)) for row in cursor.fetchall()]
        for name, convert in compiled.converts:
            for row in found:
                if row[name] is not None:
                    row[name] = convert(row[name])
        return found

    def row(self, connection: sa.Connection, values: Mapping[str, Any]) -> Row | None:
        """Return its only row; None if there is none."""
        found = self.rows(connection, values)
        return found[0] if found else None

    def scalar(self, connection: sa.Connection, values: Mapping[str, Any]) -> Any:
        """Return the first value of its only row, as the database has it; None if there is no row."""
        found = self._execute(connection, values)[1].fetchone()
        return None if found is None else found[0]

    def _execute(self, connection: sa.Connection, values: Mapping[str, Any]) -> tuple[_Compiled, Any]:
        compiled = self._compiled(connection, values)
        bound = _bound(compiled, values)
        with _translated(connection, compiled.sql):
            return compiled, _driver(connection).execute(compiled.sql, bound)

    def _compiled(self, connection: sa.Connection, values: Mapping[str, Any]) -> _Compiled:
        key = (connection.dialect.name, *values)
        if (known := self._known.get(key)) is None:
            known = self._known[key] = _compile(self._statement, connection.dialect, list(values))
        return known


class _translated:  # noqa: N801 - a context manager, cheaper than a generator's
    """Raises the driver's errors as SQLAlchemy does."""

    def __init__(self, connection: sa.Connection, sql: str) -> None:
        self._connection = connection
        self._sql = sql

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        dialect = self._connection.dialect
        driver: Any = dialect.loaded_dbapi
        if isinstance(error, driver.Error):
            raise sa.exc.DBAPIError.instance(
                self._sql, None, error, driver.Error, hide_parameters=True, dialect=dialect
            ) from error


def _driver(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection


def _bound(compiled: _Compiled, values: Mapping[str, Any]) -> Any:
    bound = {**compiled.fixed, **values}
    for name, convert in compiled.binds:
        bound[name] = convert(bound[name])
    return bound if compiled.order is None else [bound[name] for name in compiled.order]


def _compile(statement: Any, dialect: sa.Dialect, names: Sequence[str]) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect, column_keys=names)
    types = {name: bind.type.dialect_impl(dialect) for bind, name in compiled.bind_names.items()}
    binds = [(name, kind.bind_processor(dialect)) for name, kind in types.items()]
    columns = getattr(statement, "exported_columns", ())  # text has none
    # PostgreSQL's driver reads every type of ours by itself.
    read = columns if dialect.name == "sqlite" else ()
    results = [(one.name, one.type.dialect_impl(dialect).result_processor(dialect, None)) for one in read]
    return _Compiled(
        str(compiled),
        list(compiled.positiontup) if compiled.positional else None,
        {name: value for name, value in compiled.params.items() if name not in names},
        [(name, convert) for name, convert in binds if convert is not None],
        [column.name for column in columns],
        [(name, convert) for name, convert in results if convert is not None],
    )
