"""Write outputs with their images and records: as a ZIP file, or as a BagIt folder (RFC 8493)."""

import json
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from receiver.client import ApiError, Damaged, Darkroom
from receiver.client.download import digest_of
from receiver.client.filenames import day_of
from receiver.export.prefetch import prefetched
from receiver.export.tables import CsvRows
from receiver.schemas.output import Output

MANIFEST = "manifest.csv"
FATAL = frozenset({401, 403})
"""HTTP statuses after which no other request can succeed."""


class Bundle(Protocol):
    """A writer of images and records, each under a path with `/`."""

    @property
    def folder(self) -> Path:
        """The folder for downloads; images that are there already are not downloaded again."""

    def put_image(self, name: str, path: Path, output: Output) -> None:
        """Add an image from `path`, below `folder`."""

    def put_file(self, name: str, path: Path) -> None:
        """Add a copy of another file."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A downloaded output: its image's path, and its job's record, unless an earlier output had it.

    `why` is the error if there is no image.
    """

    output: Output
    path: Path
    record: Mapping[str, Any] | None
    why: str | None = None


def fill(
    bundle: Bundle, darkroom: Darkroom, found: Iterable[Output], *, jobs: int, done: Callable[[Fetched], None]
) -> None:
    """Write every output with its record into a bundle, and at the end a table of them all.

    `jobs` images are downloaded at once. `done` is called for each output, also for failed ones: those are
    in the table without a file.
    """

    def fetch(task: tuple[Output, bool], stop: threading.Event) -> Fetched:
        return _fetch(darkroom, task[0], bundle.folder, stop, record=task[1])

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / MANIFEST
        with table.open("w", encoding="utf-8", newline="", errors="replace") as file:
            rows = CsvRows(file, more=("file", "record"))
            for got in prefetched(fetch, _firsts(found), threads=jobs):
                image, record = _places(got.output)
                if got.why is None:
                    bundle.put_image(image, got.path, got.output)
                if got.record is not None:
                    text = json.dumps(got.record, ensure_ascii=False, indent=2) + "\n"
                    scratch = Path(folder) / "record.json"
                    scratch.write_text(text, encoding="utf-8", errors="replace")
                    bundle.put_file(record, scratch)
                rows.add(got.output, image if got.why is None else "", record)
                done(got)
        bundle.put_file(MANIFEST, table)


def _places(output: Output) -> tuple[str, str]:
    day = day_of(output)
    job = output.file_name.partition(".")[0]
    return f"images/{day}/{output.file_name}", f"records/{day}/{job}.json"


def _firsts(outputs: Iterable[Output]) -> Iterator[tuple[Output, bool]]:
    """Yield outputs, and whether each is the first of its job: those of a job follow each other."""
    job = None
    for output in outputs:
        yield output, output.job_id != job
        job = output.job_id


def _fetch(
    darkroom: Darkroom, output: Output, folder: Path, stop: threading.Event, *, record: bool
) -> Fetched:
    def on_bytes(_length: int) -> None:
        if stop.is_set():
            raise InterruptedError

    image, _ = _places(output)
    path = folder / image
    found = None
    try:
        found = darkroom.record(output.id) if record else None
        darkroom.download(output, path.parent, on_bytes=on_bytes)
    except (ApiError, Damaged) as error:
        if isinstance(error, ApiError) and error.status in FATAL:
            raise
        return Fetched(output, path, found, str(error))
    return Fetched(output, path, found)


class Zip:
    """A ZIP file with uncompressed images; ZIP64 where it is large."""

    def __init__(self, file: zipfile.ZipFile, folder: Path) -> None:
        self.folder = folder
        self._file = file

    def put_image(self, name: str, path: Path, output: Output) -> None:
        """Add an image, and remove its file."""
        at = datetime.fromisoformat(output.stored_at)
        self._copy(name, path, at)
        path.unlink()

    def put_file(self, name: str, path: Path) -> None:
        """Add a copy of another file."""
        self._copy(name, path, datetime.fromtimestamp(path.stat().st_mtime).astimezone())

    def _copy(self, name: str, path: Path, at: datetime) -> None:
        # The format begins in 1980.
        entry = zipfile.ZipInfo(name, max(at.timetuple()[:6], (1980, 1, 1, 0, 0, 0)))
        entry.external_attr = 0o644 << 16
        entry.file_size = path.stat().st_size
        with path.open("rb") as source, self._file.open(entry, "w") as target:
            shutil.copyfileobj(source, target, 1 << 20)


@contextmanager
def open_zip(draft: Path) -> Iterator[Zip]:
    """Write a ZIP file; downloads are in a temporary folder beside it until they are added."""
    with (
        tempfile.TemporaryDirectory(
            prefix=f".{draft.name}.", dir=draft.parent, ignore_cleanup_errors=True
        ) as folder,
        zipfile.ZipFile(draft, "w", zipfile.ZIP_STORED) as file,
    ):
        yield Zip(file, Path(folder))


class Bag:
    """A BagIt folder, whose manifest has the SHA-256 of every file below `data/`.

    A run continues with the files of an earlier one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        self._root = folder
        self._bytes, self._files = 0, 0
        self._old = self.folder.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._manifest = (folder / "manifest-sha256.txt").open("w", encoding="utf-8")

    def put_image(self, name: str, path: Path, output: Output) -> None:
        """Add an image, which is in its place already and was verified."""
        self._note(name, output.sha256, path.stat().st_size)

    def put_file(self, name: str, path: Path) -> None:
        """Add a copy of another file."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        self._note(name, digest_of(target), target.stat().st_size)

    def finish(self, info: Mapping[str, str]) -> None:
        """Write the tag files; `info` goes into `bag-info.txt`."""
        self._manifest.close()
        if self._old:
            self._clean()
        oxum = {"Payload-Oxum": f"{self._bytes}.{self._files}"}
        lines = [f"{name}: {' '.join(value.split())}\n" for name, value in {**info, **oxum}.items()]
        told = "BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"
        (self._root / "bagit.txt").write_text(told, encoding="utf-8")
        (self._root / "bag-info.txt").write_text("".join(lines), encoding="utf-8")
        names = ("bag-info.txt", "bagit.txt", "manifest-sha256.txt")
        tags = "".join(f"{digest_of(self._root / name)}  {name}\n" for name in names)
        (self._root / "tagmanifest-sha256.txt").write_text(tags, encoding="utf-8")

    def close(self) -> None:
        """Close the open files, after a run that was cut short."""
        self._manifest.close()

    def _note(self, name: str, sha256: str, length: int) -> None:
        self._manifest.write(f"{sha256}  data/{name}\n")
        self._bytes += length
        self._files += 1

    def _clean(self) -> None:
        """Remove the files of an earlier run that this one does not have."""
        text = (self._root / "manifest-sha256.txt").read_text(encoding="utf-8")
        ours = {line.partition("  ")[2] for line in text.splitlines()}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_file() and path.relative_to(self._root).as_posix() not in ours:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
