"""Search jobs and outputs, newest first, with keyset paging.

Pages begin at a job number, not at an offset, so that a page costs the same however deep it is, and nothing
is skipped or repeated while new jobs arrive. A cursor is the id of the last row of a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, literal, null, or_, select

from storage.errors import NotFound
from storage.ledger.database import Database
from storage.ledger.deliveries import newest_of_job
from storage.ledger.rows import to_job
from storage.ledger.schema import jobs, outputs
from storage.models import Delivery, Job, Output
from storage.paging import Page, Row, parse_numbered_id
from storage.search import where
from storage.search.filters import SearchFilter
from storage.search.ids import with_whole_id
from storage.search.planner import IndexPlan, plan

MOST_DELIVERIES = 200
"""How many callbacks of one job are returned; it may have five times as many."""

WITHIN_S = 10.0
"""The time limit of a query: one that reads everything must not delay the others."""


def _without(*long: str) -> Sequence[ColumnElement[Any]]:
    """Return a job's columns, with empty values for the long ones that a list does not show."""
    empty: dict[str, Any] = {"params": {}, "images": [], "moves": [], "attempt_log": []}
    return [
        (literal(empty[column.name], column.type) if column.name in empty else null()).label(column.name)
        if column.name in long
        else column
        for column in jobs.c
    ]


_OF_JOBS = _without("images", "moves", "attempt_log", "sent", "reply")
_OF_OUTPUTS = _without("images", "moves", "attempt_log", "sent", "reply", "params", "error_details")


@dataclass(frozen=True, slots=True)
class SearchHit:
    """An output together with the job that made it."""

    output: Output
    job: Job


@dataclass(frozen=True, slots=True)
class Search:
    """Read pages of jobs and outputs. Thread-safe.

    The jobs of a page have no moves, attempts, images, `sent` or reply; those of a page of outputs have no
    `params` and no details of an error either.
    """

    database: Database
    within_s: float = WITHIN_S
    """The time limit of one page; beyond it TookTooLong is raised."""

    def jobs(self, wanted: SearchFilter, *, limit: int, cursor: str | None = None) -> Page[Job]:
        """Return a page of jobs, newest first. Raises NotFound if the cursor is not the id of a job."""
        with self.database.read(within_s=self.within_s) as connection:
            wanted = with_whole_id(connection, wanted)
            before = None if cursor is None else _number(connection, cursor)
            way = plan(connection, wanted, with_images=False, limit=limit + 1, before=before)
            query = _jobs(_OF_JOBS, way, wanted).limit(limit + 1)
            if where.of_images(wanted):
                query = query.where(_having(images_wanted(wanted)))
            else:
                query = query.where(*where.of_seed(wanted, with_images=False))
            if before is not None:
                query = query.where(jobs.c.number < before, way.number < before)
            rows = [to_job(row) for row in connection.execute(query).mappings()]
        return _page(rows, limit, [job.id for job in rows])

    def outputs(self, wanted: SearchFilter, *, limit: int, cursor: str | None = None) -> Page[SearchHit]:
        """Return a page of outputs, those of the newest job first.

        Raises ValueError if the cursor is not an output's id, and NotFound if there is no such job.
        """
        with self.database.read(within_s=self.within_s) as connection:
            wanted = with_whole_id(connection, wanted)
            before = None if cursor is None else _number(connection, parse_numbered_id(cursor)[0])
            way = plan(connection, wanted, with_images=True, limit=limit + 1, before=before)
            images = images_wanted(wanted)
            query = _jobs(_OF_OUTPUTS, way, wanted).where(_having(images)).limit(limit + 1)
            if cursor is not None and before is not None:
                query = query.where(*_behind(way, before, cursor, images))
            made = [to_job(row) for row in connection.execute(query).mappings()]
            found = _images(connection, made, [*images, *_not_before(cursor)], limit + 1)
        return _page(found, limit, [one.output.id for one in found])

    def newer_ids(self, wanted: SearchFilter, than: str, *, limit: int) -> list[str]:
        """Return the ids of the outputs before the output `than`, nearest first: keyset paging backwards.

        For the page before, and the picture before. Of an output that is not there none come before. Raises
        ValueError if `than` is not an output's id.
        """
        job_id, index = parse_numbered_id(than)
        with self.database.read(within_s=self.within_s) as connection:
            number = connection.scalar(select(jobs.c.number).where(jobs.c.id == job_id))
            if number is None:
                return []
            wanted = with_whole_id(connection, wanted)
            way = plan(connection, wanted, with_images=True, limit=limit)
            query = (
                select(outputs.c.job_id, outputs.c.index)
                .select_from(way.rows.join(outputs, outputs.c.job_id == jobs.c.id))
                .where(
                    *_conditions(way, wanted),
                    *images_wanted(wanted),
                    jobs.c.number >= number,
                    way.number >= number,
                    or_(way.number > number, outputs.c.index < index),
                )
                .order_by(way.number, outputs.c.index.desc())
                .limit(limit)
            )
            return [f"{row.job_id}.{row.index}" for row in connection.execute(query)]

    def output(self, output_id: str) -> SearchHit:
        """Return one output with its whole job; raises NotFound."""
        try:
            job_id, index = parse_numbered_id(output_id)
        except ValueError:
            raise NotFound(f"There is no output {output_id}.") from None
        one = select(outputs).where(outputs.c.job_id == job_id, outputs.c.index == index)
        with self.database.read() as connection:
            output = connection.execute(one).mappings().one_or_none()
            job = connection.execute(select(jobs).where(jobs.c.id == job_id)).mappings().one_or_none()
        if output is None or job is None:
            raise NotFound(f"There is no output {output_id}.")
        return SearchHit(Output(**output), to_job(job))

    def deliveries(self, job_id: str, *, limit: int = MOST_DELIVERIES) -> list[Delivery]:
        """Return the newest callbacks of a job and those that decided it, oldest first, without bodies."""
        with self.database.read() as connection:
            return newest_of_job(connection, job_id, limit)

    def outputs_of(self, job_ids: Sequence[str]) -> dict[str, list[Output]]:
        """Return the outputs of some jobs by index, for each job."""
        query = select(outputs).where(outputs.c.job_id.in_(job_ids))
        found: dict[str, list[Output]] = {job_id: [] for job_id in job_ids}
        with self.database.read() as connection:
            for row in connection.execute(query.order_by(outputs.c.job_id, outputs.c.index)).mappings():
                found[row["job_id"]].append(Output(**row))
        return found


