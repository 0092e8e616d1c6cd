"""Tokenize a query text into words, phrases and `key:value`, and quote them again.

Full-width spaces, colons, quotes and minus signs, as input methods for Chinese and Japanese type them, are
the same as their narrow forms.
"""

import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from unicodedata import normalize

STRAIGHT = '"＂'  # noqa: RUF001 - the full-width one too
"""Quotes that open and close alike; two in a row within a phrase are an escaped one."""
CURLY = "“”„‟"
"""Quotes of which any closes any: what opens in one language closes in another."""
QUOTES = STRAIGHT + CURLY
MINUS = "-－"  # noqa: RUF001 - likewise

_KEY = re.compile(r"(\w{1,16})[:：]")  # noqa: RUF001 - likewise
_WORD = re.compile(r"\S*")
_TAG = re.compile(rf"[^\s{QUOTES}=＝]*[=＝](?=[{QUOTES}])")  # noqa: RUF001 - likewise


@dataclass(frozen=True, slots=True)
class Item:
    """One token of a query text.

    `source` is how it was written, with a quote closed that was left open. `key` is one of the known keys
    in lower case; None for a word or a phrase. `text` is the word, phrase or value without its quotes.
    """

    source: str
    minus: bool
    key: str | None
    text: str


def split(text: str, keys: Container[str]) -> Iterator[Item]:
    """Yield the tokens of a query text. A quote that is not closed reaches to the end of the text."""
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        else:
            item, at = _item(text, at, keys)
            yield item


def quoted(text: str) -> str:
    """Return a text as a phrase in quotes, which escape any characters."""
    return '"' + "".join(char * 2 if char in STRAIGHT else char for char in text) + '"'


def plain_or_quoted(value: str) -> str:
    """Return the value of a key, in quotes where it needs them."""
    plain = value and value[0] not in QUOTES and _WORD.fullmatch(value)
    return value if plain else quoted(value)


def _item(text: str, start: int, keys: Container[str]) -> tuple[Item, int]:
    at = start + (minus := _excludes(text, start))
    key = None
    if (found := _KEY.match(text, at)) and (name := normalize("NFKC", found[1]).casefold()) in keys:
        key, at = name, found.end()
    front = ""
    if key == "tag" and (named := _TAG.match(text, at)):
        front, at = named[0], named.end()
    if text[at : at + 1] and text[at] in QUOTES:
        value, at, closing = _phrase(text, at)
        if key == "tag" and not front and text[at : at + 1] in {"=", "＝"}:  # noqa: RUF001 - likewise
            wanted, at, closing = _value(text, at + 1)
            value = f"{value}={wanted}"
        source = text[start:at].rstrip() + closing if closing else text[start:at]
        return Item(source, minus, key, front + value), at
    value, end, _ = _value(text, at)
    return Item(text[start:end], minus, key, value), end


def _value(text: str, at: int) -> tuple[str, int, str]:
    """Parse a phrase or a word: its content, its end, and the closing quote that it lacks."""
    if text[at : at + 1] and text[at] in QUOTES:
        return _phrase(text, at)
    word = _WORD.match(text, at)
    end = word.end() if word else at
    return text[at:end], end, ""


def _excludes(text: str, at: int) -> bool:
    """Return whether a minus here excludes what follows: `- x` and `--ar` are words of prompts."""
    following = text[at + 1 : at + 2]
    return text[at] in MINUS and following not in MINUS and not following.isspace()


def _phrase(text: str, start: int) -> tuple[str, int, str]:
    """Parse a phrase from its opening quote: its content, its end, and the closing quote that it lacks."""
    straight = text[start] in STRAIGHT
    chars: list[str] = []
    closers, at = STRAIGHT if straight else CURLY, start + 1
    while at < len(text):
        if text[at] in closers:
            if not (straight and text[at + 1 : at + 2] and text[at + 1] in STRAIGHT):
                return "".join(chars), at + 1, ""
            at += 1
        chars.append(text[at])
        at += 1
    return "".join(chars).rstrip(), at, '"' if straight else "”"
