"""Media type, size and completeness, held to what Pillow says of the files that it writes."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from storage.errors import Corrupt
from storage.media.formats import MAX_PARTS, CutShort
from storage.media.inspect import TooManyPixels, inspect, is_complete
from tests.support.pictures import grey_of_16_bits, turned

LIMIT = 100_000_000
MEDIA = Path(__file__).parents[1] / "samples" / "media"
TYPES = {
    "PNG": ("image/png", "png"),
    "JPEG": ("image/jpeg", "jpg"),
    "WEBP": ("image/webp", "webp"),
    "AVIF": ("image/avif", "avif"),
    "BMP": ("image/bmp", "bmp"),
    "TIFF": ("image/tiff", "tif"),
}


def picture(form: str, size: tuple[int, int] = (61, 43), mode: str = "RGB", **options: object) -> bytes:
    noise = Image.effect_noise(size, 80).convert(mode)
    file = io.BytesIO()
    noise.save(file, form, **options)
    return file.getvalue()


def animated(form: str, count: int = 2, **options: object) -> bytes:
    file = io.BytesIO()
    first, *others = (Image.new("RGBA", (31, 17), (n * 40, 0, 0, 255)) for n in range(count))
    first.save(file, form, save_all=True, append_images=others, duration=100, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def jpeg_header(width: int, height: int) -> bytes:
    return b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00\xff\xda"


def with_segments(marker: int, count: int) -> bytes:
    """A JPEG with so many segments of 64 KiB before what says how large it is."""
    data = picture("JPEG")
    return data[:2] + (bytes([0xFF, marker, 0xFF, 0xFF]) + bytes(0xFFFD)) * count + data[2:]


def with_thumbnail() -> bytes:
    thumbnail, data = picture("JPEG", (8, 8)), picture("JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + data[2:]


def webp(name: bytes, data: bytes) -> bytes:
    body = b"WEBP" + name + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_canvas(width: int, height: int, more: bytes = b"") -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    data = webp(b"VP8X", bytes(4) + sides) + more
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def huge_avif() -> bytes:
    data = picture("AVIF")
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :]


def huge_bmp() -> bytes:
    data = picture("BMP")
    return data[:18] + struct.pack("<ii", 60_000, -60_000) + data[26:]


def huge_tiff() -> bytes:
    return b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHIIHHIII", 256, 4, 1, 60_000, 257, 4, 1, 60_000, 0)


def short_meta() -> bytes:
    """An AVIF with a box that is longer than the one it lies in."""
    data = picture("AVIF")
    at = data.index(b"meta") - 4
    return data[:at] + struct.pack(">I", 40) + data[at + 4 :]


def open_ended(data: bytes) -> bytes:
    """The same AVIF, whose last box goes on to wherever the file ends."""
    at = data.rindex(b"mdat") - 4
    return data[:at] + bytes(4) + data[at + 4 :]


def from_the_top(data: bytes) -> bytes:
    """The same BMP, whose first row is the top one."""
    (height,) = struct.unpack("<i", data[22:26])
    return data[:22] + struct.pack("<i", -height) + data[26:]


EXIF = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08" + bytes(6)
SAMPLES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("PNG", lambda: picture("PNG")),
    "png of one pixel": ("PNG", lambda: picture("PNG", (1, 1), "1")),
    "png with palette": ("PNG", lambda: picture("PNG", mode="P")),
    "png of 16 bits": ("PNG", grey_of_16_bits),
    "png animated": ("PNG", lambda: animated("PNG")),
    "jpeg": ("JPEG", lambda: picture("JPEG")),
    "jpeg progressive": ("JPEG", lambda: picture("JPEG", progressive=True)),
    "jpeg in ink": ("JPEG", lambda: picture("JPEG", mode="CMYK")),
    "jpeg turned": ("JPEG", lambda: turned("JPEG", 6)),
    "jpeg with thumbnail": ("JPEG", with_thumbnail),
    "jpeg with profile": ("JPEG", lambda: picture("JPEG", icc_profile=bytes(3_000_000), comment=b"x" * 999)),
    "jpeg with 16 MB of metadata": ("JPEG", lambda: with_segments(0xE1, 256)),
    "webp": ("WEBP", lambda: picture("WEBP")),
    "webp lossless": ("WEBP", lambda: picture("WEBP", lossless=True)),
    "webp with alpha": ("WEBP", lambda: picture("WEBP", mode="RGBA")),
    "webp with exif": ("WEBP", lambda: picture("WEBP", exif=b"Exif\x00\x00" + bytes(32))),
    "webp animated": ("WEBP", lambda: animated("WEBP")),
    "avif": ("AVIF", lambda: picture("AVIF")),
    "avif with alpha": ("AVIF", lambda: picture("AVIF", mode="RGBA")),
    "avif with exif": ("AVIF", lambda: picture("AVIF", exif=EXIF)),
    "avif in tiles": ("AVIF", lambda: picture("AVIF", (1500, 900), tile_rows=1, tile_cols=1, speed=10)),
    "avif animated": ("AVIF", lambda: animated("AVIF")),
    "avif turned upside down": ("AVIF", lambda: turned("AVIF", 3)),
    "bmp": ("BMP", lambda: picture("BMP")),
    "bmp of one bit": ("BMP", lambda: picture("BMP", mode="1")),
    "bmp with palette": ("BMP", lambda: picture("BMP", mode="P")),
    "bmp from the top": ("BMP", lambda: from_the_top(picture("BMP"))),
    "tiff": ("TIFF", lambda: picture("TIFF")),
    "tiff in ink": ("TIFF", lambda: picture("TIFF", mode="CMYK")),
    "tiff by lzw": ("TIFF", lambda: picture("TIFF", mode="L", compression="tiff_lzw")),
    "tiff in strips": ("TIFF", lambda: picture("TIFF", (400, 300), compression="tiff_adobe_deflate")),
    "tiff with a jpeg in it": ("TIFF", lambda: picture("TIFF", compression="jpeg")),
    "tiff of 64 bits": ("TIFF", lambda: picture("TIFF", big_tiff=True)),
}
SMALL: dict[str, bytes] = {
    **{form.lower(): picture(form, (9, 7)) for form in TYPES},
    **{f"{form.lower()} animated": animated(form, 3) for form in ("PNG", "WEBP", "AVIF")},
    "jpeg progressive": picture("JPEG", (9, 7), progressive=True),
    "webp extended": picture("WEBP", (9, 7), exif=b"Exif\x00\x00" + bytes(32)),
    "webp lossless": picture("WEBP", (9, 7), lossless=True),
    "avif open-ended": open_ended(picture("AVIF", (9, 7))),
    "tiff by lzw": picture("TIFF", (9, 7), "L", compression="tiff_lzw"),
    "tiff of 64 bits": picture("TIFF", (9, 7), big_tiff=True),
    "heic": (MEDIA / "61x43.heic").read_bytes(),
    "jpeg xl in boxes": (MEDIA / "61x43-in-boxes.jxl").read_bytes(),
}


def kept(data: bytes) -> bool:
    """Return whether a download of these bytes would be kept."""
    file = io.BytesIO(data)
    try:
        return is_complete(file, inspect(file, max_pixels=LIMIT)) is True
    except Corrupt:
        return False


class Counted(io.BytesIO):
    """A file that knows how much of it was read."""

    taken = reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken, self.reads = self.taken + len(data), self.reads + 1
        return data


@pytest.mark.parametrize("name", SAMPLES)
class TestSamples:
    def test_type_and_size_are_pillows(self, name: str) -> None:
        form, make = SAMPLES[name]
        file = io.BytesIO(make())
        file.seek(5)
        facts = inspect(file, max_pixels=LIMIT)
        assert file.tell() == 0
        assert (facts.media_type, facts.extension) == TYPES[form]
        assert is_complete(file, facts)
        assert file.tell() == 0
        assert (facts.width, facts.height) == Image.open(file, formats=[form]).size

    def test_cut_image_is_not_complete(self, name: str) -> None:
        data = SAMPLES[name][1]()
        facts = inspect(io.BytesIO(data), max_pixels=LIMIT)
        for length in {len(data) - 1, len(data) - 2, len(data) - 13, len(data) // 2, 24, 0} - {len(data)}:
            assert not is_complete(io.BytesIO(data[: max(length, 0)]), facts), length

    def test_cut_header_is_corrupt_or_still_true(self, name: str) -> None:
        data = SAMPLES[name][1]()
        facts = inspect(io.BytesIO(data), max_pixels=LIMIT)
        for length in range(min(len(data), 600)):
            try:
                assert inspect(io.BytesIO(data[:length]), max_pixels=LIMIT) == facts
            except Corrupt:
                continue


class TestHeader:
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
            (picture("AVIF")[:40], "header ends in the middle"),
            (short_meta(), "HEIF header is broken"),
            (picture("AVIF").replace(b"ispe", b"free"), "how large"),
            (picture("AVIF").replace(b"pitm", b"free"), "no 'pitm' box"),
            (SMALL["avif"][:0x20] + b"\x00\x00\x00\x01meta" + b"\xff" * 8, "in the middle"),
            (SMALL["avif"][:0x20] + b"\x00\x00\x00\x02meta", "does not fit"),
        ],
    )
    def test_broken_is_corrupt(self, data: bytes, message: str) -> None:
        with pytest.raises(Corrupt, match=message) as caught:
            inspect(io.BytesIO(data), max_pixels=LIMIT)
        assert not isinstance(caught.value, TooManyPixels)

    @pytest.mark.parametrize("place", [2**40, 2**63 - 1, 2**63, 2**64 - 1])
    def test_a_place_that_no_file_has_is_behind_its_end(self, place: int) -> None:
        head, entry = b"II+\0" + struct.pack("<HHQ", 8, 0, 16), struct.Struct("<HHQQ")
        sides = entry.pack(256, 4, 4, place) + entry.pack(257, 4, 1, 5)
        far_tags = head[:8] + struct.pack("<Q", place), head + struct.pack("<Q", 2) + sides
        for data in (*far_tags, SMALL["avif"][:0x20] + struct.pack(">I4sQ", 1, b"meta", place)):
            # Not in memory: what a real file refuses differs.
            with TemporaryFile() as file:
                file.write(data + bytes(50))
                with pytest.raises(CutShort):
                    inspect(file, max_pixels=LIMIT)

    @pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif"])
    def test_cut_is_told_from_broken(self, name: str) -> None:
        for length in range(16, 30):
            with pytest.raises(CutShort):
                inspect(io.BytesIO(SMALL[name][:length]), max_pixels=LIMIT)

    @pytest.mark.parametrize(
        "data",
        [
            huge_bmp(),
            huge_tiff(),
            b"\xff\x0a" + b"\xfe" * 9,
            png_header(2**31 - 1, 2**31 - 1),
            jpeg_header(65_535, 65_535),
            webp_canvas(16_384, 16_384),
            webp(b"VP8L", b"\x2f" + b"\xff" * 8),
            huge_avif(),
        ],
        ids=["bmp", "tiff", "jpeg xl", "png", "jpeg", "webp", "webp lossless", "avif"],
    )
    def test_too_many_pixels(self, data: bytes) -> None:
        with pytest.raises(TooManyPixels, match="the limit is 100000000"):
            inspect(io.BytesIO(data), max_pixels=LIMIT)

    @pytest.mark.parametrize(
        "data",
        [
            b"\xff\xd8" + b"\xff" * (1 << 20),
            b"\xff\xd8\xff\xe0\x00\x04ab" + bytes(1 << 20),
            b"\xff\xd8" + b"\xff\xe0\x00\x02" * (1 << 18),
            SMALL["avif"][:0x20] + b"\x00\x00\x00\x08free" * (1 << 18),
            SMALL["avif"][:0x20] + struct.pack(">I4sI", 1 << 20, b"meta", 0)
            + struct.pack(">I4s", (1 << 20) - 12, b"iprp") + struct.pack(">I4s", (1 << 20) - 20, b"ipma")
            + bytes(1 << 20),
        ],
        ids=["fill bytes", "no marker", "segments", "boxes", "table"],
    )  # fmt: skip
    def test_hostile_bytes_cost_little(self, data: bytes) -> None:
        file = Counted(data)
        with pytest.raises(Corrupt):
            inspect(file, max_pixels=LIMIT)
        assert file.reads <= 3 * MAX_PARTS
        assert file.taken <= 6 * MAX_PARTS


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'


class TestComplete:
    @pytest.mark.parametrize("name", SMALL)
    def test_no_beginning_is_kept_wherever_it_was_cut(self, name: str) -> None:
        data = SMALL[name]
        assert kept(data)
        assert [length for length in range(len(data)) if kept(data[:length])] == []

    def test_open_ended_sequence_counts_as_cut(self) -> None:
        assert not kept(open_ended(animated("AVIF", 3)))

    def test_end_of_further_pictures_in_a_jpeg_is_free(self) -> None:
        file = io.BytesIO()
        first, second = (Image.new("RGB", (9, 7), colour) for colour in ("red", "blue"))
        first.save(file, "MPO", save_all=True, append_images=[second])
        assert kept(file.getvalue())
        assert kept(file.getvalue()[:-2])

    @pytest.mark.parametrize("form", ["jpeg", "jpeg progressive"])
    def test_anything_may_stand_behind_a_jpeg(self, form: str) -> None:
        data = SMALL[form]
        assert kept(data + b"a whole film" * 100_000)
        assert not kept(data[:-2] + b"a whole film" * 100_000)

    def test_end_in_a_table_between_scans_is_none(self) -> None:
        data = SMALL["jpeg progressive"]
        table = data.index(b"\xff\xc4", data.index(b"\xff\xda"))
        fake = b"\xff\xfe\x00\x06\xff\xd9\xff\xd9"
        assert kept(data[:table] + fake + data[table:])
        assert not kept(data[:table] + fake + data[table:-2])

    def test_many_tables_between_scans_are_read_once(self) -> None:
        data = SMALL["jpeg progressive"]
        table = data.index(b"\xff\xc4", data.index(b"\xff\xda"))
        file = Counted(data[:table] + b"\xff\xfe\x00\x02" * 50_000 + bytes(1_000_000) + data[table:])
        assert is_complete(file, inspect(file, max_pixels=LIMIT))
        assert file.taken < 20_000_000

    @pytest.mark.parametrize(("form", "extension"), [(picture("GIF"), "gif"), (SVG, "svg")])
    def test_what_was_asked_for_is_whole_or_cut(self, form: bytes, extension: str) -> None:
        file = io.BytesIO(form)
        facts = inspect(file, max_pixels=LIMIT, also=[extension])
        assert is_complete(file, facts)
        assert not is_complete(io.BytesIO(form[:-1]), facts)

    def test_large_file_is_not_read_whole(self) -> None:
        data = picture("PNG")
        file: BinaryIO = Counted(data[:33] + chunk(b"daRk", bytes(5_000_000)) + data[33:])
        assert is_complete(file, inspect(file, max_pixels=LIMIT))
        assert isinstance(file, Counted)
        assert file.taken < 5000

    @pytest.mark.parametrize(
        "data",
        [
            png_header(9, 7) + chunk(b"tEXt", b"<script>alert(1)</script>") + chunk(b"IEND", b""),
            webp_canvas(9, 7, b"XMP \x1a\x00\x00\x00<script>alert(1)</script> "),
            webp_canvas(9, 7, b"JUNK\xff\xff\xff\x00"),
            webp_canvas(9, 7, b"JUNK\x00\x00\x00\x00" * (1 << 18)),
            SMALL["avif"][: SMALL["avif"].index(b"mdat") - 4],
            SMALL["avif"] + b"\x00\x00\x00\x08free" * 5000,
            struct.pack("<4sI", b"RIFF", 4) + SMALL["webp extended"][8:],
        ],
        ids=["png", "webp", "long chunk", "many chunks", "avif", "many boxes", "webp that announces nothing"],
    )
    def test_header_without_image_data_is_no_image(self, data: bytes) -> None:
        assert not kept(data)


@pytest.mark.parametrize(
    ("root", "size"),
    [
        ('<svg width="20" height="10px">', (20, 10)),
        ("<?xml version='1.0'?>\n<!-- a\nb -->\n<!DOCTYPE svg><svg viewBox='0 0 20.4 10'>", (20, 10)),
        ('<svg width="100%" height="50%" viewBox="0,0,20,10">', (20, 10)),
        ('<svg stroke-width="3" line-height="4">', (300, 150)),
        ("<svg>", (300, 150)),
    ],
)
def test_svg_gives_its_size(root: str, size: tuple[int, int]) -> None:
    facts = inspect(io.BytesIO(f"{root}</svg>".encode()), max_pixels=LIMIT, also=["svg"])
    assert (facts.media_type, (facts.width, facts.height)) == ("image/svg+xml", size)


@pytest.mark.parametrize(
    ("name", "size", "whole"),
    [
        ("61x43.heic", (61, 43), True),
        ("61x43-in-boxes.jxl", (61, 43), True),
        ("61x43-bare.jxl", (61, 43), None),
        ("64x48-in-eights.jxl", (64, 48), None),
        ("320x180-by-ratio.jxl", (320, 180), None),
        ("9000x700.jxl", (9000, 700), None),
    ],
)
def test_heic_and_jpeg_xl(name: str, size: tuple[int, int], whole: bool | None) -> None:
    """Made with libheif and libjxl, of the size in the file's name."""
    with (MEDIA / name).open("rb") as file:
        facts = inspect(file, max_pixels=LIMIT)
        assert (facts.width, facts.height) == size
        kind = name.rpartition(".")[2]
        assert (facts.media_type, facts.extension) == (f"image/{kind}", kind)
        assert is_complete(file, facts) is whole


