"""Which jobs a worker gets: those that have been due longest, of every gateway its share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    Update,
    bindparam,
    func,
    select,
    text,
    union_all,
    update,
)

from storage.errors import Crowded
from storage.ledger import circuits, notifications
from storage.ledger.rows import to_job
from storage.ledger.schema import BEGUN, QUEUED, UNFINISHED, accepted, jobs
from storage.models import Job, Status


class _Half(Enum):
    """A half of the unfinished jobs; each has an index of its own."""

    QUEUED = 0
    BEGUN = 1
    BEGUN_NO_IMAGES = 2


_Halves = tuple[_Half, ...]

_CONDITIONS: Mapping[_Half, ColumnElement[bool]] = {
    _Half.QUEUED: QUEUED,
    _Half.BEGUN: BEGUN,
    _Half.BEGUN_NO_IMAGES: BEGUN & (jobs.c.status != Status.READY),
}

IN_TURN = 0x73656E64
"""The advisory locks that whoever begins to send to a gateway holds on PostgreSQL."""

SKEW_MS = 60_000
"""How far the clocks of machines that share a ledger may be apart. More, and a clock was set back."""


@dataclass(frozen=True, slots=True)
class ClaimBudget:
    """How many jobs a worker can take now."""

    jobs: int
    """In all."""
    by_gateway: Mapping[str, int] = field(default_factory=dict)
    """Of each gateway, in the order in which they are to be served."""
    others: int | None = None
    """Of each gateway that is not named; None if there is no other limit."""
    full: Collection[str] = ()
    """Gateways that can be sent nothing now: what is queued for them is left alone."""
    no_images: Collection[str] = ()
    """Gateways none of whose images can be fetched now: what is ready there is left alone."""

    sending: Mapping[str, int] = field(default_factory=dict)
    """How many jobs of each gateway may be sent at once, by all workers together; others without limit."""

    def of(self, gateway: str) -> int:
        """How many jobs of one gateway there is room for."""
        return self.by_gateway.get(gateway, self.jobs if self.others is None else self.others)


def claim(connection: Connection, worker: str, room: ClaimBudget, *, now: int, lease_ms: int) -> list[Job]:
    """Lease due jobs, gateway by gateway, so that no gateway's backlog stands before another's jobs.

    What is queued for a gateway whose circuit is open stays where it is; when its time has come, one
    submission is let through to see how the gateway is.
    """
    claimed: list[Job] = []
    open_now = circuits.of_gateways(connection)

    def lease(gateway: str, limit: int, halves: _Halves, queued: int) -> list[Job]:
        values = {"leased_by": worker, "leased_until": now + lease_ms}
        asked = {"of_gateway": gateway, "now": now, "most": limit, "most_queued": queued}
        return [to_job(row) for row in connection.execute(_leasing(halves), asked | values).mappings()]

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
        # Asked first: of several workers that see it is time for one, the others find it taken.
        if circuits.begin_probe(connection, "gateway", gateway, now=now, probe_ms=lease_ms):
            probes = lease(gateway, 1, _halves(room, gateway, queued=True), 1)
            if not any(job.status is Status.QUEUED for job in probes):
                circuits.end_probe(connection, "gateway", gateway)
            claimed += probes
            limit -= len(probes)
        if limit > 0:
            claimed += lease(gateway, limit, _halves(room, gateway, queued=False), 0)
    return claimed


def next_due(connection: Connection, room: ClaimBudget, now: int) -> int | None:
    """When the earliest job that nobody holds, and that there is room for, is due; None if there is none."""
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
            waiting = _earliest(connection, gateway, (_Half.QUEUED,))
            # What is queued there is due when the circuit lets it pass, however long it has waited.
            passes_at = max(circuit.retry_at, circuit.probe_until or 0)
            times.append(None if waiting is None else max(waiting, passes_at))
    return min((time for time in times if time is not None), default=None)


def renew(connection: Connection, worker: str, job_ids: Iterable[str], until: int) -> None:
    """Hold on to jobs that are still being worked on."""
    kept = held(worker).where(jobs.c.id.in_(list(job_ids)))
    connection.execute(kept.values(leased_until=until))


def release(connection: Connection, worker: str) -> None:
    """Let go of every job that a worker holds."""
    for half in UNFINISHED:
        connection.execute(held(worker).where(half).values(leased_by=None, leased_until=None))


def repair_clock_skew(connection: Connection, now: int, lease_ms: int) -> int:
    """Make due what was put off, or leased, by a clock that has since been set back; answers how many.

    A row that was written in the future tells of it. Without this its job would rest until the clock is
    again where it was, and then wait as long again, because its moves are in the future too: they are said
    to be of now. The same goes for notifications, and for gateways and image hosts that were left alone.
    """
    circuits.repair_clock_skew(connection, now, SKEW_MS)
    notifications.repair_clock_skew(connection, now, SKEW_MS)
    ahead = now + SKEW_MS
    # Before their rows are said to be of now. Nothing is counted from the moves of a job that is queued.
    _end_moves_by(connection, (BEGUN, jobs.c.updated_at > ahead), now)
    healed = 0
    for half in UNFINISHED:
        stuck = update(jobs).where(half, jobs.c.leased_until > ahead + lease_ms)
        freed = connection.execute(stuck.values(leased_by=None, leased_until=None)).rowcount
        future = update(jobs).where(half, jobs.c.updated_at > ahead)
        healed += max(freed, connection.execute(future.values(next_attempt_at=now, updated_at=now)).rowcount)
    return healed


def _end_moves_by(connection: Connection, which: Sequence[ColumnElement[bool]], now: int) -> None:
    # Locked as they are read: a move that somebody makes meanwhile must not be written over.
    found = select(jobs.c.id, jobs.c.moves).where(*which).order_by(jobs.c.id).with_for_update()
    for job_id, moves in connection.execute(found).all():
        values = {"moves": [[status, min(at, now)] for status, at in moves]}
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(values))


def held(worker: str) -> Update:
    """An update of what a worker holds, and of nothing else."""
    return update(jobs).where(jobs.c.leased_by == worker)


def must_have_room(connection: Connection, gateway: str, status: Status, most: int, now: int) -> None:
    """Raise Crowded unless fewer than `most` jobs of a gateway are in hand in a status.

    For the transaction that brings one more there: others wait until it is over.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_ALONE, {"turn": IN_TURN, "gateway": gateway})
    if _in_hand(connection, gateway, status, now) >= most:
        raise Crowded(f"{most} jobs of {gateway} are {status} already, which is as many as may be at once.")


