"""A page of rows by keyset paging: the cursor is the id of the last row, not an offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows, and the cursor of the next page; None on the last page."""

    rows: Sequence[Row]
    next_cursor: str | None
