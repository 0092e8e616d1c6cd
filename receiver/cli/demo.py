"""`darkroom demo`: what it shows while it works, and what it says at the end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from receiver.cli.console import (
    FAILED,
    Column,
    cell,
    count,
    fail,
    out,
    print_table,
    status_cell,
)
from receiver.cli.serve import exit_on_error, stop_asked
from receiver.cli.status import print_status

if TYPE_CHECKING:
    from rich.progress import Progress

    from receiver.demo.demo import Demo
    from receiver.schemas.job import Job
    from receiver.schemas.output import Output

GIVE_UP_S = 120.0
LOOK_S = 0.25
"""How often the display is renewed, in seconds."""

KEY_ROOM = 150
"""Columns that the terminal must have for the keys to stand in the table; else they are listed below it."""

_COLUMNS = (
    Column("PROMPT", long=True),
    Column("GATEWAY", room=100),
    Column("MODEL"),
    Column("SEED", right=True),
    Column("SIZE"),
    Column("SHA-256"),
    Column("KEY", room=KEY_ROOM),
)


def demo(
    *,
    leave: Annotated[bool, typer.Option("--exit", help="Stop at the end, also where a terminal is.")] = False,
    folder: Annotated[
        Path, typer.Option("--dir", metavar="DIR", file_okay=False, help="Where everything is kept.")
    ] = Path("darkroom-demo"),
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65535, metavar="PORT", help="Where the service listens; 0 takes a free port."
        ),
    ] = 0,
) -> None:
    """Try it now: prompts go in, images come out, on this machine alone, and every byte is checked.

    Starts a real S3 server, the sandbox that stands in for the gateways, and Darkroom, all on loopback.
    It needs no account and no settings, and uses none that you have.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    with exit_on_error():
        from receiver.demo.demo import running_demo

        console = out()
        stay = not leave and console.is_terminal and sys.stdin.isatty()
        console.print("Starting an S3 server, the sandbox and Darkroom on this machine ...")
        try:
            with running_demo(folder, port=port) as demo:
                _show(demo, console, stay=stay)
        except OSError as error:
            fail(f"The demo could not run: {error}")
    console.print("Everything is stopped.")


def _show(demo: Demo, console: Console, *, stay: bool) -> None:
    console.print(f"Darkroom is at {demo.url}. Its log: {_near(demo.folder / 'demo.log')}", soft_wrap=True)
    _work(demo, console)
    faults = _verify(demo, console)
    outputs = demo.outputs()
    print_table(_COLUMNS, [_line(output) for output in outputs], nothing="No image was archived.")
    if console.width < KEY_ROOM:
        _list_keys(outputs, console)
    console.print()
    print_status(demo.darkroom.status())
    if faults:
        fail("\n".join(["The demo did not end as it should:", *faults]), FAILED)
    verified = f"Verified {count(len(outputs), 'image')}: for each, the gateway's bytes, the object in S3, "
    console.print(Text(f"{verified}the record, the ledger and the file have the same SHA-256.", "green"))
    console.print()
    _say_where(demo, outputs, console, stay=stay)
    if stay:
        stopped = stop_asked()
        console.print("\nIt goes on serving until you press Ctrl-C.", style="bold")
        stopped.wait()


def _work(demo: Demo, console: Console) -> None:
    from receiver.demo.demo import PROMPTS

    deadline = monotonic() + GIVE_UP_S
    with _display(console, len(PROMPTS)) as (progress, show):
        task = progress.add_task("Submitting", total=len(PROMPTS))
        for _ in demo.submit():
            show(demo.jobs())
        progress.update(task, description="Archiving ")
        while True:
            jobs = demo.jobs()
            show(jobs)
            progress.update(task, completed=sum(job.finished for job in jobs))
            waiting = [job for job in jobs if not job.finished]
            if not waiting or monotonic() > deadline:
                return
            demo.darkroom.job(waiting[0].id, wait=LOOK_S)


