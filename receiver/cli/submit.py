"""`darkroom submit`: submit one prompt, or a file of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import typer

from receiver.cli import console, options
from receiver.cli.batch_input import BadInput, Row, check, flat, merge, nested, read_file
from receiver.cli.connection import Connection, Json, described

if TYPE_CHECKING:
    from rich.progress import Progress

    from receiver.client import Darkroom
    from receiver.schemas.job import Job


@dataclass(slots=True)
class _Sent:
    """What was submitted so far, in the order of the rows."""

    rows: Sequence[Row]
    jobs: dict[int, Job] = field(default_factory=dict)
    """By the number of their row, from 0."""
    faults: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)
    """Images that are archived but could not be saved here, with the reasons."""
    begun: int = 0
    """How many rows were sent, including the one in flight."""
    answered: int = 0


def submit(
    prompt: options.Prompt = None,
    *,
    file: options.File = None,
    request: options.JobRequest,
    wait: options.Wait = False,
    timeout: options.Timeout = 600,
    download: options.DownloadTo = None,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Submit a prompt, or a file of prompts, to a gateway."""
    if (prompt is None) == (file is None):
        console.fail("Give a prompt, or --file with a .csv or .jsonl file.", console.MISUSED)
    if file is not None and request.idempotency_key is not None:
        console.fail("With --file, give each row its own key in a column idempotency_key.", console.MISUSED)
    try:
        rows = _rows(_fields(prompt, request), file)
    except BadInput as error:
        console.fail(
            f"Nothing was submitted. Fix this{f' in {file}' if file else ''}:\n{error}", console.MISUSED
        )
    sent = _Sent(rows)
    with connection.open() as darkroom:
        _run(darkroom, sent, wait_s=timeout if wait or download else None, folder=download)
    _report(sent, waited=wait or download is not None, many=file is not None, as_json=as_json)


def _fields(prompt: str | None, request: options.JobRequest) -> dict[str, Any]:
    """Return the fields of a job that the command line gives, as `Darkroom.submit` takes them."""
    given = vars(request) | {
        "prompt": prompt,
        "params": nested(request.param or [], "--param"),
        "tags": flat(request.tag or [], "--tag"),
        "unsupported": "ignore" if request.ignore_unsupported else "refuse",
    }
    options_only = {"param", "tag", "ignore_unsupported"}
    return {name: value for name, value in given.items() if value is not None and name not in options_only}


def _rows(asked: Mapping[str, Any], file: str | None) -> list[Row]:
    if file is None:
        missing = [name for name in ("gateway", "model") if name not in asked]
        if missing:
            raise BadInput("\n".join(f"--{name} is missing" for name in missing))
        return [Row(1, asked)]
    rows = merge(asked, read_file(file))
    if not rows:
        raise BadInput("the file has no rows")
    check(rows)
    return rows


def _run(darkroom: Darkroom, sent: _Sent, *, wait_s: float | None, folder: Path | None) -> None:
    from receiver.client import ClientError

    try:
        with console.progress(quiet=len(sent.rows) < 2 and wait_s is None) as bar:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            _send(darkroom, sent, bar)
            if wait_s is not None:
                _wait(darkroom, sent, bar, monotonic() + wait_s)
        if folder is not None:
            _download(darkroom, sent, folder)
    except (KeyboardInterrupt, ClientError, OSError) as error:
        _say_what_was_sent(sent)
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(console.STOPPED) from None
        if isinstance(error, OSError):
            console.fail(f"--download {folder}: {error.strerror or error}")
        raise


def _send(darkroom: Darkroom, sent: _Sent, bar: Progress) -> None:
    from receiver.client import ApiError

    task = bar.add_task("Submitting", total=len(sent.rows))
    for number, row in enumerate(sent.rows):
        sent.begun = number + 1
        try:
            sent.jobs[number] = darkroom.submit(**row.fields)
        except ApiError as error:
            sent.answered = number + 1
            # A row that is refused says nothing about the others; a token that is refused does.
            if len(sent.rows) == 1 or not (error.faults or error.status == 409):
                raise
            sent.faults.append(f"line {row.line}: {described(error)}")
        sent.answered = number + 1
        bar.advance(task)


