"""Quote in one line what an image host said when it refused, without the query of the link."""

import re
from urllib.parse import parse_qsl, quote

from receiver.redaction import MASK, Redactor

MAX_READ_BYTES = 4096
MAX_QUOTED_CHARS = 160

# What errors of S3 and pages for people say in short: the rest of them has ids and times.
_SHORT = re.compile(r"<(Code|Message|title|h1)\b[^<>]{0,200}>\s{0,99}([^<>]{1,300})", re.IGNORECASE)
_HIDDEN = re.compile(r"<(script|style)\b.*?(?:</\1>|\Z)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]{0,400}>?")
_PIECE = re.compile(r"[\w+/=.-]{12,}")
_redactor = Redactor()


def quoted(body: bytes, query: str | None) -> str:
    """Return ` It said: "..."`, or nothing if the body has no text. `query` is that of the link."""
    text = body[:MAX_READ_BYTES].decode("utf-8", "replace")
    text = _HIDDEN.sub(" ", text)
    said = " ".join(dict.fromkeys(found.strip() for _, found in _SHORT.findall(text))) or _TAG.sub(" ", text)
    said = _redactor.text(_without(query or "", said))
    said = " ".join(
        "".join(sign if sign.isprintable() and sign != "\ufffd" else " " for sign in said).split()
    )
    if not any(sign.isalnum() for sign in said):
        return ""
    return f' It said: "{said if len(said) <= MAX_QUOTED_CHARS else said[: MAX_QUOTED_CHARS - 1] + "…"}"'


def _without(query: str, text: str) -> str:
    """Take out of a text what the query of the link has: the host may repeat its signature."""
    values = {query, *(value for _, value in parse_qsl(query) if len(value) >= 6)}
    pieces = {piece for value in values for piece in _PIECE.findall(value)}
    spelled = {spelling for value in values | pieces for spelling in (value, quote(value, safe=""))}
    for one in sorted(spelled - {""}, key=len, reverse=True):
        text = text.replace(one, MASK)
    return text
