"""Parse the values of the query language's keys: each parser returns conditions by slot.

A slot is a place in `storage.search.filters.SearchFilter`: a field, or a field and a name within it. Every
parser raises ValueError on an invalid value.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from fractions import Fraction
from math import ceil, floor
from typing import Any
from unicodedata import normalize

from receiver.query.times import read_moment
from receiver.schemas.tags import TAG_NAME
from storage.media.inspect import KINDS
from storage.models import Status

Slots = dict[tuple[str, ...], Any]
Parser = Callable[[str, int], Slots]
"""Parses a value; `7d` counts from the time now, in milliseconds."""

DAY_MS = 86_400_000
_BY_EXTENSION = {kind.extension: kind.media_type for kind in KINDS}
MEDIA_TYPES = {**_BY_EXTENSION, "jpeg": _BY_EXTENSION["jpg"], "tiff": _BY_EXTENSION["tif"]}
MOST = 10**15
"""No width, height or number of bytes is larger than this; the databases' integers hold more."""

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-z]{0,3})"
_COMPARED = re.compile(rf"(>=|<=|>|<|=|)\s*{_NUMBER}")
_RANGE = re.compile(rf"{_NUMBER}\s*\.\.\s*{_NUMBER}")
_UNITS = {"": 1, "b": 1} | {
    f"{name}{end}": factor
    for name, factor in {
        "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30,
    }.items()
    for end in ("", "b")
}  # fmt: skip


def exactly(field: str) -> Parser:
    """Parse a value that is compared as it is."""

    def read(value: str, _now: int) -> Slots:
        if not value:
            raise ValueError("empty")
        return {(field,): value}

    return read


def name(field: str) -> Parser:
    """Parse a name, in any case."""

    def read(value: str, _now: int) -> Slots:
        if not value:
            raise ValueError("empty")
        return {(field,): value.casefold()}

    return read


def tag(value: str, _now: int) -> Slots:
    """Parse `name=value`."""
    name, equals, wanted = value.replace("＝", "=", 1).partition("=")  # noqa: RUF001 - the full-width one
    if not (re.fullmatch(TAG_NAME, name) and equals and wanted):
        raise ValueError("not name=value")
    return {("tags", name): wanted}


def status(value: str, _now: int) -> Slots:
    """Parse a status, in any case."""
    return {("status",): Status(narrow(value))}


def media_type(value: str, _now: int) -> Slots:
    """Parse `png`, `jpg`, `jpeg`, `webp`, `avif` or the media type itself."""
    name = narrow(value).removeprefix("image/")
    if name not in MEDIA_TYPES:
        raise ValueError("not a type")
    return {("media_type",): MEDIA_TYPES[name]}


def mark(value: str, _now: int) -> Slots:
    """Parse what a job is marked with."""
    if narrow(value) != "short":
        raise ValueError("not a mark")
    return {("mark",): "short"}


def digest(value: str, _now: int) -> Slots:
    """Four hex digits of a SHA-256 at least, from its beginning."""
    found = narrow(value)
    if not re.fullmatch("[0-9a-f]{4,64}", found):
        raise ValueError("not hex")
    return {("sha256",): found}


def moment(field: str) -> Parser:
    """A time, or how long ago."""

    def read(value: str, now: int) -> Slots:
        return {(field,): read_moment(normalize("NFKC", value).strip(), now)}

    return read


def day(value: str, _now: int) -> Slots:
    """A day in UTC, from its beginning to that of the next."""
    found = date.fromisoformat(narrow(value))
    begin = int(datetime(found.year, found.month, found.day, tzinfo=UTC).timestamp() * 1000)
    return {("since",): max(0, begin), ("until",): max(0, begin + DAY_MS)}


def size(value: str, _now: int) -> Slots:
    """Parse `1024x768`: exactly that width and height."""
    found = re.fullmatch(r"([0-9]{1,9})\s*[x×*]\s*([0-9]{1,9})", narrow(value))  # noqa: RUF001 - meant
    if not found:
        raise ValueError("not a size")
    wide, high = int(found[1]), int(found[2])
    return {("between", "width"): (wide, wide), ("between", "height"): (high, high)}


def number(field: str, *, units: bool = False) -> Parser:
    """Parse `1024`, `>=1024`, `<1024`, `512..1024`; with `units` also `1.5MB` and the like."""

    def read(value: str, _now: int) -> Slots:
        text = narrow(value).replace("≥", ">=").replace("≤", "<=")
        low, high = _bounds(text, units=units)
        if low is not None and high is not None and low > high:
            raise ValueError("nothing is between")
        return {("between", field): (low, high)}

    return read


def narrow(value: str) -> str:
    """Normalize width, case and surrounding space, for fixed words."""
    return normalize("NFKC", value).casefold().strip()


def _bounds(text: str, *, units: bool) -> tuple[int | None, int | None]:
    """Return inclusive bounds in whole numbers, from numbers that need not be whole."""
    if found := _RANGE.fullmatch(text):
        low, high = _number(found[1], found[2], units=units), _number(found[3], found[4], units=units)
        return ceil(low), floor(high)
    if not (found := _COMPARED.fullmatch(text)):
        raise ValueError("not a number")
    limit = _number(found[2], found[3], units=units)
    return {
        ">=": (ceil(limit), None),
        ">": (floor(limit) + 1, None),
        "<=": (None, floor(limit)),
        "<": (None, ceil(limit) - 1),
    }.get(found[1], (ceil(limit), floor(limit)))


def _number(digits: str, unit: str, *, units: bool) -> Fraction:
    if unit not in (_UNITS if units else {""}):
        raise ValueError("not a unit")
    if (found := Fraction(digits) * _UNITS[unit]) > MOST:
        raise ValueError("too large")
    return found
