"""`darkroom usage`: what was spent, as a table with bars."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

from receiver.cli import options
from receiver.cli.connection import LOCAL, Json, Token, Url, connected
from receiver.cli.console import Column, api_json, cell, out, print_json, print_table, say

if TYPE_CHECKING:
    from receiver.client.reports import Spent, Usage

WIDEST = 30
"""Columns of the longest bar."""

EIGHTHS = " ▏▎▍▌▋▊▉"


By = Annotated[
    Literal["gateway", "model", "day", "tag"] | None,
    typer.Option(help="What it is told apart by; without it, the gateway.", show_default=False),
]
TagName = Annotated[
    str | None,
    typer.Option(
        "--tag", metavar="NAME", help="Tell it apart by the values of this tag.", show_default=False
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN",
        help="Jobs taken in then or later: 7d, 12h, 2026-11-22; today and the 29 days before without it.",
        rich_help_panel=options.FILTERS,
        show_default=False,
    ),
]
Limit = Annotated[
    int,
    typer.Option(
        min=1,
        max=1000,
        metavar="N",
        help="How many to show by themselves; days are all shown.",
    ),
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
    url: Url = LOCAL,
    token: Token = None,
) -> None:
    """Show how many credits were spent, by gateway, model, day or tag.

    Each gateway counts credits of its own. Jobs whose cost is not known, such
    as those that are not finished, are counted apart, and are in no sum.
    """
    with connected(url, token) as darkroom:
        found = darkroom.usage(by=by, tag=tag, gateway=gateway, since=since, until=until, limit=limit)
    if as_json:
        print_json(api_json(found))
        return
    if not found.total.jobs:
        say(f"No job was taken in from {_minute(found.since)} to {_minute(found.until)} (UTC).")
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
        told = f"~ {amount(found.total.credits_estimated)} of the credits are from price lists, not reported."
        out().print(Text(told, "dim"))


def amount(spent: float | None) -> str:
    """Credits for people: no `.0`, and a dash where none are known."""
    if spent is None:
        return "-"
    return f"{spent:,.6f}".rstrip("0").rstrip(".")


def _head(found: Usage) -> str:
    return f"TAG {found.tag}" if found.by == "tag" else found.by.upper()


def _lines(found: Usage) -> Iterator[tuple[Text, ...]]:
    rows: list[tuple[str | None, Spent]] = list(found.groups)
    if found.others is not None:
        rows.append(("(all others)", found.others))
    most = max((spent.credits or 0.0 for _, spent in rows), default=0.0)
    for value, spent in rows:
        bar = _bar((spent.credits or 0.0) / most if most else 0.0)
        yield _line(cell(value if value is not None else "(without it)"), spent, Text(bar, "cyan"))
    yield _line(Text("total", "bold"), found.total, Text(""))


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
    # Whatever was spent can be seen.
    whole, part = divmod(max(round(share * WIDEST * 8), 1 if share else 0), 8)
    try:
        codecs.encode(EIGHTHS, out().encoding)
    except (UnicodeEncodeError, LookupError):
        return "#" * (whole + (part > 0))
    return "█" * whole + EIGHTHS[part].strip()


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
