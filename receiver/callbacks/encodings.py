"""Decode the `Content-Encoding` of a body, within limits.

The rules are those of https://www.rfc-editor.org/rfc/rfc9110#section-8.4.
"""

import zlib

from receiver.errors import BodyTooLarge, MalformedCallback

GZIP_OR_ZLIB, RAW = 47, -15
"""The `wbits` of zlib. Some senders leave out the frame of `deflate`, so that is tried too."""
FORMATS = {"gzip": (GZIP_OR_ZLIB,), "x-gzip": (GZIP_OR_ZLIB,), "deflate": (GZIP_OR_ZLIB, RAW)}
MAX_ENCODINGS = 3
MAX_MEMBERS = 16
"""Each is copied, so many small ones would cost much."""


def decoded(body: bytes, encodings: str, limit: int) -> bytes:
    """Return a body without its encodings, of at most `limit` bytes.

    A JSON document is returned as it is, whatever the header says: some proxies decode a body and leave its
    header. Raises MalformedCallback for an unknown encoding or a damaged body, and BodyTooLarge.
    """
    names = [name.strip().lower() for name in encodings.split(",")]
    applied = [name for name in names if name not in {"", "identity"}]
    if not FORMATS.keys() >= set(applied) or len(applied) > MAX_ENCODINGS:
        raise MalformedCallback("The body's Content-Encoding is unknown: send it as gzip, deflate or plain.")
    for name in reversed(applied):
        body = _inflated(body, name, limit)
    return body


def _inflated(body: bytes, name: str, limit: int) -> bytes:
    for wbits in FORMATS[name]:
        try:
            return _members(body, wbits, limit)
        except zlib.error:
            continue
    if body.lstrip()[:1] in {b"{", b"["}:
        return body
    raise MalformedCallback(f"The body is not what its Content-Encoding says: {name}.")


def _members(body: bytes, wbits: int, limit: int) -> bytes:
    """Inflate a stream, or several that stand one after the other, as gzip allows; raise zlib.error."""
    found = bytearray()
    for _ in range(MAX_MEMBERS):
        stream = zlib.decompressobj(wbits)
        found += stream.decompress(body, limit + 1 - len(found))
        if len(found) > limit:
            raise BodyTooLarge(f"The body may have {limit} bytes at most, also after it was decoded.")
        if not stream.eof:
            raise zlib.error("the stream is cut off")
        body = stream.unused_data
        if not body:
            return bytes(found)
    raise zlib.error("too many streams")