def _wait(darkroom: Darkroom, sent: _Sent, bar: Progress, deadline: float) -> None:
    task = bar.add_task("Finishing ", total=len(sent.jobs))
    for number, job in sent.jobs.items():
        sent.jobs[number] = darkroom.wait(job.id, timeout_s=max(0.0, deadline - monotonic()))
        bar.advance(task)


def _download(darkroom: Darkroom, sent: _Sent, folder: Path) -> None:
    from receiver.cli.save_images import Saving

    outputs = [output for job in sent.jobs.values() if job.outputs for output in darkroom.search(job=job.id)]
    saving = Saving(darkroom, folder)
    try:
        saving.run(outputs)
    finally:
        sent.files += [one.path for one in saving.saved]
    sent.unsaved += [f"{one.output.id}: {one.why}" for one in saving.failed]


def _say_refused(sent: _Sent) -> None:
    if sent.faults:
        console.say("\n".join(["Refused:", *sent.faults]), "red")


def _say_what_was_sent(sent: _Sent) -> None:
    if not sent.begun:
        return
    many = len(sent.rows) > 1
    if sent.jobs:
        rows = console.count(len(sent.rows), "job")
        console.say(f"{len(sent.jobs)} of {rows} submitted; Darkroom is working on them:")
    for number, job in sent.jobs.items():
        console.say(f"  line {sent.rows[number].line}: {job.id}" if many else f"  {job.id}")
    _say_refused(sent)
    if sent.begun > sent.answered:
        what = f"Line {sent.rows[sent.answered].line}" if many else "The job"
        console.say(
            f"{what} may or may not have been submitted. Before you send it again, check with: darkroom jobs"
        )
    if sent.begun < len(sent.rows):
        console.say(f"Not submitted: line {sent.rows[sent.begun].line} and after.")


_COLUMNS: Sequence[console.Column[Job]] = (
    console.Column("JOB", lambda job: job.id),
    console.Column("STATUS", lambda job: console.status_cell(job.status)),
    console.Column("GATEWAY", lambda job: job.gateway, room=100),
    console.Column("MODEL", lambda job: job.result.model or job.request.model),
    console.Column("IMAGES", lambda job: len(job.outputs) if job.finished else None, right=True),
    console.Column(
        "SEED", lambda job: job.request.seed if job.result.seed is None else job.result.seed, room=90
    ),
    console.Column("ERROR", lambda job: job.error and f"{job.error.code}: {job.error.message}", long=True),
)


def _report(sent: _Sent, *, waited: bool, many: bool, as_json: bool) -> None:
    jobs = list(sent.jobs.values())
    if as_json:
        console.print_json(jobs if many else jobs[0])
    else:
        console.print_table(_COLUMNS, jobs, nothing="Nothing was submitted.")
        if sent.files:
            console.say(f"Saved {console.count(len(sent.files), 'image')} in {sent.files[0].parent}")
        elif not waited:
            command = f"show {jobs[0].id}" if len(jobs) == 1 else "jobs --watch"
            console.say(f"See progress with: darkroom {command}")
    _say_refused(sent)
    if sent.unsaved:
        console.say("\n".join(["Archived, but not saved here:", *sent.unsaved]), "red")
    unfinished = sum(not job.finished for job in jobs) if waited else 0
    if unfinished:
        late = console.count(unfinished, "job")
        console.say(f"Time is up: {late} not finished yet. Darkroom keeps working.", "yellow")
    if sent.faults or sent.unsaved or (waited and any(job.status != "archived" for job in jobs)):
        raise typer.Exit(console.FAILED)
