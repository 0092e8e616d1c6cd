"""`darkroom export`: write the images that a query finds as a table, a ZIP file or a BagIt bag."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from receiver.cli import options
from receiver.cli.connection import Connection
from receiver.cli.console import FAILED, MISUSED, STOPPED, count, escaped, fail, plain, progress, say, some
from receiver.cli.query_args import Words, query_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from receiver.client import Darkroom
    from receiver.export.bundles import Bundle, Fetched
    from receiver.export.tables import Rows


class Format(StrEnum):
    """The formats."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ZIP = "zip"
    BAGIT = "bagit"


_BY_ENDING = {f".{kind}": kind for kind in Format if kind is not Format.BAGIT}
SHOWN = 10

AsFormat = Annotated[
    Format | None,
    options.option(
        "csv, jsonl and parquet are tables; zip and bagit contain the images and records too. By default "
        "the extension of FILE decides.",
        *("FORMAT", "--format"),
    ),
]
ToFile = Annotated[
    Path | None,
    options.option(
        "The file to write; a folder for bagit. By default csv and jsonl go to standard output.",
        *("FILE", "--to"),
    ),
]
Bom = Annotated[
    bool,
    options.flag(
        "Write csv for Excel: with a byte order mark, so that it reads UTF-8, and a single quote in front of "
        "what it would change, such as the digits of a long seed.",
        "--bom",
    ),
]
Overwrite = Annotated[
    bool, options.flag("Replace FILE if it exists; a bag is never replaced.", "--overwrite")
]


def export(
    words: Words = None,
    *,
    form: AsFormat = None,
    to: ToFile = None,
    every: options.Every = False,
    filters: options.ImageFilters,
    bom: Bom = False,
    overwrite: Overwrite = False,
    jobs: options.AtOnce = 4,
    connection: Connection,
) -> None:
    """Export what a query finds: a table, or a bundle with images and records.

    FILE appears when it is complete. An interrupted bag continues where it
    stopped: run the same command again.

    In csv, a value that a spreadsheet would run as a formula, because it
    begins with = + - @ or a line end, gets a single quote in front; jsonl
    and parquet have every value unchanged. `darkroom submit --file` takes a
    csv or jsonl export, to make the images again by their gateway, model,
    prompt, seed and tags.
    """
    wanted = filters.query(q=query_text(words))
    if bool(wanted) == every:
        fail("Say what to export: give a query, or --all.", MISUSED)
    kind = _format(form, to)
    if to is not None and to.exists():
        replaceable = not to.is_dir() and kind is not Format.BAGIT
        if not (replaceable and overwrite):
            fail(f"{to} already exists{'; --overwrite replaces it' if replaceable else ''}.", MISUSED)
    if bom and kind is not Format.CSV:
        fail("--bom only works with csv.", MISUSED)
    with connection.open() as darkroom:
        run = _Run(darkroom, wanted, to, jobs, "utf-8-sig" if bom else "utf-8", overwrite)
        try:
            run(kind)
        except KeyboardInterrupt:
            bag = kind is Format.BAGIT
            kept = "Run the same command again to continue." if bag else "Nothing was kept."
            say(f"\nStopped.{f' {kept}' if to else ''}")
            raise typer.Exit(STOPPED) from None
    run.report()


def _format(form: Format | None, to: Path | None) -> Format:
    kind = form or (_BY_ENDING.get(to.suffix.lower()) if to else None)
    if kind is None:
        fail("Say which format to write: give --format, or --to with a file extension.", MISUSED)
    if to is None and kind not in {Format.CSV, Format.JSONL}:
        fail(f"{kind} needs --to.", MISUSED)
    return kind


