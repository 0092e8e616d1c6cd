"""PNG, JPEG and WebP: how large an image is and whether it goes on to its end, from their parts' headers.

Readers raise Corrupt, or struct.error where the file ends too early. No pixel is decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media.reader import MAX_PARTS, Extent, length_of, read_at

TAIL_BYTES = 64 * 1024
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
JPEG_END = b"\xff\xd9"
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
JPEG_SCAN = 0xDA
JPEG_APP2 = 0xE2
MPF = b"MPF\x00"
MPF_COUNT = 0xB001
MPF_MOST_TAGS = 64


def is_webp(head: bytes) -> bool:
    """Whether a file that begins so is WebP."""
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def png_extent(file: BinaryIO) -> Extent:
    """Read a PNG's size from its first chunk, and its frames from all chunks' names."""
    # https://www.w3.org/TR/png-3/#11IHDR
    length, header, crc = struct.unpack(">I17sI", read_at(file, 8, 25))
    if length != 13 or header[:4] != b"IHDR" or zlib.crc32(header) != crc:
        raise Corrupt("The PNG does not start with a sound IHDR chunk.")
    width, height = struct.unpack(">II", header[4:12])
    return Extent(width, height, _png_frames(file))


def _png_frames(file: BinaryIO) -> int:
    # Announced in acTL and begun with fcTL each: some viewers go by the one, some by the other.
    # https://www.w3.org/TR/png-3/#apng-frame-based-animation
    announced = begun = 0
    for name, start, length in _chunks(file):
        begun += name == b"fcTL"
        if name == b"acTL" and length >= 4:
            (number,) = struct.unpack(">I", read_at(file, start, 4))
            announced = max(announced, number)
    return max(1, announced, begun)


def png_whole(file: BinaryIO) -> bool:
    """Whether there is image data, and an end behind it."""
    end, data = length_of(file), False
    for name, start, length in _chunks(file):
        data = data or name == b"IDAT"
        if name == b"IEND":
            return data and start + length + 4 <= end
    return False


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield each PNG chunk up to the last: its name, where its data starts, and how long that is."""
    end, at = length_of(file), len(PNG_MAGIC)
    for _ in range(MAX_PARTS):
        if at + 12 > end:
            return
        length, name = struct.unpack(">I4s", read_at(file, at, 8))
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += 12 + int(length)


def jpeg_extent(file: BinaryIO) -> Extent:
    """Read a JPEG's size, and how many pictures it says are strung together in the file."""
    # https://www.w3.org/Graphics/JPEG/itu-t81.pdf B.2.2
    size, pictures = None, 1
    for marker, at in _segments(file):
        if marker in JPEG_SIZES and size is None:
            size = struct.unpack(">HH", read_at(file, at + 3, 4))
        if marker == JPEG_APP2:
            pictures = max(pictures, _mpf_pictures(file, at))
    if size is None:
        raise Corrupt("The JPEG header does not say how large the image is.")
    height, width = size
    return Extent(width, height, pictures)


def jpeg_whole(file: BinaryIO) -> bool:
    """Whether there is an end mark within the last 64 KiB, behind the start of the first scan."""
    # Searched only there: an embedded thumbnail has an end of its own before it.
    scan = next(at for marker, at in _segments(file) if marker == JPEG_SCAN)
    end = length_of(file)
    start = max(scan, end - TAIL_BYTES)
    return JPEG_END in read_at(file, start, end - start)


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
            (length,) = struct.unpack(">H", read_at(file, at, 2))
            at += max(length, 2)
    raise Corrupt("The JPEG header has no end.")


def _mpf_pictures(file: BinaryIO, at: int) -> int:
    """Read the number of pictures from a segment of the Multi-Picture Format (CIPA DC-007), 5.2."""
    (length,) = struct.unpack(">H", read_at(file, at, 2))
    if length < 2 + len(MPF) or read_at(file, at + 2, len(MPF)) != MPF:
        return 1
    index = read_at(file, at + 2 + len(MPF), length - 2 - len(MPF))
    order = "<" if index[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", index, 4)
        (tags,) = struct.unpack_from(f"{order}H", index, start)
        for tag in range(min(tags, MPF_MOST_TAGS)):
            name, _, _, value = struct.unpack_from(f"{order}HHII", index, start + 2 + tag * 12)
            if name == MPF_COUNT:
                return int(value)
    except struct.error:  # an index that cannot be read makes no viewer look for more pictures
        pass
    return 1


def webp_extent(file: BinaryIO) -> Extent:
    """Read a WebP's size and frames; of an extended one also the largest picture inside."""
    # https://developers.google.com/speed/webp/docs/riff_container and RFC 9649
    first = read_at(file, 12, 4)
    if first != b"VP8X":
        return Extent(*_bitstream_size(file, first, 20))
    canvas = read_at(file, 24, 6)
    width, height, frames, largest = *_sides(canvas), 0, 0
    for name, start, size in _riff(file):
        if name in (b"VP8 ", b"VP8L"):
            inner = _bitstream_size(file, name, start)
        elif name == b"ANMF" and size >= 16:
            frames += 1
            inner = _sides(read_at(file, start + 6, 6))
        else:
            continue
        largest = max(largest, inner[0] * inner[1])
    return Extent(width, height, max(1, frames), largest)


def webp_whole(file: BinaryIO) -> bool:
    """Whether there is image data, and all that the file announces."""
    (length,) = struct.unpack("<I", read_at(file, 4, 4))
    data = any(name in (b"VP8 ", b"VP8L", b"ANMF") for name, _, _ in _riff(file))
    return data and 8 + int(length) <= length_of(file)


def _riff(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield each WebP chunk that begins in the file: its name, where its data starts, and its length."""
    (length,) = struct.unpack("<I", read_at(file, 4, 4))
    end, there, at = 8 + int(length), length_of(file), 12
    for _ in range(MAX_PARTS):
        if at + 8 > min(end, there):
            return
        name, size = struct.unpack("<4sI", read_at(file, at, 8))
        if at + 8 + size > end:
            raise Corrupt("The WebP header is broken: a chunk does not fit where it is.")
        yield name, at + 8, size
        at += 8 + int(size) + (size & 1)
    raise Corrupt("The WebP has too many chunks.")


def _bitstream_size(file: BinaryIO, name: bytes, at: int) -> tuple[int, int]:
    if name == b"VP8L":
        mark, bits = struct.unpack("<BI", read_at(file, at, 5))
        if mark == 0x2F:
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if name == b"VP8 ":
        tag, mark, width, height = struct.unpack("<3s3sHH", read_at(file, at, 10))
        if mark == b"\x9d\x01\x2a" and not tag[0] & 1:
            return width & 0x3FFF, height & 0x3FFF
    raise Corrupt("The WebP header is broken.")


def _sides(data: bytes) -> tuple[int, int]:
    return 1 + int.from_bytes(data[:3], "little"), 1 + int.from_bytes(data[3:6], "little")
