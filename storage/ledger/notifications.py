"""Add, list and replay notifications: one for each time that a job becomes terminal (outbox pattern).

Those of one job are sent in order: the next one waits until the one before was delivered or has failed for
good.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from storage.errors import NotFound
from storage.ledger.database import Database
from storage.ledger.schema import notifications, outputs
from storage.models import Clock, NotificationState, Status
from storage.paging import Page, parse_numbered_id
from storage.statements import AnyRow
from storage.urls import authority_of

_CHANGING = (
    *("status", "updated_at", "attempts", "next_attempt_at", "gateway_job_id", "submission", "found_by"),
    *("result_model", "result_seed", "credits", "credits_estimated", "images_returned", "withheld"),
    *("credits_before", "credits_before_estimated"),
    *("error_code", "error_message", "error_at_fault", "error_details"),
)
"""What a retry changes of a job: a copy is kept, so that each delivery attempt sends the same."""

PENDING = notifications.c.next_attempt_at.is_not(None)
"""The condition of pending ones: to be sent, or sent again."""
_FAILED = notifications.c.next_attempt_at.is_(None) & notifications.c.delivered_at.is_(None)


def notification_id(job_id: str, number: int) -> str:
    """Return the id of a notification; without a full stop, which parts what Standard Webhooks signs."""
    return f"msg_{job_id}_{number}"


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification. Times are milliseconds since 1970 UTC."""

    job_id: str
    number: int
    """Which of its job's it is, from 1."""
    url: str = field(repr=False)
    """The whole URL: never shown nor logged, since it may hold a secret."""
    host: str
    """Host and port of the URL, normalized: the key of the limit for each host."""
    status: Status
    """The terminal status of the job."""
    at: int
    """When the job reached it."""
    attempts: int
    """How often it was tried, since it was added or replayed."""
    next_attempt_at: int | None
    tried_at: int | None
    delivered_at: int | None
    code: str | None
    """Why the last try failed; None if it did not."""
    message: str | None

    @property
    def id(self) -> str:
        """The public id, and that of its messages at each try."""
        return notification_id(self.job_id, self.number)

    @property
    def state(self) -> NotificationState:
        """Pending, delivered or failed."""
        if self.next_attempt_at is not None:
            return NotificationState.PENDING
        return NotificationState.FAILED if self.delivered_at is None else NotificationState.DELIVERED


@dataclass(frozen=True, slots=True)
class NotificationCounts:
    """Counts of all notifications."""

    pending: int
    failed: int
    oldest_pending_at: int | None


