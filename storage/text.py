"""Fold texts for search, and build slugs of them for names."""

# ruff: noqa: RUF001, RUF002 - characters that look like others are what it is about

import re
import unicodedata

_PLAIN = {
    "'": "‘’‚‛′‵ʹʻʼʽ´`׳",
    '"': "“”„‟″‶〝〞〟ʺ״",
    "-": "‐‑‒–—―−⁃﹘",
    "/": "⁄∕",
    "i": "ı",
}
"""Characters that look like a plain one; halves, such as ½, have the slash."""
_INVISIBLE = (
    *((0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C)),
    *((0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E)),
    *((0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0)),
    *((0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
)
"""Control characters that are no space, and Unicode's Default_Ignorable_Code_Point, which its own caseless
match of identifiers leaves out too: https://www.unicode.org/reports/tr31/#NFKC_Modifications"""
_ALIKE = {sign: plain for plain, signs in _PLAIN.items() for sign in signs}
_ODD = re.compile(f"[{''.join(_ALIKE)}{''.join(f'{chr(first)}-{chr(last)}' for first, last in _INVISIBLE)}]")
_SPACES = re.compile(r"\s+")


def fold(text: str) -> str:
    """Return a text as it is searched, in which what looks the same is the same.

    Case, width and the composition of accents do not count; accents themselves do. That is Unicode's caseless
    compatibility match (section 3.13, D146). Typographic quotes and dashes are plain ones, I, İ, i and ı are
    one letter, invisible characters are left out, and any white space, also a line end, is one space.
    """
    once = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", _plain(text)).casefold())
    # What folding brought up, as a half its slash and İ an i with a second dot.
    plain = _plain(once).replace("i\u0307", "i")
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", plain.casefold()))


def _plain(text: str) -> str:
    return _ODD.sub(lambda found: _ALIKE.get(found[0], ""), text)


def slug(text: str, keep: str = "") -> str:
    """Return a text as words of letters and digits of any script, and signs to `keep`, joined by dashes."""
    text = unicodedata.normalize("NFC", text)
    # Marks too, without which many scripts have no vowels; alone they are what is left of emoji.
    kept = "".join(sign if unicodedata.category(sign)[0] in "LMN" or sign in keep else "-" for sign in text)
    seen = any(unicodedata.category(sign)[0] in "LN" for sign in kept)
    return re.sub("-+", "-", kept).strip(f"-{keep}") if seen else ""
