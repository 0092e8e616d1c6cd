"""`darkroom usage`: show the credits spent, as a table with bars."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from rich.text import Text

from receiver.cli import options
from receiver.cli.connection import Connection, Json
from receiver.cli.console import Column, cell, out, print_json, print_table, say

if TYPE_CHECKING:
    from receiver.schemas.usage import Spent, Usage

WIDEST = 30
"""Columns of the longest bar."""

EIGHTHS = " ▏▎▍▌▋▊▉"


By = Annotated[
    Literal["gateway", "model", "day", "tag"] | None,
    options.option("What to group by; by default the gateway."),
]
TagName = Annotated[str | None, options.option("Group by this tag's values.", "NAME", "--tag")]
Since = Annotated[
    str | None,
    options.filter_by("Jobs created then or later, such as 7d; by default the last 30 days.", "WHEN"),
]
Limit = Annotated[
    int,
    options.option("The most groups to show; days are all shown.", "N", min=1, max=1000, show_default=True),
]


def usage(
    *,
    by: By = None,
    tag: TagName = None,
    gateway: options.Gateway = None,
    since: Since = None,
    until: options.Until = None,
    limit: Limit = 20,
    as_json: Json = False,
    connection: Connection,
) -> None:
    """Show how many credits were spent, by gateway, model, day or tag.

    Each gateway has its own kind of credits. Jobs whose cost is unknown, such as
    unfinished ones, are counted in a column of their own and are in no total.
    """
    with connection.open() as darkroom:
        found = darkroom.usage(by=by, tag=tag, gateway=gateway, since=since, until=until, limit=limit)
    if as_json:
        print_json(found)
        return
    if not found.total.jobs:
        say(f"No jobs were created from {_minute(found.since)} to {_minute(found.until)} (UTC).")
        return
    columns = (
        Column(_head(found), long=True),
        Column("CREDITS", right=True),
        Column("", room=80),
        Column("JOBS", right=True),
        Column("COST UNKNOWN", room=70, right=True),
        Column("IMAGES", right=True),
    )
    print_table(columns, _lines(found), nothing="")
    out().print(Text(f"From {_minute(found.since)} to {_minute(found.until)} (UTC).", "dim"))
    if found.total.credits_estimated is not None:
        line = f"~ {amount(found.total.credits_estimated)} of the credits are estimated from price lists."
        out().print(Text(line, "dim"))


def amount(spent: float | None) -> str:
    """Format credits without `.0`; a dash if they are unknown."""
    if spent is None:
        return "-"
    return f"{spent:,.6f}".rstrip("0").rstrip(".")


def _head(found: Usage) -> str:
    return f"TAG {found.tag}" if found.by == "tag" else found.by.upper()


def _lines(found: Usage) -> Iterator[tuple[Text, ...]]:
    rows: list[tuple[str | None, Spent]] = [(one.value, one) for one in found.groups]
    if found.others is not None:
        rows.append(("(others)", found.others))
    most = max((spent.credits or 0.0 for _, spent in rows), default=0.0)
    for value, spent in rows:
        bar = _bar((spent.credits or 0.0) / most if most else 0.0)
        yield _line(cell(value if value is not None else "(no tag)"), spent, Text(bar, "cyan"))
    yield _line(Text("Total", "bold"), found.total, Text(""))


def _line(name: Text, spent: Spent, bar: Text) -> tuple[Text, ...]:
    about = "~" if spent.credits_estimated is not None else ""
    return (
        name,
        Text(about + amount(spent.credits)),
        bar,
        Text(f"{spent.jobs:,}"),
        Text(f"{spent.jobs_without_credits:,}" if spent.jobs_without_credits else "-"),
        Text(f"{spent.outputs:,}"),
    )


def _bar(share: float) -> str:
    # Even the smallest amount has a visible bar.
    whole, part = divmod(max(round(share * WIDEST * 8), 1 if share else 0), 8)
    try:
        codecs.encode(EIGHTHS, out().encoding)
    except (UnicodeEncodeError, LookupError):
        return "#" * (whole + (part > 0))
    return "█" * whole + EIGHTHS[part].strip()


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
