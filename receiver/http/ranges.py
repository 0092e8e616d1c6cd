"""Parse Range, If-Range and If-None-Match headers (RFC 9110). Pure."""

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from receiver.errors import UnsatisfiableRange

# One range; for several, and for an invalid one, the whole is sent: section 14.2 allows it.
_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]{1,100})-([0-9]{0,100})|-([0-9]{1,100}))[ \t]*", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A range of bytes of a representation, from `first` to `last` inclusive."""

    first: int
    last: int
    of: int

    @property
    def length(self) -> int:
        """Its size in bytes."""
        return self.last - self.first + 1

    @property
    def range(self) -> str:
        """Its `Range` header."""
        return f"bytes={self.first}-{self.last}"

    @property
    def content_range(self) -> str:
        """Its `Content-Range` header."""
        return f"bytes {self.first}-{self.last}/{self.of}"


def requested_range(headers: Headers, *, length: int, etag: str) -> ByteRange | None:
    """Return the range that a GET requests; None for the whole. Raises UnsatisfiableRange.

    `etag` is the strong one of the representation, quoted. A Range whose If-Range names anything else is for
    an earlier representation and is ignored (section 13.1.5), and so is a date in If-Range, because no
    Last-Modified is ever sent.
    """
    given = headers.getlist("range")
    if len(given) != 1 or headers.get("if-range", etag).strip() != etag:
        return None
    found = _RANGE.fullmatch(given[0].strip())
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        part = ByteRange(max(0, length - int(suffix)), length - 1, length)
    else:
        part = ByteRange(int(first), min(int(last), length - 1) if last else length - 1, length)
        if last and int(last) < int(first):
            return None
    if part.first > part.last:
        raise UnsatisfiableRange(length)
    return part


def is_not_modified(headers: Headers, etag: str) -> bool:
    """Return whether If-None-Match has this tag, compared weakly (section 13.1.2), or is `*`."""
    given = ",".join(headers.getlist("if-none-match")).strip()
    opaque = etag.removeprefix("W/")
    return given == "*" or any(tag.removeprefix("W/") == opaque for tag in _TAG.findall(given))
