"""Find the parts of a multipart body, whatever its header says: RFC 2046, section 5.1."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MAX_PARTS = 64
MAX_HEAD_BYTES = 4096
STEP = 64 * 1024
# The first line gives the boundary away; behind it stand header fields, or the empty line that ends them.
_BEGINNING = re.compile(
    rb"(?:\r?\n)?--([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])[ \t]{0,8}\r?\n"
    rb"(?:[A-Za-z0-9-]{1,64}:|\r?\n)"
)
_EMPTY_LINE = re.compile(rb"\r?\n\r?\n")


class NotMultipart(ValueError):
    """The body is cut short, or not built as multipart is; the message says why, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its header fields as they came, and from where to where its content goes."""

    head: bytes
    start: int
    end: int


def is_multipart(head: bytes) -> bool:
    """Return whether a body that begins so is multipart."""
    return _BEGINNING.match(head) is not None


def parts(file: BinaryIO) -> list[Part]:
    """Return the parts of a body, in their order. Raises NotMultipart."""
    file.seek(0)
    beginning = _BEGINNING.match(file.read(MAX_HEAD_BYTES))
    if beginning is None:
        raise NotMultipart("it does not begin with a boundary")
    boundary = b"--" + beginning[1]
    found: list[Part] = []
    start = beginning.start(1) - 2 + len(boundary)
    for at in _places(file, b"\n" + boundary, start):
        after = at + 1 + len(boundary)
        file.seek(after)
        behind = file.read(2)
        if behind[:1] not in (b"-", b"\r", b"\n", b" ", b"\t"):
            continue  # a longer boundary, of what is in the part
        found.append(_part(file, start, at))
        if behind == b"--":
            return found
        if len(found) >= MAX_PARTS:
            raise NotMultipart(f"it has more than {MAX_PARTS} parts")
        start = after
    raise NotMultipart("it ends in the middle")


def _places(file: BinaryIO, wanted: bytes, at: int) -> Iterator[int]:
    """Yield each place of some bytes from `at` on."""
    left = b""
    while True:
        file.seek(at + len(left))
        if not (piece := file.read(STEP)):
            return
        window, found = left + piece, -1
        while (found := window.find(wanted, found + 1)) >= 0:
            yield at + found
        left = window[1 - len(wanted) :]
        at += len(window) - len(left)


def _part(file: BinaryIO, start: int, end: int) -> Part:
    """Return the part between two boundaries."""
    file.seek(start)
    head = file.read(min(MAX_HEAD_BYTES, end - start))
    blank = _EMPTY_LINE.search(head)
    if blank is None:
        raise NotMultipart("a part of it has no end of its header")
    file.seek(end - 1)
    last = end - 1 if end > start and file.read(1) == b"\r" else end
    return Part(head[: blank.start()], start + blank.end(), max(last, start + blank.end()))
