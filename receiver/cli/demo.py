"""The command `darkroom demo`: progress, a check of every image, and what to try next."""

from __future__ import annotations

import errno
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from receiver.cli.completion import LOCAL
from receiver.cli.console import FAILED, MISUSED, Column, cell, count, fail, out, print_table, status_cell
from receiver.cli.options import flag, option
from receiver.cli.run import exit_on_error, port_message, stop_asked
from receiver.cli.status import print_status

if TYPE_CHECKING:
    from rich.progress import Progress

    from receiver.demo.demo import Demo
    from receiver.schemas.job import Job
    from receiver.schemas.output import Output

GIVE_UP_S = 120.0
LOOK_S = 0.25
"""Seconds between two looks at the jobs."""

KEY_ROOM = 150
"""Width of a terminal whose table has the keys; in a narrower one they are listed below."""

_COLUMNS: Sequence[Column[Output]] = (
    Column("PROMPT", lambda output: output.prompt, long=True),
    Column("GATEWAY", lambda output: output.gateway, room=100),
    Column("MODEL", lambda output: output.model),
    Column("SEED", lambda output: output.seed_requested if output.seed is None else output.seed, right=True),
    Column("SIZE", lambda output: f"{output.width}x{output.height}"),
    Column("SHA-256", lambda output: output.sha256[:12]),
    Column("KEY", lambda output: output.key, room=KEY_ROOM),
)


def demo(
    *,
    leave: Annotated[
        bool, flag("Exit after the check, instead of running on until Ctrl-C.", "--exit")
    ] = False,
    folder: Annotated[
        Path, option("Where all data is stored.", "DIR", "--dir", file_okay=False, show_default=True)
    ] = Path("darkroom-demo"),
    gateways: Annotated[
        str,
        option(
            "usual: ten prompts for two of them; all: one for each that there is.", "SET", show_default=True
        ),
    ] = "usual",
    port: Annotated[
        int | None,
        option(
            "Where the service listens; 0 takes a free port.",
            *("PORT", "--port"),
            min=0,
            max=65535,
            show_default="8321, or a free port if that is in use",
        ),
    ] = None,
) -> None:
    """Try Darkroom now: submit prompts, archive their images, and check every byte, all on this machine.

    Starts a real S3 server, the sandbox (a stand-in for the gateways) and Darkroom, all on loopback.
    It needs no account and no settings, and uses none that you have.
    """
    if gateways not in ("usual", "all"):
        fail(f"--gateways {gateways}: must be usual or all.", MISUSED)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    with exit_on_error():
        from receiver.demo.demo import running_demo

        console = out()
        stay = not leave and console.is_terminal and sys.stdin.isatty()
        console.print("Starting an S3 server, the sandbox and Darkroom on this machine ...")
        try:
            with running_demo(folder, port=port, all_gateways=gateways == "all") as demo:
                _show(demo, console, stay=stay)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and port:
                fail(port_message("127.0.0.1", port, error, "give another --port."))
            fail(f"The demo could not run: {error.strerror or error}")
    console.print("Everything is stopped.")


def _show(demo: Demo, console: Console, *, stay: bool) -> None:
    from receiver.demo.demo import PORT

    if demo.port_in_use:
        console.print(f"Port {PORT} is in use, so Darkroom takes another one.", style="yellow")
    log = _near(demo.folder / "demo.log")
    console.print(f"Darkroom listens on {demo.url}. Its log: {log}", soft_wrap=True)
    _work(demo, console)
    with console.status("Comparing all copies of every image ...") if console.is_terminal else nullcontext():
        faults = _verify(demo)
    outputs = demo.outputs()
    print_table(_COLUMNS, outputs, nothing="No image was archived.")
    if console.width < KEY_ROOM:
        _list_keys(outputs, console)
    console.print()
    print_status(demo.darkroom.status())
    if faults:
        fail("\n".join(["The demo found faults:", *faults]), FAILED)
    verified = (
        f"Verified {count(len(outputs), 'image')}: the SHA-256 of each is the same at the gateway, in S3, "
    )
    console.print(Text(f"{verified}in the record, in the ledger and in the file.", "green"))
    console.print(f"Image files: {_near(demo.images)}", soft_wrap=True)
    if not stay:
        console.print("To look around while it runs, start `darkroom demo` in a terminal, without --exit.")
        return
    stopped = stop_asked()
    console.print("\nDarkroom runs until you press Ctrl-C.", style="bold")
    console.print(Text("\n".join(_what_to_try(demo.url, outputs[0].job_id))), soft_wrap=True)
    stopped.wait()


def _what_to_try(url: str, job_id: str) -> Iterator[str]:
    """Yield the gallery's address and three commands that work as they are in another terminal."""
    found = shutil.which("darkroom")
    here = "darkroom" if found and Path(sys.argv[0]).samefile(found) else f"{sys.executable} -m receiver"
    where = "" if url == LOCAL else f" --url {url}"
    yield f"Gallery: {url}/"
    yield "To try in another terminal:"
    yield f"  {here} search ramen seed:42{where}"
    yield f"  {here} show {job_id}{where}"
    yield f'  {here} submit "a lighthouse at dusk" --gateway apiframe --model imagen-4-fast --wait{where}'


def _work(demo: Demo, console: Console) -> None:
    deadline = monotonic() + GIVE_UP_S
    with _display(console, len(demo.prompts)) as (progress, show):
        task = progress.add_task("Submitting", total=len(demo.prompts))
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
def _display(console: Console, total: int) -> Iterator[tuple[Progress, Callable[[Sequence[Job]], None]]]:
    """Yield a progress bar, and a function that shows the jobs below it; in a terminal only."""
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    progress = Progress("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    if not console.is_terminal:
        console.print(f"Submitting {count(total, 'job')} and waiting for their images ...")
        yield progress, lambda _jobs: None
        return
    with Live(console=console, refresh_per_second=10, transient=True) as live:
        yield progress, lambda jobs: live.update(Group(progress, _states(jobs)))


def _states(jobs: Sequence[Job]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False, expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for job in jobs:
        table.add_row(status_cell(job.status), cell(job.request.model, "dim"), cell(job.request.prompt))
    return table


def _verify(demo: Demo) -> list[str]:
    faults: list[str] = []
    for job in demo.jobs():
        if job.status != "archived":
            why = f": {job.error.code}: {job.error.message}" if job.error else ""
            faults.append(f"job {job.id} is {job.status}{why}")
    outputs = demo.outputs()
    for output in outputs:
        faults += demo.faults(output)
    if len(outputs) != demo.images_wanted:
        faults.append(f"{count(len(outputs), 'image')} archived, not {demo.images_wanted}")
    if not demo.darkroom.status().balanced:
        faults.append("not every accepted job is accounted for")
    return faults


def _list_keys(outputs: Sequence[Output], console: Console) -> None:
    from receiver.demo.demo import BUCKET

    console.print(Text(f"\nKeys in the bucket {BUCKET}, by SHA-256:", "bold"))
    for output in outputs:
        console.print(Text(f"{output.sha256[:12]}  {output.key}"), soft_wrap=True)


def _near(path: Path) -> str:
    """Return a path relative to the current folder, if it is in it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
