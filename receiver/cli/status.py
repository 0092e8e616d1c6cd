"""`darkroom status`: jobs by state, whether every accepted job is accounted for, what is wrong or paused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.text import Text

from receiver.cli.connection import Connection, Json
from receiver.cli.console import FAILED, Column, cell, count, out, print_json, print_table, say

if TYPE_CHECKING:
    from receiver.schemas.status import Circuit, JobCounts, ServiceStatus

ACCEPTED = "accepted"
"""The last row: all jobs that were accepted."""


def status(*, as_json: Json = False, connection: Connection) -> None:
    """Show how many jobs were accepted, and how many are in each state.

    Says how objects are written to the bucket, and lists the gateways and image hosts that are paused.
    Exits with 1 if not every accepted job is accounted for, which means that a job was lost, or if jobs
    do not go on: the ledger lacks jobs, or no worker works.
    """
    with connection.open() as darkroom:
        found = darkroom.status()
        circuits = darkroom.gateways().circuits
    if as_json:
        print_json(found)
    else:
        print_status(found)
        out().print(Text(found.store.summary))
        for name, circuit in circuits:
            if circuit.state != "closed":
                say(_paused(name, circuit), "yellow")
        for problem in found.problems.values():
            say(problem, "bold red")
    if found.problems or not found.balanced:
        raise typer.Exit(FAILED)


def print_status(found: ServiceStatus) -> None:
    """Print job counts by gateway, and whether every accepted job is accounted for."""
    pages: dict[str, JobCounts] = {**found.gateways, "Total": found}
    columns = [Column("JOBS", _styled), *(_counts(name, page) for name, page in pages.items())]
    print_table(columns, [*found.counts, ACCEPTED])
    out().print(Text(_verdict(found), "green" if found.balanced else "bold red"))


def _counts(name: str, page: JobCounts) -> Column[str]:
    counts = {**page.counts, ACCEPTED: page.accepted}
    return Column(name, lambda row: _styled(row, counts[row]), right=True)


def _styled(row: str, value: object = None) -> Text:
    return cell(row if value is None else value, "bold" if row == ACCEPTED else "")


def _verdict(total: JobCounts) -> str:
    if not total.balanced:
        found = sum(total.counts.values())
        return f"NOT every accepted job is accounted for: {total.accepted} accepted, but {found} found."
    text = f"Every accepted job is accounted for: {count(total.accepted, 'job')}."
    if total.found_by_polling:
        text += f" {count(total.found_by_polling, 'job')} finished without a callback and found by polling."
    if total.oldest_unfinished_age_s is not None:
        text += f" The oldest unfinished job is {total.oldest_unfinished_age_s:.0f} s old."
    return text


def _paused(name: str, circuit: Circuit) -> str:
    until = f" until {circuit.retry_at}" if circuit.retry_at else ""
    return f"{name} is paused{until} ({circuit.code}): {circuit.message}"
