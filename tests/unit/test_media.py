from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from storage.errors import Corrupt
from storage.media.inspect import ImageFacts, TooManyPixels, inspect, whole

LIMIT = 100_000_000
FRAMES = 1000
TYPES = {
    "PNG": ("image/png", "png"),
    "JPEG": ("image/jpeg", "jpg"),
    "WEBP": ("image/webp", "webp"),
    "AVIF": ("image/avif", "avif"),
}


def picture(form: str, size: tuple[int, int] = (61, 43), mode: str = "RGB", **options: object) -> bytes:
    noise = Image.effect_noise(size, 80).convert(mode)
    file = io.BytesIO()
    noise.save(file, form, **options)
    return file.getvalue()


def frames(form: str) -> bytes:
    file = io.BytesIO()
    first, second = (Image.new("RGBA", (31, 17), colour) for colour in ("red", "blue"))
    first.save(file, form, save_all=True, append_images=[second], duration=100)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def jpeg_header(width: int, height: int) -> bytes:
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00\xff\xda"


def webp(name: bytes, data: bytes) -> bytes:
    body = b"WEBP" + name + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_canvas(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp(b"VP8X", bytes(4) + sides)


def huge_avif() -> bytes:
    data = picture("AVIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :]


def short_meta() -> bytes:
    """An AVIF with a box that is longer than the one it lies in."""
    data = picture("AVIF")
    at = data.index(b"meta") - 4
    return data[:at] + struct.pack(">I", 40) + data[at + 4 :]


SAMPLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("PNG", lambda: picture("PNG")),
    "png of one pixel": ("PNG", lambda: picture("PNG", (1, 1), "1")),
    "png with palette": ("PNG", lambda: picture("PNG", mode="P")),
    "png animated": ("PNG", lambda: frames("PNG")),
    "jpeg": ("JPEG", lambda: picture("JPEG")),
    "jpeg progressive": ("JPEG", lambda: picture("JPEG", progressive=True)),
    "jpeg in ink": ("JPEG", lambda: picture("JPEG", mode="CMYK")),
    "jpeg with profile": ("JPEG", lambda: picture("JPEG", icc_profile=bytes(200_000), comment=b"x" * 999)),
    "webp": ("WEBP", lambda: picture("WEBP")),
    "webp lossless": ("WEBP", lambda: picture("WEBP", lossless=True)),
    "webp with alpha": ("WEBP", lambda: picture("WEBP", mode="RGBA")),
    "webp with exif": ("WEBP", lambda: picture("WEBP", exif=b"Exif\x00\x00" + bytes(32))),
    "webp animated": ("WEBP", lambda: frames("WEBP")),
    "avif": ("AVIF", lambda: picture("AVIF")),
    "avif with alpha": ("AVIF", lambda: picture("AVIF", mode="RGBA")),
    "avif with exif": (
        "AVIF",
        lambda: picture("AVIF", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + bytes(6)),
    ),
    "avif in tiles": ("AVIF", lambda: picture("AVIF", (1500, 900), tile_rows=1, tile_cols=1, speed=10)),
    "avif animated": ("AVIF", lambda: frames("AVIF")),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_an_image_is_what_its_bytes_say(name: str) -> None:
    form, make = SAMPLES[name]
    file = io.BytesIO(make())
    file.seek(5)
    facts = inspect(file, max_frames=FRAMES, max_pixels=LIMIT)
    assert file.tell() == 0
    assert (facts.media_type, facts.extension) == TYPES[form]
    assert whole(file, facts)
    assert file.tell() == 0
    assert (facts.width, facts.height) == Image.open(file, formats=[form]).size


@pytest.mark.parametrize("name", SAMPLES)
def test_a_cut_image_is_not_whole(name: str) -> None:
    _, make = SAMPLES[name]
    data = make()
    facts = inspect(io.BytesIO(data), max_frames=FRAMES, max_pixels=LIMIT)
    for length in {len(data) - 1, len(data) - 2, len(data) - 13, len(data) // 2, 24, 0} - {len(data)}:
        assert not whole(io.BytesIO(data[: max(length, 0)]), facts), length


@pytest.mark.parametrize("name", SAMPLES)
def test_a_cut_header_is_corrupt_or_still_true(name: str) -> None:
    _, make = SAMPLES[name]
    data = make()
    facts = inspect(io.BytesIO(data), max_frames=FRAMES, max_pixels=LIMIT)
    for length in range(min(len(data), 600)):
        try:
            assert inspect(io.BytesIO(data[:length]), max_frames=FRAMES, max_pixels=LIMIT) == facts
        except Corrupt:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b"<!doctype html><title>404</title>",
        b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        b"<html><!-- \x89PNG\r\n\x1a\n -->",
        b" " + picture("PNG"),
        b"GIF89a" + picture("PNG"),
        b"BM" + picture("JPEG"),
        b"%PDF-1.7\n" + picture("JPEG"),
        b"PK\x03\x04" + picture("WEBP"),
        b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(32),
        b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64),
        b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isomavc1avif",
        picture("GIF"),
        picture("BMP"),
        picture("TIFF"),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_anything_else_is_refused(data: bytes) -> None:
    file = io.BytesIO(data)
    with pytest.raises(Corrupt, match="not a PNG, JPEG, WebP or AVIF"):
        inspect(file, max_frames=FRAMES, max_pixels=LIMIT)
    assert file.tell() == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "IHDR"),
        (png_header(5, 5)[:-1] + b"!", "IHDR"),
        (png_header(0, 5), "0 x 5"),
        (png_header(5, 5)[:20], "ends in the middle"),
        (b"\xff\xd8\xff\xe0", "ends in the middle"),
        (b"\xff\xd8\xff\xe0\x00\x04ab<html>", "a marker is missing"),
        (b"\xff\xd8\xff\xda\x00\x04ab", "how large"),
        (jpeg_header(7, 0), "7 x 0"),
        (b"\xff\xd8" + b"\xff" * (1 << 19), "no end"),
        (webp(b"VP8 ", bytes(20)), "WebP header is broken"),
        (webp(b"VP8L", bytes(20)), "WebP header is broken"),
        (webp(b"<svg", bytes(20)), "WebP header is broken"),
        (webp(b"VP8X", b""), "ends in the middle"),
        (picture("AVIF")[:40], "AVIF header ends in the middle"),
        (short_meta(), "AVIF header is broken"),
        (picture("AVIF").replace(b"ispe", b"free"), "how large"),
        (picture("AVIF").replace(b"pitm", b"free"), "no 'pitm' box"),
        (b"\x00\x00\x00\x14ftypavif\x00\x00\x00\x00avif\x00\x00\x00\x01meta" + b"\xff" * 8, "in the middle"),
        (b"\x00\x00\x00\x14ftypavif\x00\x00\x00\x00avif\x00\x00\x00\x02meta", "does not fit"),
    ],
)
def test_a_broken_header_is_corrupt(data: bytes, message: str) -> None:
    with pytest.raises(Corrupt, match=message) as caught:
        inspect(io.BytesIO(data), max_frames=FRAMES, max_pixels=LIMIT)
    assert not isinstance(caught.value, TooManyPixels)


