"""`darkroom cancel`: cancel jobs that were not sent yet, by id or by filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from receiver.cli import bulk, completion, options
from receiver.cli.connection import Connection, Json
from receiver.cli.console import MISUSED, Column, fail, status_cell

if TYPE_CHECKING:
    from receiver.schemas.job import Job

JobIds = Annotated[
    list[str] | None,
    options.argument("JOB", "Ids of jobs; or give filters instead.", autocompletion=completion.queued_jobs),
]

_COLUMNS: Sequence[Column[Job]] = (
    Column("JOB", lambda job: job.id),
    Column("STATUS", lambda job: status_cell(job.status)),
    Column("GATEWAY", lambda job: job.gateway, room=100),
    Column("PROMPT", lambda job: job.request.prompt, long=True),
)


@dataclass(frozen=True)
class Filters(options.JobFilters):
    """The filters of jobs that can be cancelled."""

    status: Annotated[str | None, options.filter_by("queued, which is the default.", "STATUS")] = None


def cancel(
    ids: JobIds = None,
    *,
    filters: Filters,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Cancel jobs that were not sent to their gateway yet; they cost nothing.

    A job that its gateway has is cancelled there, if the gateway can, and goes
    on until it says so. Otherwise it is refused, and what is paid for is archived.

    Jobs found by filters are listed first, and you are asked to confirm.
    Exits with 1 if any job was refused.
    """
    wanted = filters.query()
    if bool(ids) == bool(wanted):
        fail("Say which jobs: give ids, or filters such as --gateway apiframe --since 1h.", MISUSED)
    if filters.status not in {None, "queued"}:
        fail(f"--status {filters.status}: only queued jobs can be cancelled.", MISUSED)
    with connection.open() as darkroom:
        queued = {**wanted, "status": "queued"}
        jobs = [darkroom.job(one) for one in ids] if ids else list(darkroom.jobs(limit=None, **queued))
        if wanted or dry_run:
            bulk.preview(_COLUMNS, jobs, nothing="No queued jobs match.")
            bulk.summarize("job", [job.gateway for job in jobs])
        if dry_run or not jobs:
            if as_json:
                bulk.Outcome("job", jobs).print_json()
            return
        if wanted and not yes:
            bulk.confirm("Cancel {}?", len(jobs), "job")
        outcome = bulk.change([job.id for job in jobs], darkroom.cancel, noun="job", skip={404, 409})
    if as_json:
        outcome.print_json()
    outcome.report(doing="Cancelled {}.", undone="Not cancelled")
