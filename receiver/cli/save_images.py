"""Download images to files, several at once, with a progress bar; for `download` and `submit --download`."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from receiver.cli.console import err

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from receiver.client import Darkroom
    from receiver.client.filenames import Template
    from receiver.client.models import Output

STOP_S = 1.0
"""How long downloads in flight may take to stop; partial files stay on disk."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved image; `fetched` is false if the file existed already."""

    output: Output
    path: Path
    fetched: bool

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        output = self.output
        return {
            "id": output.id,
            "file": str(self.path),
            "sha256": output.sha256,
            "bytes": output.bytes,
            "fetched": self.fetched,
        }


@dataclass(frozen=True, slots=True)
class Failed:
    """An image that could not be saved, and why."""

    output: Output
    why: str


class _Stopped(Exception):
    """The download in progress is cancelled."""


class Names:
    """File names of one run, so that no two images get the same."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def give(self, outputs: Sequence[Output], folder: Path) -> list[str]:
        """Return a name for each image; with its id in it if another has that name.

        Of several with one name, the one that has it in the folder from an earlier run keeps it.
        """
        names = [self._template.name(output) for output in outputs]
        kept = self._keepers(outputs, names, folder)
        given = {
            place: self._claim(names[place], outputs[place])
            for place in sorted(range(len(outputs)), key=lambda place: place not in kept)
        }
        return [given[place] for place in range(len(outputs))]

    def other(self, output: Output) -> str:
        """Return the name with the id, for an image whose first name is another file on disk."""
        from receiver.client.filenames import with_id

        return self._claim(with_id(self._template.name(output), output), output)

    def _keepers(self, outputs: Sequence[Output], names: Sequence[str], folder: Path) -> set[int]:
        from receiver.client.filenames import key_of, with_id

        same: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            same.setdefault(key_of(name), []).append(place)
        kept = set[int]()
        for places in same.values():
            # From the oldest, without those that have a file with their id: among images with the same bytes,
            # that is the one which had the name before.
            for place in reversed(places if len(places) > 1 else []):
                output, name = outputs[place], names[place]
                if not (folder / with_id(name, output)).exists() and _holds(folder / name, output):
                    kept.add(place)
                    break
        return kept

    def _claim(self, name: str, output: Output) -> str:
        from receiver.client.filenames import key_of, with_id

        with self._lock:
            if key_of(name) in self._taken:
                name = with_id(name, output)
            self._taken.add(key_of(name))
        return name


class Saving:
    """One run of downloads; `saved` and `failed` are valid at any time, also after an interrupt.

    `template`: file names, which then never replace others; by default the image's id.
    `jobs`: how many at once. `records`: save the record beside each image, as `<name>.json`.
    """

    def __init__(
        self,
        darkroom: Darkroom,
        folder: Path,
        *,
        template: Template | None = None,
        jobs: int = 4,
        records: bool = False,
    ) -> None:
        self.saved: list[Saved] = []
        self.failed: list[Failed] = []
        self._darkroom, self._folder, self._jobs, self._records = darkroom, folder, jobs, records
        self._names = None if template is None else Names(template)
        self._stop = threading.Event()

    def run(self, outputs: Sequence[Output]) -> None:
        """Save every image; a file that exists with the right digest is not downloaded again.

        An image that fails does not stop the others. Raises ClientError if the service is down or refuses
        the token.
        """
        todo: SimpleQueue[tuple[Output, str | None]] = SimpleQueue()
        results: SimpleQueue[Saved | Failed | Exception] = SimpleQueue()
        # Not in the threads, so that another run gives the same names.
        names = self._names.give(outputs, self._folder) if self._names else [None] * len(outputs)
        for one in zip(outputs, names, strict=True):
            todo.put(one)
        with _bar(len(outputs), sum(output.bytes for output in outputs)) as (progress, task):
            work = (todo, results, progress, task)
            threads = [
                threading.Thread(target=self._work, args=work, daemon=True)
                for _ in range(min(self._jobs, len(outputs)))
            ]
            for thread in threads:
                thread.start()
            try:
                for number in range(len(outputs)):
                    self._note(results.get())
                    progress.update(task, done=number + 1)
            finally:
                self._end(threads)
                self._note_rest(results)
        order = {output.id: number for number, output in enumerate(outputs)}
        self.saved.sort(key=lambda one: order[one.output.id])

    def _note(self, result: Saved | Failed | Exception) -> None:
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Saved):
            self.saved.append(result)
        else:
            self.failed.append(result)

    def _note_rest(self, results: SimpleQueue[Saved | Failed | Exception]) -> None:
        # After an interrupt, downloads that were complete still count.
        while True:
            try:
                result = results.get_nowait()
            except Empty:
                return
            if not isinstance(result, Exception):
                self._note(result)

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        self._stop.set()
        deadline = monotonic() + STOP_S
        for thread in threads:
            thread.join(max(0.0, deadline - monotonic()))

    def _work(
        self,
        todo: SimpleQueue[tuple[Output, str | None]],
        results: SimpleQueue[Saved | Failed | Exception],
        progress: Progress,
        task: TaskID,
    ) -> None:
        while not self._stop.is_set():
            try:
                output, name = todo.get_nowait()
            except Empty:
                return
            try:
                results.put(self._one(output, name, lambda length: progress.advance(task, length)))
            except _Stopped:
                return
            except Exception as error:  # noqa: BLE001 - it goes to the thread that waits for it
                results.put(error)

    def _one(self, output: Output, name: str | None, advance: Callable[[int], None]) -> Saved | Failed:
        from receiver.client import ApiError, Damaged

        came = 0

        def on_bytes(length: int) -> None:
            nonlocal came
            if self._stop.is_set():
                raise _Stopped
            came += length
            advance(length)

        try:
            path = self._download(output, name, on_bytes)
            if self._records:
                write_record(self._darkroom, output, path)
        except ApiError as error:
            if error.status in {401, 403}:
                raise
            failed = Failed(output, str(error))
        except (Damaged, OSError) as error:
            failed = Failed(output, str(error))
        else:
            advance(output.bytes - came)
            return Saved(output, path, fetched=came > 0)
        advance(output.bytes - came)
        return failed

    def _download(self, output: Output, name: str | None, on_bytes: Callable[[int], None]) -> Path:
        try:
            return self._darkroom.download(output, self._folder, name=name, on_bytes=on_bytes)
        except FileExistsError:
            if self._names is None:
                raise
        name = self._names.other(output)
        return self._darkroom.download(output, self._folder, name=name, on_bytes=on_bytes)


def _holds(path: Path, output: Output) -> bool:
    """Return whether a file has the bytes of an image; False if it cannot be read."""
    from receiver.client.download import digest_of

    try:
        return path.stat().st_size == output.bytes and digest_of(path) == output.sha256
    except OSError:
        return False


def write_record(darkroom: Darkroom, output: Output, path: Path) -> None:
    """Write the record of an image's job to `<path>.json`, atomically."""
    text = json.dumps(darkroom.record(output.id), ensure_ascii=False, indent=2)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        draft.write_text(text + "\n", encoding="utf-8")
        os.replace(draft, path.with_name(f"{path.name}.json"))
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _bar(images: int, length: int) -> Iterator[tuple[Progress, TaskID]]:
    """Show a progress bar over all bytes, with images done and time left."""
    from rich import progress as bars

    console = err()
    columns = (
        bars.TextColumn("{task.fields[done]} of {task.fields[images]}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield progress, progress.add_task("", total=length, done=0, images=images)
