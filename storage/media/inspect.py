"""Detect an image's media type and read its size from its header.

Not with an image library: its `open` reads whole files into memory (100 MiB for a PNG with a 50 MiB comment)
or makes room for every pixel before the limit can be checked. Nor with `imagesize` 2.0: it fails on every
AVIF that is rotated (`irot`), and needs a bound on its reads that is longer than the readers here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media.avif import avif_complete, avif_size, is_avif
from storage.media.formats import (
    JPEG_MAGIC,
    PNG_MAGIC,
    Size,
    is_webp,
    jpeg_complete,
    jpeg_size,
    png_complete,
    png_size,
    webp_complete,
    webp_size,
)


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
    """Return what image a file holds, whatever type was declared. The file is left at its start.

    Only the first bytes decide, and they must be the image's own: a page or an archive with an image in it
    is none. Frames of an animation are not counted, and what follows an image's end is not read.

    Raises Corrupt if it is not PNG, JPEG, WebP or AVIF or its header is broken, and as kinds of that
    CutShort and TooManyPixels.
    """
    try:
        kind = _detect(file)
        width, height = kind.size(file)
    finally:
        file.seek(0)
    if width < 1 or height < 1:
        raise Corrupt(f"The {kind.name} header says {width} x {height} pixels.")
    if width * height > max_pixels:
        raise TooManyPixels(f"The image has {width} x {height} pixels; the limit is {max_pixels}.")
    return ImageFacts(kind.media_type, kind.extension, width, height)


def is_complete(file: BinaryIO, facts: ImageFacts) -> bool:
    """Return whether an image that `inspect` knows is not truncated. The file is left at its start.

    No beginning of an image passes, whatever its length, with one exception: of a JPEG that has more
    pictures strung behind the first (a gain map, a motion photo) or whose coding tables hold the end mark's
    bytes, a beginning may. Bytes after the end are allowed (in JPEG up to 64 KiB), because the original is
    kept as it came, and is only ever served as the image type that its first bytes say. Not in AVIF, which
    has no mark for its end: there the boxes must fill the file.
    """
    kind = next(kind for kind in KINDS if kind.media_type == facts.media_type)
    try:
        return kind.complete(file)
    except Corrupt:
        return False
    finally:
        file.seek(0)


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    media_type: str
    extension: str
    fits: Callable[[bytes], bool]
    size: Callable[[BinaryIO], Size]
    complete: Callable[[BinaryIO], bool]


def _detect(file: BinaryIO) -> _Kind:
    file.seek(0)
    head = file.read(256)
    for kind in KINDS:
        if kind.fits(head):
            return kind
    raise Corrupt("These bytes are not a PNG, JPEG, WebP or AVIF image.")


KINDS = (
    _Kind("PNG", "image/png", "png", lambda head: head.startswith(PNG_MAGIC), png_size, png_complete),
    _Kind("JPEG", "image/jpeg", "jpg", lambda head: head.startswith(JPEG_MAGIC), jpeg_size, jpeg_complete),
    _Kind("WebP", "image/webp", "webp", is_webp, webp_size, webp_complete),
    _Kind("AVIF", "image/avif", "avif", is_avif, avif_size, avif_complete),
)