class Notifications:
    """List, count and replay notifications. Thread-safe; raises Unavailable as `Ledger` does."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def replay(self, notification_id: str) -> Notification:
        """Make a notification pending again, due now, with its attempts counted from 0; raises NotFound.

        An attempt in flight goes on, but its result is not recorded: that would undo the replay.
        """
        now = self._clock()
        again = sa.update(notifications).where(_has_id(*parse_id(notification_id)))
        values = {"next_attempt_at": now, "attempts": 0, "delivered_at": None, "updated_at": now}
        values |= {"leased_by": None, "leased_until": None}
        with self._database.write() as connection:
            row = connection.execute(again.values(values).returning(notifications)).mappings().one_or_none()
        if row is None:
            raise NotFound(f"There is no notification {notification_id}.")
        return to_notification(row)

    def one(self, notification_id: str) -> Notification:
        """Return one; raises NotFound."""
        this = sa.select(notifications).where(_has_id(*parse_id(notification_id)))
        with self._database.read() as connection:
            row = connection.execute(this).mappings().one_or_none()
        if row is None:
            raise NotFound(f"There is no notification {notification_id}.")
        return to_notification(row)

    def of_job(self, job_id: str) -> list[Notification]:
        """Return those of a job, oldest first."""
        mine = sa.select(notifications).where(notifications.c.job_id == job_id)
        with self._database.read() as connection:
            rows = connection.execute(mine.order_by(notifications.c.number)).mappings()
            return [to_notification(row) for row in rows]

    def page(
        self,
        *,
        job_id: str | None = None,
        state: NotificationState | None = None,
        since: int | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> Page[Notification]:
        """Return a page of them by keyset paging: the newest job first, and of each job the latest first.

        `since`: the job finished then or later (milliseconds). Raises NotFound if `cursor` is not the id of a
        notification.
        """
        columns = notifications.c
        conditions: list[sa.ColumnElement[bool]] = [] if state is None else [_IN[state]]
        if job_id is not None:
            conditions.append(columns.job_id == job_id)
        if since is not None:
            conditions.append(columns.at >= since)
        if cursor is not None:
            last, number = parse_id(cursor)
            conditions.append(
                sa.or_(columns.job_id < last, sa.and_(columns.job_id == last, columns.number < number))
            )
        query = sa.select(notifications).where(*conditions).limit(limit + 1)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(columns.job_id.desc(), columns.number.desc()))
            found = [to_notification(row) for row in rows.mappings()]
        return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def counts(self) -> NotificationCounts:
        """Count pending and failed ones."""
        pending = sa.select(sa.func.count(), sa.func.min(notifications.c.at)).where(PENDING)
        with self._database.read() as connection:
            number, oldest = connection.execute(pending).one()
            return NotificationCounts(number, connection.scalar(_counted(_FAILED)) or 0, oldest)

    def failing(self, *, least: int, failed_since: int) -> tuple[Mapping[str, int], int]:
        """Return how many are pending at each host after `least` attempts, and how many failed for good.

        Those that failed since `failed_since` (milliseconds) are counted.
        """
        host = notifications.c.host
        tried = sa.select(host, sa.func.count()).where(PENDING, notifications.c.attempts >= least)
        lately = _counted(_FAILED, notifications.c.updated_at >= failed_since)
        with self._database.read() as connection:
            rows = connection.execute(tried.group_by(host).order_by(host))
            hosts = {str(name): int(number) for name, number in rows}
            return hosts, connection.scalar(lately) or 0


def add_notification(connection: sa.Connection, job: AnyRow) -> None:
    """Add a notification of a job that has just become terminal, in the transaction that moves it.

    `job` is its row. Without a `notify_url` nothing is added.
    """
    if job["notify_url"] is None:
        return
    mine, at = notifications.c.job_id == job["id"], job["updated_at"]
    number = (connection.scalar(sa.select(sa.func.max(notifications.c.number)).where(mine)) or 0) + 1
    made = sa.select(outputs.c.index).where(outputs.c.job_id == job["id"]).order_by(outputs.c.index)
    row = {
        "job_id": job["id"],
        "number": number,
        "url": job["notify_url"],
        "host": authority_of(job["notify_url"]),
        "status": job["status"],
        "at": at,
        "job": {name: job[name] for name in _CHANGING},
        "outputs": list(connection.scalars(made)),
        "attempts": 0,
        "next_attempt_at": at,
        "updated_at": at,
    }
    connection.execute(sa.insert(notifications).values(row))


def repair_clock_skew(connection: sa.Connection, now: int, skew_ms: int) -> None:
    """Make due what was put off by a clock that has since been set back, and end the leases of that time."""
    ahead = now + skew_ms
    put_off = sa.update(notifications).where(PENDING, notifications.c.updated_at > ahead)
    free = {"leased_by": None, "leased_until": None}
    connection.execute(put_off.values(next_attempt_at=now, updated_at=now, **free))


def parse_id(notification_id: str) -> tuple[str, int]:
    """Parse the id of a notification into job id and number; raises NotFound if it is none."""
    try:
        return parse_numbered_id(notification_id.removeprefix("msg_").replace("_", "."))
    except ValueError:
        raise NotFound(f"There is no notification {notification_id}.") from None


_IN: Mapping[NotificationState, sa.ColumnElement[bool]] = {
    NotificationState.PENDING: PENDING,
    NotificationState.DELIVERED: notifications.c.next_attempt_at.is_(None)
    & notifications.c.delivered_at.is_not(None),
    NotificationState.FAILED: _FAILED,
}


def is_one(one: Notification) -> sa.ColumnElement[bool]:
    """Return the condition that selects one notification."""
    return _has_id(one.job_id, one.number)


def _has_id(job_id: str, number: int) -> sa.ColumnElement[bool]:
    return sa.and_(notifications.c.job_id == job_id, notifications.c.number == number)


def _counted(*where: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(sa.func.count()).select_from(notifications).where(*where)


_FIELDS = tuple(Notification.__dataclass_fields__)


def to_notification(row: sa.RowMapping) -> Notification:
    """Convert a row of `notifications`."""
    return Notification(**{**{name: row[name] for name in _FIELDS}, "status": Status(row["status"])})
