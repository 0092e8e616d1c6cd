"""Parse jobs from CSV or JSON lines, and from `--param` and `--tag`; errors name the line."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEXTS = ("gateway", "model", "prompt", "negative_prompt", "aspect_ratio", "seed", "notify_url")
COLUMNS = (*TEXTS, "num_images", "unsupported", "idempotency_key")
GROUPS = ("params", "tags")


class BadInput(Exception):
    """The input is malformed; the message has a line for each error."""


@dataclass(frozen=True, slots=True)
class Row:
    """One job to submit: `fields` as `Darkroom.submit` takes them. `line` counts from 1."""

    line: int
    fields: Mapping[str, Any]


def read_csv(text: str) -> list[Row]:
    """Parse CSV whose first line names the columns; an empty cell means no value."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(header)
        before = reader.line_num
        for cells in reader:
            line, before = before + 1, reader.line_num
            if len(cells) > len(header):
                raise BadInput(f"line {line}: {len(cells)} cells, but only {len(header)} columns")
            if any(part.strip() for part in cells):
                rows.append(Row(line, _from_cells(line, dict(zip(header, cells, strict=False)))))
    except csv.Error as error:
        raise BadInput(f"line {reader.line_num}: {error}") from None
    return rows


def read_json_lines(text: str) -> list[Row]:
    """Parse a JSON object from each line that is not blank."""
    # Not `splitlines`, which also splits at U+2028, and a prompt may contain that.
    lines = enumerate(text.split("\n"), start=1)
    return [Row(number, _from_json(number, line)) for number, line in lines if line.strip()]


def read_any(text: str) -> list[Row]:
    """Parse JSON lines if the text begins with a brace, else CSV."""
    return read_json_lines(text) if text.lstrip().startswith("{") else read_csv(text)


def read_bytes(file: str) -> bytes:
    """Read a file whose format is known by its extension; `-` is standard input."""
    _reader(file)
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None


def read_rows(file: str, raw: bytes) -> list[Row]:
    """Parse a file's bytes by its extension; `-` is in either format."""
    try:
        return _reader(file)(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadInput(f"line {line}: not UTF-8") from None


def _reader(file: str) -> Callable[[str], list[Row]]:
    readers = {".csv": read_csv, ".jsonl": read_json_lines, ".ndjson": read_json_lines}
    read = read_any if file == "-" else readers.get(Path(file).suffix.lower())
    if read is None:
        raise BadInput(f"{file} must end in .csv or .jsonl")
    return read


def merge(defaults: Mapping[str, Any], rows: Sequence[Row]) -> list[Row]:
    """Add the command line's options to the rows of a file; a row's own value wins."""
    return [Row(row.line, _over(defaults, row.fields)) for row in rows]


def nested(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """Parse `k=v` pairs: `a.b=1` is `{"a": {"b": 1}}`; a value that is JSON is parsed as JSON."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, value = _split(pair, option)
        _put(found, name.split("."), _json_or_text(value), f"{option} {pair}")
    return found


def flat(pairs: Sequence[str], option: str) -> dict[str, str]:
    """Parse `k=v` pairs whose values stay text."""
    return dict(_split(pair, option) for pair in pairs)


def _check_columns(header: Sequence[str]) -> None:
    if not header:
        raise BadInput("line 1: no columns; name them in the first line")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise BadInput(f"line 1: column {', '.join(repeated)} appears twice")
    if unknown := [name for name in header if not _known(name)]:
        use = ", ".join((*COLUMNS, "params.<name>", "tags.<name>"))
        raise BadInput(f"line 1: unknown column {', '.join(map(repr, unknown))}; use {use}")


def _known(name: str) -> bool:
    group, dot, rest = name.partition(".")
    return name in COLUMNS or bool(dot and rest and group in GROUPS)


def _from_cells(line: int, cells: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, text in cells.items():
        group, _, rest = name.partition(".")
        if not text.strip():
            continue
        if group == "params":
            params = fields.setdefault("params", {})
            _put(params, rest.split("."), _json_or_text(text), f"line {line}: {name}")
        elif group == "tags":
            fields.setdefault("tags", {})[rest] = text
        elif name == "num_images":
            fields[name] = _number(text)
        elif name == "seed":
            fields[name] = _whole(text)
        else:
            fields[name] = text
    return fields


def _from_json(number: int, line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line, parse_constant=_no_constant)
    except ValueError as error:
        raise BadInput(f"line {number}: not JSON: {error}") from None
    except RecursionError:
        raise BadInput(f"line {number}: nested too deeply") from None
    if not isinstance(fields, dict):
        raise BadInput(f"line {number}: not a JSON object")
    if unknown := [name for name in fields if name not in (*COLUMNS, *GROUPS)]:
        use = ", ".join((*COLUMNS, *GROUPS))
        raise BadInput(f"line {number}: unknown field {', '.join(map(repr, unknown))}; use {use}")
    return fields


def _whole(text: str) -> str:
    """Return a whole number without the `.0` that some programs write; any other text unchanged."""
    found = re.fullmatch(r"\s*([+-]?[0-9]+)(?:[.,]0+)?\s*", text)
    return found[1] if found else text


def _number(text: str) -> int | str:
    """Return a whole number; any other text is left for the service to refuse."""
    digits = _whole(text)
    return int(digits) if re.fullmatch("[+-]?[0-9]{1,9}", digits) else text


def _split(pair: str, option: str) -> tuple[str, str]:
    name, sign, value = pair.partition("=")
    if not sign or not name or not all(name.split(".")):
        raise BadInput(f"{option} {pair}: must be name=value")
    return name, value


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _put(target: dict[str, Any], path: Sequence[str], value: Any, where: str) -> None:
    *groups, name = path
    for group in groups:
        target = target.setdefault(group, {})
        if not isinstance(target, dict):
            raise BadInput(f"{where}: {group} already has a value")
    if name in target:
        raise BadInput(f"{where}: {name} already has a value")
    target[name] = value


def _over(defaults: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **fields}
    for group in GROUPS:
        mine, theirs = fields.get(group), defaults.get(group)
        if isinstance(mine, dict) and theirs:
            merged[group] = {**theirs, **mine}
    return merged
