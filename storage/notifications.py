"""What applications are owed: a notification for each time that a job of theirs came to rest."""

from __future__ import annotations

from sqlalchemy import Connection, RowMapping, func, insert, select

from storage.schema import notifications


def owe(connection: Connection, job: RowMapping, at: int) -> None:
    """Owe a notification of a job that has just come to rest, in the transaction that moves it.

    `job` is its row. Without a `notify_url` nothing is owed.
    """
    if job["notify_url"] is None:
        return
    mine = notifications.c.job_id == job["id"]
    number = (connection.scalar(select(func.max(notifications.c.number)).where(mine)) or 0) + 1
    row = {
        "job_id": job["id"],
        "number": number,
        "url": job["notify_url"],
        "status": job["status"],
        "at": at,
        "attempts": 0,
        "next_attempt_at": at,
    }
    connection.execute(insert(notifications).values(row))
