"""What image is this, and how large is it, from its header alone.

The headers are read here and not by an image library: a library's `open` reads whole files into memory
(100 MiB for a PNG with a 50 MiB comment) or makes room for every pixel before anyone can look at the limit.
Nothing in this module decodes a pixel.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media.avif import avif_extent, avif_whole, is_avif
from storage.media.formats import (
    JPEG_MAGIC,
    PNG_MAGIC,
    is_webp,
    jpeg_extent,
    jpeg_whole,
    png_extent,
    png_whole,
    webp_extent,
    webp_whole,
)
from storage.media.reader import CutShort, Extent


class TooManyPixels(Corrupt):
    """Width times height is over the limit, of the image or of one inside it."""


class TooManyFrames(Corrupt):
    """An animation, or a file of several pictures, has more of them than the limit."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image's header says. Width and height are as stored, before any orientation is applied."""

    media_type: str
    extension: str
    width: int
    height: int


def inspect(file: BinaryIO, *, max_pixels: int, max_frames: int) -> ImageFacts:
    """Say what image a file holds; its declared type has no say. The file is left at its start.

    Only the first bytes decide, and they must be the image's own: a page or an archive with an image in it
    is none. What follows an image's end is not looked at. Frames are counted, not added up: whoever decodes
    all of an animation must do that one frame at a time.

    Raises Corrupt if it is not PNG, JPEG, WebP or AVIF or its header is broken, and as kinds of that
    CutShort, TooManyPixels and TooManyFrames.
    """
    try:
        kind = _sniff(file)
        try:
            extent = kind.extent(file)
        except struct.error:
            raise CutShort(f"The {kind.name} header ends in the middle.") from None
    finally:
        file.seek(0)
    if extent.width < 1 or extent.height < 1:
        raise Corrupt(f"The {kind.name} header says {extent.width} x {extent.height} pixels.")
    if extent.width * extent.height > max_pixels:
        raise TooManyPixels(
            f"The image has {extent.width} x {extent.height} pixels; the limit is {max_pixels}."
        )
    if extent.largest > max_pixels:
        raise TooManyPixels(f"A picture inside has {extent.largest} pixels; the limit is {max_pixels}.")
    if extent.frames > max_frames:
        raise TooManyFrames(f"The image has {extent.frames} frames; the limit is {max_frames}.")
    return ImageFacts(kind.media_type, kind.extension, extent.width, extent.height)


def whole(file: BinaryIO, facts: ImageFacts) -> bool:
    """Whether an image that `inspect` knows goes on to its end: a cheap check against truncation.

    No beginning of an image passes, whatever its length, with one exception: of a JPEG that has more
    pictures strung behind the first (a gain map, a motion photo) or whose coding tables hold the end mark's
    bytes, a beginning may. Bytes after the end are allowed (in JPEG up to 64 KiB), because the original is
    kept as it came, and is only ever served as the image type that its first bytes say. Not in AVIF, which
    has no mark for its end: there the boxes must fill the file. The file is left at its start.
    """
    kind = next(kind for kind in KINDS if kind.media_type == facts.media_type)
    try:
        return kind.whole(file)
    except (Corrupt, struct.error):
        return False
    finally:
        file.seek(0)


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    media_type: str
    extension: str
    fits: Callable[[bytes], bool]
    extent: Callable[[BinaryIO], Extent]
    whole: Callable[[BinaryIO], bool]


def _sniff(file: BinaryIO) -> _Kind:
    file.seek(0)
    head = file.read(256)
    for kind in KINDS:
        if kind.fits(head):
            return kind
    raise Corrupt("These bytes are not a PNG, JPEG, WebP or AVIF image.")


KINDS = (
    _Kind("PNG", "image/png", "png", lambda head: head.startswith(PNG_MAGIC), png_extent, png_whole),
    _Kind("JPEG", "image/jpeg", "jpg", lambda head: head.startswith(JPEG_MAGIC), jpeg_extent, jpeg_whole),
    _Kind("WebP", "image/webp", "webp", is_webp, webp_extent, webp_whole),
    _Kind("AVIF", "image/avif", "avif", is_avif, avif_extent, avif_whole),
)
