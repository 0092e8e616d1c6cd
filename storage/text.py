"""Build slugs of texts, for names."""

import re
import unicodedata


def slug(text: str, keep: str = "") -> str:
    """Return a text as words of letters and digits of any script, and signs to `keep`, joined by dashes."""
    text = unicodedata.normalize("NFC", text)
    # Marks too, without which many scripts have no vowels; alone they are what is left of emoji.
    kept = "".join(sign if unicodedata.category(sign)[0] in "LMN" or sign in keep else "-" for sign in text)
    seen = any(unicodedata.category(sign)[0] in "LN" for sign in kept)
    return re.sub("-+", "-", kept).strip(f"-{keep}") if seen else ""
