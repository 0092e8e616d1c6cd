"""Follow jobs for `darkroom jobs --watch`: a live table, or in a pipe a line for each change."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import typer
from rich.console import RenderableType
from rich.live import Live

from receiver.cli.console import FAILED, STOPPED, out, plain, print_json, say
from receiver.client import ClientError, Darkroom
from receiver.schemas.job import Job

POLL_S = 2.0
"""Polling interval in seconds without a stream of events."""
LOOK_S = 5.0
"""Polling interval beside the stream of events: something may happen before that is open."""
GAP_S = 0.3
"""The least time between two polls, however much happens."""


class _Feed:
    """Wake the watcher at each event of the service, which a thread listens to.

    Without a stream of events, such as behind a proxy that holds it back, the watcher polls.
    """

    def __init__(self, darkroom: Darkroom) -> None:
        self._darkroom = darkroom
        self._happened = threading.Event()
        self._every_s = LOOK_S
        self._over = False
        threading.Thread(target=self._listen, daemon=True).start()

    def wait(self) -> None:
        """Wait for an event, or for the polling interval."""
        began = monotonic()
        self._happened.wait(self._every_s)
        self._happened.clear()
        if (rest := began + GAP_S - monotonic()) > 0:
            threading.Event().wait(rest)

    def end(self) -> None:
        """Stop listening; the connection may be closed after this."""
        self._over = True

    def _listen(self) -> None:
        try:
            for _ in self._darkroom.events():
                self._happened.set()
        except ClientError:
            # If the service is down, the next poll raises.
            self._every_s = POLL_S
        except Exception:
            # A connection that is closed while it is read may raise anything.
            if not self._over:
                raise
        self._happened.set()


def watch(
    darkroom: Darkroom,
    look: Callable[[], Sequence[Job]],
    table: Callable[[Sequence[Job]], RenderableType],
    *,
    until_done: bool,
    as_json: bool,
) -> None:
    """Show the jobs that `look` returns, after each event, until Ctrl-C.

    `until_done`: or until all of them are finished, and then exit with 1 unless all are archived.
    Raises ClientError if the service is down.
    """
    feed = _Feed(darkroom)
    try:
        with _display(table, as_json=as_json) as show:
            while True:
                jobs = look()
                show(jobs)
                if until_done and all(job.finished for job in jobs):
                    break
                feed.wait()
    except KeyboardInterrupt:
        raise typer.Exit(STOPPED) from None
    finally:
        feed.end()
    if not jobs:
        say("No jobs match.")
    if any(job.status != "archived" for job in jobs):
        raise typer.Exit(FAILED)


@contextmanager
def _display(
    table: Callable[[Sequence[Job]], RenderableType], *, as_json: bool
) -> Iterator[Callable[[Sequence[Job]], None]]:
    console = out()
    if as_json or not console.is_terminal:
        yield _Changes(as_json=as_json)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
        yield lambda jobs: live.update(table(jobs), refresh=True)


@dataclass
class _Changes:
    """Print a line for each job that is new or changed since the last poll."""

    as_json: bool
    seen: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def __call__(self, jobs: Sequence[Job]) -> None:
        # Oldest first, as things happen.
        for job in reversed(jobs):
            state = (job.status, len(job.outputs), job.error and job.error.code)
            if self.seen.get(job.id) != state:
                self.seen[job.id] = state
                self._print(job)

    def _print(self, job: Job) -> None:
        if self.as_json:
            print_json(job, indent=None)
            return
        error = f"  {job.error.code}" if job.error else ""
        line = f"{job.updated_at}  {job.id}  {job.status}{error}  {job.request.prompt}"
        typer.echo(plain(line))
