"""Write and read cheaply what is written for each image: statements compiled once, and group commit.

To execute a statement, SQLAlchemy makes half a dozen objects around it, which takes ten times as long as
SQLite takes to run it. Here a statement is compiled once for each database, its values are bound by the
columns' own types, and rows come as plain dictionaries. Errors are those of SQLAlchemy.

A commit waits for the disk, and costs the same for one change as for many. The first thread that wants to
write does so for all that have come to wait by then; there is no thread of its own and no pause, so a change
that comes alone is written at once.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from threading import Lock, RLock
from typing import Any, Generic, NamedTuple, TypeVar

import sqlalchemy as sa

from storage.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")

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
        """Execute it; return how many rows it changed, where the driver says so, and not in a pipeline."""
        return int(self._execute(connection, values)[1].rowcount)

    def run_each(self, connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it for each of several sets of values, all of the same names."""
        if not rows:
            return
        compiled = self._compiled(connection, rows[0])
        cursor = driver_of(connection).cursor()
        with translated(connection, compiled.sql):
            cursor.executemany(compiled.sql, [_bound(compiled, values) for values in rows])

    def rows(self, connection: sa.Connection, values: Mapping[str, Any]) -> list[Row]:
        """Return its rows, by the names of their columns."""
        compiled, cursor = self._execute(connection, values)
        with translated(connection, compiled.sql):
            fetched = cursor.fetchall()
        found = [dict(zip(compiled.names, row, strict=True)) for row in fetched]
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
        compiled, cursor = self._execute(connection, values)
        with translated(connection, compiled.sql):
            found = cursor.fetchall()
        return found[0][0] if found else None

    def _execute(self, connection: sa.Connection, values: Mapping[str, Any]) -> tuple[_Compiled, Any]:
        compiled = self._compiled(connection, values)
        bound = _bound(compiled, values)
        with translated(connection, compiled.sql):
            return compiled, driver_of(connection).execute(compiled.sql, bound)

    def _compiled(self, connection: sa.Connection, values: Mapping[str, Any]) -> _Compiled:
        key = (connection.dialect.name, *values)
        if (known := self._known.get(key)) is None:
            known = self._known[key] = _compile(self._statement, connection.dialect, list(values))
        return known


class translated:  # noqa: N801 - a context manager, cheaper than a generator's
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


def driver_of(connection: sa.Connection) -> Any:
    """Return the driver's own connection, for what is to be executed as the driver writes and binds it."""
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


MOST = 32
"""How many changes one transaction writes, so that no other write waits long."""


class _Waiting(Generic[T, R]):
    def __init__(self, one: T) -> None:
        self.one = one
        self.outcome: R | BaseException | None = None
        self.done = False

    def settle(self, outcome: R | BaseException) -> None:
        self.outcome, self.done = outcome, True


class GroupCommit(Generic[T, R]):
    """Writes changes in groups. Thread-safe."""

    def __init__(self, write: Callable[[Sequence[T]], Sequence[R]]) -> None:
        """`write` writes several changes in one transaction, all or none, and returns the result of each."""
        self._write = write
        self._lock = Lock()
        # The thread whose turn it is may write once more from within: then that is written first.
        self._turn = RLock()
        self._waiting: list[_Waiting[T, R]] = []

    def run(self, one: T) -> R:
        """Write a change, durably, and return its result; raises what writing it alone raises."""
        mine: _Waiting[T, R] = _Waiting(one)
        with self._lock:
            self._waiting.append(mine)
        while not mine.done:
            with self._turn:
                if not mine.done:
                    self._write_waiting()
        if isinstance(mine.outcome, BaseException):
            raise mine.outcome
        return mine.outcome  # type: ignore[return-value]

    def _write_waiting(self) -> None:
        with self._lock:
            group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        if len(group) > 1:
            self._write_together(group)
        for one in group:
            # Which of them could not be written, each alone will tell.
            if not one.done:
                self._write_alone(one)

    def _write_together(self, group: Sequence[_Waiting[T, R]]) -> None:
        outcomes: Sequence[R | BaseException] = ()
        try:
            outcomes = self._write([one.one for one in group])
        except Unavailable as error:
            outcomes = [error] * len(group)
        except Exception:  # noqa: BLE001 - it comes again for the one that it is about
            return
        for one, outcome in zip(group, outcomes, strict=True):
            one.settle(outcome)

    def _write_alone(self, one: _Waiting[T, R]) -> None:
        try:
            (result,) = self._write([one.one])
        except BaseException as error:  # noqa: BLE001 - raised again in the thread whose change it is
            one.settle(error)
        else:
            one.settle(result)


def to_json(value: Any) -> str:
    """Return a value as JSON with few escapes: SQLite before 3.45 finds no name that is written with one."""
    text = json.dumps(value, ensure_ascii=False)
    # A gateway may send half of a surrogate pair, which only an escape can hold.
    return text if text.isascii() or _encodable(text) else json.dumps(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
