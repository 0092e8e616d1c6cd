"""Download images to files, several at once, with a progress bar; for `download` and `submit --download`."""

import json
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

from receiver.cli.console import progress
from receiver.client import ApiError, Damaged, Darkroom
from receiver.client.download import digest_of
from receiver.client.filenames import Template, key_of, with_id
from receiver.export.prefetch import prefetched
from receiver.schemas.output import Output

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
        return self._claim(with_id(self._template.name(output), output), output)

    def _keepers(self, outputs: Sequence[Output], names: Sequence[str], folder: Path) -> set[int]:
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
        with self._lock:
            if key_of(name) in self._taken:
                name = with_id(name, output)
            self._taken.add(key_of(name))
        return name


@dataclass(slots=True)
class Saving:
    """One run of downloads; `saved` and `failed` are valid at any time, also after an interrupt.

    `names`: file names, which then never replace others; by default the image's id.
    `jobs`: how many at once. `records`: save the record beside each image, as `<name>.json`.
    """

    darkroom: Darkroom
    folder: Path
    names: Names | None = None
    jobs: int = 4
    records: bool = False
    saved: list[Saved] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    def run(self, outputs: Sequence[Output]) -> None:
        """Save every image; a file that exists with the right digest is not downloaded again.

        An image that fails does not stop the others. Raises ClientError if the service is down or refuses
        the token.
        """
        # Not in the threads, so that another run gives the same names.
        names = self.names.give(outputs, self.folder) if self.names else [None] * len(outputs)
        work = zip(outputs, names, strict=True)
        done = "{task.fields[done]} of {task.fields[images]}"
        with progress(done, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
            total = sum(output.bytes for output in outputs)
            task = bar.add_task("Downloading", total=total, done=0, images=len(outputs))

            def save(one: tuple[Output, str | None], stop: threading.Event) -> None:
                self._save(*one, stop, lambda length: bar.advance(task, length))

            for number, _ in enumerate(prefetched(save, work, threads=self.jobs, stop_s=STOP_S), start=1):
                bar.update(task, done=number)
        order = {output.id: number for number, output in enumerate(outputs)}
        self.saved.sort(key=lambda one: order[one.output.id])

    def _save(
        self, output: Output, name: str | None, stop: threading.Event, advance: Callable[[int], None]
    ) -> None:
        came = 0

        def on_bytes(length: int) -> None:
            nonlocal came
            if stop.is_set():
                raise _Stopped
            came += length
            advance(length)

        try:
            path = self._download(output, name, on_bytes)
            if self.records:
                write_record(self.darkroom, output, path)
            self.saved.append(Saved(output, path, fetched=came > 0))
        except (ApiError, Damaged, OSError) as error:
            if isinstance(error, ApiError) and error.status in {401, 403}:
                raise
            self.failed.append(Failed(output, str(error)))
        advance(output.bytes - came)

    def _download(self, output: Output, name: str | None, on_bytes: Callable[[int], None]) -> Path:
        try:
            return self.darkroom.download(output, self.folder, name=name, on_bytes=on_bytes)
        except FileExistsError:
            if self.names is None:
                raise
        name = self.names.other(output)
        return self.darkroom.download(output, self.folder, name=name, on_bytes=on_bytes)


def _holds(path: Path, output: Output) -> bool:
    """Return whether a file has the bytes of an image; False if it cannot be read."""
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
