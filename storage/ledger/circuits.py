"""Store the circuit breakers of gateways and image hosts: closed, open, or half-open.

A row is there from the first failure to the next success. While `retry_at` is NULL the circuit is closed and
failures are only counted; after it the circuit is half-open, and one probe may pass.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from time import monotonic
from typing import Any, Literal

from sqlalchemy import Connection, Select, bindparam, case, delete, insert, or_, select, update

from storage.ledger.database import Database, inserted
from storage.ledger.schema import circuits
from storage.models import Circuit, Clock
from storage.statements import Prepared

Kind = Literal["gateway", "image_host"]

PROBE_MS = 30_000
"""How long a half-open circuit waits for its probe, as long as a usual lease; then another one may pass."""

SEEN_S = 0.25
"""How long it is taken for granted where nothing has failed, in seconds."""

_PING = {"step": "ping", "code": "ping", "message": "", "at_fault": "operator", "failures": 0, "since": 0}

LONGEST_MS = 2 * 3600 * 1000
"""No circuit is open for longer at a time: a gateway's Retry-After counts for an hour at most."""


class Circuits:
    """Read and write circuits. Thread-safe; raises Unavailable as `Ledger` does."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._seen: tuple[float, frozenset[tuple[str, str]]] | None = None

    def has(self, kind: Kind, name: str) -> bool:
        """Return whether something failed there lately, as it was known `SEEN_S` ago at most.

        What this process writes is known at once; what others write a moment later. For what is asked for
        each image.
        """
        seen = self._seen
        if seen is None or monotonic() - seen[0] > SEEN_S:
            now = monotonic()
            self._seen = seen = (now, frozenset((one.kind, one.name) for one in self.every()))
        return (kind, name) in seen[1]

    def every(self) -> list[Circuit]:
        """Return all circuits, gateways first."""
        with self._database.autocommit() as connection:
            return every(connection)

    def read(self, kind: Kind, name: str) -> Circuit | None:
        """Return one circuit; None if nothing failed there lately."""
        with self._database.autocommit() as connection:
            return _read(connection, _ONE, kind, name)

    def failed(self, kind: Kind, name: str, following: Callable[[Circuit | None, int], Circuit]) -> Circuit:
        """Record a failure; `following` makes the circuit from the one before, and the time now."""
        with self._changing() as connection:
            while True:
                before = _read(connection, _ONE.with_for_update(), kind, name)
                circuit = following(before, self._clock())
                if before is not None or inserted(connection, insert(circuits).values(_values(circuit))):
                    break
                # Another process recorded the first failure in the meantime: ours follows that one.
            if before is not None:
                connection.execute(update(circuits).where(*_of(kind, name)).values(_values(circuit)))
        return circuit

    def close(self, kind: Kind, name: str) -> None:
        """Close a circuit and delete its failures, after a success."""
        with self._changing() as connection:
            connection.execute(delete(circuits).where(*_of(kind, name)))

    def begin_probe(self, kind: Kind, name: str) -> bool:
        """Return whether this caller may send the probe of a half-open circuit."""
        with self._database.write() as connection:
            return begin_probe(connection, kind, name, now=self._clock())

    def end_probe(self, kind: Kind, name: str) -> None:
        """Let another probe pass, because this one was not sent."""
        with self._database.write() as connection:
            end_probe(connection, kind, name)

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        try:
            with self._database.write() as connection:
                yield connection
        finally:
            self._seen = None


_EVERY = Prepared(select(circuits).order_by(circuits.c.kind, circuits.c.name))
_ONE = select(circuits).where(circuits.c.kind == bindparam("kind"), circuits.c.name == bindparam("name"))


def every(connection: Connection) -> list[Circuit]:
    """Return all circuits, gateways first."""
    return [Circuit(**row) for row in _EVERY.rows(connection, {})]


def of_gateways(connection: Connection) -> Mapping[str, Circuit]:
    """Return the circuits of gateways, by name."""
    return {circuit.name: circuit for circuit in every(connection) if circuit.kind == "gateway"}


def begin_probe(connection: Connection, kind: Kind, name: str, *, now: int, probe_ms: int = PROBE_MS) -> bool:
    """Return whether this caller may send the probe of a half-open circuit."""
    free = or_(circuits.c.probe_until.is_(None), circuits.c.probe_until <= now)
    due = update(circuits).where(*_of(kind, name), circuits.c.retry_at <= now, free)
    return connection.execute(due.values(probe_until=now + probe_ms)).rowcount == 1


def end_probe(connection: Connection, kind: Kind, name: str) -> None:
    """Let another probe pass, because this one was not sent."""
    connection.execute(update(circuits).where(*_of(kind, name)).values(probe_until=None))


def repair_clock_skew(connection: Connection, now: int, skew_ms: int) -> None:
    """Let a probe pass wherever a clock that was since set back would have kept it waiting."""
    wrong = or_(
        circuits.c.since > now + skew_ms,
        circuits.c.retry_at > now + LONGEST_MS,
        circuits.c.probe_until > now + PROBE_MS + skew_ms,
    )
    # A closed circuit stays closed, and goes on counting.
    retry_at = case((circuits.c.retry_at > now, now), else_=circuits.c.retry_at)
    since = case((circuits.c.since > now, now), else_=circuits.c.since)
    connection.execute(update(circuits).where(wrong).values(retry_at=retry_at, since=since, probe_until=None))


def write_probe_row(connection: Connection) -> None:
    """Insert and delete a row: an update to the same values might write nothing."""
    connection.execute(insert(circuits), {"kind": "ping", "name": token_hex(8), **_PING})
    connection.execute(delete(circuits).where(circuits.c.kind == "ping"))


def _read(connection: Connection, query: Select[Any], kind: Kind, name: str) -> Circuit | None:
    row = connection.execute(query, {"kind": kind, "name": name}).mappings().one_or_none()
    return None if row is None else Circuit(**row)


def _values(circuit: Circuit) -> dict[str, Any]:
    return {column.name: getattr(circuit, column.name) for column in circuits.c}


def _of(kind: Kind, name: str) -> tuple[Any, Any]:
    return circuits.c.kind == kind, circuits.c.name == name
