"""Fold the case and width of texts for search, and build slugs of them for names."""

import re
import unicodedata


def fold(text: str) -> str:
    """Return a text without case, width, and the composition of accents; accents themselves stay.

    `CAFÉ`, `café` and `cafe` with a combining accent are one, full-width letters are letters, half-width kana
    are kana. It is Unicode's caseless compatibility match (section 3.13, D146).
    """
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFKC", once.casefold())


def slug(text: str, keep: str = "") -> str:
    """Return a text as words of letters and digits of any script, and signs to `keep`, joined by dashes."""
    text = unicodedata.normalize("NFC", text)
    # Marks too, without which many scripts have no vowels; alone they are what is left of emoji.
    kept = "".join(sign if unicodedata.category(sign)[0] in "LMN" or sign in keep else "-" for sign in text)
    seen = any(unicodedata.category(sign)[0] in "LN" for sign in kept)
    return re.sub("-+", "-", kept).strip(f"-{keep}") if seen else ""
