"""Sum credits, jobs and images of a period, by gateway, model, day or a tag's values.

Credits are added exactly: each amount is read as its shortest decimal number, which is the one that the
gateway wrote, and decimal numbers are added without rounding. Only the sum is rounded, to the nearest 64-bit
number when it is shown, so ten times 0.1 are 1. A job whose credits are unknown is counted, but is in no sum.
Of a job that was submitted more than once, the known costs of all submissions are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal
from math import isfinite
from typing import Any

from sqlalchemy import ColumnElement, func, select

from storage.ledger.database import Database
from storage.ledger.job_numbers import first_number
from storage.ledger.schema import jobs, outputs
from storage.models import UsageBy
from storage.search.spellings import spellings

DAY_MS = 24 * 3600 * 1000

_EXACT = Context(prec=700)
"""Enough digits for every sum of 64-bit numbers."""

_COST = (jobs.c.credits, jobs.c.credits_estimated, jobs.c.credits_before, jobs.c.credits_before_estimated)


@dataclass(frozen=True, slots=True)
class Spent:
    """Cost and images of some jobs. The jobs whose latest cost is known are `jobs - unknown`."""

    jobs: int = 0
    """All that were accepted."""
    unknown: int = 0
    """Those whose latest credits are not known, or not yet."""
    outputs: int = 0
    """Archived images."""
    credits: Decimal | None = None
    """In each gateway's own credits; None where no job's are known."""
    estimated: Decimal | None = None
    """The part of `credits` that is estimated from price lists; None if none is."""

    def __add__(self, other: Spent) -> Spent:
        """Return the sum of both."""
        return Spent(
            self.jobs + other.jobs,
            self.unknown + other.unknown,
            self.outputs + other.outputs,
            _plus(self.credits, other.credits),
            _plus(self.estimated, other.estimated),
        )


@dataclass(frozen=True, slots=True)
class Group:
    """The jobs with one value. `value` is None for jobs without the tag."""

    value: str | None
    spent: Spent


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Which jobs to sum: accepted from `since` on and before `until` (milliseconds since 1970)."""

    by: UsageBy
    since: int
    until: int
    gateway: str | None = None
    tag: str | None = None
    """The tag's name, where `by` is TAG."""


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The groups and their total; `others` is the sum of those beyond the limit, if there are any."""

    groups: Sequence[Group]
    others: Spent | None
    total: Spent


@dataclass(frozen=True, slots=True)
class Usage:
    """Sum the jobs of a period. Thread-safe."""

    database: Database

    def read(self, wanted: UsageFilter, *, limit: int) -> UsageReport:
        """Return every day of the period, in order; of other groups `limit`, most credits first.

        The cost grows with the number of jobs and days in the period only.
        """
        with self.database.read() as connection:
            rows = connection.execute(_query(wanted)).all()
        found = _grouped(rows)
        if wanted.by is UsageBy.MODEL:
            found = _in_one_spelling(found)
        if wanted.by is UsageBy.DAY:
            groups = [Group(_date(day), found.get(day, Spent())) for day in _days(wanted)]
            return UsageReport(groups, None, _sum(groups))
        groups = sorted((Group(value, spent) for value, spent in found.items()), key=_rank)
        rest = groups[limit:]
        return UsageReport(groups[:limit], _sum(rest) if rest else None, _sum(groups))


def _query(wanted: UsageFilter) -> Any:
    # One row for each amount, not for each job: there are as many amounts as there are prices.
    made = select(func.count()).where(outputs.c.job_id == jobs.c.id).scalar_subquery()
    within = [jobs.c.number >= first_number(wanted.since), jobs.c.number < first_number(wanted.until)]
    if wanted.gateway is not None:
        within.append(jobs.c.gateway == wanted.gateway)
    each = select(_value(wanted).label("value"), *_COST, made.label("made")).where(*within)
    one = each.subquery()
    alike = (one.c.value, *(one.c[column.name] for column in _COST))
    return select(*alike, func.count(), func.sum(one.c.made)).group_by(*alike)


def _value(wanted: UsageFilter) -> ColumnElement[Any]:
    match wanted.by:
        case UsageBy.GATEWAY:
            return jobs.c.gateway
        case UsageBy.MODEL:
            return func.coalesce(jobs.c.result_model, jobs.c.model)
        case UsageBy.DAY:
            return jobs.c.created_at // DAY_MS
        case UsageBy.TAG:
            assert wanted.tag is not None
            value: ColumnElement[Any] = jobs.c.tags[wanted.tag].as_string()
            return value


def _grouped(rows: Iterable[Any]) -> dict[Any, Spent]:
    found: dict[Any, Spent] = {}
    for value, amount, estimated, before, guessed_before, number, made in rows:
        paid = _times(amount, number)
        now = Spent(number, 0 if paid is not None else number, int(made), paid, paid if estimated else None)
        # Zero means that nothing is known of earlier submissions.
        earlier = Spent(
            credits=_times(before or None, number), estimated=_times(guessed_before or None, number)
        )
        found[value] = found.get(value, Spent()) + now + earlier
    return found


def _in_one_spelling(found: Mapping[str, Spent]) -> dict[str, Spent]:
    shown, summed = spellings({model: spent.jobs for model, spent in found.items()}), dict[str, Spent]()
    for model, spent in found.items():
        summed[shown[model]] = summed.get(shown[model], Spent()) + spent
    return summed


def _times(amount: float | None, number: int) -> Decimal | None:
    if amount is None or not isfinite(amount):
        return None
    return _EXACT.multiply(Decimal(repr(amount)), Decimal(number))


def _plus(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return other if one is None else one if other is None else _EXACT.add(one, other)


def _days(wanted: UsageFilter) -> range:
    return range(wanted.since // DAY_MS, -(-wanted.until // DAY_MS))


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_MS / 1000, tz=UTC).date().isoformat()


def _rank(group: Group) -> tuple[Decimal, int, str]:
    # Ties by jobs, then by name, so that the order is stable.
    paid = group.spent.credits
    return Decimal(1) if paid is None else -paid, -group.spent.jobs, group.value or ""


def _sum(groups: Iterable[Group]) -> Spent:
    return sum((group.spent for group in groups), Spent())
