"""Change many jobs or notifications: preview them, ask for confirmation, report each that was refused."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import typer

from receiver.cli import console

if TYPE_CHECKING:
    from receiver.client import ApiError

SHOWN = 20
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item]):
    """What was changed, and what the service refused to change, by id."""

    noun: str
    changed: list[Item] = field(default_factory=list)
    refused: dict[str, ApiError] = field(default_factory=dict)

    def print_json(self) -> None:
        """Print it as JSON."""
        refused = [
            {"id": id_, "code": error.code, "detail": error.detail} for id_, error in self.refused.items()
        ]
        console.print_json({f"{self.noun}s": self.changed, "refused": refused})

    def report(self, *, doing: str, undone: str, hint: str = "") -> None:
        """Print what was changed and what was refused; exit with 1 if anything was refused.

        `doing`: with `{}` for the number, such as `Retrying {}.`
        """
        if self.changed:
            console.say(doing.format(console.count(len(self.changed), self.noun)))
        for id_, error in list(self.refused.items())[:SHOWN]:
            console.say(f"{id_}: {error.detail}", "yellow")
        if self.refused:
            if hint:
                console.say(hint)
            console.say(f"{undone}: {console.count(len(self.refused), self.noun)}.", "red")
            raise typer.Exit(console.FAILED)


def preview(columns: Sequence[console.Column[Item]], rows: Sequence[Item], *, nothing: str) -> None:
    """Print the first rows of a table on standard error, and how many more there are."""
    console.print_table(columns, rows[:SHOWN], nothing=nothing, to=console.err())
    if len(rows) > SHOWN:
        console.say(f"... and {len(rows) - SHOWN} more.", "dim")


def summarize(noun: str, kinds: Iterable[str], more: str = "") -> None:
    """Print how many there are, and how many of each kind; nothing if there are none."""
    found = Counter(kinds)
    if found:
        each = ", ".join(f"{number} {kind}" for kind, number in found.most_common())
        console.say(f"{console.count(found.total(), noun)}: {each}.{more}")


def confirm(question: str, number: int, noun: str) -> None:
    """Ask for confirmation; exit with 0 after a no, and with 2 without a terminal.

    `question`: with `{}` for which ones, such as `Send {} again?`
    """
    if not sys.stdin.isatty():
        what = "This needs confirmation: add --yes to go on, or --dry-run to only look."
        console.fail(what, console.MISUSED)
    which = f"this {noun}" if number == 1 else f"these {number} {noun}s"
    if not typer.confirm(question.format(which), err=True):
        console.say("Nothing was changed.")
        raise typer.Exit


def change(
    ids: Sequence[str], one: Callable[[str], Item], *, noun: str, skip: Collection[int]
) -> Outcome[Item]:
    """Change one after the other, with a progress bar. `skip`: HTTP statuses that do not stop the others.

    Exits with 130 at Ctrl-C; raises ApiError at every other status.
    """
    from receiver.client import ApiError

    outcome: Outcome[Item] = Outcome(noun)
    try:
        with console.progress(quiet=len(ids) < 2) as bar:
            for id_ in bar.track(ids, description="Working"):
                try:
                    outcome.changed.append(one(id_))
                except ApiError as error:
                    if error.status not in skip:
                        raise
                    outcome.refused[id_] = error
    except KeyboardInterrupt:
        done, every = len(outcome.changed), console.count(len(ids), noun)
        console.say(f"\nStopped after {done} of {every}; the rest are unchanged.")
        raise typer.Exit(console.STOPPED) from None
    return outcome
