"""`darkroom retry`: retry failed, partial and cancelled jobs, by id or by filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from receiver.cli import bulk, completion, options
from receiver.cli.connection import Connection, Json
from receiver.cli.console import MISUSED, Column, fail, status_cell

if TYPE_CHECKING:
    from receiver.client import Darkroom
    from receiver.schemas.job import Job

RETRIED = ("failed", "partial")
"""The statuses that filters find unless --status says otherwise: nobody wanted the cancelled ones."""

JobIds = Annotated[
    list[str] | None,
    options.argument("JOB", "Ids of jobs; or give filters instead.", autocompletion=completion.failed_jobs),
]
Resubmit = Annotated[
    bool, options.flag("Submit the jobs again as new work, which may be charged again.", "--resubmit")
]

_COLUMNS: Sequence[Column[Job]] = (
    Column("JOB", lambda job: job.id),
    Column("STATUS", lambda job: status_cell(job.status)),
    Column("GATEWAY", lambda job: job.gateway, room=100),
    Column("ERROR", lambda job: job.error and job.error.code),
    Column("REASON", lambda job: job.error and job.error.message, wrapped=True),
)


@dataclass(frozen=True)
class Filters(options.JobFilters):
    """The filters of jobs that can be retried."""

    status: Annotated[
        str | None,
        options.filter_by(
            "failed, partial or cancelled; by default failed and partial.",
            "STATUS",
            "--status",
            autocompletion=completion.retried,
        ),
    ] = None


def retry(
    ids: JobIds = None,
    *,
    filters: Filters,
    resubmit: Resubmit = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Retry failed, partial and cancelled jobs, which costs nothing.

    Darkroom asks the gateway for the result again and downloads the missing
    images; also those of an archived job, given by its id, that are no longer
    in the bucket. A job that the gateway itself failed, or never had, is
    refused: for such a job use --resubmit, which may be charged again.

    Jobs found by filters are listed first, and you are asked to confirm.
    Exits with 1 if any job was refused.
    """
    wanted = filters.query()
    if bool(ids) == bool(wanted):
        fail("Say which jobs: give ids, or filters such as --status failed --since 1d.", MISUSED)
    if filters.status not in {None, "cancelled", *RETRIED}:
        fail(f"--status {filters.status}: only failed, partial and cancelled jobs can be retried.", MISUSED)
    with connection.open() as darkroom:
        jobs = [darkroom.job(one) for one in ids] if ids else _find(darkroom, wanted)
        if wanted or dry_run:
            bulk.preview(_COLUMNS, jobs, nothing="No failed or partial jobs match.")
            charged = " Submitting them again may be charged again." if resubmit else ""
            bulk.summarize("job", [job.error.code if job.error else "no error" for job in jobs], charged)
        if dry_run or not jobs:
            if as_json:
                bulk.Outcome("job", jobs).print_json()
            return
        if wanted and not yes:
            bulk.confirm("Submit {} again?" if resubmit else "Retry {}?", len(jobs), "job")
        # A job that cannot be retried says nothing about the others; a token that is refused does.
        outcome = bulk.change(
            [job.id for job in jobs],
            lambda id_: darkroom.retry(id_, resubmit=resubmit),
            noun="job",
            skip={404, 409},
        )
    if as_json:
        outcome.print_json()
    codes = {error.code for error in outcome.refused.values()}
    hint = "Fix: add --resubmit to submit them again, which may be charged again."
    outcome.report(
        doing="Retrying {}. See progress with: darkroom jobs --watch",
        undone="Not retried",
        hint=hint if "needs_resubmit" in codes else "",
    )


def _find(darkroom: Darkroom, wanted: Mapping[str, str]) -> list[Job]:
    statuses = [wanted["status"]] if "status" in wanted else RETRIED
    return [job for status in statuses for job in darkroom.jobs(limit=None, **{**wanted, "status": status})]
