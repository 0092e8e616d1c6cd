"""Pictures for the tests of thumbnails: four corners of four colours, in every format and spelling."""

import io
import struct
import zlib
from typing import Any

from PIL import Image, ImageCms

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 255, 255)
CORNERS = (RED, GREEN, BLUE, WHITE)
"""Left and right above, left and right below."""

TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture lies in the file, for each value of the EXIF orientation that puts it upright."""


def corners(width: int = 900, height: int = 600) -> Image.Image:
    """A picture whose corners tell which way up it is."""
    made = Image.new("RGB", (width, height))
    for place, colour in enumerate(CORNERS):
        box = (place % 2 * width // 2, place // 2 * height // 2)
        made.paste(colour, (*box, box[0] + width // 2, box[1] + height // 2))
    return made


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(kind: str, orientation: int) -> bytes:
    """The corners as a camera stores them that was held in some way."""
    turn = TURNED[orientation]
    image = corners() if turn is None else corners().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif)


def animated(kind: str) -> bytes:
    """The corners, and then two other frames."""
    others = [Image.new("RGB", (900, 600), colour) for colour in ("black", "yellow")]
    return encoded(corners(), kind, save_all=True, append_images=others, duration=100)


def clear() -> Image.Image:
    """The corners, with the right half clear."""
    image = corners().convert("RGBA")
    image.paste((0, 0, 0, 0), (450, 0, 900, 600))
    return image


def grey_of_16_bits() -> bytes:
    """A PNG with a grey ramp in 16 bits, from black on the left to white on the right."""
    rows = b"".join(b"\x00" + struct.pack(">600H", *(x * 109 for x in range(600))) for _ in range(400))
    return _png(600, 400, 16, 0, rows)


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of a few kilobytes that says it has 2,500 million pixels."""
    return _png(width, height, 8, 2, bytes(1_000_000))


def _png(width: int, height: int, depth: int, colours: int, rows: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    made = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def swapped_profile() -> bytes:
    """An ICC profile that a viewer must not ignore: its red is our blue, and the other way round."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile = profile.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
    return bytes(profile)


def corners_of(image: Image.Image) -> list[tuple[int, int, int]]:
    """The colours near the four corners, each as the nearest of ours."""
    flat = image.convert("RGB")
    places = [(x * flat.width // 8, y * flat.height // 8) for y in (1, 7) for x in (1, 7)]
    found = []
    for place in places:
        pixel = flat.getpixel(place)
        assert isinstance(pixel, tuple)
        found.append(
            min(CORNERS, key=lambda ours: sum(abs(a - b) for a, b in zip(ours, pixel[:3], strict=True)))
        )
    return found
