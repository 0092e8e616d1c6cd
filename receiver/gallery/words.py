"""Small words for the templates of these pages: amounts, ages, and texts that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from receiver.gallery.charts import NAME_CHARS, UNKNOWN, amount


def age(seconds: float | None) -> str:
    """How long ago, roughly: `3 min`; a dash for never."""
    if seconds is None:
        return UNKNOWN
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def clipped(text: str) -> str:
    """A name for a chart, in which nothing wraps."""
    return text if len(text) <= NAME_CHARS else f"{text[: NAME_CHARS - 1]}…"


def twice(word: str) -> tuple[str, str]:
    """A choice whose value is its label."""
    return word, word


FILTERS: Mapping[str, Callable[..., Any]] = {
    "age": age,
    "amount": amount,
    "clipped": clipped,
    "twice": twice,
}