@contextmanager
def _display(console: Console, total: int) -> Iterator[tuple[Progress, _Show]]:
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )
    if not console.is_terminal:
        console.print(f"Submitting {count(total, 'job')} and waiting for their images ...")
        yield progress, _Show(None, progress)
        return
    with Live(console=console, refresh_per_second=10, transient=True) as live:
        yield progress, _Show(live.update, progress)


class _Show:
    """Puts the bar and the state of each job on the screen."""

    def __init__(self, update: object, progress: Progress) -> None:
        self._update = update
        self._progress = progress

    def __call__(self, jobs: Sequence[Job]) -> None:
        if callable(self._update):
            self._update(Group(self._progress, _states(jobs)))


def _states(jobs: Sequence[Job]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False, expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for job in jobs:
        table.add_row(status_cell(job.status), cell(job.request.model, "dim"), cell(job.request.prompt))
    return table


def _verify(demo: Demo, console: Console) -> list[str]:
    from receiver.demo.demo import IMAGES

    faults: list[str] = []
    for job in demo.jobs():
        if job.status != "archived":
            why = f": {job.error.code}: {job.error.message}" if job.error else ""
            faults.append(f"job {job.id} is {job.status}{why}")
    outputs = demo.outputs()
    with console.status("Comparing every image wherever it is ...") if console.is_terminal else _nothing():
        for output in outputs:
            faults += demo.faults(output)
    if len(outputs) != IMAGES:
        faults.append(f"{count(len(outputs), 'image')} archived, not {IMAGES}")
    if not demo.darkroom.status().balanced:
        faults.append("not every accepted job is accounted for")
    return faults


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _line(output: Output) -> Sequence[Text]:
    seed = output.seed if output.seed is not None else output.seed_requested
    return (
        cell(output.prompt),
        cell(output.gateway),
        cell(output.model),
        cell(seed),
        cell(f"{output.width}x{output.height}"),
        cell(output.sha256[:12]),
        cell(output.key),
    )


def _list_keys(outputs: Sequence[Output], console: Console) -> None:
    from receiver.demo.demo import BUCKET

    console.print(Text(f"\nTheir keys in the bucket {BUCKET}, by SHA-256:", "bold"))
    for output in outputs:
        console.print(Text(f"{output.sha256[:12]}  {output.key}"), soft_wrap=True)


def _say_where(demo: Demo, outputs: Sequence[Output], console: Console, *, stay: bool) -> None:
    from receiver.demo.demo import BUCKET

    console.print(f"The images as files: {_near(demo.images)}", soft_wrap=True)
    if not stay:
        console.print("To look at its gallery while it runs: `darkroom demo` in a terminal, without --exit.")
        return
    first = outputs[0]
    key, _ = demo.record(first.job_id)
    aws = (
        f"AWS_ACCESS_KEY_ID={demo.s3.access_key} AWS_SECRET_ACCESS_KEY={demo.s3.secret_key} "
        f"AWS_DEFAULT_REGION=us-east-1 aws --endpoint-url {demo.s3.endpoint}"
    )
    ways = {
        "The gallery, in a browser": f"{demo.url}/",
        "The API, as a page to read": f"{demo.url}/docs",
        "The first image, in a browser (a presigned link, fresh for 15 minutes)": demo.darkroom.link(
            first.id
        ),
        "Everything in the bucket": f"{aws} s3 ls --recursive s3://{BUCKET}/",
        "What made it, as its record tells": f"{aws} s3 cp s3://{BUCKET}/{key} -",
        "Find images by their prompt and seed": f"darkroom search ramen seed:42 --url {demo.url}",
        "Everything about a job, and how it was proven": f"darkroom show {first.job_id} --url {demo.url}",
        "What the gateways' stand-in was asked": f"curl {demo.sandbox.url}/sandbox/jobs",
    }
    for what, how in ways.items():
        console.print()
        console.print(Text(what, "bold"))
        console.print(Text(how), soft_wrap=True)


def _near(path: Path) -> str:
    """A path as it is written from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
