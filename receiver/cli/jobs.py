"""`darkroom jobs`: list jobs, or follow them with --watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from receiver.cli import options
from receiver.cli.connection import Connection, Json
from receiver.cli.console import Column, made_table, out, print_json, print_table, say_if_cut, status_cell

if TYPE_CHECKING:
    from receiver.schemas.job import Job

Watch = Annotated[
    bool, options.flag("Follow them until Ctrl-C; into a pipe, print a line per change.", "--watch", "-w")
]
UntilDone = Annotated[
    bool, options.flag("Follow until all are finished; exit with 1 unless all are archived.", "--until-done")
]


def _images(job: Job) -> str | int:
    """Return the number of a job's images; with that of the requested ones where fewer were returned."""
    from receiver.schemas.job import shortfall

    number, requested = len(job.outputs), job.request.num_images
    return f"{number} of {requested}" if requested and shortfall(job) else number


_COLUMNS: Sequence[Column[Job]] = (
    Column("JOB", lambda job: job.id),
    Column("STATUS", lambda job: status_cell(job.status)),
    Column("GATEWAY", lambda job: job.gateway, room=100),
    Column("MODEL", lambda job: job.result.model or job.request.model, room=100),
    Column("IMAGES", _images, room=90, right=True),
    Column("ERROR", lambda job: job.error and job.error.code, room=120),
    Column("PROMPT", lambda job: job.request.prompt, long=True),
    Column("CREATED", lambda job: job.created_at, room=150),
)


def jobs(
    *,
    filters: options.JobFilters,
    limit: options.Limit = 20,
    watching: Watch = False,
    until_done: UntilDone = False,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """List jobs, newest first; with --watch, follow their progress."""
    wanted = filters.query()
    with connection.open() as darkroom:
        if watching or until_done:
            from receiver.cli.watch import watch

            console = out()
            watch(
                darkroom,
                lambda: list(darkroom.jobs(limit=limit, **wanted)),
                lambda found: made_table(_COLUMNS, found, console),
                until_done=until_done,
                as_json=as_json,
            )
            return
        found = list(darkroom.jobs(limit=limit, **wanted))
    if as_json:
        print_json(found)
        return
    print_table(_COLUMNS, found, nothing="No jobs match.")
    say_if_cut(len(found), limit)
