"""Print safe text, tables that fit, JSON, and errors without tracebacks.

Data goes to standard output, and everything else to standard error.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import typer
from rich.cells import cell_len
from rich.console import Console, ConsoleRenderable, Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

FAILED, MISUSED, UNREACHABLE, STOPPED = 1, 2, 3, 130
"""Exit codes besides 0; `STOPPED` is that of Ctrl-C."""

PIPED_WIDTH = 2000
"""The width in columns without a terminal: what goes into a pipe must not be cut."""

GAP = 2
LEAST_WIDTH = 16
"""The least width of a column that is narrowed."""

_SPACES = re.compile(r"[\t\n\v\f\r\u0085\u2028\u2029]+")
# Control characters move the cursor or change colours; bidirectional ones reverse the order of letters.
_HOSTILE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_STYLES = {"archived": "green", "partial": "yellow", "failed": "red", "running": "cyan", "ready": "cyan"}


def out() -> Console:
    """Return a console on standard output."""
    return _console(stderr=False)


def err() -> Console:
    """Return a console on standard error."""
    return _console(stderr=True)


def plain(text: str) -> str:
    """Escape control characters of untrusted text, and put it on one line."""
    return _HOSTILE.sub(_escape, _SPACES.sub(" ", text))


def cell(value: object, style: str = "") -> Text:
    """Return an untrusted value as text without markup; None is a dash."""
    if isinstance(value, Text):
        return value
    return Text("-", "dim") if value is None else Text(plain(str(value)), style)


def status_cell(status: str) -> Text:
    """Return a job's status in its colour."""
    return cell(status, _STYLES.get(status, ""))


def say(message: str, style: str = "") -> None:
    """Print a message on standard error."""
    err().print(Text(_visible(message), style))


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Print an error without the numbers of the operating system, and exit with a code."""
    err().print(Text.assemble(("Error: ", "bold red"), _visible(re.sub(r"\[Errno -?\d+\] ", "", message))))
    raise typer.Exit(code)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print values and answers of the client as JSON; control characters are escaped."""
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, default=lambda one: one.model_dump(mode="json")
    )
    sys.stdout.write(escaped(text) + "\n")
    sys.stdout.flush()


def escaped(text: str) -> str:
    """Escape the control characters in JSON."""
    # Line ends stand between the tokens of JSON; in its strings they are escaped already.
    return "\n".join(_HOSTILE.sub(_escape, line) for line in text.split("\n"))


Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column of a table: its name, and the value that it shows `of` a row.

    `room`: the least width of a terminal in which it is shown. Where space is short a `long` column is cut,
    and a `wrapped` one continues on the next line; only what holds no id nor name may be `long`.
    """

    name: str
    of: Callable[[Row], object]
    room: int = 0
    long: bool = False
    wrapped: bool = False
    right: bool = False


def print_table(
    columns: Sequence[Column[Row]], rows: Iterable[Row], *, nothing: str = "", to: Console | None = None
) -> None:
    """Print a table, or `nothing` on standard error if it has no rows. `to`: by default standard output."""
    listed, console = list(rows), to or out()
    if listed:
        console.print(made_table(columns, listed, console))
    else:
        say(nothing)


def made_table(columns: Sequence[Column[Row]], rows: Iterable[Row], console: Console) -> ConsoleRenderable:
    """Return a table that fits the width of the console, or else a list of each row's facts.

    Words such as ids are never cut in either, and not parted if a line has room for them.
    """
    shown = [column for column in columns if column.room <= console.width]
    cells = [[cell(column.of(row)) for column in shown] for row in rows]
    widths = _widths(shown, cells, console.width)
    if sum(widths) + GAP * (len(shown) - 1) > console.width:
        names = [column.name for column in shown]
        return _facts([list(zip(names, line, strict=True)) for line in cells], console.width)
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="bold", pad_edge=False)
    for column, width in zip(shown, widths, strict=True):
        table.add_column(
            column.name,
            no_wrap=not column.wrapped,
            overflow="fold" if column.wrapped else "ellipsis",
            justify="right" if column.right else "left",
            width=width,
        )
    for line in cells:
        table.add_row(*line)
    return table


def _widths(columns: Sequence[Column[Any]], cells: Sequence[Sequence[Text]], room: int) -> list[int]:
    widths = [
        max([len(column.name), *(line[place].cell_len for line in cells)])
        for place, column in enumerate(columns)
    ]
    over = sum(widths) + GAP * (len(columns) - 1) - room
    for place, column in enumerate(columns):
        if column.long or column.wrapped:
            words = [word for line in cells for word in line[place].plain.split()] if column.wrapped else []
            least = max([LEAST_WIDTH, *map(cell_len, words)])
            narrow = min(widths[place], max(least, widths[place] - max(over, 0)))
            over -= widths[place] - narrow
            widths[place] = narrow
    return widths


def _facts(records: Sequence[Sequence[tuple[str, Text]]], width: int) -> ConsoleRenderable:
    """Return names with values; a value of one long word has a line of its own, to be copied as a whole."""
    names = max((cell_len(name) for record in records for name, _ in record), default=0)
    lines: list[RenderableType] = []
    for number, record in enumerate(records):
        if number:
            lines.append("")
        for name, value in record:
            if cell_len(value.plain) > width - names - GAP and " " not in value.plain:
                value.overflow = "fold"
                lines += [Text(name, "bold"), value]
                continue
            fact = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
            fact.add_column(style="bold", no_wrap=True, width=names)
            fact.add_column(overflow="fold")
            fact.add_row(name, value)
            lines.append(fact)
    return Group(*lines)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print names with their values; long values wrap."""
    console = out()
    console.print(_facts([[(name, cell(value)) for name, value in facts]], console.width))


def progress(*columns: str | ProgressColumn, quiet: bool = False) -> Progress:
    """Return progress bars on standard error; they are not shown without a terminal, or if `quiet`.

    `columns`: those right of the bar; by default how many are done, and the time left.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = err()
    right = columns or (MofNCompleteColumn(), TimeRemainingColumn())
    quiet = quiet or not console.is_terminal
    return Progress("{task.description}", BarColumn(), *right, console=console, transient=True, disable=quiet)


def some(lines: Sequence[str], most: int) -> list[str]:
    """Return the first of many lines, and how many more there are."""
    return [*lines[:most], *([f"... and {len(lines) - most} more."] if len(lines) > most else [])]


def say_if_cut(shown: int, limit: int) -> None:
    """Print that there may be more than the `limit` that is shown."""
    if shown == limit:
        say(f"Only the newest {limit} are shown; use --limit to see more.", "dim")


def count(number: int, noun: str) -> str:
    """Format a number with its noun: `1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console


def _visible(message: str) -> str:
    return "\n".join(plain(line) for line in message.split("\n"))


def _escape(sign: re.Match[str]) -> str:
    return f"\\u{ord(sign[0]):04x}"
