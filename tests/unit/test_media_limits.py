"""How much may be in one file, where it must end, and what else may be in it."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable

import pytest
from PIL import Image

from storage.errors import Corrupt
from storage.media.inspect import TooManyFrames, TooManyPixels, inspect, whole
from storage.media.reader import CutShort
from tests.unit.test_media import FRAMES, LIMIT, Counted, chunk, picture, png_header

SIDES = (16_384 - 1).to_bytes(3, "little") * 2


def accepted(data: bytes, *, max_pixels: int = LIMIT, max_frames: int = FRAMES) -> bool:
    """Whether a download of these bytes would be kept."""
    file = io.BytesIO(data)
    return whole(file, inspect(file, max_pixels=max_pixels, max_frames=max_frames))


def kept(data: bytes) -> bool:
    try:
        return accepted(data)
    except Corrupt:
        return False


def pictures(count: int) -> bytes:
    """A JPEG with more pictures strung behind the first."""
    file = io.BytesIO()
    first, *others = (Image.new("RGB", (9, 7), (n, 0, 0)) for n in range(count))
    first.save(file, "MPO", save_all=True, append_images=others)
    return file.getvalue()


def animated(form: str, count: int) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.new("RGB", (16, 16), (n * 40, 0, 0)) for n in range(count))
    first.save(file, form, save_all=True, append_images=others, duration=50)
    return file.getvalue()


def open_ended(data: bytes) -> bytes:
    """The same AVIF, whose last box goes on to wherever the file ends."""
    at = data.rindex(b"mdat") - 4
    return data[:at] + bytes(4) + data[at + 4 :]


SMALL: dict[str, bytes] = {
    **{form.lower(): picture(form, (9, 7)) for form in ("PNG", "JPEG", "WEBP", "AVIF")},
    **{f"{form.lower()} animated": animated(form, 3) for form in ("PNG", "WEBP", "AVIF")},
    "jpeg progressive": picture("JPEG", (9, 7), progressive=True),
    "webp extended": picture("WEBP", (9, 7), exif=b"Exif\x00\x00" + bytes(32)),
    "webp lossless": picture("WEBP", (9, 7), lossless=True),
    "avif open-ended": open_ended(picture("AVIF", (9, 7))),
}


@pytest.mark.parametrize("name", SMALL)
def test_no_beginning_of_an_image_is_kept_wherever_it_was_cut(name: str) -> None:
    data = SMALL[name]
    assert accepted(data)
    assert [length for length in range(len(data)) if kept(data[:length])] == []


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif"])
def test_a_header_that_was_cut_is_told_from_one_that_is_broken(name: str) -> None:
    for length in range(16, 30):
        with pytest.raises(CutShort):
            accepted(SMALL[name][:length])


def test_an_open_ended_sequence_counts_as_cut() -> None:
    assert not kept(open_ended(animated("AVIF", 3)))


def test_the_end_of_further_pictures_in_a_jpeg_is_not_looked_for() -> None:
    # What `whole` says that it cannot tell: the first picture is there, so its end mark is.
    data = pictures(2)
    assert accepted(data)
    assert kept(data[:-2])


@pytest.mark.parametrize(
    "make",
    [
        lambda count: animated("PNG", count),
        lambda count: animated("WEBP", count),
        lambda count: animated("AVIF", count),
        pictures,
    ],
    ids=["png", "webp", "avif", "jpeg"],
)
def test_frames_are_counted(make: Callable[[int], bytes]) -> None:
    data = make(5)
    assert accepted(data, max_frames=5)
    with pytest.raises(TooManyFrames, match="5 frames; the limit is 4"):
        accepted(data, max_frames=4)
    assert accepted(make(1), max_frames=1)


def announcing(count: int) -> bytes:
    control = chunk(b"acTL", struct.pack(">II", count, 0))
    return png_header(9, 7) + control + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def beginning(count: int) -> bytes:
    frame = chunk(b"fcTL", bytes(26)) + chunk(b"IDAT", b"x")
    return png_header(9, 7) + chunk(b"acTL", struct.pack(">II", 1, 0)) + frame * count + chunk(b"IEND", b"")


def webp_of(*chunks: tuple[bytes, bytes]) -> bytes:
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\x02\x00\x00\x00" + bytes(6)
    body = b"WEBP" + canvas + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def mpf(order: str, count: int) -> bytes:
    data = picture("JPEG", (9, 7))
    sign = b"II*\x00" if order == "<" else b"MM\x00*"
    index = sign + struct.pack(f"{order}IHHHII", 8, 1, 0xB001, 4, 1, count)
    return data[:2] + b"\xff\xe2" + struct.pack(">H", len(index) + 6) + b"MPF\x00" + index + data[2:]


@pytest.mark.parametrize(
    "data",
    [
        announcing(2**31),
        beginning(FRAMES + 1),
        webp_of(*[(b"ANMF", bytes(24))] * (FRAMES + 1)),
        mpf("<", 2**31),
        mpf(">", FRAMES + 1),
    ],
    ids=["png that says so", "png that does not", "webp", "jpeg", "jpeg the other way round"],
)
def test_a_bomb_of_frames_is_found_without_decoding(data: bytes) -> None:
    file = Counted(data)
    with pytest.raises(TooManyFrames):
        inspect(file, max_pixels=LIMIT, max_frames=FRAMES)
    assert file.taken < 40 * FRAMES


def larger_track() -> bytes:
    """A sequence whose track is larger than what its still image says."""
    data = animated("AVIF", 2)
    at = data.index(b"av01", data.index(b"stsd")) + 4 + 24
    return data[:at] + struct.pack(">HH", 60_000, 60_000) + data[at + 4 :]


@pytest.mark.parametrize(
    "data",
    [
        webp_of((b"VP8L", b"\x2f" + b"\xff" * 7)),
        webp_of((b"VP8 ", b"\x10\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f")),
        webp_of((b"ANMF", bytes(6) + SIDES + bytes(12))),
        larger_track(),
    ],
    ids=["webp lossless", "webp", "webp frame", "avif track"],
)
def test_a_picture_inside_that_is_larger_than_the_image_says_is_found(data: bytes) -> None:
    with pytest.raises(TooManyPixels, match="A picture inside has"):
        accepted(data)


def many_tracks() -> bytes:
    data = animated("AVIF", 2)
    at = data.index(b"moov") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    track = data.index(b"trak", at) - 4
    track_size = int.from_bytes(data[track : track + 4], "big")
    more = data[track : track + track_size] * 20
    film = struct.pack(">I", size + len(more)) + data[at + 4 : at + size] + more
    return data[:at] + film + data[at + size :]


def boxes(count: int) -> bytes:
    return SMALL["avif"][:0x20] + b"\x00\x00\x00\x08free" * count


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (many_tracks(), "too many tracks"),
        (boxes(5000), "too many boxes"),
        (webp_of((b"JUNK", b"")) [:-4] + b"\xff\xff\xff\x00", "does not fit"),
        (webp_of(*[(b"JUNK", b"")] * (1 << 18)), "too many chunks"),
    ],
    ids=["tracks", "boxes", "chunk that is too long", "chunks"],
)  # fmt: skip
def test_headers_are_read_within_bounds(data: bytes, message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        accepted(data)


@pytest.mark.parametrize(
    "data",
    [
        png_header(9, 7) + chunk(b"tEXt", b"<script>alert(1)</script>") + chunk(b"IEND", b""),
        webp_of((b"XMP ", b"<script>alert(1)</script> ")),
        SMALL["avif"][: SMALL["avif"].index(b"mdat") - 4],
        struct.pack("<4sI", b"RIFF", 4) + SMALL["webp extended"][8:],
    ],
    ids=["png", "webp", "avif", "webp that announces nothing"],
)
def test_a_header_without_image_data_is_no_image(data: bytes) -> None:
    assert not kept(data)


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("a.html", "<script>alert(1)</script>")
    return file.getvalue()


FOREIGN = {
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "zip": archive(),
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
    "gif": picture("GIF"),
    "script": b"#!/bin/sh\necho\n",
}


@pytest.mark.parametrize("head", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif"])
def test_an_image_behind_something_else_is_no_image(name: str, head: bytes) -> None:
    with pytest.raises(Corrupt, match="not a PNG, JPEG, WebP or AVIF"):
        accepted(head + SMALL[name])


@pytest.mark.parametrize("tail", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_something_else_behind_an_image_leaves_it_an_image_of_its_own_type(name: str, tail: bytes) -> None:
    file = io.BytesIO(SMALL[name] + tail)
    facts = inspect(file, max_pixels=LIMIT, max_frames=FRAMES)
    assert facts.media_type == f"image/{name}"
    assert whole(file, facts)


@pytest.mark.parametrize("tail", FOREIGN.values(), ids=FOREIGN)
def test_nothing_may_stand_behind_an_avif(tail: bytes) -> None:
    assert not kept(SMALL["avif"] + tail)


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "ICO", "JPEG2000", "PPM"])
def test_other_images_are_none_of_ours(form: str) -> None:
    with pytest.raises(Corrupt, match="not a PNG, JPEG, WebP or AVIF"):
        accepted(picture(form))
