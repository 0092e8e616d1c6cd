"""Parse the words of a query on a command line: query text, or ids."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from typer.core import TyperCommand

from receiver.cli.console import MISUSED, fail
from receiver.cli.options import argument

# Eight digits alone may be a word too; those of an id, which begins with the time, begin with 0 until 2527.
_ID = re.compile(r"(0[0-9a-f]{7}|[0-9a-f]{8}(-[0-9a-f]{4}){0,3}-[0-9a-f]{0,12})(\.\d{1,6})?", re.IGNORECASE)
_NEARLY = re.compile(r"[0-9a-f]{6,}-[0-9a-f-]{2,}(\.\d*)?", re.IGNORECASE)
_QUOTES = '"＂“”„‟'  # noqa: RUF001 - those of the query language

_MINUS = "\x00-"
"""Stands for `-` while options are parsed; no argument of a process can contain it."""

Words = Annotated[
    list[str] | None,
    argument(
        "TEXT",
        "What to search for: [bold]kite -blurry seed:7 model:imagen4 tag:campaign=may since:7d[/bold]. "
        "A single TEXT is a whole query; among several, one with spaces is a phrase. "
        "More: [bold]darkroom help search[/bold].",
    ),
]


class TextCommand(TyperCommand):
    """Parse a command whose words may begin with a minus, as in `darkroom search kite -blurry`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; a word that begins with one minus is text unless it is an option."""
        left = super().parse_args(ctx, self._guarded(ctx, args))
        for name, value in ctx.params.items():
            if isinstance(value, list | tuple):
                ctx.params[name] = [
                    one.replace(_MINUS, "-", 1) if isinstance(one, str) else one for one in value
                ]
        return left

    def _guarded(self, ctx: Any, args: Sequence[str]) -> list[str]:
        params = self.get_params(ctx)
        known = {option for param in params for option in param.opts}
        taking = {option for param in params if not getattr(param, "is_flag", True) for option in param.opts}
        guarded: list[str] = []
        for before, word in zip(["", *args], args, strict=False):
            text = re.match(r"-[^-]", word) and word not in known and before not in taking
            guarded.append(word.replace("-", _MINUS, 1) if text else word)
        return guarded


def query_text(words: Sequence[str] | None, more: str | None = None) -> str | None:
    """Return the query text of the words on a command line; None if there are none.

    The shell has removed the quotes: among several words, one with spaces in it was a phrase.
    """
    given = list(words or [])
    if len(given) > 1:
        given = [_as_phrase(word) for word in given]
    text = " ".join([*given, *([more] if more else [])]).strip()
    return text or None


def ids_or_text(words: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return ids, or else the words of a query: either every word is an id of a job or an image, or none is.

    An id may be shortened to its beginning.

    Exits with a message at a mixture or at a malformed id, so that a typo does not become a query.
    """
    given = list(words or [])
    ids = [word for word in given if _ID.fullmatch(word)]
    if ids and len(ids) < len(given):
        fail("Give ids, or words to search for, not both.", MISUSED)
    if nearly := [word for word in given if not ids and _NEARLY.fullmatch(word)]:
        fail(
            f"{nearly[0]} looks like an id, but is none. To search for it in prompts, quote it: "
            f"'\"{nearly[0]}\"'.",
            MISUSED,
        )
    return (ids, []) if ids else ([], given)


def _as_phrase(word: str) -> str:
    if not re.search(r"\s", word) or any(quote in word for quote in _QUOTES):
        return word
    # Imported here, because most commands do not need it.
    from receiver.query.language import KEYS, with_key
    from receiver.query.tokenizer import quoted, split

    items = list(split(word, KEYS))
    minus = "-" * items[0].minus
    if all(item.key is None for item in items):
        return minus + quoted(word[len(minus) :])
    if items[0].key and not any(item.key for item in items[1:]):
        _, _, value = re.split("([:：])", word, maxsplit=1)  # noqa: RUF001 - the full-width one too
        return minus + with_key("", items[0].key, value)
    return word
