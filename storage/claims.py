"""Which jobs a worker gets: those that have been due longest, of every gateway its share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Update, func, select, union_all, update

from storage import circuits, notifications
from storage.records import Job, Status
from storage.rows import to_job
from storage.schema import BEGUN, QUEUED, UNFINISHED, accepted, jobs

_Halves = Sequence[ColumnElement[bool]]

SKEW_MS = 60_000
"""How far the clocks of machines that share a ledger may be apart. More, and a clock was set back."""


@dataclass(frozen=True, slots=True)
class Room:
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

    def of(self, gateway: str) -> int:
        """How many jobs of one gateway there is room for."""
        return self.by_gateway.get(gateway, self.jobs if self.others is None else self.others)


def claim(connection: Connection, worker: str, room: Room, *, now: int, lease_ms: int) -> list[Job]:
    """Lease due jobs, gateway by gateway, so that no gateway's backlog stands before another's jobs.

    What is queued for a gateway whose circuit is open stays where it is; when its time has come, one
    submission is let through to see how the gateway is.
    """
    claimed: list[Job] = []
    open_now = circuits.of_gateways(connection)

    def lease(gateway: str, limit: int, halves: _Halves) -> list[Job]:
        due = _longest_due(gateway, halves, now, limit)
        values = {"leased_by": worker, "leased_until": now + lease_ms}
        rows = connection.execute(update(jobs).where(jobs.c.id.in_(due)).values(values).returning(jobs))
        return [to_job(row) for row in rows.mappings()]

    for gateway in _gateways(connection, room):
        limit = min(room.jobs - len(claimed), room.of(gateway))
        if limit <= 0:
            continue
        circuit = open_now.get(gateway)
        blocked = gateway in room.full or (circuit is not None and circuit.blocks(now))
        if circuit is None or circuit.retry_at is None or blocked:
            claimed += lease(gateway, limit, _halves(room, gateway, queued=not blocked))
            continue
        probes = lease(gateway, 1, _halves(room, gateway, queued=True))
        if any(job.status is Status.QUEUED for job in probes):
            circuits.begin_probe(connection, "gateway", gateway, now=now, probe_ms=lease_ms)
        claimed += probes + lease(gateway, limit - 1, _halves(room, gateway, queued=False))
    return claimed


def next_due(connection: Connection, room: Room, now: int) -> int | None:
    """When the earliest job that nobody holds, and that there is room for, is due; None if there is none."""
    times = []
    open_now = circuits.of_gateways(connection)
    for gateway in _gateways(connection, room):
        if room.of(gateway) <= 0:
            continue
        circuit = open_now.get(gateway)
        blocked = gateway in room.full or (circuit is not None and circuit.blocks(now))
        times.append(_earliest(connection, gateway, _halves(room, gateway, queued=not blocked)))
        if circuit is not None and circuit.retry_at is not None and gateway not in room.full:
            waiting = _earliest(connection, gateway, (QUEUED,))
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


def heal(connection: Connection, now: int, lease_ms: int) -> int:
    """Make due what was put off, or leased, by a clock that has since been set back; answers how many.

    A row that was written in the future tells of it. Without this its job would rest until the clock is
    again where it was, and then wait as long again, because its moves are in the future too: they are said
    to be of now. The same goes for notifications, and for gateways and image hosts that were left alone.
    """
    circuits.heal(connection, now, SKEW_MS)
    notifications.heal(connection, now, SKEW_MS)
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


def _end_moves_by(connection: Connection, which: _Halves, now: int) -> None:
    for job_id, moves in connection.execute(select(jobs.c.id, jobs.c.moves).where(*which)).all():
        values = {"moves": [[status, min(at, now)] for status, at in moves]}
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(values))


def held(worker: str) -> Update:
    """An update of what a worker holds, and of nothing else."""
    return update(jobs).where(jobs.c.leased_by == worker)


def _gateways(connection: Connection, room: Room) -> list[str]:
    used = connection.scalars(select(accepted.c.gateway)).all()
    named = [gateway for gateway in room.by_gateway if gateway in used]
    return named + [gateway for gateway in used if gateway not in room.by_gateway]


def _longest_due(gateway: str, halves: _Halves, now: int, limit: int) -> Select[Any]:
    """The ids of the jobs of a gateway that have been due longest, and that nobody holds."""
    due = union_all(*(_due(half, gateway, now, limit) for half in halves)).subquery()
    longest = select(due.c.id).order_by(due.c.next_attempt_at).limit(limit)
    # Locked here, since a union cannot be. What another worker locked in between is left to that one, and
    # what it took in between is no longer free when it is looked at again under the lock.
    return select(jobs.c.id).where(jobs.c.id.in_(longest), *_free(now)).with_for_update(skip_locked=True)


def _free(now: int) -> tuple[ColumnElement[bool], ...]:
    return jobs.c.next_attempt_at <= now, func.coalesce(jobs.c.leased_until, 0) <= now


def _due(half: ColumnElement[bool], gateway: str, now: int, limit: int) -> Select[Any]:
    query = select(jobs.c.id, jobs.c.next_attempt_at).where(half, jobs.c.gateway == gateway, *_free(now))
    # In a subquery of its own, because SQLite takes no limit inside of a union.
    return select(query.order_by(jobs.c.next_attempt_at).limit(limit).subquery())


def _earliest(connection: Connection, gateway: str, halves: _Halves) -> int | None:
    times = [
        connection.scalar(
            select(jobs.c.next_attempt_at)
            .where(half, jobs.c.gateway == gateway, jobs.c.leased_by.is_(None))
            .order_by(jobs.c.next_attempt_at)
            .limit(1)
        )
        for half in halves
    ]
    return min((time for time in times if time is not None), default=None)


def _halves(room: Room, gateway: str, *, queued: bool) -> _Halves:
    """The conditions for what may be claimed of a gateway; each has an index of its own."""
    begun = BEGUN & (jobs.c.status != Status.READY) if gateway in room.no_images else BEGUN
    return (QUEUED, begun) if queued else (begun,)
