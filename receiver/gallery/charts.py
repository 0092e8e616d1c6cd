"""Compute SVG charts: positions of bars, lines and labels. Templates draw them.

Widths and places from left to right are in percent, so that a chart fits its page while its letters keep
their size; heights are in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from math import ceil, floor, log10

from storage.search.usage import Group, Spent

UNKNOWN = "\N{EN DASH}"
MOST_ROWS = 12
DAYS_HEIGHT = 220
"""Pixels from the highest line to the lowest."""
MOST_DATES = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: `length` of it in all, `estimated` the part from price lists, both as shares of 100."""

    name: str
    amount: str
    label: str
    """Its value in words, for screen readers."""
    length: float
    estimated: float


@dataclass(frozen=True, slots=True)
class Label:
    """A line across a chart, `at` pixels below its top; or a date under its bars, `at` percent of its width.

    `anchor`: `start`, `middle` or `end`.
    """

    at: float
    name: str
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class Days:
    """A chart of days: bars side by side, lines behind them, and dates under them."""

    bars: Sequence[Bar]
    step: float
    """From one bar to the next, in percent."""
    lines: Sequence[Label]
    dates: Sequence[Label]
    height: int = DAYS_HEIGHT


def amount(value: object) -> str:
    """Format credits without needless decimals; a dash where they are unknown."""
    return UNKNOWN if value is None else f"{value:,.6f}".rstrip("0").rstrip(".")


def rows(groups: Sequence[Group], nameless: str) -> list[Bar]:
    """Return horizontal bars for the groups with the most credits. `nameless`: without a value."""
    shown = groups[:MOST_ROWS]
    most = max((_number(group.spent) for group in shown), default=0.0)
    return [_bar(nameless if group.value is None else group.value, group.spent, most) for group in shown]


def days(groups: Sequence[Group]) -> Days:
    """Return vertical bars, one for each day."""
    top = _nice(max((_number(group.spent) for group in groups), default=0.0))
    step = 100 / max(len(groups), 1)
    return Days(
        bars=[_bar(group.value or "", group.spent, top) for group in groups],
        step=step,
        lines=[Label(DAYS_HEIGHT * (1 - share), amount(top * share)) for share in (1.0, 0.5)] if top else [],
        dates=_dates([group.value or "" for group in groups], step),
    )


def _bar(name: str, spent: Spent, most: float) -> Bar:
    estimates = f", {amount(spent.estimated)} of them estimated" if spent.estimated is not None else ""
    unknown = f", cost of {spent.unknown:,} not known" if spent.unknown else ""
    label = f"{name}: {amount(spent.credits)} credits{estimates}; {spent.jobs:,} jobs{unknown}"
    length, estimated = _share(spent.credits, most), _share(spent.estimated, most)
    about = "~" if spent.estimated is not None else ""
    return Bar(name, about + amount(spent.credits), f"{label}, {spent.outputs:,} pictures", length, estimated)


def _share(part: Decimal | None, most: float) -> float:
    return min(100.0, 100 * (float(part) / most)) if part and most else 0.0


def _number(spent: Spent) -> float:
    return float(spent.credits or 0)


def _nice(most: float) -> float:
    """Return the next round number: 1, 2, 4, 5 or 10, times a power of ten."""
    if most <= 0:
        return 0.0
    power = 10.0 ** floor(log10(most))
    # Next to nothing has no such number.
    return next((step * power for step in (1, 2, 4, 5, 10) if step * power >= most * (1 - 1e-9)), most)


def _dates(names: Sequence[str], step: float) -> list[Label]:
    if not names:
        return []
    every = max(1, ceil((len(names) - 1) / (MOST_DATES - 1)))
    # Counted from today, which is what one looks for; none so near the beginning that two would touch.
    places = [place for place in range(len(names) - 1, -1, -every) if place == 0 or place * step >= 100 / 8]
    return [_date_label(place, names[place], step, last=len(names) - 1) for place in reversed(places)]


def _date_label(place: int, name: str, step: float, *, last: int) -> Label:
    day = date.fromisoformat(name)
    shown = f"{day.day} {day:%b}"
    if place == last and last > 0:
        return Label(100.0, shown, "end")
    if place == 0:
        return Label(0.0, shown, "start")
    return Label((place + 0.5) * step, shown, "middle")
