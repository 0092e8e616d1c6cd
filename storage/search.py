"""Every read that pages: jobs and outputs, newest first, by what made them.

Pages are cut by key, not by offset, so that a page costs the same however deep it lies and nothing is
skipped or repeated while new jobs arrive. A cursor is the id of the last row that was answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, and_, or_, select

from storage.database import Database
from storage.errors import NotFound
from storage.records import Job, Output, Status
from storage.rows import to_job, to_output
from storage.schema import jobs, outputs


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for; every condition given must hold.

    `text`: each word must stand somewhere in the prompt, in any case. `seed` is found whether it was asked
    for or reported. `model` likewise. `sha256` may be the beginning of a digest.
    """

    job: str | None = None
    gateway: str | None = None
    model: str | None = None
    seed: str | None = None
    text: str | None = None
    status: Status | None = None
    sha256: str | None = None
    code: str | None = None
    """Of the job's error."""
    since: int | None = None
    """The job was taken in then or later; milliseconds since 1970, as is `until`."""
    until: int | None = None
    """The job was taken in before then."""
    tags: Mapping[str, str] = field(default_factory=dict)


Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows, and the cursor that asks for the next ones; None on the last page."""

    rows: Sequence[Row]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """An output together with the job that made it."""

    output: Output
    job: Job


class Search:
    """Reads pages of the ledger. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def jobs(self, wanted: Wanted, *, limit: int, cursor: str | None = None) -> Page[Job]:
        """List jobs, newest first."""
        query = select(jobs).where(*_job_conditions(wanted)).order_by(jobs.c.id.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(jobs.c.id < cursor)
        with self._database.read() as connection:
            rows = [to_job(row) for row in connection.execute(query).mappings()]
        return _page(rows, limit, [job.id for job in rows])

    def outputs(self, wanted: Wanted, *, limit: int, cursor: str | None = None) -> Page[Found]:
        """List outputs, those of the newest job first. Raises ValueError if the cursor is not one of ours."""
        query = _found().where(*_job_conditions(wanted), *_output_conditions(wanted)).limit(limit + 1)
        if cursor is not None:
            job_id, index = parse_output_id(cursor)
            after = and_(outputs.c.job_id == job_id, outputs.c.index > index)
            query = query.where(or_(outputs.c.job_id < job_id, after))
        found = self._run(query)
        return _page(found, limit, [one.output.id for one in found])

    def output(self, output_id: str) -> Found:
        """Read one output; raise NotFound."""
        try:
            job_id, index = parse_output_id(output_id)
        except ValueError:
            raise NotFound(f"There is no output {output_id}.") from None
        found = self._run(_found().where(outputs.c.job_id == job_id, outputs.c.index == index))
        if not found:
            raise NotFound(f"There is no output {output_id}.")
        return found[0]

    def output_ids(self, job_ids: Sequence[str]) -> dict[str, list[str]]:
        """List the ids of the outputs of some jobs, by job."""
        columns = select(outputs.c.job_id, outputs.c.index).where(outputs.c.job_id.in_(job_ids))
        ids: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
        with self._database.read() as connection:
            for job_id, index in connection.execute(columns.order_by(outputs.c.job_id, outputs.c.index)):
                ids[job_id].append(f"{job_id}.{index}")
        return ids

    def _run(self, query: Any) -> list[Found]:
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Found(to_output(_part(row, outputs)), to_job(_part(row, jobs))) for row in rows]


def parse_output_id(output_id: str) -> tuple[str, int]:
    """Take `<job id>.<index>` apart; raise ValueError if it is not that."""
    job_id, _, index = output_id.rpartition(".")
    if not job_id or not index.isascii() or not index.isdigit() or len(index) > 6:
        raise ValueError("not an output id")
    return job_id, int(index)


def _page(rows: list[Row], limit: int, ids: list[str]) -> Page[Row]:
    more = len(rows) > limit
    return Page(rows[:limit], ids[limit - 1] if more else None)


def _found() -> Any:
    joined = select(outputs, jobs).join_from(outputs, jobs)
    return joined.order_by(outputs.c.job_id.desc(), outputs.c.index)


def _part(row: Any, table: Any) -> Any:
    return {column.name: row._mapping[column] for column in table.c}


def _job_conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    words = (wanted.text or "").casefold().split()
    conditions = [jobs.c.prompt_folded.contains(word, autoescape=True) for word in words]
    conditions += [jobs.c.tags[name].as_string() == value for name, value in wanted.tags.items()]
    if wanted.job is not None:
        conditions.append(jobs.c.id == wanted.job)
    if wanted.gateway is not None:
        conditions.append(jobs.c.gateway == wanted.gateway)
    if wanted.model is not None:
        conditions.append(or_(jobs.c.model == wanted.model, jobs.c.result_model == wanted.model))
    if wanted.status is not None:
        conditions.append(jobs.c.status == wanted.status)
    if wanted.code is not None:
        conditions.append(jobs.c.error_code == wanted.code)
    if wanted.since is not None:
        conditions.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(jobs.c.created_at < wanted.until)
    return conditions


def _output_conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.seed is not None:
        asked, reported = jobs.c.seed == wanted.seed, jobs.c.result_seed == wanted.seed
        conditions.append(or_(outputs.c.seed == wanted.seed, asked, reported))
    if wanted.sha256 is not None:
        conditions.append(outputs.c.sha256.startswith(wanted.sha256.lower(), autoescape=True))
    return conditions
