"""The table of what was done to the service and what became of it, which the README quotes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from tests.faults.judge import Verdict


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


class Table:
    """Collects rows over a test run; verdicts on the same fault are added up."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def add(self, fault: str, verdict: Verdict) -> None:
        """Note what a scenario ended with, and fail if that is not what must be."""
        row = self.rows.setdefault(fault, Row(fault))
        row.jobs += verdict.jobs
        row.callbacks_sent += verdict.callbacks_sent
        row.answered_2xx += verdict.callbacks_answered
        row.archived += verdict.archived
        row.failed += sum(verdict.failed.values())
        row.found_by_polling += verdict.found_by_polling
        row.lost += verdict.count("lost")
        row.doubled += verdict.count("doubled")
        assert verdict.problems == (), str(verdict)

    def lines(self) -> list[str]:
        """The table in Markdown, with its columns in line."""
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
