"""Parse jobs from CSV as spreadsheets and other programs write it, and as `darkroom export` does.

Cells are divided by commas, semicolons, tabs or bars, whichever the header shows. Names of columns are in any
case, and with spaces or dashes for underscores.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from receiver.cli.console import count
from receiver.cli.pairs import BadInput, json_or_text, put
from receiver.cli.rows import COLUMNS, EXPORTED, GROUPS, Row, from_export, is_export, unknown_names
from receiver.export.spreadsheet import unguarded

DELIMITERS = ",;\t|"
HEADER_CHARS = 100_000
"""The most characters of the lines that name the columns."""
_MALFORMED = {
    "unexpected end": 'a quote (") is opened here and never closed',
    "expected after": 'text follows a closing quote; within quotes, write a quote twice ("")',
    "field limit": "a cell is too long; perhaps a quote is not closed",
}
"""What an error of the `csv` module means, by words in it."""
_SEP = re.compile(r'"?sep=(.)"?[,;\t|]*\s*', re.IGNORECASE)
"""A first line that Excel writes and reads to say what divides the cells."""


def read_csv(text: str, *, ignore_unknown: bool = False) -> list[Row]:
    """Parse CSV whose first line names the columns; an empty cell means no value."""
    delimiter, skipped = _delimiter(text)
    file = io.StringIO(text, newline="")
    for _ in range(skipped):
        file.readline()
    lines = _lines(csv.reader(file, delimiter=delimiter, strict=True), skipped)
    line, names = next(lines, (skipped + 1, []))
    header = [_column(name) for name in names]
    return list(_rows(lines, header, _wanted(header, line, ignore_unknown=ignore_unknown)))


def _lines(reader: Any, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row, and the line in which it begins. Raises BadInput."""
    while True:
        line = reader.line_num + 1 + skipped
        try:
            cells = next(reader, None)
        except csv.Error as error:
            plain = (told for words, told in _MALFORMED.items() if words in str(error))
            raise BadInput(f"line {line}: {next(plain, 'cannot be read as CSV')}") from None
        if cells is None:
            return
        yield line, cells


def _rows(
    lines: Iterator[tuple[int, list[str]]], header: Sequence[str], wanted: Sequence[bool]
) -> Iterator[Row]:
    exported = is_export(header)
    for line, cells in lines:
        if any(text.strip() for text in cells[len(header) :]):
            raise BadInput(f"line {line}: {len(cells)} cells, but only {count(len(header), 'column')}")
        if any(not name and text.strip() for name, text in zip(header, cells, strict=False)):
            raise BadInput(f"line {line}: has a cell in a column without a name")
        if not any(text.strip() for text in cells):
            continue
        named = {name: text for name, text, used in zip(header, cells, wanted, strict=False) if used}
        if exported:
            named = {name: unguarded(text) for name, text in named.items()}
        fields = _from_cells(line, named)
        yield Row(line, from_export(fields) if exported else fields)


def _delimiter(text: str) -> tuple[str, int]:
    """Return what divides the cells, and how many lines are before the header."""
    first, _, _ = text[:HEADER_CHARS].partition("\n")
    if found := _SEP.fullmatch(first):
        return found[1], 1
    return max(DELIMITERS, key=lambda one: _names(text[:HEADER_CHARS], one)), 0


def _names(text: str, delimiter: str) -> int:
    """Return how many known names the header has, if this divides its cells."""
    try:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return 0
    return sum(_known(_column(name)) for name in header)


def _column(text: str) -> str:
    name = text.strip("\ufeff \t\r\n\xa0")
    group, dot, rest = name.partition(".")
    if dot and group.strip().lower() in GROUPS:
        return f"{group.strip().lower()}.{rest.strip()}"
    plain = re.sub(r"[\s_-]+", "_", name).lower()
    return plain if plain in (*COLUMNS, *GROUPS) else name


def _known(name: str) -> bool:
    group, dot, rest = name.partition(".")
    return name in (*COLUMNS, *GROUPS) or bool(dot and rest and group in GROUPS)


def _wanted(header: Sequence[str], line: int, *, ignore_unknown: bool) -> list[bool]:
    """Return which columns are read. Raises BadInput for unknown and repeated ones."""
    if not any(header):
        raise BadInput(f"line {line}: no columns; name them in the first line")
    exported = is_export(header)
    wanted = [_known(name) or (exported and name in EXPORTED) for name in header]
    named = [name for name, used in zip(header, wanted, strict=True) if used]
    if repeated := sorted({name for name in named if named.count(name) > 1}):
        raise BadInput(f"line {line}: column {', '.join(repeated)} appears twice")
    unknown = [name for name, used in zip(header, wanted, strict=True) if name and not used]
    if unknown and not (exported or ignore_unknown):
        told = "" if any(wanted) else "the first line must name the columns, such as prompt and seed; "
        raise BadInput(f"line {line}: {told}{unknown_names('column', unknown)}")
    return wanted


def _from_cells(line: int, cells: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, text in cells.items():
        group, dot, rest = name.partition(".")
        if not text.strip():
            continue
        if name in GROUPS:
            fields.setdefault(name, {}).update(_object(text, f"line {line}: {name}"))
        elif dot and group == "params":
            put(fields.setdefault("params", {}), rest.split("."), json_or_text(text), f"line {line}: {name}")
        elif dot and group == "tags":
            fields.setdefault("tags", {})[rest] = text
        elif name == "num_images":
            fields[name] = number(text)
        elif name == "seed":
            fields[name] = _whole(text)
        else:
            fields[name] = text
    return fields


def _object(text: str, where: str) -> dict[str, Any]:
    found = json_or_text(text)
    if not isinstance(found, dict):
        raise BadInput(f"{where}: must be a JSON object")
    return found


def _whole(text: str) -> str:
    """Return a whole number without the `.0` that some programs write; any other text unchanged."""
    found = re.fullmatch(r"\s*([+-]?[0-9]+)(?:[.,]0+)?\s*", text)
    return found[1] if found else text


def number(text: str) -> int | str:
    """Return a whole number; any other text is left for the service to refuse."""
    digits = _whole(text)
    return int(digits) if re.fullmatch("[+-]?[0-9]{1,9}", digits) else text
