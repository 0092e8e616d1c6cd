"""Say what of a query text may not mean what was meant: unknown keys, operators and names, with the nearest.

A hint stands beside what was found, and refuses nothing: prompts may be pasted, and have colons of their own.
"""

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from unicodedata import normalize

from receiver.query.language import KEYS, joins
from receiver.query.tokenizer import Item, split
from storage.search.filters import SearchFilter

MAX_HINTS = 5
LIKENESS = 0.8
"""How alike a typing error and its word are at least, by `difflib.SequenceMatcher.ratio`."""
SHORTEST = 4
"""Fewer letters are alike by chance: `job:` and `sob:`."""

ALIASES = {
    name: key
    for key, names in {
        "on": "date day",
        "since": "after from created",
        "until": "before to",
        "job": "id job_id",
        "type": "format mime ext extension media_type",
        "size": "resolution dimensions",
        "bytes": "filesize",
        "sha256": "hash digest checksum",
        "gateway": "provider service",
        "model": "engine",
        "status": "state",
        "code": "error",
        "tag": "label",
    }.items()
    for name in names.split()
}
"""Common names of what a key asks for."""

_COLON = re.compile(r"(\w{1,16})[:：](?!//)(.*)", re.DOTALL)  # noqa: RUF001 - the full-width one too
_COMPARED = re.compile(r"(\w{1,16})(=|[<>]=?|≥|≤)(.+)", re.DOTALL)
_TAG = re.compile(r"tags?\.([\w.-]+)[:=](.+)", re.DOTALL)


def word_hints(text: str) -> list[str]:
    """Return hints on words of a query text that look like a key or an operator, and are none."""
    items = list(split(text, KEYS))
    found = (hint for at, item in enumerate(items) if (hint := _hint(items, at, item)))
    return list(dict.fromkeys(found))[:MAX_HINTS]


def gateways_in(wanted: SearchFilter) -> set[str]:
    """Return the gateways that a search names, those that it excludes included."""
    named = {wanted.gateway} if wanted.gateway else set()
    return named | {value for kind, value in wanted.excluded if kind == "gateway"}


def name_hints(wanted: SearchFilter, gateways: Collection[str], models: Collection[str]) -> Iterator[str]:
    """Yield hints on a search's gateways and model, where those are not known."""
    for name in sorted(gateways_in(wanted) - set(gateways)):
        meant = _nearest(name, gateways) or " or ".join(sorted(gateways))
        yield f"No job has the gateway {name[:60]}. Did you mean {meant}?"
    known = {model.casefold(): model for model in models}
    model = (wanted.model or "").casefold()
    if model and model not in known and (nearest := _nearest(model, known)):
        yield f"The model {model[:60]} is not known here. Did you mean {known[nearest]}?"


def _hint(items: list[Item], at: int, item: Item) -> str | None:
    plain = item.source[item.minus :]
    if item.key is not None or plain != item.text:
        return None  # A key that is known, or a phrase in quotes, which is meant as it is.
    if plain in ("OR", "AND") and not item.minus:
        around = items[max(at - 1, 0) : at + 2]
        if joins(items, at) or not any(one.key is not None or one.minus for one in around):
            return None
        return f"{plain} joins words only, not keys or exclusions; here it was searched for as a word."
    if plain == "NOT" and at + 1 < len(items):
        return "NOT was searched for as a word. To exclude a word, write -word."
    return _key_hint(plain)


def _key_hint(plain: str) -> str | None:
    if found := _TAG.fullmatch(plain):
        return _meant(plain, f"tag:{found[1]}={found[2]}")
    if (found := _COMPARED.fullmatch(plain)) and (name := _narrow(found[1])) in KEYS:
        return _meant(plain, f"{name}:{found[3] if found[2] == '=' else found[2] + found[3]}")
    if not (found := _COLON.fullmatch(plain)):
        return None
    name, value = _narrow(found[1]), found[2]
    alike = _nearest(name, (*KEYS, "prompt")) if len(name) >= SHORTEST else None
    key = ALIASES.get(name) or alike
    if key == "prompt":
        return _meant(plain, value or "the words alone")
    # A value that the key does not take is a prompt's own: `with: care`, `to: you`.
    return _meant(plain, f"{key}:{value}") if key and _takes(key, value) else None


def _takes(key: str, value: str) -> bool:
    try:
        KEYS[key].read(value, 0)
    except ValueError:
        return False
    return True


def _meant(plain: str, instead: str) -> str:
    return f"{plain[:60]} was searched for in prompts, as it has no known key. Did you mean {instead[:60]}?"


def _nearest(name: str, known: Collection[str]) -> str | None:
    return next(iter(get_close_matches(name[:100], known, 1, LIKENESS)), None)


def _narrow(name: str) -> str:
    return normalize("NFKC", name).casefold()