def _page(rows: list[Row], limit: int, ids: list[str]) -> Page[Row]:
    return Page(rows[:limit], ids[limit - 1] if len(rows) > limit else None)


def _jobs(columns: Sequence[ColumnElement[Any]], way: IndexPlan, wanted: SearchFilter) -> Any:
    rows = select(*columns).select_from(way.rows).where(*_conditions(way, wanted))
    return rows.order_by(way.number.desc())


def _conditions(way: IndexPlan, wanted: SearchFilter) -> where.Conditions:
    return [*way.conditions, *where.of_jobs(wanted), *way.within(wanted)]


def images_wanted(wanted: SearchFilter) -> where.Conditions:
    """Return the conditions on an output, given its job."""
    return [*where.of_images(wanted), *where.of_seed(wanted, with_images=True)]


def _having(images: where.Conditions) -> ColumnElement[bool]:
    """Return the condition that a job has an output that matches."""
    return exists().where(outputs.c.job_id == jobs.c.id, *images).correlate(jobs)


def _images(
    connection: Connection, made: Sequence[Job], images: where.Conditions, limit: int
) -> list[SearchHit]:
    by_id = {job.id: job for job in made}
    query = select(outputs).join_from(outputs, jobs).where(outputs.c.job_id.in_(by_id), *images)
    query = query.order_by(jobs.c.number.desc(), outputs.c.index).limit(limit)
    rows = [Output(**row) for row in connection.execute(query).mappings()]
    return [SearchHit(output, by_id[output.job_id]) for output in rows]


def _not_before(cursor: str | None) -> where.Conditions:
    if cursor is None:
        return []
    job_id, index = parse_numbered_id(cursor)
    return [or_(outputs.c.job_id != job_id, outputs.c.index > index)]


def _number(connection: Connection, job_id: str) -> int:
    number = connection.scalar(select(jobs.c.number).where(jobs.c.id == job_id))
    if number is None:
        raise NotFound(
            f"There is no job {job_id}, so no page comes after it. Leave the cursor out to begin with the "
            "first page."
        )
    return int(number)


def _behind(way: IndexPlan, number: int, cursor: str, images: where.Conditions) -> where.Conditions:
    job_id, index = parse_numbered_id(cursor)
    more = exists().where(outputs.c.job_id == job_id, outputs.c.index > index, *images).correlate(jobs)
    # Of both numbers, as a database may go through either: through all that are newer, without.
    return [jobs.c.number <= number, way.number <= number, or_(way.number < number, more)]
