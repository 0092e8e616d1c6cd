"""Read the size of an AVIF or HEIC from its boxes, and check that the file is not truncated.

Both are HEIF, and differ in how the picture itself is coded. Readers raise Corrupt, or CutShort where the
file ends too early. Boxes are those of ISO 14496-12 and ISO 23008-12; which an AVIF has is said at
https://aomediacodec.github.io/av1-avif/.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media.formats import MAX_PARTS, CutShort, Size, length_of, number_at, read_at

MAX_BOXES = 4096
"""In one box. Real files have dozens, and boxes lie in boxes, so that the sum is what costs time."""
MAX_TABLE_BYTES = 1 << 20
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})


def is_avif(head: bytes) -> bool:
    """Return whether a file that begins so is AVIF."""
    return bool(_brands(head) & {b"avif", b"avis"})


def is_heic(head: bytes) -> bool:
    """Return whether a file that begins so is HEIC, and no AVIF: ISO 23008-12, B.4."""
    return bool(_brands(head) & _HEIC) and not is_avif(head)


def heif_size(file: BinaryIO) -> Size:
    """Read the size of the primary item, one of its properties: ISO 23008-12, 9.3 and 6.5.3.

    There are other sizes in the header: those of tiles, of the alpha plane and of thumbnails.
    """
    size = _property(file, b"ispe")
    if size is None:
        raise Corrupt("The HEIF header does not say how large the image is.")
    return number_at(file, size.start + 4, 4), number_at(file, size.start + 8, 4)


def heic_size(file: BinaryIO) -> Size:
    """Read the size as `heif_size` does; of one that is cut to size, what is left: ISO 14496-12, 12.1.4.

    Encoders fill an image up to whole blocks, and have it cut so.
    """
    width, height = heif_size(file)
    if (cut := _property(file, b"clap")) is None:
        return width, height
    sides = (number_at(file, cut.start + at, 4) for at in (0, 4, 8, 12))
    wide, wide_by, high, high_by = sides
    if not wide_by or not high_by or wide > width * wide_by or high > height * high_by:
        raise Corrupt("The HEIF header is broken: it is cut to more than there is.")
    return wide // wide_by, high // high_by


def heif_complete(file: BinaryIO) -> bool:
    """Return whether its boxes fill the file, image data among them."""
    end = length_of(file)
    boxes = list(_boxes(file, 0, end))
    names = {box.name for box in boxes}
    if not {b"meta", b"mdat"} <= names:
        return False
    if not boxes[-1].open:
        return True
    # The last box goes on to the end of the file, wherever that is. Where the items lie tells; where the
    # frames of a sequence lie is not looked into, so such a sequence counts as cut.
    return b"moov" not in names and _items_end(file, _box(file, "meta/iloc", 0, end)) <= end


def _brands(head: bytes) -> set[bytes]:
    # The brand may stand behind a general one such as `mif1`: ISO 14496-12 4.3, AVIF 1.1 section 6.
    if head[4:8] != b"ftyp":
        return set()
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return {brands[at : at + 4] for at in (0, *range(8, len(brands), 4))}


@dataclass(frozen=True, slots=True)
class _Box:
    """A box: its name, and from where to where its content goes."""

    name: bytes
    start: int
    end: int
    open: bool
    """Whether it gives no length, and goes on to the end of what it lies in."""


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    for _ in range(MAX_BOXES):
        if start >= end:
            return
        length, name, head = number_at(file, start, 4), read_at(file, start + 4, 4), 8
        is_open = length == 0
        if length == 1:
            length, head = number_at(file, start + 8, 8), 16
        elif is_open:
            length = end - start
        if start + length > length_of(file):
            raise CutShort("The HEIF header ends in the middle.")  # or this box says what cannot be
        if length < head or start + length > end:
            raise Corrupt("The HEIF header is broken: a box does not fit where it is.")
        yield _Box(name, start + head, start + length, is_open)
        start += length
    raise Corrupt("The HEIF header has too many boxes.")


def _box(file: BinaryIO, path: str, start: int, end: int) -> _Box:
    """Find a box by the names on the way to it."""
    name, _, rest = path.partition("/")
    box = next((box for box in _boxes(file, start, end) if box.name == name.encode()), None)
    if box is None:
        raise Corrupt(f"The HEIF header has no {name!r} box.")
    skip = 4 if name == "meta" else 0  # its version and flags
    return _box(file, rest, box.start + skip, box.end) if rest else box


def _property(file: BinaryIO, name: bytes) -> _Box | None:
    """Return a property of the primary item; None if it has none of that name."""
    end = length_of(file)
    primary = _box(file, "meta/pitm", 0, end)
    item = number_at(file, primary.start + 4, 4 if number_at(file, primary.start, 1) else 2)
    properties = _box(file, "meta/iprp/ipco", 0, end)
    wanted = _properties_of(file, _box(file, "meta/iprp/ipma", 0, end), item)
    found = enumerate(_boxes(file, properties.start, properties.end), start=1)
    return next((box for index, box in found if box.name == name and index in wanted), None)


def _properties_of(file: BinaryIO, box: _Box, item: int) -> frozenset[int]:
    """Return which properties an item has, as indices from 1."""
    id_size = 4 if number_at(file, box.start, 1) else 2
    step = 2 if number_at(file, box.start + 3, 1) & 1 else 1
    at = box.start + 8
    for _ in range(min(number_at(file, box.start + 4, 4), MAX_PARTS)):
        found, count = number_at(file, at, id_size), number_at(file, at + id_size, 1)
        at += id_size + 1
        if found == item:
            # The top bit says that a reader must understand the property.
            mask = 0x7FFF if step == 2 else 0x7F
            return frozenset(number_at(file, at + n * step, step) & mask for n in range(count))
        at += count * step
    raise Corrupt("The HEIF header says nothing about its primary image.")


def _items_end(file: BinaryIO, box: _Box) -> int:
    """Return where the last of the items' data ends: ISO 14496-12, 8.11.3."""
    table = io.BytesIO(read_at(file, box.start, min(box.end - box.start, MAX_TABLE_BYTES)))

    def number(size: int) -> int:
        return number_at(table, table.tell(), size)

    version, sizes, base_sizes = number(4) >> 24, number(1), number(1)
    offset, length, base = sizes >> 4, sizes & 15, base_sizes >> 4
    index = base_sizes & 15 if version else 0
    if not length:  # then each item is the whole file, or the table a trap of empty entries
        raise Corrupt("The HEIF header does not say how long the image is.")
    wide, last = 4 if version == 2 else 2, 0
    for _ in range(number(wide)):
        number(wide)
        in_file = number(2) & 15 == 0 if version else True
        number(2)
        start = number(base)
        for _ in range(number(2)):
            number(index)
            end = start + number(offset) + number(length)
            last = max(last, end if in_file else 0)
    return last
