"""Read the jobs of a CSV or JSON lines file; errors name the line."""

import codecs
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from receiver.cli.csv_rows import read_csv
from receiver.cli.pairs import BadInput, no_constant
from receiver.cli.rows import COLUMNS, GROUPS, Row, from_export, is_export, unknown_names

ENCODINGS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""By the byte order mark at the beginning; those of UTF-32 first, because one begins like UTF-16's."""


def read_json_lines(text: str, *, ignore_unknown: bool = False) -> list[Row]:
    """Parse a JSON object from each line that is not blank."""
    # Not `splitlines`, which also splits at U+2028, and a prompt may contain that.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    return [Row(number, _from_json(number, line, ignore_unknown=ignore_unknown)) for number, line in lines]


def read_any(text: str, *, ignore_unknown: bool = False) -> list[Row]:
    """Parse JSON lines if the text begins with a brace, else CSV."""
    read = read_json_lines if text.lstrip().startswith("{") else read_csv
    return read(text, ignore_unknown=ignore_unknown)


def read_bytes(file: str) -> bytes:
    """Read a file whose format is known by its extension; `-` is standard input."""
    _reader(file)
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None


def read_rows(file: str, raw: bytes, *, ignore_unknown: bool = False) -> list[Row]:
    """Parse a file's bytes by its extension; `-` is in either format.

    `ignore_unknown` leaves out columns that no job has, instead of raising BadInput.
    """
    return _reader(file)(_decoded(raw), ignore_unknown=ignore_unknown)


def _decoded(raw: bytes) -> str:
    encoding = _encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line, name = raw[: error.start].count(b"\n") + 1, encoding.removesuffix("-sig").upper()
        raise BadInput(f"line {line}: not {name}; save the file as UTF-8") from None


def _encoding(raw: bytes) -> str:
    for mark, name in ENCODINGS.items():
        if raw.startswith(mark):
            return name
    # Some programs write UTF-16 without its mark; a file begins with a character of ASCII.
    if raw[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if raw[:1] == b"\0" else "utf-8-sig"


def _reader(file: str) -> Callable[..., list[Row]]:
    readers = {
        ".csv": read_csv, ".tsv": read_csv, ".jsonl": read_json_lines, ".ndjson": read_json_lines,
    }  # fmt: skip
    read = read_any if file == "-" else readers.get(Path(file).suffix.lower())
    if read is None:
        raise BadInput(f"{file} must end in .csv, .tsv or .jsonl")
    return read


def merge(defaults: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """Add the command line's options to the rows of a file; a row's own value wins."""
    return [Row(row.line, _over(defaults, row.fields)) for row in rows]


def _from_json(number: int, line: str, *, ignore_unknown: bool) -> dict[str, Any]:
    try:
        fields = json.loads(line, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        raise BadInput(f"line {number}: not JSON, from column {error.colno} on") from None
    except ValueError as error:  # of ours
        raise BadInput(f"line {number}: not JSON: {error}") from None
    except RecursionError:
        raise BadInput(f"line {number}: nested too deeply") from None
    if not isinstance(fields, dict):
        raise BadInput(f"line {number}: not a JSON object")
    if is_export(fields):
        return from_export(fields)
    known = (*COLUMNS, *GROUPS)
    unknown = [name for name in fields if name not in known]
    if unknown and not ignore_unknown:
        raise BadInput(f"line {number}: {unknown_names('field', unknown)}")
    return {name: value for name, value in fields.items() if name in known}


def _over(defaults: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **fields}
    for group in GROUPS:
        mine, theirs = fields.get(group), defaults.get(group)
        if isinstance(mine, dict) and theirs:
            merged[group] = {**theirs, **mine}
    return merged
