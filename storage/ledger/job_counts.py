"""Count jobs: how many were accepted, and how many are in each status."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, select, text, union_all

from storage.ledger.schema import UNFINISHED, accepted, jobs
from storage.models import FoundBy, JobCounts, Status

_COUNT = text(
    "INSERT INTO accepted (gateway, jobs) VALUES (:gateway, :more) "
    "ON CONFLICT (gateway) DO UPDATE SET jobs = accepted.jobs + :more"
)


def count_accepted(connection: Connection, gateway: str, more: int = 1) -> None:
    """Count more accepted jobs, in a table of their own: so a lost or doubled job shows."""
    connection.execute(_COUNT, {"gateway": gateway, "more": more})


def count_jobs(connection: Connection) -> dict[str, JobCounts]:
    """Count jobs by status, for each gateway ever used."""
    where = (jobs.c.gateway, jobs.c.status, jobs.c.found_by)
    counts = select(*where, func.count()).group_by(*where)
    halves = [
        select(jobs.c.gateway, func.min(jobs.c.created_at).label("at")).where(half).group_by(jobs.c.gateway)
        for half in UNFINISHED
    ]
    unfinished = union_all(*halves).subquery()
    oldest = select(unfinished.c.gateway, func.min(unfinished.c.at)).group_by(unfinished.c.gateway)
    all_accepted = connection.execute(select(accepted.c.gateway, accepted.c.jobs)).all()
    rows = connection.execute(counts).all()
    ages = {row[0]: row[1] for row in connection.execute(oldest)}
    return {gateway: _of_gateway(gateway, number, rows, ages) for gateway, number in all_accepted}


def total(each: Sequence[JobCounts]) -> JobCounts:
    """Add up the counts of several gateways."""
    ages = [one.oldest_unfinished_at for one in each if one.oldest_unfinished_at is not None]
    return JobCounts(
        accepted=sum(one.accepted for one in each),
        counts={status: sum(one.counts[status] for one in each) for status in Status},
        found_by_polling=sum(one.found_by_polling for one in each),
        oldest_unfinished_at=min(ages, default=None),
    )


def _of_gateway(gateway: str, number: int, rows: Sequence[Any], ages: Mapping[str, int]) -> JobCounts:
    mine = [(Status(status), found_by, count) for name, status, found_by, count in rows if name == gateway]
    return JobCounts(
        accepted=number,
        counts={status: sum(n for at, _, n in mine if at is status) for status in Status},
        found_by_polling=sum(n for _, found_by, n in mine if found_by == FoundBy.POLL),
        oldest_unfinished_at=ages.get(gateway),
    )
