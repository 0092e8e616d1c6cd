"""`darkroom jobs` and `status`: what there is; and how filters and outputs are read and shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from receiver.cli import options
from receiver.cli.batch_input import BadInput, flat
from receiver.cli.connection import LOCAL, Json, Token, Url, connected
from receiver.cli.console import (
    FAILED,
    MISUSED,
    Column,
    api_json,
    cell,
    count,
    fail,
    made_table,
    out,
    print_json,
    print_table,
    say,
    status_cell,
)

if TYPE_CHECKING:
    from receiver.client.models import Job
    from receiver.client.reports import Page, ServiceStatus

Limit = Annotated[int, typer.Option(min=1, metavar="N", help="How many to show at most.")]

Watch = Annotated[
    bool,
    typer.Option("--watch", "-w", help="Follow them until Ctrl-C; into a pipe, one line for each change."),
]
UntilDone = Annotated[
    bool,
    typer.Option(
        "--until-done", help="Follow them until all that are shown have ended; 1 unless all are archived."
    ),
]

_JOBS = (
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
    gateway: options.Gateway = None,
    model: options.Model = None,
    status: options.Status = None,
    text: options.Words = None,
    code: options.Code = None,
    since: options.Since = None,
    until: options.Until = None,
    tag: options.Tags = None,
    limit: Limit = 20,
    watching: Watch = False,
    until_done: UntilDone = False,
    as_json: Json = False,
    url: Url = LOCAL,
    token: Token = None,
) -> None:
    """List jobs, newest first; with --watch, go on showing how they get on."""
    wanted = filters(
        gateway=gateway, model=model, status=status, code=code, since=since, until=until, q=text, tag=tag
    )
    with connected(url, token) as darkroom:
        if watching or until_done:
            from receiver.cli.watch import watch

            console = out()
            watch(
                darkroom,
                lambda: list(darkroom.jobs(limit=limit, **wanted)),
                lambda found: made_table(_JOBS, [_job_line(job) for job in found], console),
                until_done=until_done,
                as_json=as_json,
            )
            return
        found = list(darkroom.jobs(limit=limit, **wanted))
    if as_json:
        print_json([api_json(job) for job in found])
        return
    print_table(_JOBS, [_job_line(job) for job in found], nothing="There are no such jobs.")
    say_if_cut(len(found), limit)


def status(*, as_json: Json = False, url: Url = LOCAL, token: Token = None) -> None:
    """Show how many jobs were accepted and where each of them is.

    Names the gateways and image hosts that are left alone for now, and why.
    Exits with 1 if not every accepted job is accounted for, which means that a job was lost.
    """
    with connected(url, token) as darkroom:
        found = darkroom.status()
        circuits = darkroom.gateways().circuits
    if as_json:
        print_json(api_json(found))
    else:
        print_status(found)
        for circuit in circuits:
            if circuit.state != "closed":
                say(f"{circuit.name} is left alone for now ({circuit.code}): {circuit.message}", "yellow")
    if not found.total.balanced:
        raise typer.Exit(FAILED)


def print_status(found: ServiceStatus) -> None:
    """Print job counts by gateway, and whether every accepted job is accounted for."""
    pages = {**found.gateways, "total": found.total}
    columns = (Column("JOBS"), *(Column(name, right=True) for name in pages))
    print_table(columns, _page_lines(list(pages.values())), nothing="")
    out().print(Text(_verdict(found.total), "green" if found.total.balanced else "bold red"))


def filters(*, tag: Sequence[str] | None, **filters: str | None) -> dict[str, str]:
    """The filters that were given, as the client takes them; ends with a message if a tag is malformed."""
    try:
        tags = flat(tag or [], "--tag")
    except BadInput as error:
        fail(str(error), MISUSED)
    given = {name: value for name, value in filters.items() if value is not None}
    return given | {f"tag.{name}": value for name, value in tags.items()}


def _job_line(job: Job) -> Sequence[Text]:
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


def _page_lines(pages: Sequence[Page]) -> Iterator[Sequence[Text]]:
    for status in pages[0].counts:
        yield status_cell(status), *(cell(page.counts[status]) for page in pages)
    yield cell("accepted", "bold"), *(cell(page.accepted, "bold") for page in pages)


def _verdict(total: Page) -> str:
    there = sum(total.counts.values())
    if not total.balanced:
        return f"NOT every accepted job is accounted for: {total.accepted} accepted, but {there} found."
    text = f"Every accepted job is accounted for: {count(total.accepted, 'job')}."
    if total.found_by_polling:
        text += f" Callbacks missed {total.found_by_polling}, which polling found."
    if total.oldest_unfinished_age_s is not None:
        text += f" The oldest unfinished one is {total.oldest_unfinished_age_s:.0f} s old."
    return text


def say_if_cut(shown: int, limit: int) -> None:
    """Say that there may be more than what is shown."""
    if shown == limit:
        say(f"These are the newest {limit}; --limit shows more.", "dim")
