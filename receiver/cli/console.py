"""What the commands print: text without surprises, tables that fit, JSON, and errors without tracebacks.

Data goes to standard output, and everything else to standard error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

FAILED, MISUSED, UNREACHABLE = 1, 2, 3
"""Exit codes besides 0."""

PIPED_WIDTH = 2000
"""Columns where no terminal is there: what is piped on must not be cut."""

GAP = 2
LEAST_TEXT = 12
"""What is left of a long text where space is short, in columns."""

_SPACES = re.compile(r"[\t\n\v\f\r\u0085\u2028\u2029]+")
# Controls would move the cursor or change colours; the others turn the order of the letters around.
_HOSTILE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STYLES = {"archived": "green", "partial": "yellow", "failed": "red", "running": "cyan", "ready": "cyan"}


def out() -> Console:
    """Standard output."""
    return _console(stderr=False)


def err() -> Console:
    """Standard error."""
    return _console(stderr=True)


def plain(text: str) -> str:
    """A text from outside on one line, with control characters shown and not obeyed."""
    return _HOSTILE.sub(lambda sign: f"\\u{ord(sign[0]):04x}", _SPACES.sub(" ", text))


def cell(value: object, style: str = "") -> Text:
    """A value from outside for a table or a line, free of markup; None is a dash."""
    return Text("-", "dim") if value is None else Text(plain(str(value)), style)


def status_cell(status: str) -> Text:
    """A job's status in its colour."""
    return cell(status, _STYLES.get(status, ""))


def say(message: str, style: str = "") -> None:
    """Tell a person something on standard error."""
    err().print(Text(_visible(message), style))


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say what went wrong, and end with an exit code."""
    err().print(Text.assemble(("Error: ", "bold red"), _visible(message)))
    raise typer.Exit(code)


def api_json(answer: Any) -> dict[str, Any]:
    """Return a job, an image or a report of the client as the JSON that the API sent."""
    return dict(answer.raw)


def print_json(value: Any) -> None:
    """Print JSON and nothing else; characters that a terminal would obey are escaped."""
    sys.stdout.write(escaped(json.dumps(value, ensure_ascii=False, indent=2)) + "\n")


def escaped(text: str) -> str:
    """JSON with the characters escaped that a terminal would obey."""
    return _HOSTILE.sub(_escape, text)


def print_json_line(value: Any) -> None:
    """Print JSON on one line, at once; the same characters are escaped."""
    sys.stdout.write(escaped(json.dumps(value, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. `room`: the least width of a terminal in which it is shown.

    Only a `long` column is cut where space is short, so that whatever is to be copied stays whole.
    """

    name: str
    room: int = 0
    long: bool = False
    right: bool = False


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[Text]], *, nothing: str, to: Console | None = None
) -> None:
    """Print rows under their columns, or say on standard error that there are none.

    `to`: where to, by default standard output.
    """
    listed = list(rows)
    if not listed:
        say(nothing)
        return
    console = to or out()
    console.print(made_table(columns, listed, console))


def made_table(columns: Sequence[Column], rows: Sequence[Sequence[Text]], console: Console) -> Table:
    """Rows under their columns, in the room that the console has."""
    shown = [number for number, column in enumerate(columns) if column.room <= console.width]
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold", pad_edge=False)
    for number, width in zip(shown, _widths(columns, rows, shown, console.width), strict=True):
        column = columns[number]
        table.add_column(
            column.name,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if column.right else "left",
            width=width,
        )
    for row in rows:
        table.add_row(*(row[number] for number in shown))
    return table


def _widths(
    columns: Sequence[Column], rows: Sequence[Sequence[Text]], shown: Sequence[int], room: int
) -> list[int]:
    widths = [max([len(columns[n].name), *(row[n].cell_len for row in rows)]) for n in shown]
    over = sum(widths) + GAP * len(shown) - room
    for place, number in enumerate(shown):
        if columns[number].long and over > 0:
            narrow = max(LEAST_TEXT, widths[place] - over)
            over -= widths[place] - narrow
            widths[place] = min(widths[place], narrow)
    return widths


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names with their values; long values go on in the next line."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, value if isinstance(value, Text) else cell(value))
    out().print(table)


def size(length: int) -> str:
    """A number of bytes for people."""
    amount, unit = float(length), "B"
    for following in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, following
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def count(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def _visible(message: str) -> str:
    return "\n".join(plain(line) for line in message.split("\n"))


def _escape(sign: re.Match[str]) -> str:
    # Line ends stand between JSON's tokens; in its texts they are escaped already.
    return sign[0] if sign[0] == "\n" else f"\\u{ord(sign[0]):04x}"
