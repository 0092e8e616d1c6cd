"""What image is this, and how large is it, from its header alone.

The headers are read here and not by an image library: a library's `open` reads whole files into memory
(100 MiB for a PNG with a 50 MiB comment) or makes room for every pixel before anyone can look at the limit.
Nothing in this module decodes a pixel.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt

MAX_PARTS = 1 << 18
"""More chunks, segments or boxes than any real image has: reading on would only burn time."""
TAIL_BYTES = 64 * 1024
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
JPEG_SCAN = 0xDA


class TooManyPixels(Corrupt):
    """Width times height is over the limit."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's header says. Width and height are as stored, before any orientation is applied."""

    media_type: str
    extension: str
    width: int
    height: int


def inspect(file: BinaryIO, *, max_pixels: int) -> ImageFacts:
    """Say what image a file holds; its declared type has no say. The file is left at its start.

    Raises Corrupt if it is not PNG, JPEG, WebP or AVIF or its header is broken, and TooManyPixels.
    """
    try:
        kind = _sniff(file)
        try:
            width, height = kind.size(file)
        except struct.error:
            raise Corrupt(f"The {kind.name} header ends in the middle.") from None
    finally:
        file.seek(0)
    if width < 1 or height < 1:
        raise Corrupt(f"The {kind.name} header says {width} x {height} pixels.")
    if width * height > max_pixels:
        raise TooManyPixels(f"The image has {width} x {height} pixels; the limit is {max_pixels}.")
    return ImageFacts(kind.media_type, kind.extension, width, height)


def whole(file: BinaryIO, facts: ImageFacts) -> bool:
    """Whether an image that `inspect` knows goes on to its end: a cheap check against truncation.

    Bytes after the end are allowed, except in AVIF, which has no mark for it: its boxes must fill the file.
    The file is left at its start.
    """
    kind = next(kind for kind in KINDS if kind.media_type == facts.media_type)
    try:
        return kind.whole(file)
    except (Corrupt, struct.error):
        return False
    finally:
        file.seek(0)


def _is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _is_avif(head: bytes) -> bool:
    # The brand may stand behind a general one such as `mif1`: ISO 14496-12 4.3, AVIF 1.1 section 6.
    if head[4:8] != b"ftyp":
        return False
    brands = head[8 : int.from_bytes(head[:4], "big")]
    return any(brands[at : at + 4] in (b"avif", b"avis") for at in (0, *range(8, len(brands), 4)))


def _png_size(file: BinaryIO) -> tuple[int, int]:
    # https://www.w3.org/TR/png-3/#11IHDR
    length, header, crc = struct.unpack(">I17sI", _read(file, 8, 25))
    if length != 13 or header[:4] != b"IHDR" or zlib.crc32(header) != crc:
        raise Corrupt("The PNG does not start with a sound IHDR chunk.")
    width, height = struct.unpack(">II", header[4:12])
    return width, height


def _png_whole(file: BinaryIO) -> bool:
    end, at = _length(file), len(PNG_MAGIC)
    for _ in range(MAX_PARTS):
        if at + 12 > end:
            return False
        length, name = struct.unpack(">I4s", _read(file, at, 8))
        at += 12 + int(length)
        if name == b"IEND":
            return at <= end
    return False


