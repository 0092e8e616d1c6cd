"""Build the links around the search box: active conditions, facets, same prompt, same seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from receiver.errors import InvalidRequest
from receiver.query.language import KEYS, MAX_CHARS, read_query_text, with_key
from receiver.query.tokenizer import quoted, split
from storage.search.facets import FacetCount, FacetCounts
from storage.search.filters import SearchFilter

FACET_KEYS = {"gateway": "gateway", "model": "model", "day": "on", "tag": "tag"}
"""Which key of the language asks for a value of which facet."""
NAMES = {"gateway": "Gateway", "model": "Model", "day": "Day, UTC", "tag": "Tag"}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of the query, and the query without it."""

    source: str
    without: str


@dataclass(frozen=True, slots=True)
class FacetLink:
    """A facet value: its number of outputs, and the query with it added, or removed if it is active."""

    value: str
    outputs: int
    q: str
    active: bool


@dataclass(frozen=True, slots=True)
class Facet:
    """A facet with its values."""

    name: str
    title: str
    links: Sequence[FacetLink]


def read_asked(text: str, now: int) -> tuple[SearchFilter | None, list[str]]:
    """Parse a query; returns None and the faults if it is invalid."""
    try:
        return read_query_text(text, now), []
    except InvalidRequest as error:
        return None, [fault["message"] for fault in error.faults]


def conditions(text: str) -> list[Condition]:
    """Return the removable conditions of a query: those with a key, and exclusions."""
    items = list(split(text, KEYS))
    return [
        Condition(item.source, " ".join(other.source for other in items if other is not item))
        for item in items
        if item.key is not None or item.minus
    ]


def facets(counts: FacetCounts, text: str) -> list[Facet]:
    """Return the facets of a search, each value with the query that adds it."""
    found: list[Facet] = []
    for name, title in NAMES.items():
        values: Sequence[FacetCount] = getattr(counts, name)
        if values:
            found.append(Facet(name, title, [_link(name, one, text) for one in values]))
    return found


def phrase(prompt: str) -> str:
    """Return the query for this exact prompt, or for as much of its beginning as fits."""
    # A search box has one line, so each line of a prompt is a phrase of its own.
    phrases: list[str] = []
    room = MAX_CHARS
    for line in filter(None, (line.strip() for line in prompt.splitlines())):
        one = quoted(line)
        if len(one) > room:
            one = quoted(line[: max(0, room - 2 - line.count('"'))].strip())
        if len(one) <= 2 or len(phrases) == 30:
            break
        phrases.append(one)
        room -= len(one) + 1
    return " ".join(phrases)


def _link(facet: str, one: FacetCount, text: str) -> FacetLink:
    key = FACET_KEYS[facet]
    mine = [item for item in split(text, KEYS) if item.key == key and not item.minus]
    active = any(item.text == one.value for item in mine)
    if active:
        rest = [item.source for item in split(text, KEYS) if not (item.key == key and item.text == one.value)]
        return FacetLink(one.value, one.outputs, " ".join(rest), active=True)
    return FacetLink(one.value, one.outputs, with_key(text, key, one.value), active=False)


def tagged(tags: Any) -> list[tuple[str, str, str]]:
    """Return each tag's name, value and query."""
    return [(name, value, with_key("", "tag", f"{name}={value}")) for name, value in sorted(tags.items())]
