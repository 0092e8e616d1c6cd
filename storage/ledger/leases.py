"""Claim jobs by lease: those that have been due longest, a share of each gateway, with SKIP LOCKED.

As a worker renews its leases it is noted as seen, so that every process can tell whether one works anywhere.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sqlalchemy as sa

from storage.errors import Crowded
from storage.ledger import circuits, notifications
from storage.ledger.database import Database
from storage.ledger.rows import to_job
from storage.ledger.schema import BEGUN, QUEUED, UNFINISHED, accepted, jobs, workers
from storage.models import Job, Status
from storage.statements import Prepared

_Halves = tuple[sa.ColumnElement[bool], ...]
"""The halves of the unfinished jobs to claim from, as conditions; each has an index of its own."""

_BEGUN_NO_IMAGES = BEGUN & (jobs.c.status != Status.READY)

UNSENT_BEFORE = (
    sa.select(jobs)
    .where(jobs.c.status.in_([Status.QUEUED, Status.SUBMITTING]), jobs.c.submission == 1)
    .where(jobs.c.id < sa.bindparam("job"))
    .order_by(jobs.c.number.desc())
    .limit(sa.bindparam("most"))
)
"""The newest jobs before another one that have not been sent yet, for the first time."""

SEND_LOCK = 0x73656E64
"""The advisory locks, one for each gateway, of workers that begin to send on PostgreSQL."""

SKEW_MS = 60_000
"""How far the clocks of machines that share a ledger may differ; a larger step is a clock set back."""


FORGOTTEN_MS = 3600 * 1000
"""After how long a worker that is gone is deleted."""

_SEE = sa.text(
    "INSERT INTO workers (name, seen_at) VALUES (:name, :now) "
    "ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at"
)


@dataclass(frozen=True, slots=True)
class ClaimBudget:
    """How many jobs a worker can claim now."""

    jobs: int
    """In all."""
    by_gateway: Mapping[str, int] = field(default_factory=dict)
    """Of each gateway, in the order in which they are served."""
    others: int | None = None
    """Of each gateway that `by_gateway` does not name; None if there is no other limit."""
    full: Collection[str] = ()
    """Gateways that cannot be sent to now: their queued jobs are not claimed."""
    no_images: Collection[str] = ()
    """Gateways none of whose images can be fetched now: their ready jobs are not claimed."""
    sending: Mapping[str, int] = field(default_factory=dict)
    """How many jobs of each gateway may be sent at once, by all workers; others without limit."""

    def of(self, gateway: str) -> int:
        """Return how many jobs of one gateway may be claimed."""
        return self.by_gateway.get(gateway, self.jobs if self.others is None else self.others)


def claim(connection: sa.Connection, worker: str, room: ClaimBudget, *, now: int, lease_ms: int) -> list[Job]:
    """Lease due jobs, gateway by gateway, so that no gateway's backlog delays another's jobs.

    Queued jobs of a gateway whose circuit is open are not claimed; of a half-open one, one job is its probe.
    """
    claimed: list[Job] = []
    open_now = circuits.of_gateways(connection)

    def lease(gateway: str, limit: int, halves: _Halves, queued: int) -> list[Job]:
        values = {"leased_by": worker, "leased_until": now + lease_ms}
        asked = {"of_gateway": gateway, "now": now, "most": limit, "most_queued": queued}
        return [to_job(row) for row in _leasing(halves).rows(connection, asked | values)]

    for gateway in _gateways(connection, room):
        limit = min(room.jobs - len(claimed), room.of(gateway))
        if limit <= 0:
            continue
        circuit = open_now.get(gateway)
        queued = min(limit, _slots(connection, room, gateway, now))
        blocked = queued <= 0 or (circuit is not None and circuit.blocks(now))
        if circuit is None or circuit.retry_at is None or blocked:
            claimed += lease(gateway, limit, _halves(room, gateway, queued=not blocked), queued)
            continue
        # First, so that of several workers only one gets the probe.
        if circuits.begin_probe(connection, "gateway", gateway, now=now, probe_ms=lease_ms):
            probes = lease(gateway, 1, _halves(room, gateway, queued=True), 1)
            if not any(job.status is Status.QUEUED for job in probes):
                circuits.end_probe(connection, "gateway", gateway)
            claimed += probes
            limit -= len(probes)
        if limit > 0:
            claimed += lease(gateway, limit, _halves(room, gateway, queued=False), 0)
    return claimed


def next_due(connection: sa.Connection, room: ClaimBudget, now: int) -> int | None:
    """Return when the earliest job without a lease that fits the budget is due; None if there is none."""
    times = []
    open_now = circuits.of_gateways(connection)
    for gateway in _gateways(connection, room):
        if room.of(gateway) <= 0:
            continue
        circuit = open_now.get(gateway)
        full = _slots(connection, room, gateway, now) <= 0
        blocked = full or (circuit is not None and circuit.blocks(now))
        times.append(_earliest(connection, gateway, _halves(room, gateway, queued=not blocked)))
        if circuit is not None and circuit.retry_at is not None and not full:
            waiting = _earliest(connection, gateway, (QUEUED,))
            # Queued jobs are due when the circuit lets one pass, however long they have waited.
            passes_at = max(circuit.retry_at, circuit.probe_until or 0)
            times.append(None if waiting is None else max(waiting, passes_at))
    return min((time for time in times if time is not None), default=None)


class Workers:
    """Read when a worker was last seen. Thread-safe; raises Unavailable if the database does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last_seen_at(self) -> int | None:
        """Return when any worker was last seen (milliseconds); None if none has worked for an hour."""
        with self._database.read() as connection:
            seen_at: int | None = connection.scalar(sa.select(sa.func.max(workers.c.seen_at)))
        return seen_at


