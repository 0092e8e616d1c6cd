"""How texts are compared when somebody looks for them."""

from __future__ import annotations

import unicodedata


def fold(text: str) -> str:
    """A text without what people do not type: case, width, and how accents are put together.

    `CAFÉ`, `café` and `cafe` with a combining accent are one, full-width letters are letters, half-width kana
    are kana. Accents themselves stay. It is Unicode's caseless compatibility match (section 3.13, D146).
    """
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKC", once.casefold())
