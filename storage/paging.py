"""Return rows page by page: keyset paging, by the id of the last row instead of an offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Some rows, and the cursor that asks for the next ones; None on the last page."""

    rows: Sequence[Row]
    next_cursor: str | None