def renew(connection: sa.Connection, worker: str, job_ids: Iterable[str], until: int) -> None:
    """Renew the leases of jobs that are still being worked on."""
    kept = sa.update(jobs).where(jobs.c.leased_by == worker, jobs.c.id.in_(list(job_ids)))
    connection.execute(kept.values(leased_until=until))


def note_seen(connection: sa.Connection, name: str, now: int) -> None:
    """Note that a worker works now, and delete those that are gone."""
    connection.execute(sa.delete(workers).where(workers.c.seen_at < now - FORGOTTEN_MS))
    connection.execute(_SEE, {"name": name, "now": now})


def release(connection: sa.Connection, worker: str) -> None:
    """Release every lease that a worker holds."""
    for half in UNFINISHED:
        held = sa.update(jobs).where(jobs.c.leased_by == worker, half)
        connection.execute(held.values(leased_by=None, leased_until=None))


def repair_clock_skew(connection: sa.Connection, now: int, lease_ms: int) -> int:
    """Make due what was put off, or leased, by a clock that has since been set back; returns how many.

    Its rows were written in the future. Their jobs would wait until the clock is there again, and then as
    long again, because their moves are in the future too: those are set to now. Notifications,
    circuits and workers are repaired the same way.
    """
    circuits.repair_clock_skew(connection, now, SKEW_MS)
    seen_ahead = sa.update(workers).where(workers.c.seen_at > now + SKEW_MS)
    connection.execute(seen_ahead.values(seen_at=now))
    notifications.repair_clock_skew(connection, now, SKEW_MS)
    ahead = now + SKEW_MS
    # Before the rows themselves are set to now. Nothing depends on the moves of a queued job.
    _end_moves_by(connection, (BEGUN, jobs.c.updated_at > ahead), now)
    repaired = 0
    for half in UNFINISHED:
        stuck = sa.update(jobs).where(half, jobs.c.leased_until > ahead + lease_ms)
        freed = connection.execute(stuck.values(leased_by=None, leased_until=None)).rowcount
        future = sa.update(jobs).where(half, jobs.c.updated_at > ahead)
        repaired += max(
            freed, connection.execute(future.values(next_attempt_at=now, updated_at=now)).rowcount
        )
    return repaired


def _end_moves_by(connection: sa.Connection, which: Sequence[sa.ColumnElement[bool]], now: int) -> None:
    # Locked as they are read: a concurrent move must not be overwritten.
    found = sa.select(jobs.c.id, jobs.c.moves).where(*which).order_by(jobs.c.id).with_for_update()
    for job_id, moves in connection.execute(found).all():
        values = {"moves": [[status, min(at, now)] for status, at in moves]}
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(values))


