"""`darkroom submit`: submit one prompt, or a file of prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from receiver.cli import console, options
from receiver.cli.batch import Batch, keyed
from receiver.cli.batch_input import merge, read_bytes, read_rows
from receiver.cli.connection import Connection, Json
from receiver.cli.csv_rows import number
from receiver.cli.pairs import BadInput, flat, nested
from receiver.cli.rows import Row

if TYPE_CHECKING:
    from rich.progress import Progress

    from receiver.client import Darkroom
    from receiver.schemas.job import Job

LOOK_S = 2.0
"""Seconds between two looks at all unfinished jobs."""
FEW = 10
"""So many unfinished jobs are looked at one by one, and more in a list."""


@dataclass(slots=True)
class _Run:
    """One run of the command: what to do, and what was done."""

    batch: Batch
    file: str | None
    wait_s: float | None
    folder: Path | None
    saved: list[Path] = field(default_factory=list)
    unsaved: list[str] = field(default_factory=list)
    """Images that are archived but could not be saved here, with the reasons."""
    begun: bool = False
    """Whether anything was sent that may submit a job."""


def submit(
    prompt: options.Prompt = None,
    *,
    file: options.File = None,
    again: options.Again = None,
    ignore_unknown: options.IgnoreUnknown = False,
    request: options.JobRequest,
    wait: options.Wait = False,
    timeout: options.Timeout = 600,
    download: options.DownloadTo = None,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Submit a prompt, or a file of prompts, to a gateway.

    All rows of a file are checked before the first is submitted. If the
    command is cut off, run it again: it goes on where it stopped, and no row
    is submitted twice. To Darkroom it is the same file while neither its
    bytes nor the options of its jobs have changed; a changed file is a new
    batch, and all of its rows are submitted.
    """
    if (prompt is None) == (file is None):
        console.fail("Give a prompt, or --file with a .csv or .jsonl file.", console.MISUSED)
    if file is not None and request.idempotency_key is not None:
        console.fail("With --file, give each row its own key in a column idempotency_key.", console.MISUSED)
    if file is None and again is not None:
        console.fail("--again is for --file; a prompt is submitted again each time.", console.MISUSED)
    try:
        asked = _fields(prompt, request)
        if file is None:
            rows = [_prompt(asked)]
        else:
            rows = _rows(asked, file, again or "", ignore_unknown=ignore_unknown)
    except BadInput as error:
        _refuse(file, str(error))
    run = _Run(Batch(rows), file, timeout if wait or download else None, download)
    with connection.open() as darkroom:
        _work(darkroom, run)
    _report(run, as_json=as_json)


def _refuse(file: str | None, faults: str, *, before: int = 0) -> NoReturn:
    where, more = f" in {file}" if file else "", " more" if before else ""
    console.fail(f"Nothing{more} was submitted. Fix this{where}:\n{faults}", console.MISUSED)


def _fields(prompt: str | None, request: options.JobRequest) -> dict[str, Any]:
    """Return the fields of a job that the command line gives, as `Darkroom.submit` takes them."""
    given = vars(request) | {
        "prompt": prompt,
        "params": nested(request.param or [], "--param"),
        "tags": flat(request.tag or [], "--tag"),
        "num_images": request.num_images and number(request.num_images),
        "unsupported": "ignore" if request.ignore_unsupported else "refuse",
    }
    options_only = {"param", "tag", "ignore_unsupported"}
    return {name: value for name, value in given.items() if value is not None and name not in options_only}


def _prompt(asked: Mapping[str, Any]) -> Row:
    if missing := [name for name in ("gateway", "model") if name not in asked]:
        raise BadInput("\n".join(f"--{name} is missing" for name in missing))
    return Row(1, asked)


def _rows(asked: Mapping[str, Any], file: str, again: str, *, ignore_unknown: bool) -> list[Row]:
    raw = read_bytes(file)
    rows = merge(asked, read_rows(file, raw, ignore_unknown=ignore_unknown))
    if not rows:
        raise BadInput("the file has no rows")
    return keyed(rows, hashlib.sha256(raw).hexdigest(), again)


def _work(darkroom: Darkroom, run: _Run) -> None:
    from receiver.client import ApiError, ClientError, Unreachable

    try:
        with console.progress(quiet=run.file is None and run.wait_s is None) as bar:
            if run.file is not None:
                _judge(darkroom, run, bar)
            if run.folder is not None:
                run.folder.mkdir(parents=True, exist_ok=True)
            _send(darkroom, run, bar)
            if run.wait_s is not None:
                _wait(darkroom, run.batch.jobs, bar, monotonic() + run.wait_s)
        if run.folder is not None:
            _download(darkroom, run, run.folder)
    except (KeyboardInterrupt, ClientError, OSError) as error:
        if isinstance(error, ApiError) or (isinstance(error, Unreachable) and not error.sent):
            run.batch.in_flight = 0
        _say_what_was_submitted(run)
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(console.STOPPED) from None
        if isinstance(error, OSError):
            console.fail(f"--download {run.folder}: {error.strerror or error}")
        raise


def _judge(darkroom: Darkroom, run: _Run, bar: Progress) -> None:
    batch = run.batch
    task = bar.add_task("Checking  ", total=len(batch.rows))
    batch.judge(darkroom, lambda more: bar.advance(task, more))
    before, every = len(batch.jobs), len(batch.rows)
    if batch.refused:
        _refuse(run.file, "\n".join(batch.refused), before=before)
    if before == every:
        console.say(
            f"All of it was submitted before ({console.count(every, 'job')}), so nothing is submitted now. "
            "To submit it once more, give that run a name: --again NAME"
        )
    elif before:
        console.say(f"{before} of {every} were submitted before; submitting the other {every - before}.")


