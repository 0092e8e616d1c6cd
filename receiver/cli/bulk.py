"""Change many jobs or notifications: preview them, ask for confirmation, report each that was refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import typer

from receiver.cli.console import (
    FAILED,
    MISUSED,
    STOPPED,
    Column,
    count,
    err,
    fail,
    print_json,
    print_table,
    progress,
    say,
)

if TYPE_CHECKING:
    from receiver.client import ApiError

SHOWN = 20
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item]):
    """What was changed, and what the service refused to change, by id."""

    changed: Sequence[Item] = field(default_factory=list)
    refused: dict[str, ApiError] = field(default_factory=dict)


def preview(columns: Sequence[Column[Item]], rows: Sequence[Item], *, nothing: str) -> None:
    """Print the first rows of a table on standard error, and how many more there are."""
    print_table(columns, rows[:SHOWN], nothing=nothing, to=err())
    if len(rows) > SHOWN:
        say(f"... and {len(rows) - SHOWN} more.", "dim")


def confirm(question: str) -> None:
    """Ask for confirmation; exit with 0 after a no, and with 2 without a terminal."""
    if not sys.stdin.isatty():
        fail("This needs confirmation: add --yes to go on, or --dry-run to only look.", MISUSED)
    if not typer.confirm(question, err=True):
        say("Nothing was changed.")
        raise typer.Exit


def change(
    ids: Sequence[str], one: Callable[[str], Item], *, noun: str, skip: Collection[int]
) -> Outcome[Item]:
    """Change one after the other, with a progress bar. `skip`: HTTP statuses that do not stop the others.

    Exits with 130 at Ctrl-C; raises ApiError at every other status.
    """
    from receiver.client import ApiError

    changed = list[Item]()
    outcome = Outcome(changed)
    try:
        with progress(quiet=len(ids) < 2) as bar:
            for id_ in bar.track(ids, description="Working"):
                try:
                    changed.append(one(id_))
                except ApiError as error:
                    if error.status not in skip:
                        raise
                    outcome.refused[id_] = error
    except KeyboardInterrupt:
        say(f"\nStopped after {len(changed)} of {count(len(ids), noun)}; the rest are unchanged.")
        raise typer.Exit(STOPPED) from None
    return outcome


def print_outcome(name: str, outcome: Outcome[Any]) -> None:
    """Print what was changed and refused as JSON."""
    refused = [
        {"id": id_, "code": error.code, "detail": error.detail} for id_, error in outcome.refused.items()
    ]
    print_json({name: outcome.changed, "refused": refused})


def report(outcome: Outcome[Any], noun: str, *, doing: str, undone: str, hint: str = "") -> None:
    """Print what was changed and what was refused; exit with 1 if anything was refused.

    `doing`: with `{}` for the number, such as `Retrying {}.`
    """
    if outcome.changed:
        say(doing.format(count(len(outcome.changed), noun)))
    for id_, error in list(outcome.refused.items())[:SHOWN]:
        say(f"{id_}: {error.detail}", "yellow")
    if outcome.refused:
        if hint:
            say(hint)
        say(f"{undone}: {count(len(outcome.refused), noun)}.", "red")
        raise typer.Exit(FAILED)
