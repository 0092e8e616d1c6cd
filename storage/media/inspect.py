"""Detect an image's media type and read its size from its header.

Not with an image library: its `open` reads whole files into memory (100 MiB for a PNG with a 50 MiB comment)
or makes room for every pixel before the limit can be checked. Nor with `imagesize` 2.0: it fails on every
AVIF that is rotated (`irot`), and needs a bound on its reads that is longer than the readers here.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media.avif import avif_complete, avif_size, is_avif
from storage.media.formats import (
    HEAD_BYTES,
    JPEG_MAGIC,
    PNG_MAGIC,
    Size,
    gif_complete,
    gif_size,
    is_gif,
    is_svg,
    is_webp,
    jpeg_complete,
    jpeg_size,
    png_complete,
    png_size,
    svg_complete,
    svg_size,
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


def is_image(head: bytes, *, also: Collection[str] = ()) -> bool:
    """Return whether bytes that begin with `head` are an image; see `inspect`."""
    return any(kind.fits(head) for kind in _accepted(also))


def inspect(file: BinaryIO, *, max_pixels: int, also: Collection[str] = ()) -> ImageFacts:
    """Return what image a file holds, whatever type was declared. The file is left at its start.

    Only the first bytes decide, and they must be the image's own: a page or an archive with an image in it
    is none. Frames of an animation are not counted, and what follows an image's end is not read. `also` has
    the extensions of formats that somebody asked for, so that they are accepted too: `gif`, `svg`.

    Raises Corrupt if it is not PNG, JPEG, WebP or AVIF or its header is broken, and as kinds of that
    CutShort and TooManyPixels.
    """
    try:
        kind = _detect(file, also)
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
    pictures strung behind the first (a gain map, a motion photo), a beginning with the first one does. Bytes
    after the end are allowed, because the original is kept as it came, and is only ever served as the image
    type that its first bytes say. Not in AVIF, which has no mark for its end: there the boxes must fill the
    file.
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
    shown: bool = True
    """Whether browsers may show it; else it is only ever saved, because it may hold scripts."""
    on_request: bool = False
    """Whether it is accepted only where somebody asked for this format."""


def _accepted(also: Collection[str]) -> Iterator[_Kind]:
    return (kind for kind in KINDS if not kind.on_request or kind.extension in also)


def _detect(file: BinaryIO, also: Collection[str]) -> _Kind:
    file.seek(0)
    head = file.read(HEAD_BYTES)
    for kind in _accepted(also):
        if kind.fits(head):
            return kind
    raise Corrupt("These bytes are not a PNG, JPEG, WebP or AVIF image.")


def served_type(media_type: str) -> str:
    """Return the content type under which bytes are stored and served: a plain one if not to be shown."""
    shown = any(kind.media_type == media_type and kind.shown for kind in KINDS)
    return media_type if shown else "application/octet-stream"


KINDS = (
    _Kind("PNG", "image/png", "png", lambda head: head.startswith(PNG_MAGIC), png_size, png_complete),
    _Kind("JPEG", "image/jpeg", "jpg", lambda head: head.startswith(JPEG_MAGIC), jpeg_size, jpeg_complete),
    _Kind("WebP", "image/webp", "webp", is_webp, webp_size, webp_complete),
    _Kind("AVIF", "image/avif", "avif", is_avif, avif_size, avif_complete),
    _Kind("GIF", "image/gif", "gif", is_gif, gif_size, gif_complete, shown=False, on_request=True),
    _Kind("SVG", "image/svg+xml", "svg", is_svg, svg_size, svg_complete, shown=False, on_request=True),
)
ON_REQUEST = tuple(kind.extension for kind in KINDS if kind.on_request)
"""The extensions of formats that are accepted where somebody asked for them."""
