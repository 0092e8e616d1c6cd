"""Circuits: which gateways and image hosts failed lately, and whether they are left alone for now.

A row is there from the first failure to the next success. While `retry_at` is NULL failures are only counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, case, delete, insert, or_, select, update

from storage.ledger.database import Database, inserted
from storage.ledger.rows import to_circuit
from storage.ledger.schema import circuits
from storage.models import Circuit, Clock

Kind = Literal["gateway", "image_host"]

PROBE_MS = 30_000
"""How long one try has the way to itself. As long as a usual lease: whoever dies with it holds up nobody."""

_PING = {"step": "ping", "code": "ping", "message": "", "at_fault": "operator", "failures": 0, "since": 0}

LONGEST_MS = 2 * 3600 * 1000
"""No circuit is open for longer at a time: a gateway's Retry-After counts for an hour at most."""


class Circuits:
    """The circuits of the ledger. Thread-safe; raises Unavailable as `Ledger` does."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def every(self) -> list[Circuit]:
        """List all of them, gateways first."""
        with self._database.read() as connection:
            return every(connection)

    def read(self, kind: Kind, name: str) -> Circuit | None:
        """One circuit; None if nothing failed there lately."""
        with self._database.autocommit() as connection:
            return read(connection, kind, name)

    def failed(self, kind: Kind, name: str, following: Callable[[Circuit | None, int], Circuit]) -> Circuit:
        """Note a failure; `following` makes the circuit from what it was before, and the time now."""
        with self._database.write() as connection:
            while True:
                before = _to_change(connection, kind, name)
                circuit = following(before, self._clock())
                if before is not None or inserted(connection, insert(circuits).values(_values(circuit))):
                    break
                # Another process noted the first failure in the meantime: ours follows that one.
            if before is not None:
                connection.execute(update(circuits).where(*_of(kind, name)).values(_values(circuit)))
        return circuit

    def close(self, kind: Kind, name: str) -> None:
        """Forget the failures: it works again."""
        with self._database.write() as connection:
            connection.execute(delete(circuits).where(*_of(kind, name)))

    def begin_probe(self, kind: Kind, name: str) -> bool:
        """Let one try through where it is time for one; answers whether it was this one."""
        with self._database.write() as connection:
            return begin_probe(connection, kind, name, now=self._clock())

    def end_probe(self, kind: Kind, name: str) -> None:
        """The try came to nothing before it reached anybody: another one may go."""
        with self._database.write() as connection:
            end_probe(connection, kind, name)


_EVERY = select(circuits).order_by(circuits.c.kind, circuits.c.name)
_ONE = select(circuits).where(circuits.c.kind == bindparam("kind"), circuits.c.name == bindparam("name"))


def every(connection: Connection) -> list[Circuit]:
    """List all circuits, gateways first."""
    rows = connection.execute(_EVERY)
    return [to_circuit(row) for row in rows.mappings()]


def of_gateways(connection: Connection) -> Mapping[str, Circuit]:
    """The circuits of gateways, by name."""
    return {circuit.name: circuit for circuit in every(connection) if circuit.kind == "gateway"}


def read(connection: Connection, kind: Kind, name: str) -> Circuit | None:
    """One circuit; None if nothing failed there lately."""
    row = connection.execute(_ONE, {"kind": kind, "name": name}).mappings().one_or_none()
    return None if row is None else to_circuit(row)


def begin_probe(connection: Connection, kind: Kind, name: str, *, now: int, probe_ms: int = PROBE_MS) -> bool:
    """Let one try through where it is time for one; answers whether it was this one."""
    free = or_(circuits.c.probe_until.is_(None), circuits.c.probe_until <= now)
    due = update(circuits).where(*_of(kind, name), circuits.c.retry_at <= now, free)
    return connection.execute(due.values(probe_until=now + probe_ms)).rowcount == 1


def end_probe(connection: Connection, kind: Kind, name: str) -> None:
    """Let another try go: the one that was let through came to nothing."""
    connection.execute(update(circuits).where(*_of(kind, name)).values(probe_until=None))


def repair_clock_skew(connection: Connection, now: int, skew_ms: int) -> None:
    """Let a try through wherever a clock that has since been set back would have kept it waiting."""
    wrong = or_(
        circuits.c.since > now + skew_ms,
        circuits.c.retry_at > now + LONGEST_MS,
        circuits.c.probe_until > now + PROBE_MS + skew_ms,
    )
    # What is closed stays closed, and goes on counting.
    retry_at = case((circuits.c.retry_at > now, now), else_=circuits.c.retry_at)
    since = case((circuits.c.since > now, now), else_=circuits.c.since)
    connection.execute(update(circuits).where(wrong).values(retry_at=retry_at, since=since, probe_until=None))


def try_out(connection: Connection) -> None:
    """Write a row that comes and goes: to set one to what it is already would write nothing."""
    connection.execute(insert(circuits), {"kind": "ping", "name": token_hex(8), **_PING})
    connection.execute(delete(circuits).where(circuits.c.kind == "ping"))


def _to_change(connection: Connection, kind: Kind, name: str) -> Circuit | None:
    """One circuit, which nobody else changes before this transaction is over."""
    row = connection.execute(_ONE.with_for_update(), {"kind": kind, "name": name}).mappings().one_or_none()
    return None if row is None else to_circuit(row)


def _values(circuit: Circuit) -> dict[str, Any]:
    return {column.name: getattr(circuit, column.name) for column in circuits.c}


def _of(kind: Kind, name: str) -> tuple[Any, Any]:
    return circuits.c.kind == kind, circuits.c.name == name