@dataclass(slots=True)
class _Run:
    """One export, with its counts."""

    darkroom: Darkroom
    wanted: Mapping[str, str]
    to: Path | None
    jobs: int
    encoding: str
    overwrite: bool
    done: int = 0
    failed: list[str] = field(default_factory=list)

    @property
    def on_terminal(self) -> bool:
        """Return whether the table is shown on a terminal."""
        return self.to is None and sys.stdout.isatty()

    def __call__(self, kind: Format) -> None:
        """Write the file in the requested format."""
        with progress(quiet=self.on_terminal) as bar:
            total = None if bar.disable else _total(self.darkroom, self.wanted)
            task = bar.add_task("Exporting", total=total)
            match kind:
                case Format.CSV | Format.JSONL:
                    with self._text() as file:
                        self._rows(self._table(kind, file), bar, task)
                case Format.PARQUET:
                    with self._draft() as path:
                        self._rows(_parquet(path), bar, task)
                case Format.ZIP:
                    from receiver.export.bundles import open_zip

                    with self._draft() as path, open_zip(path) as bundle:
                        self._fill(bundle, bar, task)
                case Format.BAGIT:
                    self._bag(bar, task)

    def report(self) -> None:
        """Print how much was exported; exit with 1 if an image could not be downloaded."""
        missing = f"; {len(self.failed)} could not be downloaded" if self.failed else ""
        where = f" to {self.to}" if self.to else ""
        say(f"Exported {count(self.done, 'image')}{where}{missing}.")
        if self.failed:
            say("\n".join(some(self.failed, SHOWN)), "red")
            raise typer.Exit(FAILED)

    def _rows(self, rows: Rows, bar: Progress, task: TaskID) -> None:
        for output in self.darkroom.search(limit=None, **self.wanted):
            rows.add(output)
            self.done += 1
            bar.advance(task)
        rows.close()

    def _table(self, kind: Format, file: IO[str]) -> Rows:
        from receiver.export.tables import CsvRows, JsonRows

        if kind is Format.JSONL:
            return JsonRows(file, shown=escaped if self.on_terminal else str)
        shown = plain if self.on_terminal else str
        return CsvRows(file, shown=shown, numbers=self.encoding == "utf-8-sig")

    def _fill(self, bundle: Bundle, bar: Progress, task: TaskID) -> None:
        from receiver.export.bundles import fill

        def count_one(got: Fetched) -> None:
            self.done += 1
            if got.why is not None:
                self.failed.append(f"  {got.output.id}: {got.why}")
            bar.advance(task)

        outputs = self.darkroom.search(limit=None, **self.wanted)
        fill(bundle, self.darkroom, outputs, jobs=self.jobs, done=count_one)

    def _bag(self, bar: Progress, task: TaskID) -> None:
        from receiver.export.bundles import Bag

        assert self.to is not None
        part = self.to.with_name(f".{self.to.name}.part")
        with closing(Bag(part)) as bag:
            self._fill(bag, bar, task)
        query = " ".join(f"{name}={value}" for name, value in self.wanted.items()) or "everything"
        description = f"Archived images of the Darkroom at {self.darkroom.url}, found by {query}"
        bag.finish(
            {
                "Bag-Software-Agent": "darkroom export",
                "Bagging-Date": datetime.now(UTC).date().isoformat(),
                "External-Description": description,
            }
        )
        part.rename(self.to)

    @contextmanager
    def _text(self) -> Iterator[IO[str]]:
        if self.to is None:
            file = io.TextIOWrapper(
                sys.stdout.buffer, self.encoding, newline="", errors="replace", write_through=True
            )
            try:
                yield file
            finally:
                file.detach()
            return
        with self._draft() as path, path.open("w", -1, self.encoding, "replace", "") as text:
            yield text

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """Open a temporary file that is renamed at the end, or else removed."""
        from receiver.client.download import appear

        assert self.to is not None
        self.to.parent.mkdir(parents=True, exist_ok=True)
        draft = self.to.with_name(f".{self.to.name}.{os.getpid()}.part")
        try:
            yield draft
            appear(draft, self.to, over=self.overwrite)
        finally:
            draft.unlink(missing_ok=True)


def _parquet(path: Path) -> Rows:
    from receiver.export.tables import NoParquet, ParquetRows

    try:
        return ParquetRows(path)
    except NoParquet:
        fail("Parquet needs pyarrow, which is not installed: pip install 'pyarrow>=22'.")


def _total(darkroom: Darkroom, wanted: Mapping[str, str]) -> int | None:
    """Return how many images there are, for the progress bar; None if that is not known exactly."""
    from receiver.client import ClientError

    try:
        facets = darkroom.facets(**wanted)
    except ClientError:
        # If something is wrong, the export itself fails.
        return None
    return facets.counted if facets.complete else None
