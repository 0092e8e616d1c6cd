"""Claim notifications from the outbox by lease, and record the result of each delivery attempt."""

from collections import Counter
from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, BindParameter, Select, bindparam, exists, func, select, update

from storage.ledger.database import Database
from storage.ledger.notifications import PENDING, Notification, is_one, to_notification
from storage.ledger.rows import to_job
from storage.ledger.schema import jobs, notifications, outputs
from storage.models import Clock, Job, Output
from storage.statements import Prepared


class Outbox:
    """The pending notifications. Thread-safe; raises Unavailable as `Ledger` does."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def next_due(self, full: Collection[str] = ()) -> int | None:
        """Return when the earliest one without a lease, and whose host is not `full`, is due; or None."""
        now = self._clock()
        with self._database.autocommit() as connection:
            # Asked all the time, and to build it takes ten times as long as to run it.
            found = connection.scalar(_next(now, full)) if full else _NEXT.scalar(connection, {"now": now})
        due: int | None = found
        return due

    def claim(
        self, sender: str, room: int, *, per_host: int, held: Collection[Notification], lease_ms: int
    ) -> list[Notification]:
        """Lease those that have been due longest: `room` at most, and `per_host` of each host.

        `held`: those that the sender has already. No other one of their jobs is leased, even after a replay
        or an expired lease: what is being sent ends first.
        """
        now, in_hand = self._clock(), Counter(one.host for one in held)
        busy = {one.job_id for one in held}
        claimed: list[Notification] = []
        with self._database.write() as connection:
            while len(claimed) < room:
                full = [host for host, number in in_hand.items() if number >= per_host]
                free = _waiting(now, full).where(notifications.c.job_id.not_in(busy))
                due = free.where(notifications.c.next_attempt_at <= now).limit(room - len(claimed))
                rows = connection.execute(due.with_for_update(of=notifications, skip_locked=True)).mappings()
                fitting = []
                for one in map(to_notification, rows):
                    if in_hand[one.host] < per_host:
                        in_hand[one.host] += 1
                        fitting.append(one)
                if not fitting:
                    break
                for one in fitting:
                    lease = {"leased_by": sender, "leased_until": now + lease_ms, "updated_at": now}
                    connection.execute(update(notifications).where(is_one(one)).values(lease))
                claimed += fitting
        return claimed

    def content(self, one: Notification) -> tuple[Job, list[Output]]:
        """Return the notification's job and outputs, as they were when the job became terminal."""
        then = select(jobs, notifications.c.job.label("then"), notifications.c.outputs.label("had"))
        joined = then.join_from(notifications, jobs).where(is_one(one))
        with self._database.read() as connection:
            row = dict(connection.execute(joined).mappings().one())
            made = outputs.c.job_id == one.job_id, outputs.c.index.in_(row["had"])
            had = connection.execute(select(outputs).where(*made).order_by(outputs.c.index)).mappings()
            return to_job(row | row["then"]), [Output(**output) for output in had]

    def delivered(self, one: Notification) -> None:
        """Record a delivery, also if another sender has the lease by now.

        Not if the lease was released meanwhile, as a replay does: then it is sent once more.
        """
        now = self._clock()
        leased = notifications.c.leased_by.is_not(None)
        values = {"next_attempt_at": None, "delivered_at": now, "code": None, "message": None}
        with self._database.write() as connection:
            connection.execute(_tried(one, now).where(leased, PENDING).values(values))

    def failed(
        self, one: Notification, sender: str, code: str, message: str, *, due_in_ms: int | None
    ) -> bool:
        """Record a failed attempt, and when the next one is due; with None there is no further one.

        Returns whether it was recorded: not if another sender has the lease, or after a replay.
        """
        now = self._clock()
        next_at = None if due_in_ms is None else now + due_in_ms
        values = {"next_attempt_at": next_at, "code": code, "message": message}
        held = _tried(one, now).where(notifications.c.leased_by == sender, PENDING)
        with self._database.write() as connection:
            return connection.execute(held.values(values)).rowcount == 1

    def release(self, sender: str) -> None:
        """Release every lease of a sender, as it stops."""
        held = update(notifications).where(PENDING, notifications.c.leased_by == sender)
        with self._database.write() as connection:
            connection.execute(held.values(leased_by=None, leased_until=None))


def _waiting(now: int | BindParameter[int], full: Collection[str]) -> Select[Any]:
    """Select those without a lease that are the earliest pending one of their job, whose host is not full."""
    earlier = notifications.alias()
    same = earlier.c.job_id == notifications.c.job_id, earlier.c.number < notifications.c.number
    first = ~exists().where(*same, earlier.c.next_attempt_at.is_not(None))
    free = func.coalesce(notifications.c.leased_until, 0) <= now
    waiting = select(notifications).where(PENDING, free, first).order_by(notifications.c.next_attempt_at)
    return waiting.where(notifications.c.host.not_in(full)) if full else waiting


def _next(now: int | BindParameter[int], full: Collection[str]) -> Select[Any]:
    return _waiting(now, full).with_only_columns(notifications.c.next_attempt_at).limit(1)


_NEXT = Prepared(_next(bindparam("now", type_=BigInteger), ()))


def _tried(one: Notification, now: int) -> Any:
    free = {"leased_by": None, "leased_until": None}
    tried = {"attempts": notifications.c.attempts + 1, "tried_at": now, "updated_at": now}
    return update(notifications).where(is_one(one)).values(**free, **tried)
