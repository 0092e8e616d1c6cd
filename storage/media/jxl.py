"""Read the size of a JPEG XL from its header: ISO/IEC 18181-1, D.2, and 18181-2 for its boxes.

Readers raise Corrupt, or CutShort where the file ends too early. A bare codestream has no mark of its end,
and no length: only a decoder knows whether it is whole.
"""

from collections.abc import Iterator
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media.formats import CutShort, Size, length_of, number_at, read_at

CODESTREAM = b"\xff\x0a"
CONTAINER = b"\x00\x00\x00\x0cJXL \r\n\x87\n"
MAX_BOXES = 4096
_SIZE_BYTES = 10
_BITS = (9, 13, 18, 30)
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def is_jxl(head: bytes) -> bool:
    """Return whether a file that begins so is JPEG XL."""
    return head.startswith((CODESTREAM, CONTAINER))


def jxl_size(file: BinaryIO) -> Size:
    """Read the size from the beginning of the codestream."""
    at = 0
    if read_at(file, 0, 2) != CODESTREAM:
        at = next((start for name, start, _ in _boxes(file) if name in (b"jxlc", b"jxlp")), -1)
        if at < 0:
            raise Corrupt("The JPEG XL has no image data.")
        if read_at(file, at, 2) != CODESTREAM:
            at += 4  # the number of a part
    if read_at(file, at, 2) != CODESTREAM:
        raise Corrupt("The JPEG XL header is broken.")
    file.seek(at + 2)
    head = file.read(_SIZE_BYTES)
    if len(head) < 2:
        raise CutShort("The image's header ends in the middle.")
    bits = _Bits(head)
    in_eights = bits.take(1)
    height = _side(bits, in_eights)
    ratio = bits.take(3)
    if ratio == 0:
        return _side(bits, in_eights), height
    wide, high = _RATIOS[ratio - 1]
    return height * wide // high, height


def jxl_complete(file: BinaryIO) -> bool | None:
    """Return whether its boxes fill the file; None if it has none, or the last one is open-ended."""
    if read_at(file, 0, 2) == CODESTREAM:
        return None
    parts = [(name, start, is_open) for name, start, is_open in _boxes(file) if name in (b"jxlc", b"jxlp")]
    if not parts:
        return False
    name, start, is_open = parts[-1]
    if name == b"jxlp" and not number_at(file, start, 1) & 0x80:  # it says that others follow
        return False
    return None if is_open else True


class _Bits:
    """Reads numbers from bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        taken, self._left = self._left & ((1 << count) - 1), self._left >> count
        return taken


def _side(bits: _Bits, in_eights: int) -> int:
    if in_eights:
        return 8 * (1 + bits.take(5))
    return 1 + bits.take(_BITS[bits.take(2)])


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, bool]]:
    """Yield the name of each box, where its content starts, and whether it goes on to the end."""
    at, end = len(CONTAINER), length_of(file)
    for _ in range(MAX_BOXES):
        if at == end:
            return
        length, name, head = number_at(file, at, 4), read_at(file, at + 4, 4), 8
        if length == 1:
            length, head = number_at(file, at + 8, 8), 16
        if length == 0:
            yield name, at + head, True
            return
        if length < head:
            raise Corrupt("The JPEG XL header is broken: a box does not fit where it is.")
        yield name, at + head, False
        at += length
        if at > end:
            raise CutShort("The JPEG XL ends in the middle of a box.")
    raise Corrupt("The JPEG XL header has too many boxes.")
