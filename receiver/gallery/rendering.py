"""Render templates: everything is escaped, and an undefined name is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from markupsafe import Markup, escape
from starlette.responses import Response

from receiver.gallery.assets import Assets
from receiver.gallery.charts import UNKNOWN, amount
from storage.models import rfc3339

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    # Pages show what only the signed-in may see; going back shows them as they are now.
    "cache-control": "no-store",
    # With `no-referrer` a browser would send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

ALT_CHARS = 160
"""About as much as a screen reader should say of one picture in a grid."""

NARROWEST, WIDEST = 8, 80
"""The shapes that the style sheet has, in twentieths."""

# Controls, and the signs that turn the order of letters around: within markup they are kept apart by <bdi>,
# within an attribute nothing keeps them apart.
_HOSTILE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


class Rendering:
    """The Jinja environment with its filters; the first page loads it."""

    def __init__(self, assets: Assets, prefix: str) -> None:
        self._assets = assets
        self._prefix = prefix

    @cached_property
    def _environment(self) -> Environment:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        made = Environment(
            loader=PackageLoader("receiver.gallery"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=100,
        )
        made.globals.update(asset=self._assets.url, base=self._prefix)
        made.filters.update(
            age=age,
            alt=alt_text,
            amount=amount,
            attr_text=plain,
            bytes=size,
            grouped="{:,}".format,
            moment=moment,
            pretty=pretty,
            query=query,
            rfc3339=rfc3339,
            shape=shape,
            ticks=ticks,
            twice=lambda word: (word, word),
        )
        return made

    def page(self, template: str, words: Mapping[str, Any], *, status: int = 200) -> Response:
        """Render a whole page."""
        text = self._environment.get_template(template).render(words)
        # A lone half of a character can come in by JSON, and no page can hold it.
        content = text.encode("utf-8", "replace")
        return Response(content, status, PAGE_HEADERS, media_type="text/html")


def plain(text: str) -> str:
    """Return untrusted text for an attribute: one line, without bidirectional control characters."""
    return _HOSTILE.sub("", " ".join(text.split()))


def alt_text(prompt: str) -> str:
    """Return alt text: the beginning of the prompt, cut between words."""
    text = plain(prompt)
    if len(text) <= ALT_CHARS:
        return text or "No prompt"
    cut = text[:ALT_CHARS]
    # Where words are not set apart by spaces, it is cut between characters.
    return (cut.rpartition(" ")[0] if " " in cut[ALT_CHARS // 2 :] else cut) + "…"


def ticks(text: str) -> Markup:
    """Return a sentence with text between backticks as code."""
    pieces = [escape(piece) for piece in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if n % 2 else piece for n, piece in enumerate(pieces)
    )


def size(length: int) -> str:
    """Format a number of bytes: `1.2 MB`."""
    amount, unit = float(length), "B"
    for following in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, following
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def moment(at: int | str) -> str:
    """Format a time in UTC: `2026-11-22 10:00:00`. `at` is in milliseconds, or RFC 3339."""
    text = at if isinstance(at, str) else rfc3339(at)
    return text[:19].replace("T", " ")


def pretty(value: Any) -> str:
    """Return a value as indented JSON."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def query(parameters: Mapping[str, object]) -> str:
    """Return a query string without parameters that are None or empty."""
    return urlencode({name: value for name, value in parameters.items() if value not in (None, "")})


def age(seconds: float | None) -> str:
    """Format an age roughly: `3 min`; a dash for None."""
    if seconds is None:
        return UNKNOWN
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def shape(width: int, height: int) -> str:
    """Return the CSS class of a picture's shape: width by height, in twentieths, between 2:5 and 4:1.

    A style sheet without inline styles can know a picture's shape before it is there by a class only.
    """
    twentieths = round(20 * width / height) if height else 20
    return f"r{min(max(twentieths, NARROWEST), WIDEST)}"