def _slots(connection: Connection, room: ClaimBudget, gateway: str, now: int) -> int:
    """How many more jobs of a gateway may be sent now."""
    if gateway in room.full:
        return 0
    if (most := room.sending.get(gateway)) is None:
        return room.jobs
    return most - _in_hand(connection, gateway, Status.SUBMITTING, now)


def _in_hand(connection: Connection, gateway: str, status: Status, now: int) -> int:
    return connection.scalar(_HELD, {"of_gateway": gateway, "of_status": status, "now": now}) or 0


_ALONE = text("SELECT pg_advisory_xact_lock(:turn, hashtext(:gateway))")
_HELD = select(func.count()).where(
    jobs.c.gateway == bindparam("of_gateway"),
    jobs.c.status == bindparam("of_status"),
    jobs.c.leased_until > bindparam("now"),
)


def _gateways(connection: Connection, room: ClaimBudget) -> list[str]:
    used = connection.scalars(_USED).all()
    named = [gateway for gateway in room.by_gateway if gateway in used]
    return named + [gateway for gateway in used if gateway not in room.by_gateway]


_USED = select(accepted.c.gateway)
_FREE = (
    jobs.c.next_attempt_at <= bindparam("now"),
    func.coalesce(jobs.c.leased_until, 0) <= bindparam("now"),
)


@cache
def _leasing(halves: _Halves) -> Update:
    """Lease the jobs of a gateway that have been due longest, and that nobody holds.

    Made once for each sort of claim: to put it together takes longer than to run it.
    """
    due = union_all(*map(_due, halves)).subquery()
    longest = select(due.c.id).order_by(due.c.next_attempt_at).limit(bindparam("most"))
    # Locked here, since a union cannot be. What another worker locked in between is left to that one, and
    # what it took in between is no longer free when it is looked at again under the lock.
    free = select(jobs.c.id).where(jobs.c.id.in_(longest), *_FREE).with_for_update(skip_locked=True)
    return update(jobs).where(jobs.c.id.in_(free)).returning(jobs)


def _due(half: _Half) -> Select[Any]:
    query = select(jobs.c.id, jobs.c.next_attempt_at).where(_CONDITIONS[half], *_FREE)
    query = query.where(jobs.c.gateway == bindparam("of_gateway"))
    # In a subquery of its own, because SQLite takes no limit inside of a union.
    most: BindParameter[int] = bindparam("most_queued" if half is _Half.QUEUED else "most")
    return select(query.order_by(jobs.c.next_attempt_at).limit(most).subquery())


def _earliest(connection: Connection, gateway: str, halves: _Halves) -> int | None:
    times = [connection.scalar(_next(half), {"of_gateway": gateway}) for half in halves]
    return min((time for time in times if time is not None), default=None)


@cache
def _next(half: _Half) -> Select[Any]:
    waiting = select(jobs.c.next_attempt_at).where(_CONDITIONS[half], jobs.c.leased_by.is_(None))
    waiting = waiting.where(jobs.c.gateway == bindparam("of_gateway"))
    return waiting.order_by(jobs.c.next_attempt_at).limit(1)


def _halves(room: ClaimBudget, gateway: str, *, queued: bool) -> _Halves:
    """What may be claimed of a gateway."""
    begun = _Half.BEGUN_NO_IMAGES if gateway in room.no_images else _Half.BEGUN
    return (_Half.QUEUED, begun) if queued else (begun,)
