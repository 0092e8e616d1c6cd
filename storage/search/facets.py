"""Count outputs by facet: gateway, model, day and tag, of the whole archive or of a search."""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Text, cast, func, select

from storage.ledger.database import Database
from storage.ledger.job_numbers import first_number
from storage.ledger.schema import jobs, outputs, tallies
from storage.ledger.search_index import day
from storage.search import where
from storage.search.filters import SearchFilter
from storage.search.ids import with_whole_id
from storage.search.planner import plan
from storage.search.search import WITHIN_S, images_wanted
from storage.search.spellings import added_up

MOST_JOBS = 1_000
"""How many jobs, the newest that match, are counted; more would make a page slow."""

MOST_VALUES = 20
"""How many values of a facet are returned."""

DAY = first_number(24 * 3600 * 1000)
"""How many job numbers a day has."""

FACETS = ("gateway", "model", "day", "tag")


@dataclass(frozen=True, slots=True)
class FacetCount:
    """One value of a facet, and how many outputs have it. A tag's value is `name=value`."""

    value: str
    outputs: int


@dataclass(frozen=True, slots=True)
class FacetCounts:
    """The values of each facet: the most frequent first, days from the latest on."""

    counted: int
    """How many outputs were counted."""
    complete: bool
    """Whether those are all that match; otherwise they are the newest ones."""
    gateway: Sequence[FacetCount]
    model: Sequence[FacetCount]
    day: Sequence[FacetCount]
    tag: Sequence[FacetCount]


@dataclass(frozen=True, slots=True)
class Facets:
    """Read counts by facet. Thread-safe; raises Unavailable if the database does not answer."""

    database: Database
    most_jobs: int = MOST_JOBS
    """How many of the jobs that match are counted."""

    def read(self, wanted: SearchFilter) -> FacetCounts:
        """Return the counts of a search; those of the whole archive are stored, and cost nothing."""
        with self.database.read(within_s=WITHIN_S) as connection:
            if wanted == SearchFilter():
                return _everything(connection)
            query = _matching(connection, with_whole_id(connection, wanted), self.most_jobs + 1)
            rows = connection.execute(query).all()
        return _counted(rows[: self.most_jobs], complete=len(rows) <= self.most_jobs)


def _everything(connection: Connection) -> FacetCounts:
    found: dict[str, list[FacetCount]] = {}
    models = select(tallies.c.value, tallies.c.outputs).where(tallies.c.facet == "model")
    used = {str(row.value): int(row.outputs) for row in connection.execute(models)}
    for facet in FACETS:
        if facet == "model":
            found[facet] = _facet_counts(facet, added_up(used))
            continue
        order = tallies.c.value.desc() if facet == "day" else tallies.c.outputs.desc()
        query = select(tallies.c.value, tallies.c.outputs).where(tallies.c.facet == facet)
        rows = connection.execute(query.order_by(order, tallies.c.value).limit(MOST_VALUES))
        found[facet] = [FacetCount(value, number) for value, number in rows]
    counted = select(func.coalesce(func.sum(tallies.c.outputs), 0)).where(tallies.c.facet == "gateway")
    # PostgreSQL's sum of integers is a Decimal.
    return FacetCounts(int(connection.scalar(counted) or 0), complete=True, **found)


def _counted(rows: Sequence[Any], *, complete: bool) -> FacetCounts:
    gateways, models, numbers, tags, images = zip(*rows, strict=True) if rows else ((),) * 5
    days = _sums((number // DAY for number in numbers), images)
    of_tags: Counter[str] = Counter()
    for together, number in _sums(tags, images).items():
        of_tags.update({f"{name}={value}": number for name, value in json.loads(together).items()})
    counts = {
        "gateway": _sums(gateways, images),
        "model": added_up(_sums(models, images)),
        "day": Counter({day(begun * DAY): number for begun, number in days.items()}),
        "tag": of_tags,
    }
    found = {facet: _facet_counts(facet, counts[facet]) for facet in FACETS}
    return FacetCounts(sum(images), complete=complete, **found)


def _sums(values: Iterable[Hashable], images: Iterable[int]) -> Counter[Any]:
    """Return how many images have each value. Alike pairs are counted first, since most are."""
    sums: Counter[Any] = Counter()
    for (value, number), times in Counter(zip(values, images, strict=True)).items():
        sums[value] += number * times
    return sums


def _matching(connection: Connection, wanted: SearchFilter, limit: int) -> Any:
    way = plan(connection, wanted, with_images=True, limit=limit)
    images = (
        select(func.count())
        .where(outputs.c.job_id == jobs.c.id, *images_wanted(wanted))
        .correlate(jobs)
        .scalar_subquery()
    )
    model = func.coalesce(jobs.c.result_model, jobs.c.model)
    columns = (jobs.c.gateway, model, jobs.c.number, cast(jobs.c.tags, Text), images)
    held = [*way.conditions, *where.of_jobs(wanted), *way.within(wanted)]
    query = select(*columns).select_from(way.rows).where(*held, images > 0)
    return query.order_by(way.number.desc()).limit(limit)


def _facet_counts(facet: str, counts: Counter[str]) -> list[FacetCount]:
    by_value = sorted(counts.items(), reverse=facet == "day")
    order = by_value if facet == "day" else sorted(by_value, key=lambda one: -one[1])
    return [FacetCount(value, number) for value, number in order[:MOST_VALUES] if number]
