"""Find images that stand in text themselves: data URIs, and base64 that begins as an image does."""

import base64
import re

from storage.media.inspect import ON_REQUEST, is_image
from storage.media.jxl import CODESTREAM

MASK = b"[removed]"
LEAST_CHARS = 40
"""Of an image in base64; the smallest GIF has 56."""
HEAD_CHARS = 4096
LONG_CHARS = 512
"""As long is no path and no name."""

# What is a link is taken first, so that nothing is found within one. All repetitions are bounded by what
# they are made of, and each character is looked at once, so that hostile text costs little.
_PLACES = re.compile(
    rb"https?(?::|%3a|\\u003a)[^\s\"]+"
    rb"|(?P<label>data:image\\{0,8}/[\w.+-]{1,40}(?:;[\w.+=-]{1,40}){0,4})"
    rb"(?:(?P<base64>;base64,)[^\"\s\\]*(?:\\{1,8}[/nrtu][^\"\s\\]*)*|(?P<plain>,)(?:[^\"\\]|\\.)*)"
    rb"|(?P<bare>(?<![\w+/\\%.-])(?=[\w+/\\-]{40})[\w+/-]*(?:\\{1,8}[/nrtu][\w+/-]*)*(?:=|\\u003d){0,2})",
    re.IGNORECASE | re.DOTALL,
)
# In JSON: an escaped slash, also as a code point, and line breaks.
_SLASH, _PLUS = re.compile(rb"\\+(?:/|u002[Ff])"), re.compile(rb"\\+u002[Bb]")
_BREAK = re.compile(rb"\\+[nrt]")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def without_images(text: bytes) -> bytes:
    """Redact the images in some text, plain or JSON; a link is none, whatever is in it."""
    return _PLACES.sub(_without, text)


def is_base64_image(text: bytes) -> bool:
    """Return whether text is an image in base64, by its first bytes; spelled as JSON may have it, too."""
    if len(text) < LEAST_CHARS:
        return False
    head = _BREAK.sub(b"", _PLUS.sub(b"+", _SLASH.sub(b"/", text[:HEAD_CHARS])))
    head = head.translate(_URL_SAFE, b" \t\r\n").rstrip(b"=")
    try:
        first = base64.b64decode(head[: len(head) // 4 * 4], validate=True)
    except ValueError:
        return False
    # A path may begin as a bare JPEG XL does: /wo...
    return is_image(first, also=ON_REQUEST) and (len(text) >= LONG_CHARS or not first.startswith(CODESTREAM))


def _without(found: re.Match[bytes]) -> bytes:
    if found["label"] is not None:
        return found["label"] + (found["base64"] or found["plain"]) + MASK
    return MASK if found["bare"] is not None and is_base64_image(found["bare"]) else found[0]