def _send(darkroom: Darkroom, run: _Run, bar: Progress) -> None:
    batch = run.batch
    run.begun = True
    if run.file is None:
        batch.in_flight = 1
        batch.jobs[0] = darkroom.submit(**batch.rows[0].fields)
        batch.in_flight = 0
        return
    task = bar.add_task("Submitting", total=len(batch.rows), completed=len(batch.jobs))
    batch.send(darkroom, lambda more: bar.advance(task, more))


def _wait(darkroom: Darkroom, jobs: dict[int, Job], bar: Progress, deadline: float) -> None:
    """Wait until every job is finished, or until the deadline; at least one look is taken at each."""
    task = bar.add_task("Finishing ", total=len(jobs))
    if len(jobs) == 1:
        ((number, job),) = jobs.items()
        jobs[number] = darkroom.wait(job.id, timeout_s=max(0.0, deadline - monotonic()))
        return
    while left := {job.id: number for number, job in jobs.items() if not job.finished}:
        for job in _look(darkroom, [jobs[number] for number in left.values()]):
            if job.id in left:
                jobs[left[job.id]] = job
        bar.update(task, completed=sum(job.finished for job in jobs.values()))
        rest = deadline - monotonic()
        unfinished = [job for job in jobs.values() if not job.finished]
        if not unfinished or rest <= 0:
            return
        # The last one, because most finish in their order, and there is no need to look after each.
        darkroom.job(unfinished[-1].id, wait=min(LOOK_S, rest))
    bar.update(task, completed=len(jobs))


def _look(darkroom: Darkroom, unfinished: Sequence[Job]) -> Iterator[Job]:
    """Yield jobs as they are now, and perhaps others of the same time."""
    if len(unfinished) <= FEW:
        return (darkroom.job(job.id) for job in unfinished)
    times = [datetime.fromisoformat(job.created_at) for job in unfinished]
    until = max(times) + timedelta(milliseconds=1)
    return darkroom.jobs(since=min(times).isoformat(), until=until.isoformat())


def _download(darkroom: Darkroom, run: _Run, folder: Path) -> None:
    from receiver.cli.save_images import Saving

    jobs = run.batch.jobs.values()
    outputs = [output for job in jobs for output in job.outputs]
    saving = Saving(darkroom, folder)
    try:
        saving.run(outputs)
    finally:
        run.saved += [one.path for one in saving.saved]
    run.unsaved += [f"{one.output.id}: {one.why}" for one in saving.failed]


def _say_refused(batch: Batch) -> None:
    if batch.refused:
        console.say("\n".join(["Refused:", *batch.refused]), "red")


def _say_what_was_submitted(run: _Run) -> None:
    batch = run.batch
    if not run.begun:
        return
    if run.file is None:
        for job in batch.jobs.values():
            console.say(f"The job is submitted, and Darkroom keeps working on it: {job.id}")
        if batch.in_flight:
            console.say(
                "The job may or may not have been submitted. "
                "Before you send it again, check with: darkroom jobs"
            )
        return
    _say_refused(batch)
    perhaps = f", and perhaps {batch.in_flight} more" if batch.in_flight else ""
    console.say(f"{len(batch.jobs)} of {console.count(len(batch.rows), 'job')} are submitted{perhaps}.")
    console.say("To go on, run the same command again: no job is submitted twice.")


_COLUMNS: Sequence[console.Column[Job]] = (
    console.Column("JOB", lambda job: job.id),
    console.Column("STATUS", lambda job: console.status_cell(job.status)),
    console.Column("GATEWAY", lambda job: job.gateway, room=100),
    console.Column("MODEL", lambda job: job.result.model or job.request.model),
    console.Column("IMAGES", lambda job: len(job.outputs) if job.finished else None, right=True),
    console.Column(
        "SEED", lambda job: job.request.seed if job.result.seed is None else job.result.seed, room=90
    ),
    console.Column("ERROR", lambda job: job.error and f"{job.error.code}: {job.error.message}", wrapped=True),
)


def _report(run: _Run, *, as_json: bool) -> None:
    jobs, waited = [job for _, job in sorted(run.batch.jobs.items())], run.wait_s is not None
    if as_json:
        console.print_json(jobs if run.file is not None else jobs[0])
    else:
        console.print_table(_COLUMNS, jobs, nothing="Nothing was submitted.")
        if run.saved:
            console.say(f"Saved {console.count(len(run.saved), 'image')} in {run.saved[0].parent}")
        elif not waited:
            command = f"show {jobs[0].id}" if len(jobs) == 1 else "jobs --watch"
            console.say(f"See progress with: darkroom {command}")
    for warning in dict.fromkeys(warning for job in jobs for warning in job.warnings):
        console.say(f"Warning: {warning}", "yellow")
    _say_refused(run.batch)
    if run.unsaved:
        console.say("\n".join(["Archived, but not saved here:", *run.unsaved]), "red")
    unfinished = sum(not job.finished for job in jobs) if waited else 0
    if unfinished:
        late = console.count(unfinished, "job")
        console.say(f"Time is up: {late} not finished yet. Darkroom keeps working.", "yellow")
    failed = waited and any(job.status != "archived" for job in jobs)
    if run.batch.refused or run.unsaved or failed:
        raise typer.Exit(console.FAILED)
