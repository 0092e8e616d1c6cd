"""Pure: what a request for a representation asks for, by its Range and conditional headers (RFC 9110)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers

from receiver.errors import UnsatisfiableRange

# One range; several, and what cannot be read, are answered with the whole: section 14.2 allows it.
_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]{1,100})-([0-9]{0,100})|-([0-9]{1,100}))[ \t]*", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class Part:
    """Some bytes of a representation: from `first` to `last`, both of them included."""

    first: int
    last: int
    of: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.last - self.first + 1

    @property
    def asked(self) -> str:
        """As the Range header asks for it."""
        return f"bytes={self.first}-{self.last}"

    @property
    def told(self) -> str:
        """As the Content-Range header tells it."""
        return f"bytes {self.first}-{self.last}/{self.of}"


def wanted_part(headers: Headers, *, length: int, etag: str) -> Part | None:
    """The part that a GET asks for; None if it is the whole. Raises UnsatisfiableRange.

    `etag` is the strong one of the representation, quoted. A Range whose If-Range names anything else is for
    a representation that is not here any more, and counts for nothing (section 13.1.5); a date in If-Range
    cannot be compared, because none is ever sent.
    """
    given = headers.getlist("range")
    if len(given) != 1 or headers.get("if-range", etag).strip() != etag:
        return None
    found = _RANGE.fullmatch(given[0].strip())
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        part = Part(max(0, length - int(suffix)), length - 1, length)
    else:
        part = Part(int(first), min(int(last), length - 1) if last else length - 1, length)
        if last and int(last) < int(first):
            return None
    if part.first > part.last:
        raise UnsatisfiableRange(length)
    return part


def known_already(headers: Headers, etag: str) -> bool:
    """Whether If-None-Match has this tag among its own, compared weakly (section 13.1.2), or is `*`."""
    given = ",".join(headers.getlist("if-none-match")).strip()
    opaque = etag.removeprefix("W/")
    return given == "*" or any(tag.removeprefix("W/") == opaque for tag in _TAG.findall(given))
