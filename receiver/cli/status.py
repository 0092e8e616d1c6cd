"""`darkroom status`: jobs by state, whether every accepted job is accounted for, what is paused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from receiver.cli.connection import Connection, Json
from receiver.cli.console import FAILED, Column, cell, count, out, print_json, print_table, say

if TYPE_CHECKING:
    from receiver.schemas.status import Circuit, JobCounts, ServiceStatus


def status(*, as_json: Json = False, connection: Connection) -> None:
    """Show how many jobs were accepted, and how many are in each state.

    Lists the gateways and image hosts that are paused, and why.
    Exits with 1 if not every accepted job is accounted for, which means that a job was lost.
    """
    with connection.open() as darkroom:
        found = darkroom.status()
        circuits = darkroom.gateways().circuits
    if as_json:
        print_json(found)
    else:
        print_status(found)
        for name, circuit in circuits:
            if circuit.state != "closed":
                say(_paused(name, circuit), "yellow")
    if not found.balanced:
        raise typer.Exit(FAILED)


def print_status(found: ServiceStatus) -> None:
    """Print job counts by gateway, and whether every accepted job is accounted for."""
    pages: dict[str, JobCounts] = {**found.gateways, "Total": found}
    columns = (Column("JOBS"), *(Column(name, right=True) for name in pages))
    print_table(columns, _lines(list(pages.values())), nothing="")
    out().print(Text(_verdict(found), "green" if found.balanced else "bold red"))


def _lines(pages: Sequence[JobCounts]) -> Iterator[Sequence[Text]]:
    for status in pages[0].counts:
        yield cell(status), *(cell(page.counts[status]) for page in pages)
    yield cell("accepted", "bold"), *(cell(page.accepted, "bold") for page in pages)


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
