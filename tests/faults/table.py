"""The table of what was done to the service and what became of it, which deploy/FAULTS.md quotes.

A pytest plugin, so that it is whole in whichever process and from whichever folder the tests are run. Set
DARKROOM_FAULTS_TABLE to a path that ends in .json or .md, and the table is written there.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

import pytest

from tests.faults.judge import Verdict
from tests.faults.scenes import Report

FAULT = "fault"


@dataclass
class Row:
    """One kind of fault, all its runs together. Field names are the table's headings."""

    fault: str
    jobs: int = 0
    callbacks_sent: int = 0
    answered_2xx: int = 0
    archived: int = 0
    failed: int = 0
    found_by_polling: int = 0
    lost: int = 0
    doubled: int = 0

    @classmethod
    def of(cls, fault: str, verdict: Verdict) -> Self:
        return cls(
            fault,
            jobs=verdict.jobs,
            callbacks_sent=verdict.callbacks_sent,
            answered_2xx=verdict.callbacks_answered,
            archived=verdict.archived,
            failed=sum(verdict.failed.values()),
            found_by_polling=verdict.found_by_polling,
            lost=verdict.count("lost"),
            doubled=verdict.count("doubled"),
        )


class Table:
    """Collect rows over a test run; those of the same fault are added up."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            before = asdict(self.rows.get(row.fault, Row("")))
            sums = {name: value + before[name] for name, value in asdict(row).items() if name != "fault"}
            self.rows[row.fault] = Row(row.fault, **sums)

    def lines(self) -> list[str]:
        names = [field.name for field in fields(Row)]
        cells = [[name.replace("_", " ") for name in names]]
        cells += [[str(value) for value in asdict(row).values()] for row in self.rows.values()]
        widths = [max(len(line[n]) for line in cells) for n in range(len(names))]
        cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
        return [_line(line, widths) for line in cells]

    def write(self, path: Path) -> None:
        """Write the table to a file: JSON if it ends so, else Markdown."""
        if path.suffix == ".json":
            path.write_text(json.dumps([asdict(row) for row in self.rows.values()], indent=2) + "\n")
        else:
            path.write_text("\n".join(self.lines()) + "\n")


def _line(cells: list[str], widths: list[int]) -> str:
    # Names to the left, numbers to the right.
    padded = [cells[0].ljust(widths[0])]
    padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join(padded)} |"


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Add a verdict to the table, and fail if something was lost, doubled or wrong."""

    def add(fault: str, verdict: Verdict) -> None:
        request.node.user_properties.append((FAULT, asdict(Row.of(fault, verdict))))
        assert verdict.problems == (), str(verdict)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write it where DARKROOM_FAULTS_TABLE says."""
    table = Table()
    for outcome in ("passed", "failed"):
        for one in terminalreporter.stats.get(outcome, ()):
            if one.when == "call":
                table.add(Row(**row) for name, row in one.user_properties if name == FAULT)
    if not table.rows:
        return
    terminalreporter.section("faults")
    for line in table.lines():
        terminalreporter.write_line(line)
    if path := os.environ.get("DARKROOM_FAULTS_TABLE"):
        table.write(Path(path))