@pytest.mark.parametrize(
    "data",
    [
        png_header(2**31 - 1, 2**31 - 1),
        jpeg_header(65_535, 65_535),
        webp_canvas(16_384, 16_384),
        webp(b"VP8L", b"\x2f" + b"\xff" * 8),
        huge_avif(),
    ],
    ids=["png", "jpeg", "webp", "webp lossless", "avif"],
)
def test_a_header_of_too_many_pixels_is_told_apart(data: bytes) -> None:
    with pytest.raises(TooManyPixels, match="the limit is 100000000"):
        inspect(io.BytesIO(data), max_frames=FRAMES, max_pixels=LIMIT)


def test_the_limit_itself_is_allowed_above_what_pillow_would_warn_of() -> None:
    facts = inspect(io.BytesIO(png_header(20_000, 10_000)), max_frames=FRAMES, max_pixels=200_000_000)
    assert facts == ImageFacts("image/png", "png", 20_000, 10_000)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_bytes_after_the_end_do_not_matter(form: str) -> None:
    file = io.BytesIO(picture(form) + b"trailer" * 100)
    assert whole(file, inspect(file, max_frames=FRAMES, max_pixels=LIMIT))


def test_the_end_of_an_embedded_thumbnail_is_not_the_end_of_a_jpeg() -> None:
    thumbnail = picture("JPEG", (8, 8))
    data = picture("JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = data[:2] + segment + data[2:]
    facts = inspect(io.BytesIO(data), max_frames=FRAMES, max_pixels=LIMIT)
    assert (facts.width, facts.height) == (61, 43)
    assert whole(io.BytesIO(data), facts)
    assert not whole(io.BytesIO(data[:-2]), facts)


class Counted(io.BytesIO):
    """A file that knows how much of it was read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_a_large_file_is_not_read_whole() -> None:
    data = picture("PNG")
    file: BinaryIO = Counted(data[:33] + chunk(b"daRk", bytes(5_000_000)) + data[33:])
    assert whole(file, inspect(file, max_frames=FRAMES, max_pixels=LIMIT))
    assert isinstance(file, Counted)
    assert file.taken < 1000


@given(
    kind=st.sampled_from(sorted(TYPES)),
    cuts=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=9)), max_size=5
    ),
)
def test_damage_raises_nothing_but_corrupt(kind: str, cuts: list[tuple[float, bytes]]) -> None:
    data = bytearray(SOUND[kind])
    for place, patch in cuts:
        at = int(place * len(data))
        data[at : at + len(patch)] = patch
    file = io.BytesIO(data)
    try:
        whole(file, inspect(file, max_frames=FRAMES, max_pixels=LIMIT))
    except Corrupt:
        assert cuts


SOUND = {form: picture(form, (9, 7)) for form in TYPES}
