"""Read the size of a PNG, JPEG, WebP, GIF, SVG or BMP from its header, and check that it is not truncated.

Readers take small reads of the headers of chunks or segments, within bounds, so that hostile bytes cost
little. They raise Corrupt if the file is broken, and CutShort if it ends too early.
"""

import os
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from storage.errors import Corrupt

MAX_PARTS = 1 << 18
"""More chunks or segments than any real image has."""
WINDOW_BYTES = 64 * 1024
LAST_PLACE = 1 << 40
"""No image reaches so far: to seek beyond what a file can have would be an error of its own."""
HEAD_BYTES = 4096
"""As much of a file's beginning tells what it is."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
"""Markers without a length behind them."""
JPEG_SCAN = 0xDA
JPEG_END = 0xD9
# In a scan's data such a byte pair is followed by 0, or is a restart.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s{0,64}(?:<\?xml[^>]{0,200}\?>\s{0,64}|<!--(?:(?!-->).){0,2000}-->\s{0,64}"
    rb"|<!DOCTYPE\s+svg[^>]{0,300}>\s{0,64}){0,4}<svg[\s>]([^>]{0,2000})",
    re.DOTALL,
)
_SVG_WIDTH, _SVG_HEIGHT = (
    re.compile(rb"(?<![\w-])" + side + rb"""\s*=\s*["']\s*(\d{1,6})(?:\.\d+)?(?:px)?\s*["']""")
    for side in (b"width", b"height")
)
_SVG_BOX = re.compile(
    rb"""viewBox\s*=\s*["']\s*[\d.+-]+[\s,]+[\d.+-]+[\s,]+(\d{1,6}(?:\.\d+)?)[\s,]+(\d{1,6}(?:\.\d+)?)"""
)
SVG_SIZE = (300, 150)
"""Of an SVG that gives none: https://www.w3.org/TR/css-sizing-3/#intrinsic-sizes."""

Size = tuple[int, int]
"""Width and height in pixels, as stored."""


class CutShort(Corrupt):
    """The file ends in the middle of its header."""


def read_at(file: BinaryIO, at: int, size: int) -> bytes:
    """Return exactly `size` bytes; raises CutShort if the file ends before."""
    if at > LAST_PLACE:
        raise CutShort("The image's header ends in the middle.")
    file.seek(at)
    data = file.read(size)
    if len(data) < size:
        raise CutShort("The image's header ends in the middle.")
    return data


def number_at(file: BinaryIO, at: int, size: int) -> int:
    """Return a big-endian number of `size` bytes."""
    return int.from_bytes(read_at(file, at, size), "big")


def length_of(file: BinaryIO) -> int:
    """Return the file's size in bytes."""
    return file.seek(0, os.SEEK_END)


def png_size(file: BinaryIO) -> Size:
    """Read the size from the first chunk: https://www.w3.org/TR/png-3/#11IHDR."""
    length, header, crc = struct.unpack(">I17sI", read_at(file, 8, 25))
    if length != 13 or header[:4] != b"IHDR" or zlib.crc32(header) != crc:
        raise Corrupt("The PNG does not start with a sound IHDR chunk.")
    return number_at(file, 16, 4), number_at(file, 20, 4)


def png_complete(file: BinaryIO) -> bool:
    """Return whether there is image data, and an IEND chunk behind it."""
    end, at, data = length_of(file), len(PNG_MAGIC), False
    for _ in range(MAX_PARTS):
        length, name = number_at(file, at, 4), read_at(file, at + 4, 4)
        data = data or name == b"IDAT"
        at += 12 + length
        if name == b"IEND":
            return data and at <= end
    return False


def jpeg_size(file: BinaryIO) -> Size:
    """Read the size from the frame header: https://www.w3.org/Graphics/JPEG/itu-t81.pdf B.2.2."""
    for marker, at in _segments(file):
        if marker in JPEG_SIZES:
            return number_at(file, at + 5, 2), number_at(file, at + 3, 2)
    raise Corrupt("The JPEG header does not say how large the image is.")


def jpeg_complete(file: BinaryIO) -> bool:
    """Return whether an end mark follows the scans. What stands behind it, and how much, is not looked at."""
    # Only there: an embedded thumbnail has an end of its own before it.
    at = next(at for marker, at in _segments(file) if marker == JPEG_SCAN)
    for _ in range(MAX_PARTS):
        at = _next_marker(file, at + max(2, number_at(file, at, 2)))
        if at < 0:
            return False
        if number_at(file, at - 1, 1) == JPEG_END:
            return True
    return False


def _next_marker(file: BinaryIO, at: int) -> int:
    """Return where what follows the next marker behind a scan's data starts; -1 if there is none."""
    # Small at first, because the next one may be near, and there may be very many.
    size = 256
    file.seek(at)
    while len(window := file.read(size)) > 1:
        if found := _JPEG_MARKER.search(window):
            return at + found.end()
        at += len(window) - 1
        size = min(2 * size, WINDOW_BYTES)
        file.seek(at)
    return -1


