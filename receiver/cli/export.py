"""`darkroom export`: write the images that a query finds as a table, a ZIP file or a BagIt bag."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from receiver.cli import options
from receiver.cli.connection import Connection
from receiver.cli.console import FAILED, MISUSED, STOPPED, count, escaped, fail, plain, progress, say
from receiver.cli.query_args import Words, query_text

if TYPE_CHECKING:
    from receiver.client import Darkroom
    from receiver.export.bundles import Fetched
    from receiver.export.tables import Rows
    from receiver.schemas.output import Output


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
    bool, options.option("Begin csv with a byte order mark, so that Excel reads it as UTF-8.", None, "--bom")
]
Overwrite = Annotated[
    bool, options.option("Replace FILE if it exists; a bag is never replaced.", None, "--overwrite")
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
    and parquet have every value unchanged.
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
    run = _Run(to, jobs=jobs, bom=bom, overwrite=overwrite)
    with connection.open() as darkroom:
        try:
            run(darkroom, wanted, kind)
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


class _Run:
    """One export, with its counts."""

    def __init__(self, to: Path | None, *, jobs: int, bom: bool, overwrite: bool) -> None:
        self._to, self._jobs, self._bom, self._overwrite = to, jobs, bom, overwrite
        self._done = 0
        self._failed: list[str] = []

    def __call__(self, darkroom: Darkroom, wanted: Mapping[str, str], kind: Format) -> None:
        """Write the file in the requested format."""
        with _bar(
            lambda: _total(darkroom, wanted), quiet=self._to is None and sys.stdout.isatty()
        ) as advance:
            outputs = darkroom.search(limit=None, **wanted)
            match kind:
                case Format.CSV | Format.JSONL:
                    with self._text() as file:
                        self._rows(self._table(kind, file), outputs, advance)
                case Format.PARQUET:
                    with self._draft() as path:
                        self._rows(_parquet(path), outputs, advance)
                case Format.ZIP:
                    self._zip(darkroom, outputs, advance)
                case Format.BAGIT:
                    self._bag(darkroom, outputs, advance, wanted)

    def report(self) -> None:
        """Print how much was exported; exit with 1 if an image could not be downloaded."""
        missing = f"; {len(self._failed)} could not be downloaded" if self._failed else ""
        where = f" to {self._to}" if self._to else ""
        say(f"Exported {count(self._done, 'image')}{where}{missing}.")
        if self._failed:
            more = [f"  and {len(self._failed) - SHOWN} more"] if len(self._failed) > SHOWN else []
            say("\n".join([*self._failed[:SHOWN], *more]), "red")
            raise typer.Exit(FAILED)

    def _rows(self, rows: Rows, outputs: Iterator[Output], advance: Callable[[], None]) -> None:
        for output in outputs:
            rows.add(output)
            self._done += 1
            advance()
        rows.close()

    def _table(self, kind: Format, file: IO[str]) -> Rows:
        from receiver.export.tables import CsvRows, JsonRows

        terminal = self._to is None and sys.stdout.isatty()
        if kind is Format.JSONL:
            return JsonRows(file, shown=escaped if terminal else str)
        return CsvRows(file, shown=plain if terminal else str)

    def _zip(self, darkroom: Darkroom, outputs: Iterator[Output], advance: Callable[[], None]) -> None:
        from receiver.export.bundles import fill, open_zip

        with self._draft() as path, open_zip(path) as bundle:
            fill(bundle, darkroom, outputs, jobs=self._jobs, done=lambda got: self._note(got, advance))

    def _bag(
        self,
        darkroom: Darkroom,
        outputs: Iterator[Output],
        advance: Callable[[], None],
        wanted: Mapping[str, str],
    ) -> None:
        from receiver.export.bundles import Bag, fill

        assert self._to is not None
        part = _part(self._to)
        bag = Bag(part)
        try:
            fill(bag, darkroom, outputs, jobs=self._jobs, done=lambda got: self._note(got, advance))
        finally:
            bag.close()
        query = " ".join(f"{name}={value}" for name, value in wanted.items()) or "everything"
        info = {
            "Bag-Software-Agent": "darkroom export",
            "Bagging-Date": datetime.now(UTC).date().isoformat(),
            "External-Description": f"Archived images of the Darkroom at {darkroom.url}, found by {query}",
        }
        bag.finish(info)
        part.rename(self._to)

    def _note(self, got: Fetched, advance: Callable[[], None]) -> None:
        self._done += 1
        if got.why is not None:
            self._failed.append(f"  {got.output.id}: {got.why}")
        advance()

    @contextmanager
    def _text(self) -> Iterator[IO[str]]:
        if self._to is None:
            file = io.TextIOWrapper(
                sys.stdout.buffer, "utf-8", newline="", errors="replace", write_through=True
            )
            try:
                self._begin(file)
                yield file
            finally:
                file.detach()
            return
        with self._draft() as path, path.open("w", encoding="utf-8", newline="", errors="replace") as file:
            self._begin(file)
            yield file

    def _begin(self, file: IO[str]) -> None:
        if self._bom:
            file.write("\ufeff")

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """Open a temporary file that is renamed at the end, or else removed."""
        from receiver.client.download import appear

        assert self._to is not None
        self._to.parent.mkdir(parents=True, exist_ok=True)
        draft = self._to.with_name(f".{self._to.name}.{os.getpid()}.part")
        try:
            yield draft
            appear(draft, self._to, over=self._overwrite)
        finally:
            draft.unlink(missing_ok=True)


def _part(to: Path) -> Path:
    return to.with_name(f".{to.name}.part")


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


@contextmanager
def _bar(total: Callable[[], int | None], *, quiet: bool) -> Iterator[Callable[[], None]]:
    with progress(quiet=quiet) as bar:
        task = bar.add_task("Exporting", total=None if bar.disable else total())
        yield lambda: bar.advance(task)
