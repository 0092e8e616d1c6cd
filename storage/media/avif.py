"""AVIF: how large an image is and whether it goes on to its end, from its boxes' headers.

Readers raise Corrupt, or struct.error where the file ends too early. No pixel is decoded. Boxes are those of
ISO 14496-12 and ISO 23008-12; https://aomediacodec.github.io/av1-avif/ says which an AVIF has.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media.reader import MAX_PARTS, Extent, length_of, read_at

MAX_BOXES = 4096
"""In one box. Real files have dozens, and boxes lie in boxes, so that the sum is what costs time."""
MAX_TRACKS = 16
MAX_TABLE_BYTES = 1 << 20


def is_avif(head: bytes) -> bool:
    """Whether a file that begins so is AVIF."""
    # The brand may stand behind a general one such as `mif1`: ISO 14496-12 4.3, AVIF 1.1 section 6.
    if head[4:8] != b"ftyp":
        return False
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return any(brands[at : at + 4] in (b"avif", b"avis") for at in (0, *range(8, len(brands), 4)))


def avif_extent(file: BinaryIO) -> Extent:
    """Read the size of the primary item, and the frames and sizes of the tracks, if it is a sequence."""
    # The size is a property of the primary item: ISO 23008-12 section 9.3 and 6.5.3. There are other sizes
    # in the header: those of tiles, of the alpha plane and of thumbnails.
    end = length_of(file)
    primary = _box(file, "meta/pitm", 0, end)
    version = read_at(file, primary.start, 1)[0]
    item = int.from_bytes(read_at(file, primary.start + 4, 4 if version else 2), "big")
    properties = _box(file, "meta/iprp/ipco", 0, end)
    wanted = _associated(file, _box(file, "meta/iprp/ipma", 0, end), item)
    for index, box in enumerate(_boxes(file, properties.start, properties.end), start=1):
        if box.name == b"ispe" and index in wanted:
            width, height = struct.unpack(">II", read_at(file, box.start + 4, 8))
            tracks = [_track(file, track) for track in _tracks(file, end)]
            frames = max((frames for frames, _ in tracks), default=1)
            return Extent(width, height, max(1, frames), max((pixels for _, pixels in tracks), default=0))
    raise Corrupt("The AVIF header does not say how large the image is.")


def avif_whole(file: BinaryIO) -> bool:
    """Whether its boxes fill the file, image data among them."""
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


@dataclass(frozen=True, slots=True)
class _Box:
    """A box of ISO 14496-12: what it is, and from where to where its content goes."""

    name: bytes
    start: int
    end: int
    open: bool = False
    """Whether it gives no length, and goes on to the end of what it lies in."""


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    for _ in range(MAX_BOXES):
        if start >= end:
            return
        length, name = struct.unpack(">I4s", read_at(file, start, 8))
        head, is_open = 8, length == 0
        if length == 1:
            (length,) = struct.unpack(">Q", read_at(file, start + 8, 8))
            head = 16
        elif is_open:
            length = end - start
        if start + length > length_of(file):
            raise struct.error  # the file was cut, or this box says what cannot be
        if length < head or start + length > end:
            raise Corrupt("The AVIF header is broken: a box does not fit where it is.")
        yield _Box(name, start + head, start + length, is_open)
        start += length
    raise Corrupt("The AVIF header has too many boxes.")


def _box(file: BinaryIO, path: str, start: int, end: int) -> _Box:
    """Find a box by the names on the way to it."""
    name, _, rest = path.partition("/")
    box = next((box for box in _boxes(file, start, end) if box.name == name.encode()), None)
    if box is None:
        raise Corrupt(f"The AVIF header has no {name!r} box.")
    skip = 4 if name == "meta" else 0  # its version and flags
    return _box(file, rest, box.start + skip, box.end) if rest else box


def _associated(file: BinaryIO, box: _Box, item: int) -> frozenset[int]:
    """Read which properties an item has, as indices from 1."""
    version, flags, count = struct.unpack(">B3sI", read_at(file, box.start, 8))
    wide_id, wide_index = version >= 1, flags[2] & 1
    at = box.start + 8
    for _ in range(min(count, MAX_PARTS)):
        found, size = struct.unpack(">IB" if wide_id else ">HB", read_at(file, at, 5 if wide_id else 3))
        at += 5 if wide_id else 3
        step = 2 if wide_index else 1
        if found == item:
            # The top bit says that a reader must understand the property.
            indices = struct.unpack(f">{size}{'H' if wide_index else 'B'}", read_at(file, at, size * step))
            return frozenset(index & (0x7FFF if wide_index else 0x7F) for index in indices)
        at += size * step
    raise Corrupt("The AVIF header says nothing about its primary image.")


def _tracks(file: BinaryIO, end: int) -> Iterator[_Box]:
    """Yield the tracks of a sequence; a still image has none."""
    films = (box for box in _boxes(file, 0, end) if box.name == b"moov")
    tracks = (box for film in films for box in _boxes(file, film.start, film.end) if box.name == b"trak")
    for number, track in enumerate(tracks):
        if number >= MAX_TRACKS:
            raise Corrupt("The AVIF header has too many tracks.")
        yield track


def _track(file: BinaryIO, track: _Box) -> tuple[int, int]:
    """Read how many frames a track has, and the pixels of one: ISO 14496-12, 8.5.2, 8.7.3 and 12.1.3."""
    table = _box(file, "mdia/minf/stbl", track.start, track.end)
    frames = pixels = 0
    for box in _boxes(file, table.start, table.end):
        if box.name in (b"stsz", b"stz2"):
            (count,) = struct.unpack(">I", read_at(file, box.start + 8, 4))
            frames = max(frames, count)
        if box.name == b"stsd":
            kinds = (kind for kind in _boxes(file, box.start + 8, box.end) if kind.name == b"av01")
            sizes = [struct.unpack(">HH", read_at(file, kind.start + 24, 4)) for kind in kinds]
            pixels = max((width * height for width, height in sizes), default=0)
    return frames, pixels


def _items_end(file: BinaryIO, box: _Box) -> int:
    """Read where the last of the items' data ends: ISO 14496-12, 8.11.3."""
    table = io.BytesIO(read_at(file, box.start, min(box.end - box.start, MAX_TABLE_BYTES)))

    def number(size: int) -> int:
        return int.from_bytes(read_at(table, table.tell(), size), "big")

    version, sizes, base_sizes = number(4) >> 24, number(1), number(1)
    offset, length, base = sizes >> 4, sizes & 15, base_sizes >> 4
    index = base_sizes & 15 if version else 0
    if not length:  # then each item is the whole file, or the table a trap of empty entries
        raise Corrupt("The AVIF header does not say how long the image is.")
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