def test_a_jpeg_xl_of_which_a_part_is_missing_is_cut() -> None:
    part = struct.pack(">I4sI", 20, b"jxlp", 0) + b"\xff\x0a" + bytes(6)
    last = struct.pack(">I4sI", 20, b"jxlp", 0x80000001) + bytes(8)
    head = b"\0\0\0\x0cJXL \r\n\x87\n"
    assert kept(head + part + last)
    assert not kept(head + part)
    assert not kept(head)


FOREIGN = {
    "html": b"<!doctype html><script>alert(1)</script>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "zip": b"PK\x05\x06" + bytes(18),
    "pdf": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
    "gif": picture("GIF"),
    "script": b"#!/bin/sh\necho\n",
}


class TestPolyglot:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x89PNG",
            b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
            b"<html><!-- \x89PNG\r\n\x1a\n -->",
            b" " + picture("PNG"),
            b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(32),
            b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00mif1miaf" + bytes(64),
            b"BM, and how it came to be" + bytes(64),
            b"\x00\x00\x00\x18ftypisom\x00\x00\x00\x00isomavc1avif",
            *(picture(form) for form in ("GIF", "ICO", "JPEG2000", "PPM")),
            *(head + SMALL[name] for head in FOREIGN.values() for name in ("png", "jpeg", "webp", "avif")),
        ],
        ids=lambda data: repr(data[:12]),
    )
    def test_anything_else_is_refused(self, data: bytes) -> None:
        file = io.BytesIO(data)
        with pytest.raises(Corrupt, match="not a PNG, JPEG, WebP, AVIF, BMP, HEIC, TIFF or JPEG XL image"):
            inspect(file, max_pixels=LIMIT)
        assert file.tell() == 0

    @pytest.mark.parametrize("tail", FOREIGN.values(), ids=FOREIGN)
    @pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
    def test_tail_leaves_an_image_of_its_own_type(self, name: str, tail: bytes) -> None:
        file = io.BytesIO(SMALL[name] + tail)
        facts = inspect(file, max_pixels=LIMIT)
        assert facts.media_type == f"image/{name}"
        assert is_complete(file, facts)

    @pytest.mark.parametrize("tail", FOREIGN.values(), ids=FOREIGN)
    def test_nothing_may_stand_behind_an_avif(self, tail: bytes) -> None:
        assert not kept(SMALL["avif"] + tail)


@given(
    kind=st.sampled_from(sorted(TYPES)),
    cuts=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=9)), max_size=5
    ),
)
def test_damage_raises_nothing_but_corrupt(kind: str, cuts: list[tuple[float, bytes]]) -> None:
    data = bytearray(SMALL[kind.lower()])
    for place, patch in cuts:
        at = int(place * len(data))
        data[at : at + len(patch)] = patch
    file = io.BytesIO(data)
    try:
        is_complete(file, inspect(file, max_pixels=LIMIT))
    except Corrupt:
        assert cuts