def must_have_room(connection: sa.Connection, gateway: str, status: Status, most: int, now: int) -> None:
    """Raise Crowded unless fewer than `most` jobs of a gateway are leased in a status.

    For the transaction that moves one more there: others wait until it is over.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_LOCK_GATEWAY, {"turn": SEND_LOCK, "gateway": gateway})
    if _count_leased(connection, gateway, status, now) >= most:
        raise Crowded(f"{most} jobs of {gateway} are {status} already, which is the limit.")


def _slots(connection: sa.Connection, room: ClaimBudget, gateway: str, now: int) -> int:
    """Return how many more jobs of a gateway may be sent now."""
    if gateway in room.full:
        return 0
    if (most := room.sending.get(gateway)) is None:
        return room.jobs
    return most - _count_leased(connection, gateway, Status.SUBMITTING, now)


def _count_leased(connection: sa.Connection, gateway: str, status: Status, now: int) -> int:
    return int(_HELD.scalar(connection, {"of_gateway": gateway, "of_status": status, "now": now}))


_LOCK_GATEWAY = sa.text("SELECT pg_advisory_xact_lock(:turn, hashtext(:gateway))")
_HELD = Prepared(
    sa.select(sa.func.count()).where(
        jobs.c.gateway == sa.bindparam("of_gateway"),
        jobs.c.status == sa.bindparam("of_status"),
        jobs.c.leased_until > sa.bindparam("now"),
    )
)


def _gateways(connection: sa.Connection, room: ClaimBudget) -> list[str]:
    used = [row["gateway"] for row in _USED.rows(connection, {})]
    named = [gateway for gateway in room.by_gateway if gateway in used]
    return named + [gateway for gateway in used if gateway not in room.by_gateway]


_USED = Prepared(sa.select(accepted.c.gateway))
_FREE = (
    jobs.c.next_attempt_at <= sa.bindparam("now"),
    sa.func.coalesce(jobs.c.leased_until, 0) <= sa.bindparam("now"),
)


@cache
def _leasing(halves: _Halves) -> Prepared:
    """Build the statement that leases the free jobs of a gateway that have been due longest.

    Cached for each sort of claim: to build it takes longer than to run it.
    """
    due = sa.union_all(*map(_due, halves)).subquery()
    longest = sa.select(due.c.id).order_by(due.c.next_attempt_at).limit(sa.bindparam("most"))
    # Locked here, since a union cannot be. SKIP LOCKED leaves out what another worker is claiming, and what
    # it has claimed in between is no longer free when the condition is checked again under the lock.
    free = sa.select(jobs.c.id).where(jobs.c.id.in_(longest), *_FREE).with_for_update(skip_locked=True)
    return Prepared(sa.update(jobs).where(jobs.c.id.in_(free)).returning(jobs))


def _due(half: sa.ColumnElement[bool]) -> sa.Select[Any]:
    query = sa.select(jobs.c.id, jobs.c.next_attempt_at).where(half, *_FREE)
    query = query.where(jobs.c.gateway == sa.bindparam("of_gateway"))
    # In a subquery, because SQLite takes no limit inside a union.
    most: sa.BindParameter[int] = sa.bindparam("most_queued" if half is QUEUED else "most")
    return sa.select(query.order_by(jobs.c.next_attempt_at).limit(most).subquery())


def _earliest(connection: sa.Connection, gateway: str, halves: _Halves) -> int | None:
    times = [_next(half).scalar(connection, {"of_gateway": gateway}) for half in halves]
    return min((time for time in times if time is not None), default=None)


@cache
def _next(half: sa.ColumnElement[bool]) -> Prepared:
    waiting = sa.select(jobs.c.next_attempt_at).where(half, jobs.c.leased_by.is_(None))
    waiting = waiting.where(jobs.c.gateway == sa.bindparam("of_gateway"))
    return Prepared(waiting.order_by(jobs.c.next_attempt_at).limit(1))


def _halves(room: ClaimBudget, gateway: str, *, queued: bool) -> _Halves:
    """Return which jobs of a gateway may be claimed."""
    begun = _BEGUN_NO_IMAGES if gateway in room.no_images else BEGUN
    return (QUEUED, begun) if queued else (begun,)
