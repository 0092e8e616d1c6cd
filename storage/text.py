"""Fold case and width of texts for search."""

from __future__ import annotations

import unicodedata


def fold(text: str) -> str:
    """Return a text without case, width, and the composition of accents; accents themselves stay.

    `CAFÉ`, `café` and `cafe` with a combining accent are one, full-width letters are letters, half-width kana
    are kana. It is Unicode's caseless compatibility match (section 3.13, D146).
    """
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKC", once.casefold())
