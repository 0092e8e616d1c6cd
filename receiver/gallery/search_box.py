"""The text in the search box: what it asks for, what can be taken out of it, and what can be added."""

from __future__ import annotations

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
    """A part of the text that narrows the search, and the text without it."""

    source: str
    without: str


@dataclass(frozen=True, slots=True)
class FacetLink:
    """A value of a facet: how many outputs have it, and the text that asks for it, or no more if it does."""

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
    """What a text asks for, or None and what is wrong with it."""
    try:
        return read_query_text(text, now), []
    except InvalidRequest as error:
        return None, [fault["message"] for fault in error.faults]


def conditions(text: str) -> list[Condition]:
    """The parts of a text that are shown with a way to remove them: those with a key, and exclusions."""
    items = list(split(text, KEYS))
    return [
        Condition(item.source, " ".join(other.source for other in items if other is not item))
        for item in items
        if item.key is not None or item.minus
    ]


def facets(counts: FacetCounts, text: str) -> list[Facet]:
    """The facets of a search, each value with the text that asks for it as well."""
    found: list[Facet] = []
    for name, title in NAMES.items():
        values: Sequence[FacetCount] = getattr(counts, name)
        if values:
            found.append(Facet(name, title, [_link(name, one, text) for one in values]))
    return found


def phrase(prompt: str) -> str:
    """The text that asks for outputs of this very prompt, or of one that begins with as much as fits."""
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


def same_seed(seed: str) -> str:
    """The text that asks for outputs with this seed."""
    return with_key("", "seed", seed)


def tagged(tags: Any) -> list[tuple[str, str, str]]:
    """Each tag's name and value, and the text that asks for it."""
    return [(name, value, with_key("", "tag", f"{name}={value}")) for name, value in sorted(tags.items())]
