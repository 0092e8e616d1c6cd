"""Count jobs: how many were accepted, and how many are in each state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, text, union_all

from storage.ledger.schema import UNFINISHED, accepted, jobs
from storage.models import FoundBy, JobCounts, Status

_COUNT = text(
    "INSERT INTO accepted (gateway, jobs) VALUES (:gateway, 1) "
    "ON CONFLICT (gateway) DO UPDATE SET jobs = accepted.jobs + 1"
)


def count_accepted(connection: Connection, gateway: str) -> None:
    """Count one job more that was accepted, apart from the jobs themselves."""
    connection.execute(_COUNT, {"gateway": gateway})


def count_jobs(connection: Connection) -> dict[str, JobCounts]:
    """Count jobs by state, for each gateway ever used."""
    where = (jobs.c.gateway, jobs.c.status, jobs.c.found_by)
    counts = select(*where, func.count()).group_by(*where)
    halves = [
        select(jobs.c.gateway, func.min(jobs.c.created_at).label("at")).where(half).group_by(jobs.c.gateway)
        for half in UNFINISHED
    ]
    unfinished = union_all(*halves).subquery()
    oldest = select(unfinished.c.gateway, func.min(unfinished.c.at)).group_by(unfinished.c.gateway)
    taken = connection.execute(select(accepted.c.gateway, accepted.c.jobs)).all()
    rows = connection.execute(counts).all()
    ages = {row[0]: row[1] for row in connection.execute(oldest)}
    return {gateway: _page(gateway, number, rows, ages) for gateway, number in taken}


def total(pages: Sequence[JobCounts]) -> JobCounts:
    """Add pages up into one."""
    ages = [page.oldest_unfinished_at for page in pages if page.oldest_unfinished_at is not None]
    return JobCounts(
        accepted=sum(page.accepted for page in pages),
        counts={status: sum(page.counts[status] for page in pages) for status in Status},
        found_by_polling=sum(page.found_by_polling for page in pages),
        oldest_unfinished_at=min(ages, default=None),
    )


def _page(gateway: str, number: int, rows: Sequence[Any], ages: Mapping[str, int]) -> JobCounts:
    mine = [(Status(status), found_by, count) for name, status, found_by, count in rows if name == gateway]
    return JobCounts(
        accepted=number,
        counts={status: sum(n for at, _, n in mine if at is status) for status in Status},
        found_by_polling=sum(n for _, found_by, n in mine if found_by == FoundBy.POLL),
        oldest_unfinished_at=ages.get(gateway),
    )
