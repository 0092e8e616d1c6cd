"""A page of rows by keyset paging: the cursor is the id of the last row, not an offset."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows, and the cursor of the next page; None on the last page."""

    rows: Sequence[Row]
    next_cursor: str | None


def parse_numbered_id(text: str) -> tuple[str, int]:
    """Parse `<job id>.<number>`, the id of an output or a notification; raises ValueError."""
    job_id, _, number = text.rpartition(".")
    if not job_id or not number.isascii() or not number.isdigit() or len(number) > 6:
        raise ValueError("not an id with a number")
    return job_id, int(number)
