"""`darkroom retry`: put failed and partial jobs back to work, one by one or by what they have in common."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli import completion, options
from receiver.cli.connection import LOCAL, Json, Token, Url, connected
from receiver.cli.console import (
    FAILED,
    MISUSED,
    Column,
    api_json,
    cell,
    count,
    err,
    fail,
    print_json,
    print_table,
    say,
    status_cell,
)
from receiver.cli.jobs import filters

if TYPE_CHECKING:
    from receiver.client import ApiError, Darkroom
    from receiver.client.models import Job

RETRIED = ("failed", "partial")
SHOWN = 20

JobIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="JOB",
        help="Ids of jobs; or give filters instead.",
        show_default=False,
        autocompletion=completion.failed_jobs,
    ),
]
FailedStatus = Annotated[
    str | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="failed or partial; without it, both.",
        autocompletion=completion.retried,
        rich_help_panel=options.FILTERS,
        show_default=False,
    ),
]
Resubmit = Annotated[
    bool,
    typer.Option(
        "--resubmit", help="Submit them again as new work for the gateway, which may be charged again."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only show which jobs it would be, and change nothing.")
]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask before jobs that filters found are retried.")
]

_COLUMNS = (
    Column("JOB"),
    Column("STATUS"),
    Column("GATEWAY", room=100),
    Column("ERROR"),
    Column("WHY", long=True),
)


@dataclass(slots=True)
class _Done:
    """What came of the jobs so far."""

    jobs: list[Job] = field(default_factory=list)
    refused: dict[str, ApiError] = field(default_factory=dict)


def retry(
    ids: JobIds = None,
    *,
    status: FailedStatus = None,
    code: options.Code = None,
    gateway: options.Gateway = None,
    model: options.Model = None,
    text: options.Words = None,
    since: options.Since = None,
    until: options.Until = None,
    tag: options.Tags = None,
    resubmit: Resubmit = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
    url: Url = LOCAL,
    token: Token = None,
) -> None:
    """Put failed and partial jobs back to work, where that costs nothing.

    The gateway is asked for the result again, which costs nothing, and the
    images that are missing are downloaded. A job that the gateway itself
    failed, or that it never took, is refused: only --resubmit can help it,
    and without that nothing is submitted again.

    Jobs that filters find are shown first, and you are asked.
    Ends with 1 if any job was refused.
    """
    wanted = filters(
        gateway=gateway, model=model, status=status, code=code, since=since, until=until, q=text, tag=tag
    )
    if bool(ids) == bool(wanted):
        fail("Say which jobs: by their ids, or by filters such as --status failed --since 1d.", MISUSED)
    if status is not None and status not in RETRIED:
        fail(f"--status {status}: only failed and partial jobs can be retried.", MISUSED)
    with connected(url, token) as darkroom:
        jobs = [darkroom.job(one) for one in ids] if ids else _find(darkroom, wanted)
        if wanted or dry_run:
            _preview(jobs, resubmit=resubmit)
        if dry_run or not jobs:
            if as_json:
                _print(jobs, {})
            return
        if wanted and not yes:
            _ask(len(jobs), resubmit=resubmit)
        done = _Done()
        try:
            _retry(darkroom, jobs, done, resubmit=resubmit)
        except KeyboardInterrupt:
            told = f"{len(done.jobs)} of {count(len(jobs), 'job')} are back at work, the rest as before."
            say(f"Stopped: {told}")
            raise typer.Exit(130) from None
    _report(done, as_json=as_json)


def _find(darkroom: Darkroom, wanted: Mapping[str, str]) -> list[Job]:
    statuses = [wanted["status"]] if "status" in wanted else RETRIED
    return [job for status in statuses for job in darkroom.jobs(limit=None, **{**wanted, "status": status})]


def _preview(jobs: Sequence[Job], *, resubmit: bool) -> None:
    shown = [
        (
            cell(job.id),
            status_cell(job.status),
            cell(job.gateway),
            cell(job.error.code if job.error else None),
            cell(job.error.message if job.error else None),
        )
        for job in jobs[:SHOWN]
    ]
    print_table(_COLUMNS, shown, nothing="There are no such jobs that failed or are partial.", to=err())
    if len(jobs) > SHOWN:
        say(f"... and {len(jobs) - SHOWN} more.", "dim")
    if jobs:
        codes = Counter(job.error.code if job.error else "none" for job in jobs)
        reasons = ", ".join(f"{number} {code}" for code, number in codes.most_common())
        how = " They would be submitted again, which may be charged again." if resubmit else ""
        say(f"{count(len(jobs), 'job')}: {reasons}.{how}")


def _ask(number: int, *, resubmit: bool) -> None:
    if not sys.stdin.isatty():
        fail("Nobody is here to ask; give --yes to go on, or --dry-run to look only.", MISUSED)
    what = "Submit again" if resubmit else "Retry"
    if not typer.confirm(f"{what} {'this job' if number == 1 else f'these {number} jobs'}?", err=True):
        say("Nothing was changed.")
        raise typer.Exit


def _retry(darkroom: Darkroom, jobs: Sequence[Job], done: _Done, *, resubmit: bool) -> None:
    from rich.progress import track

    from receiver.client import ApiError

    console = err()
    for job in track(
        jobs,
        "Retrying",
        console=console,
        transient=True,
        disable=not console.is_terminal or len(jobs) < 2,
    ):
        try:
            done.jobs.append(darkroom.retry(job.id, resubmit=resubmit))
        except ApiError as error:
            # A job that cannot be retried says nothing of the others; a token that is refused does.
            if error.status not in {404, 409}:
                raise
            done.refused[job.id] = error


def _report(done: _Done, *, as_json: bool) -> None:
    if as_json:
        _print(done.jobs, done.refused)
    if done.jobs:
        say(f"{count(len(done.jobs), 'job')} back at work. Follow: darkroom jobs")
    for job_id, error in list(done.refused.items())[:SHOWN]:
        say(f"{job_id}: {error.detail}", "yellow")
    if any(error.code == "needs_resubmit" for error in done.refused.values()):
        say("--resubmit sends such jobs to the gateway again, which may be charged again.")
    if done.refused:
        say(f"{count(len(done.refused), 'job')} not retried.", "red")
        raise typer.Exit(FAILED)


def _print(jobs: Sequence[Job], refused: Mapping[str, ApiError]) -> None:
    why = [{"id": job_id, "code": error.code, "detail": error.detail} for job_id, error in refused.items()]
    print_json({"jobs": [api_json(job) for job in jobs], "refused": why})