def _segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield each JPEG segment up to the first scan: its marker, and where what follows the marker starts."""
    at = 2
    for _ in range(MAX_PARTS):
        fence, marker = _read(file, at, 2)
        if fence != 0xFF:
            raise Corrupt("The JPEG header is broken: a marker is missing.")
        if marker == 0xFF:  # a marker may be led by any number of these
            at += 1
            continue
        at += 2
        yield marker, at
        if marker == JPEG_SCAN:
            return
        if marker not in JPEG_BARE:
            (length,) = struct.unpack(">H", _read(file, at, 2))
            at += max(length, 2)
    raise Corrupt("The JPEG header has no end.")


def _jpeg_size(file: BinaryIO) -> tuple[int, int]:
    # https://www.w3.org/Graphics/JPEG/itu-t81.pdf B.2.2
    for marker, at in _segments(file):
        if marker in JPEG_SIZES:
            height, width = struct.unpack(">HH", _read(file, at + 3, 4))
            return width, height
    raise Corrupt("The JPEG header does not say how large the image is.")


def _jpeg_whole(file: BinaryIO) -> bool:
    # Searched only behind the first scan's start: an embedded thumbnail has an end of its own before it.
    scan = next(at for marker, at in _segments(file) if marker == JPEG_SCAN)
    end = _length(file)
    start = max(scan, end - TAIL_BYTES)
    return JPEG_END in _read(file, start, end - start)


def _webp_size(file: BinaryIO) -> tuple[int, int]:
    # https://developers.google.com/speed/webp/docs/riff_container and RFC 9649
    chunk = _read(file, 12, 4)
    if chunk == b"VP8X":
        canvas = _read(file, 24, 6)
        return 1 + int.from_bytes(canvas[:3], "little"), 1 + int.from_bytes(canvas[3:], "little")
    if chunk == b"VP8L":
        mark, bits = struct.unpack("<BI", _read(file, 20, 5))
        if mark == 0x2F:
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        tag, mark, width, height = struct.unpack("<3s3sHH", _read(file, 20, 10))
        if mark == b"\x9d\x01\x2a" and not tag[0] & 1:
            return width & 0x3FFF, height & 0x3FFF
    raise Corrupt("The WebP header is broken.")


def _webp_whole(file: BinaryIO) -> bool:
    (length,) = struct.unpack("<I", _read(file, 4, 4))
    return 8 + int(length) <= _length(file)


@dataclass(frozen=True, slots=True)
class _Box:
    """A box of ISO 14496-12: what it is, and from where to where its content goes."""

    name: bytes
    start: int
    end: int


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    for _ in range(MAX_PARTS):
        if start >= end:
            return
        length, name = struct.unpack(">I4s", _read(file, start, 8))
        head = 8
        if length == 1:
            (length,) = struct.unpack(">Q", _read(file, start + 8, 8))
            head = 16
        elif length == 0:
            length = end - start
        if length < head or start + length > end:
            raise Corrupt("The AVIF header is broken: a box does not fit where it is.")
        yield _Box(name, start + head, start + length)
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


def _avif_size(file: BinaryIO) -> tuple[int, int]:
    # The size is a property of the primary item: ISO 23008-12 section 9.3 and 6.5.3. There are other sizes
    # in the header: those of tiles, of the alpha plane and of thumbnails.
    end = _length(file)
    primary = _box(file, "meta/pitm", 0, end)
    version = _read(file, primary.start, 1)[0]
    item = int.from_bytes(_read(file, primary.start + 4, 4 if version else 2), "big")
    properties = _box(file, "meta/iprp/ipco", 0, end)
    wanted = _associated(file, _box(file, "meta/iprp/ipma", 0, end), item)
    for index, box in enumerate(_boxes(file, properties.start, properties.end), start=1):
        if box.name == b"ispe" and index in wanted:
            width, height = struct.unpack(">II", _read(file, box.start + 4, 8))
            return width, height
    raise Corrupt("The AVIF header does not say how large the image is.")


def _associated(file: BinaryIO, box: _Box, item: int) -> frozenset[int]:
    """Read which properties an item has, as indices from 1."""
    version, flags, count = struct.unpack(">B3sI", _read(file, box.start, 8))
    wide_id, wide_index = version >= 1, flags[2] & 1
    at = box.start + 8
    for _ in range(min(count, MAX_PARTS)):
        found, size = struct.unpack(">IB" if wide_id else ">HB", _read(file, at, 5 if wide_id else 3))
        at += 5 if wide_id else 3
        step = 2 if wide_index else 1
        if found == item:
            # The top bit says that a reader must understand the property.
            indices = struct.unpack(f">{size}{'H' if wide_index else 'B'}", _read(file, at, size * step))
            return frozenset(index & (0x7FFF if wide_index else 0x7F) for index in indices)
        at += size * step
    raise Corrupt("The AVIF header says nothing about its primary image.")


def _avif_whole(file: BinaryIO) -> bool:
    names = {box.name for box in _boxes(file, 0, _length(file))}
    return {b"meta", b"mdat"} <= names


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise struct.error  # as `unpack` would; `inspect` and `whole` say what it means
    return data


def _length(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    media_type: str
    extension: str
    fits: Callable[[bytes], bool]
    size: Callable[[BinaryIO], tuple[int, int]]
    whole: Callable[[BinaryIO], bool]


def _sniff(file: BinaryIO) -> _Kind:
    file.seek(0)
    head = file.read(256)
    for kind in KINDS:
        if kind.fits(head):
            return kind
    raise Corrupt("These bytes are not a PNG, JPEG, WebP or AVIF image.")


KINDS = (
    _Kind("PNG", "image/png", "png", lambda head: head.startswith(PNG_MAGIC), _png_size, _png_whole),
    _Kind("JPEG", "image/jpeg", "jpg", lambda head: head.startswith(JPEG_MAGIC), _jpeg_size, _jpeg_whole),
    _Kind("WebP", "image/webp", "webp", _is_webp, _webp_size, _webp_whole),
    _Kind("AVIF", "image/avif", "avif", _is_avif, _avif_size, _avif_whole),
)
