"""Read the size of a TIFF from its first directory, and check that the file is not truncated.

Readers raise Corrupt, or CutShort where the file ends too early. TIFF revision 6.0, and BigTIFF:
https://www.awaresystems.be/imaging/tiff/bigtiff.html.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media.formats import MAX_PARTS, Size, length_of, read_at

_MAGIC: Mapping[bytes, tuple[str, bool]] = {
    b"II*\0": ("<", False),
    b"MM\0*": (">", False),
    b"II+\0": ("<", True),
    b"MM\0+": (">", True),
}
"""How a file begins: its byte order, and whether it is a BigTIFF."""
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""The types of whole numbers."""
_BYTES = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
"""How long one value of each type is."""
WIDTH, HEIGHT = 256, 257
_DATA = ((273, 279), (324, 325), (513, 514))
"""Where the strips, the tiles or the JPEG of an image begin, and how long they are."""


def is_tiff(head: bytes) -> bool:
    """Return whether a file that begins so is TIFF."""
    return head[:4] in _MAGIC


def tiff_size(file: BinaryIO) -> Size:
    """Read the size of the first image."""
    directory = _first_directory(file)
    width, height = directory.numbers(WIDTH), directory.numbers(HEIGHT)
    if not width or not height:
        raise Corrupt("The TIFF header does not say how large the image is.")
    return width[0], height[0]


def tiff_complete(file: BinaryIO) -> bool:
    """Return whether all that the first image's directory leads to lies within the file."""
    directory, end, found = _first_directory(file), length_of(file), False
    if any(directory.end_of(tag) > end for tag in directory.tags):
        return False
    for place, length in _DATA:
        starts, sizes = directory.numbers(place), directory.numbers(length)
        if len(starts) != len(sizes):
            return False
        if any(start + size > end for start, size in zip(starts, sizes, strict=True)):
            return False
        found = found or any(sizes)
    return found


@dataclass(frozen=True, slots=True)
class _Directory:
    """The tags of one image: the type, number and place of the values of each."""

    file: BinaryIO
    order: str
    wide: bool
    tags: Mapping[int, tuple[int, int, int]]

    def numbers(self, tag: int) -> tuple[int, ...]:
        """Return the values of a tag; none if it is not there, or has no whole numbers."""
        kind, count, _ = self.tags.get(tag, (0, 0, 0))
        if kind not in _NUMBERS:
            return ()
        if count > MAX_PARTS:
            raise Corrupt("The TIFF header has too many parts.")
        values = struct.Struct(f"{self.order}{count}{_NUMBERS[kind]}")
        return values.unpack(read_at(self.file, self._start_of(tag), values.size))

    def end_of(self, tag: int) -> int:
        """Return where the values of a tag end."""
        kind, count, _ = self.tags[tag]
        return self._start_of(tag) + count * _BYTES.get(kind, 0)

    def _start_of(self, tag: int) -> int:
        """Return where the values of a tag are: in its entry if there is room, or where that says."""
        kind, count, at = self.tags[tag]
        room = 8 if self.wide else 4
        if count * _BYTES.get(kind, 0) <= room:
            return at
        (elsewhere,) = struct.unpack(f"{self.order}{'Q' if self.wide else 'I'}", read_at(self.file, at, room))
        return int(elsewhere)


def _first_directory(file: BinaryIO) -> _Directory:
    order, wide = _MAGIC[read_at(file, 0, 4)]
    if wide:
        size, zero, at = struct.unpack(f"{order}HHQ", read_at(file, 4, 12))
        if (size, zero) != (8, 0):
            raise Corrupt("The TIFF header is broken.")
    else:
        (at,) = struct.unpack(f"{order}I", read_at(file, 4, 4))
    counted = struct.Struct(f"{order}{'Q' if wide else 'H'}")
    (count,) = counted.unpack(read_at(file, at, counted.size))
    entry = struct.Struct(f"{order}HH{'Q8x' if wide else 'I4x'}")
    if not 0 < count <= 4096:
        raise Corrupt("The TIFF header is broken.")
    first = at + counted.size
    # Where the next image's directory is stands behind it.
    table = read_at(file, first, count * entry.size + (8 if wide else 4))[: count * entry.size]
    found = enumerate(entry.iter_unpack(table))
    value = 12 if wide else 8
    tags = {tag: (kind, many, first + n * entry.size + value) for n, (tag, kind, many) in found}
    return _Directory(file, order, wide, tags)
