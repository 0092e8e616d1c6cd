"""`darkroom jobs`: list jobs, or follow them with --watch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from rich.text import Text

from receiver.cli import options
from receiver.cli.connection import Connection, Json
from receiver.cli.console import (
    Column,
    cell,
    made_table,
    out,
    print_json,
    print_table,
    say_if_cut,
    status_cell,
)

if TYPE_CHECKING:
    from receiver.schemas.job import Job

Watch = Annotated[
    bool,
    options.option("Follow them until Ctrl-C; into a pipe, print a line per change.", None, "--watch", "-w"),
]
UntilDone = Annotated[
    bool,
    options.option(
        "Follow until all are finished; exit with 1 unless all are archived.", None, "--until-done"
    ),
]

_COLUMNS = (
    Column("JOB"),
    Column("STATUS"),
    Column("GATEWAY", room=100),
    Column("MODEL", room=100),
    Column("IMAGES", room=90, right=True),
    Column("ERROR", room=120),
    Column("PROMPT", long=True),
    Column("CREATED", room=150),
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
                lambda found: made_table(_COLUMNS, [_line(job) for job in found], console),
                until_done=until_done,
                as_json=as_json,
            )
            return
        found = list(darkroom.jobs(limit=limit, **wanted))
    if as_json:
        print_json(found)
        return
    print_table(_COLUMNS, [_line(job) for job in found], nothing="No jobs match.")
    say_if_cut(len(found), limit)


def _line(job: Job) -> Sequence[Text]:
    return (
        cell(job.id),
        status_cell(job.status),
        cell(job.gateway),
        cell(job.result.model or job.request.model),
        cell(len(job.outputs)),
        cell(job.error.code if job.error else None),
        cell(job.request.prompt),
        cell(job.created_at),
    )