def _segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield each JPEG segment up to the first scan: its marker, and where what follows the marker starts."""
    at = 2
    for _ in range(MAX_PARTS):
        fence, marker = read_at(file, at, 2)
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
            at += max(2, number_at(file, at, 2))
    raise Corrupt("The JPEG header has no end.")


def is_gif(head: bytes) -> bool:
    """Return whether a file that begins so is GIF."""
    return head[:6] in (b"GIF87a", b"GIF89a")


def gif_size(file: BinaryIO) -> Size:
    """Read the size of the logical screen: https://www.w3.org/Graphics/GIF/spec-gif89a.txt, 18."""
    width, height = struct.unpack("<HH", read_at(file, 6, 4))
    return width, height


def gif_complete(file: BinaryIO) -> bool:
    """Return whether the last byte, zeros aside, is the trailer."""
    end = length_of(file)
    start = max(0, end - WINDOW_BYTES)
    return read_at(file, start, end - start).rstrip(b"\x00").endswith(b";")


def is_svg(head: bytes) -> bool:
    """Return whether a file that begins so is SVG, and no page with one in it."""
    return _SVG.match(head) is not None


def svg_size(file: BinaryIO) -> Size:
    """Read the size that an SVG's root gives, by its view box if not in pixels."""
    file.seek(0)
    root = _SVG.match(file.read(HEAD_BYTES))
    if root is None:
        return SVG_SIZE
    width, height = _SVG_WIDTH.search(root[1]), _SVG_HEIGHT.search(root[1])
    if width and height:
        return int(width[1]), int(height[1])
    box = _SVG_BOX.search(root[1])
    return (round(float(box[1])), round(float(box[2]))) if box else SVG_SIZE


def svg_complete(file: BinaryIO) -> bool:
    """Return whether the text ends as its root does."""
    end = length_of(file)
    start = max(0, end - WINDOW_BYTES)
    return read_at(file, start, end - start).rstrip().endswith((b"</svg>", b"/>", b"-->"))


def is_webp(head: bytes) -> bool:
    """Return whether a file that begins so is WebP."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def webp_size(file: BinaryIO) -> Size:
    """Read the size from the first chunk: RFC 9649, sections 2.5 to 2.7, and RFC 6386, section 9.1."""
    match read_at(file, 12, 4):
        case b"VP8X":
            sides = read_at(file, 24, 6)
            return 1 + int.from_bytes(sides[:3], "little"), 1 + int.from_bytes(sides[3:], "little")
        case b"VP8L":
            mark, bits = struct.unpack("<BI", read_at(file, 20, 5))
            if mark == 0x2F:
                return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            tag, mark, width, height = struct.unpack("<3s3sHH", read_at(file, 20, 10))
            if mark == b"\x9d\x01\x2a" and not tag[0] & 1:
                return width & 0x3FFF, height & 0x3FFF
    raise Corrupt("The WebP header is broken.")


def webp_complete(file: BinaryIO) -> bool:
    """Return whether there is image data, and all the bytes that the RIFF header announces."""
    end, at = 8 + int.from_bytes(read_at(file, 4, 4), "little"), 12
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return False
        name, size = read_at(file, at, 4), int.from_bytes(read_at(file, at + 4, 4), "little")
        if name in (b"VP8 ", b"VP8L", b"ANMF"):
            return at + 8 + size <= end <= length_of(file)
        at += 8 + size + (size & 1)
    return False


BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
"""The lengths of the header behind the first 14 bytes."""
_BMP_PLAIN = frozenset({0, 3, 6})
"""Compressions that are none, and leave the length of the pixels to be counted."""


def is_bmp(head: bytes) -> bool:
    """Return whether a file that begins so is BMP: not by its two letters alone."""
    if head[:2] != b"BM" or len(head) < 30:
        return False
    size = int.from_bytes(head[14:18], "little")
    planes = 22 if size == 12 else 26
    return size in BMP_HEADERS and head[planes : planes + 2] == b"\x01\x00"


def bmp_size(file: BinaryIO) -> Size:
    """Read the size; a negative height means that the first row is the top one.

    https://learn.microsoft.com/windows/win32/api/wingdi/ns-wingdi-bitmapinfoheader
    """
    if int.from_bytes(read_at(file, 14, 4), "little") == 12:
        width, height = struct.unpack("<HH", read_at(file, 18, 4))
    else:
        width, height = struct.unpack("<ii", read_at(file, 18, 8))
    return width, abs(height)


def bmp_complete(file: BinaryIO) -> bool:
    """Return whether all its pixels are there, or as much as it says where they are compressed."""
    announced, start, size = struct.unpack("<2xI4xII", read_at(file, 0, 18))
    width, height = bmp_size(file)
    if size == 12:
        (bits,), compression, stored = struct.unpack("<H", read_at(file, 24, 2)), 0, 0
    else:
        bits, compression, stored = struct.unpack("<HII", read_at(file, 28, 10))
    if compression in _BMP_PLAIN:
        stored = (width * bits + 31) // 32 * 4 * height
    end: int = start + stored if stored else announced
    return 0 < end <= length_of(file)
