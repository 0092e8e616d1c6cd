"""Write outputs as rows of CSV, JSON lines or Parquet, streaming."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from receiver.export.spreadsheet import guarded
from receiver.schemas.output import Output

GROUP = 5000
"""Rows of a Parquet row group, which are in memory until it is full."""


class NoParquet(Exception):
    """The library that writes Parquet is not installed."""


class Rows(ABC):
    """A writer of rows."""

    @abstractmethod
    def add(self, output: Output) -> None:
        """Write an output's row."""

    def close(self) -> None:  # noqa: B027 - most buffer nothing
        """Write what is buffered."""


FIELDS: Mapping[str, str] = {
    "id": "text",
    "job_id": "text",
    "index": "number",
    "stored_at": "time",
    **dict.fromkeys(("gateway", "model", "model_requested", "prompt", "seed", "seed_requested"), "text"),
    "media_type": "text",
    **dict.fromkeys(("width", "height", "bytes"), "number"),
    **dict.fromkeys(("sha256", "key", "version_id"), "text"),
    "tags": "tags",
}
"""The columns: fields of an output that may be None, and the type of each."""


class CsvRows(Rows):
    """CSV (RFC 4180); tags are JSON. Values that a spreadsheet would run get a quote in front."""

    def __init__(
        self,
        file: IO[str],
        *,
        shown: Callable[[str], str] = str,
        more: tuple[str, ...] = (),
        numbers: bool = False,
    ) -> None:
        """`shown` is applied to every text; `more` are columns whose values `add` gets.

        `numbers`: also put a quote in front of texts that a spreadsheet would change, such as long digits.
        """
        self._writer = csv.writer(file)
        self._shown = shown
        self._numbers = numbers
        self._writer.writerow([*FIELDS, *more])

    def add(self, output: Output, *more: str) -> None:
        """Write an output's row."""
        values = [self._cell(getattr(output, name)) for name in FIELDS]
        self._writer.writerow([*values, *more])

    def _cell(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = json.dumps(dict(value), ensure_ascii=False)
        if isinstance(value, str):
            return guarded(self._shown(value), numbers=self._numbers)
        return value


class JsonRows(Rows):
    """JSON lines: each output as the API returns it."""

    def __init__(self, file: IO[str], *, shown: Callable[[str], str] = str) -> None:
        """`shown` is applied to every line, and may only write characters as JSON escapes."""
        self._file = file
        self._shown = shown

    def add(self, output: Output) -> None:
        """Write an output's line."""
        self._file.write(self._shown(json.dumps(output.model_dump(mode="json"), ensure_ascii=False)) + "\n")


class ParquetRows(Rows):
    """Parquet with typed columns: times in UTC, whole numbers, tags as a map."""

    def __init__(self, path: Path) -> None:
        """Raises NoParquet if `pyarrow` is not installed."""
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError:
            raise NoParquet from None
        kinds = {
            "text": arrow.string(),
            "number": arrow.int64(),
            "time": arrow.timestamp("ms", tz="UTC"),
            "tags": arrow.map_(arrow.string(), arrow.string()),
        }
        self._arrow: Any = arrow
        self._schema = arrow.schema([(name, kinds[kind]) for name, kind in FIELDS.items()])
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._waiting: list[dict[str, Any]] = []

    def add(self, output: Output) -> None:
        """Add an output's row; it is written once its group is full."""
        self._waiting.append({name: _typed(kind, getattr(output, name)) for name, kind in FIELDS.items()})
        if len(self._waiting) >= GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last group, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(self._arrow.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting = []


def _typed(kind: str, value: Any) -> Any:
    match kind:
        case "time":
            return datetime.fromisoformat(value)
        case "tags":
            return list(value.items())
        case _:
            return value
