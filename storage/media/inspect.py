"""Detect an image's media type and read its size from its header.

Not with an image library: its `open` reads whole files into memory (100 MiB for a PNG with a 50 MiB comment)
or makes room for every pixel before the limit can be checked. Nor with `imagesize` 2.0: it fails on every
AVIF that is rotated (`irot`), and needs a bound on its reads that is longer than the readers here.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.errors import Corrupt
from storage.media import formats
from storage.media.formats import HEAD_BYTES, Size
from storage.media.heif import heic_size, heif_complete, heif_size, is_avif, is_heic
from storage.media.jxl import is_jxl, jxl_complete, jxl_size
from storage.media.tiff import is_tiff, tiff_complete, tiff_size


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

    Raises Corrupt if it is none of these or its header is broken, and as kinds of that CutShort and
    TooManyPixels.
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


def is_complete(file: BinaryIO, facts: ImageFacts) -> bool | None:
    """Return whether an image that `inspect` knows is not truncated. The file is left at its start.

    None if its bytes cannot tell, as those of a bare JPEG XL.

    No beginning of an image passes, whatever its length, with one exception: of a JPEG that has more
    pictures strung behind the first (a gain map, a motion photo), a beginning with the first one does. Bytes
    after the end are allowed, because the original is kept as it came, and is only ever served as the image
    type that its first bytes say. Not in AVIF, HEIC and JPEG XL, which have no mark for their end: there the
    boxes must fill the file.
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
    complete: Callable[[BinaryIO], bool | None]
    shown: bool = True
    """Whether browsers may show it; else it is only ever saved."""
    opaque: bool = False
    """Whether it is stored and served as plain bytes, because it may hold scripts or was not meant here."""
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
    raise Corrupt(f"These bytes are not a {', '.join(USUAL[:-1])} or {USUAL[-1]} image.")


def served_type(media_type: str) -> str:
    """Return the content type under which bytes are stored and served: `OPAQUE` if it may hold scripts."""
    known = any(kind.media_type == media_type and not kind.opaque for kind in KINDS)
    return media_type if known else OPAQUE


def is_shown(media_type: str) -> bool:
    """Return whether browsers may show an image of this type; else it is only ever saved."""
    return any(kind.media_type == media_type and kind.shown for kind in KINDS)


OPAQUE = "application/octet-stream"
KINDS = (
    _Kind(
        "PNG",
        "image/png",
        "png",
        lambda head: head.startswith(formats.PNG_MAGIC),
        formats.png_size,
        formats.png_complete,
    ),
    _Kind(
        "JPEG",
        "image/jpeg",
        "jpg",
        lambda head: head.startswith(formats.JPEG_MAGIC),
        formats.jpeg_size,
        formats.jpeg_complete,
    ),
    _Kind("WebP", "image/webp", "webp", formats.is_webp, formats.webp_size, formats.webp_complete),
    _Kind("AVIF", "image/avif", "avif", is_avif, heif_size, heif_complete),
    _Kind("BMP", "image/bmp", "bmp", formats.is_bmp, formats.bmp_size, formats.bmp_complete),
    _Kind("HEIC", "image/heic", "heic", is_heic, heic_size, heif_complete, shown=False),
    _Kind("TIFF", "image/tiff", "tif", is_tiff, tiff_size, tiff_complete, shown=False),
    _Kind("JPEG XL", "image/jxl", "jxl", is_jxl, jxl_size, jxl_complete, shown=False),
    _Kind(
        "GIF",
        "image/gif",
        "gif",
        formats.is_gif,
        formats.gif_size,
        formats.gif_complete,
        shown=False,
        opaque=True,
        on_request=True,
    ),
    _Kind(
        "SVG",
        "image/svg+xml",
        "svg",
        formats.is_svg,
        formats.svg_size,
        formats.svg_complete,
        shown=False,
        opaque=True,
        on_request=True,
    ),
)
ON_REQUEST = tuple(kind.extension for kind in KINDS if kind.on_request)
"""The extensions of formats that are accepted where somebody asked for them."""
USUAL = tuple(kind.name for kind in KINDS if not kind.on_request)
"""The formats that are always accepted."""
