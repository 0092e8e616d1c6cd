"""`darkroom usage`: show the credits spent, as a table with bars."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from rich.text import Text

from receiver.cli.connection import Connection, Json
from receiver.cli.console import Column, out, print_json, print_table, say
from receiver.cli.options import Gateway, Until, filter_by, option

if TYPE_CHECKING:
    from receiver.schemas.usage import Spent, Usage

    Line = tuple[str | None, Spent]
    """A group's name, None for all of them, and what it cost."""

WIDEST = 30
"""Columns of the longest bar."""

EIGHTHS = " ▏▎▍▌▋▊▉"

By = Annotated[
    Literal["gateway", "model", "day", "tag"] | None, option("What to group by; by default the gateway.")
]
TagName = Annotated[str | None, option("Group by this tag's values.", "NAME", "--tag")]
Since = Annotated[
    str | None, filter_by("Jobs created then or later, such as 7d; by default the last 30 days.", "WHEN")
]
Limit = Annotated[
    int, option("The most groups to show; days are all shown.", "N", min=1, max=1000, show_default=True)
]


def usage(
    *,
    by: By = None,
    tag: TagName = None,
    gateway: Gateway = None,
    since: Since = None,
    until: Until = None,
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
    print_table(_columns(found), [*_groups(found), (None, found.total)])
    out().print(Text(f"From {_minute(found.since)} to {_minute(found.until)} (UTC).", "dim"))
    if found.total.credits_estimated is not None:
        line = f"~ {amount(found.total.credits_estimated)} of the credits are estimated from price lists."
        out().print(Text(line, "dim"))


def amount(spent: float | None) -> str:
    """Format credits without `.0`; a dash if they are unknown."""
    if spent is None:
        return "-"
    return f"{spent:,.6f}".rstrip("0").rstrip(".")


def _columns(found: Usage) -> Sequence[Column[Line]]:
    most = max((spent.credits or 0.0 for _, spent in _groups(found)), default=0.0)

    def bar(line: Line) -> Text:
        name, spent = line
        return Text(_bar((spent.credits or 0.0) / most if name and most else 0.0), "cyan")

    return (
        Column(
            f"TAG {found.tag}" if found.by == "tag" else found.by.upper(),
            lambda line: line[0] or Text("Total", "bold"),
            wrapped=True,
        ),
        Column("CREDITS", lambda line: _credits(line[1]), right=True),
        Column("", bar, room=80),
        Column("JOBS", lambda line: f"{line[1].jobs:,}", right=True),
        Column("COST UNKNOWN", lambda line: _unknown(line[1]), room=70, right=True),
        Column("IMAGES", lambda line: f"{line[1].outputs:,}", right=True),
    )


def _groups(found: Usage) -> list[Line]:
    others: list[Line] = [] if found.others is None else [("(others)", found.others)]
    return [*(("(no tag)" if one.value is None else one.value, one) for one in found.groups), *others]


def _credits(spent: Spent) -> str:
    return ("~" if spent.credits_estimated is not None else "") + amount(spent.credits)


def _unknown(spent: Spent) -> str:
    return f"{spent.jobs_without_credits:,}" if spent.jobs_without_credits else "-"


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
